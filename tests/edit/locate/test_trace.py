"""Causal tracing: what the restored runs must satisfy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import TraceConfig
from hubedit.edit.locate.causal import clean_runs, corrupted_runs, measures, restored_logits, subject_noise
from hubedit.edit.locate.trace import category, trace, trace_key
from hubedit.edit.locate.trace_result import CATEGORIES, KINDS, TraceResult
from hubedit.errors import ConfigError, HubEditError
from hubedit.facts.types import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.hooks import replaced, run
from hubedit.model.load import load
from hubedit.model.sites import Site
from hubedit.model.tokens import Prompt, locate, pad
from hubedit.progress import Silent
from tests.pico import pico
from tests.watching import little_memory, no_pass, predictions

FACTS = [
    Fact("The capital of France is", "France", "Rome"),
    Fact("The mother tongue of Danielle Darrieux is", "Danielle Darrieux", "English"),
    Fact("Autonomous University of Madrid, which is located in", "Autonomous University of Madrid", "Sweden"),
    Fact("Marie Curie was born in", "Marie Curie", "Rome"),
]
CONFIG = TraceConfig(samples=3)
Trace = Callable[..., TraceResult]


@pytest.fixture(scope="module")
def em(tmp_path_factory: pytest.TempPathFactory) -> EditableModel:
    return load(str(pico("qwen2", tmp_path_factory.mktemp("model"))), device="cpu")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def close(a: TraceResult, b: TraceResult) -> None:
    for name in ("ie_prob", "ie_logit"):
        for kind in KINDS:
            assert getattr(a, name)[kind] == pytest.approx(getattr(b, name)[kind], abs=1e-5)


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text", "gpt_neox", "gpt2"])
def test_restoring_every_site_gives_the_clean_run_back(tmp_path: Path, family: str) -> None:
    """At the last token no noise was added, so its residual stream is the sum of what is put back."""
    em = load(str(pico(family, tmp_path)), device="cpu")
    prompts = [locate(em.tokenizer, f.prompt, f.subject) for f in FACTS]
    clean = clean_runs(em, prompts)
    rows = [(i, s) for i in range(len(prompts)) for s in range(2)]
    runs = corrupted_runs(em, prompts, clean, rows, 2.0, 0)
    assert not torch.allclose(runs.logits, clean.logits[runs.fact], atol=1e-2)
    back = restored_logits(em, runs, em.sites(), runs.batch.lengths - 1)
    torch.testing.assert_close(back, clean.logits[runs.fact], atol=1e-4, rtol=1e-4)
    half = torch.where(torch.arange(len(rows)) % 2 == 0, runs.batch.lengths - 1, -1)
    mixed = restored_logits(em, runs, em.sites(), half)
    torch.testing.assert_close(mixed[0::2], back[0::2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1::2], runs.logits[1::2])


@pytest.mark.parametrize("site", [Site(0, "attention"), Site(0, "mlp"), Site(2, "attention"), Site(3, "mlp")])
def test_a_restored_run_is_what_plain_hooks_give(em: EditableModel, site: Site) -> None:
    prompts = [locate(em.tokenizer, f.prompt, f.subject) for f in FACTS]
    runs = corrupted_runs(em, prompts, clean_runs(em, prompts), [(2, 0), (1, 1)], 0.5, 7)
    found = restored_logits(em, runs, [site], torch.tensor([prompts[2].last, prompts[1].last]))
    for row, (i, sample) in enumerate([(2, 0), (1, 1)]):
        p = prompts[i]
        batch = pad([p.ids], 0)
        value = run(em, batch, outputs=[site]).outputs[site][0, p.last]
        noise = subject_noise(p, em.hidden_size, 0.5, 7, sample)

        def noisy(x: torch.Tensor, p: Prompt = p, noise: torch.Tensor = noise) -> torch.Tensor:
            x = x.clone()
            x[0, p.first : p.last + 1] += noise
            return x

        def put(x: torch.Tensor, p: Prompt = p, value: torch.Tensor = value) -> torch.Tensor:
            x = x.clone()
            x[0, p.last] = value
            return x

        with replaced(em, {site: put}, embeddings=noisy):
            logits = run(em, batch, logits=True).logits
        assert logits is not None
        torch.testing.assert_close(found[row], logits[0, -1].float(), atol=1e-4, rtol=1e-4)


def test_the_effect_is_restored_minus_corrupted(em: EditableModel, cache: Cache) -> None:
    fact, config = FACTS[1], replace(CONFIG, samples=2)
    result = trace(em, [fact], config, cache, Silent())
    prompt = locate(em.tokenizer, fact.prompt, fact.subject)
    clean = clean_runs(em, [prompt])
    runs = corrupted_runs(em, [prompt], clean, [(0, 0), (0, 1)], result.noise, config.seed)
    answer = clean.answer[runs.fact]
    assert greedy(em, [fact.prompt], 1)[0].strip() in em.tokenizer.decode(answer[:1])
    before = measures(runs.logits, answer, runs.foil).mean(0)
    after = restored_logits(em, runs, [Site(1, "mlp")], torch.full((2,), prompt.last))
    effect = measures(after, answer, runs.foil).mean(0) - before
    assert result.ie_prob["mlp"][1] == pytest.approx(float(effect[0]), abs=1e-6)
    assert result.ie_logit["mlp"][1] == pytest.approx(float(effect[1]), abs=1e-5)
    assert result.prob_corrupted == pytest.approx(float(before[0]), abs=1e-6)
    assert result.prob_clean == pytest.approx(float(clean.logits.softmax(-1).max()), abs=1e-6)


def test_without_noise_there_is_no_effect(em: EditableModel, cache: Cache) -> None:
    result = trace(em, FACTS, replace(CONFIG, noise=0.0, tokens="all"), cache, Silent())
    assert result.total_effect == pytest.approx(0, abs=1e-6)
    for kind in KINDS:
        assert result.ie_prob[kind] == pytest.approx([0.0] * em.num_layers, abs=1e-6)
        assert result.ie_logit[kind] == pytest.approx([0.0] * em.num_layers, abs=1e-5)


def test_batching_does_not_matter(em: EditableModel, tmp_path: Path) -> None:
    config = replace(CONFIG, samples=2, tokens="all")
    whole = trace(em, FACTS[:2], config, Cache(tmp_path / "a"), Silent())
    with little_memory(em, rows=1):  # every batch is halved until one row is left
        single = trace(em, FACTS[:2], config, Cache(tmp_path / "b"), Silent())
    close(whole, single)
    for kind in KINDS:
        for a, b in zip(whole.heat_prob[kind], single.heat_prob[kind], strict=True):
            assert a == pytest.approx(b, abs=1e-5)


def test_out_of_memory_halves_the_batch(em: EditableModel, tmp_path: Path) -> None:
    whole = trace(em, FACTS, CONFIG, Cache(tmp_path / "a"), Silent())
    with little_memory(em, rows=4):
        close(whole, trace(em, FACTS, CONFIG, Cache(tmp_path / "b"), Silent()))


def test_the_order_of_facts_does_not_matter(em: EditableModel, tmp_path: Path) -> None:
    one = trace(em, FACTS, CONFIG, Cache(tmp_path / "a"), Silent())
    close(one, trace(em, FACTS[::-1], CONFIG, Cache(tmp_path / "b"), Silent()))


def test_all_tokens_agree_with_the_last_subject_token(em: EditableModel, tmp_path: Path) -> None:
    last = trace(em, FACTS, CONFIG, Cache(tmp_path / "a"), Silent())
    every = trace(em, FACTS, replace(CONFIG, tokens="all"), Cache(tmp_path / "b"), Silent())
    close(last, every)
    assert not last.heat_prob
    place = CATEGORIES.index("last subject token")
    for kind in KINDS:
        assert every.heat_prob[kind][place] == pytest.approx(every.ie_prob[kind])
        assert every.heat_logit[kind][place] == pytest.approx(every.ie_logit[kind])


def test_a_window_restores_its_neighbours(em: EditableModel, cache: Cache) -> None:
    """A window that covers every layer has the same effect wherever it is centred."""
    result = trace(em, FACTS, replace(CONFIG, window=2 * em.num_layers - 1), cache, Silent())
    for kind in KINDS:
        assert result.ie_prob[kind] == pytest.approx([result.ie_prob[kind][0]] * em.num_layers, abs=1e-6)


def test_kinds_of_tokens() -> None:
    prompt = Prompt("", tuple(range(9)), 2, 4)
    names = [category(prompt, t) for t in range(2, 9)]
    assert names == [
        "first subject token",
        "middle subject tokens",
        "last subject token",
        "first token after",
        "further tokens",
        "further tokens",
        "last token",
    ]
    assert category(Prompt("", (1, 2, 3), 1, 1), 1) == "last subject token"
    assert category(Prompt("", (1, 2), 1, 1), 1) == "last subject token"


def test_only_known_facts_are_traced(em: EditableModel, cache: Cache) -> None:
    said = greedy(em, [f.prompt for f in FACTS], 4)
    facts = [replace(f, ground_truth=(s.strip(),)) for f, s in zip(FACTS, said, strict=True)]
    facts[0] = replace(facts[0], ground_truth=("Atlantis",))
    result = trace(em, facts, CONFIG, cache, Silent())
    assert (result.facts, result.checked, result.known, result.traced) == (4, 4, 3, 3)
    limited = trace(em, facts, replace(CONFIG, max_facts=2), cache, Silent())
    assert (limited.known, limited.traced) == (3, 2)


class Told(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_what_the_model_says_is_traced_where_it_knows_no_ground_truth(
    em: EditableModel, cache: Cache
) -> None:
    told = Told()
    facts = [replace(f, ground_truth=("Atlantis",)) for f in FACTS]
    wrong = trace(em, facts, CONFIG, cache, told)
    assert (wrong.checked, wrong.known, wrong.traced) == (4, 0, 4)
    assert len(told.messages) == 1 and "none of 4 facts" in told.messages[0]
    without = trace(em, [replace(f, ground_truth=()) for f in FACTS], CONFIG, cache, Silent())
    assert wrong.ie_prob == without.ie_prob


def test_no_answer_at_all_is_an_error_with_a_way_out(em: EditableModel, cache: Cache) -> None:
    end = em.eos_ids[0]
    with (
        predictions(em, lambda logits: logits[..., end].add_(1e4)),
        pytest.raises(HubEditError, match="--layers and --alpha"),
    ):
        trace(em, FACTS, CONFIG, cache, Silent())


@pytest.mark.parametrize(
    "change",
    [{"samples": 0}, {"window": 2}, {"window": 0}, {"noise": -1.0}, {"max_facts": 0}, {"tokens": "x"}],
)
def test_settings_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TraceConfig(**change)


def test_json_round_trip(em: EditableModel, cache: Cache) -> None:
    result = trace(em, FACTS, replace(CONFIG, tokens="all"), cache, Silent())
    assert TraceResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    with pytest.raises(HubEditError, match="lacks"):
        TraceResult.from_json({"layers": [0]})


def test_a_trace_is_cached(em: EditableModel, cache: Cache) -> None:
    result = trace(em, FACTS, CONFIG, cache, Silent())
    with no_pass(em):
        assert trace(em, [replace(f, target="other") for f in FACTS], CONFIG, cache, Silent()) == result


def test_the_key_changes_with_every_input(em: EditableModel) -> None:
    keys = [trace_key(em, FACTS, CONFIG), trace_key(replace(em, weights="other"), FACTS, CONFIG)]
    for change in ({"prompt": "Now France is"}, {"subject": "The capital"}, {"ground_truth": ("Paris",)}):
        keys.append(trace_key(em, [replace(FACTS[0], **change), *FACTS[1:]], CONFIG))
    changes: list[dict[str, Any]] = [
        {"noise": 2.0},
        {"samples": 4},
        {"window": 3},
        {"tokens": "all"},
        {"max_facts": 3},
        {"seed": 1},
    ]
    keys += [trace_key(em, FACTS, replace(CONFIG, **change)) for change in changes]
    assert len({json.dumps(k, sort_keys=True) for k in keys}) == len(keys)


def test_the_model_is_left_as_it_was(em: EditableModel, cache: Cache) -> None:
    before = em.weights_hash()
    trace(em, FACTS, CONFIG, cache, Silent())
    assert em.weights_hash() == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in em.model.modules())
