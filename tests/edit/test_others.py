"""Other subjects in text: where their name stands, whose kind they are, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig
from hubedit.edit import asked, kinds, stages
from hubedit.edit import others as others_module
from hubedit.edit.asked import prepare
from hubedit.edit.essence import survey
from hubedit.edit.kinds import alike
from hubedit.edit.others import companions, enough, named, others
from hubedit.edit.result import Clock
from hubedit.edit.templates import Template
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.progress import Silent
from tests.edit.editing import FACTS

Editable = Callable[..., EditableModel]

BORN, TONGUE = ("", " was born in"), ("The mother tongue of ", " is")


def test_names_stand_between_the_words_of_a_phrasing_at_the_start_of_a_sentence() -> None:
    texts = [
        "Ada Lovelace was born in London. The mother tongue of Rollo is Norse. It was born in haste",
        "They say Bob was born in Oslo; so what?\nEve was born in the city of Rome",
    ]
    found = named(texts, [BORN, TONGUE, ("", " was born in the city of")], [], 9)
    assert found == ["Ada Lovelace", "Rollo", "It", "They say Bob", "Eve"]


def test_as_many_others_are_looked_for_as_are_edited(
    editable: Editable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [enough(n) for n in (1, 200, 500, 10**6)] == [200, 200, 500, 1000]
    texts = [f"Person{n} was born in Rome. " for n in range(9)]
    assert named(texts, [BORN], [], 4) == [f"Person{n}" for n in range(4)]
    # both where templates are heard and where answers are asked
    monkeypatch.setattr(others_module, "LEAST_SUBJECTS", 2)
    counts: list[int] = []

    def counted(texts: Any, phrasings: Any, known: Any, most: int) -> list[str]:
        counts.append(most)
        return []

    for place in (others_module, asked):
        monkeypatch.setattr(place, "named", counted)
    prepare(editable("qwen2"), FACTS, EditConfig(), [], [])
    assert counts == [2, len(FACTS), len(FACTS)]
    # and more text is read for more facts than the statistics need
    config = EditConfig(layers="0-1", alpha="0", stats=StatsConfig(tokens=60))
    em, read = editable("qwen2"), []
    for each in (1, 50):
        monkeypatch.setattr(stages, "READ_EACH", each)
        ground = stages.measure(em, FACTS, config, Cache(tmp_path), Silent(), Clock())
        read.append(sum(map(len, ground.corpus)) - sum(map(len, ground.text)))
    assert read == [60, 50 * len(FACTS)]


def test_edited_subjects_and_long_or_empty_names_are_left_out() -> None:
    texts = [
        "Ada Lovelace was born in London. Countess Ada Lovelace was born in London.",
        " was born in Rome. One two three four five six seven was born in Rome. Ada Smith was born in Ulm.",
    ]
    assert named(texts, [BORN], ["Ada Lovelace"], 9) == ["Ada Smith"]
    assert named(texts, [("The name of ", ""), ("", " ")], [], 9) == []


def test_subjects_are_of_the_kind_whose_next_words_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    people, towns = torch.tensor([0.8, 0.2, 0.0]), torch.tensor([0.0, 0.1, 0.9])
    table = {"Ada": people, "Bea": people, "Cyd": people, "Ulm": towns, "Bonn": towns}
    monkeypatch.setattr(kinds, "next_token", lambda em, texts: torch.stack([table[t] for t in texts]))
    about = [("Ada", "Bea"), ("Ulm",)]
    em: Any = None
    assert alike(em, about, ["Cyd", "Bonn"]) == ((True, False), (False, True))
    assert alike(em, about, ["Ada", "Bea", "Ulm"]) == ((True, True, False), (False, False, True))


def test_a_template_is_not_about_subjects_after_which_its_words_surprise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = {"Ada": -2.0, "Bea": -2.5, "Cyd": -5.9, "Ulm": -6.3}
    monkeypatch.setattr(kinds, "alike", lambda em, about, who: tuple((True,) * len(who) for _ in about))
    monkeypatch.setattr(kinds, "_expected", lambda em, pairs: [expected[s] for s, _ in pairs])
    em: Any = None
    born = Template("", " was born in", ("Ada", "Bea"))
    assert kinds.suited(em, [born], ["Cyd", "Ulm", "Ada"]) == ((True, False, True),)
    assert kinds.suited(em, [Template("I met ", "", ("Ada",))], ["Ulm"]) == ((True,),), "no words to expect"


def test_a_phrasing_is_looked_at_only_where_those_before_do_not_fit() -> None:
    asked: list[list[tuple[int, int]]] = []

    class Stub:
        def fit(self, pairs: list[tuple[int, int]]) -> list[bool]:
            asked.append(pairs)
            return [pair in {(0, 7), (3, 8)} for pair in pairs]

    phrasings = {(7, 0): [0, 3], (8, 0): [0, 3], (9, 0): [3]}
    stub: Any = Stub()
    assert others_module._first(stub, phrasings) == {(7, 0): 0, (8, 0): 3}
    assert asked == [[(0, 7), (0, 8), (3, 9)], [(3, 8)]]


def test_the_bundled_model_expects_a_city_to_lie_somewhere_and_a_person_to_be_born() -> None:
    from hubedit.demo import model_path

    em = load(str(model_path()), device="cpu")
    lies = Template("", " lies in the country of", ("Vienna", "Bangkok", "Prague"))
    born = Template("", " was born in the country of", ("Marie Curie", "Franz Schubert", "Jules Verne"))
    found = kinds.suited(em, [lies, born], ["Lisbon", "Hamburg", "Audrey Hepburn", "Raphael"])
    assert found == ((True, True, False, False), (False, False, True, True))


def test_next_tokens_are_those_of_the_subject_alone(editable: Editable) -> None:
    em = editable("gpt2")
    found = kinds.next_token(em, ["Rome", "Marie Curie"])
    assert torch.allclose(found.sum(1), torch.ones(2), atol=1e-5)
    alone = kinds.next_token(em, ["Rome"])
    torch.testing.assert_close(found[:1], alone)


def test_the_bundled_models_text_names_people_that_are_asked_the_batchs_questions() -> None:
    from hubedit.demo import facts_path, model_path
    from hubedit.facts import load_facts

    em = load(str(model_path()), device="cpu")
    facts = load_facts(facts_path()).facts[:30]
    asked = survey(em, facts)
    assert asked.fits and not all(all(row) for row in asked.fits), "people and cities are told apart"
    edited = {f.subject for f in facts}
    people = [f.subject for f in load_facts(facts_path()).facts[30:]]
    before, after = asked.templates[0]
    texts = [f"{before}{who}{after} nowhere." for who in people]
    found = others(em, facts, asked, texts)
    beliefs = found.sample(0)
    assert beliefs and len(beliefs) <= 2 * len(found.beliefs)
    for belief in beliefs:
        assert belief.subject in people and belief.subject not in edited
        assert belief.subject in belief.prompt and belief.answer
    assert {t for own in found.beliefs.values() for t in own} <= set(asked.relation)
    assert others(em, facts, asked, []).sample(0) == ()
    assert beliefs == others(em, facts, asked, texts).sample(0)


def test_a_single_fact_is_joined_by_others_of_its_kind_and_a_large_batch_is_not() -> None:
    from hubedit.demo import facts_path, model_path
    from hubedit.facts import load_facts

    em = load(str(model_path()), device="cpu")
    facts = load_facts(facts_path()).facts
    alone = facts[0]
    before, after = alone.template
    same = [f.subject for f in facts[1:] if f.template == alone.template and f.subject != alone.subject]
    texts = [f"{before}{who}{after} nowhere." for who in (*same, alone.subject)]
    joined = companions(em, [alone], texts, 4)
    assert joined and joined == same[:3]
    assert companions(em, facts[:60], texts, 4) == []
    assert companions(em, [alone], ["Nothing of the kind."], 4) == []
    asked = survey(em, [alone], companions=joined)
    assert [b.subject for b in asked.beliefs[0]] == [alone.subject, *joined]
    assert set(asked.own[1:]) == {-1}, "nothing is edited about them"
