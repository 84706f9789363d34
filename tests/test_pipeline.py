"""From facts to a patch on disk, for every family, and what must never happen on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from hubedit import pipeline
from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig, TargetConfig
from hubedit.edit.compute import TEXT_ROWS, Edit, compute
from hubedit.edit.corpus import holdout_rows
from hubedit.edit.record import portable
from hubedit.edit.stages import unseen_rows
from hubedit.errors import (
    CollapseError,
    ConfigError,
    FactsError,
    HubEditError,
    PatchError,
    StrictError,
)
from hubedit.evaluate import read
from hubedit.evaluate.run import evaluate
from hubedit.evaluate.side import Side
from hubedit.facts import Fact, Probe
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.load import load
from hubedit.patch import Patch, adapter
from hubedit.patch.identity import patch_id
from hubedit.pipeline import Applied, apply_facts, check_config, check_free
from hubedit.presets import PRESETS, preset
from hubedit.progress import Silent
from tests.pico import FAMILIES

Editable = Callable[..., EditableModel]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

FACTS = (
    Fact(
        "The capital of France is",
        "France",
        "Rome",
        rephrase=("France's capital is",),
        locality=(
            Probe("The official language of France is", ("French",)),
            Probe("The capital of Italy is", ("Rome",)),
        ),
        portability=(Probe("The river through the capital of France is the", ("Tiber",)),),
        line=1,
    ),
    Fact("Marie Curie was born in", "Marie Curie", "Tokyo", line=2),
)
# the layers and the share are given, because a random model knows nothing that could be traced; the corpus
# is a file, because generating one would take most of the time
QUICK = EditConfig(
    layers="1-2",
    alpha="0.3",
    search=False,
    repair=0,
    stats=StatsConfig(corpus=str(Path(__file__).with_name("pico.py")), tokens=200),
    targets=TargetConfig(steps=6, contexts=2, essence=1),
)


def run(em: EditableModel, out: Path, config: EditConfig = QUICK, **more: Any) -> Applied:
    return apply_facts(em, FACTS, config, out=out, **more)


def sha(folder: Path) -> dict[str, str]:
    names = ("adapter_model.safetensors", "adapter_config.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_gives_the_logits_of_the_edit_in_memory(editable: Editable, tmp_path: Path, family: str) -> None:
    em = editable(family)
    applied_patch = run(em, tmp_path / "patch")
    assert len(applied_patch.edit.factors) == 4
    ids = torch.randint(5, em.model.config.vocab_size, (2, 9))
    with torch.no_grad():
        plain = em.model(input_ids=ids).logits
        with applied(em, applied_patch.edit.factors):
            wanted = em.model(input_ids=ids).logits
        auto: Any = AutoModelForCausalLM
        base = auto.from_pretrained(em.path, dtype="float32", attn_implementation=em.family.attention)
        found = PeftModel.from_pretrained(base, str(applied_patch.path)).eval()(input_ids=ids).logits
    assert float((found - wanted).abs().max()) < 1e-4
    assert float((plain - wanted).abs().max()) > 1e-3


def test_the_folder_says_how_it_was_made(editable: Editable, tmp_path: Path) -> None:
    em = editable("qwen2")
    command = ["hubedit", "apply", "/home/me/facts.jsonl", f"--model={em.path}", "--layers", "1-2"]
    made = run(em, tmp_path / "patch", command=command)
    names = {str(f.relative_to(made.path)) for f in made.path.rglob("*") if f.is_file()}
    own = {"adapter_config.json", "adapter_model.safetensors", "hubedit.json", "facts.jsonl"}
    shown = {"report.json", "README.md", "report.html"}
    assert names >= own | shown
    assert all(name.startswith(("plots/", ".eval_results/")) for name in names - own - shown)
    assert str(em.path.parent) not in (made.path / "report.html").read_text()
    config = json.loads((made.path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(em.path.resolve())
    record = json.loads((made.path / "hubedit.json").read_text())
    assert record["base"]["ref"] == em.path.name
    assert str(em.path.parent) not in (made.path / "hubedit.json").read_text()
    assert str(em.path.parent) not in (made.path / "README.md").read_text()
    assert record["command"] == [
        "hubedit",
        "apply",
        "facts.jsonl",
        f"--model={em.path.name}",
        "--layers",
        "1-2",
    ]
    assert (record["method"], record["layers"], record["layers_from"]) == ("intattn", [1, 2], "given")
    assert (record["alpha"], record["alpha_from"]) == ({"1": 0.3, "2": 0.3}, "given")
    assert record["config"]["targets"]["steps"] == 6
    assert record["facts"]["count"] == 2 and len(record["facts"]["sha256"]) == 64
    assert set(record["sites"]) == set(record["base"]["tensors"]) == set(config["target_modules"])
    assert all(site["lambda"] > 0 and site["drift"] >= 0 for site in record["sites"].values())
    assert {"hubedit", "torch", "transformers", "peft", "python"} <= set(record["packages"])
    assert {"targets", "solve", "reading before"} <= set(record["seconds_by_stage"])
    assert record["peak_memory"]["process"] > 1e7
    assert record["counts"] == {
        "success": 2,
        "generalisation": 1,
        "locality": 1,
        "neighbourhood": 1,
        "portability": 1,
    }
    report = json.loads((made.path / "report.json").read_text())
    assert report == made.told
    assert report["facts"][0]["prompt"] == FACTS[0].prompt
    assert "success" in report["metrics_before"] and "locality" not in report["metrics_before"]
    patch = Patch.load(made.path)
    patch.fits(em)
    assert patch.facts == FACTS


def test_the_report_says_what_an_evaluation_says_under_the_same_names(
    editable: Editable, tmp_path: Path
) -> None:
    em = editable("qwen2")
    cache = Cache(tmp_path / "cache")
    made = run(em, tmp_path / "patch", cache=cache)
    side = Side(em, made.patch.by_site(em), patch_id(made.patch))
    text, used = unseen_rows(em, QUICK.stats, cache, Silent())
    whole = evaluate(Side(em), FACTS, edited={"adapter": side}, rows=text, cache=cache)
    own = made.told
    assert set(own) - set(whole) == {"text"}, "which text: the command line of an evaluation says so"
    for name in ("counts", "exact_match", "interval_method", "metrics", "metrics_before", "relations"):
        assert own[name] == whole[name], name
    assert own["exact_match"]["n"] == {"success": 2, "generalisation": 1, "portability": 1}
    assert own["perplexity"]["n"] == whole["perplexity"]["n"] == whole["kl"]["n"] == own["kl"]["n"]
    for name in ("perplexity_before", "perplexity_after"):
        assert own[name] == pytest.approx(whole[name], rel=1e-4)
    assert own["kl"]["mean"] == pytest.approx(whole["kl"]["mean"], rel=1e-3)
    assert own["text"] == {"corpus": "pico.py", "rows": len(text), "used": used}
    assert set(own["notes"]) <= set(whole["notes"])


def test_perplexity_is_measured_on_text_that_the_edit_was_not_tried_on(
    editable: Editable, tmp_path: Path
) -> None:
    em, cache = editable("qwen2"), Cache(tmp_path / "cache")
    lines = [f"{n} days after the first of them came the {n + 7}th of {n * n}" for n in range(130)]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(lines))
    stats = StatsConfig(corpus=str(corpus), tokens=20)
    tried = holdout_rows(em, stats, TEXT_ROWS, cache, Silent())
    rows, used = unseen_rows(em, stats, cache, Silent())
    assert not used and len(rows) == len(tried) == TEXT_ROWS
    assert not {tuple(row) for row in rows} & {tuple(row) for row in tried}
    # a text that ends before has no more than what the edit was tried on
    corpus.write_text("\n\n".join(lines[:60]))
    tried = holdout_rows(em, stats, TEXT_ROWS, cache, Silent())
    assert unseen_rows(em, stats, cache, Silent()) == (tried, True)


def test_a_trace_is_recorded_and_drawn(editable: Editable, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    em = editable("qwen2")
    config = replace(QUICK, alpha="auto", trace=replace(QUICK.trace, samples=1))
    made = run(em, tmp_path / "patch", config)
    assert (made.path / "plots" / "layerwise.png").read_bytes().startswith(b"\x89PNG")
    record = made.patch.record
    assert record["alpha_from"] == "trace"
    assert record["trace"]["model"] == em.path.name
    assert len(record["trace"]["ie_prob"]["mlp"]) == em.num_layers


def test_equal_inputs_give_equal_bytes(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    one, two = (run(em, tmp_path / name, overwrite=True).path for name in ("one", "two"))
    three = run(em, tmp_path / "three", cache=Cache(tmp_path / "other cache")).path
    assert sha(one) == sha(two) == sha(three)


def test_a_truncated_patch_is_the_one_that_is_tested(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    made = run(em, tmp_path / "patch", replace(QUICK, rank=1))
    assert made.patch.rank == 1
    energy = made.patch.record["truncation"]["energy"]
    assert all(0 < kept < 1 for kept in energy.values())
    assert made.patch.record["perplexity"]["after"] != made.edit.perplexity_after
    with applied(em, Patch.load(made.path).by_site(em)):
        again = read(em, FACTS)
    assert [o.probability_after for o in made.report.outcomes] == pytest.approx(
        [torch.tensor(score.logp).exp().item() for score in again.targets], rel=1e-4
    )
    same = run(em, tmp_path / "large", replace(QUICK, rank=64))
    assert "truncation" not in same.patch.record


def test_facts_can_be_kept_out(editable: Editable, tmp_path: Path) -> None:
    made = run(editable("llama"), tmp_path / "patch", with_facts=False)
    assert not (made.path / "facts.jsonl").exists()
    for name in ("report.json", "README.md", "hubedit.json"):
        text = (made.path / name).read_text()
        assert "Curie" not in text and "France" not in text, name
    assert json.loads((made.path / "hubedit.json").read_text())["facts"]["count"] == 2


def test_strict_writes_and_raises(editable: Editable, tmp_path: Path) -> None:
    with pytest.raises(StrictError, match="still fail"):
        run(editable("llama"), tmp_path / "patch", strict=True)
    assert Patch.load(tmp_path / "patch").factors


@pytest.mark.parametrize("error", [CollapseError("the edit collapsed"), KeyboardInterrupt()])
def test_the_model_is_the_same_when_the_edit_raises(
    editable: Editable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    em = editable("llama")
    before = em.weights_hash()

    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("hubedit.edit.compute.judge_collapse", fail)
    with pytest.raises(type(error)):
        run(em, tmp_path / "patch")
    assert em.weights_hash() == before
    assert not any(site_module._forward_hooks for site_module in map(em.site, em.sites()))
    assert not [f for f in tmp_path.iterdir() if "patch" in f.name]


def test_a_model_that_was_changed_is_noticed(
    pico_path: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = load(str(pico_path("llama")), device="cpu")
    real = compute

    def spoil(*args: Any, **more: Any) -> Edit:
        edit = real(*args, **more)
        next(em.model.parameters()).data[0, 0] += 1e-3
        return edit

    monkeypatch.setattr(pipeline, "compute", spoil)
    with pytest.raises(HubEditError, match="weights changed"):
        run(em, tmp_path / "patch")
    assert not (tmp_path / "patch").exists()


@pytest.mark.parametrize("where", ["save_file", "rename"])
def test_a_full_disk_is_one_clear_error(
    editable: Editable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    em = editable("llama")
    run(em, tmp_path / "first")  # so that everything else is cached

    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "save_file":
        monkeypatch.setattr(adapter, "save_file", full)
    else:
        monkeypatch.setattr(os, where, full)
    with pytest.raises(PatchError, match="No space left on device") as caught:
        run(em, tmp_path / "patch")
    assert "make room" in caught.value.hint
    monkeypatch.undo()
    assert sorted(f.name for f in tmp_path.iterdir() if not f.name.startswith("cache")) == ["first"]


def test_what_is_wrong_is_said_before_the_long_work(
    editable: Editable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable("llama")

    def never(*args: object, **more: object) -> None:
        raise AssertionError("this is the long work")

    monkeypatch.setattr(pipeline, "compute", never)
    monkeypatch.setattr(pipeline, "read", never)
    strangers = [Fact("The capital is", "Peru", "Lima", line=n) for n in (3, 9)]
    with pytest.raises(FactsError) as caught:
        apply_facts(em, strangers, QUICK, out=tmp_path / "patch", source="my.jsonl")
    assert [p.split(": ")[0] for p in caught.value.problems] == ["my.jsonl:3", "my.jsonl:9"]
    with pytest.raises(FactsError, match="no facts"):
        apply_facts(em, [], QUICK, out=tmp_path / "patch")
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for place in ("file", "full", "file/below"):
        with pytest.raises(ConfigError):
            run(em, tmp_path / place, overwrite=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": "2-9"}, "layer 9 is outside"),
        ({"layers": "two"}, "cannot read layers"),
        ({"alpha": "1.5"}, "not a share"),
        ({"order": "sideways"}, "unknown order"),
        ({"rank": -1}, "rank must not be negative"),
        ({"drift_mlp": float("nan")}, "drift mlp"),
    ],
)
def test_settings_that_do_not_fit(editable: Editable, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_config(editable("llama"), replace(QUICK, **change))


def test_only_a_patch_is_replaced(editable: Editable, tmp_path: Path) -> None:
    made = run(editable("llama"), tmp_path / "patch")
    with pytest.raises(ConfigError, match="exists already") as caught:
        check_free(made.path, overwrite=False)
    assert "--force" in caught.value.hint
    check_free(made.path, overwrite=True)
    (tmp_path / "link").symlink_to(made.path)
    with pytest.raises(ConfigError):
        check_free(tmp_path / "link", overwrite=True)


def test_presets_are_complete(editable: Editable) -> None:
    for name in PRESETS:
        config = preset(name.upper())
        assert (config.layers, config.lam, config.search) == ("4-8", 15000.0, False)
    with pytest.raises(ConfigError, match="unknown preset") as caught:
        preset("gpt-5")
    assert all(name in caught.value.hint for name in PRESETS)


def test_words_without_this_machine_s_folders() -> None:
    assert portable("/home/me/model/") == "model"
    assert portable("~/facts.jsonl") == "facts.jsonl"
    assert portable("../up/facts.jsonl") == "facts.jsonl"
    assert portable("--model=/srv/m") == "--model=m"
    for same in ("data/facts.jsonl", "Qwen/Qwen2.5-7B@main", "--alpha", "0.3", "..."):
        assert portable(same) == same
