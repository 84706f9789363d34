"""Configurations: what they expand to, what is refused, and the ready ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubedit.bench import Bench, read_bench, ready, ready_names
from hubedit.bench.cells import cells, override
from hubedit.bench.change import changed
from hubedit.bench.configuration import parse
from hubedit.config import EditConfig
from hubedit.errors import ConfigError
from hubedit.presets import method_defaults, preset

LAB = Path(__file__).parent.parent / "lab" / "bench"


def plan(**more: Any) -> dict[str, Any]:
    return {
        "models": [{"name": "m", "ref": "org/m"}],
        "data": [{"name": "d", "source": "zsre"}],
        "runs": [{"method": "joint"}],
        **more,
    }


def test_everything_is_crossed_and_alphas_only_with_methods_that_have_one() -> None:
    bench = parse(
        plan(
            alphas=[0, 0.25, "auto"],
            batch_sizes=[0, 10],
            edits=[10, 100],
            seeds=[0, 1],
            runs=[{"method": "joint"}, {"method": "memit"}],
        )
    )
    found = cells(bench)
    # batches of 10 are all 10 edits at once: (1 + 2) x (3 + 1) runs a seed
    assert len(found) == 2 * 3 * 4
    assert [c.alpha for c in found[:3]] == ["0", "0.25", "auto"] or found[1].batch_size == 0
    assert {c.alpha for c in found if c.method == "memit"} == {""}
    assert {(c.edits, c.batch_size) for c in found} == {(10, 0), (100, 0), (100, 10)}
    one = next(c for c in found if (c.alpha, c.edits, c.batch_size, c.seed) == ("0.25", 100, 10, 1))
    config = one.config
    assert (config.method, config.alpha, config.batch_size) == ("joint", "0.25", 10)
    assert config.seed == config.trace.seed == config.stats.seed == 1
    assert len({str(c.identity()) for c in found}) == len(found)


def test_methods_without_batches_run_once() -> None:
    """ROME's family edits fact after fact, and LocFT-BF's batches are those of its gradient steps."""
    runs = [{"method": method} for method in ("memit", "rome", "ft")]
    found = cells(parse(plan(batch_sizes=[0, 10], edits=[200], runs=runs)))
    sizes = [("memit", 0), ("memit", 10), ("rome", 0), ("ft", 100)]
    assert [(c.method, c.config.batch_size) for c in found] == sizes
    for method, way in (("rome", "facts"), ("ft", "epochs")):
        with pytest.raises(ConfigError, match=f"{method} knows no batches: its {way}"):
            parse(plan(runs=[{"method": method, "batch_sizes": [10]}]))


def test_settings_of_all_runs_then_of_one() -> None:
    runs = [{"method": "joint"}, {"method": "memit", "set": {"targets.kl": 2, "layers": 3}}]
    joint, memit = cells(parse(plan(runs=runs, set={"targets.kl": 0.5, "rank": 4})))
    assert (joint.config.targets.kl, joint.config.rank, joint.config.layers) == (0.5, 4, "auto")
    assert (memit.config.targets.kl, memit.config.rank, memit.config.layers) == (2.0, 4, "3")


def test_published_settings() -> None:
    runs = [{"method": "joint"}, {"method": "intattn"}, {"method": "rome"}]
    models = [{"name": "q", "ref": "org/q", "preset": "qwen2.5-7b"}, {"name": "mine", "ref": "org/mine"}]
    found = [c.config for c in cells(parse(plan(runs=runs, models=models, seeds=[0])))]
    assert [c.collapse for c in found] == ["tell"] * 6  # what is damaged is measured
    plain = [override(c, {"collapse": "stop"}) for c in found]
    assert plain[:3] == [EditConfig(), preset("qwen2.5-7b"), preset("qwen2.5-7b", "rome")]
    # a model without a preset: the methods' general published settings, with layers from the trace
    assert plain[3:] == [EditConfig(), method_defaults("intattn"), method_defaults("rome")]
    assert (plain[4].method, plain[4].targets.optimizer, plain[4].layers) == ("intattn", "adam", "auto")


@pytest.mark.parametrize("method", ["intattn", "memit", "rome"])
def test_settings_of_another_model_are_not_run_as_published(method: str) -> None:
    runs = [{"method": method, "published": True}]
    known = {"name": "q", "ref": "org/q", "preset": "qwen2.5-7b"}
    (cell,) = cells(parse(plan(runs=runs, models=[known], seeds=[0])))
    assert override(cell.config, {"collapse": "stop"}) == preset("qwen2.5-7b", cell.method)
    with pytest.raises(ConfigError, match=f"{method} has no published settings for mine") as caught:
        cells(parse(plan(runs=runs, models=[known, {"name": "mine", "ref": "org/mine"}])))
    assert "preset" in caught.value.hint


@pytest.mark.parametrize("entry", [{"preset": "qwen2.5-7b"}, {}])
def test_hubedit_s_own_default_is_never_run_as_published(entry: dict[str, str]) -> None:
    made = plan(
        runs=[{"method": "joint", "published": True}], models=[{"name": "q", "ref": "org/q", **entry}]
    )
    with pytest.raises(ConfigError, match="has no published settings") as caught:
        cells(parse(made))
    assert "intattn" in caught.value.hint


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_the_paper_s_tables_run_the_paper_s_method(number: int) -> None:
    own = [c for c in cells(ready(f"table{number}")) if c.label.startswith("IntAttn-Edit")]
    assert own
    for cell in own:
        assert cell.method == "intattn"
        known = preset(cell.model.preset, "intattn")
        assert cell.config == override(known, {"collapse": "tell", "alpha": cell.alpha})


def test_runs_that_tables_could_not_tell_apart_are_refused() -> None:
    runs: list[dict[str, Any]] = [{"method": "joint"}, {"method": "joint", "set": {"rank": 2}}]
    with pytest.raises(ConfigError, match="both called 'hubedit joint'"):
        cells(parse(plan(runs=runs)))
    runs[1]["label"] = "rank 2"
    assert [c.label for c in cells(parse(plan(runs=runs)))] == ["hubedit joint", "rank 2"]


def test_sample_follows_from_the_seeds() -> None:
    assert parse(plan()).sample == "first"
    assert parse(plan(seeds=[0, 1])).sample == "random"
    assert parse(plan(seeds=[0, 1], sample="first")).sample == "first"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sedes": [1]}, "unknown setting 'sedes'"),
        ({"runs": []}, "no runs"),
        ({"runs": [{"method": "mend"}]}, "unknown method 'mend'"),
        ({"runs": [{"method": "memit", "alphas": [0.1]}]}, "memit has no alpha"),
        ({"runs": [{"method": "memit", "alpha": 0.1}]}, "unknown setting 'alpha'"),
        ({"runs": [{"method": "joint", "alphas": [0, 2]}]}, "alpha '2' is not a share"),
        ({"runs": [{}]}, "method is missing"),
        ({"models": [{"name": "m"}]}, "ref is missing"),
        ({"tables": ["table9"]}, "unknown table 'table9'"),
        ({"edits": [0]}, "edits must be at least 1"),
        ({"edits": 10}, "edits must be a list"),
        ({"seeds": []}, "seeds must have values"),
        ({"seeds": [0, 0]}, "each of them once"),
        ({"seeds": [True]}, "seeds must be whole numbers"),
        ({"measure": {"fluency": -1}}, "must not be negative"),
        ({"measure": {"tasks": "gsm8k"}}, "tasks must be a list"),
        ({"sample": "last"}, "unknown sample"),
    ],
)
def test_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(plan(**more))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": 3}, "unknown setting 'layer'"),
        ({"targets.kll": 3}, "unknown setting 'targets.kll'"),
        ({"target.kl": 3}, "unknown setting 'target.kl'"),
        ({"layers.kl": 3}, "unknown setting 'layers.kl'"),
        ({"rank": 0.5}, "rank must be int"),
        ({"rank": True}, "rank must be int"),
        ({"targets": 3}, "targets must be dict"),
        ({"alpha": "half"}, "alpha 'half' is not a share"),
        ({"layers": "4 to 8"}, "cannot read layers"),
    ],
)
def test_unknown_settings_are_refused_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    run = {"method": "joint", "set": settings}
    for more in ({"set": settings}, {"runs": [run]}):
        with pytest.raises(ConfigError, match=message):
            cells(parse(plan(**more)))


def test_settings_that_a_run_cannot_have_are_refused() -> None:
    runs = [{"method": "joint", "set": {"null_space": "1%"}}]
    with pytest.raises(ConfigError, match="joint has no setting 'null_space'"):
        cells(parse(plan(runs=runs)))
    runs = [{"method": "alphaedit", "set": {"null_space": "much"}}]
    with pytest.raises(ConfigError, match="cannot read null space"):
        cells(parse(plan(runs=runs)))


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text("{}\n")
    (tmp_path / "b.toml").write_text(
        'title = "T"\n[[models]]\nref = "org/m"\n[[data]]\nsource = "facts.jsonl"\n'
        '[[runs]]\nmethod = "joint"\nalphas = [0.5]\n[set]\n"targets.kl" = 0.5\n'
    )
    (tmp_path / "b.json").write_text(
        '{"title": "T", "models": [{"ref": "org/m"}], "data": [{"source": "facts.jsonl"}], '
        '"runs": [{"method": "joint", "alphas": [0.5]}], "set": {"targets.kl": 0.5}}'
    )
    bench = read_bench(tmp_path / "b.toml")
    assert bench == read_bench(tmp_path / "b.json")
    assert bench.data[0].source == str(tmp_path / "facts.jsonl") and bench.data[0].name == "facts"
    assert bench.models[0].name == "m"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("title = ")
    (tmp_path / "list.json").write_text("[]")
    for name, message in (
        ("bad.toml", "neither TOML nor JSON"),
        ("list.json", "no benchmark"),
        ("no", "No such"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_bench(tmp_path / name)
    with pytest.raises(ConfigError, match="neither a file nor a ready"):
        ready("table9")


def test_ready_configurations() -> None:
    assert {f"table{n}" for n in range(1, 6)} | {"methods"} == set(ready_names())
    sweep = {float(c.alpha) for c in cells(ready("table2")) if c.alpha != "auto"}
    assert len(sweep) == 22 and {0.0, 0.2, 1.0} <= sweep
    assert len(cells(ready("table1"))) == 21
    assert {c.model.name for c in cells(ready("table5"))} == {"Qwen2.5-7B", "Mistral-7B"}
    assert ready("table5").measure.tasks == ("gsm8k:2",)
    for name in ready_names():
        for cell in cells(ready(name)):
            assert cell.edits == 100 and cell.model.preset


def test_lab_configurations_run_on_models_that_are_given() -> None:
    for file in LAB.glob("*.toml"):
        whole = read_bench(file)
        found = cells(changed(whole, models=["qwen2=/lab/one", "qwen2=/lab/two"], limit=20))
        assert {c.model.ref for c in found} == {"/lab/one", "/lab/two"}
        assert max(c.edits for c in found) == min(20, max(whole.edits))
        assert all(c.data.source.startswith("{model}/") for c in found)


def test_other_models_and_data() -> None:
    bench = ready("table3")
    one = changed(bench, models=["/models/qwen2.5-7b"], data=["zsre.json"])
    assert [(m.name, m.ref, m.preset) for m in one.models] == [
        ("Qwen2.5-7B", "/models/qwen2.5-7b", "qwen2.5-7b")
    ]
    assert [(d.name, d.source) for d in one.data] == [("ZsRE", "zsre.json")]
    named = changed(bench, models=["Mistral-7B=/m", "mine=/x"])
    assert [(m.name, m.preset) for m in named.models] == [("Mistral-7B", "mistral-7b"), ("mine", "")]
    assert changed(bench, limit=5).edits == (5,) and changed(bench, limit=500).edits == (100,)
    empty = Bench("t", (), (), bench.runs)
    assert changed(empty, data=["folder/my-facts.jsonl"]).data[0].name == "my-facts"
    wrong: list[dict[str, Any]] = [{"models": ["x="]}, {"data": ["ZsRE="]}, {"data": ["other=f"]}]
    for words in wrong:
        with pytest.raises(ConfigError):
            changed(bench, **words)
    with pytest.raises(ConfigError, match="several data sets"):
        changed(ready("methods"), data=["file.json"])
