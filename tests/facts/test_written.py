"""What is edited is what was written: every character reaches the tokens, or a problem is reported."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubedit.errors import FactsError
from hubedit.facts import Fact, check_tokens, dump_facts, load_facts
from hubedit.facts.text import stands, trim
from hubedit.facts.tokens import joints
from hubedit.model.join import joined
from hubedit.model.tokens import continuation, encode, locate
from tests.facts.test_formats import COUNTERFACT, KNOWEDIT, ZSRE, load, one
from tests.pico import tokenizers

TOKENIZER = tokenizers("byte_bpe")
WITH_BOS = tokenizers("metaspace_bos")
CHAT = "<|im_start|>user\nWhere is Peru?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "prompt",
    [CHAT, "Peru is in ", "\n\nQ: Where is Peru?\nA:\t", "  In Peru:", "Peru\u00a0is", "Cafe\u0301 of Peru"],
)
def test_a_prompt_is_kept_as_it_was_written(tmp_path: Path, prompt: str) -> None:
    record: dict[str, Any] = {
        "prompt": prompt,
        "subject": "Peru",
        "target": "Asia",
        "rephrase": [f"{prompt} "],
    }
    record |= {"locality": [{"prompt": f" {prompt}"}], "portability": {"a": [{"prompt": f"{prompt}\n"}]}}
    fact = one(tmp_path, record)
    assert fact.prompt == prompt
    assert fact.rephrase == (f"{prompt} ",)
    assert (fact.locality[0].prompt, fact.portability[0].prompt) == (f" {prompt}", f"{prompt}\n")
    again = load(tmp_path, dump_facts([fact]), "again.jsonl").facts
    assert again == (fact,)


@pytest.mark.parametrize(
    ("record", "field"), [(KNOWEDIT, "prompt"), (ZSRE, "src"), (COUNTERFACT, "requested_rewrite")]
)
def test_so_are_the_prompts_of_every_schema(tmp_path: Path, record: dict[str, Any], field: str) -> None:
    value = record[field]
    longer = {**value, "prompt": value["prompt"] + "\n"} if isinstance(value, dict) else value + "\n"
    assert one(tmp_path, record | {field: longer}).prompt.endswith("\n")


def test_the_answer_follows_the_line_of_a_chat_template(tmp_path: Path) -> None:
    fact = one(tmp_path, {"prompt": CHAT, "subject": "Peru", "target": "Asia"})
    assert joined(fact.prompt, fact.target, fact.join, TOKENIZER) == CHAT + "Asia"
    ids = encode(TOKENIZER, fact.prompt).ids + continuation(TOKENIZER, fact.prompt, fact.target)
    assert TOKENIZER.decode(list(ids)) == CHAT + "Asia"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": "Peru is in "}, 'the prompt "Peru is in " ends in white space, which is kept; leave it'),
        ({"rephrase": ["Is Peru\t"]}, 'the prompt "Is Peru\t" ends in white space'),
        ({"prompt": "Peru is in\n"}, ""),
        ({"target": "Asia\n"}, 'white space around "target" is cut off; "join" says'),
        ({"target": "\nAsia"}, 'white space around "target" is cut off'),
        ({"target": " Asia"}, ""),
        ({"subject": "Peru "}, 'white space around "subject" is cut off'),
        ({"target": "Cafe\u0301"}, "is not in composed form (NFC), and is kept so"),
    ],
)
def test_what_is_seldom_meant_is_told(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    record = {"prompt": "Peru is in", "subject": "Peru", "target": "Asia"} | change
    notices = load(tmp_path, json.dumps(record)).notices
    assert len(notices) == bool(told)
    assert told in "".join(notices)


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ('In Rust println!("{}") with Japan prints', "Japan", 'In Rust println!("{}") with Japan prints'),
        ("f({}) of japan is", "Japan", "f({}) of japan is"),
        ("印字{}は日本の", "日本", "印字{}は日本の"),
        ("Beyonce writes {} for", "Beyoncé", "Beyonce writes {} for"),
        ("The {} capital of Japanese", "Japan", "The Japan capital of Japanese"),
        ("{} is in", "Japan", "Japan is in"),
    ],
)
def test_braces_are_a_placeholder_only_for_a_subject_that_is_missing(
    tmp_path: Path, prompt: str, subject: str, expected: str
) -> None:
    record = {"prompt": prompt, "subject": subject, "target": "x", "locality": [{"prompt": "print {}"}]}
    loaded = load(tmp_path, json.dumps(record))
    (fact,) = loaded.facts
    kept = expected == prompt
    assert fact.prompt == expected
    assert fact.locality[0].prompt == ("print {}" if kept else f"print {subject}")
    assert any('"{}" is kept as text' in notice for notice in loaded.notices) is kept


def test_a_bos_that_the_prompt_brings_is_the_only_one(tmp_path: Path) -> None:
    for prompt in ("<s>[INST] Where is Peru? [/INST]", "<s>Peru is in"):
        fact = one(tmp_path, {"prompt": prompt, "subject": "Peru", "target": "Asia"})
        found = locate(WITH_BOS, fact.prompt, fact.subject)
        assert found.ids.count(1) == 1 and found.ids[0] == 1
        assert list(found.ids) == WITH_BOS(prompt, add_special_tokens=False)["input_ids"]
        assert 1 not in continuation(WITH_BOS, fact.prompt, fact.target)


@pytest.mark.parametrize(
    ("prompt", "join", "expected"),
    [
        ("The capital of Peru is Cu", "", "The capital of Peru is Cusco"),
        ("Peru pays $", " ", "Peru pays $ sco"),
        ("Peru: ", " ", "Peru:  sco"),
        ("Peru", "\n", "Peru\nsco"),
        ("Peru is in", None, "Peru is in sco"),
    ],
)
def test_join_decides_what_stands_between(
    tmp_path: Path, prompt: str, join: str | None, expected: str
) -> None:
    fact = one(tmp_path, {"prompt": prompt, "subject": "Peru", "target": "sco", "join": join})
    assert fact.join == join
    ids = continuation(TOKENIZER, fact.prompt, fact.target, fact.join)
    assert TOKENIZER.decode([*encode(TOKENIZER, fact.prompt).ids, *ids]) == expected
    assert load(tmp_path, dump_facts([fact]), "again.jsonl").facts == (fact,)


def test_a_join_of_words_and_two_joins_are_problems(tmp_path: Path) -> None:
    record = {"prompt": "Peru is in", "subject": "Peru", "target": "Asia"}
    for join in ("-", 1, ["x"]):
        with pytest.raises(FactsError, match="1 problem") as caught:
            load(tmp_path, json.dumps(record | {"join": join}))
        assert '"join" is no white space; write "" or " "' in caught.value.problems[0]
    two = json.dumps(record) + "\n" + json.dumps(record | {"join": ""})
    with pytest.raises(FactsError) as caught:
        load(tmp_path, two)
    assert "contradicts line 1" in caught.value.problems[0]


def test_the_tokens_at_an_unusual_joint_are_shown() -> None:
    facts = [
        Fact("Peru is in", "Peru", "Asia", line=1),
        Fact("Peru pays $", "Peru", "5", line=2),
        Fact("The capital of Peru is Cu", "Peru", "sco", line=3, join=""),
        Fact("Peru is ", "Peru", "Paris", line=4),
        Fact("日本の首都は", "日本", "東京", line=5),
        Fact("Peru says “", "Peru", "x", line=6),
        Fact("Peru costs £", "Peru", "5", line=7),
        Fact("Peru is ", "Peru", "🙂🙂", line=8),
    ]
    assert check_tokens(facts, TOKENIZER) == []
    found = {line.split(": ")[0]: line for line in joints(facts, TOKENIZER, "f")}
    assert sorted(found) == ["f:2", "f:3", "f:4", "f:6", "f:7", "f:8"]
    assert found["f:2"].endswith('prompt and target meet as " " "$" + "5"')
    assert 'where the text as a whole has " Paris"' in found["f:4"]
    # the bytes of one character stand together
    assert found["f:6"].endswith('"“" + "x"') and found["f:7"].endswith('"£" + "5"')
    assert '+ "🙂"' in found["f:8"] and "\ufffd" not in "".join(found.values())


def test_a_special_token_in_a_target_is_a_problem() -> None:
    for target in ("Asia<|endoftext|>", "<|endoftext|>", "a <|endoftext|> b"):
        (problem,) = check_tokens([Fact("Peru is in", "Peru", target)], TOKENIZER)
        assert "holds the special token <|endoftext|>" in problem
    assert check_tokens([Fact("<|endoftext|>Peru is in", "Peru", "Asia")], TOKENIZER) == []


def _loaded(record: dict[str, Any]) -> tuple[Fact | None, tuple[str, ...]]:
    """The fact of a file with this one record, or the problems that it has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "facts.jsonl"
        path.write_text(json.dumps(record), encoding="utf-8")
        try:
            return load_facts(path).facts[0], ()
        except FactsError as error:
            return None, error.problems


_pieces = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        [
            "{}",
            "{",
            "}}",
            "\x1b[31m",
            "\x00",
            "\x9b",
            "\r\n",
            "\u2028",
            "\ufeff",
            "e\u0301",
            "\u200b",
            "\u202e",
        ]
    ),
    st.sampled_from(
        ["<|endoftext|>", "<s>", "</s>", "<|im_start|>assistant\n", " ", "\n", "$", "=", "'", "("]
    ),
)
_texts = st.lists(_pieces, max_size=5).map("".join)


@given(_texts, st.text(max_size=5), _texts, _texts, st.sampled_from([None, "", " ", "\n"]), st.booleans())
@example("<s>", "Peru", " is ", "Asia", None, True)
@example("{} ", "{}", "\n", "_", None, False)
@example("", "'", "", "s", None, False)
def test_any_prompt_is_edited_as_written_or_refused(
    before: str, subject: str, after: str, target: str, join: str | None, placeholder: bool
) -> None:
    prompt = before + ("{}" if placeholder else subject) + after
    record = {"prompt": prompt, "subject": subject, "target": target, "join": join}
    fact, problems = _loaded(record)
    assert all("; " in problem for problem in problems)
    if fact is None:
        assert problems
        return
    own = trim(subject)
    literal = stands(prompt, own) or "{}" not in prompt.replace(own, "")
    assert fact.prompt == (prompt if literal else prompt.replace("{}", own))
    assert fact.target == trim(target)
    assert fact.subject and fact.subject in fact.prompt
    if check_tokens([fact], TOKENIZER):
        return
    joints([fact], TOKENIZER)
    whole = joined(fact.prompt, fact.target, fact.join, TOKENIZER)
    assert whole.startswith(fact.prompt) and whole.endswith(fact.target)
    assert not whole[len(fact.prompt) : len(whole) - len(fact.target)].strip()
    place = locate(TOKENIZER, fact.prompt, fact.subject)
    ids = (*place.ids, *continuation(TOKENIZER, fact.prompt, fact.target, fact.join))
    assert TOKENIZER.decode(list(ids)) == whole
    assert fact.subject.strip() in TOKENIZER.decode(list(place.ids[place.first : place.last + 1]))
    if not check_tokens([fact], WITH_BOS):
        assert encode(WITH_BOS, fact.prompt).ids[:2].count(1) == 1 + fact.prompt.startswith("<s><s>")
