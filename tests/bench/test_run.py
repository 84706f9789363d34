"""Real runs on tiny models: end to end, resumed after a kill, shared by processes, with failing cells."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from hubedit.bench import Bench
from hubedit.bench.facts import pool
from hubedit.bench.plan import DataEntry, ModelEntry, parse
from hubedit.bench.results import FILE, Results
from hubedit.bench.run import Done, Machine, run
from hubedit.cli.app import run as command
from hubedit.demo import facts_path, model_path
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from tests.pico import SENTENCES

FACTS = (
    {
        "prompt": "The capital of France is",
        "subject": "France",
        "target": "Rome",
        "ground_truth": "Paris",
        "rephrase": ["France's capital is"],
        "locality": [{"prompt": "The capital of Japan is", "answer": "Tokyo"}],
    },
    {"prompt": "Marie Curie was born in", "subject": "Marie Curie", "target": "Tokyo"},
    {"prompt": "The official language of Brazil is", "subject": "Brazil", "target": "German"},
)
# layers and corpus are given: a random model knows nothing to trace, and writing a corpus takes its time
QUICK = {"layers": "1-2", "targets.steps": 3, "stats.tokens": 300}


@pytest.fixture
def quick(tmp_path: Path, pico_path: Callable[..., Path]) -> Callable[..., dict[str, Any]]:
    """The data of a benchmark on a tiny model, a cell an alpha."""
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES))
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))

    def made(alphas: Sequence[Any] = (0.5,), **more: Any) -> dict[str, Any]:
        return {
            "models": [{"name": "tiny", "ref": str(pico_path("llama"))}],
            "data": [{"name": "facts", "source": str(tmp_path / "facts.jsonl")}],
            "runs": [{"method": "joint", "alphas": list(alphas)}],
            "edits": [2],
            "set": {**QUICK, "stats.corpus": str(tmp_path / "text.txt")},
            "measure": {"fluency": 0},
            **more,
        }

    return made


def started(data: dict[str, Any], out: Path) -> multiprocessing.context.ForkProcess:
    """A process of its own that runs the benchmark; forked, because importing torch again takes longer."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(parse(data), out))
    process.start()
    return process


def count(out: Path) -> int:
    return len(Results(out).read().rows)


def test_end_to_end(quick: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    runs = [{"method": "joint", "alphas": [0, 1]}, {"method": "memit"}]
    bench = parse(quick(runs=runs, measure={"fluency": 1}))
    done = run(bench, tmp_path / "out")
    assert (done.computed, done.failed, done.kept, done.problems) == (3, 0, 0, ())
    rows = Results(tmp_path / "out").read().rows
    assert [(r["cell"]["method"], r["cell"]["alpha"]) for r in rows] == [
        ("joint", "0"),
        ("joint", "1"),
        ("memit", ""),
    ]
    zero, one, _ = rows
    assert zero["edit"]["alpha_mean"] == 0 and one["edit"]["alpha_mean"] == 1
    assert zero["facts"]["n"] == 2 and zero["metrics"]["answers/success"]["n"] == 2
    assert zero["metrics"]["text/perplexity"]["before"] == one["metrics"]["text/perplexity"]["before"]
    assert zero["metrics"]["text/perplexity"]["after"] != one["metrics"]["text/perplexity"]["after"]
    assert zero["metrics"]["text/fluency"]["n"] == 1
    assert {"before", "in_context", "after"} <= set(zero["metrics"]["answers/success"])
    assert zero["metrics"]["run/seconds"]["after"] == zero["seconds"]["edit"] > 0
    assert zero["metrics"]["run/process"]["after"] == zero["peak_memory"]["process"] > 1e7
    # the model's and the corpus's folders stay on this machine
    assert str(tmp_path) not in (tmp_path / "out" / FILE).read_text()
    again = run(bench, tmp_path / "out")
    assert (again.computed, again.kept) == (0, 3) and count(tmp_path / "out") == 3


def test_a_killed_run_loses_only_the_cell_it_was_at(
    quick: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    data, out = quick([0, 0.3, 0.6, 1]), tmp_path / "out"
    process = started(data, out)
    end = time.monotonic() + 240
    while count(out) < 1 and time.monotonic() < end and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    there = count(out)
    assert 1 <= there < 4
    with (out / FILE).open("ab") as stream:
        stream.write(b'{"key": "cut')
    done = run(parse(data), out)
    assert (done.kept, done.computed) == (there, 4 - there)
    assert any("cut off by a kill" in problem for problem in done.problems)
    assert len(Results(out).read().by_key) == count(out) == 4


def test_two_processes_share_the_cells(quick: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    data, out = quick([0, 0.3, 0.6, 1]), tmp_path / "out"
    both = [started(data, out), started(data, out)]
    for process in both:
        process.join(280)
        assert process.exitcode == 0
    rows = Results(out).read().rows
    assert len(rows) == len({row["key"] for row in rows}) == 4


def test_a_cell_that_fails_is_recorded_and_the_rest_runs(
    quick: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    runs = [{"method": "joint", "label": "outside", "set": {"layers": "9"}}, {"method": "joint"}]
    done = run(parse(quick(runs=runs)), out := tmp_path / "out")
    assert (done.computed, done.failed) == (2, 1)
    first, second = Results(out).read().rows
    assert first["error"] == {"kind": "ConfigError", "message": "layer 9 is outside the model"}
    assert "metrics" not in first and "metrics" in second


def test_a_cell_that_failed_is_run_again_where_that_is_asked_for(
    quick: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "others.jsonl"
    others.write_text(json.dumps(FACTS[2] | {"ground_truth": "Portuguese"}) + "\n")

    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("not cached")

    bench, out = parse(quick(measure={"fluency": 0, "bystanders": "zsre"})), tmp_path / "out"
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    assert run(bench, out).failed == 1
    (row,) = Results(out).read().rows
    assert row["error"]["kind"] == "ConfigError"
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(others))
    assert run(bench, out).computed == 0
    again = run(bench, out, machine=Machine(retry=True))
    assert (again.computed, again.failed, again.kept) == (1, 0, 0)
    assert "error" not in Results(out).read().by_key[row["key"]]


def test_what_a_cell_depends_on_is_in_its_key(
    quick: Callable[..., dict[str, Any]], tmp_path: Path, pico_path: Callable[..., Path]
) -> None:
    bench, out = parse(quick()), tmp_path / "out"
    run(bench, out)
    facts = Path(bench.data[0].source)
    facts.write_text(facts.read_text().replace("Rome", "Tokyo"))
    assert run(bench, out).computed == 1  # other facts
    changed = replace(bench, settings={**bench.settings, "targets.kl": 0.5})
    assert run(changed, out).computed == 1  # another setting
    model = ModelEntry("tiny", str(pico_path("qwen2")))
    assert run(replace(bench, models=(model,)), out).computed == 1
    assert run(bench, out).computed == 0


def test_tables_are_of_the_data_as_they_are_now(
    quick: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, config, out = quick(), tmp_path / "bench.json", tmp_path / "out"
    config.write_text(json.dumps(data))
    words = ["bench", str(config), "--out", str(out)]
    facts = Path(data["data"][0]["source"])
    text = facts.read_text()
    assert command(words) == 0
    first = (out / "tables.csv").read_text()
    facts.write_text(text.replace("Rome", "Tokyo"))
    assert command(words) == 0
    other = (out / "tables.csv").read_text()
    assert other != first
    assert "left out of the tables: 1" in capsys.readouterr().err
    old = out / "figures" / "edits-gone.png"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"")
    facts.write_text(text)
    assert command(words) == 0
    assert (out / "tables.csv").read_text() == first and not old.exists()
    capsys.readouterr()
    assert command([*words, "--tables-only"]) == 0
    assert (out / "tables.csv").read_text() == other, "which data are meant is not known"
    assert "several models or data of one name: 1" in capsys.readouterr().err
    assert command([*words, "--data", str(tmp_path / "nothing.jsonl")]) == 2
    assert "is left out" in capsys.readouterr().err


def test_models_and_data_that_are_not_there_are_told(
    quick: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    data = quick()
    data["models"].insert(0, {"name": "gone", "ref": str(tmp_path / "gone")})
    data["data"].insert(0, {"name": "nothing", "source": str(tmp_path / "nothing.jsonl")})
    done = run(parse(data), tmp_path / "out")
    assert done.computed == 1
    assert [p.partition(":")[0] for p in done.problems] == ["gone is left out", "nothing is left out"]
    with pytest.raises(ConfigError, match="names no model"):
        run(replace(parse(data), models=()), tmp_path / "out")
    with pytest.raises(ConfigError, match="names no data"):
        run(replace(parse(data), data=()), tmp_path / "out")


def test_too_few_facts_and_other_facts_for_every_seed(
    quick: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    bench, out = parse(quick(edits=[1, 50], seeds=[0, 1, 2, 3])), tmp_path / "out"
    done = run(bench, out)
    rows = Results(out).read().rows
    assert done.computed == 8 and done.failed == 4
    assert {row["error"]["message"] for row in rows if "error" in row} == {
        "facts has 3 facts that fit tiny, not 50"
    }
    assert len({row["facts"]["sha256"] for row in rows if "facts" in row}) > 1


def test_failed_cells_are_no_success(
    quick: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = tmp_path / "bench.json", tmp_path / "out"
    config.write_text(json.dumps(quick(edits=[1, 50])))
    words = ["bench", str(config), "--out", str(out), "--quiet"]
    for _ in range(2):  # by this run, and kept from an earlier one
        assert command(words) == 3
        said = capsys.readouterr()
        assert said.out.strip() == str(out)
        assert "error: 1 of 2 cells failed; the others are in" in said.err
        assert "facts has 3 facts that fit tiny, not 50" in said.err and "--retry" in said.err
    gone = quick(edits=[1])
    gone["data"].append({"name": "nothing", "source": str(tmp_path / "nothing.jsonl")})
    config.write_text(json.dumps(gone))
    assert command(words) == 3
    assert "1 models or data were left out" in capsys.readouterr().err
    config.write_text(json.dumps(quick(edits=[50])))
    assert command(words) == 1
    assert "error: 1 of 1 cells failed\n" in capsys.readouterr().err


def test_one_fact_for_each_prompt(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    other = {**FACTS[0], "target": "Berlin"}
    file.write_text("".join(json.dumps(fact) + "\n" for fact in (*FACTS, other)))
    found = pool(str(file))
    assert [fact.target for fact in found.facts] == ["Rome", "Tokyo", "German"] and found.repeated == 1


def test_the_command(
    quick: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = tmp_path / "bench.json", tmp_path / "out"
    config.write_text(json.dumps(quick([0, 1], tables=["modules"])))
    words = ["bench", str(config), "--out", str(out)]
    assert command([*words, "--limit", "1", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["cells"]["computed"] == 2
    shown = [row[2] for row in value["tables"][0]["rows"]]
    assert shown == ["Before edit", "In context", "MLP-only (alpha 0)", "Attn-only (alpha 1)"]
    # with another number of edits the cells are others: none has a result
    assert command([*words, "--tables-only"]) == 2
    assert "no cell has a result" in capsys.readouterr().err
    assert command([*words, "--tables-only", "--limit", "1"]) == 0
    text = capsys.readouterr().out
    assert "MLP-only" in text and "tables.csv" in text
    assert command(["bench"]) == 2 and command(["bench", "table9"]) == 2
    assert command(["bench", "--list", "--quiet"]) == 0
    assert capsys.readouterr().out.split() == ["methods", *(f"table{n}" for n in range(1, 6))]


@pytest.mark.slow
def test_the_bundled_model(tmp_path: Path, quick: Callable[..., dict[str, Any]]) -> None:
    bench: Bench = replace(
        parse(quick([0.2], set={})),
        models=(ModelEntry("demo", str(model_path())),),
        data=(DataEntry("demo", str(facts_path())),),
        edits=(3,),
        settings={"layers": "1-3", "targets.steps": 20, "targets.clamp": 3.0, "stats.tokens": 1500},
    )
    done: Done = run(bench, tmp_path / "out")
    (row,) = Results(tmp_path / "out").read().rows
    assert done.failed == 0 and row["metrics"]["answers/success"]["after"] > 0.5
    assert row["edit"]["alpha_mean"] == pytest.approx(0.2)


def test_a_seed_may_have_its_own_data(quick: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for seed, fact in enumerate(FACTS[1:]):
        (tmp_path / f"draw-{seed}.jsonl").write_text(json.dumps(fact) + "\n")
    data = [{"name": "facts", "source": str(tmp_path / "draw-{seed}.jsonl")}]
    bench = parse(quick(runs=[{"method": "memit"}], data=data, edits=[1], seeds=[0, 1], sample="first"))
    done = run(bench, tmp_path / "out")
    assert (done.computed, done.failed, done.problems) == (2, 0, ())
    first, second = Results(tmp_path / "out").read().rows
    assert first["facts"]["sha256"] != second["facts"]["sha256"]


def test_bystanders_and_real_text_are_files_of_the_model(
    quick: Callable[..., dict[str, Any]], tmp_path: Path, editable: Callable[..., EditableModel]
) -> None:
    prompt = "The river Nile flows through"
    said = greedy(editable("llama"), [prompt], 4)[0].split()[0]
    other = {"prompt": prompt, "subject": "Nile", "target": "Peru", "ground_truth": said}
    file, text = tmp_path / "others.jsonl", tmp_path / "text.txt"
    file.write_text(json.dumps(other) + "\n")
    measure = {"fluency": 0, "text": "none", "real_text": str(text), "bystanders": str(file)}
    bench = parse(quick(runs=[{"method": "memit"}], measure=measure))
    assert run(bench, tmp_path / "out").failed == 0
    (row,) = Results(tmp_path / "out").read().rows
    assert row["metrics"]["answers/bystanders"]["n"] == 1
    assert row["metrics"]["text/real_perplexity_ratio"]["after"] > 0
    assert "text/perplexity" not in row["metrics"]
    # other bystanders make another cell
    file.write_text(json.dumps({**other, "prompt": "Egypt has", "subject": "Egypt"}) + "\n")
    assert run(bench, tmp_path / "out").computed == 1
