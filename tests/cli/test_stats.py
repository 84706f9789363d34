"""`hubedit stats compute|list|clear` on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubedit.cli.app import run
from tests.pico import SENTENCES, pico


def test_compute_list_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = pico("gpt2", tmp_path / "model")
    corpus = tmp_path / "text.txt"
    corpus.write_text("\n".join(SENTENCES))
    where = ["--cache", str(tmp_path / "cache")]
    words = ["stats", "compute", "--model", str(model), "--device", "cpu", "--corpus", str(corpus), *where]
    words += ["--tokens", "200", "--layers", "0-1", "--json"]
    assert run([*words, "--site", "mlp"]) == 0
    sites = json.loads(capsys.readouterr().out)["sites"]
    assert [s["site"] for s in sites] == ["0.mlp", "1.mlp"]
    # every row's first token is left out
    assert all(150 < s["tokens"] < 200 for s in sites)
    assert run(words) == 0
    capsys.readouterr()

    assert run(["stats", "list", *where, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert [e["site"] for e in entries] == ["0.attention", "0.mlp", "1.attention", "1.mlp"]
    assert run(["stats", "list", *where]) == 0
    assert "1.attention" in capsys.readouterr().out

    assert run(["stats", "clear", *where, "--yes", "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == "4"
    assert run(["stats", "list", *where, "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == "0"


def test_what_cannot_be_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = pico("gpt2", tmp_path / "model")
    words = ["stats", "compute", "--model", str(model), "--device", "cpu", "--cache", str(tmp_path / "c")]
    assert run([*words, "--corpus", str(tmp_path / "none.txt")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert run([*words, "--layers", "3-9"]) == 2
    assert "outside the model" in capsys.readouterr().err
