"""`hubedit eval`: a model alone, a patch, a merged model, and everything that is refused early."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.checkpoint.merge import MergeOptions, merge
from hubedit.cli.app import run
from hubedit.facts import Fact, Probe, dump_facts
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import find
from hubedit.model.generate import greedy
from hubedit.model.sites import Site
from hubedit.patch import Patch, base_record
from hubedit.patch.identity import patch_id

SITE = Site(3, "mlp")
FACTS = (
    Fact(
        "The capital of France is",
        "France",
        "Rome",
        id="one",
        ground_truth=("Paris",),
        rephrase=("France's capital is",),
        locality=(Probe("The capital of Japan is", ("Tokyo",), "neighborhood"),),
    ),
    Fact("Marie Curie was born in", "Marie Curie", "Tokyo", id="two", ground_truth=("Warsaw",)),
)


@pytest.fixture
def em(editable: Callable[..., EditableModel]) -> EditableModel:
    return editable("llama")


@pytest.fixture
def patch(em: EditableModel, tmp_path: Path) -> Path:
    d_out, d_in = em.weight(SITE).shape
    factor = LowRank(torch.randn(d_out, 2), torch.randn(2, d_in))
    # "method" says that a row of the factors is a fact
    record = {"base": base_record(em, [SITE]), "method": "joint"}
    made = Patch({em.module_name(SITE): factor}, record, str(em.path), facts=FACTS)
    return made.save(tmp_path / "patch")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(
        "The river Nile flows through Egypt and Sudan.\nAda Lovelace worked with Charles Babbage.\n"
    )
    return file


def evaluated(*words: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["eval", *map(str, words), "--device", "cpu", "--fluency", "2", "--json"]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_a_patch_and_its_own_facts(
    em: EditableModel, patch: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result"
    data = evaluated(em.path, "--patch", patch, "--text", text, "--out", out, capsys=capsys)
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == data
    assert data["counts"] == {"success": 2, "generalisation": 1, "neighbourhood": 1}
    assert {"kl", "perplexity_before", "perplexity_after", "fluency", "counterfact"} <= set(data)
    assert "broken_by_batch" in data["damage"]
    said = data["evaluated"]
    assert (said["model"], said["patch"]) == (em.path.name, "patch")
    assert str(tmp_path) not in json.dumps(said)
    assert "2 of 2 records have no portability prompts with an answer" in data["notes"]
    # written elsewhere as a file, and to be read by a person
    line = ["eval", str(em.path), "--patch", str(patch), "--text", str(text), "--device", "cpu"]
    assert run([*line, "--fluency", "2", "--out", str(tmp_path / "a" / "b.json")]) == 0
    captured = capsys.readouterr()
    assert "CounterFact: efficacy score" in captured.out and "95 % interval" in captured.out
    assert "divergence" in captured.out and "written to" in captured.err
    again = json.loads((tmp_path / "a" / "b.json").read_text(encoding="utf-8"))
    assert {**again, "evaluated": None} == {**data, "evaluated": None}


def test_the_merged_checkpoint_stands_beside_the_adapter(
    em: EditableModel, patch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = MergeOptions(dtype="bfloat16")
    merge([Patch.load(patch)], find(str(em.path)), tmp_path / "merged", options)
    words = [em.path, "--patch", patch, "--merged", tmp_path / "merged", "--text", "none"]
    data = evaluated(*words, capsys=capsys)
    assert set(data["variants"]) == {"adapter", "merged"}
    assert data["variants"]["adapter"]["metrics"] == data["metrics"]
    assert data["evaluated"]["merged_dtype"] == "bfloat16"
    before = data["variants"]["merged"]["counterfact"]["after"]["efficacy_magnitude"]
    assert before == pytest.approx(data["counterfact"]["after"]["efficacy_magnitude"], abs=0.05)
    assert before != data["counterfact"]["after"]["efficacy_magnitude"], "the weights were rounded"
    assert run(["eval", *map(str, words), "--device", "cpu", "--fluency", "2"]) == 0
    table = capsys.readouterr().out
    assert "merged" in table
    # differences of probabilities are written as the card writes them
    (row,) = [line for line in table.splitlines() if "efficacy magnitude" in line]
    assert f"{before:.3f}" in row and "%" not in row
    only = evaluated(em.path, "--merged", tmp_path / "merged", "--facts", facts_file(tmp_path), capsys=capsys)
    assert "variants" not in only and only["metrics"] == data["variants"]["merged"]["metrics"]


def facts_file(folder: Path) -> Path:
    file = folder / "facts.jsonl"
    file.write_text(dump_facts(FACTS), encoding="utf-8")
    return file


def test_a_model_alone_on_a_data_set(
    em: EditableModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"prompt": "The capital of France is", "subject": "France", "target_new": "Rome", "case_id": 1}
    other = {**record, "target_new": "Tokyo", "case_id": 2, "ground_truth": "Paris"}
    file = tmp_path / "records.json"
    file.write_text(json.dumps([record, other, {**record, "target_new": ""}]))
    data = evaluated(em.path, "--dataset", file, "--text", "none", capsys=capsys)
    assert data["counts"] == {"success": 2} and "metrics" not in data
    assert data["notes"][0].startswith("1 of 3 records cannot be used, the first: ")
    assert evaluated(em.path, "--dataset", file, "--limit", 1, "--text", "none", capsys=capsys)["counts"] == {
        "success": 1
    }
    assert run(["eval", str(em.path), "--dataset", str(file), "--text", "none", "--device", "cpu"]) == 0
    assert "teacher-forced: edit success" in capsys.readouterr().out


def test_text_that_the_model_writes_and_nothing_else(
    em: EditableModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "text.json"
    data = evaluated(em.path, "--out", out, capsys=capsys)
    assert evaluated(em.path, "--out", out, capsys=capsys)["perplexity"] == data["perplexity"], "replaced"
    assert set(data) == {"perplexity_before", "perplexity", "text", "interval_method", "evaluated"}
    assert data["text"]["corpus"] == "self" and data["text"]["rows"] > 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--facts", "a.jsonl", "--dataset", "zsre"], "exclude each other"),
        (["--task-path", "."], "--task-path without --tasks"),
        (["--text", "none"], "nothing to measure"),
        (["--dataset", "squad"], "neither a file nor a data set"),
        (["--tasks", "gsm8k:x"], "no task"),
        (["--patch", "nowhere"], "nowhere"),
        (["--merged", "./nowhere"], "no such folder: nowhere"),
        (["--merged", "/nowhere/at/all"], "no such folder: /nowhere/at/all"),
        (["--out", "/proc/none/report.json"], "cannot write /proc/none/report.json"),
        (["--out", "pyproject.toml"], "in the way"),
        (["--text", "self", "--text", "none", "--text", "a.txt"], "--text is given 3 times"),
        (["--bystanders", "a.jsonl"], "--bystanders without --patch or --merged"),
    ],
)
def test_refused_before_a_model_is_loaded(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", "no/model", *words]) in (1, 2)
    assert message in capsys.readouterr().err


def test_only_an_older_report_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "facts.json"
    for content in ('[{"prompt": "a"}]', '{"tasks": []}', "no JSON"):
        file.write_text(content)
        assert run(["eval", "no/model", "--facts", str(file), "--out", str(file)]) == 2
        assert "exists and is no report" in capsys.readouterr().err
        assert file.read_text() == content


def test_beside_a_patch_only_what_it_was_merged_into_is_measured(
    em: EditableModel, patch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    d_out, d_in = em.weight(SITE).shape
    factor = LowRank(torch.randn(d_out, 1), torch.randn(1, d_in))
    other = Patch({em.module_name(SITE): factor}, {"base": base_record(em, [SITE])}, str(em.path))
    out = merge([Patch.load(patch), other], find(str(em.path)), tmp_path / "both").path
    for folder, said in (
        (out, f", {patch_id(other)[:12]}, not this"),
        (em.path, "hubedit merged no patch into"),
    ):
        # no/model: refused before a model is looked for
        assert run(["eval", "no/model", "--patch", str(patch), "--merged", str(folder)]) == 2
        printed = capsys.readouterr().err
        assert said in printed and "leave out --patch" in printed


def test_a_task_that_nobody_knows_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Manager:
        def __init__(self, **_: Any) -> None:
            self.all_tasks = ["gsm8k"]

    monkeypatch.setitem(sys.modules, "lm_eval", types.ModuleType("lm_eval"))
    tasks = types.ModuleType("lm_eval.tasks")
    monkeypatch.setattr(tasks, "TaskManager", Manager, raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", tasks)
    for words, said in (
        (["--tasks", "gsm8k,gsm9k"], "the harness knows no task gsm9k"),
        (["--tasks", "gsm8k", "--task-path", str(tmp_path / "none")], "is no folder"),
        (["--tasks", "gsm8k"], "no/model"),
    ):
        assert run(["eval", "no/model", *words]) in (1, 2)
        assert said in capsys.readouterr().err


def test_a_patch_without_facts_needs_some(
    em: EditableModel, patch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (patch / "facts.jsonl").unlink()
    line = [
        "eval",
        str(em.path),
        "--patch",
        str(patch),
        "--device",
        "cpu",
        "--fluency",
        "0",
        "--text",
        "none",
    ]
    assert run(line) == 2
    assert "--facts" in capsys.readouterr().err
    assert run([*line, "--facts", str(facts_file(tmp_path)), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["counts"]["success"] == 2
    assert "broken_by_batch" not in data["damage"], "whose the rows are is not known"
    assert "fluency" not in data and "kl" not in data


def test_bystanders_and_a_second_text(
    em: EditableModel, patch: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "The river Nile flows through"
    said = greedy(em, [prompt], 4)[0].split()[0]
    known = Fact(prompt, "Nile", "Peru", ground_truth=(said,))
    others = [known, Fact("Egypt has", "Egypt", "x", ground_truth=("nothing such",)), *FACTS]
    (tmp_path / "others.jsonl").write_text(dump_facts(others), encoding="utf-8")
    words = [em.path, "--patch", patch, "--text", "none", "--text", text]
    data = evaluated(*words, "--bystanders", tmp_path / "others.jsonl", capsys=capsys)
    assert data["bystanders"]["n"] == 1 and data["bystanders"]["after"] in (0.0, 1.0)
    assert any(note.startswith("only 1 bystanders") for note in data["notes"])
    command = data["evaluated"]["command"]
    assert [command[n + 1] for n, word in enumerate(command) if word == "--text"] == ["none", "text.txt"]
    assert data["real_text"]["perplexity_ratio"] > 0 and data["text"] == {"real": "text.txt"}
    # the records that are not edited stand in where no file is given
    again = evaluated(*words, "--dataset", tmp_path / "others.jsonl", "--limit", 1, capsys=capsys)
    assert again["bystanders"] == data["bystanders"] and again["counts"] == {"success": 1}
    assert run(["eval", *map(str, words), "--facts", str(facts_file(tmp_path)), "--device", "cpu"]) == 0
    assert "in context" in capsys.readouterr().out
