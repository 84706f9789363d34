"""What the model believes about the edited subjects, sorted by relation, on surveys made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from hubedit.edit.essence import Belief, Survey, choose, survey
from hubedit.facts import Fact
from hubedit.facts.answers import clip
from hubedit.model.editable import EditableModel
from hubedit.model.generate import answers, greedy
from tests.edit.editing import FACTS

Editable = Callable[..., EditableModel]

TOWNS = ["Lyon", "Nice", "Rome", "Milan", "Bonn", "Ulm", "Lyon", "Rome"]
LANDS = {"France": ("Lyon", "Nice"), "Italy": ("Rome", "Milan"), "Germany": ("Bonn", "Ulm")}
COUNTRY = {town: land for land, towns in LANDS.items() for town in towns}
SPORTS = ["chess", "golf", "golf", "judo", "chess", "polo", "judo", "polo"]


def made(answers: Sequence[Sequence[str]], own: Sequence[int] = (), confidence: float = 0.9) -> Survey:
    """A survey with these answers: `answers[template][subject]`."""
    return Survey(
        tuple(("", f" relation {t}") for t in range(len(answers))),
        tuple(
            tuple(Belief(f"s{n} relation {t}", f"s{n}", a, confidence) for n, a in enumerate(row))
            for t, row in enumerate(answers)
        ),
        tuple(own) or (0,) * len(answers[0]),
    )


def relations() -> Survey:
    """0: born in; 1: the same in other words, wrong now and then; 2: citizen of; 3: plays."""
    rephrased = [t.upper() + "." if n != 3 else "Oslo" for n, t in enumerate(TOWNS)]
    return made([TOWNS, rephrased, [COUNTRY[t] for t in TOWNS], SPORTS])


def test_a_paraphrase_gets_mostly_the_same_answers() -> None:
    found = relations()
    assert found.same(0, 1) and found.same(1, 0) and found.same(2, 2)
    assert not found.same(0, 2) and not found.same(0, 3)
    assert found.paraphrases(0) == [1]


def test_what_follows_is_told_from_what_does_not() -> None:
    """Born in Lyon, citizen of France; no sport follows from a birthplace, nor the town from the country."""
    towns = TOWNS * 3
    found = made([towns, [COUNTRY[t] for t in towns], (SPORTS + SPORTS[::-1] + SPORTS[4:] + SPORTS[:4])])
    assert found.follows(0, 1)
    assert not found.follows(0, 2)
    assert not found.follows(1, 0)
    assert not found.follows(2, 1)


def test_few_subjects_show_no_implication() -> None:
    assert not made([["a", "a"], ["b", "b"]]).follows(0, 1)


def test_an_answer_that_everybody_gets_follows_from_nothing() -> None:
    """Agreement by chance is no implication."""
    found = made([TOWNS * 3, ["yes"] * 24])
    assert not found.follows(0, 1)


def test_unrelated_beliefs_are_those_of_other_relations() -> None:
    towns = TOWNS * 3
    sports = SPORTS + SPORTS[::-1] + SPORTS[4:] + SPORTS[:4]
    found = made([towns, towns, [COUNTRY[t] for t in towns], sports])
    assert found.unrelated(0) == [3]


def test_doubtful_empty_and_coinciding_beliefs_are_left_out() -> None:
    sure = made([TOWNS, SPORTS])
    assert sure.unrelated(0) == [1]
    assert made([TOWNS, SPORTS], confidence=0.05).unrelated(0) == []
    assert made([TOWNS, ["", *SPORTS[1:]]]).unrelated(0) == []
    assert made([TOWNS, ["lyon.", *SPORTS[1:]]]).unrelated(0) == []


def test_a_fact_whose_template_was_not_asked_keeps_every_sure_belief() -> None:
    found = made([TOWNS, SPORTS], own=(-1,) * 8)
    assert found.unrelated(0) == [0, 1]
    assert found.paraphrases(0) == []


def test_the_most_confident_comes_first() -> None:
    beliefs = tuple(
        tuple(Belief("p", "s", f"{t}{n}", 0.4 + 0.1 * ((t * 2) % 5)) for n in range(8)) for t in range(5)
    )
    found = Survey(tuple(("", str(t)) for t in range(5)), beliefs, (0,) * 8)
    confidences = [beliefs[t][0].confidence for t in found.unrelated(0)]
    assert confidences == sorted(confidences, reverse=True)


def test_choosing_is_seeded_bounded_and_takes_unrelated_beliefs_only() -> None:
    answers = [TOWNS] + [[f"{t}-{n}" for n in range(8)] for t in range(9)]
    found = made(answers)
    facts = [Fact(f"s{n} relation 0", f"s{n}", "x") for n in range(8)]
    kept = choose(found, facts, 4, seed=0)
    assert kept == choose(found, facts, 4, seed=0)
    assert kept != choose(found, facts, 4, seed=1)
    for n, own in enumerate(kept):
        allowed = {found.beliefs[t][n] for t in found.unrelated(n)}
        assert len(own) == len(set(own)) == 4
        assert set(own) <= allowed


def test_what_another_fact_of_the_batch_edits_is_not_preserved() -> None:
    """Two facts about one subject: neither may hold on to the answer that the other one changes."""
    found = made([TOWNS[:4] + TOWNS[:1], SPORTS[:4] + SPORTS[:1]], own=(0, 0, 0, 0, 1))
    facts = [Fact(f"s{n} relation 0", f"s{n}", "x") for n in range(4)]
    facts.append(Fact("s0 relation 1", "s0", "y"))
    beliefs = tuple(
        tuple(replace(b, subject=f.subject) for b, f in zip(row, facts, strict=True)) for row in found.beliefs
    )
    kept = choose(replace(found, beliefs=beliefs), facts, 4, seed=0)
    assert all(b.answer != SPORTS[0] for b in kept[0])
    assert all(b.answer != TOWNS[0] for b in kept[4])


def test_other_subjects_show_an_implication_that_the_batch_is_too_small_for() -> None:
    small = made([["Lyon", "Rome"], ["France", "Italy"], ["chess", "golf"]])
    assert not small.follows(0, 1)
    told = zip(TOWNS * 2, SPORTS + SPORTS[::-1], strict=True)
    others = {f"o{n}": {0: t, 1: COUNTRY[t], 2: s} for n, (t, s) in enumerate(told)}
    found = replace(small, others=others)
    assert found.follows(0, 1)
    assert not found.follows(0, 2)
    assert found.unrelated(0) == [2]


def test_one_of_every_relation_is_kept_before_a_second_of_any() -> None:
    pets = [f"pet {n}" for n in range(8)]
    found = made([TOWNS, SPORTS, SPORTS, SPORTS, pets])
    assert found.relation == (0, 1, 1, 1, 4)
    facts = [Fact(f"s{n} relation 0", f"s{n}", "x") for n in range(8)]
    for seed in range(5):
        for n, kept in enumerate(choose(found, facts, 2, seed)):
            assert {b.answer for b in kept} == {SPORTS[n], pets[n]}


def test_no_answer_is_no_agreement() -> None:
    assert not made([["Lyon", "", "", ""], ["chess", "", "", ""]]).same(0, 1)


def test_a_survey_asks_every_template_of_the_subjects_that_it_fits(editable: Editable) -> None:
    em = editable()
    found = survey(em, FACTS)
    assert found.templates == tuple(f.template for f in FACTS)
    assert found.own == (0, 1, 2, 3)
    for t, (before, after) in enumerate(found.templates):
        for n, fact in enumerate(FACTS):
            belief = found.beliefs[t][n]
            assert (belief.prompt, belief.subject) == (before + fact.subject + after, fact.subject)
            said = clip(greedy(em, [belief.prompt], 8)[0])
            assert belief.answer == (said if found.fits[t][n] else "")
            sure = answers(em, [belief.prompt], 8)[0].confidence if found.fits[t][n] else 0.0
            assert belief.confidence == pytest.approx(sure, rel=1e-3)


def test_facts_of_one_template_are_asked_once(editable: Editable) -> None:
    facts = [Fact(f"The capital of {s} is", s, "x") for s in ("France", "Italy", "Japan")]
    found = survey(editable(), facts)
    assert found.templates == (("The capital of ", " is"),)
    assert found.own == (0, 0, 0)
    assert [found.unrelated(n) for n in range(3)] == [[], [], []]
