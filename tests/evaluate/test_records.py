"""Benchmark records, in the schemas the field uses: each one is read, and none is merged or settled."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubedit.errors import ConfigError, FactsError
from hubedit.evaluate.records import dataset, read_records
from hubedit.facts import Probe, load_facts
from tests.lab.records import main, misread, summary

Write = Callable[[Any], Path]

ZSRE = {
    "subject": "Ada Lovelace",
    "target_new": "Marie Curie",
    "prompt": "Who is the mother of Ada Lovelace?",
    "ground_truth": ["Anne Isabella"],
    "rephrase_prompt": "Ada Lovelace's mother is who?",
    "cond": "Anne >> Marie || Who is the mother of Ada Lovelace?",
    "locality": {"Relation_Specificity": [{"prompt": "Ada Lovelace occupation", "ground_truth": ["writer"]}]},
    "portability": {"Reasoning": [{"prompt": "Who is her grandmother?", "ground_truth": "Bronisława"}]},
}
WIKI = {
    "subject": "Peru",
    "prompt": "The name of the capital of Peru is",
    "target_new": "Cusco",
    "ground_truth": "Lima",
    "portability": {
        "Subject_Aliasing": [
            {"prompt": "The capital of the Republic of Peru is", "ground_truth": [["Cusco", "Cuzco"], [""]]}
        ]
    },
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The currency of Peru is", "ground_truth": [["Sol"], ["PEN", "Sol"]]}
        ],
        "Forgetfulness": [{"prompt": "The capital of Peru, not Cusco, is", "ground_truth": ""}],
    },
}
FLAT = {
    "case_id": 7,
    "prompt": "The mother tongue of Danielle Darrieux is",
    "target_new": "English",
    "subject": "Danielle Darrieux",
    "ground_truth": "French",
    "rephrase_prompt": "Danielle Darrieux speaks",
    "locality_prompt": "Michel Rocard is a native speaker of",
    "locality_ground_truth": "French",
}
KNOWN = {
    "known_id": 0,
    "subject": "Vinson Massif",
    "attribute": "Antarctica",
    "template": "{} is in the continent of",
    "prediction": " of Antarctica",
    "prompt": "Vinson Massif is in the continent of",
    "relation_id": "P30",
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(data: Any) -> Path:
        path = tmp_path / "records.json"
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
        return path

    return make


def test_answers_as_string_list_and_list_of_lists(write: Write) -> None:
    (zsre,), (wiki,) = read_records(write([ZSRE])).facts, read_records(write([WIKI])).facts
    assert (zsre.ground_truth, wiki.ground_truth) == (("Anne Isabella",), ("Lima",))
    assert zsre.portability == (Probe("Who is her grandmother?", ("Bronisława",), "Reasoning"),)
    assert wiki.portability[0].answers == ("Cusco", "Cuzco")
    assert [(p.kind, p.answers) for p in wiki.locality] == [
        ("Relation_Specificity", ("Sol", "PEN")),
        ("Forgetfulness", ()),
    ]
    assert zsre.rephrase == ("Ada Lovelace's mother is who?",) and wiki.rephrase == ()


def test_records_that_contradict_or_repeat_each_other_all_count(write: Write) -> None:
    other = {**ZSRE, "target_new": "Grace Hopper"}
    path = write([ZSRE, other, ZSRE])
    with pytest.raises(FactsError, match="1 problem"):
        load_facts(path)
    found = read_records(path)
    assert [fact.target for fact in found.facts] == ["Marie Curie", "Grace Hopper", "Marie Curie"]
    assert (found.total, found.skipped, found.format) == (3, (), "knowedit")


def test_every_schema_is_seen_from_its_fields(write: Write) -> None:
    flat = read_records(write([FLAT]))
    assert flat.format == "counterfact-flat" and flat.facts[0].id == "7"
    assert flat.facts[0].locality == (Probe(str(FLAT["locality_prompt"]), ("French",), "neighborhood"),)
    known = read_records(write([KNOWN]))
    assert known.format == "known"
    assert (known.facts[0].prompt, known.facts[0].target) == (KNOWN["prompt"], "Antarctica")


def test_what_cannot_be_used_is_told_with_its_reason(write: Write) -> None:
    found = read_records(write([ZSRE, {**ZSRE, "target_new": ""}, {**ZSRE, "subject": "Nobody"}, 3]))
    assert len(found.facts) == 1 and found.total == 4
    assert [line.split(": ", 1)[1].split(";")[0] for line in found.skipped] == [
        '"target_new" is empty',
        'the subject "Nobody" is not in the prompt "Who is the mother of Ada Lovelace?"',
        "not a JSON object",
    ]
    assert read_records(write([ZSRE, 3]), limit=1).skipped == ()
    with pytest.raises(FactsError, match="none of its 1 records") as failure:
        read_records(write([3]))
    assert len(failure.value.problems) == 1
    with pytest.raises(FactsError, match="no records"):
        read_records(write([]))


def test_a_data_set_is_a_file_or_a_name(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write([WIKI])
    assert dataset(str(path)).facts == read_records(path).facts
    with pytest.raises(ConfigError, match=r"neither a file nor a data set") as failure:
        dataset("squad")
    assert "zsre" in failure.value.hint
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file, **_: str(path))
    assert dataset("zsre").total == 1


def test_without_the_package_a_path_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="needs the package 'datasets'") as missing:
        dataset("counterfact")
    assert "the path of its file" in missing.value.hint


def test_tables_of_the_hub_become_records(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {
            "case_id": 3,
            "requested_rewrite": {
                "prompt": "The mother tongue of {} is",
                "subject": "Danielle Darrieux",
                "target_new": {"str": "English"},
                "target_true": {"str": "French"},
            },
            "paraphrase_prompts": ["Danielle Darrieux speaks"],
            "neighborhood_prompts": ["Michel Rocard is a native speaker of"],
        }
    ]

    class Tables:
        @staticmethod
        def load_dataset(repo: str, split: str) -> list[dict[str, Any]]:
            return rows

    monkeypatch.setitem(sys.modules, "datasets", Tables)
    (fact,) = dataset("counterfact").facts
    assert (fact.prompt, fact.ground_truth) == ("The mother tongue of Danielle Darrieux is", ("French",))


def test_the_script_counts_and_finds_what_was_misread(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write([ZSRE, ZSRE])
    assert main([str(path)]) == 0
    text = capsys.readouterr().out
    assert "2 records" in text and "0 skipped" in text and "0 misread" in text
    found = read_records(path)
    assert summary(found)["locality/Relation_Specificity"] == 2
    path = write([{**ZSRE, "target_new": "Hypatia"}, {**ZSRE, "locality": {}}])
    assert [line.split(": ")[0] for line in misread(path, found)] == ["record 1", "record 2"]
    assert main([str(write([3, WIKI]))]) == 1
    assert main([str(write([WIKI, KNOWN, FLAT]))]) == 0


def test_types_of_hubedit_s_own_facts_are_kept(write: Write) -> None:
    own = {"prompt": "The capital of France is", "subject": "France", "target": "Lyon"}
    probes = [{"prompt": "The currency of France is", "answer": "Euro", "type": "same_subject"}]
    path = write([{**own, "locality": [*probes, {**probes[0], "type": 7}]}])
    # as `load_facts` has it; what is no name of a type is no reason to leave the record out
    assert [p.kind for p in read_records(path).facts[0].locality] == ["same_subject", ""]
