"""`hubedit compose`, `inspect`, `diff` and `extract`, on models and patches on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.checkpoint.merge import merge
from hubedit.cli.app import run
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import find
from hubedit.model.sites import Site
from hubedit.patch import Patch, base_record

Editable = Callable[..., EditableModel]
Capture = pytest.CaptureFixture[str]
SITES = (Site(0, "attention"), Site(2, "mlp"))


def patch(em: EditableModel, out: Path, facts: Sequence[Fact], **record: Any) -> Path:
    """A patch as `hubedit apply` writes it: one row a fact."""
    factors = {}
    for site in SITES:
        d_out, d_in = em.weight(site).shape
        factors[em.module_name(site)] = LowRank(torch.randn(d_out, len(facts)), torch.randn(len(facts), d_in))
    made = {"base": base_record(em, SITES), "method": "joint", "seed": 7, **record}
    return Patch(factors, made, str(em.path), "", tuple(facts)).save(out)


@pytest.fixture
def parts(editable: Editable, tmp_path: Path) -> tuple[EditableModel, Path, Path]:
    em = editable("llama")
    one = patch(em, tmp_path / "one", [Fact("France has", "France", "Lyon"), Fact("Rome is", "Rome", "old")])
    two = patch(em, tmp_path / "two", [Fact("France has", "France", "Nice")])
    return em, one, two


def answer(capsys: Capture, line: Sequence[str], code: int = 0) -> Any:
    capsys.readouterr()
    assert run([*line, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def failed(capsys: Capture, line: Sequence[str], what: str, code: int = 1) -> None:
    """One error line that says `what`, and no traceback."""
    capsys.readouterr()
    assert run(line) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    error = [row for row in captured.err.splitlines() if row.startswith("error: ")]
    assert len(error) == 1 and what in error[0], captured.err
    assert "Traceback" not in captured.err and "internal error" not in captured.err


def test_compose_stops_at_a_contradiction_and_settles_it_when_asked(
    parts: tuple[EditableModel, Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    em, one, two = parts
    out = tmp_path / "sum"
    line = ["compose", str(one), str(two), "--out", str(out)]
    failed(capsys, line, '"France has" answer "Lyon"')
    assert not out.exists()
    value = answer(capsys, [*line, "--on-conflict", "last"])
    assert (value["facts"], value["dropped"]) == (2, ["France has"])
    whole = Patch.load(out)
    whole.fits(em)
    assert [f.target for f in whole.facts] == ["old", "Nice"]
    assert "Nice" in (out / "README.md").read_text()
    failed(capsys, [*line, "--on-conflict", "first"], "exists already", 2)
    assert run([*line, "--on-conflict", "first", "--force", "--quiet", "--rank", "1", "--no-facts"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert Patch.load(out).record["truncation"]["rank"] == 1
    assert all(b"Lyon" not in file.read_bytes() for file in out.iterdir())


def test_compose_refuses_what_does_not_belong_together(
    parts: tuple[EditableModel, Path, Path], editable: Editable, tmp_path: Path, capsys: Capture
) -> None:
    _, one, two = parts
    other = patch(editable("mistral"), tmp_path / "other", [Fact("a b", "a", "c")])
    out = str(tmp_path / "sum")
    failed(capsys, ["compose", str(one), str(other), "-o", out], "different bases: llama and mistral")
    failed(capsys, ["compose", str(one), "-o", out], "at least two", 2)
    failed(capsys, ["compose", str(one), str(tmp_path / "none"), "-o", out], "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    line = ["compose", str(one), str(two), "--on-conflict", "last", "--force", "-o", str(tmp_path / "mine")]
    failed(capsys, line, "never replaced", 2)
    assert not Path(out).exists() and sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["thesis.txt"]


@pytest.mark.parametrize("rule", ["stop", "last", "first"])
def test_a_patch_is_never_composed_with_itself(
    parts: tuple[EditableModel, Path, Path], tmp_path: Path, capsys: Capture, rule: str
) -> None:
    _, one, two = parts
    shutil.copytree(one, tmp_path / "copy")
    for same, said in ((one, "is given twice"), (tmp_path / "copy", "are the same patch")):
        line = ["compose", str(one), str(two), str(same), "--on-conflict", rule, "-o", str(tmp_path / "sum")]
        failed(capsys, line, said, 2)
    assert not (tmp_path / "sum").exists()


def test_inspect_says_what_a_patch_is(
    parts: tuple[EditableModel, Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    em, one, two = parts
    value = answer(capsys, ["inspect", str(one), "--model", str(em.path)])
    assert (value["origin"], value["facts_count"], value["layers"]) == ("applied", 2, [0, 2])
    assert value["fit"]["fits"] and value["fit"]["problems"] == value["fit"]["unverified"] == []
    assert value["provenance"]["seed"] == 7 and value["family"] == "llama"
    assert {m["module"]: m["rank"] for m in value["modules"]} == {em.module_name(s): 2 for s in SITES}
    assert run(["inspect", str(one), "--model", str(em.path)]) == 0
    text = capsys.readouterr().out
    assert "France has" in text and "fits" in text and "yes" in text
    assert " a fact" in text
    run(["compose", str(one), str(two), "--on-conflict", "last", "-o", str(tmp_path / "sum"), "-q"])
    value = answer(capsys, ["inspect", str(tmp_path / "sum")])
    assert value["origin"] == "composed" and [p["facts"] for p in value["composed_of"]] == [2, 1]
    assert run(["inspect", str(tmp_path / "sum")]) == 0


def test_inspect_shows_a_command_that_can_be_pasted(
    editable: Editable, tmp_path: Path, capsys: Capture
) -> None:
    words = ["hubedit", "apply", "--fact", "France has -> Lyon"]
    made = patch(editable("llama"), tmp_path / "one", [Fact("France has", "France", "Lyon")], command=words)
    assert run(["inspect", str(made)]) == 0
    assert "--fact 'France has -> Lyon'" in " ".join(capsys.readouterr().out.split())


def test_inspect_names_what_does_not_fit(
    parts: tuple[EditableModel, Path, Path], pico_path: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    em, one, _ = parts
    other = pico_path("gpt2")
    problems = answer(capsys, ["inspect", str(one), "-m", str(other)], code=1)["fit"]["problems"]
    assert problems[0] == "the model is a gpt2, the patch was made for a llama" and len(problems) == 3
    changed = tmp_path / "changed"
    shutil.copytree(em.path, changed)
    tensors = load_file(changed / "model.safetensors")
    name = f"{em.module_name(SITES[1])}.weight"
    tensors[name][0, 0] += 1
    save_file(tensors, changed / "model.safetensors", {"format": "pt"})
    (problem,) = answer(capsys, ["inspect", str(one), "-m", str(changed)], code=1)["fit"]["problems"]
    assert problem.startswith(f"{em.module_name(SITES[1])} has other weights")
    failed(capsys, ["inspect", str(tmp_path / "none")], "no such folder")
    failed(capsys, ["inspect", str(em.path)], "hubedit merged no patch")
    (one / "report.json").write_text("{")
    failed(capsys, ["inspect", str(one)], "is not JSON")


def test_inspect_lists_the_stack_of_a_merged_model(
    parts: tuple[EditableModel, Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    em, one, _ = parts
    third = patch(em, tmp_path / "third", [Fact("Kyoto is", "Kyoto", "new")])
    out = tmp_path / "merged"
    merge([Patch.load(one), Patch.load(third)], find(str(em.path)), out)
    value = answer(capsys, ["inspect", str(out)])
    assert [p["facts_count"] for p in value["patches"]] == [2, 1] and value["changed_since"] == []
    assert [f["prompt"] for f in value["patches"][0]["facts"]] == ["France has", "Rome is"]
    assert run(["inspect", str(out)]) == 0
    text = capsys.readouterr().out
    assert "Kyoto is" in text and value["patches"][0]["id"] in text


def test_figures_of_facts_that_gave_way_are_left_out_of_the_log_and_the_record(
    parts: tuple[EditableModel, Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    em, _, two = parts
    facts = [Fact("France has", "France", "Lyon"), Fact("Rome is", "Rome", "old")]
    figures = {"metrics": {"success": 0.5}, "counts": {"success": 2}}
    one = patch(em, tmp_path / "measured", facts, **figures)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(["merge", str(one), "--out", str(whole), "-q"]) == 0
    assert run(["merge", str(one), str(two), "--out", str(cut), "--on-conflict", "last", "-q"]) == 0
    assert answer(capsys, ["log", str(whole)])["steps"][0]["metrics"] == {"success": 0.5}
    first, _ = answer(capsys, ["log", str(cut)])["steps"]
    assert first["count"] == 1 and first["metrics"] == {}
    record = json.loads((cut / "patches" / "1" / "hubedit.json").read_text())
    assert not {"metrics", "counts"} & set(record) and record["facts"]["count"] == 1
    assert record["method"] == "joint"


def test_diff_and_extract_agree_with_the_patch(
    parts: tuple[EditableModel, Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    em, one, two = parts
    merged, back = tmp_path / "merged", tmp_path / "back"
    merge([Patch.load(one)], find(str(em.path)), merged)
    names = sorted(f"{em.module_name(s)}.weight" for s in SITES)
    value = answer(capsys, ["diff", str(em.path), str(merged)])
    assert [(c["name"], c["rank"]) for c in value["changed"]] == [(name, 2) for name in names]
    assert not value["same"] and value["only_a"] == value["only_b"] == []
    assert run(["diff", str(em.path), str(merged)]) == 0
    assert names[0] in capsys.readouterr().out
    assert run(["diff", str(em.path), str(em.path), "-q"]) == 0
    assert capsys.readouterr().out == "0\n"

    value = answer(capsys, ["extract", str(em.path), str(merged), "-o", str(back)])
    assert {m: v["rank"] for m, v in value["modules"].items()} == {em.module_name(s): 2 for s in SITES}
    value = answer(capsys, ["diff", str(one), str(two)])
    assert value["facts"] == {"A": ["France has Lyon", "Rome is old"], "B": ["France has Nice"]}
    assert run(["diff", str(one), str(back)]) == 0
    value = answer(capsys, ["inspect", str(back), "-m", str(em.path)])
    assert value["origin"] == "extracted" and value["fit"]["fits"]

    failed(capsys, ["diff", str(one), str(merged)], "is a patch, and the other is not", 2)
    failed(capsys, ["extract", str(em.path), str(merged), "-o", str(back)], "exists already", 2)
    failed(capsys, ["extract", str(em.path), str(em.path), "-o", str(tmp_path / "x")], "equal weights")
    assert not (tmp_path / "x").exists()


def test_diff_shows_first_what_could_not_be_measured() -> None:
    from rich.console import Console

    from hubedit.checkpoint.diff import Changed, Diff
    from hubedit.cli.diff import _tables

    def changed(name: str, norm: float | None, relative: float | None) -> Changed:
        return Changed(name, ((2, 2), (2, 2)), ("F32", "F32"), norm, relative, norm)

    rows = [changed(f"a{n:02}", 1.0, 1.0 + n) for n in range(62)]
    rows += [changed("shape", None, None), changed("zero", 3.0, None), changed("sign", 0.0, None)]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(_tables(Diff((), (), tuple(rows), 0, {}), False))
    lines = capture.get().splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    assert names.index("shape") < names.index("zero") < names.index("a61") and "sign" not in names
    assert "and 5 more (--all lists them)" in capture.get()


def test_extract_saves_a_card(parts: tuple[EditableModel, Path, Path], tmp_path: Path) -> None:
    em, one, _ = parts
    merge([Patch.load(one)], find(str(em.path)), tmp_path / "merged")
    assert run(["extract", str(em.path), str(tmp_path / "merged"), "-o", str(tmp_path / "out"), "-q"]) == 0
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "library_name: peft" in text and str(tmp_path) not in text
