"""Every schema a facts file can have, in small records written for these tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubedit.facts import Fact, LoadedFacts, Probe, load_facts

KNOWEDIT: dict[str, Any] = {
    "subject": "Ostrava",
    "prompt": "The river that flows through Ostrava is the",
    "target_new": "Vltava",
    "ground_truth": [["Ostravice", "Ostravice River"], ["Oder"]],
    "rephrase_prompt": "Ostrava lies on the river",
    "cond": "Ostravice >> Vltava || ...",
    "locality": {
        "Relation_Specificity": [{"prompt": "Ostrava is in the country of", "ground_truth": ["Czechia"]}],
        "Forgetfulness": [{"prompt": "Another river in Ostrava is the", "ground_truth": ""}],
    },
    "portability": {
        "Reasoning": [
            {"prompt": "The river of Ostrava ends in", "ground_truth": [["Elbe"], ["Labe", "Elbe"]]}
        ],
        "Subject_Aliasing": [{"prompt": "The river of Ostrau is the", "ground_truth": "Vltava"}],
    },
}
COUNTERFACT: dict[str, Any] = {
    "case_id": 7,
    "pararel_idx": 1,
    "requested_rewrite": {
        "prompt": "{} was born in the town of",
        "relation_id": "P19",
        "target_new": {"str": "Turku", "id": "Q1"},
        "target_true": {"str": "Aarau", "id": "Q2"},
        "subject": "Ida Blom",
    },
    "paraphrase_prompts": ["It rained. Ida Blom, a native of", "The birthplace of Ida Blom is"],
    "neighborhood_prompts": ["Otto Karrer was born in the town of"],
    "attribute_prompts": ["Aino Lund was born in the town of"],
    "generation_prompts": ["Ida Blom grew up in"],
}
FLAT = {
    "case_id": 3,
    "prompt": "The mother tongue of Ida Blom is",
    "target_new": "Finnish",
    "subject": "Ida Blom",
    "ground_truth": "German",
    "rephrase_prompt": "At home Ida Blom speaks",
    "locality_prompt": "The mother tongue of Otto Karrer is",
    "locality_ground_truth": "German",
}
ZSRE = {
    "subject": "Ida Blom",
    "src": "What school did Ida Blom attend?",
    "pred": "ETH",
    "rephrase": "Where did Ida Blom study?",
    "alt": "Aalto",
    "answers": ["ETH", "ETH Zurich"],
    "loc": "nq question: who wrote the kalevala",
    "loc_ans": "Elias Lönnrot",
    "cond": "ETH >> Aalto || What school did Ida Blom attend?",
}
OWN = {
    "id": "one",
    "prompt": "The capital of Peru is",
    "subject": "Peru",
    "target": "Cusco",
    "ground_truth": ["Lima"],
    "rephrase": "Peru's capital is",
    "locality": [{"prompt": "The language of Peru is", "answer": "Spanish", "type": "same_subject"}],
    "portability": {"two_hop": [{"prompt": "Peru's government sits in", "ground_truth": ["Cusco", "Qosqo"]}]},
}


def load(tmp_path: Path, text: str | bytes, name: str = "facts.json", **options: Any) -> LoadedFacts:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_facts(path, **options)


def one(tmp_path: Path, record: Any, **options: Any) -> Fact:
    loaded = load(tmp_path, json.dumps([record], indent=1), **options)
    assert len(loaded.facts) == 1
    return loaded.facts[0]


def test_knowedit(tmp_path: Path) -> None:
    fact = one(tmp_path, KNOWEDIT)
    assert fact == Fact(
        prompt="The river that flows through Ostrava is the",
        subject="Ostrava",
        target="Vltava",
        ground_truth=("Ostravice", "Ostravice River", "Oder"),
        rephrase=("Ostrava lies on the river",),
        locality=(
            Probe("Ostrava is in the country of", ("Czechia",), "Relation_Specificity"),
            Probe("Another river in Ostrava is the", (), "Forgetfulness"),
        ),
        portability=(
            Probe("The river of Ostrava ends in", ("Elbe", "Labe"), "Reasoning"),
            Probe("The river of Ostrau is the", ("Vltava",), "Subject_Aliasing"),
        ),
    )


def test_knowedit_variants(tmp_path: Path) -> None:
    recent = {k: v for k, v in KNOWEDIT.items() if k not in ("ground_truth", "rephrase_prompt")}
    recent |= {"rephrase": "In Ostrava the river is the", "locality": {}, "portability": None}
    fact = one(tmp_path, recent)
    assert (fact.ground_truth, fact.locality, fact.portability) == ((), (), ())
    assert fact.rephrase == ("In Ostrava the river is the",)
    columns = {"neighborhood": {"prompt": ["A is", "B is"], "ground_truth": ["a", ["b", 4]]}}
    fact = one(tmp_path, recent | {"locality": columns, "ground_truth": 1871})
    assert fact.ground_truth == ("1871",)
    assert fact.locality == (Probe("A is", ("a",), "neighborhood"), Probe("B is", ("b", "4"), "neighborhood"))


def test_counterfact(tmp_path: Path) -> None:
    fact = one(tmp_path, COUNTERFACT)
    assert (fact.prompt, fact.subject, fact.target) == (
        "Ida Blom was born in the town of",
        "Ida Blom",
        "Turku",
    )
    assert (fact.id, fact.ground_truth) == ("7", ("Aarau",))
    assert fact.rephrase == ("It rained. Ida Blom, a native of", "The birthplace of Ida Blom is")
    assert fact.locality == (
        Probe("Otto Karrer was born in the town of", ("Aarau",), "neighborhood"),
        Probe("Aino Lund was born in the town of", ("Turku",), "attribute"),
    )


def test_counterfact_subject_that_is_part_of_the_template(tmp_path: Path) -> None:
    request = COUNTERFACT["requested_rewrite"] | {"prompt": "The capital of {} is", "subject": "cap"}
    assert one(tmp_path, {"requested_rewrite": request}).prompt == "The capital of cap is"


def test_flat_counterfact(tmp_path: Path) -> None:
    fact = one(tmp_path, FLAT)
    assert (fact.target, fact.id, fact.ground_truth) == ("Finnish", "3", ("German",))
    assert fact.rephrase == ("At home Ida Blom speaks",)
    assert fact.locality == (Probe("The mother tongue of Otto Karrer is", ("German",), "neighborhood"),)


def test_zsre(tmp_path: Path) -> None:
    fact = one(tmp_path, ZSRE)
    assert (fact.prompt, fact.target) == ("What school did Ida Blom attend?", "Aalto")
    assert (fact.ground_truth, fact.rephrase) == (("ETH", "ETH Zurich"), ("Where did Ida Blom study?",))
    assert fact.locality == (
        Probe("nq question: who wrote the kalevala", ("Elias Lönnrot",), "neighborhood"),
    )
    extra = {"Recalled Relation": "(a, b, c)", "New Question": "In which city is it?", "New Answer": "Espoo"}
    assert one(tmp_path, ZSRE | {"portability": extra}).portability == (
        Probe("In which city is it?", ("Espoo",), "portability"),
    )


@pytest.mark.parametrize("layout", ["array", "minified", "lines", "object", "stream"])
def test_own_schema_in_every_layout(tmp_path: Path, layout: str) -> None:
    other = {"prompt": "The capital of {} is", "subject": "Chad", "target": "Moundou", "id": 2}
    text = {
        "array": json.dumps([OWN, other], indent=2),
        "minified": json.dumps([OWN, other]),
        "lines": f"{json.dumps(OWN)}\n\n{json.dumps(other)}\n",
        "object": json.dumps(OWN, indent=2),
        "stream": json.dumps(OWN, indent=2) + "\n" + json.dumps(other, indent=2),
    }[layout]
    loaded = load(tmp_path, text)
    assert loaded.format == ("jsonl" if layout == "lines" else "json")
    assert loaded.facts[0] == Fact(
        prompt="The capital of Peru is",
        subject="Peru",
        target="Cusco",
        id="one",
        ground_truth=("Lima",),
        rephrase=("Peru's capital is",),
        locality=(Probe("The language of Peru is", ("Spanish",), "same_subject"),),
        portability=(Probe("Peru's government sits in", ("Cusco", "Qosqo"), "two_hop"),),
    )
    if layout != "object":
        assert (loaded.facts[1].prompt, loaded.facts[1].id) == ("The capital of Chad is", "2")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(tmp_path: Path, delimiter: str) -> None:
    rows = [
        ["Prompt", "subject", "target", "ground_truth", "rephrase", "rephrase", "id"],
        ['"The motto of {}, today, is"', "Peru", "Unity", "Firm", "Peru says", "They say in Peru", "a"],
        [],
        ['"Two\nlines on {}"', "Chad", "yes", "", "", "", ""],
        ["The flag of {} is", "Togo", "blue", "", "", "", ""],
    ]
    loaded = load(tmp_path, "\r\n".join(delimiter.join(row) for row in rows), "facts.csv")
    assert loaded.format == "csv"
    first, second, third = loaded.facts
    assert first.prompt == "The motto of Peru, today, is"
    assert (first.ground_truth, first.rephrase, first.id) == (
        ("Firm",),
        ("Peru says", "They say in Peru"),
        "a",
    )
    assert second.prompt == "Two\nlines on Chad"
    assert [fact.line for fact in loaded.facts] == [2, 4, 6]
    assert third.target == "blue"


def test_csv_with_the_columns_of_a_benchmark(tmp_path: Path) -> None:
    text = "case_id,subject,prompt,target_new\n1,Peru,The capital of Peru is,Cusco\n"
    loaded = load(tmp_path, text, "x.csv")
    assert (loaded.format, loaded.facts[0].target) == ("counterfact-flat", "Cusco")


@pytest.mark.parametrize(
    ("record", "name"),
    [(KNOWEDIT, "knowedit"), (COUNTERFACT, "counterfact"), (FLAT, "counterfact-flat"), (ZSRE, "zsre")],
)
def test_benchmarks_as_json_or_lines(tmp_path: Path, record: Any, name: str) -> None:
    array = load(tmp_path, json.dumps([record]))
    lines = load(tmp_path, json.dumps(record) + "\n", "facts.jsonl")
    forced = load(tmp_path, json.dumps([record]), format=name)
    assert array.format == lines.format == forced.format == name
    assert array.facts == lines.facts == forced.facts
    assert array.sha256 == lines.sha256


def test_lines_of_an_array(tmp_path: Path) -> None:
    text = json.dumps([OWN, OWN | {"prompt": "Peru has the capital", "id": "two"}], indent=2)
    lines = [fact.line for fact in load(tmp_path, "\n\n" + text).facts]
    starts = [i for i, line in enumerate(("\n\n" + text).split("\n"), 1) if line == "  {"]
    assert lines == starts


def test_bom_crlf_blank_lines_and_line_separators(tmp_path: Path) -> None:
    record = '{"prompt": "One\u2028two Peru is", "subject": "Peru", "target": "x"}'
    text = f"\ufeff\r\n{record}\r\n\r\n\ufeff{record.replace('One', 'Six')}\r\n".encode()
    loaded = load(tmp_path, text, "facts.jsonl")
    assert [fact.line for fact in loaded.facts] == [2, 4]
    assert loaded.facts[0].prompt == "One\u2028two Peru is"


def test_answers_are_composed_and_the_rest_is_as_written(tmp_path: Path) -> None:
    fact = one(
        tmp_path,
        {
            "prompt": "Cafe\u0301 Zo\u00eb is in \n",
            "subject": " Caf\u00e9 Zoe\u0308",
            "target": "\u00a0 Bern ",
            "ground_truth": " Zu\u0308rich ",
        },
    )
    assert (fact.prompt, fact.subject, fact.target) == (
        "Cafe\u0301 Zo\u00eb is in \n",
        "Cafe\u0301 Zo\u00eb",
        "Bern",
    )
    assert fact.ground_truth == ("Z\u00fcrich",)


def test_limit(tmp_path: Path) -> None:
    good = {"subject": "Peru", "target": "x"}
    rows = [json.dumps(good | {"prompt": f"{n} Peru"}) for n in (1, 1, 2, 3)]
    text = "\n".join([*rows, "{broken"])
    loaded = load(tmp_path, text, "facts.jsonl", limit=2)
    assert [fact.prompt for fact in loaded.facts] == ["1 Peru", "2 Peru"]


def test_the_examples_of_the_manual(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "facts.md").read_text(encoding="utf-8")
    examples = [part.split("```")[0] for part in manual.split("```json\n")[1:]]
    assert [len(load(tmp_path, example).facts) for example in examples] == [2, 1, 2]
