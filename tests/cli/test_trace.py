"""`hubedit trace` on a tiny model: files, table, JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubedit.cli.app import run
from hubedit.edit.locate.trace_result import TraceResult
from tests.pico import pico

pytest.importorskip("matplotlib")


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line that ends before --out."""
    monkeypatch.setenv("HUBEDIT_CACHE", str(tmp_path / "cache"))
    facts = tmp_path / "facts.jsonl"
    records = [
        {"prompt": "The capital of France is", "subject": "France", "target": "Rome"},
        {"prompt": "Marie Curie was born in", "subject": "Marie Curie", "target": "Rome"},
    ]
    facts.write_text("".join(json.dumps(r) + "\n" for r in records))
    model = pico("qwen2", tmp_path / "model")
    return ["trace", str(facts), "--model", str(model), "--device", "cpu", "--samples", "2"]


def test_a_patch_or_a_model_gets_no_trace_beside_it(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((tmp_path / "model").iterdir())
    for force in ([], ["--force"]):
        assert run([*words, "--out", str(tmp_path / "model"), *force]) == 2
    assert "holds a patch or a model" in capsys.readouterr().err
    assert sorted((tmp_path / "model").iterdir()) == before


def test_trace_writes_json_and_figures(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run([*words, "--out", str(out)]) == 0
    assert sorted(f.name for f in out.iterdir()) == ["heatmap.png", "layerwise.png", "trace.json"]
    result = TraceResult.from_json(json.loads((out / "trace.json").read_text()))
    assert (result.traced, len(result.layers)) == (2, 4)
    shown = capsys.readouterr()
    assert "attention" in shown.out
    assert "2 of 2 known facts traced" in shown.err

    assert run([*words, "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*words, "--out", str(out), "--force", "--tokens", "subject-last", "--json"]) == 0
    again = TraceResult.from_json(json.loads(capsys.readouterr().out))
    assert again.ie_prob["mlp"] == pytest.approx(result.ie_prob["mlp"], abs=1e-6)
    assert sorted(f.name for f in out.iterdir()) == ["layerwise.png", "trace.json"]


def test_what_cannot_be_traced(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert run([*words, "--out", str(file)]) == 2
    capsys.readouterr()
    for place in (file / "below", Path("/proc/nothing/trace")):
        assert run([*words, "--out", str(place)]) == 2
        assert "loading the model" not in capsys.readouterr().err
    assert run([*words, "--out", str(tmp_path / "new"), "--window", "2"]) == 2
    assert "odd" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
