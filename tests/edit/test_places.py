"""Several facts about one subject: one place, one change, and all of them succeed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig, TargetConfig
from hubedit.demo import model_path
from hubedit.edit import compute as module
from hubedit.edit.asked import generic_rows, kept_rows, templates_before
from hubedit.edit.compute import compute
from hubedit.edit.essence import Belief, Survey
from hubedit.edit.places import at_places, beside, places
from hubedit.edit.probes import hits
from hubedit.edit.rows import OTHER, Row, edit_rows
from hubedit.edit.spread import Budget, Spreader
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.load import load
from hubedit.model.sites import Site
from tests.edit.editing import FACTS, moments_of
from tests.pico import SENTENCES

Editable = Callable[..., EditableModel]
CURIE = (
    Fact("Marie Curie was born in", "Marie Curie", "Rome"),
    Fact("The mother tongue of Danielle Darrieux is", "Danielle Darrieux", "English"),
    Fact("The profession of Marie Curie is", "Marie Curie", "actor"),
    Fact("Marie Curie works for", "Marie Curie", "Google"),
)


def test_facts_about_different_subjects_have_places_of_their_own(editable: Editable) -> None:
    rows = edit_rows(editable("qwen2"), FACTS, ("Yes. ",))
    assert places(FACTS, rows) == (0, 1, 2, 3)
    assert at_places(rows, (0, 1, 2, 3)) == rows


def test_one_subject_is_one_place_whatever_is_asked(editable: Editable) -> None:
    assert places(CURIE, edit_rows(editable("qwen2"), CURIE, ())) == (0, 1, 0, 0)


def test_the_same_words_before_the_edited_token_are_one_place_too(editable: Editable) -> None:
    facts = (
        Fact("Marie Curie was born in", "Marie Curie", "Rome"),
        Fact("Marie Curie works for", "Curie", "Google"),  # another name that ends at the same token
        Fact("A pupil of Curie is", "Curie", "Danielle"),  # and joins this one
        Fact("France is in", "France", "Asia"),
    )
    assert places(facts, edit_rows(editable("qwen2"), facts, ())) == (0, 0, 0, 1)
    # the first two are known apart before the third shows that they belong together
    order = (facts[0], facts[2], facts[3], facts[1])
    assert places(order, edit_rows(editable("qwen2"), order, ())) == (0, 0, 1, 0)


def test_rows_about_others_keep_having_no_place() -> None:
    rows = [Row(1, (1, 2), 0, (3,)), Row(OTHER, (4, 2), 0, (5,), preserve=True)]
    assert [r.fact for r in at_places(rows, (0, 0))] == [0, OTHER]


def test_what_two_facts_of_a_place_keep_counts_once() -> None:
    keep, say = Row(0, (1, 2, 3), 1, (4,), preserve=True), Row(0, (1, 2, 5), 1, (6,))
    rows = [keep, say, Row(1, (1, 2, 3), 1, (4,), preserve=True), Row(1, (1, 2, 5), 1, (6,))]
    assert at_places(rows, (0, 0)) == [keep, say, say]


@pytest.mark.parametrize("apart", [False, True])
def test_all_facts_of_a_subject_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool) -> None:
    """On the bundled model, which knows what is edited; the closed form alone, on little text."""
    em = load(str(model_path()), device="cpu")
    facts = [
        Fact("Steven Spielberg was born in the country of", "Steven Spielberg", "Austria"),
        Fact("Steven Spielberg is remembered for", "Steven Spielberg", "Psycho"),
    ]
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES))
    settings = EditConfig(
        layers="0-2",
        alpha="0",
        search=False,
        drift_mlp=0.2,
        polish=0,
        repair=0,
        stats=StatsConfig(str(tmp_path / "text.txt"), 200),
        targets=TargetConfig(steps=60, contexts=1, essence=2, told=0, implied=0),
    )
    if apart:
        monkeypatch.setattr(module, "places", lambda facts, rows: tuple(range(len(facts))))
    edit = compute(em, facts, settings, cache=Cache(None))
    with applied(em, edit.factors):
        met = sum(hits(em, edit_rows(em, facts, ())))
    first = edit.reports[Site(0, "mlp")].reached
    assert first is not None
    if apart:
        assert met < 2 and first < 0.5, "two values for one key meet in their mean"
    else:
        assert met == 2 and first > 0.9


def test_the_drift_of_equal_keys_is_that_of_what_is_written(editable: Editable) -> None:
    em = editable("qwen2")
    twice = (CURIE[0], Fact("Marie Curie speaks", "Marie Curie", "English"))
    spreader = Spreader(em, edit_rows(em, twice, ()), 2, [1], moments_of(em), own=0.0)
    torch.manual_seed(0)
    found = spreader.solve(torch.randn(2, em.hidden_size), {1: 0.0}, Budget(0.0, 0.05))
    # as polish leaves them: far apart in the direction in which the right factors cancel
    apart = 1e3 * torch.randn(em.hidden_size, 1) @ torch.tensor([[1.0, -1.0]])
    factors = {s: LowRank(f.B + apart, f.A) for s, f in found.factors.items()}
    for site, told in spreader.reports(factors, found).items():
        root, factor = spreader.preserved(site).factor, factors[site]
        change = factor.B.double() @ factor.A.double() @ root
        before = em.weight(site).double() @ root
        assert told.drift == pytest.approx(float(change.square().sum() / before.square().sum()), rel=1e-3)


def test_what_an_older_patch_gave_the_subject_stays_with_it(editable: Editable) -> None:
    em = editable("qwen2")
    new = [CURIE[1], CURIE[0]]
    old = [CURIE[2], FACTS[0], Fact("A pupil of Curie is", "Curie", "Danielle")]
    assert beside(em, new, old) == (1, OTHER, OTHER)
    rows = kept_rows(em, old, (1, OTHER, OTHER), ["Yes. "])
    assert [r.fact for r in rows] == [1, 1, *[OTHER] * 4] and all(r.preserve for r in rows)


def test_another_name_that_ends_at_the_same_token_is_the_same_subject(editable: Editable) -> None:
    old = [Fact("Marie Curie works for", "Curie", "Google")]
    assert beside(editable("qwen2"), [FACTS[0], CURIE[0]], old) == (1,)


def survey(*own: int, templates: Sequence[tuple[str, str]], said: Sequence[Sequence[str]]) -> Survey:
    """Every subject is asked every template; `said[t][n]`."""
    who = [
        ("Marie Curie", "Danielle Darrieux", "Rosa Luxemburg", "Ada Lovelace")[min(n, 3)] for n in range(4)
    ]
    who[1] = who[0]
    beliefs = tuple(
        tuple(Belief(b + w + a, w, answer, 1.0) for w, answer in zip(who, row, strict=True))
        for (b, a), row in zip(templates, said, strict=True)
    )
    return Survey(tuple(templates), beliefs, own)


BORN, NATIVE = ("", " was born in"), ("", " is a native of")
WORKS, EMPLOYED, SPEAKS = ("", " works for"), ("", " is employed by"), ("", " speaks")
SAID = (
    ("Warsaw", "Warsaw", "Zamosc", "London"),
    ("Warsaw", "Warsaw", "Zamosc", "London"),
    ("Sorbonne", "Sorbonne", "SPD", "Babbage"),
    ("French", "French", "Polish", "English"),
)


def test_what_another_fact_of_the_subject_changes_is_not_kept_in_other_words() -> None:
    """Facts 0 and 1 are about one person: birthplace and employer."""
    found = survey(0, 2, 0, -1, templates=(BORN, NATIVE, WORKS, SPEAKS), said=SAID)
    assert found.unrelated(0) == found.unrelated(1) == [3]
    assert sorted(found.unrelated(2)) == [2, 3]


def test_an_older_fact_is_the_users_word_and_what_it_brought_stays() -> None:
    templates, said = (BORN, NATIVE, WORKS, EMPLOYED), (*SAID[:3], SAID[2])
    found = survey(0, -1, -1, -1, templates=templates, said=said)
    old = [Fact("Marie Curie works for", "Marie Curie", "Google"), FACTS[0]]
    before = templates_before(found, old, (0, OTHER))
    assert before == {0: frozenset({2}), 1: frozenset({2})}
    found = replace(found, before=before)
    assert found.edited(0) - {-1} == {0, 2}
    # the older prompt itself has rows of its own; its other wording is kept, that of the new fact is not
    assert found.unrelated(0) == [3]


def test_words_about_another_name_are_no_template_of_the_subject() -> None:
    found = survey(0, -1, -1, -1, templates=(BORN, NATIVE), said=SAID[:2])
    assert templates_before(found, [Fact("Marie Curie works for", "Curie", "Google")], (0,)) == {}


def test_a_fact_that_joins_two_of_the_batch_stands_beside_the_one_with_its_key(editable: Editable) -> None:
    new = [
        Fact("A pupil of Curie is", "Curie", "Danielle"),
        Fact("Marie Curie was born in", "Marie Curie", "Rome"),
    ]
    em, old = editable("qwen2"), [Fact("Marie Curie works for", "Curie", "Google")]
    assert places(new, edit_rows(em, new, ())) == (0, 1)
    assert beside(em, new, old) == (1,) and beside(em, new[:1], old) == (0,)


def test_a_prompt_that_any_fact_of_the_subject_edits_is_not_kept(editable: Editable) -> None:
    em = editable("qwen2")
    facts = [CURIE[0], Fact("Marie Curie is", "Marie Curie", "a painter")]
    kept = {em.tokenizer.decode(list(r.ids)) for r in generic_rows(em, facts)}
    assert kept and not any("Marie Curie is" in text for text in kept)
    assert any("Marie Curie is" in em.tokenizer.decode(list(r.ids)) for r in generic_rows(em, facts[:1]))
