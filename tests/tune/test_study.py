"""Tuning on the bundled model, with real edits: the journal, the front, the preset, and going on."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig, TargetConfig, TraceConfig
from hubedit.demo import model_path
from hubedit.errors import ConfigError, HubEditError
from hubedit.evaluate import read
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.preset_file import load_preset
from hubedit.presets import preset
from hubedit.progress import Silent
from hubedit.tune import study as module
from hubedit.tune.bank import bank
from hubedit.tune.cases import Cases, prepare_cases
from hubedit.tune.front import Tried, Tuned, choose, pareto
from hubedit.tune.space import Point, Space
from hubedit.tune.study import finished, open_study, tune
from hubedit.tune.trial import Score, trial_edit
from hubedit.tune.write import check_out, toml, write
from tests.cli.test_apply import CORPUS

optuna = pytest.importorskip("optuna")

BASE = EditConfig(
    collapse="tell",
    stats=StatsConfig(CORPUS, 2000),
    trace=TraceConfig(samples=2, max_facts=4),
    targets=TargetConfig(steps=12, contexts=1, clamp=0.8, step=0.4),
)


@pytest.fixture(scope="module")
def small() -> tuple[EditableModel, Cases]:
    em = load(str(model_path()), device="cpu")
    return em, prepare_cases(em, bank(), 3, 0, Silent())


def run(small: tuple[EditableModel, Cases], folder: Path, **more: Any) -> Tuned:
    em, cases = small
    given = {"budget": 0.0, "base": BASE, **more}
    return tune(em, cases, storage=folder / "j.journal", cache=Cache(folder / "cache"), **given)


@pytest.mark.slow
def test_a_run_its_preset_and_going_on(small: tuple[EditableModel, Cases], tmp_path: Path) -> None:
    em, cases = small
    first = run(small, tmp_path)
    assert [t.number for t in first.trials] == [0]
    assert set(first.chosen) == {"success", "balanced", "locality"} == set(first.check) - {"default"}
    stats = sorted((tmp_path / "cache" / "stats").iterdir())
    assert len(stats) >= 2 * len(Space.of(em.num_layers).layers()), "of every site that a trial may edit"

    # Ctrl-C in the second trial: the first is kept, and a later run goes on
    calls: list[EditConfig] = []

    def cut(em: EditableModel, facts: Any, before: Any, config: EditConfig, cache: Cache) -> Any:
        calls.append(config)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small, tmp_path, budget=1e9, scorer=cut)
    assert len(calls) == 1, "the default is not measured again"
    assert calls[0].layers != "auto" and calls[0].targets.clamp == 0.5, "the default's, divided by 1.6"

    def two(em: EditableModel, facts: Any, before: Any, config: EditConfig, cache: Cache) -> Any:
        calls.append(config)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return trial_edit(em, facts, before, config, cache)

    with pytest.raises(KeyboardInterrupt):
        run(small, tmp_path, budget=1e9, scorer=two)
    said: list[str] = []

    class Heard(Silent):
        def message(self, text: str) -> None:
            said.append(text)

    tuned = run(small, tmp_path, progress=Heard())
    assert "no time for another trial" in said[-1]
    assert [t.number for t in tuned.trials] == [0, 2, 3]
    assert tuned.trials[0] == first.trials[0] and tuned.default == first.default
    assert sorted((tmp_path / "cache" / "stats").iterdir()) == stats, "no pass over the corpus for a trial"

    out, picture = write(em, tuned, tmp_path / "found" / "preset.toml")
    assert load_preset(str(out)).chosen_on([fact.prompt for fact in cases.trial])
    assert not load_preset(str(out)).chosen_on([fact.prompt for fact in cases.check])
    data = tomllib.loads(out.read_text(encoding="utf-8"))
    assert data["measured"]["facts"] == len(cases.check) and data["tuned"]["trials"] == 3
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    check_out(out)
    # the first trials are near the default; whatever was chosen, the file says it whole
    points = tuned.trials
    for chosen in (
        tuned.chosen,
        {"balanced": points[0], "success": points[1], "locality": Tried(-1, None, tuned.default)},
        {"balanced": Tried(-1, None, tuned.default), "success": points[2], "locality": points[0]},
    ):
        write(em, replace(tuned, chosen=chosen), out)
        for name, tried in chosen.items():
            wanted = tried.config(BASE)
            found = preset(str(out), "joint", name)
            shared = replace(found, stats=wanted.stats, trace=wanted.trace, collapse=wanted.collapse)
            assert shared == wanted


def test_a_run_that_goes_on_proposes_what_it_would_have(tmp_path: Path) -> None:
    """The sampler is seeded by the number of the trial."""
    space = Space(0, 3)
    proposed: dict[str, list[dict[str, Any]]] = {}
    for name, stops in (("whole", ()), ("cut", (3, 9))):
        path = tmp_path / f"{name}.journal"
        study = open_study(path, "one")
        for n in range(12):
            if n in stops:
                study = open_study(path, "one")
            study.sampler = module.sampler(0, study)
            trial = study.ask(space.distributions())
            study.tell(trial, [trial.params["alpha"], -trial.params["clamp"]])
        proposed[name] = [t.params for t in finished(study)]
    assert proposed["whole"] == proposed["cut"]
    assert len({str(p) for p in proposed["whole"]}) == 12


def test_a_trial_of_a_killed_run_is_closed(tmp_path: Path) -> None:
    study = open_study(tmp_path / "a.journal", "one")
    study.ask()
    study.tell(study.ask(), [0.5, 0.5])
    again = open_study(tmp_path / "a.journal", "one")
    assert [t.number for t in finished(again)] == [1]
    assert not again.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    assert finished(open_study(tmp_path / "a.journal", "another")) == []


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes\nand more\n")
    with pytest.raises(ConfigError, match="no journal"):
        open_study(file, "one")
    assert file.read_text() == "my notes\nand more\n"


def test_a_collapse_is_the_worst_score(small: tuple[EditableModel, Cases], tmp_path: Path) -> None:
    em, cases = small
    wild = replace(BASE, collapse="stop", layers="1-2", alpha="0", lam=1e-6)
    wild = replace(wild, targets=replace(wild.targets, optimizer="adam", clamp=1e4, step=50.0))
    score, edit = trial_edit(em, cases.trial, read(em, cases.trial), wild, Cache(tmp_path))
    assert edit is None and score.collapsed and (score.success, score.locality) == (0.0, 0.0)
    assert Score(**score.to_json()) == score


def test_what_follows_from_an_edit_counts_as_success() -> None:
    metrics = {"success": 1.0, "generalisation": 0.8, "portability": 0.6, "locality": 0.9, "other": 0.0}
    score = Score.of(metrics, 2.5 / 2.0)
    assert score.success == pytest.approx(0.8) and score.locality == pytest.approx(0.9 * 0.8)
    del metrics["portability"]
    assert Score.of(metrics, 2.5 / 2.0).success == pytest.approx(0.9)
    assert Score.of(metrics, 0.5).locality == pytest.approx(0.9), "better text is no better edit"


def tried(number: int, success: float, locality: float) -> Tried:
    return Tried(number, Point(1, 1, 0.0, 0.6, 30.0, 0), Score(success, locality))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_nothing_beats_the_front_and_it_beats_the_rest(pairs: list[tuple[int, int]]) -> None:
    trials = [tried(n, a / 5, b / 5) for n, (a, b) in enumerate(pairs)]
    front = pareto(trials)
    for t in trials:
        better = [
            o for o in front if o.score.success >= t.score.success and o.score.locality >= t.score.locality
        ]
        assert better, "each trial is on the front or beaten by one that is"
    for one in front:
        for other in front:
            if one is not other:
                assert (one.score.success > other.score.success) != (
                    one.score.locality > other.score.locality
                )
    successes = [t.score.success for t in front]
    assert successes == sorted(successes, reverse=True)
    picked = [choose(front, weight).score for weight in (4.0, 1.0, 0.25)]
    assert picked[0].success >= picked[1].success >= picked[2].success


def test_without_optuna_the_command_that_installs_it_is_told(
    small: tuple[EditableModel, Cases], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(HubEditError) as found:
        run(small, tmp_path)
    assert found.value.hint == 'pip install "hubedit[tune]"' and os.listdir(tmp_path) == []


def test_a_front_of_nothing_is_told(small: tuple[EditableModel, Cases], tmp_path: Path) -> None:
    with pytest.raises(HubEditError, match="it broke"):
        run(small, tmp_path, scorer=lambda *_: (Score(0.0, 0.0, collapsed="it broke"), None))


values = st.recursive(
    st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.dictionaries(st.text(min_size=1), inner, max_size=3)
        | st.lists(
            st.dictionaries(st.text(min_size=1), st.integers(-9, 9), max_size=2), min_size=1, max_size=2
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), values, max_size=4))
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    assert tomllib.loads(toml(data)) == data


def test_only_a_preset_is_replaced(tmp_path: Path) -> None:
    check_out(tmp_path / "new.toml")
    with pytest.raises(ConfigError, match="TOML"):
        check_out(tmp_path / "new.json")
    other = tmp_path / "pyproject.toml"
    other.write_text("[project]\nname = 'mine'\n")
    with pytest.raises(ConfigError, match="exists and is no preset"):
        check_out(other)


def test_the_mean_weighs_success() -> None:
    score = Score(0.9, 0.3)
    assert score.mean() == pytest.approx(2 / (1 / 0.9 + 1 / 0.3))
    assert score.mean(4.0) > score.mean() > score.mean(0.25)
    assert Score(0.0, 1.0).mean(4.0) == 0.0
    assert Score(**score.to_json()) == score and score.metrics == {}
