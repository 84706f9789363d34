"""No command makes a library warn: what is deprecated today is gone in the next version."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubedit.cli.app import run

FACT = {"prompt": "The capital of France is", "subject": "France", "target": "Rome"}
LIBRARIES = ("transformers", "peft", "huggingface_hub", "accelerate", "safetensors", "torch")


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What libraries log while the test runs, at the level that they have by default."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, levels = Kept(logging.WARNING), {}
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        levels[name] = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
    yield lines
    for name, level in levels.items():
        logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).setLevel(level)


def test_an_edit_from_end_to_end_is_silent(
    pico_path: Callable[..., Path], tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model, facts, patch = pico_path("qwen2"), tmp_path / "facts.jsonl", tmp_path / "patch"
    facts.write_text(json.dumps(FACT))
    few = ["--tokens", "200", "--layers", "1"]
    commands: list[list[object]] = [
        ["facts", "check", facts, "--model", model],
        ["apply", facts, "--model", model, "--out", patch, "--alpha", "auto", *few],
        ["ask", model, FACT["prompt"], "--patch", patch],
        ["inspect", patch, "--model", model],
        ["merge", patch, "--out", tmp_path / "merged"],
        ["eval", model, "--patch", patch, "--text", "none", "--fluency", "2", "--out", tmp_path / "report"],
        ["trace", facts, "--model", model, "--out", tmp_path / "trace"],
        ["extract", model, tmp_path / "merged", "--out", tmp_path / "extracted"],
    ]
    for command in commands:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            code = run([str(word) for word in command])
        told = [f"{w.filename}:{w.lineno}: {w.message}" for w in caught]
        assert code == 0, (command, capsys.readouterr().err)
        assert not told, (command[0], told)
        assert not [line for line in said if "deprecat" in line.lower()], (command[0], said)
        assert "Warning" not in capsys.readouterr().err
