"""What an edit broke: facts that the rest of the batch spoils, and the worst cases of all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hubedit.evaluate.edits import Case, EditReport
from hubedit.evaluate.forced import forced
from hubedit.facts import Fact
from hubedit.facts.answers import clip, gives
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.forms import greedy_answers, put, worded
from hubedit.model.hooks import run
from hubedit.model.join import joins
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation, encode, pad
from hubedit.progress import Progress, track

MOST_TESTED = 200
"""Facts that fail are asked one at a time, at most this many."""

SUSPECTS = 3
WORST = 10


@dataclass(frozen=True)
class Parts:
    """Whose each row of a patch's factors is: `rows[site][r]` is an index into `facts`.

    A patch solved in closed form has one column of B and one row of A for each fact (see
    `hubedit.patch.owners`); a truncated one has mixed them, and has no parts.
    """

    facts: tuple[Fact, ...]
    rows: Mapping[Site, tuple[int, ...]]

    def of(self, factors: Mapping[Site, LowRank], wanted: Collection[int]) -> dict[Site, LowRank]:
        """The part of the patch that belongs to some of its facts."""
        found = {}
        for site, factor in factors.items():
            own = [r for r, fact in enumerate(self.rows[site]) if fact in wanted]
            found[site] = LowRank(factor.B[:, own], factor.A[own])
        return found


def broken_by_batch(
    edited: EditableModel, report: EditReport, parts: Parts, progress: Progress
) -> tuple[list[dict[str, Any]], int]:
    """Facts that succeed with their own part of the patch and fail with all of it; and how many were asked.

    `before` quotes the answer with that part alone, `after` the one with the whole patch. `by` names the
    fact whose part, when it alone is taken out of the patch, makes the fact succeed again: the three that
    write most strongly at the fact's prompt are tried.
    """
    place = {fact: number for number, fact in enumerate(parts.facts)}
    failed = [o for o in report.failed if o.fact in place][:MOST_TESTED]
    everyone = set(range(len(parts.facts)))
    base, change = edited.unpatched, edited.change
    found: list[dict[str, Any]] = []
    progress.start("facts broken by others", len(failed), "facts")
    for outcome in track(progress, failed):
        fact, own = outcome.fact, place[outcome.fact]
        alone = _says(base.with_patch(parts.of(change, {own})), fact)
        if not gives(alone, [fact.target]):
            continue
        case = {"fact": fact.id or fact.prompt, "prompt": fact.prompt, "before": clip(alone)}
        case["after"] = outcome.after
        for other in _suspects(edited, fact, own, parts):
            without = base.with_patch(parts.of(change, everyone - {other}))
            if gives(_says(without, fact), [fact.target]):
                case["by"] = parts.facts[other].id or parts.facts[other].prompt
                break
        found.append(case)
    progress.finish(f"{len(found)} of {len(failed)}")
    return found, len(failed)


def worst(
    before: EditableModel, after: EditableModel, report: EditReport, count: int = WORST
) -> list[dict[str, Any]]:
    """The worst of what the edit got wrong, the worst first; texts are quoted, `loss` is in nats a token.

    Where an answer should have stayed (and what follows from the edit was answered before): by how much
    less likely the answer before has become. Where the new answer should be given: its negative
    log-likelihood after the edit.
    """
    cases = [(case, answer) for case in report.cases if (answer := _wanted(case))]
    pairs = [(_text(before, case), answer) for case, answer in cases]
    given = {} if before.chat is not None else joins(case.fact for case, _ in cases)
    new = forced(after, pairs, joins=given)
    kept = [pair for (case, _), pair in zip(cases, pairs, strict=True) if not _edited(case)]
    old = forced(before, kept, joins=given)
    scored: list[tuple[float, Case]] = []
    for (case, _), pair in zip(cases, pairs, strict=True):
        if pair not in new or (not _edited(case) and pair not in old):
            continue
        loss = -new[pair].logp if _edited(case) else old[pair].logp - new[pair].logp
        # a model that gives NaN is the worst there is, but NaN is no JSON
        if loss == loss:
            scored.append((loss, case))
    scored.sort(key=lambda pair: -pair[0])
    return [{"kind": case.kind, **case.to_json(), "loss": loss} for loss, case in scored[:count]]


def _edited(case: Case) -> bool:
    return case.kind in ("success", "generalisation")


def _wanted(case: Case) -> str:
    """The answer that is scored; "" where nothing was lost."""
    if _edited(case):
        return case.answers[0]
    given = next((answer for answer in case.answers if gives(case.before, [answer])), "")
    return given if case.kind == "portability" else given or clip(case.before)


def _text(em: EditableModel, case: Case) -> str:
    """The case's prompt as the model gets it."""
    own = case.prompt == case.fact.prompt
    return put(em, case.fact)[0] if own else worded(em, case.prompt)


def _says(em: EditableModel, fact: Fact) -> str:
    prompt, join = put(em, fact)
    target = continuation(em.tokenizer, prompt, fact.target, join)
    return greedy_answers(em, [(fact.prompt, prompt)], len(target) + 4)[0]


@torch.no_grad()
def _suspects(em: EditableModel, fact: Fact, own: int, parts: Parts) -> list[int]:
    """The other facts whose rows write most at the prompt: |B_j| |A_j . k|, the largest over the prompt's
    tokens, added over the sites."""
    change = em.change
    batch = pad([encode(em.tokenizer, put(em, fact)[0]).ids], em.pad_id, em.device)
    inputs = run(em, batch, inputs=list(change)).inputs
    total = torch.zeros(len(parts.facts), device=em.device)
    for site, factor in change.items():
        response = (inputs[site][0].float() @ factor.A.T.float()).abs().amax(0)
        owner = torch.tensor(parts.rows[site], dtype=torch.long, device=total.device)
        total.index_add_(0, owner, response * factor.B.float().norm(dim=0))
    total[own] = 0
    best = total.argsort(descending=True)[:SUSPECTS].tolist()
    return [int(i) for i in best if total[i] > 0]
