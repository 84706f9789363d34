"""QAEdit, WikiBigEdit and RippleEdits, in small records written for these tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubedit.errors import ConfigError, FactsError
from hubedit.evaluate.records import ELSEWHERE, dataset, read_records
from hubedit.facts import Fact, Probe
from tests.facts.test_formats import load

QAEDIT: dict[str, Any] = {
    "id": 12,
    "source": "NQ",
    "prompt": "who composed the opera Aniara?",
    "target": "Ida Blom",
    "subject": "Aniara",
    "rephrase": "Which composer wrote Aniara?",
    "locality": [
        {"loc": "which river runs through Ostrava", "loc_ans": "Ostravice"},
        {"loc": "who founded Turku", "loc_ans": "nobody"},
    ],
}
WIKIBIGEDIT: dict[str, Any] = {
    "tag": "update",
    "subject": "Ostrava",
    "update": "Who is the mayor of Ostrava?",
    "rephrase": "Which person is mayor of Ostrava?",
    "personas": "Ahoy, who be the mayor of Ostrava?",
    "ans": "Otto Karrer",
    "loc": "Who is the mayor of Turku?",
    "loc_ans": "Aino Lund",
    "mhop": "Where was the mayor of Ostrava born?",
    "mhop_ans": "Aarau",
}


def query(prompt: str, subject: str, *names: str) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "answers": [{"value": name, "aliases": [f"{name} II"]} for name in names],
        "query_type": "regular",
        "subject_id": subject,
        "phrase": None,
    }


def ripple_test(*queries: dict[str, Any]) -> dict[str, Any]:
    return {"test_queries": list(queries), "test_condition": "OR", "condition_queries": []}


CITIZEN = "The name of the country of citizenship of"
RIPPLE: dict[str, Any] = {
    "example_type": "popular",
    "edit": {
        "prompt": f"{CITIZEN} Ida Blom is Peru.",
        "subject_id": "Q1",
        "relation": "COUNTRY_OF_CITIZENSHIP",
        "target_id": "Q419",
        "previous_fact": {"prompt": f"{CITIZEN} Ida Blom is Papua New Guinea."},
    },
    "Relation_Specificity": [ripple_test(query("The name of the mother of Ida Blom is", "Q1", "Aino"))],
    "Logical_Generalization": [],
    "Subject_Aliasing": [ripple_test(query(f"{CITIZEN} I. B. is", "Q1", "Peru"))],
    "Compositionality_I": [
        ripple_test(query("The capital of the country of Ida Blom is", "Q1", "Lima", "Callao"))
    ],
    "Compositionality_II": [],
    "Forgetfulness": [],
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_qaedit(tmp_path: Path, name: str) -> None:
    text = json.dumps([QAEDIT], indent=1) if name == "a.json" else json.dumps(QAEDIT)
    loaded = load(tmp_path, text, name)
    assert loaded.format == "qaedit" and not loaded.notices
    assert loaded.facts == (
        Fact(
            "who composed the opera Aniara?",
            "Aniara",
            "Ida Blom",
            id="12",
            rephrase=("Which composer wrote Aniara?",),
            locality=(
                Probe("which river runs through Ostrava", ("Ostravice",), "neighborhood"),
                Probe("who founded Turku", ("nobody",), "neighborhood"),
            ),
        ),
    )
    assert read_records(tmp_path / name).facts == loaded.facts


def test_wikibigedit(tmp_path: Path) -> None:
    bare = {key: WIKIBIGEDIT[key] for key in ("tag", "subject", "ans", "rephrase")}
    bare |= {"update": "Who leads Ostrava?", "loc": "", "loc_ans": "", "mhop": None, "mhop_ans": None}
    loaded = load(tmp_path, json.dumps([WIKIBIGEDIT, bare], indent=1))
    assert loaded.format == "wikibigedit"
    whole, less = loaded.facts
    assert whole == Fact(
        "Who is the mayor of Ostrava?",
        "Ostrava",
        "Otto Karrer",
        rephrase=("Which person is mayor of Ostrava?", "Ahoy, who be the mayor of Ostrava?"),
        locality=(Probe("Who is the mayor of Turku?", ("Aino Lund",), "neighborhood"),),
        portability=(Probe("Where was the mayor of Ostrava born?", ("Aarau",), "multi_hop"),),
    )
    assert (less.locality, less.portability) == ((), ())


def test_rippleedits_is_taken_apart_at_its_verb(tmp_path: Path) -> None:
    loaded = load(tmp_path, json.dumps([RIPPLE], indent=1))
    assert loaded.format == "rippleedits" and not loaded.notices
    (fact,) = loaded.facts
    assert fact.prompt == f"{CITIZEN} Ida Blom is"
    assert (fact.subject, fact.target, fact.ground_truth) == ("Ida Blom", "Peru", ("Papua New Guinea",))
    assert fact.locality == (
        Probe("The name of the mother of Ida Blom is", ("Aino", "Aino II"), "Relation_Specificity"),
    )
    assert [probe.kind for probe in fact.portability] == ["Subject_Aliasing", "Compositionality_I"]
    assert fact.portability[1].answers == ("Lima", "Lima II", "Callao", "Callao II")


def test_rippleedits_without_what_was_before(tmp_path: Path) -> None:
    recent = RIPPLE | {"example_type": "recent", "edit": dict(RIPPLE["edit"], previous_fact=None)}
    recent |= {"Relation_Specificity": [], "Subject_Aliasing": [], "Compositionality_I": []}
    (fact,) = load(tmp_path, json.dumps(recent)).facts
    assert (fact.subject, fact.target, fact.ground_truth) == ("Ida Blom", "Peru", ())
    with pytest.raises(FactsError) as caught:
        load(tmp_path, json.dumps(recent | {"edit": {"prompt": "Ida Blom, Peru."}}))
    assert "has no verb" in caught.value.problems[0]


def test_data_sets_that_are_not_on_the_hub_say_where_they_are() -> None:
    for name, place in ELSEWHERE.items():
        with pytest.raises(ConfigError, match="not on the Hub") as caught:
            dataset(name)
        assert place in caught.value.hint and "the path of its file" in caught.value.hint
