"""The canonical form: what is written is read back as the same fact, whatever is in it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubedit.errors import FactsError
from hubedit.facts import Fact, Probe, dump_facts, from_record, load_facts, to_record
from hubedit.facts.text import clean, loose

# words in normal form; braces, quotes, line separators and many scripts among them
_words = (
    st.text(
        st.one_of(
            st.characters(exclude_categories=["Cs"]), st.sampled_from('{}"\\\u2028\u00e9e\u0301 \t\ufeff,;')
        ),
        max_size=12,
    )
    .map(clean)
    .filter(bool)
)
_answers = st.lists(_words, max_size=3, unique=True).map(tuple)
_probes = st.lists(st.builds(Probe, _words, _answers, st.one_of(st.just(""), _words)), max_size=3).map(tuple)


@st.composite
def _facts(draw: st.DrawFn) -> Fact:
    subject, before, target = draw(_words), draw(st.one_of(st.just(""), _words)), draw(_words)
    fact = Fact(
        prompt=clean(f"{before} {subject} x"),
        subject=subject,
        target="new " + target,
        id=draw(st.one_of(st.just(""), _words)),
        ground_truth=draw(_answers),
        rephrase=draw(_answers),
        locality=draw(_probes),
        portability=draw(_probes),
    )
    # `{}` in a text that is not the subject's own is a placeholder, so such facts are none to be kept
    try:
        return from_record(to_record(fact))
    except FactsError:
        return Fact("A is", "A", "b")


@given(_facts())
def test_a_record_gives_the_fact_back(fact: Fact) -> None:
    assert from_record(to_record(fact)) == fact
    assert from_record(json.loads(json.dumps(to_record(fact)))) == fact


@given(st.lists(_facts(), min_size=1, max_size=4, unique_by=(lambda f: loose(f.prompt), lambda f: f.id or f)))
@settings(max_examples=50)
def test_a_file_gives_the_facts_back(facts: list[Fact]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "facts.jsonl"
        path.write_text(dump_facts(facts), encoding="utf-8", newline="")
        loaded = load_facts(path)
    assert loaded.facts == tuple(facts)
    assert loaded.format == "jsonl"
    assert loaded.sha256 == hashlib.sha256(dump_facts(facts).encode()).hexdigest()
    assert dump_facts(loaded.facts) == dump_facts(facts)


def test_canonical_record() -> None:
    fact = Fact(
        "In Peru",
        "Peru",
        "a",
        "7",
        ("b",),
        ("Peru:",),
        (Probe("p", ("c",), "t"), Probe("q")),
        (Probe("r", ("d", "e")),),
        4,
    )
    assert to_record(fact) == {
        "id": "7",
        "prompt": "In Peru",
        "subject": "Peru",
        "target": "a",
        "ground_truth": "b",
        "rephrase": ["Peru:"],
        "locality": [{"prompt": "p", "answer": "c", "type": "t"}, {"prompt": "q"}],
        "portability": [{"prompt": "r", "answer": ["d", "e"]}],
    }
    assert (
        dump_facts([Fact("In Peru", "Peru", "é")])
        == '{"prompt": "In Peru", "subject": "Peru", "target": "é"}\n'
    )
    assert dump_facts([]) == ""


def test_a_bad_record_has_all_its_problems() -> None:
    with pytest.raises(FactsError) as caught:
        from_record({"prompt": 3, "subject": 4, "target": ""})
    assert len(caught.value.problems) == 3
