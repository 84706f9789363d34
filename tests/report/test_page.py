"""The HTML report: one file that fetches nothing, in which no text of a fact becomes markup."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hubedit.report.page import html_report
from hubedit.report.plots import plots
from tests.lab.look import browser, look, use
from tests.report.examples import NASTY, full_report, merged_record, outcome, record, report

VOID = {"meta", "br", "img", "link", "input", "hr", "use", "path", "rect", "image"}


class Tree(HTMLParser):
    """Every tag with its attributes, the text, and a complaint where tags do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(made: dict[str, Any], drawn: bool = True) -> str:
    return html_report(record(), made, name="/secret/patch", plots=plots(record(), made) if drawn else ())


def nasty() -> dict[str, Any]:
    made = full_report()
    made["facts"] = [outcome(0, prompt=NASTY), outcome(1, prompt="عاصمة فرنسا هي")]
    return made


def test_it_is_whole_and_fetches_nothing() -> None:
    page = page_of(nasty())
    tree = Tree(page)
    assert tree.open == []
    names = {tag for tag, _ in tree.tags}
    assert not names & {"link", "iframe", "img", "object", "embed", "form", "base"}
    for tag, attributes in tree.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "action"):
                inside = str(value).startswith(("#", "data:image/png;base64,"))
                assert inside or (tag == "a" and value == "https://huggingface.co/Qwen/Qwen2.5-7B")
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page
    # the page's own script is the only one, and the only one that a browser would run
    (own,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "unsafe-eval" not in page
    ids = [attributes["id"] for _, attributes in tree.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_facts_are_text_and_are_all_there() -> None:
    tree = Tree(page_of(nasty()))
    text = "".join(tree.words)
    assert " ".join(NASTY.split()) in text
    assert "secret" not in text and "private" not in text
    for needed in (
        "100.0 %",
        "95 %: 90.0 to 100.0",
        "Neighbours that flipped: 12",
        "KnowEdit",
        "CounterFact",
    ):
        assert needed in text, needed
    assert sum(tag == "svg" for tag, _ in tree.tags) == 5


def test_it_is_the_same_for_the_same_input() -> None:
    assert page_of(nasty()) == page_of(nasty())


def test_tables_scroll_inside_themselves_and_dark_is_known() -> None:
    page = page_of(nasty())
    tree = Tree(page)
    path: list[str] = []
    for tag, attributes in tree.tags:
        if tag == "table":
            assert "scroll" in path[-1]
        path.append(str(attributes.get("class")))
    assert "prefers-color-scheme: dark" in page and "overflow-x: auto" in page
    assert 'name="viewport"' in page
    assert "#000000" not in page  # black lines would be lost on black


def test_what_was_not_measured_is_absent() -> None:
    text = "".join(Tree(html_report({"base": record()["base"], "facts": {"count": 1}})).words)
    assert "The patch was not evaluated." in text
    for word in ("None", "nan", "Perplexity", "What broke", "Before and after", "Figures"):
        assert word not in text


def test_facts_can_be_kept_out() -> None:
    made, own = full_report("SECRET"), record(trace=None)
    page = html_report(own, made, with_facts=False, plots=plots(own, made, with_facts=False))
    for word in ("SECRET", "Lyon", "capital", "Paris", "Land0"):
        assert word not in page
    assert "are not published" in page


def test_what_broke_stands_first_and_facts_are_cards() -> None:
    made = full_report() | {"facts": [outcome(0), outcome(1, success=False)]}
    page = page_of(made, drawn=False)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles[:3] == ["What broke", "What was edited", "Before and after"]
    cards = re.findall(r'<li class="card" data-kind="(\w+)">(.*?)</li>', page)
    assert [kind for kind, _ in cards] == ["yes", "no"]
    for _, card in cards:
        assert re.findall("<dt>(.*?)</dt>", card) == ["Before", "After", "Target"]
    # every control has a name, and what changes is said to who cannot see it
    assert '<label for="search">' in page and "<legend>Show</legend>" in page
    assert 'aria-live="polite"' in page


def luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_stands_out_in_light_and_dark() -> None:
    schemes = re.findall(r":root \{(.*?)\}", page_of(report(), drawn=False), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        for name in ("text", "faint", "link", "good", "fair", "poor"):
            for ground in ("page", "panel"):
                light, dark = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)  # WCAG AA


def test_facts_without_answers_have_nothing_to_filter() -> None:
    page = html_report(record(), {}, facts=[{"prompt": "A is", "target": "b", "subject": "A"}])
    assert 'id="search"' in page and "<legend>" not in page


def test_it_stays_small() -> None:
    made = report() | {"facts": [outcome(n, n % 9 > 0, f"{n} " + "<&>" * 100) for n in range(8000)]}
    page = page_of(made, drawn=False)
    assert len(page.encode()) < 800_000
    assert "more, in facts.jsonl" in page


def test_a_merged_model_has_a_page_too() -> None:
    page = html_report({**merged_record(), "reports": [report(), None]}, name="m", merged=True)
    text = "".join(Tree(page).words)
    for needed in ("patches/1", "95.0 % in BF16", "before merging", "The merged model was not evaluated."):
        assert needed in text, needed


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium here; CHROMIUM names one")
def test_a_browser_searches_and_filters(tmp_path: Path) -> None:
    made = nasty()
    made["facts"] += [outcome(n, success=n % 2 > 0) for n in range(2, 30)]
    file = tmp_path / "report.html"
    file.write_text(page_of(made), encoding="utf-8")
    steps = {
        "start": "",
        "search": 'type("LAND2 is")',
        "failed": 'type(""); choose("no")',
        "both": 'type("land4")',
        "nothing": 'type("no such words")',
    }
    found, console = use(file, steps)
    assert console == []
    assert found["start"] == "30 of 30 shown"
    assert found["search"] == "11 of 30 shown"
    assert found["failed"] == "14 of 30 shown"
    assert found["both"] == "1 of 30 shown"
    assert found["nothing"] == "0 of 30 shown"


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium here; CHROMIUM names one")
def test_a_browser_shows_it_at_every_width(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page_of(nasty()), encoding="utf-8")
    for one in look(file, tmp_path / "looks", opened=True):
        assert one.fits, one
        assert os.path.getsize(one.picture) > 10_000


def test_everything_can_be_read_in_both_schemes() -> None:
    """WCAG's contrast for text, 4.5 to 1, of every colour that text has on both of the backgrounds."""
    light, dark = re.findall(r":root \{(.*?)\}", page_of(report(), drawn=False), re.DOTALL)
    for scheme in (light, dark):
        colours = dict(re.findall(r"--(\w+): #(\w{6})", scheme))
        for name in ("text", "faint", "link", "good", "fair", "poor"):
            for ground in ("page", "panel"):
                pair = sorted((_luminance(colours[name]), _luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, ground, scheme)


def _luminance(colour: str) -> float:
    """Relative luminance of six hexadecimal digits (WCAG 2)."""
    values = [int(colour[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(share * v for share, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
