"""Every fault of a facts file: where it is, what it is, how to mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubedit.errors import ConfigError, FactsError
from hubedit.facts import load_facts
from tests.facts.test_formats import COUNTERFACT, KNOWEDIT, OWN, ZSRE, load

GOOD: dict[str, Any] = {"prompt": "The capital of Peru is", "subject": "Peru", "target": "Cusco"}


def problems(tmp_path: Path, text: str | bytes, name: str = "facts.jsonl", **options: Any) -> list[str]:
    """Problems without the folder's name: `facts.jsonl:3: ...`."""
    with pytest.raises(FactsError) as caught:
        load(tmp_path, text, name, **options)
    assert caught.value.exit_code == 2
    return [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def lines(*records: Any) -> str:
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompt": None}, 'missing field "prompt"; add'),
        ({"target": "  "}, '"target" is empty; give'),
        ({"target": "\u200b"}, '"target" is empty; give'),
        ({"target": "\u00ad \u2060"}, '"target" is empty; give'),
        ({"target": "\x07"}, '"target" is empty; give'),
        ({"subject": 5}, '"subject" is a number; it must be a string'),
        ({"target": ["a"]}, '"target" is a list; it must be a string'),
        ({"tagret": "a", "target": None}, 'unknown field "tagret"; did you mean "target"?'),
        ({"zzz": 1}, 'unknown field "zzz"; known: prompt, subject'),
        (
            {"subject": "Chile"},
            'the subject "Chile" is not in the prompt "Peru: the capital is"; write it as',
        ),
        ({"ground_truth": "cusco "}, 'target "Cusco" is in ground_truth too; give the new answer'),
        ({"ground_truth": {"a": 1}}, '"ground_truth" is an object; it must be a string'),
        ({"rephrase": ["a", None]}, '"rephrase[1]" is null; it must be a string'),
        ({"prompt": "The capital of Peru is Cusco"}, 'already ends with the target "Cusco"; end it right'),
        ({"target": "\ud800"}, '"target" holds half a surrogate pair'),
        ({"locality": "a"}, '"locality" is a string; write "locality": [{"prompt"'),
        ({"locality": [3]}, '"locality[0]" is a number; write "locality": [{"prompt"'),
        ({"portability": [{"answer": "a"}]}, '"portability[0]" has no prompt; add'),
        (
            {"portability": [{"prompt": "a", "anwser": "b"}]},
            'unknown field "anwser" in "portability[0]"; did you',
        ),
        ({"locality": [{"prompt": "a", "answer": "b", "ground_truth": "b"}]}, 'has both "answer" and'),
        ({"id": 1.5}, '"id" is a number'),
    ],
)
def test_one_fault(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    found = problems(tmp_path, lines(OWN, GOOD | {"prompt": "Peru: the capital is"} | change))
    assert len(found) == 1
    assert found[0].startswith("facts.jsonl:2: ")
    assert expected in found[0]
    assert "; " in found[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "a",', "invalid JSON at column"),
        (json.dumps(GOOD) + ",", "remove the comma at the end of the line"),
        ("{'prompt': 'a'}", "double quotes"),
        ("[1]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("null", "not a JSON object"),
        ("[" * 100_000, "invalid JSON at column 1: nested too deeply"),
        ('{"prompt": "a", "prompt": "b", "subject": "b", "target": "c"}', '"prompt" stands twice'),
        (json.dumps(KNOWEDIT), "a knowedit record among jsonl ones; put it in a file of its own"),
    ],
)
def test_one_bad_line(tmp_path: Path, line: str, expected: str) -> None:
    found = problems(tmp_path, lines(OWN, OWN | {"id": "b", "prompt": "Peru: the capital is"}, line))
    assert len(found) == 1
    assert found[0].startswith("facts.jsonl:3: ")
    assert expected in found[0]


def test_all_faults_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    found = problems(tmp_path, lines({"prompt": 1}, "{", GOOD, GOOD | {"target": "Lima"}, "", 3))
    assert [problem.split(":")[1] for problem in found] == ["1", "1", "2", "4", "6"]


def test_faults_in_an_array_have_their_lines(tmp_path: Path) -> None:
    records = [OWN, GOOD | {"subject": "Chile"}, KNOWEDIT | {"target_new": ""}]
    text = json.dumps(records[:2], indent=1)
    assert problems(tmp_path, text, "a.json")[0].startswith(
        f"a.json:{text.splitlines().index(' {', 2) + 1}: "
    )
    text = text[:-2] + ",\n {broken}\n]"
    found = problems(tmp_path, text, "a.json")
    assert len(found) == 2
    assert found[1].startswith(f"a.json:{len(text.splitlines()) - 1}: invalid JSON at column 3")
    assert "the records after it were not read" in found[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[{}, {}", "expecting"), ("[{} {}]", "expecting ',' or ']'"), ('[{"a": 1}] x', "remove what follows")],
)
def test_broken_arrays(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problems(tmp_path, text, "a.json")[-1]


def test_records_that_share_a_line_are_counted(tmp_path: Path) -> None:
    found = problems(tmp_path, json.dumps([OWN, GOOD | {"subject": "Chile"}]), "a.json")
    assert found[0].startswith("a.json:1 (record 2): ")


def test_benchmark_faults(tmp_path: Path) -> None:
    request = {"prompt": "{} is", "subject": "Peru", "target_new": {"str": ""}}
    text = lines(COUNTERFACT, COUNTERFACT | {"requested_rewrite": 3}, {"requested_rewrite": request})
    found = problems(tmp_path, text)
    assert [problem.split(": ")[0] for problem in found] == ["facts.jsonl:2", "facts.jsonl:3"]
    assert (
        'missing field "alt"' in problems(tmp_path, lines({k: v for k, v in ZSRE.items() if k != "alt"}))[0]
    )
    bad = KNOWEDIT | {"locality": {"A": {"prompt": ["a", "b"], "ground_truth": ["c"]}}}
    assert "another number of answers" in problems(tmp_path, lines(bad))[0]


def test_contradictions_name_both_lines(tmp_path: Path) -> None:
    text = lines(GOOD, "", GOOD | {"prompt": "the  capital of Peru is", "target": "Lima"})
    found = problems(tmp_path, text)
    assert found == [
        'facts.jsonl:3: contradicts line 1: "Lima" against "Cusco" for "the  capital of Peru is"; '
        "keep one of the two"
    ]
    first = load(tmp_path, text, "facts.jsonl", on_conflict="first")
    last = load(tmp_path, text, "facts.jsonl", on_conflict="last")
    assert [fact.target for fact in first.facts] == ["Cusco"]
    assert [fact.target for fact in last.facts] == ["Lima"]
    assert "facts.jsonl:3: dropped, because line 1" in first.notices[0]
    assert "facts.jsonl:1: dropped, because line 3" in last.notices[0]


def test_a_rephrasing_that_another_fact_edits_is_told(tmp_path: Path) -> None:
    """Only told: benchmarks have such records, and an edit of one of them alone is sound."""
    told = {**GOOD, "rephrase": ["Peru has its capital in", "Peru's capital is"]}
    other = {**GOOD, "prompt": "Peru has its  capital in", "target": "Arequipa"}
    agreed = {**GOOD, "prompt": "Peru's capital is"}
    loaded = load(tmp_path, lines(told, other, agreed), "facts.jsonl")
    assert len(loaded.facts) == 3
    (notice,) = loaded.notices
    assert notice.endswith(
        'facts.jsonl:1: the rephrasing "Peru has its capital in" has another target, "Arequipa" at line 2'
    )


def test_a_repeated_subject_is_no_contradiction(tmp_path: Path) -> None:
    other = GOOD | {"prompt": "The language of Peru is", "target": "Latin"}
    assert len(load(tmp_path, lines(GOOD, other), "facts.jsonl").facts) == 2


def test_exact_duplicates_are_dropped_and_their_probes_kept(tmp_path: Path) -> None:
    a, b = GOOD | {"rephrase": "Peru's capital:"}, GOOD | {"rephrase": "In Peru they rule from"}
    loaded = load(tmp_path, lines(a, b, GOOD), "facts.jsonl")
    assert len(loaded.facts) == 1
    assert loaded.facts[0].rephrase == ("Peru's capital:", "In Peru they rule from")
    assert len(loaded.notices) == 2
    assert "facts.jsonl:2: the same fact as line 1; dropped" in loaded.notices[0]


def test_ids_are_unique(tmp_path: Path) -> None:
    found = problems(tmp_path, lines(OWN, GOOD | {"prompt": "Peru is ruled from", "id": "one"}))
    assert found == ['facts.jsonl:2: id "one" is that of line 1 too; give every fact its own']


def test_benchmark_records_that_change_nothing_stay(tmp_path: Path) -> None:
    loaded = load(tmp_path, lines(KNOWEDIT | {"target_new": "oder"}), "facts.jsonl")
    assert loaded.facts[0].ground_truth == ("Ostravice", "Ostravice River")
    assert 'target "oder" is in ground_truth too; kept' in loaded.notices[0]


def test_notices_of_one_kind_are_not_all_listed(tmp_path: Path) -> None:
    records = [GOOD | {"prompt": f"{n}: the capital of PERU is"} for n in range(9)]
    notices = load(tmp_path, lines(*records), "facts.jsonl").notices
    assert len(notices) == 6
    assert notices[-1].endswith("4 more like the one before")


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("name,city\nPeru,Lima\n", "a.csv", "a.csv:1: no column names"),
        (
            "prompt,subject,targt\nIn Peru,Peru,a\nOn Peru,Peru,b\n",
            "a.csv",
            'unknown column "targt"; did you mean',
        ),
        ("prompt,subject\nIn Peru,Peru\n", "a.csv", 'missing column "target"; add it to the first line'),
        (
            "prompt,subject,target\nIn Peru, now,Peru,a\n",
            "a.csv",
            "a.csv:2: 4 cells, but 3 columns; put a cell",
        ),
        ("prompt,subject,target,target\nIn Peru,Peru,a,b\n", "a.csv", 'column "target" stands twice'),
        ('prompt,subject,target\n"In Peru,Peru,a\n', "a.csv", "invalid CSV"),
        ("prompt,subject,target\nIn Peru,Peru,\n", "a.csv", 'a.csv:2: missing field "target"'),
        ("just some words\nand more\n", "a.txt", "a.txt:1: no JSON; write"),
    ],
)
def test_csv_and_text(tmp_path: Path, text: str, name: str, expected: str) -> None:
    found = problems(tmp_path, text, name)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf \r\n\n", "the file is empty"),
        (b"[]", "no facts in it"),
        (b"prompt,subject,target\n", "no facts in it"),
        (b"\x89PNG\x00\x01", "a binary file"),
        ("text".encode("utf-16"), "UTF-16"),
        (b'{"prompt": "a"}\n{"prompt": "\xe9"}', ":2: not UTF-8 text"),
    ],
)
def test_files_that_hold_no_facts(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(FactsError) as caught:
        load(tmp_path, data, "facts.any")
    assert message in caught.value.message


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text(lines(GOOD))
    with pytest.raises(FactsError, match=r"no such file \(did you mean .*facts\.jsonl\?"):
        load_facts(tmp_path / "fact.jsonl")
    with pytest.raises(FactsError, match="is a directory"):
        load_facts(tmp_path)
    with pytest.raises(FactsError, match="no such file"):
        load_facts(tmp_path / "nowhere" / "facts.jsonl")
    assert len(load_facts(str(tmp_path / "facts.jsonl")).facts) == 1


def test_options(tmp_path: Path) -> None:
    for options in ({"format": "yaml"}, {"on_conflict": "ask"}, {"limit": -1}):
        with pytest.raises(ConfigError):
            load(tmp_path, lines(GOOD), **options)


@pytest.mark.parametrize(
    ("prompt", "subject", "told"),
    [
        ("Who won the 2026 cup?", "Who won the 2026 cup", True),
        ("{}", "Peru", True),
        ("PERU:\n", "Peru", True),
        ("Who won the 2026 cup?", "2026 cup", False),
    ],
)
def test_a_subject_that_is_the_whole_prompt_is_told(
    tmp_path: Path, prompt: str, subject: str, told: bool
) -> None:
    notices = load(tmp_path, lines({"prompt": prompt, "subject": subject, "target": "Spain"})).notices
    assert any("is the whole prompt" in notice for notice in notices) is told


@pytest.mark.parametrize(
    ("prompt", "subject", "told"),
    [
        ("The city of the Japanese capital is", "Japan", True),
        ("Japan is not the Japanese", "Japan", True),
        ("The capital of Japan's is", "Japan", False),
        ("日本国の首都は", "日本", False),
    ],
)
def test_a_subject_inside_another_word_is_told(tmp_path: Path, prompt: str, subject: str, told: bool) -> None:
    record = json.dumps({"prompt": prompt, "subject": subject, "target": "Kyoto"})
    notices = load(tmp_path, lines(record), "facts.jsonl").notices
    assert [("part of another word" in notice) for notice in notices] == [True] * told
