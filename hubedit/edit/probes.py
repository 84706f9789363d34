"""Probes: prompts that hubedit asks by itself to judge an edit, none of them the user's test prompts.

A row is a hit when the model's most likely token is the label at every scored position, which is when
greedy generation gives exactly the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubedit.edit.rows import Row, Rows, by_length
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.memory import TokenBudget, fitting, pass_size
from hubedit.model.tokens import pad

PROBE_TOKENS = 8192
"""Most padded tokens of a pass."""

WORTH = 0.98
"""Share of the score that must be kept where more facts succeed."""

PREFER = {"success": 4.0, "balanced": 1.0, "locality": 0.25}
"""Weight of the success probes in the score, where each kind of what stays has 1, by `EditConfig.prefer`."""


@dataclass(frozen=True)
class Probes:
    """`success`: rows that must give the target; `locality`: rows that must give what the model said
    before about the edited subjects; `others`: the same about others; `text`: token rows of the
    statistics corpus; `weight`: of success in the score, against 1 for each of the three others."""

    success: tuple[Row, ...]
    locality: tuple[Row, ...]
    others: tuple[Row, ...]
    text: tuple[tuple[int, ...], ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Judgement:
    """Shares 0..1 of probes met (None: no such probe); `text`: confident predictions on the corpus text
    that stayed the same; `facts`: per fact, the share of its success rows met; `weight`: of success in the
    score, against 1 for each of the others."""

    success: float | None
    locality: float | None
    others: float | None
    text: float | None
    facts: tuple[float, ...]
    weight: float = 1.0

    @property
    def score(self) -> float:
        """Weighted harmonic mean of what was measured; 0 when one of them is 0.

        The text counts by its cube: most sure predictions are grammar, which an edit hardly moves, and the
        cube is about what remains of other subjects' facts (docs/experiments.md).
        """
        text = None if self.text is None else self.text**3
        pairs = ((self.success, self.weight), (self.locality, 1.0), (self.others, 1.0), (text, 1.0))
        known = [(v, w) for v, w in pairs if v is not None]
        if not known or min(v for v, _ in known) <= 0:
            return 0.0
        return sum(w for _, w in known) / sum(w / v for v, w in known)

    @property
    def rank(self) -> tuple[float, float]:
        """Its score, and among those with a score of 0 the success."""
        return self.score, self.success or 0.0

    def affords(self, before: Judgement) -> bool:
        """Whether it has lost little enough to be taken for more facts."""
        return self.score >= WORTH * before.score


def preferring(probes: Probes, prefer: str) -> Probes:
    """The probes with success weighed as `EditConfig.prefer` says. Raises ConfigError for another name."""
    if prefer not in PREFER:
        raise ConfigError(f"unknown preference {prefer!r}", f"one of: {', '.join(PREFER)}")
    return replace(probes, weight=PREFER[prefer])


@torch.no_grad()
def hits(em: EditableModel, rows: Sequence[Row]) -> list[bool]:
    """For each row, whether greedy decoding gives its labels."""
    places: dict[int, list[int]] = {}
    for i, r in enumerate(rows):
        places.setdefault(id(r), []).append(i)
    result = [False] * len(rows)

    def work(part: list[Row]) -> None:
        tensors = Rows.of(em, part)
        said = tensors.logits(em).argmax(-1)
        wrong = torch.zeros(len(part), dtype=torch.long, device=em.device)
        wrong.index_add_(0, tensors.scored_row, (said != tensors.label).long())
        for r, w in zip(part, wrong.tolist(), strict=True):
            for i in places[id(r)]:
                result[i] = w == 0

    fitting(lambda budget: by_length(rows, budget), work, pass_size(em, PROBE_TOKENS), em.device)
    return result


@dataclass(frozen=True)
class TextState:
    """The model's predictions on corpus text: the likely next token at every position where it is sure
    (probability of at least one half), -1 elsewhere; and the mean negative log-likelihood."""

    tokens: tuple[Tensor, ...]
    nll: float

    def agreement(self, other: TextState) -> float | None:
        """Share of the sure predictions that `other` keeps; None when there are none."""
        same = total = 0
        for mine, theirs in zip(self.tokens, other.tokens, strict=True):
            sure = mine >= 0
            total += int(sure.sum())
            said = theirs.where(theirs >= 0, -2 - theirs)
            same += int((mine[sure] == said[sure]).sum())
        return same / total if total else None


@torch.no_grad()
def read_text(em: EditableModel, rows: Sequence[Sequence[int]]) -> TextState:
    """The state of the model on token rows. Unsure predictions are stored as -2 - token."""
    tokens: dict[int, Tensor] = {}
    total, number = 0.0, 0
    last = em.num_layers - 1
    budget = TokenBudget(em.device, pass_size(em, PROBE_TOKENS))
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
    lengths = [len(rows[n]) for n in order]
    at = 0
    while at < len(order):
        end = budget.take(lengths, at)
        part, at = order[at:end], end
        batch = pad([rows[n] for n in part], em.pad_id, em.device)
        hidden = run(em, batch, hidden=[last]).hidden[last]
        for k, n in enumerate(part):
            ids = rows[n]
            logp = em.head_logits(hidden[k, : len(ids) - 1]).float().log_softmax(-1)
            best = logp.max(-1)
            sure = best.values.exp() >= 0.5
            tokens[n] = best.indices.where(sure, -2 - best.indices).cpu()
            label = torch.tensor(list(ids[1:]), device=em.device)
            total -= float(logp.gather(1, label[:, None]).sum())
            number += len(ids) - 1
    return TextState(tuple(tokens[n] for n in range(len(rows))), total / max(number, 1))


def judge(em: EditableModel, probes: Probes, clean: TextState, count: int) -> Judgement:
    """What the model as it is now (inside `applied`) makes of the probes of `count` facts."""
    met = hits(em, probes.success)
    per_fact: list[list[bool]] = [[] for _ in range(count)]
    for r, hit in zip(probes.success, met, strict=True):
        per_fact[r.fact].append(hit)
    facts = tuple(sum(f) / len(f) if f else 0.0 for f in per_fact)
    return Judgement(
        sum(facts) / len(facts) if facts else None,
        _share(hits(em, probes.locality)),
        _share(hits(em, probes.others)),
        clean.agreement(read_text(em, probes.text)) if probes.text else None,
        facts,
        probes.weight,
    )


def _share(met: Sequence[bool]) -> float | None:
    return sum(met) / len(met) if met else None
