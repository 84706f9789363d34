"""Every method, batches and an edit on a patch give the factors that they gave when they were stored."""

from __future__ import annotations

import json

import pytest

from tests.edit.golden import STORED, cases, demo, sketch


def test_the_factors_are_those_that_were_stored() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    found = {name: {m: sketch(f) for m, f in factors.items()} for name, factors in cases(*demo())}
    assert list(found) == list(stored)
    for name, modules in stored.items():
        assert set(found[name]) == set(modules), name
        for module, numbers in modules.items():
            assert found[name][module] == pytest.approx(numbers, rel=2e-3, abs=2e-2), (name, module)
