"""From facts to a patch on disk, for every family, and what must never happen on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel

from hubedit.cache import Cache
from hubedit.config import StatsConfig
from hubedit.edit.statistics.corpus import CHECK_TOKENS, TEXT_ROWS, checked_rows, holdout_rows, unseen_rows
from hubedit.errors import (
    StrictError,
)
from hubedit.evaluate import read
from hubedit.evaluate.measure import Settings
from hubedit.evaluate.run import evaluate
from hubedit.model.editable import EditableModel
from hubedit.model.forms import FORMS
from hubedit.patch import Patch
from hubedit.progress import Silent
from tests.pico import FAMILIES
from tests.quick import FACTS, QUICK, run

Editable = Callable[..., EditableModel]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


def sha(folder: Path) -> dict[str, str]:
    names = ("adapter_model.safetensors", "adapter_config.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_gives_the_logits_of_the_edit_in_memory(editable: Editable, tmp_path: Path, family: str) -> None:
    em = editable(family)
    applied_patch = run(em, tmp_path / "patch")
    assert len(applied_patch.edit.factors) == 4
    ids = torch.randint(5, em.vocabulary - 1, (2, 9))
    with torch.no_grad():
        plain = em.model(input_ids=ids).logits
        with em.with_patch(applied_patch.edit.factors).active() as edited:
            wanted = edited(input_ids=ids).logits
        auto: Any = getattr(transformers, em.family.loader)
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
    assert (record["method"], record["layers"], record["layers_from"]) == ("joint", [1, 2], "given")
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
    assert report == made.content
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
    text, used = unseen_rows(em, QUICK.stats, cache, Silent())
    edited, settings = {"adapter": em.with_patch(made.patch)}, Settings(forms=FORMS)
    whole = evaluate(em, FACTS, edited=edited, rows=text, settings=settings, cache=cache)
    own = made.content
    assert set(own) - set(whole) == {"text"}, "which text: the command line of an evaluation says so"
    for name in ("counts", "exact_match", "in_context", "interval_method", "metrics", "metrics_before"):
        assert own[name] == whole[name], name
    assert own["exact_match"]["n"] == own["counts"]
    # an edit asks its own prompts alone in the other forms
    for form, found in own["forms"]["after"].items():
        assert found.items() <= whole["forms"]["after"][form].items()
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
    corpus.write_text("\n\n".join(lines[: TEXT_ROWS + 4]))
    tried = holdout_rows(em, stats, TEXT_ROWS, cache, Silent())
    assert unseen_rows(em, stats, cache, Silent()) == (tried, True)


def test_an_edit_is_checked_on_the_first_rows_that_have_enough_tokens(
    editable: Editable, tmp_path: Path
) -> None:
    em, cache, corpus = editable("qwen2"), Cache(tmp_path / "cache"), tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join("word and word " * 20 for _ in range(40)))
    stats = StatsConfig(corpus=str(corpus), tokens=20)
    rows = checked_rows(em, stats, cache, Silent())
    assert sum(map(len, rows[:-1])) < CHECK_TOKENS <= sum(map(len, rows))
    assert rows == holdout_rows(em, stats, TEXT_ROWS, cache, Silent())[: len(rows)]
    corpus.write_text("\n\n".join(f"line {n}" for n in range(40)))
    assert checked_rows(em, stats, cache, Silent()) == holdout_rows(em, stats, TEXT_ROWS, cache, Silent())


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
    patched = em.with_patch(Patch.load(made.path).by_site(em))
    again = read(patched, FACTS)
    assert [o.probability_after for o in made.report.outcomes] == pytest.approx(
        [again.scored[fact.prompt, fact.target].probability for fact in FACTS], rel=1e-4
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
