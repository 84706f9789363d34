"""Causal tracing: which layers' attention and MLP outputs carry the answer (Meng et al. 2022, section 2).

Every fact is run clean, with noise on its subject's embeddings, and with noise but one module's output
put back; the answer's recovery is that module's indirect effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from hubedit.cache import Cache, digest
from hubedit.config import TraceConfig
from hubedit.edit.locate.causal import (
    clean_runs,
    corrupted_runs,
    measures,
    restored_logits,
    subject_deviation,
)
from hubedit.edit.locate.trace_result import CATEGORIES, KINDS, TraceResult
from hubedit.errors import HubEditError
from hubedit.facts.types import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.forms import greedy_answers, put
from hubedit.model.memory import TokenBudget
from hubedit.model.memory import positions as scored_at_once
from hubedit.model.sites import Site
from hubedit.model.tokens import Prompt, continuation, locate
from hubedit.parallel import Share, summed
from hubedit.progress import Progress, Silent

_FORMAT = 1  # goes up when a change here gives other numbers for the same inputs
_FEW = 10  # facts below which the averages are called uncertain
_LONGEST = 32  # tokens of an answer that are generated at most


def trace(
    em: EditableModel, facts: Sequence[Fact], config: TraceConfig, cache: Cache, progress: Progress
) -> TraceResult:
    """Indirect effects of every layer's attention and MLP, averaged over the facts that it answers
    rightly; where it answers none so, over whatever it says, with a message.

    Raises HubEditError when it answers none of the facts at all.
    """
    key = trace_key(em, facts, config)
    entry = cache.load("trace", key)
    if entry is not None:
        return TraceResult.from_json(entry.record["trace"])
    prompts, checked, known = _known(em, facts, config.max_facts, progress)
    prompts = prompts[: config.max_facts]
    if 0 < known < min(_FEW, len(facts)):
        progress.message(
            f"the model answers only {known} of {checked} facts with their ground truth (or, without "
            "one, with anything): the trace is uncertain; more facts, or --layers and --alpha, would help"
        )
    progress.start("tracing", len(prompts), "facts")
    scale = config.noise * subject_deviation(em, prompts)
    found = summed(_effects, em, prompts, config, scale, progress=progress)
    effects, totals = found["effects"], found["totals"]
    summary = _summary(em, prompts, config, effects, totals)
    result = TraceResult(
        **summary,
        noise=scale,
        facts=len(facts),
        checked=checked,
        known=known,
        traced=len(prompts),
        model=em.ref,
        commit=em.commit,
        dtype=str(em.dtype).removeprefix("torch."),
        config=config,
    )
    cache.save("trace", key, {"effects": effects}, {"trace": result.to_json()})
    progress.finish(f"{result.traced} facts, total effect {result.total_effect:.3f}")
    return result


def trace_key(em: EditableModel, facts: Sequence[Fact], config: TraceConfig) -> dict[str, Any]:
    """Every input a trace depends on. The targets of the facts are none of them."""
    inputs = [[put(em, fact)[0], fact.subject, list(fact.ground_truth)] for fact in facts]
    return {
        "format": [_FORMAT, _LONGEST],
        "model": em.identity,
        "dtype": str(em.dtype),
        "facts": digest(inputs),
        "config": asdict(config),
    }


def _known(
    em: EditableModel, facts: Sequence[Fact], limit: int, progress: Progress
) -> tuple[list[Prompt], int, int]:
    """Prompts to trace, those the model answers rightly, in order; how many facts were asked until there were
    `limit`; how many of them are so.

    Right is a greedy answer that starts with a ground truth; where a fact has none, any answer is
    what the model knows.
    """
    unique = list({(f.prompt, f.subject): f for f in facts}.values())
    prompts: list[Prompt] = []
    others: list[Prompt] = []
    checked = 0
    progress.start("asking the model", len(unique), "facts")
    while checked < len(unique) and len(prompts) < limit:
        part = unique[checked : checked + 2 * limit]
        texts = [put(em, f) for f in part]
        lengths = [
            len(continuation(em.tokenizer, prompt, answer, join))
            for fact, (prompt, join) in zip(part, texts, strict=True)
            for answer in fact.ground_truth
            if answer.strip()
        ]
        pairs = [(fact.prompt, prompt) for fact, (prompt, _) in zip(part, texts, strict=True)]
        answers = greedy_answers(em, pairs, min(_LONGEST, max(lengths, default=0) + 2))
        for fact, (_, prompt), text in zip(part, pairs, answers, strict=True):
            truths = [a.strip() for a in fact.ground_truth if a.strip()]
            if text.strip():
                right = not truths or text.strip().startswith(tuple(truths))
                (prompts if right else others).append(locate(em.tokenizer, prompt, fact.subject))
        checked += len(part)
        progress.advance(len(part))
    known = len(prompts)
    if not prompts:
        # a maintainer may be wrong about what the model says; where it says it is found all the same
        progress.message(
            f"none of {checked} facts is answered with its ground_truth: what the model says is traced"
        )
        prompts = others[:limit]
    if not prompts:
        raise HubEditError(
            f"causal tracing found none of {checked} facts that the model answers at all",
            "give --layers and --alpha",
        )
    progress.finish(f"{known} of {checked} known")
    return prompts, checked, known


def _positions(prompt: Prompt, config: TraceConfig) -> range:
    """The tokens whose clean outputs are put back. What stands before the subject is not corrupted."""
    if config.tokens == "all":
        return range(prompt.first, len(prompt.ids))
    return range(prompt.last, prompt.last + 1)


def _window(layer: int, config: TraceConfig, layers: int) -> range:
    half = config.window // 2
    return range(max(0, layer - half), min(layers, layer + half + 1))


def _effects(
    em: EditableModel,
    share: Share,
    prompts: Sequence[Prompt],
    config: TraceConfig,
    scale: float,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Effects (facts, positions, kinds, layers, measures) and totals (facts, clean | corrupted, measures).

    Both are averages over the noise samples; positions beyond a fact's own, and the facts of other processes,
    hold zeros.
    """
    progress = progress or Silent()
    positions = max(len(_positions(p, config)) for p in prompts)
    effects = torch.zeros(len(prompts), positions, len(KINDS), em.num_layers, 2, dtype=torch.float64)
    totals = torch.zeros(len(prompts), 2, 2, dtype=torch.float64)
    order = share.of(sorted(range(len(prompts)), key=lambda i: -len(prompts[i].ids)))
    rows = [(i, sample) for i in order for sample in range(config.samples)]
    lengths = [len(prompts[i].ids) for i, _ in rows]
    budget, done = TokenBudget(em.device), 0
    while done < len(rows):
        end = min(budget.take(lengths, done), done + scored_at_once(em))
        part = rows[done:end]
        try:
            found = _chunk(em, prompts, part, config, scale, positions)
        except RuntimeError as error:
            budget.shrink(error, len(part), lengths[done])
            continue
        for (i, _), total, effect in zip(part, *found, strict=True):
            totals[i] += total / config.samples
            effects[i] += effect / config.samples
        progress.advance(share.size * (end // config.samples - done // config.samples))
        done = end
    return {"effects": effects, "totals": totals}


def _chunk(
    em: EditableModel,
    prompts: Sequence[Prompt],
    rows: Sequence[tuple[int, int]],
    config: TraceConfig,
    scale: float,
    positions: int,
) -> tuple[Tensor, Tensor]:
    """Totals (rows, 2, 2) and effects (rows, positions, kinds, layers, 2) of (fact, noise sample) rows."""
    used = sorted({i for i, _ in rows})
    own = [prompts[i] for i in used]
    clean = clean_runs(em, own)
    runs = corrupted_runs(em, own, clean, [(used.index(i), s) for i, s in rows], scale, config.seed)
    answer = clean.answer[runs.fact]
    before = measures(runs.logits, answer, runs.foil)
    totals = torch.stack([measures(clean.logits[runs.fact], answer, runs.foil), before], 1)
    effects = torch.zeros(len(rows), positions, len(KINDS), em.num_layers, 2, dtype=torch.float64)
    for at, kind, layer, place in _interventions(em, prompts, rows, config, positions):
        sites = [Site(number, kind) for number in _window(layer, config, em.num_layers)]
        after = measures(restored_logits(em, runs, sites, place), answer, runs.foil)
        effects[:, at, KINDS.index(kind), layer] = (after - before) * (place >= 0).cpu()[:, None]
    return totals, effects


def _interventions(
    em: EditableModel,
    prompts: Sequence[Prompt],
    rows: Sequence[tuple[int, int]],
    config: TraceConfig,
    positions: int,
) -> Iterator[tuple[int, Any, int, Tensor]]:
    """(number of the place, kind, layer, token of every row or -1) of all restored runs."""
    own = [_positions(prompts[i], config) for i, _ in rows]
    for at in range(positions):
        place = torch.tensor([r[at] if at < len(r) else -1 for r in own], device=em.device)
        if not bool((place >= 0).any()):
            return
        for kind in KINDS:
            for layer in range(em.num_layers):
                yield at, kind, layer, place


def category(prompt: Prompt, token: int) -> str:
    """The heat map's row of a token at or behind the subject's first one."""
    if token == prompt.last:
        return "last subject token"
    if token < prompt.last:
        return "first subject token" if token == prompt.first else "middle subject tokens"
    if token == len(prompt.ids) - 1:
        return "last token"
    return "first token after" if token == prompt.last + 1 else "further tokens"


def _summary(
    em: EditableModel, prompts: Sequence[Prompt], config: TraceConfig, effects: Tensor, totals: Tensor
) -> dict[str, Any]:
    """The averages over facts, as the fields of TraceResult."""
    subject = torch.stack([effects[i, _positions(p, config).index(p.last)] for i, p in enumerate(prompts)])
    mean = subject.mean(0)
    spread = subject.std(0) if len(prompts) > 1 else torch.zeros_like(mean)
    error = spread / len(prompts) ** 0.5
    average = totals.mean(0).tolist()
    curves = {
        f"{name}_{measure}": {kind: tuple(values[k, :, m].tolist()) for k, kind in enumerate(KINDS)}
        for name, values in (("ie", mean), ("se", error))
        for m, measure in enumerate(("prob", "logit"))
    }
    heat = _heat(prompts, config, effects) if config.tokens == "all" else {"heat_prob": {}, "heat_logit": {}}
    return {
        "layers": tuple(range(em.num_layers)),
        **curves,
        **heat,
        "prob_clean": average[0][0],
        "logit_clean": average[0][1],
        "prob_corrupted": average[1][0],
        "logit_corrupted": average[1][1],
    }


def _heat(prompts: Sequence[Prompt], config: TraceConfig, effects: Tensor) -> Mapping[str, Any]:
    """Averages by category: over a fact's tokens first, then over the facts that have such tokens."""
    groups: dict[str, list[Tensor]] = {name: [] for name in CATEGORIES}
    for i, prompt in enumerate(prompts):
        own: dict[str, list[Tensor]] = {}
        for at, token in enumerate(_positions(prompt, config)):
            own.setdefault(category(prompt, token), []).append(effects[i, at])
        for name, values in own.items():
            groups[name].append(torch.stack(values).mean(0))
    means = [torch.stack(groups[name]).mean(0) if groups[name] else None for name in CATEGORIES]
    nothing = (None,) * effects.shape[3]
    return {
        f"heat_{measure}": {
            kind: tuple(nothing if x is None else tuple(x[k, :, m].tolist()) for x in means)
            for k, kind in enumerate(KINDS)
        }
        for m, measure in enumerate(("prob", "logit"))
    }
