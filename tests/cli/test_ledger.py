"""A patch that grows and shrinks on the command line: log, check, apply --again, revert."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubedit.cli.app import run
from hubedit.facts import Fact
from hubedit.facts.answers import gives
from hubedit.hub.history import History, Step
from hubedit.patch import Patch
from hubedit.patch.ledger import steps_of, without_step
from hubedit.patch.ontop import stacked
from tests.cli.test_apply import CORPUS, RECORDS, facts_file
from tests.pico import pico

NEW = {"prompt": "The capital of Japan is", "subject": "Japan", "target": "Ulm", "id": "japan"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A model, a patch of three facts in two steps, and the options it was made with."""
    folder = tmp_path_factory.mktemp("ledger")
    model = pico("llama", folder / "model")
    options = ["--model", str(model), "--device", "cpu", "--layers", "1-2", "--corpus", CORPUS]
    options += ["--tokens", "200", "--cache", str(folder / "cache"), "--quiet"]
    first, second = facts_file(folder / "a.jsonl"), facts_file(folder / "b.jsonl", [NEW])
    assert run(["apply", str(first), *options, "--out", str(folder / "one")]) == 0
    line = ["apply", str(second), "--on", str(folder / "one"), *options, "--out", str(folder / "two")]
    assert run(line) == 0
    return model, folder / "two", options


def said(line: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, object]:
    capsys.readouterr()
    assert run([*line, "--json"]) == code, capsys.readouterr().err
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def answers(model: Path, patch: Patch) -> dict[str, bool]:
    """Whether weights plus patch, added up, write each fact's target greedily: nothing of hubedit's hooks."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    own: Any = AutoModelForCausalLM.from_pretrained(model)
    for module, factor in patch.factors.items():
        own.get_submodule(module).weight.data += factor.dense()
    found = {}
    for fact in patch.facts:
        ids = tokenizer(fact.prompt, return_tensors="pt").input_ids
        made = own.generate(ids, do_sample=False, max_new_tokens=12)[0, ids.shape[1] :]
        found[fact.prompt] = gives(tokenizer.decode(made, skip_special_tokens=True), [fact.target])
    return found


def test_the_log_tells_every_step(
    stack: tuple[Path, Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(["log", str(stack[1])], capsys)
    steps = found["steps"]
    assert isinstance(steps, list)
    one, two = steps
    assert [step["count"] for step in steps] == [2, 1] and one["method"] == "joint"
    assert one["id"] == str(steps_of(Patch.load(stack[1]))[0]["id"])[:12]
    assert two["older"]["facts"] == two["older"]["asked"] == 2
    assert {"success_before", "success_after"} <= set(two["older"])
    assert all(step["drift"] >= 0 and step["norm"] > 0 and "success" in step["metrics"] for step in steps)
    assert one["whole"] == {"drift": one["drift"], "norm": one["norm"]} != two["whole"]
    assert two["whole"]["norm"] != two["norm"]
    assert run(["log", str(stack[1])]) == 0
    shown = capsys.readouterr().out
    assert "older facts hold" in shown and "drift so far" in shown and "The capital of Japan is" in shown


def test_the_log_of_a_step_that_has_no_facts_left_says_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its facts were edited again in a later step."""
    both = [
        Step("one", "", "2026-12-01", "m", "", "joint", count, (), {"success": 1.0}, whole={"drift": 0.1})
        for count in (0, 2)
    ]
    monkeypatch.setattr("hubedit.hub.history.history", lambda _: History("p", "patch", "", tuple(both)))
    assert run(["log", "you/p"]) == 0
    assert capsys.readouterr().out.count("100 %") == 2  # in the table and in the title of the second step


def test_a_hundred_steps_are_edited_logged_composed_and_taken_apart(
    stack: tuple[Path, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, two, options = stack
    first = without_step(Patch.load(two))

    def small(n: int) -> Patch:
        facts = (Fact(f"The capital of N{n} is", f"N{n}", "x"), Fact(f"N{n} was born in", f"N{n}", "y"))
        record = {k: v for k, v in first.record.items() if k not in ("steps", "cut_from")}
        factors = {m: f * (0.001 * (n + 1)) for m, f in first.factors.items()}
        return replace(first, factors=factors, facts=facts, record=record)

    many = first
    for n in range(99):
        many = stacked(many, small(n))
    many.save(tmp_path / "many")
    line = ["apply", "--fact", "The capital of Japan is -> Ulm", "--on", str(tmp_path / "many"), *options]
    assert run([*line, "--out", str(tmp_path / "on")]) == 0
    steps = said(["log", str(tmp_path / "on")], capsys)["steps"]
    assert isinstance(steps, list) and len(steps) == 101
    assert steps[-1]["older"]["facts"] == 200 and steps[-1]["older"]["asked"] == 100
    assert steps[-1]["whole"]["norm"] != steps[-1]["norm"] > 0
    line = ["revert", str(tmp_path / "on"), "--patch", steps[50]["id"], "--out", str(tmp_path / "less")]
    found = said(line, capsys)
    assert (found["facts"], found["steps"], found["taken_out"]) == (199, 100, 2)
    small(100).save(tmp_path / "other")
    line = ["compose", str(tmp_path / "less"), str(tmp_path / "other"), "--out", str(tmp_path / "both")]
    assert said(line, capsys)["facts"] == 201
    found = said(["check", str(tmp_path / "both"), "--model", str(model), "--device", "cpu"], capsys)
    steps = found["steps"]
    assert isinstance(steps, list) and [step["facts"] for step in steps] == [2] * 99 + [1, 2]
    assert found["facts"] == 201 and sum(step["hold"] for step in steps) == found["hold"]


def test_what_check_says_holds_is_what_the_model_answers(
    stack: tuple[Path, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, patch, _ = stack
    wanted = answers(model, Patch.load(patch))
    line = ["check", str(patch), "--model", str(model), "--out", str(tmp_path / "left.jsonl")]
    found = said([*line, "--device", "cpu"], capsys)
    failed = found["failed"]
    assert isinstance(failed, list)
    assert {f["prompt"] for f in failed} == {prompt for prompt, held in wanted.items() if not held}
    steps = found["steps"]
    assert isinstance(steps, list) and [step["facts"] for step in steps] == [2, 1]
    assert sum(step["hold"] for step in steps) == found["hold"] == sum(wanted.values())
    lines = (tmp_path / "left.jsonl").read_text().splitlines()
    assert [json.loads(text)["prompt"] for text in lines] == [f["prompt"] for f in failed]
    before = (tmp_path / "left.jsonl").read_bytes()
    assert run([*line, "--device", "cpu"]) == 2, "a file that is there is not replaced"
    assert (tmp_path / "left.jsonl").read_bytes() == before
    assert run([*line, "--device", "cpu", "--force", "--strict"]) == (3 if failed else 0)


def test_what_no_longer_holds_is_edited_again(
    stack: tuple[Path, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, patch, options = stack
    wanted = answers(model, Patch.load(patch))
    assert not all(wanted.values()), "the test needs a fact that fails"
    out = tmp_path / "again"
    assert run(["apply", "--on", str(patch), "--again", *options, "--out", str(out)]) == 0
    mended = Patch.load(out)
    assert {f.prompt for f in mended.facts} == set(wanted)
    newest = steps_of(mended)[-1]
    assert newest["facts"] == len(newest["replaced"]) == sum(not held for held in wanted.values())
    assert run(["apply", "--again", *options]) == 2
    assert "--again goes with --on PATCH" in capsys.readouterr().err
    assert run(["apply", *options]) == 2
    assert "no facts" in capsys.readouterr().err


def test_a_fact_or_a_step_is_taken_out(
    stack: tuple[Path, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, patch, _ = stack
    prompt = str(RECORDS[1]["prompt"])
    found = said(["revert", str(patch), "--fact", prompt, "--out", str(tmp_path / "less")], capsys)
    assert (found["facts"], found["steps"], found["taken_out"]) == (2, 2, 1)
    less = Patch.load(tmp_path / "less")
    assert [f.prompt for f in less.facts] == [RECORDS[0]["prompt"], NEW["prompt"]]
    assert "success" not in (tmp_path / "less" / "hubedit.json").read_text().split('"steps"')[0]
    # and on, in place
    assert said(["revert", str(tmp_path / "less"), "--last", "--yes"], capsys)["facts"] == 1
    assert [f.prompt for f in Patch.load(tmp_path / "less").facts] == [RECORDS[0]["prompt"]]
    for words, text in (
        (["--fact", "none"], "has no fact 'none'"),
        (["--last", "--fact", "japan"], "what shall be taken out?"),
        (["--all"], "is a patch"),
    ):
        assert run(["revert", str(patch), "--yes", *words]) == 2
        assert text in capsys.readouterr().err
