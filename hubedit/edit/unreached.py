"""Answers that no change at the subject's last token brings, such as a name that the model has never written.

One vector there can call up an answer that the model knows. The tokens of a new name have to follow one
another too, and what does that stands at the answer's own tokens. So the factors get further right factors,
from the keys of those tokens, before they are polished; the closed form asks nothing of them. A fact is
unreached where the descent of its place (`places.py`) ended above `UNREACHED` nats a token, in the mean of
all that was to change there (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubedit.edit.asked import Asked
from hubedit.edit.ends import ends, to_its_end
from hubedit.edit.essence import ask
from hubedit.edit.rows import Row, bare_rows
from hubedit.edit.spread import Solution, Spreader
from hubedit.edit.targets import Targets
from hubedit.errors import TokenError
from hubedit.facts import Fact
from hubedit.linalg import KeySpace, LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation, pad

UNREACHED = 0.5
"""Nats a token; what the descent reaches ends near 0.1 (`TargetConfig.loss`)."""


@dataclass(frozen=True)
class Widened:
    """`solution`: with more right factors; `owners`: the fact of every row of A, () where each has one."""

    solution: Solution
    owners: tuple[int, ...]


def unreached(targets: Targets, where: Sequence[int]) -> frozenset[int]:
    """The facts whose target the descent did not reach. `where`: each fact's place."""
    nll = targets.nll.tolist()
    return frozenset(n for n, place in enumerate(where) if not nll[place] <= UNREACHED)


def endings(em: EditableModel, facts: Sequence[Fact], rows: Sequence[Row]) -> dict[int, int]:
    """The token that ends a fact's old answer (`ground_truth`, else what the model says itself), where one
    does: a new answer that is not told to end may run on."""
    bare = bare_rows(rows)
    asked = [n for n, fact in enumerate(facts) if not fact.ground_truth]
    said = dict(zip(asked, ask(em, [(facts[n].prompt, facts[n].subject) for n in asked]), strict=True))
    whole = []
    for n, fact in enumerate(facts):
        old = fact.ground_truth[0] if fact.ground_truth else said[n].answer
        try:
            answer = continuation(em.tokenizer, fact.prompt, old, fact.join)
        except TokenError:  # an old answer is only told, and nobody has checked it
            continue
        prompt = bare[n].ids[: bare[n].first_scored + 1]
        whole.append(Row(n, (*prompt, *answer[:-1]), bare[n].last, answer))
    found = zip(whole, ends(em, whole), strict=True)
    return {r.fact: end for r, end in found if end is not None}


def to_the_end(asked: Asked, found: Mapping[int, int]) -> Asked:
    """The same prompts, where targets, in the facts' own words and in others, go on to their ends, which
    `endings` found."""
    target = {n: r.labels for n, r in bare_rows(asked.rows).items() if n in found}

    def longer(rows: Sequence[Row]) -> tuple[Row, ...]:
        return tuple(
            to_its_end(r, found[r.fact])
            if r.fact in target and r.labels == target[r.fact] and not r.preserve
            else r
            for r in rows
        )

    return replace(asked, rows=longer(asked.rows), told=longer(asked.told))


@torch.no_grad()
def widened(
    em: EditableModel, spreader: Spreader, solution: Solution, rows: Sequence[Row], hard: Collection[int]
) -> Widened:
    """Further right factors C^-1 k from the keys at the tokens that predict a hard fact's answer, in its own
    words, each as long as the others are in the mean; their left factors are 0."""
    bare = bare_rows(rows)
    keys: dict[Site, list[Tensor]] = {s: [] for s in solution.factors}
    owners: list[int] = list(range(spreader.count))
    for n in sorted(hard):
        r = bare[n]
        # at the subject's last token the fact has a row already
        first = max(r.first_scored, r.last + 1)
        found = run(em, pad([r.ids], em.pad_id, em.device), inputs=list(keys))
        for s, own in keys.items():
            own.append(found.inputs[s][0, first : len(r.ids)])
        owners += [n] * (len(r.ids) - first)
    if len(owners) == spreader.count:
        return Widened(solution, ())
    factors = {}
    for s, factor in solution.factors.items():
        preserved = spreader.preserved(s)
        dual = KeySpace.of(torch.cat(keys[s]).to(preserved.factor), preserved).dual
        length = factor.A.norm(dim=1).mean().to(dual) / dual.norm(dim=1, keepdim=True).clamp_min(1e-30)
        more = (dual * length).to(device="cpu", dtype=factor.A.dtype)
        factors[s] = factor + LowRank(torch.zeros(factor.B.shape[0], len(more)), more)
    return Widened(Solution(factors, solution.reports), tuple(owners))
