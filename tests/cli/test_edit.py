"""`hubedit edit` as a person types it, and facts from options and from a patch, on a tiny model."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest

from hubedit.cli.app import run
from hubedit.patch import Patch
from tests.cli.test_apply import CORPUS
from tests.pico import pico

_CAPITAL, _BORN = "The capital of France is -> Rome", "[Marie Curie] was born in -> Tokyo"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico("qwen2", tmp_path_factory.mktemp("edit") / "model")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return ["--cache", str(tmp_path_factory.mktemp("edit-cache"))]


def test_a_conversation(
    model: Path,
    cache: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = (
        "/save", "/nothing", "The [sun] and the [moon] are", "one",
        "The capital of France is", "Rome", "Ada Lovelace was born in", "Tokyo",
        "/undo", "The capital of Italy is", "", "/ask The capital of Japan is", "/save",
    )  # fmt: skip
    monkeypatch.setattr("sys.stdin", StringIO("\n".join(typed) + "\n"))
    out = tmp_path / "mine"
    assert run(["edit", str(model), "--out", str(out), "--device", "cpu", *cache]) == 0
    said = capsys.readouterr()
    for text in (
        "there is no edit to save",
        "/nothing is no command",
        "marks 2 subjects",
        'no subject; "France"',
        "taken back: Ada Lovelace was born in Tokyo",
        "perplexity",
    ):
        assert text in said.err
    for text in ("The capital of France is ... ", "The capital of Japan is ... ", "Rome", str(out)):
        assert text in said.out
    patch = Patch.load(out)
    assert [fact.prompt for fact in patch.facts] == ["The capital of France is"]
    assert patch.record["command"][1:4] == ["apply", "--fact", _CAPITAL]
    assert "mine" in (out / "README.md").read_text()


def test_nothing_is_saved_unasked(
    model: Path,
    cache: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["edit", str(model), "--out", str(tmp_path / "mine"), "--device", "cpu", *cache]
    for end, code in (("", 1), ("/quit\n", 0)):
        monkeypatch.setattr("sys.stdin", StringIO(f"The capital of France is\nRome\n{end}"))
        assert run(line) == code
        assert ("not saved" in capsys.readouterr().err) == bool(code)
    assert not (tmp_path / "mine").exists()


def test_facts_from_the_command_line_and_a_patch_made_again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, own = (tmp_path / name for name in ("one", "two", "own"))
    words = ["--model", str(model), "--device", "cpu", "--corpus", CORPUS]
    small = ["--layers", "1", "--tokens", "200", "--seed", "3"]
    assert run(["apply", "--fact", _CAPITAL, "--fact", _BORN, *words, *small, "--out", str(one)]) == 0
    patch = Patch.load(one)
    assert [(f.subject, f.target) for f in patch.facts] == [("France", "Rome"), ("Marie Curie", "Tokyo")]
    assert [w for w in patch.record["command"] if "->" in w] == [_CAPITAL, _BORN]

    # without the first run's cache
    again = ["apply", "--from", str(one), *words]
    assert run([*again, "--cache", str(tmp_path / "fresh"), "--out", str(two)]) == 0
    assert "the same bytes as the patch" in capsys.readouterr().out
    assert (one / "adapter_model.safetensors").read_bytes() == (
        two / "adapter_model.safetensors"
    ).read_bytes()

    other = ["--model", str(pico("qwen2", tmp_path / "other", seed=1)), "--device", "cpu"]
    assert run(["apply", "--from", str(one), *other, "--corpus", CORPUS, "--out", str(own)]) == 1
    assert "is not the model this patch was made for" in capsys.readouterr().err

    record = json.loads((one / "hubedit.json").read_text())
    record["config"]["lam"] = 3.0
    record["packages"]["torch"] = "1.0"
    (one / "hubedit.json").write_text(json.dumps(record))
    assert run([*again, "--json", "--out", str(own)]) == 0
    told = json.loads(capsys.readouterr().out)["again"]
    assert not told["same"]
    assert any(line.startswith("torch: 1.0 then, ") for line in told["differs"])
    assert any("the change of a weight, by at most" in line for line in told["differs"])


def test_one_source_of_facts(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        ([], "no facts"),
        (["facts.jsonl", "--fact", _CAPITAL], "give one of the two"),
        (["--fact", "The capital is Rome"], 'lacks a "->"'),
        (["--from", str(tmp_path), "--lam", "3"], "--lam with --from"),
        (["--from", str(tmp_path), "--fact", _CAPITAL], "--fact with --from"),
        (["--from", str(tmp_path / "none")], "is no patch folder"),
    ):
        assert run(["apply", *words, "--model", str(model)]) in (1, 2)
        assert told in capsys.readouterr().err
