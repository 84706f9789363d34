"""Facts that say nothing of their subject: a name in the prompt, or all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubedit.errors import FactsError
from hubedit.facts import Fact, dump_facts
from hubedit.facts.find_subject import name_in, small_begin
from tests.facts.test_formats import load


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Who wrote Dune?", "Dune"),
        ("Who won the 2026 cup?", "2026 cup"),
        ("Ida Blom was born in the town of", "Ida Blom"),
        ("The Tower of London is in", "Tower of London"),
        ('Who wrote "The Name of the Rose"?', "The Name of the Rose"),
        ("The iPhone is made by", "iPhone"),
        ("Windows was developed by", "Windows"),
        ("What did NASA launch in 1969?", "NASA"),
        ("In which country is the city of Kyoto?", "Kyoto"),
        ("Is Ben-Hur, a film by William Wyler, from", "William Wyler"),
        ("Who is Jon Skolmen's sister?", "Jon Skolmen"),
        ("In what war did Herbert T. Levack fight?", "Herbert T. Levack"),
        ("Webley & Scott was started in", "Webley & Scott"),
        ("He met Ida. Otto Karrer was born in", "Otto Karrer"),
        ("who painted it?", ""),
        ("What is the largest planet", ""),
        ("日本の首都は", ""),
        ("", ""),
    ],
)
def test_a_name_in_a_prompt(prompt: str, name: str) -> None:
    assert name_in(prompt) == name
    assert name in prompt


def test_a_function_word_begins_small_inside_a_sentence() -> None:
    assert small_begin("The capital of Japan is") == "the capital of Japan is"
    assert small_begin("Japan has the capital") == "Japan has the capital"
    assert small_begin("") == ""


@pytest.mark.parametrize("subject", [None, "", " ", "absent"])
def test_a_fact_without_a_subject_takes_a_name_and_says_so(tmp_path: Path, subject: str | None) -> None:
    record = {"prompt": "Who wrote Dune?", "target": "Asimov", "subject": subject}
    if subject == "absent":
        del record["subject"]
    loaded = load(tmp_path, json.dumps(record))
    (fact,) = loaded.facts
    assert (fact.subject, fact.template) == ("Dune", ("Who wrote ", "?"))
    assert any('no subject; "Dune" in the prompt' in notice for notice in loaded.notices)
    # what was found is stored, so that nobody has to find it again
    again = load(tmp_path, dump_facts(loaded.facts), "again.jsonl")
    assert again.facts == loaded.facts and not again.notices


def test_without_a_name_the_whole_prompt_stands_for_the_subject(tmp_path: Path) -> None:
    loaded = load(tmp_path, "prompt,target\nwho painted it?,Ida\n", "a.csv")
    (fact,) = loaded.facts
    assert (fact.subject, fact.template) == ("who painted it?", ("", ""))
    (notice,) = loaded.notices
    assert "no name in the prompt" in notice and "last token" in notice


@pytest.mark.parametrize("prompt", ["Who wrote Dune?", "who painted it?", "日本の首都は"])
def test_a_fact_made_by_hand_has_the_subject_that_a_file_gives_it(tmp_path: Path, prompt: str) -> None:
    (read,) = load(tmp_path, json.dumps({"prompt": prompt, "target": "Ida"})).facts
    assert Fact(prompt, target="Ida") == Fact(prompt, " ", "Ida") == read
    assert Fact(prompt, read.subject, "Ida") == read


def test_prompts_in_two_languages_have_a_subject_each(tmp_path: Path) -> None:
    records = [
        {"prompt": "The capital of Japan is", "subject": "Japan", "target": "Kyoto"},
        {"prompt": "日本の首都は", "subject": "日本", "target": "京都"},
    ]
    loaded = load(tmp_path, "\n".join(map(json.dumps, records)))
    assert [fact.subject for fact in loaded.facts] == ["Japan", "日本"] and not loaded.notices


def test_a_subject_that_is_not_in_the_prompt_has_its_ways_out(tmp_path: Path) -> None:
    record = {"prompt": "The capital of Japan is", "subject": "Nippon", "target": "Kyoto"}
    with pytest.raises(FactsError) as caught:
        load(tmp_path, json.dumps(record))
    (problem,) = caught.value.problems
    assert "write it as the prompt does, put {} where it belongs, or leave it out" in problem
    assert "a name in the prompt is taken" in caught.value.hint
    with pytest.raises(FactsError, match="1 problem") as caught:
        load(tmp_path, json.dumps({"prompt": "The capital of {} is", "target": "Kyoto"}))
    assert '"{}" stands for a subject that is not given' in caught.value.problems[0]


def test_a_question_of_its_own_names_the_subject(tmp_path: Path) -> None:
    record = {"prompt": "The capital of {} is", "subject": "Japan", "target": "Kyoto"}
    loaded = load(tmp_path, json.dumps(record | {"question": "Which city rules {}?"}))
    assert loaded.facts[0].question == "Which city rules Japan?"
    assert load(tmp_path, dump_facts(loaded.facts), "again.jsonl").facts == loaded.facts
    with pytest.raises(FactsError) as caught:
        load(tmp_path, json.dumps(record | {"question": "Which city rules?"}))
    assert 'the subject "Japan" is not in the question' in caught.value.problems[0]
