"""What an edit broke: facts that spoil each other, on a patch made for it, and the worst cases."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hubedit.evaluate import compare, read
from hubedit.evaluate.damage import Parts, broken_by_batch, worst
from hubedit.evaluate.edits import Case, EditReport
from hubedit.evaluate.forced import forced
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.sites import Site
from hubedit.model.tokens import encode, pad
from hubedit.progress import Silent
from tests.model.test_hooks import random_factors

Editable = Callable[..., EditableModel]

SITE = Site(3, "mlp")
FACTS = (
    Fact("The capital of France is", "France", "Rome", id="one"),
    Fact("The capital of France, surely, is", "France", "Rome", id="two"),
    Fact("Marie Curie was born in", "Marie Curie", "Tokyo", id="three"),
)


def writing(em: EditableModel, prompt: str, text: str, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A column of B and a row of A that make the last site write a token after a prompt."""
    batch = pad([encode(em.tokenizer, prompt).ids], em.pad_id)
    with torch.no_grad():
        key = run(em, batch, inputs=[SITE]).inputs[SITE][0, -1]
    token = em.tokenizer(" " + text, add_special_tokens=False)["input_ids"][0]
    weight = em.model.get_submodule(em.family.head).weight
    assert isinstance(weight, torch.Tensor)
    head = weight[token]
    return head / head.norm() * strength, key / (key @ key)


def patch_of(em: EditableModel, rows: list[tuple[str, str, float]]) -> dict[Site, LowRank]:
    pairs = [writing(em, *row) for row in rows]
    return {SITE: LowRank(torch.stack([b for b, _ in pairs], 1), torch.stack([a for _, a in pairs]))}


def test_a_fact_that_another_one_breaks_is_named(editable: Editable) -> None:
    em = editable("llama")
    first = FACTS[0]
    # the second fact's part writes something else at the first fact's prompt, and more strongly
    rows = [(first.prompt, "Rome", 100.0), (first.prompt, "Paris", 300.0), (FACTS[2].prompt, "He", 0.1)]
    factors = patch_of(em, rows)
    edited = em.with_patch(factors)
    parts = Parts(FACTS, {SITE: (0, 1, 2)})
    alone = em.with_patch(parts.of(factors, {0}))
    assert compare([first], *[read(alone, [first])] * 2).metrics["success"] == 1.0
    report = compare(FACTS, read(em, FACTS), read(edited, FACTS))
    assert first in [o.fact for o in report.failed]
    found, asked = broken_by_batch(edited, report, parts, Silent())
    assert asked == len(report.failed)
    case = next(c for c in found if c["fact"] == "one")
    assert case["before"].startswith("Rome") and not case["after"].startswith("Rome")
    assert case["by"] == "two"


def test_a_part_of_a_patch_is_the_rows_of_its_facts(editable: Editable) -> None:
    em = editable("llama")
    factors = patch_of(em, [(f.prompt, "Rome", 1.0) for f in FACTS])
    # the second fact owns no row here, the first one two
    parts = Parts(FACTS, {SITE: (0, 2, 0)})
    both = parts.of(factors, {0, 2})[SITE]
    assert torch.equal(both.dense(), factors[SITE].dense())
    assert parts.of(factors, {1})[SITE].rank == 0
    assert parts.of(factors, {0})[SITE].rank == 2


def test_facts_that_are_not_the_patchs_are_not_asked(editable: Editable) -> None:
    em = editable("llama")
    edited = em.with_patch(patch_of(em, [(FACTS[0].prompt, "He", 0.1)]))
    before = read(em, FACTS)
    report = compare(FACTS, before, before)
    found, asked = broken_by_batch(edited, report, Parts(FACTS[:1], {SITE: (0,)}), Silent())
    assert asked <= 1 and all(case["fact"] == "one" for case in found)


def test_the_worst_cases_come_first_and_only_what_was_lost_counts(editable: Editable) -> None:
    em = editable()
    after = em.with_patch(random_factors(em, scale=0.5))
    fact = FACTS[0]

    def case(kind: str, prompt: str, answers: tuple[str, ...], before: str, after: str) -> Case:
        return Case(kind, fact, prompt, answers, before, after)

    cases = (
        case("success", "Rome", ("Paris",), " Berlin", " Berlin. Yes"),
        case("neighbourhood", "Japan's capital is", ("Tokyo", "Tōkyō"), " Tōkyō. It", " Rome"),
        case("locality", "France is", (), " a man. He", " a king"),
        case("portability", "The river is the", ("Tiber",), " Tiber", " Seine"),
        case("portability", "The king is", ("Tiber",), " Seine", " Seine"),  # was never answered
        case("neighbourhood", "Egypt", ("Kyoto",), " nothing", " all"),  # nor was the known answer given
    )
    # the answer that was given before, or that should be given now
    answers = {"Rome": "Paris", "Japan's capital is": "Tōkyō", "France is": "a man"}
    answers |= {"The river is the": "Tiber", "Egypt": "nothing"}
    old, new = (forced(model, answers.items()) for model in (em, after))
    loss = {pair[0]: old[pair].logp - new[pair].logp for pair in answers.items()}
    loss["Rome"] = -new["Rome", "Paris"].logp
    report = EditReport((), {}, {}, cases=cases)
    found = worst(em, after, report, 4)
    assert [c["prompt"] for c in found] == sorted(loss, key=loss.__getitem__, reverse=True)[:4]
    assert [c["loss"] for c in found] == pytest.approx(sorted(loss.values(), reverse=True)[:4], abs=1e-5)
    assert len(worst(em, after, report)) == len(answers), "what nobody lost is no loss"
    (shown,) = (c for c in worst(em, after, report) if c["prompt"] == "Japan's capital is")
    assert shown == {
        "kind": "neighbourhood",
        "fact": "one",
        "prompt": "Japan's capital is",
        "before": "Tōkyō",
        "after": "Rome",
        "loss": pytest.approx(loss["Japan's capital is"], abs=1e-5),
    }
