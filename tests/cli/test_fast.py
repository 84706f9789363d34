"""`hubedit apply --fast`: settings that are recorded, that others go before, and a short report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubedit.cli.app import run
from hubedit.cli.settings import settings
from hubedit.config import EditConfig, from_dict
from hubedit.errors import ConfigError
from hubedit.model.load import load
from hubedit.patch import Patch
from hubedit.presets import FAST, FAST_TOKENS
from tests.cli.test_apply import CORPUS, facts_file
from tests.pico import pico


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line that ends before the other options."""
    folder = tmp_path_factory.mktemp("fast")
    model = pico("qwen2", folder / "model")
    line = [
        "apply",
        str(facts_file(folder / "facts.jsonl")),
        "--model",
        str(model),
        "--device",
        "cpu",
        "--fast",
    ]
    return [*line, "--corpus", CORPUS, "--cache", str(folder / "cache")]


def test_the_settings_are_in_the_patch_and_the_report_is_short(words: list[str], tmp_path: Path) -> None:
    assert run([*words, "--out", str(tmp_path / "fast"), "--quiet"]) == 0
    record = Patch.load(tmp_path / "fast").record
    made = from_dict(EditConfig, {**record["config"]})
    assert (made.targets, made.most_layers) == (FAST.targets, FAST.most_layers)
    em = load(words[3], device="cpu")
    assert made.stats.tokens == FAST_TOKENS * max(em.d_in(site) for site in em.sites())
    assert "--fast" in record["command"]
    report = json.loads((tmp_path / "fast" / "report.json").read_text())
    assert "success" in report["metrics"] and not {"in_context", "forms"} & set(report)
    assert (tmp_path / "fast" / "README.md").is_file()
    # its own settings make it again, without --fast
    line = ["apply", "--from", str(tmp_path / "fast"), *words[2:6], *words[-4:]]
    assert run([*line, "--out", str(tmp_path / "again"), "--quiet"]) == 0
    one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("fast", "again"))
    assert one.read_bytes() == two.read_bytes()


def test_what_is_given_goes_before(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [
        *words,
        "--tokens",
        "150",
        "--layers",
        "2",
        "--prefer",
        "locality",
        "--out",
        str(tmp_path / "own"),
    ]
    assert run([*line, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "fast" in shown and "150 tokens" in shown and not (tmp_path / "own").exists()
    assert run([*line, "--quiet"]) == 0
    record = Patch.load(tmp_path / "own").record
    config: dict[str, Any] = record["config"]
    assert (config["stats"]["tokens"], config["layers"], config["prefer"]) == (150, "2", "locality")
    assert record["layers"] == [2] and config["targets"]["rounds"] == FAST.targets.rounds
    assert settings(None, "joint", True, rank=8, lam=5.0) == settings(None, "", True, rank=8, lam=5.0)
    assert settings(None, "", True, lam=5.0).lam == 5.0 != FAST.lam


def test_other_whole_settings_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for preset, method in ((None, "memit"), ("qwen2.5-7b", "")):
        with pytest.raises(ConfigError, match="exclude each other"):
            settings(preset, method, True)
    assert run([*words, "--from", "patch"]) == 2
    assert "--fast with --from" in capsys.readouterr().err
