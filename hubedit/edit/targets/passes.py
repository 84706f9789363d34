"""The rows of a batch of facts as a few forward passes, each over rows of about one length.

What changes stands at the subject's last token: the residual stream after layer L (MEMIT), or what one site
writes into it. Only the layers from there on run, and only the tokens from that one on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hubedit.edit.rows import Row
from hubedit.edit.targets.head import WHOLE, Head, likeliest
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import behind, keeping
from hubedit.model.memory import CPU_PASS, free_memory, pass_size, positions
from hubedit.model.sites import Site
from hubedit.model.tail import Tail, opening

GRADIENT_PASS = 512
"""Padded tail tokens of a pass on a CPU: what a block keeps for its gradient then stays near the core, and
larger passes are a little slower on small models (docs/experiments.md)."""
_ALIKE = 4  # rows with one beginning that are worth a pass of their own
_SHORT = 256  # tokens of a row up to which attention's scores are no matter for memory
_DROP = 0.85  # a pass is cut down when a smaller share of its rows belongs to facts that are not done


@dataclass(frozen=True)
class Pass:
    """Rows that go through the upper layers together, with everything that does not change while delta does.

    `rows` (b); `owner` (b,): each row's fact, as a row of delta. Scored positions, those of edit rows
    first: `row`, `column` (of the tail), `label` and `weight` (s,); `edits`: how many belong to edit rows;
    `original` (s - edits, columns): the model's own log-probabilities at the others; `head`: which columns
    the predictions have. `site`: whose output delta is added to, None for the residual stream where the tail
    begins; `size` (b,): the norm of that at the subject's last token; `model`: which the tail runs through,
    with the updates of the sites before.

    Where a site's pass sees a part of the vocabulary (`entries`), the first evaluation chooses it; until
    then `head` is None, `label` are tokens and `original` (s - edits, d) is what the head reads.
    """

    model: EditableModel
    rows: tuple[Row, ...]
    tail: Tail
    owner: Tensor
    row: Tensor
    column: Tensor
    label: Tensor
    weight: Tensor
    edits: int
    original: Tensor
    head: Head | None
    size: Tensor
    site: Site | None = None
    entries: int = 0

    def _final(self, delta: Tensor) -> Tensor:
        """The residual stream after the last block at the scored positions, (s, d), with delta (n, d) added
        at every row's subject."""
        hidden, at = self.tail.hidden, self.tail.start

        def moved(given: Tensor) -> Tensor:
            # a tail starts with the subject's last token
            there = (given[:, at : at + 1].float() + delta[self.owner][:, None]).to(given.dtype)
            return torch.cat([given[:, :at], there, given[:, at + 1 :]], 1)

        def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return moved(output)

        with self._attention():
            if self.site is None:
                return self.tail.run(self.model, moved(hidden), self.row, self.column)
            with behind(self.model.site(self.site), add):
                last = self.site.layer == self.model.num_layers - 1
                return self.tail.run(self.model, hidden, self.row, self.column, whole=last)

    def _attention(self) -> AbstractContextManager[Any]:
        """Plain products for attention where that is faster: on a CPU the fused kernel's gradient costs more
        than all products of a block together; but plain ones keep a score for each pair of tokens."""
        short = self.tail.mask.shape[1] <= _SHORT
        plain = short and self.tail.mask.device.type == "cpu"
        return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()

    def objective(
        self, delta: Tensor, weight: float, reverse: bool = False, *, gradient: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What these rows add to every fact's mean nll and mean KL, (n,) each, and with `gradient` that of
        nll + `weight` * KL in delta (n, d), float32. The KL is of (original || edited), with `reverse` of
        (edited || original)."""
        assert self.head is not None, "evaluated by `first`"
        leaf = delta.detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            logits = self.head.logits(self.model, self._final(leaf))
        return self._terms(logits, leaf, weight, reverse, gradient)

    def first(
        self, delta: Tensor, weight: float, reverse: bool = False
    ) -> tuple[Pass, tuple[Tensor, Tensor, Tensor | None]]:
        """The pass with its columns chosen from what it predicts with `delta`, and its objective there."""
        assert self.site is not None
        leaf = delta.detach().requires_grad_()
        found: dict[Any, Tensor] = {}
        with torch.enable_grad(), keeping(self.model.site(self.site), found, self.site):
            final = self._final(leaf)
        with torch.no_grad():
            size = found[self.site][:, self.tail.start].float().norm(dim=1)
            # detached: FlopCounterMode (tests/benchmarks/profile.py) fails on a view of what has a gradient
            head = likeliest(self.model, final.detach(), self.label, self.entries)
            own = self.model.head_logits(self.original).float().log_softmax(-1)
            original = head.columns(own)
        ready = replace(self, head=head, label=head.labels(self.label), original=original, size=size)
        with torch.enable_grad():
            logits = head.logits(self.model, final)
        return ready, ready._terms(logits, leaf, weight, reverse, True)

    def _terms(
        self, logits: Tensor, leaf: Tensor, weight: float, reverse: bool, gradient: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `objective` gives, from the predictions `logits` (s, columns) at delta `leaf` (n, d)."""
        n = self.edits
        with torch.no_grad():
            now = logits.log_softmax(-1)
            label = self.label[:n, None]
            nll = -now[:n].gather(1, label)[:, 0]
            # not the difference of two sums: each is far larger than most divergences
            gap = self.original - now[n:]
            wanted = None if reverse else self.original.exp()
            kl = torch.einsum("sv,sv->s", now[n:].exp() if wanted is None else wanted, gap)
            kl = -kl if reverse else kl
            fact, zero = self.owner[self.row], torch.zeros(len(leaf), device=leaf.device)
            mean_nll = zero.index_add(0, fact[:n], nll * self.weight[:n])
            mean_kl = zero.index_add(0, fact[n:], kl * self.weight[n:])
            if not gradient:
                return mean_nll, mean_kl, None
            # the slope in the logits is what is said now less what should be, of the reverse KL
            # p (log p - log original - KL); written in place, for these are the largest tensors here
            slope = now.exp_()
            slope[:n].scatter_add_(1, label, slope.new_full((1, 1), -1.0).expand(n, 1))
            if wanted is None:
                slope[n:] *= -gap - kl[:, None]
            else:
                slope[n:] -= wanted
            slope[n:] *= weight
            slope *= self.weight[:, None]
        return mean_nll, mean_kl, torch.autograd.grad(logits, leaf, slope)[0]

    def only(self, active: Tensor) -> Pass | None:
        """Without the rows of facts that are done, where that is worth a copy; None when none are left."""
        rows = active[self.owner]
        number = int(rows.sum())
        if number == 0:
            return None
        if number >= _DROP * len(rows):
            return self
        keep = rows.nonzero()[:, 0]
        new = rows.cumsum(0) - 1
        scored = rows[self.row]
        return replace(
            self,
            rows=tuple(self.rows[i] for i in keep.tolist()),
            tail=self.tail.select(keep),
            owner=self.owner[keep],
            size=self.size[keep],
            row=new[self.row[scored]],
            column=self.column[scored],
            label=self.label[scored],
            weight=self.weight[scored],
            edits=int(scored[: self.edits].sum()),
            original=self.original[scored[self.edits :]],
            head=None if self.head is None else self.head.only(scored),
        )


def passes_of(
    em: EditableModel,
    rows: Sequence[Row],
    place: Mapping[int, int],
    layer: int,
    limit: int,
    site: Site | None = None,
    entries: int = 0,
    moved: EditableModel | None = None,
) -> list[Pass]:
    """All passes of some facts' rows; `place`: a fact's row of delta; `em`: whose predictions are preserved;
    `moved`: which delta starts from (None: the same). See `optimise` for the rest."""
    count: dict[tuple[int, bool], int] = {}
    for r in rows:
        count[r.fact, r.preserve] = count.get((r.fact, r.preserve), 0) + 1
    return [
        _pass(em, moved or em, rows, group, place, layer, count, site, entries)
        for group in groups(rows, limit, most_padding(em))
    ]


def most_padding(em: EditableModel) -> int:
    """Padding that costs about a pass: measured on a CPU (docs/experiments.md), guessed on a GPU."""
    return 128 if em.device.type == "cpu" else 1024


def groups(rows: Sequence[Row], limit: int, padding: int) -> list[list[int]]:
    """Numbers of rows, longest tails first: at most `limit` padded tail tokens in a group (or one row), at
    most `padding` of them no row's own. The prefixes are padded too, and read only once; rows that
    begin alike, in a chat template, are groups of their own, whose beginning is read once for all."""
    begin = [opening(r.ids, r.last) for r in rows]
    many = Counter(begin)
    begin = [own if many[own] >= _ALIKE else () for own in begin]
    found: list[list[int]] = []
    width = wasted = 0
    for number in sorted(range(len(rows)), key=lambda n: (begin[n], -_tail(rows[n]), -rows[n].last, n)):
        own = _tail(rows[number])
        alike = bool(found) and begin[found[-1][0]] == begin[number]
        if alike and width * (len(found[-1]) + 1) <= limit and wasted + width - own <= padding:
            found[-1].append(number)
            wasted += width - own
            continue
        found.append([number])
        width, wasted = own, 0
    return found


def pass_tokens(em: EditableModel, layer: int, free: int = 0) -> int:
    """Tokens whose activations above `layer` fit beside the model: in half of `free` bytes (0: those now)."""
    if em.device.type == "cpu":
        return pass_size(em, CPU_PASS, GRADIENT_PASS)
    inner = max(em.d_in(Site(0, "mlp")), em.hidden_size)
    # for the backward pass a gated MLP keeps four inner tensors, a block about twelve of the stream's width
    blocks: int = (em.num_layers - 1 - layer) * (4 * inner + 12 * em.hidden_size) * em.dtype.itemsize
    head = 6 * em.vocabulary  # every third token, four float32 copies
    return max(64, min(8192, (free or free_memory(em.device)) // (2 * (blocks + head))))


def _tail(row: Row) -> int:
    return len(row.ids) - row.last


@torch.no_grad()
def _pass(
    em: EditableModel,
    moved: EditableModel,
    rows: Sequence[Row],
    numbers: Sequence[int],
    place: Mapping[int, int],
    layer: int,
    count: Mapping[tuple[int, bool], int],
    site: Site | None,
    entries: int,
) -> Pass:
    own = [rows[n] for n in numbers]
    ids, cuts = [r.ids for r in own], [r.last for r in own]
    scored = sorted(
        (
            (i, r.first_scored - r.last + k, r.labels[k])
            for i, r in enumerate(own)
            for k in range(len(r.labels))
        ),
        key=lambda s: (own[s[0]].preserve, s),
    )
    row, column, label = (torch.tensor(part, device=em.device) for part in zip(*scored, strict=True))
    shares = [1 / (len(own[i].labels) * count[own[i].fact, own[i].preserve]) for i, _, _ in scored]
    edits = sum(not own[i].preserve for i, _, _ in scored)
    # what is preserved are the predictions without the updates in effect
    whole = torch.empty(0, em.hidden_size, dtype=em.dtype, device=em.device)
    if kept := [i for i, r in enumerate(own) if r.preserve]:
        clean = Tail.of(em, layer, [ids[i] for i in kept], [cuts[i] for i in kept])
        at = torch.tensor([kept.index(i) for i in row[edits:].tolist()], device=em.device)
        whole = clean.run(em, clean.hidden, at, column[edits:])
    tail = Tail.of(moved, layer, ids, cuts)
    size = tail.hidden[:, tail.start].float().norm(dim=1)
    head: Head | None = None
    original = whole
    if site is None:
        head = WHOLE
        states = torch.split(whole, positions(em))
        original = torch.cat([em.head_logits(part).float().log_softmax(-1) for part in states])
    return Pass(
        moved,
        tuple(own),
        tail,
        torch.tensor([place[r.fact] for r in own], device=em.device),
        row,
        column,
        label,
        torch.tensor(shares, device=em.device),
        edits,
        original,
        head,
        size,
        site,
        entries,
    )
