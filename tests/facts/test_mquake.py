"""MQuAKE: a fact for each rewrite, and the questions of the case, which all of its rewrites answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubedit.errors import FactsError
from hubedit.evaluate.records import read_records
from hubedit.facts import Probe, dump_facts
from tests.facts.test_formats import COUNTERFACT, load


def rewrite(subject: str, new: str, old: str) -> dict[str, Any]:
    return {
        "prompt": "{} is a citizen of",
        "relation_id": "P27",
        "target_new": {"str": new, "id": "Q1"},
        "target_true": {"str": old, "id": "Q2"},
        "subject": subject,
        "question": f"Which country is {subject} a citizen of?",
    }


def case(number: int, *rewrites: dict[str, Any]) -> dict[str, Any]:
    return {
        "case_id": number,
        "requested_rewrite": list(rewrites),
        "questions": [f"Case {number}: what is the capital?", f"Case {number}: which city rules?"],
        "answer": "Rome",
        "answer_alias": ["Roma"],
        "new_answer": "Lima",
        "new_answer_alias": ["Ciudad de los Reyes"],
        "single_hops": [{"question": "?", "cloze": "It is", "answer": "Rome", "answer_alias": []}],
        "new_single_hops": [{"question": "?", "cloze": "It is", "answer": "Lima", "answer_alias": []}],
        "orig": {"triples": [["Q5", "P27", "Q2"]], "edit_triples": [["Q5", "P27", "Q1"]]},
    }


ONE = case(1, rewrite("Ida Blom", "Peru", "Italy"))
THREE = case(
    2,
    rewrite("Otto Karrer", "Peru", "Chad"),
    rewrite("Aino Lund", "Fiji", "Togo"),
    rewrite("Bo", "Oman", "Mali"),
)


def multi_hop(number: int) -> tuple[Probe, ...]:
    answers = ("Lima", "Ciudad de los Reyes")
    return tuple(Probe(question, answers, "multi_hop") for question in case(number)["questions"])


@pytest.mark.parametrize("indent", [None, 1])
def test_every_rewrite_is_a_fact_and_the_questions_count_once(tmp_path: Path, indent: int | None) -> None:
    loaded = load(tmp_path, json.dumps([ONE, THREE], indent=indent))
    assert loaded.format == "mquake"
    assert [(f.prompt, f.target, f.ground_truth) for f in loaded.facts] == [
        ("Ida Blom is a citizen of", "Peru", ("Italy",)),
        ("Otto Karrer is a citizen of", "Peru", ("Chad",)),
        ("Aino Lund is a citizen of", "Fiji", ("Togo",)),
        ("Bo is a citizen of", "Oman", ("Mali",)),
    ]
    assert [f.id for f in loaded.facts] == ["1", "2-1", "2-2", "2-3"]
    assert loaded.facts[2].rephrase == ("Which country is Aino Lund a citizen of?",)
    assert [f.portability for f in loaded.facts] == [multi_hop(1), (), (), multi_hop(2)]
    assert load(tmp_path, dump_facts(loaded.facts), "own.jsonl").facts == loaded.facts


def test_the_fields_of_the_remastered_file(tmp_path: Path) -> None:
    flat = {**rewrite("Ida Blom", "", ""), "target_new_str": "Peru", "target_true_str": "Italy"}
    del flat["target_new"], flat["target_true"]
    (fact,) = load(tmp_path, json.dumps([case(1, flat)])).facts
    assert (fact.target, fact.ground_truth) == ("Peru", ("Italy",))


def test_cases_that_share_a_rewrite_share_its_fact(tmp_path: Path) -> None:
    loaded = load(tmp_path, json.dumps([ONE, case(5, rewrite("Ida Blom", "Peru", "Italy"))], indent=1))
    assert len(loaded.facts) == 1
    assert loaded.facts[0].portability == multi_hop(1) + multi_hop(5)
    with pytest.raises(FactsError) as caught:
        load(tmp_path, json.dumps([ONE, case(5, rewrite("Ida Blom", "Fiji", "Italy"))], indent=1))
    assert "contradicts line" in caught.value.problems[0] and "--on-conflict" in caught.value.hint


def test_problems_name_the_rewrite(tmp_path: Path) -> None:
    bad = case(3, rewrite("Bo", "Oman", "Mali"), rewrite("", "Oman", "Mali"))
    with pytest.raises(FactsError) as caught:
        load(tmp_path, json.dumps(ONE) + "\n" + json.dumps(bad), "facts.jsonl")
    assert [p.split("/")[-1].split(": ")[0] for p in caught.value.problems] == ["facts.jsonl:2 (rewrite 2)"]
    for nothing in ([], ["text"], "text"):
        with pytest.raises(FactsError) as caught:
            load(tmp_path, json.dumps([case(3) | {"requested_rewrite": nothing}]))
        assert '"requested_rewrite" holds no rewrite; write one' in caught.value.problems[0]


def test_a_list_without_questions_is_read_too(tmp_path: Path) -> None:
    record = COUNTERFACT | {"requested_rewrite": [COUNTERFACT["requested_rewrite"]]}
    assert load(tmp_path, json.dumps([record])).facts[0].target == "Turku"


def test_a_benchmark_reads_the_same_facts(tmp_path: Path) -> None:
    path = tmp_path / "MQuAKE-CF.json"
    path.write_text(json.dumps([ONE, THREE]))
    records = read_records(path)
    assert (records.format, records.total, records.skipped) == ("mquake", 4, ())
    assert records.facts == load(tmp_path, path.read_text()).facts
    assert len(read_records(path, limit=1).facts) == 1
