"""`hubedit tune`: a whole run on the bundled model, its preset in `apply`, and what is refused."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubedit.cache import Cache
from hubedit.cli.app import run
from hubedit.config import EditConfig, TargetConfig
from hubedit.demo import facts_path, model_path
from hubedit.model.editable import EditableModel
from hubedit.tune import tune
from hubedit.tune.front import Tuned
from hubedit.tune.study import open_study
from hubedit.tune.trial import Score, trial_edit
from tests.cli.test_apply import CORPUS

optuna = pytest.importorskip("optuna")


@pytest.mark.slow
def test_a_run_and_its_preset_in_apply(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = TargetConfig(steps=12, contexts=1, clamp=3.0)  # the bundled model must be moved far

    def scored(em: EditableModel, facts: Any, before: Any, config: EditConfig, cache: Cache) -> Any:
        score, edit = trial_edit(em, facts, before, config, cache)
        return (replace(score, success=1.0, locality=1.0) if config.layers == "auto" else score), edit

    def quick(*args: Any, base: EditConfig, **more: Any) -> Tuned:
        return tune(*args, base=replace(base, targets=few), scorer=scored, **more)

    monkeypatch.setattr("hubedit.tune.tune", quick)
    out = tmp_path / "preset.toml"
    model = ["--device", "cpu", "--cache", str(tmp_path / "cache"), "--corpus", CORPUS, "--tokens", "2000"]
    line = ["tune", str(model_path()), "--edits", "2", "--budget", "1s", "--out", str(out), *model]
    assert run([*line, "--json"]) == 0, capsys.readouterr().err
    found = capsys.readouterr()
    value = json.loads(found.out)
    assert value["trials"] == 1 and value["preset"] == str(out)
    assert set(value["check"]) == {"default", "success", "balanced", "locality"}
    assert "written to" in found.err and "--preset" in found.err
    assert (tmp_path / "preset.svg").is_file() and (tmp_path / "preset.journal").is_file()
    data = tomllib.loads(out.read_text(encoding="utf-8"))
    # no preset is worse than the default where both were tried
    assert value["chosen"]["balanced"] == "default" and "layers" not in data["settings"]
    assert "the preset holds the default" in found.err

    # the same command shows the same trial again, as tables; had the default done worse, it is the preset
    journal = tmp_path / "preset.journal"
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    (name,) = optuna.get_all_study_names(optuna.storages.JournalStorage(backend))
    open_study(journal, name).set_user_attr("default", Score(0.01, 0.01).to_json())
    assert run(line) == 0
    shown = capsys.readouterr().out
    assert "The front of 1 trial of 2 edits" in shown and "that no trial saw" in shown
    data = tomllib.loads(out.read_text(encoding="utf-8"))
    assert run([*line, "--json"]) == 0
    assert data["settings"]["layers"] == json.loads(capsys.readouterr().out)["front"][0]["layers"]

    facts = tmp_path / "two.jsonl"
    facts.write_text("".join(facts_path().read_text(encoding="utf-8").splitlines(True)[:2]), encoding="utf-8")
    words = ["apply", str(facts), "--model", str(model_path()), "--preset", str(out), "--prefer", "locality"]
    words += ["--out", str(tmp_path / "patch"), "--dry-run", "--json"]
    assert run(words) == 0, capsys.readouterr().err
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["layers"], config["lam"], config["prefer"]) == (
        data["settings"]["layers"],
        data["settings"]["lam"],
        "balanced",
    )


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--budget", "soon"], "cannot read the budget 'soon'"),
        (["--budget", "30"], "30m, 2h, 90s"),
        (["--out", "preset.json"], "a preset is a TOML file"),
        (["--edits", "1"], "edits"),
        (["--seed", "-1"], "seed"),
        (["--max-memory", "banana"], "banana"),
        (["--corpus", "no/such.txt"], "no/such.txt does not exist"),
        (["--facts", "no-such.jsonl"], "no-such.jsonl"),
    ],
)
def test_options_that_are_wrong_are_told_before_the_model_is_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["tune", "no-such-model", *extra]) == 2
    found = capsys.readouterr()
    assert said in found.err and "Traceback" not in found.err and found.out == ""
    assert list(tmp_path.iterdir()) == []


def test_optuna_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert run(["tune", "no-such-model"]) == 1
    assert 'pip install "hubedit[tune]"' in capsys.readouterr().err


def test_facts_that_say_nothing_of_what_is_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text('{"prompt": "The capital of France is", "subject": "France", "target": "Rome"}\n')
    line = ["tune", "no-such-model", "--facts", str(facts), "--out", str(tmp_path / "p.toml")]
    assert run(line) == 2
    said = capsys.readouterr().err
    assert "what is true now" in said and "ground_truth" in said
