"""The names at the top of hubedit: light to import, and called as they are documented."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hubedit
import hubedit.edit.rows
from hubedit.cache import Cache
from hubedit.errors import PatchError
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.tokens import encode, pad
from tests.quick import FACTS, QUICK

Editable = Callable[..., EditableModel]
OTHER = (Fact("The capital of Japan is", "Japan", "Paris"),)


def logits(em: EditableModel, text: str) -> torch.Tensor:
    found = run(em, pad([encode(em.tokenizer, text).ids], em.pad_id), logits=True).logits
    assert found is not None
    return found[0, -1]


def test_the_names_are_there_and_importing_them_waits_for_nothing() -> None:
    code = """
import sys
import hubedit
assert {"load", "edit", "evaluate", "merge", "revert", "push", "Patch", "Fact"} <= set(dir(hubedit))
heavy = {"torch", "transformers", "peft", "numpy", "huggingface_hub", "jinja2"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert all(getattr(hubedit, name) for name in hubedit.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        getattr(hubedit, "nothing")  # noqa: B009


def test_a_verb_is_a_function_and_the_package_of_what_it_does() -> None:
    assert list(inspect.signature(hubedit.edit).parameters)[:3] == ["model", "facts", "config"]
    assert list(inspect.signature(hubedit.evaluate).parameters)[:2] == ["model", "facts"]
    assert inspect.ismodule(sys.modules["hubedit.edit.rows"])


def test_an_edit_in_memory_is_what_apply_writes(editable: Editable, tmp_path: Path) -> None:
    from hubedit.pipeline import apply_facts

    em, cache = editable(), Cache(tmp_path / "cache")
    patch = hubedit.edit(em, FACTS, QUICK, cache=cache)
    written = apply_facts(em, FACTS, QUICK, out=tmp_path / "patch", cache=cache).patch
    assert patch.facts == written.facts == FACTS
    assert {m: torch.equal(f.B, written.factors[m].B) for m, f in patch.factors.items()} == dict.fromkeys(
        written.factors, True
    )
    saved = hubedit.Patch.load(patch.save(tmp_path / "saved"))
    assert saved.facts == FACTS and saved.record["config"] == written.record["config"]


def test_a_patch_and_a_patch_is_their_sum(editable: Editable, tmp_path: Path) -> None:
    em, cache = editable(), Cache(tmp_path)
    one, two = (hubedit.edit(em, facts, QUICK, cache=cache) for facts in (FACTS, OTHER))
    both = one + two
    assert both.facts == (*one.facts, *two.facts)
    for module, factor in both.factors.items():
        dense = one.factors[module].dense() + two.factors[module].dense()
        torch.testing.assert_close(factor.dense(), dense)
    moved = logits(em.with_patch(both), "The capital of Japan is")
    torch.testing.assert_close(
        moved, logits(em.with_patch(one).with_patch(two), "The capital of Japan is"), atol=1e-4, rtol=1e-4
    )
    again = hubedit.edit(em, FACTS, replace(QUICK, lam=1.0), cache=cache)
    with pytest.raises(PatchError, match="edit the same facts"):
        one + again


def test_a_patch_counts_as_itself_its_folder_or_its_model(editable: Editable, tmp_path: Path) -> None:
    em, cache = editable(), Cache(tmp_path / "cache")
    patch = hubedit.edit(em, FACTS, QUICK, cache=cache)
    folder = patch.save(tmp_path / "patch")
    reports = [hubedit.evaluate(em, FACTS, patch=p, cache=cache) for p in (patch, folder, str(folder))]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]["facts"][0]["probability_after"] != reports[0]["facts"][0]["probability_before"]
    alone = hubedit.evaluate(em.with_patch(patch), FACTS, cache=cache)
    assert alone["metrics_before"]["success"] == reports[0]["metrics"]["success"]
    assert "metrics" not in hubedit.evaluate(em, FACTS, cache=cache)
    stacked = hubedit.edit(em, OTHER, QUICK, on=folder, cache=cache)
    assert stacked.facts == (*FACTS, *OTHER)


def test_a_patch_goes_into_the_weights_and_out_again(editable: Editable, tmp_path: Path) -> None:
    em, cache = editable(), Cache(tmp_path / "cache")
    patch = hubedit.edit(em, FACTS, QUICK, cache=cache)
    done = hubedit.merge(patch, tmp_path / "merged")
    assert [part.name for part in done.record.patches] == ["patch 1"]
    merged = hubedit.load(str(done.path), device="cpu")
    prompt = FACTS[0].prompt
    torch.testing.assert_close(
        logits(merged, prompt), logits(em.with_patch(patch), prompt), atol=1e-4, rtol=1e-4
    )
    back = hubedit.revert(done.path)
    assert back.record is None
    assert hubedit.load(str(done.path), device="cpu").weights_hash() == em.weights_hash()


def test_with_patch_refuses_another_model_s_patch(editable: Editable, tmp_path: Path) -> None:
    patch = hubedit.edit(editable(), FACTS, QUICK, cache=Cache(tmp_path))
    with pytest.raises(PatchError, match="has no editable module"):
        editable("gpt2").with_patch(patch)
