"""Imports point downward only, so that a part can be understood without what stands above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hubedit"

# from the top down; a module imports its own row only inside its own package, and rows below
LAYERS = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("bench", "tune", "session", "tour", "doctor"),
    ("pipeline", "plan", "standing"),
    ("cost",),
    ("hub",),
    ("readers",),
    ("report",),
    ("checkpoint",),
    ("evaluate", "edit", "patch"),
    ("parallel", "environment"),
    ("model", "cache", "progress", "presets"),
    ("preset_file",),
    ("method",),
    ("linalg", "facts", "documents", "name_sentences", "config", "demo", "folder", "floats", "weights"),
    ("remote", "values"),
    ("errors", "verb"),
)
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}
# the same inside hubedit/edit: what finds, measures, optimises and solves knows no prompts of hubedit's own
EDIT_LAYERS = (
    ("compute", "patch_record", "checks"),
    ("methods",),
    ("batch",),
    ("baseline", "prompts"),
    ("result",),
    ("solve", "targets"),
    ("locate", "statistics"),
    ("rows",),
)
EDIT_LEVEL = {name: level for level, row in enumerate(EDIT_LAYERS) for name in row}
OWN_METHODS = {"joint"}  # hubedit's own; the others are published ones
# the one step up: facts are checked with a model's tokenizer, which is loaded only when that is asked for
ALLOWED = {("facts", "model")}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def named(path: Path) -> str:
    """The module's name: `hubedit.model` for its `__init__.py`."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {named(path) for path in modules()}


def imports(path: Path, typing: bool = True) -> Iterator[tuple[str, int]]:
    """(full module name, line) of every import in a file, also inside functions; `typing`: and inside
    TYPE_CHECKING, which never runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not typing:
        for block in ast.walk(tree):
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
                block.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in NAMES else str(node.module)), node.lineno


def part(name: str) -> str:
    """The layer's name of a module: `hubedit.model.load` -> `model`."""
    return name.split(".")[1]


def owner(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = owner(path)
    if own == "__init__":
        return  # the re-exports
    assert own in LEVEL, f"{own} has no place in LAYERS"
    for name, line in imports(path):
        if not name.startswith("hubedit."):
            continue
        other = part(name)
        if other not in LEVEL or other == own:  # a name of hubedit/__init__.py, or the same package
            continue
        down = LEVEL[other] > LEVEL[own] or (own, other) in ALLOWED
        assert down, f"{path.name}:{line}: {own} must not import {other}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "edit").rglob("*.py")), ids=lambda p: p.stem)
def test_imports_inside_edit_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE / "edit").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in EDIT_LEVEL, f"{own} has no place in EDIT_LAYERS"
    for name, line in imports(path):
        other = name.removeprefix("hubedit.edit.").split(".")[0]
        if not name.startswith("hubedit.edit.") or other == own:
            continue
        assert EDIT_LEVEL[other] > EDIT_LEVEL[own], f"{path.name}:{line}: {own} must not import {other}"
        published = own == "methods" and path.stem not in OWN_METHODS
        assert not (published and other == "prompts"), f"{path.name}:{line}: a published method has no {name}"


def test_no_files_import_each_other_in_a_circle() -> None:
    """Not even where one of them does so only inside a function."""
    below = {
        named(p): {name for name, _ in imports(p, typing=False) if name in NAMES} - {named(p)}
        for p in modules()
    }
    while leaves := {name for name, others in below.items() if not others}:
        below = {name: others - leaves for name, others in below.items() if name not in leaves}
    while tops := {name for name in below if not any(name in others for others in below.values())}:
        below = {name: others for name, others in below.items() if name not in tops}
    assert not below, sorted(below)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_line_renders(path: Path) -> None:
    own = owner(path)
    for name, line in imports(path):
        top = name.split(".")[0]
        assert top != "click", f"{path.name}:{line}: typer carries its own click"
        if own not in ("cli", "__main__"):
            assert top not in ("typer", "rich"), f"{path.name}:{line}: only cli may use {top}"
        if own == "linalg":
            assert top not in ("transformers", "peft", "safetensors", "tokenizers"), f"{path.name}:{line}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path: Path) -> None:
    assert path.name not in ("utils.py", "helpers.py", "common.py")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_help_needs_no_torch() -> None:
    code = """
import sys
from hubedit.cli.app import run
assert run(["--help"]) == 0
heavy = {"torch", "transformers", "peft", "matplotlib", "huggingface_hub", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_patches_load_without_transformers() -> None:
    code = "import sys, hubedit.patch; assert not {'transformers', 'peft'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
