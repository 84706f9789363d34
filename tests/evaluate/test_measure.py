"""The whole evaluation: parts kept in the cache, both variants, and a report of only what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.cache import Cache
from hubedit.errors import ConfigError
from hubedit.evaluate.bystanders import candidates, holds
from hubedit.evaluate.damage import Parts
from hubedit.evaluate.measure import Settings, fitting, known, measure
from hubedit.evaluate.report import nested, report
from hubedit.evaluate.run import evaluate
from hubedit.evaluate.text import text_rows
from hubedit.facts import Fact, Probe
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.load import load
from hubedit.model.sites import Site
from hubedit.model.tokens import encode
from tests.model.test_hooks import random_factors
from tests.pico import SENTENCES, pico
from tests.watching import no_pass, passes

Editable = Callable[..., EditableModel]

FACTS = [
    Fact(
        "The capital of France is",
        "France",
        "Rome",
        id="one",
        ground_truth=("Paris",),
        rephrase=("France's capital is",),
        locality=(
            Probe("The official language of France is", ("French",), "same_subject"),
            Probe("The capital of Japan is", ("Tokyo",), "neighborhood"),
            Probe("The king of Italy is", (), "neighborhood"),
        ),
        portability=(Probe("The river through France's capital is the", ("Tiber", "the Tiber"), "two_hop"),),
    ),
    Fact("Marie Curie was born in", "Marie Curie", "Tokyo, a very large city", ground_truth=("Warsaw",)),
    Fact("The president of Egypt lives in", "Egypt", "Cologne"),
]
SETTINGS = Settings(fluency=2)


def text_of(em: EditableModel) -> list[list[int]]:
    return [list(encode(em.tokenizer, sentence).ids) for sentence in SENTENCES[:5]]


class Watched:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done = 0

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.stages.append((stage, total))

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def finish(self, note: str = "") -> None: ...

    def message(self, text: str) -> None: ...


def test_a_model_alone_says_only_what_it_answers(editable: Editable) -> None:
    em = editable()
    data = evaluate(em, FACTS, rows=text_of(em), settings=SETTINGS)
    assert set(data) == {
        "metrics_before", "intervals_before", "counts", "facts", "exact_match", "teacher_forced",
        "counterfact", "fluency", "perplexity_before", "perplexity", "interval_method", "notes", "in_context",
    }  # fmt: skip
    assert set(data["metrics_before"]) == {"success", "generalisation", "portability"}
    localities = {"locality", "neighbourhood"}
    assert set(data["in_context"]["metrics"]) == {*data["metrics_before"], *localities}
    assert data["counts"] == {"success": 3, "generalisation": 1, "portability": 1}
    assert set(data["facts"][0]) == {
        "id", "prompt", "subject", "target", "before", "probability_before", "rank_before", "success",
    }  # fmt: skip
    forced = data["teacher_forced"]
    assert set(forced) == {"before", "in_context", "n", "intervals_before", "intervals_in_context"}
    assert set(forced["in_context"]) == {*forced["before"], "locality", "locality_mean"}
    assert "locality" not in forced["before"] and forced["n"]["edit_success"] == 3
    assert data["counterfact"]["n"] == {
        "efficacy_score": 2,
        "efficacy_magnitude": 2,
        "paraphrase_score": 1,
        "paraphrase_magnitude": 1,
        "neighbourhood_score": 1,
        "neighbourhood_magnitude": 1,
    }
    # one record has neighbours and one rephrasings: no interval can be told for the magnitudes of those, and
    # that of a share which is 0 or 1 is wide
    between = data["counterfact"]["intervals_before"]
    own = data["counterfact"]["before"]
    assert "efficacy_magnitude" in between and "paraphrase_magnitude" not in between
    for name in ("paraphrase_score", "neighbourhood_score"):
        assert own[name] in (0, 1) and between[name][1] - between[name][0] == pytest.approx(0.793, abs=1e-3)
    assert between["score"][0] < between["score"][1]
    assert data["fluency"].keys() == {"before", "n", "interval_before"}
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_records_that_lack_a_field_are_noted(editable: Editable) -> None:
    em = editable()
    notes = evaluate(em, FACTS, settings=SETTINGS)["notes"]
    assert notes == [
        "2 of 3 records have no rephrasings",
        "2 of 3 records have no locality prompts",
        "2 of 3 records have no portability prompts with an answer",
        "1 of 3 records have no old answer (ground_truth)",
        "locality prompts without a known answer: 1; they count in locality and neighbourhood, "
        "not in the teacher-forced metrics",
        "fluency is that of the first 2 records",
    ]


def test_before_and_after_as_adapter_and_merged(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    factors = random_factors(em, rank=3, scale=0.3)
    merged = load(str(pico("llama", tmp_path / "model")), device="cpu")
    for site, factor in factors.items():
        merged.weight(site).data += factor.dense()
    merged.model.save_pretrained(tmp_path / "merged")
    merged.tokenizer.save_pretrained(tmp_path / "merged")
    merged = load(str(tmp_path / "merged"), device="cpu")
    sides = {"adapter": em.with_patch(factors), "merged": merged}
    parts = Parts(tuple(FACTS), dict.fromkeys(factors, (0, 1, 2)))
    data = evaluate(em, FACTS, edited=sides, rows=text_of(em), parts=parts, settings=SETTINGS)
    adapter, other = data["variants"]["adapter"], data["variants"]["merged"]
    for name in ("metrics", "counts", "intervals", "teacher_forced", "counterfact"):
        assert data[name] == adapter[name]
    assert other["kl"]["mean"] == pytest.approx(adapter["kl"]["mean"], rel=1e-3)
    assert other["perplexity_after"] == pytest.approx(adapter["perplexity_after"], rel=1e-3)
    assert other["counterfact"]["after"] == pytest.approx(adapter["counterfact"]["after"], abs=1e-4)
    assert "facts" not in adapter and len(data["facts"]) == 3
    shown = {"flipped_same_subject", "flipped_neighbours", "worst"}
    assert set(data["damage"]) == shown | {"broken_by_batch"}
    assert set(other["damage"]) == shown, "a merged model has no parts"
    assert set(data["teacher_forced"]["after"]["locality"]) == {"same_subject", "neighborhood"}
    assert data["kl"]["n"] == sum(len(row) - 1 for row in text_of(em))
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_parts_that_are_done_are_not_done_again(editable: Editable, tmp_path: Path) -> None:
    em, cache = editable(), Cache(tmp_path / "a")

    class Stopped(Watched):
        def advance(self, amount: int = 1) -> None:
            super().advance(amount)
            if self.done == 2:
                raise KeyboardInterrupt

    def counted(em: EditableModel, cache: Cache, settings: Settings = SETTINGS, **more: Any) -> Any:
        """What is measured, and how many passes through the model it took."""
        with passes(em, through.append):
            before = len(through)
            found = measure(em, FACTS, settings=settings, cache=cache, chunk=1, **more)
            return found, len(through) - before

    through: list[torch.Tensor] = []
    _, whole = counted(em, Cache(tmp_path / "b"))
    with pytest.raises(KeyboardInterrupt):
        counted(em, cache, progress=Stopped())
    there, progress = len(through) - whole, Watched()
    first, left = counted(em, cache, progress=progress, name="before")
    assert there > 0 and there + left == whole, "two of the facts were there"
    assert progress.stages[0] == ("asking (before)", 3) and progress.done == 3 + 2 + 3
    with no_pass(em):
        again = measure(em, FACTS, settings=SETTINGS, cache=cache, chunk=1)
    assert report(FACTS, first) == report(FACTS, again)
    # another patch, another model, another seed of the texts: nothing of the old ones is taken for theirs
    edited, anew = counted(em.with_patch(random_factors(em)), cache)
    assert anew > 0 and edited.reading != first.reading
    other, written = counted(em, cache, replace(SETTINGS, seed=1))
    assert 0 < written < whole and other.fluency != first.fluency


def test_chunks_change_nothing(editable: Editable, tmp_path: Path) -> None:
    em = editable("mistral", "metaspace_bos")
    whole = report(FACTS, measure(em, FACTS, cache=Cache(tmp_path / "a")))
    parted = report(FACTS, measure(em, FACTS, cache=Cache(tmp_path / "b"), chunk=2))
    for name in ("metrics_before", "counts", "notes"):
        assert whole[name] == parted[name]
    assert whole["counterfact"]["before"] == pytest.approx(parted["counterfact"]["before"], abs=1e-5)


def test_facts_that_do_not_fit_are_told(editable: Editable) -> None:
    em = editable()
    long = replace(FACTS[2], rephrase=("Egypt " * em.max_positions,))
    kept, why = fitting(em, [FACTS[0], long])
    assert kept == [FACTS[0]]
    assert len(why) == 1 and why[0].startswith("record 2 is left out: a prompt has")


def test_an_edit_that_works_is_seen_to_work(editable: Editable) -> None:
    """The first fact's answer is written by hand into the last layer: every number must say so."""
    em = editable("llama")
    fact = FACTS[0]
    ids = torch.tensor([encode(em.tokenizer, fact.prompt).ids])
    site = Site(3, "mlp")
    kept: list[torch.Tensor] = []
    handle = em.site(site).register_forward_pre_hook(lambda _, args: kept.append(args[0][0, -1]))
    with torch.no_grad():
        em.model(input_ids=ids)
    handle.remove()
    token = em.tokenizer(" Rome", add_special_tokens=False)["input_ids"][0]
    weight = em.model.get_submodule(em.family.head).weight
    assert isinstance(weight, torch.Tensor)
    head = weight[token]
    factors = {site: LowRank((100 * head / head.norm())[:, None], (kept[0] / (kept[0] @ kept[0]))[None])}
    data = evaluate(em, [fact], edited={"adapter": em.with_patch(factors)}, settings=SETTINGS)
    assert data["metrics_before"]["success"] == 0.0 and data["metrics"]["success"] == 1.0
    assert data["teacher_forced"]["after"]["edit_success"] == 1.0
    assert data["counterfact"]["after"]["efficacy_score"] == 1.0
    assert data["counterfact"]["after"]["efficacy_magnitude"] > 0.1
    assert data["probability_shift"][0][1] > 10 * data["probability_shift"][0][0]
    assert data["relations"] == {"The capital of {} is": {"success": 1.0, "n": 1}}
    assert "kl" not in data and "perplexity_after" not in data, "no text was read"


def test_bystanders_are_known_facts_of_other_subjects(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    prompts = ["The river Nile flows through", "Ada Lovelace worked with", "The king of Italy lives in"]
    said = [text.split()[0] for text in greedy(em, prompts, 4)]
    subjects = ["river Nile", "Ada Lovelace", "king of Italy"]
    right = [Fact(p, s, "x", ground_truth=(a,)) for p, s, a in zip(prompts, subjects, said, strict=True)]
    wrong = replace(right[0], prompt="The river Nile is", ground_truth=("nothing such",))
    same = replace(right[0], prompt="France has", subject="France")
    base, cache = em, Cache(tmp_path)
    others = candidates([*right, wrong, same, right[0]], FACTS)
    assert len(others) == 4, "one a prompt, and none about France"
    found = known(base, others, cache=cache)
    assert [fact.prompt for fact in found] == prompts
    edited = em.with_patch(random_factors(em, scale=30.0))
    data = evaluate(base, FACTS, edited={"adapter": edited}, bystanders=others, cache=cache)
    held = holds(edited, found)
    assert data["bystanders"]["n"] == 3 and data["bystanders"]["after"] == sum(held) / 3
    assert data["damage"]["lost_bystanders"] == [f.prompt for f, h in zip(found, held, strict=True) if not h]
    again = evaluate(base, FACTS, edited={"adapter": em.with_patch(random_factors(em))}, cache=cache)
    assert "bystanders" not in again, "none were given"


def test_real_text_stands_beside_the_other(editable: Editable) -> None:
    em = editable("llama")
    rows = text_rows(em, SENTENCES[5:9])
    assert rows == [list(encode(em.tokenizer, text).ids) for text in SENTENCES[5:9]]
    edited = {"adapter": em.with_patch(random_factors(em, scale=0.3))}
    data = evaluate(em, FACTS[1:], edited=edited, rows=text_of(em), real=rows)
    own = data["real_text"]
    assert own["perplexity"]["n"] == sum(len(row) - 1 for row in rows)
    for told in (own, data):
        ratio = told["perplexity_after"] / told["perplexity_before"]
        assert told["perplexity_ratio"] == pytest.approx(ratio)
    assert own["perplexity_ratio"] != data["perplexity_ratio"]
    with pytest.raises(ConfigError, match="holds no text"):
        text_rows(em, ())


def test_nested_names() -> None:
    assert nested({"a": 1, "b/c": 2, "b/d/e": 3}) == {"a": 1, "b": {"c": 2, "d/e": 3}}
