"""What the ledger says holds is what the model answers, whatever was done to a patch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubedit.cache import Cache
from hubedit.facts import Fact
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import decode, encode
from hubedit.patch import Patch
from hubedit.patch.compose import ConflictError, compose
from hubedit.patch.ledger import steps_of, without_facts, without_step
from hubedit.pipeline import apply_facts
from hubedit.standing import Standing, standing
from tests.quick import QUICK

Editable = Callable[..., EditableModel]
# a random model learns an answer of one token, right behind the subject, and none of four
FACTS = tuple(
    Fact(f"They live in {place}", place, target)
    for place, target in (("Kyoto", "the"), ("Warsaw", "in"), ("Ulm", "French"), ("Vienna", "and"))
)
STRONG = replace(
    QUICK, collapse="tell", lam=1.0, targets=replace(QUICK.targets, steps=10, step=0.3, clamp=2.0, rounds=1)
)


def answers(em: EditableModel, patch: Patch) -> dict[str, bool]:
    """Whether weights and patch, added up, write each target, token by token, without a cache or hooks."""
    model: Any = copy.deepcopy(em.model)
    for module, factor in patch.factors.items():
        model.get_submodule(module).weight.data += factor.dense()
    found = {}
    for fact in patch.facts:
        ids = list(encode(em.tokenizer, fact.prompt).ids)
        start = len(ids)
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in em.eos_ids:
                break
        found[fact.prompt] = gives(decode(em.tokenizer, ids[start:]), [fact.target])
    return found


def agreed(em: EditableModel, patch: Patch) -> Standing:
    found = standing(em, patch)
    assert {o.fact.prompt: o.success for o in found.outcomes} == answers(em, patch)
    assert [asked for _, asked, _ in found.steps] == [step["facts"] for step in steps_of(patch)]
    assert sum(held for _, _, held in found.steps) == len(patch.facts) - len(found.failed)
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("standing"))


@settings(max_examples=2, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(["on", "again", "compose", "step", "fact"]), st.integers(0, 11)),
        min_size=4,
        max_size=5,
    )
)
def test_random_sequences(
    editable: Editable, cache: Cache, tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]
) -> None:
    em, folder = editable(), tmp_path_factory.mktemp("sequence")

    def made(facts: Sequence[Fact], on: Patch | None, name: str) -> Patch:
        apply_facts(em, facts, STRONG, out=folder / name, on=on, cache=cache)
        return Patch.load(folder / name)

    patch = made(FACTS[:1], None, "first")
    for number, (kind, draw) in enumerate(moves):
        fact = replace(FACTS[draw % len(FACTS)], target=("the", "is", "French")[draw % 3])
        try:
            if kind == "on":
                patch = made([fact], patch, f"on-{number}")
            elif kind == "again" and (failed := standing(em, patch).failed):
                patch = made(failed, patch, f"again-{number}")
                assert steps_of(patch)[-1]["facts"] == len(failed)
            elif kind == "compose":
                patch = compose([patch, made([fact], None, f"alone-{number}")])
            elif kind == "step" and len(steps_of(patch)) > 1:
                patch = without_step(patch, str(steps_of(patch)[draw % len(steps_of(patch))]["id"]))
            elif kind == "fact" and len(patch.facts) > 1:
                patch = without_facts(patch, [draw % len(patch.facts)])
        except ConflictError:
            assert fact.prompt in {f.prompt for f in patch.facts}
        patch.save(folder / f"state-{number}")
        patch = Patch.load(folder / f"state-{number}")
        agreed(em, patch)


def test_some_hold_and_some_do_not(editable: Editable, cache: Cache, tmp_path: Path) -> None:
    em = editable()
    apply_facts(em, FACTS, STRONG, out=tmp_path / "p", cache=cache)
    found = agreed(em, Patch.load(tmp_path / "p"))
    assert 0 < len(found.failed) < len(FACTS), "the sequences above would tell nothing"
