"""The rows of a batch of facts as a few forward passes, each over rows of about one length.

What changes stands at the subject's last token: the residual stream after layer L (MEMIT), or what one site
writes into it. Only the layers from there on run, and only the tokens from that one on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hubedit.edit.rows import Row
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import behind, keeping
from hubedit.model.memory import CPU_PASS, free_memory, pass_size, positions
from hubedit.model.sites import Site
from hubedit.model.tail import Tail

GRADIENT_PASS = 512
"""Padded tail tokens of a pass on a CPU: what a block keeps for its gradient then stays near the core, and
larger passes are a little slower on small models (docs/experiments.md)."""
_DROP = 0.85  # a pass is cut down when a smaller share of its rows belongs to facts that are not done


@dataclass(frozen=True)
class Head:
    """The head at some positions: the whole vocabulary, or its likeliest `entries` (c,) and the others as
    one.

    `others` (s, 1): logit of all other entries together at each position, as it is before anything changes. A
    large vocabulary is then a few thousand columns; docs/performance.md has the error. Empty: the whole
    vocabulary.
    """

    entries: Tensor
    others: Tensor

    def logits(self, em: EditableModel, final: Tensor) -> Tensor:
        """float32 (s, c + 1), or (s, vocabulary). Gradients flow to `final` (s, d)."""
        if not len(self.entries):
            return em.head_logits(final).float()
        return torch.cat([em.head_logits(final, self.entries).float(), self.others], 1)

    def labels(self, label: Tensor) -> Tensor:
        """Columns of entries that are among them."""
        return torch.searchsorted(self.entries, label) if len(self.entries) else label

    def only(self, keep: Tensor) -> Head:
        """At some of the positions."""
        return Head(self.entries, self.others[keep]) if len(self.entries) else self


@dataclass(frozen=True)
class Pass:
    """Rows that go through the upper layers together, with everything that does not change while delta does.

    `rows` (b); `owner` (b,): each row's fact, as a row of delta. Scored positions, those of edit rows
    first: `row`, `column` (of the tail), `label` and `weight` (s,); `edits`: how many belong to edit rows;
    `original` (s - edits, columns): the model's own log-probabilities at the others; `head`: which columns
    the predictions have. `site`: whose output delta is added to, None for the residual stream where the tail
    begins; `size` (b,): the norm of that at the subject's last token; `model`: which the tail runs through,
    with the updates of the sites before.
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
    head: Head
    size: Tensor
    site: Site | None = None

    def _final(self, delta: Tensor) -> Tensor:
        """The residual stream after the last block at the scored positions, (s, d), with delta (n, d) added
        at every row's subject."""
        start = self.tail.hidden
        if self.site is None:
            # column 0 of a tail is the subject's last token
            moved = (start[:, :1].float() + delta[self.owner][:, None]).to(start.dtype)
            return self.tail.run(self.model, torch.cat([moved, start[:, 1:]], 1), self.row, self.column)

        def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            moved = (output[:, :1].float() + delta[self.owner][:, None]).to(output.dtype)
            return torch.cat([moved, output[:, 1:]], 1)

        with behind(self.model.site(self.site), add):
            return self.tail.run(self.model, start, self.row, self.column)

    def objective(
        self, delta: Tensor, weight: float, reverse: bool = False, *, gradient: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What these rows add to every fact's mean nll and mean KL, (n,) each, and with `gradient` that of
        nll + `weight` * KL in delta (n, d), float32. The KL is of (original || edited), with `reverse` of
        (edited || original)."""
        n = self.edits
        leaf = delta.detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            logits = self.head.logits(self.model, self._final(leaf))
        with torch.no_grad():
            now = logits.log_softmax(-1)
            label = self.label[:n, None]
            nll = -now[:n].gather(1, label)[:, 0]
            # not the difference of two sums: each is far larger than most divergences
            gap = self.original - now[n:]
            wanted = None if reverse else self.original.exp()
            kl = torch.einsum("sv,sv->s", now[n:].exp() if wanted is None else wanted, gap)
            kl = -kl if reverse else kl
            fact, zero = self.owner[self.row], torch.zeros(len(delta), device=delta.device)
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
            head=self.head.only(scored),
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
    most `padding` of them no row's own. The prefixes are padded too, and read only once."""
    found: list[list[int]] = []
    width = wasted = 0
    for number in sorted(range(len(rows)), key=lambda n: (-_tail(rows[n]), -rows[n].last, n)):
        own = _tail(rows[number])
        if found and width * (len(found[-1]) + 1) <= limit and wasted + width - own <= padding:
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
        own_tail = Tail.of(em, layer, [ids[i] for i in kept], [cuts[i] for i in kept])
        at = torch.tensor([kept.index(i) for i in row[edits:].tolist()], device=em.device)
        whole = own_tail.run(em, own_tail.hidden, at, column[edits:])
    tail = Tail.of(moved, layer, ids, cuts)
    size = tail.hidden[:, 0].float().norm(dim=1)
    head = Head(torch.empty(0, dtype=torch.long), torch.empty(0))
    if site is not None:
        found: dict[Any, Tensor] = {}
        with keeping(em.site(site), found, site):
            final = tail.run(moved, tail.hidden, row, column)
        size = found[site][:, 0].float().norm(dim=1)
        if 0 < 4 * entries * len(scored) < em.vocabulary:  # else there is little to gain
            head = _head(em, final, label, entries)
    clean = (em.head_logits(part).float().log_softmax(-1) for part in torch.split(whole, positions(em)))
    original = torch.cat([_columns(logp, head.entries) for logp in clean])
    return Pass(
        moved,
        tuple(own),
        tail,
        torch.tensor([place[r.fact] for r in own], device=em.device),
        row,
        column,
        head.labels(label),
        torch.tensor(shares, device=em.device),
        edits,
        original,
        head,
        size,
        site,
    )


def _head(em: EditableModel, final: Tensor, label: Tensor, entries: int) -> Head:
    """The `entries` likeliest at each of the positions (s, d), and the labels (s,)."""
    best = [label]
    parts = torch.split(final, positions(em))
    for part in parts:
        best.append(em.head_logits(part).topk(entries, -1).indices.flatten())
    kept = torch.unique(torch.cat(best))
    others = []
    for part in parts:
        logits = em.head_logits(part).float()
        logits[:, kept] = -torch.inf
        others.append(logits.logsumexp(-1, keepdim=True))
    return Head(kept, torch.cat(others))


def _columns(logp: Tensor, entries: Tensor) -> Tensor:
    """Log-probabilities (s, vocabulary) of the entries (c,), and of all others together: (s, c + 1)."""
    if not len(entries):
        return logp
    kept = logp[:, entries]
    others = torch.log1p(-kept.exp().sum(1, keepdim=True).clamp_max(1 - 1e-6))
    return torch.cat([kept, others], 1)
