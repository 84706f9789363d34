"""What stands between a prompt and its answer: as in text, as the fact says, as a chat template has it."""

from __future__ import annotations

import pytest

from hubedit.facts import Fact
from hubedit.model.join import joined, joins, templated
from tests.pico import tokenizers

TURNS = """{% for m in messages %}<|{{ m['role'] }}|>
{%- if m['role'] == 'assistant' %}{{ gap }}{% endif %}{{ m['content'] }}
{%- endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("The capital is", "Paris", "The capital is Paris"),
        ("The capital is", "  Paris", "The capital is Paris"),
        ("The capital is ", "Paris", "The capital is Paris"),
        ("The capital is\n", " Paris", "The capital is\nParis"),
        ("The city (", "Paris", "The city (Paris"),
        ('He said "', "no", 'He said "no'),
        ('He said "no"', "twice", 'He said "no" twice'),
        ("It's the dogs'", "home", "It's the dogs' home"),
        ("Elle dit «", "non", "Elle dit «non"),
        ("日本の首都は", "東京", "日本の首都は東京"),
        ("首都是", "Paris", "首都是Paris"),
        ("首都：", "Paris", "首都：Paris"),
        ("他生于2020", "年", "他生于2020年"),
        ("The capital of Japan is", "東京", "The capital of Japan is 東京"),
        ("เมืองหลวงคือ", "กรุงเทพ", "เมืองหลวงคือกรุงเทพ"),
        ("수도는", "서울", "수도는 서울"),
        ("", "Paris", "Paris"),
        ("The price is $", "5", "The price is $5"),
        ("It costs US$", "5", "It costs US$5"),
        ("It costs 5 €", "today", "It costs 5 € today"),
        ("2+2=", "4", "2+2=4"),
        ("2 + 2 =", "4", "2 + 2 = 4"),
        ('x="', "5", 'x="5'),
        ("Write to user@", "example", "Write to user@example"),
        ("and/", "or", "and/or"),
        ("C:\\", "temp", "C:\\temp"),
        ("a well-", "known", "a well-known"),
        ("The temperature is -", "5", "The temperature is -5"),
        ("Столица России —", "Омск", "Столица России — Омск"),
        ("Run `", "ls", "Run `ls"),
        ("Run `ls`", "now", "Run `ls` now"),
        ("la capitale de l'", "Italie", "la capitale de l'Italie"),
        ("le nom jusqu\u2019", "ici", "le nom jusqu\u2019ici"),
        ("the letter 'a'", "is", "the letter 'a' is"),
        ("anti\u00ad", "body", "anti\u00adbody"),
        ("issue #", "5", "issue #5"),
        ("C#", "is", "C# is"),
        ("**", "bold", "**bold"),
        ("The share is 5", "%", "The share is 5%"),
        ("Peru", "'s capital", "Peru's capital"),
        ("It is", ", they say", "It is, they say"),
        ("written in", ".NET", "written in .NET"),
    ],
)
def test_joining(text: str, answer: str, expected: str) -> None:
    assert joined(text, answer) == expected


@pytest.mark.parametrize("join", ["", " ", "\n", "  "])
@pytest.mark.parametrize("text", ["The capital is", "It costs $", "The capital is ", "日本の首都は"])
def test_a_join_that_is_given_decides(text: str, join: str) -> None:
    assert joined(text, " Paris", join) == f"{text}{join}Paris"


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        # the generation prompt is no special token of this tokenizer, so only the template knows it
        (TURNS.replace("gap", "''"), "<|user|>Hi<|assistant|>", ""),
        (TURNS.replace("gap", "' '"), "<|user|>Hi<|assistant|>", " "),
        (TURNS.replace("gap", "''"), "Is it?", " "),
        ("", "<|user|>Hi<|assistant|>", " "),
        ("", "Hi<|endoftext|>", ""),
        ("{{ raise_exception('no') }}", "Hi<|endoftext|>", ""),
        ("{{ raise_exception('no') }}", "Is it?", " "),
        (TURNS.replace("gap", "''"), "<|user|>Hi<|assistant|>\n", ""),
    ],
)
def test_an_answer_follows_a_turn_as_the_template_writes_it(template: str, text: str, expected: str) -> None:
    tokenizer = tokenizers("byte_bpe")
    tokenizer.chat_template = template or None
    assert joined(text, "Yes", None, tokenizer) == f"{text}{expected}Yes"
    assert joined(text, "Yes", "\n", tokenizer) == f"{text}\nYes"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("<|user|>Is it?", True),
        ("Is it?<|assistant|>", True),
        ("<|endoftext|>Is it?", True),
        ("Is it?", False),
        ("Is <|user|> a role?", False),
        ("Is it<|endoftext|>", False),
    ],
)
def test_a_whole_input_is_known_by_how_it_begins_and_ends(text: str, whole: bool) -> None:
    tokenizer = tokenizers("byte_bpe")
    tokenizer.chat_template = TURNS.replace("gap", "''")
    assert templated(tokenizer, text) is whole
    tokenizer.chat_template = None
    assert templated(tokenizer, text) is text.startswith("<|endoftext|>")


def test_joins_are_those_that_facts_give_for_all_prompts_of_the_target() -> None:
    own = Fact("A is", "A", "b", rephrase=("It is A",), join="")
    assert joins([own, Fact("B is", "B", "c")]) == {"A is": "", "It is A": ""}
