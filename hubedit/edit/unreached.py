"""Answers that no change at the subject's last token brings, such as a name that the model has never written.

One vector there can call up an answer that the model knows. The tokens of a new name have to follow one
another too, and what does that stands at the answer's own tokens. So the factors get further right factors,
from the keys of those tokens, before they are polished; the closed form asks nothing of them. A fact is
unreached where the descent of its place (`places.py`) ended above `UNREACHED` nats a token, in the mean of
all that was to change there (docs/experiments.md).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubedit.edit.asked import Asked
from hubedit.edit.essence import ask
from hubedit.edit.polish import LOGITS
from hubedit.edit.rows import Row, Rows, bare_rows, by_length
from hubedit.edit.spread import KEY_TOKENS, Solution, Spreader
from hubedit.edit.targets import Targets
from hubedit.errors import TokenError
from hubedit.facts import Fact
from hubedit.linalg import KeySpace, LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.memory import fitting, pass_size
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation, decode, pad

UNREACHED = 0.5
"""Nats a token; what the descent reaches ends near 0.1 (`TargetConfig.loss`)."""
ENDS = 0.5
"""Least probability of what ends an answer now, so that it has to end the new one too."""


@dataclass(frozen=True)
class Widened:
    """`solution`: with more right factors; `owners`: the fact of every row of A, () where each has one."""

    solution: Solution
    owners: tuple[int, ...]


def unreached(targets: Targets, where: Sequence[int]) -> frozenset[int]:
    """The facts whose target the descent did not reach. `where`: each fact's place."""
    nll = targets.nll.tolist()
    return frozenset(n for n, place in enumerate(where) if not nll[place] <= UNREACHED)


@torch.no_grad()
def endings(em: EditableModel, facts: Sequence[Fact], rows: Sequence[Row]) -> dict[int, int]:
    """The token that the model sets behind a fact's old answer (`ground_truth`, else what it says itself),
    where it is sure of it and it begins no word: a new answer that is not told to end may run on."""
    bare = bare_rows(rows)
    asked = [n for n, fact in enumerate(facts) if not fact.ground_truth]
    said = dict(zip(asked, ask(em, [(facts[n].prompt, facts[n].subject) for n in asked]), strict=True))
    whole = []
    for n, fact in enumerate(facts):
        old = fact.ground_truth[0] if fact.ground_truth else said[n].answer
        try:
            answer = continuation(em.tokenizer, fact.prompt, old)
        except TokenError:  # an old answer is only told, and nobody has checked it
            continue
        # what is scored is the prediction behind the last token
        whole.append(Row(n, (*bare[n].ids[: bare[n].first_scored + 1], *answer), bare[n].last, (0,)))
    found: dict[int, int] = {}

    def work(part: list[Row]) -> None:
        rows = Rows.of(em, part)
        hidden = run(em, rows.batch, hidden=[em.num_layers - 1]).hidden[em.num_layers - 1]
        logits = em.head_logits(hidden[rows.scored_row, rows.scored_at]).float()
        best, token = logits.max(-1)
        sure = (best - logits.logsumexp(-1)).exp() >= ENDS
        for r, t, enough in zip(part, token.tolist(), sure.tolist(), strict=True):
            if enough and _ends(em, t):
                found[r.fact] = t

    vocabulary = em.model.config.get_text_config().vocab_size
    most = max(1, LOGITS // vocabulary)
    fitting(lambda budget: by_length(whole, budget, most), work, pass_size(em, KEY_TOKENS), em.device)
    return found


def _ends(em: EditableModel, token: int) -> bool:
    """Whether a token begins no word and no part of one: punctuation, a new line, the end of the text."""
    if token in em.eos_ids:
        return True
    text = decode(em.tokenizer, [token])
    first = text.strip(" ")[:1]
    # letters, marks that join them, numbers, halves of a character; a hyphen and an apostrophe go on
    return bool(first) and first not in "-'’_\ufffd" and unicodedata.category(first)[0] not in "LMN"


def to_the_end(asked: Asked, ends: Mapping[int, int]) -> Asked:
    """The same prompts, where targets, in the facts' own words and in others, go on to their ends."""
    target = {n: r.labels for n, r in bare_rows(asked.rows).items() if n in ends}

    def longer(rows: Sequence[Row]) -> tuple[Row, ...]:
        return tuple(
            replace(r, ids=(*r.ids, r.labels[-1]), labels=(*r.labels, ends[r.fact]))
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
