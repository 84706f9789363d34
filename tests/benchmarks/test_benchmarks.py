"""Every benchmark runs, on the pico shape, and tells numbers that make sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from hubedit.config import TargetConfig
from hubedit.edit.targets.optimise import optimise
from tests.benchmarks import estimate, gpu, many, passes, profile, targets
from tests.benchmarks.shapes import model, rows


def test_everything_runs_at_the_pico_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    words = ["--shape", "pico", "--device", "cpu", "--facts", "4", "--tokens", "600", "--quick"]
    words += ["--limit", ""]
    code, said = gpu.main([*words, "--out", str(out)]), capsys.readouterr().out
    missed = [line for line in said.splitlines() if line.startswith("not as wanted")]
    assert code == len(missed)
    # at this size one of the timed comparisons may miss its bound, and nothing else
    assert missed in ([], ["not as wanted: scaling"])
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found) == {"targets", "statistics", "solve", "memory", "scaling", "edit"}
    assert found["statistics"]["errors"]["float32"] < 1e-5
    assert found["statistics"]["errors"]["bfloat16"] < 1e-5
    assert found["solve"]["runs"][0]["residual"] < 1e-6
    stages = found["edit"]["cold"]
    assert {"trace", "statistics", "targets", "solve", "verification", "all"} <= set(stages)
    assert stages["all"] >= stages["targets"] > 0


SCRIPTS = {p.stem for p in Path(__file__).parent.glob("*.py")} - {"__init__", "shapes", Path(__file__).stem}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_starts(name: str) -> None:
    assert callable(import_module(f"tests.benchmarks.{name}").main)


def test_the_estimate_is_compared_with_an_edit(tmp_path: Path, pico_path: Callable[..., Path]) -> None:
    out = tmp_path / "found.json"
    # whether a tiny model meets the factor is another matter: its time is that of everything around it
    estimate.main([str(pico_path()), "--facts", "1", "--device", "cpu", "--json", str(out)])
    first, cached = json.loads(out.read_text(encoding="utf-8"))["runs"]
    assert first["stages"]["text"] > 0 and "text" not in cached["stages"]
    assert min(cached[key] for key in ("estimate", "wall", "computed", "ratio", "memory")) > 0


def test_the_published_recipe_of_the_benchmark_goes_where_ours_goes() -> None:
    em = model("pico", "cpu", None)
    made = rows(em, 1)
    config = TargetConfig(steps=4, step=0.1, loss=0.0, decay=0.0, optimizer="adam", clamp=100)
    ours = optimise(em, made, 1, 1, config).delta[0]
    plain = targets.published(em, made, 1, config)
    assert float((ours - plain).norm() / plain.norm()) < 1e-2


def test_targets_of_a_checkpoint_are_timed(tmp_path: Path, pico_path: Callable[..., Path]) -> None:
    out = tmp_path / "found.json"
    given = ["--model", str(pico_path()), "--facts", "2", "--plain", "1", "--steps", "2", "--least", "0"]
    assert targets.main([*given, "--device", "cpu", "--json", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["facts"] == 2 and min(found["published"], found["default_seconds_a_fact"]) > 0


def test_thousands_of_facts_go_through_solve_and_patch(
    tmp_path: Path, pico_path: Callable[..., Path]
) -> None:
    out = tmp_path / "found.json"
    many.main([str(pico_path()), "--facts", "3", "200", "--device", "cpu", "--json", str(out)])
    few, most = json.loads(out.read_text(encoding="utf-8"))["runs"]
    assert 0 < few["bytes"] < most["bytes"] <= 1.01 * 1.5 * most["dense"]  # d 32, d_in 64
    assert min(most[stage] for stage in many.STAGES) > 0


def test_passes_of_every_size_are_timed() -> None:
    found = passes.measured(model("pico", "cpu", None), 96, 1)
    assert set(found) == {"rows of 16", "rows of 48", "prompts"}
    assert all(set(row) == set(passes.SIZES) and min(row.values()) > 0 for row in found.values())


def test_a_profile_gives_every_second_to_one_stage() -> None:
    done = [0.0]
    stages = profile.Stages(lambda: done[0])
    stages.tokens += 5
    stages.start("targets 0.mlp", 3, "facts")
    stages.tokens, done[0] = 7.0, 2e9
    stages.finish("mean loss 1")
    stages.start("targets 1.mlp")
    stages.tokens, done[0] = 1.0, 3e9
    stages.close("")
    assert {name: (s.tokens, s.work) for name, s in stages.found.items()} == {
        profile.BETWEEN: (5.0, 0.0),
        "targets": (8.0, 3e9),
    }
    rows_of = profile.report(stages.found, stages.found, 1e12)
    assert [row["stage"] for row in rows_of] == [profile.BETWEEN, "targets", "all"]
    assert rows_of[-1]["tflop"] == pytest.approx(3e-3) and rows_of[1]["share"] > 0
