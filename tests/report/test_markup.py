"""Facts are untrusted: whatever they hold, a table keeps its shape and nothing in them is read as markup."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hubedit.report.markup import cell, clip, code, fenced, is_hub, line, number, quoted, without_paths

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NASTY = st.text(
    alphabet=st.sampled_from(list("|`*_~[]()<>&\\$#!\n\r\t -=+.:/\"'aé日\u2028\u202e\x00")), max_size=60
)
ANY = st.one_of(st.text(max_size=80), NASTY)


def read_cells(markdown: str) -> list[str]:
    """The text of the cells of a table's only row, and a complaint for anything that is no text."""
    tokens = READER.parse(markdown)
    cells, inside = [], False
    for token in tokens:
        if token.type == "td_open":
            inside = True
        elif token.type == "inline" and inside:
            kinds = {child.type for child in token.children or ()}
            assert kinds <= {"text", "text_special"}, kinds
            cells.append("".join(child.content for child in token.children or ()))
            inside = False
    return cells


@given(ANY, ANY)
def test_a_cell_is_exactly_its_text(one: str, two: str) -> None:
    table = f"| a | b |\n|---|---|\n| {cell(one)} | {cell(two)} |\n"
    assert read_cells(table) == [line(one), line(two)]


@given(ANY)
def test_code_spans_and_blocks_end_where_they_should(text: str) -> None:
    (paragraph,) = [t for t in READER.parse(f"x {code(text)} y") if t.type == "inline"]
    assert [c.type for c in paragraph.children or ()] == ["text", "code_inline", "text"]
    blocks = [t for t in READER.parse(f"{fenced(text, 'json')}\n\nafter\n") if t.type in ("fence", "inline")]
    assert [t.type for t in blocks] == ["fence", "inline"]


@given(ANY)
def test_a_literal_is_python_and_json(text: str) -> None:
    assert json.loads(quoted(text)) == line(text)
    assert eval(quoted(text)) == line(text)


def test_what_turns_text_around_is_left_out_and_what_scripts_need_is_kept() -> None:
    assert line("a\u202eb\u2066c\x00d\n e") == "abcd e"
    persian = "می\u200cخواهم"
    assert line(persian) == persian


def test_bare_addresses_are_not_linked() -> None:
    assert "://" not in cell("see https://evil.example") and "www." not in cell("at www.evil.example")


@pytest.mark.parametrize("value", [None, True, "1", math.nan, math.inf, [], {}])
def test_what_is_no_number_is_none(value: object) -> None:
    assert number(value) is None


def test_numbers_are_kept() -> None:
    assert (number(0), number(2), number(-0.5)) == (0.0, 2.0, -0.5)


def test_long_text_is_cut() -> None:
    assert clip("a" * 300, 10) == "a" * 9 + "…" and clip("short", 10) == "short"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("read /home/me/secret/facts.json twice", "read facts.json twice"),
        ("~/secret/x and ../secret/y", "x and y"),
        (r"C:\secret\model and 24/7, and/or, km/h", "model and 24/7, and/or, km/h"),
        ("owner/name at https://example.com/a/b", "owner/name at https://example.com/a/b"),
    ],
)
def test_paths_are_cut_to_their_last_part(text: str, clean: str) -> None:
    assert without_paths(text) == clean


def test_hub_names() -> None:
    assert is_hub("Qwen/Qwen2.5-7B") and is_hub("me/x@main")
    assert not any(map(is_hub, ["gpt2", "/a/b", "./a", "a/facts.jsonl", "a/b/c", "~/a"]))
