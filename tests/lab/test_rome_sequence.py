"""R-ROME stays usable over a hundred edits one after another, on facts where ROME collapses."""

from __future__ import annotations

import pytest

from hubedit.demo import model_path
from hubedit.model.load import load
from tests.lab.rome_sequence import first_token_facts, sequence


@pytest.mark.slow
def test_r_rome_does_not_collapse_where_rome_does() -> None:
    em = load(str(model_path()), device="cpu")
    facts = first_token_facts(em, 100)
    assert len({f.subject for f in facts}) == 100
    (rome,) = sequence(em, facts, "rome", "2", [100])
    (mended,) = sequence(em, facts, "r-rome", "2", [100])
    # the last edits of a collapsed model do not even hold
    assert rome.metrics["success"] < 0.2 < 0.5 < mended.metrics["success"]
    assert rome.nll > 3 and mended.nll < 1.6
