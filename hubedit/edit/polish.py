"""The last mile: the left factors descend on what the edit is judged by, through the whole model.

A target is found at one layer, for one fact at a time, and the closed form spreads it with an eye on the
corpus; between the two some of every fact is lost, and some of its neighbours. Here all prompts come
together: what must give an answer (negative log-likelihood), and what must stay (KL to the unedited model:
other beliefs about the subjects, beliefs about other subjects, text). The right factors stay, so the rank
does not grow. In coordinates P = B (A C A^T)^1/2 the predicted drift tr(dW C dW^T) is |P|^2: a step of one
length costs the same drift in every direction, and |P| is kept within the length that the drift budget
allows. Like ending a closed-form initialisation with a few steps of low-rank fine-tuning (LoRA, Hu et al.
2022), in the metric of MEMIT's objective.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hubedit.edit.asked import Asked
from hubedit.edit.rows import OTHER, Row, Rows, bare_rows, by_length
from hubedit.edit.spread import Solution, Spreader
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.memory import fitting, pass_size, positions
from hubedit.model.sites import Site
from hubedit.progress import Progress

TOKENS = 4096
"""Most padded tokens of a pass; all activations above the first edited layer are kept for the gradient."""
STEP_TOKENS = 16384
"""Tokens of all prompts in one step; of a larger batch every step takes another part."""
STEPS_WORTH = 3
"""Where all prompts are more than so many steps hold, there are as many times more steps: 500 edits need them
(docs/experiments.md)."""
SHORT = 2
"""Times as many steps where a step could hold so many times the prompts; what stays is then learnt better
(docs/experiments.md)."""
MOST = 0.9
"""Share of the objective whose rows are in every step. The others take turns, without a larger weight: what
is nearly met counts for less than the objective says (docs/experiments.md)."""
TURNS = 4
TEXT_ROWS = 24
KEPT = 2**27
"""Numbers of the unedited model's predictions that are kept from step to step; more are made again."""
RATE = 0.08
"""Length of the first step of every coordinate, relative to the root mean square of P."""
FIRST, SECOND = 0.8, 0.95
"""Decay of the mean gradient and of its mean square (Adam's)."""
SLIGHT = 1e-3
"""Coordinates with less than this share of the root mean square gradient move less."""
REWORDED = 2.0
"""Weight of other phrasings and what follows, and of the prompts after other sentences, beside the bare
prompts and each thing that stays."""

IN_CONTEXT = 2
"""Prompts of a fact after other sentences; all of `targets.contexts` take longer and bring little more
(docs/experiments.md)."""


def polish(
    em: EditableModel,
    spreader: Spreader,
    solution: Solution,
    asked: Asked,
    steps: int,
    progress: Progress,
    spend: float = 1.0,
) -> Solution:
    """A solution with the same right factors whose left factors have descended `steps` times. `spend`: how
    many times its predicted drift it may have."""
    groups = weighted(asked)
    roots = {s: _root(spreader, s, f) for s, f in solution.factors.items()}
    inverse = {s: torch.linalg.inv(r).float().to(em.device) for s, r in roots.items()}
    right = {s: f.A.to(em.device) for s, f in solution.factors.items()}
    points = {s: (f.B.to(roots[s]) @ roots[s]).float().to(em.device) for s, f in solution.factors.items()}
    sizes = {s: float(p.norm()) * math.sqrt(spend) for s, p in points.items()}
    mean = {s: torch.zeros_like(p) for s, p in points.items()}
    square = {s: torch.zeros_like(p) for s, p in points.items()}
    clean: dict[int, Tensor] = {}
    losses: dict[int, float] = {}
    for step in range(steps):
        rows = _part(groups, step, losses)
        gradients = _gradients(em, rows, points, inverse, right, clean, losses)
        pace = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        for s, p in points.items():
            g = gradients[s]
            mean[s].mul_(FIRST).add_(g, alpha=1 - FIRST)
            square[s].mul_(SECOND).addcmul_(g, g, value=1 - SECOND)
            spread = (square[s] / (1 - SECOND ** (step + 1))).sqrt()
            move = mean[s] / (spread + SLIGHT * float(spread.square().mean().sqrt()))
            length = float(move.square().mean().sqrt())
            if length > 0:
                p.sub_(move, alpha=pace * sizes[s] / math.sqrt(p.numel()) / length)
                p.mul_(min(1.0, sizes[s] / max(float(p.norm()), 1e-30)))
        progress.advance()
    factors = {s: LowRank((p @ inverse[s]).cpu(), solution.factors[s].A) for s, p in points.items()}
    return Solution(factors, spreader.reports(factors, solution))


def steps_for(asked: Asked, steps: int) -> int:
    """`steps`, or more for a batch of which each sees a small part, and for one whose steps are short."""
    tokens = sum(len(r.ids) for rows, _ in weighted(asked) for r in rows)
    short = min(SHORT, STEP_TOKENS / max(tokens, 1))
    return math.ceil(steps * max(1.0, short, tokens / (STEPS_WORTH * STEP_TOKENS)))


def weighted(asked: Asked) -> tuple[tuple[tuple[Row, ...], float], ...]:
    """The prompts in groups; the mean over a group counts with its weight. What must change weighs more, or
    less, as the user prefers; by the root, for the gradient answers to it more sharply than the score."""
    change = math.sqrt(asked.probes.weight)
    bare = bare_rows(asked.rows)
    text = tuple(
        Row(OTHER, tuple(ids[:-1]), 0, tuple(ids[1:]), preserve=True)
        for ids in asked.probes.text[:TEXT_ROWS]
        if len(ids) > 1
    )
    groups = (
        (tuple(bare[n] for n in sorted(bare)), change),
        (asked.told, REWORDED * change),
        (_after_sentences(asked.rows, bare), REWORDED * change),
        (asked.preserved, 1.0),
        (asked.others, 1.0),
        (text, 1.0),
    )
    return tuple((rows, weight) for rows, weight in groups if rows)


def _after_sentences(rows: Sequence[Row], bare: Mapping[int, Row]) -> tuple[Row, ...]:
    """`IN_CONTEXT` of each fact's prompts after another sentence, which changes the keys: what only the bare
    prompt is held to is lost there. Each fact begins one later, so that every sentence has its turn."""
    after: dict[int, list[Row]] = {n: [] for n in sorted(bare)}
    for r in rows:
        if r is not bare[r.fact]:
            after[r.fact].append(r)
    return tuple(
        own[(n + k) % len(own)] for n, own in after.items() for k in range(min(IN_CONTEXT, len(own)))
    )


def _part(
    groups: Sequence[tuple[tuple[Row, ...], float]], step: int, losses: Mapping[int, float]
) -> list[tuple[Row, float]]:
    """The step's rows with their weights: those that made up `MOST` of the objective when they were last
    seen, and every `TURNS`-th of the others; of more than a step may hold, a random part of every group
    that weighs as much as all of it."""
    each = [(r, weight / len(rows)) for rows, weight in groups for r in rows]
    heavy = sorted((r for r in each if id(r[0]) in losses), key=lambda r: -r[1] * losses[id(r[0])])
    left = MOST * sum(w * losses[id(r)] for r, w in heavy)
    taken = {id(r) for r, _ in each if id(r) not in losses}
    for r, w in heavy:
        if left <= 0:
            break
        taken.add(id(r))
        left -= w * losses[id(r)]
    some = [item for i, item in enumerate(each) if id(item[0]) in taken or i % TURNS == step % TURNS]
    share = STEP_TOKENS / max(sum(len(r.ids) for r, _ in some), 1)
    if share >= 1:
        return some
    wanted, drawn = {id(r) for r, _ in some}, []
    for rows, weight in groups:
        own = [r for r in rows if id(r) in wanted]
        part = random.Random(f"polish/{step}").sample(own, max(1, round(share * len(own)))) if own else []
        drawn += [(r, weight / len(rows) * len(own) / len(part)) for r in part]
    return drawn


def _gradients(
    em: EditableModel,
    rows: Sequence[tuple[Row, float]],
    points: Mapping[Site, Tensor],
    inverse: Mapping[Site, Tensor],
    right: Mapping[Site, Tensor],
    clean: dict[int, Tensor],
    losses: dict[int, float],
) -> dict[Site, Tensor]:
    """The gradient of the weighted objective in P, of every site; `losses` learns each row's own loss."""
    weight = {id(r): w for r, w in rows}
    left = {s: p @ inverse[s] for s, p in points.items()}
    total = {s: torch.zeros_like(b) for s, b in left.items()}

    def work(part: list[Row]) -> None:
        tensors = Rows.of(em, part)
        reference = _reference(em, part, tensors, clean)
        leaves = {s: b.clone().requires_grad_() for s, b in left.items()}
        with applied(em, {s: LowRank(b, right[s]) for s, b in leaves.items()}):
            each = _losses(em, part, tensors, reference)
        loss = (each * torch.tensor([weight[id(r)] for r in part], device=em.device)).sum()
        for s, g in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
            total[s] += g
        losses.update(zip(map(id, part), each.tolist(), strict=True))

    tokens, scored = pass_size(em, TOKENS), positions(em)
    fitting(lambda budget: by_length([r for r, _ in rows], budget, scored), work, tokens, em.device)
    return {s: g @ inverse[s].T for s, g in total.items()}


@torch.no_grad()
def _reference(em: EditableModel, part: Sequence[Row], rows: Rows, clean: dict[int, Tensor]) -> Tensor | None:
    """Log-probabilities of the unedited model where predictions stay, (positions, vocabulary)."""
    kept = [r for r in part if r.preserve]
    if not kept:
        return None
    if all(id(r) in clean for r in kept):
        return torch.cat([clean[id(r)] for r in kept])
    found = _log_probabilities(em, rows)[rows.preserve[rows.scored_row]]
    if sum(t.numel() for t in clean.values()) + found.numel() <= KEPT:
        at = 0
        for r in kept:
            clean[id(r)] = found[at : at + len(r.labels)]
            at += len(r.labels)
    return found


def _losses(em: EditableModel, part: Sequence[Row], rows: Rows, reference: Tensor | None) -> Tensor:
    """Of each row the mean over its positions: (rows,)."""
    logp = _log_probabilities(em, rows)
    each = -logp.gather(1, rows.label[:, None])[:, 0]
    if reference is not None:
        stays = rows.preserve[rows.scored_row]
        each = each.masked_scatter(stays, (reference.exp() * (reference - logp[stays])).sum(-1))
    lengths = torch.bincount(rows.scored_row, minlength=len(part))
    zeros = torch.zeros(len(part), device=em.device)
    return zeros.index_add(0, rows.scored_row, each / lengths[rows.scored_row])


def _log_probabilities(em: EditableModel, rows: Rows) -> Tensor:
    result: Tensor = rows.logits(em).float().log_softmax(-1)
    return result


def _root(spreader: Spreader, site: Site, factor: LowRank) -> Tensor:
    """(r, r) lower triangular R with R R^T = A C A^T, float64, on the CPU."""
    half = spreader.whitened(site, factor)
    gram = (half @ half.T).cpu()
    # facts with the same key make it singular
    gram.diagonal().add_(1e-6 * float(gram.diagonal().mean()))
    root: Tensor = torch.linalg.cholesky(gram)
    return root
