"""The documentation says what is so: generated pages, commands, links and examples."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hubedit.facts import load_facts
from hubedit.model.families import FAMILIES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")])
BLOCK = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# an argument in capitals stands for something: `hubedit ask MODEL "prompt"`
INLINE = re.compile(r"(?<!`)`(hubedit [^`\n]+)`(?!`)")


def script(name: str) -> ModuleType:
    """A program of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generate = script("generate")


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """(what stands behind the language, content) of the fenced blocks in one of the languages."""
    return [(m[2], m[3]) for m in BLOCK.finditer(page.read_text(encoding="utf-8")) if m[1] in languages]


def commands(page: Path) -> list[str]:
    """The command lines of `hubedit` that a reader might type."""
    found: list[str] = []
    for _, content in blocks(page, "bash", "console", "sh"):
        joined = content.replace("\\\n", " ")
        found += [line.removeprefix("$ ") for line in joined.splitlines()]
    found += INLINE.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))
    return [line for line in found if line.startswith("hubedit ") and "..." not in line]


def parse(line: str) -> None:
    """Parses a command line as typer does, without running anything. Raises its usage errors."""
    words = shlex.split(line, comments=True)
    assert words[0] == "hubedit"
    node: Any = generate.command()
    name, rest = "hubedit", words[1:]
    while getattr(node, "commands", None):
        known = {option for p in node.params for option in p.opts}
        while rest and rest[0] in known | {"--help", "-h"}:
            rest = rest[1:]
        if not rest:
            return
        assert rest[0] in node.commands, f"no command {name} {rest[0]}"
        name, node, rest = f"{name} {rest[0]}", node.commands[rest[0]], rest[1:]
    if not {"--help", "-h"} & set(rest):
        node.make_context(name, list(rest)).close()


def test_generated_pages_are_up_to_date() -> None:
    assert generate.stale() == [], "run: python docs/generate.py"


def test_every_command_is_in_the_reference() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    leaves = [path for path, _ in generate.leaves(generate.command())]
    assert len(leaves) > 6
    for path in leaves:
        assert re.search(rf"^##+ {path}$", page, re.MULTILINE), path


LINES = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line}" for page, line in LINES])
def test_every_command_line_parses(page: str, line: str) -> None:
    # a verb alone names the verb; it need not be a whole command
    whole = len(shlex.split(line)) > 3 or "." in line
    try:
        parse(line)
    except Exception as error:
        if whole or "Missing" not in f"{type(error).__name__} {error}":
            raise AssertionError(f"{page}: {line}: {error}") from error


def test_command_lines_that_do_not_exist_are_found() -> None:
    for line in ("hubedit nothing", "hubedit facts check f.jsonl --modle x", "hubedit apply f.jsonl --out p"):
        with pytest.raises(Exception, match=r"(?i)no command|no such|missing"):
            parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        assert not target.startswith(("http:", "/")), f"{page.name}: {target}"
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), f"{page.name}: {target}"
        assert file.is_relative_to(ROOT)
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\s-]", "", h).strip().lower().replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page.name}: {target}"


def test_the_method_is_where_its_page_says() -> None:
    """Every file that docs/method.md names is there, with the functions that stand behind its name."""
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`((?:(?:: |, | \(|, )`\w+`)*)", text)
    assert len(named) > 30
    for name, behind in named:
        (file,) = [f for f in (ROOT / "hubedit" / name, ROOT / "hubedit/edit/methods" / name) if f.is_file()]
        tree = ast.parse(file.read_text(encoding="utf-8"))
        there = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        assert set(re.findall(r"`(\w+)`", behind)) <= there, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_are_right(page: Path) -> None:
    for _, content in blocks(page, "python"):
        compile(content, page.name, "exec")
    for title, content in blocks(page, "json"):
        if "jsonl" in title:
            continue
        for document in re.split(r"\n(?=\{)", content):
            json.loads(document)


def test_the_tutorials_facts_are_read(tmp_path: Path) -> None:
    found = [content for title, content in blocks(DOCS / "tutorial.md", "json") if "facts.jsonl" in title]
    assert len(found) == 1
    file = tmp_path / "facts.jsonl"
    file.write_text(found[0], encoding="utf-8")
    loaded = load_facts(file)
    assert len(loaded.facts) == 3
    assert not loaded.notices


def test_the_readme_is_short_and_its_make_targets_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    targets = set(re.findall(r"\bmake (\w+)", text))
    assert {"demo", "test"} <= targets
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_family_is_in_the_table_of_models() -> None:
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    for family in FAMILIES.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{family.name}`"))
        assert f"`{family.o_proj}`" in row
        assert f"`{family.down_proj}`" in row


def test_the_terminal_picture_fetches_nothing() -> None:
    picture = (DOCS / "terminal.svg").read_text(encoding="utf-8")
    addresses = set(re.findall(r"(?:href|src|url)[=(]\s*[\"']?(https?://[^\"')\s]+)", picture))
    assert addresses == set()


def test_a_terminals_screen_is_what_remains_of_it() -> None:
    terminal = script("terminal")
    said = "one\r\n\x1b[2K| 10 %\r\x1b[2K| 90 %\r\n| two\r\x1b[1A\x1b[2Kdone\r\nlast\r\n\r\n"
    assert terminal.screen(said) == ["one", "done", "last"]
    assert terminal.screen("old text\rnew\r\n") == ["new"]
    assert terminal.shorten([str(n) for n in range(10)], 5)[0] == "0"
    assert len(terminal.shorten([str(n) for n in range(10)], 5)) == 5
