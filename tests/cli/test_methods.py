"""`hubedit apply --method`: every method through the whole pipeline, and what each refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from hubedit.cache import Cache
from hubedit.cli.app import run
from hubedit.cli.choices import Method
from hubedit.cli.settings import settings
from hubedit.config import EditConfig, from_dict
from hubedit.errors import ConfigError
from hubedit.facts import load_facts
from hubedit.model.load import load
from hubedit.patch import Patch
from hubedit.patch.owners import owners
from hubedit.pipeline import apply_facts
from hubedit.presets import METHODS, PRESETS, check_method, check_settings, method_defaults, preset
from tests.cli.test_apply import CORPUS, facts_file
from tests.pico import pico

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line that ends before --method; the stages are cached from test to test."""
    folder = tmp_path_factory.mktemp("methods")
    model = pico("qwen2", folder / "model")
    line = ["apply", str(facts_file(folder / "facts.jsonl")), "--model", str(model), "--device", "cpu"]
    line += ["--layers", "1", "--corpus", CORPUS, "--tokens", "2000"]
    return [*line, "--cache", str(folder / "cache")]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_a_patch_that_peft_loads(words: list[str], tmp_path: Path, method: str) -> None:
    out = tmp_path / "patch"
    own = {
        "joint": {"alpha": "0.3"},
        "intattn": {"alpha": "0.3"},
        "intattn-rome": {"alpha": "0.3"},
        "alphaedit": {"null_space": "5%"},
    }
    given: dict[str, Any] = {
        "layers": "1",
        "corpus": CORPUS,
        "tokens": 2000,
        "batch_size": 1,
        **own.get(method, {}),
    }
    # published settings damage a random model, which is not the question here
    config = replace(settings(None, method, **given), collapse="tell")
    em, facts, cache = load(words[3], device="cpu"), load_facts(words[1]), Cache(words[-1])
    patch = apply_facts(em, facts, config, out=out, cache=cache).patch
    assert Patch.load(out).facts == patch.facts
    record = patch.record
    assert (record["method"], record["batch_size"], record["layers"]) == (method, 1, [1])
    again = from_dict(EditConfig, {**record["config"]})
    assert (again.method, again.batch_size) == (method, 1)
    assert METHODS[method].title in (out / "README.md").read_text()
    # who owns a row is known where facts have rows of their own
    assert (owners(patch) is None) == METHODS[method].trained

    ids = torch.randint(5, em.model.config.vocab_size, (2, 9))
    with torch.no_grad():
        plain = em.model(input_ids=ids).logits
        with em.with_patch(patch).active() as edited:
            wanted = edited(input_ids=ids).logits
        auto: Any = AutoModelForCausalLM
        base = auto.from_pretrained(em.path, dtype="float32", attn_implementation=em.family.attention)
        found = PeftModel.from_pretrained(base, str(out)).eval()(input_ids=ids).logits
    assert float((found - wanted).abs().max()) < 1e-3 * float(wanted.abs().max())
    assert float((plain - wanted).abs().max()) > 1e-6


def test_a_collapse_of_a_published_method_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--method", "lora", "--out", str(tmp_path / "patch")]) == 1
    said = capsys.readouterr().err
    assert "relative drift" in said and "another --method" in said and "--drift" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--method", "magic"], "magic"),
        (["--method", "memit", "--alpha", "0.3"], "--method memit has no --alpha"),
        (["--method", "rome", "--lam", "3"], "--method rome has no --lam"),
        (["--method", "rome", "--layers", "1-2"], "rome edits one layer"),
        (["--method", "lora", "--null-space", "1%"], "--method lora has no --null-space"),
        (["--method", "memit", "--lam", "0"], "memit needs a value of lam"),
        (["--method", "alphaedit", "--null-space", "much"], "cannot read null space 'much'"),
        (["--method", "alphaedit", "--null-space", "200%"], "cannot read null space '200%'"),
        (["--max-memory", "banana"], "--max-memory does not understand 'banana'"),
        (["--method", "alphaedit", "--null-space", "-1%"], "cannot read null space '-1%'"),
        (["--batch-size", "-1"], "batch-size"),
    ],
)
def test_options_that_do_not_fit_the_method(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    said: str,
    dry: list[str],
) -> None:
    assert run([*words, "--out", str(tmp_path / "patch"), *extra, *dry]) == 2
    found = capsys.readouterr()
    assert said in found.err
    assert "Traceback" not in found.err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "sites", "rank"),
    [
        ("ultraedit", 2, 8),
        ("memit", 2, 8),
        ("alphaedit", 2, 8),
        ("lora", 4, 8),
        ("intattn", 4, 8),
        ("joint", 2, 8),
    ],
)
def test_the_plan_knows_the_method(
    words: list[str], method: str, sites: int, rank: int, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*words, "--layers", "1-2", "--method", method, "--dry-run"]
    assert run([*line, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["sites"], plan["rank"]) == (sites, rank)
    assert run(line) == 0
    assert method in capsys.readouterr().out


def test_the_plan_of_fine_tuning_is_one_full_rank_change_without_a_trace(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*words, "--method", "ft", "--layers", "auto", "--dry-run", "--json"]
    assert run(line) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["layers"], plan["sites"], plan["trace_runs"]) == ([1], 1, 0)
    assert plan["rank"] == 32, "the smaller side of the weight"
    assert run([*line, "--rank", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["rank"] == 8, "padded to what vLLM takes"


def test_the_options_are_the_methods() -> None:
    assert [m.value for m in Method] == list(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_published_settings_are_complete_and_plain(method: str) -> None:
    rows = [method_defaults(method), *(PRESETS[name][method] for name in PRESETS if method in PRESETS[name])]
    for config in rows:
        assert config.method == method
        check_settings(config)
        assert from_dict(EditConfig, {"method": method}).method == method
    if method == "joint":
        assert rows == [EditConfig()]
        return
    for config in rows:
        assert (config.prefer, config.targets.optimizer) == ("balanced", "adam")
    own = {"ft": ["6", "23", "22"], "ultraedit": ["29-30"]}
    usual = ["5" if METHODS[method].one_layer else "4-8"] * len(PRESETS)
    assert [c.layers for c in rows] == ["auto", *own.get(method, usual)]
    if method not in PRESETS["qwen2.5-7b"]:
        return
    assert settings("Qwen2.5-7B", method, batch_size=7) == preset("qwen2.5-7b", method).__class__(
        **{**vars(preset("qwen2.5-7b", method)), "batch_size": 7}
    )


def test_a_preset_without_a_method_says_so() -> None:
    with pytest.raises(ConfigError, match=r"qwen2\.5-7b has no settings for --method ultraedit"):
        settings("qwen2.5-7b", "ultraedit")
    assert settings("mistral-7b", "ultraedit").targets.step == 1e-6


def test_a_paper_s_preset_runs_the_paper_s_method() -> None:
    assert settings(None).method == "joint"
    assert settings("mistral-7b", alpha="0.2").method == "intattn"
    assert settings("mistral-7b", "memit").method == "memit"
    with pytest.raises(ConfigError, match="no settings for --method joint") as caught:
        settings("mistral-7b", "joint")
    assert "intattn" in caught.value.hint
    with pytest.raises(ConfigError, match="intattn has no --null-space"):
        settings("mistral-7b", null_space="1%")


def test_settings_that_a_method_does_not_read_are_refused() -> None:
    check_settings(replace(method_defaults("rome"), layers="3"))
    with pytest.raises(ConfigError, match="rome has no setting 'alpha'"):
        check_settings(EditConfig(method="rome", alpha="0.7"))
    with pytest.raises(ConfigError, match="unknown method 'magic'") as caught:
        check_method("magic")
    assert all(name in caught.value.hint for name in METHODS)
