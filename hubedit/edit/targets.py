"""The residual every fact needs at layer L: gradient descent on `delta`, all facts at once.

    z_i = h_i[L] + delta_i
    delta_i = argmin  mean_c -log P(target | c + prompt; h[L] += delta) / len(target)
                    + kl * mean_e KL(original || edited  on essence prompts e)
                    + decay * |delta| / |h|

(MEMIT, Meng et al. 2023, eq. 16; the essence prompts beyond "{subject} is a" and the descent are ours:
steps of a given length, relative to |h|, along the gradient's direction with momentum. Adam moves every
coordinate by the same amount, and so spends most of |delta| on coordinates that do not matter: twice the
KL at the same likelihood, docs/experiments.md.) Only the layers above L are run; nothing of the model
needs a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubedit.config import TargetConfig
from hubedit.edit.rows import Row, Rows, chunks
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.memory import fitting
from hubedit.model.sites import Site
from hubedit.model.tail import Tail
from hubedit.progress import Progress, Silent


@dataclass(frozen=True)
class Targets:
    """`delta` (N, d): what must be added at the subject's last token after layer `layer`, float32, CPU.

    `norm` (N,): |h[L]| there; `loss` (N,): the final objective; `nll` (N,): its first term.
    """

    layer: int
    delta: Tensor
    norm: Tensor
    loss: Tensor
    nll: Tensor


def optimise(
    em: EditableModel,
    rows: Sequence[Row],
    count: int,
    layer: int,
    config: TargetConfig,
    *,
    factors: Mapping[Site, LowRank] | None = None,
    tokens: int = 0,
    progress: Progress | None = None,
) -> Targets:
    """Targets of `count` facts from their edit and preserve rows.

    `factors` (at layers up to `layer`): delta starts from the model with them applied, while what is
    preserved are the predictions of the model without.

    `tokens`: padded tokens at once (0: chosen from the device); halved on out-of-memory.
    """
    progress = progress or Silent()
    result = {
        name: torch.zeros(count, *shape)
        for name, shape in {"delta": (em.hidden_size,), "norm": (), "loss": (), "nll": ()}.items()
    }

    def work(part: list[Row]) -> None:
        facts = sorted({r.fact for r in part})
        found = _optimise_chunk(em, part, facts, layer, config, factors or {})
        for name, values in zip(("delta", "norm", "loss", "nll"), found, strict=True):
            result[name][facts] = values.float().cpu()
        progress.advance(len(facts))

    fitting(lambda budget: chunks(rows, budget), work, tokens or default_tokens(em), em.device)
    return Targets(layer, **result)


def default_tokens(em: EditableModel) -> int:
    """Padded tokens in one optimisation batch: few on a CPU's cache, more on a GPU."""
    return 6144 if em.device.type == "cpu" else 16384


def _optimise_chunk(
    em: EditableModel,
    rows: list[Row],
    facts: list[int],
    layer: int,
    config: TargetConfig,
    factors: Mapping[Site, LowRank],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    place = {fact: i for i, fact in enumerate(facts)}
    d = em.hidden_size
    state = _State.of(em, rows, layer, factors)
    bare = torch.tensor([next(i for i, r in enumerate(rows) if r.fact == f) for f in facts], device=em.device)
    norm = state.tail.hidden[bare, 0].float().norm(dim=1)
    unit = (norm / math.sqrt(d))[:, None]
    u = torch.zeros(len(facts), d, device=em.device)
    best_u, best_loss, best_nll = u.clone(), torch.full_like(norm, math.inf), torch.full_like(norm, math.inf)
    velocity = torch.zeros_like(u)
    active = torch.ones(len(facts), dtype=torch.bool, device=em.device)
    running = state
    owner = torch.tensor([place[int(f)] for f in running.rows.fact], device=em.device)
    for step in range(config.steps + 1):
        leaf = u.clone().requires_grad_()
        nll, kl = _losses(em, running, leaf * unit, owner, len(facts))
        # |delta|'s gradient is undefined at 0, so the root is kept off it
        size = ((leaf * unit).square().sum(1) + 1e-12).sqrt() / norm
        loss = nll + config.kl * kl + config.decay * size
        with torch.no_grad():
            better = active & (loss < best_loss)
            best_u[better] = u[better]
            best_loss[better] = loss[better]
            best_nll[better] = nll[better]
            active = active & (loss > config.loss)
        if step == config.steps or not bool(active.any()):
            break
        (grad,) = torch.autograd.grad(loss[active].sum(), leaf)
        with torch.no_grad():
            rate = config.step * (0.1 + 0.45 * (1 + math.cos(math.pi * step / config.steps)))
            velocity.mul_(0.9).add_(grad / grad.norm(dim=1, keepdim=True).clamp_min(1e-12), alpha=0.1)
            move = velocity / (1 - 0.9 ** (step + 1)) * math.sqrt(d)
            u = u - rate * move * active[:, None]
            bound = config.clamp * math.sqrt(d)
            u = u * (bound / u.norm(dim=1).clamp_min(bound))[:, None]
        if int(active.sum()) < 0.7 * len({int(o) for o in owner}):
            keep = [i for i, r in enumerate(rows) if bool(active[place[r.fact]])]
            running = state.select(em, rows, keep)
            owner = torch.tensor([place[int(f)] for f in running.rows.fact], device=em.device)
    return best_u * unit, norm, best_loss, best_nll


@dataclass(frozen=True)
class _State:
    """Rows with what does not change while delta does: the tails, and the model's own log-probabilities.

    Scored positions are columns of the tails. `original[i]` (labels, vocabulary) of preserve rows.
    """

    rows: Rows
    tail: Tail
    original: dict[int, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, em: EditableModel, rows: list[Row], layer: int, factors: Mapping[Site, LowRank]) -> _State:
        tensors = Rows.of(em, rows)
        ids, cuts = [r.ids for r in rows], [r.last for r in rows]
        tail = Tail.of(em, layer, ids, cuts)
        final = tail.run(em, tail.hidden)
        original: dict[int, Tensor] = {}
        for i, r in enumerate(rows):
            if r.preserve:
                first = r.first_scored - r.last
                logits = em.head_logits(final[i, first : first + len(r.labels)])
                original[i] = logits.float().log_softmax(-1)
        if factors:
            with applied(em, factors):
                tail = Tail.of(em, layer, ids, cuts)
        return cls(tensors, tail, original)

    def select(self, em: EditableModel, rows: list[Row], keep: list[int]) -> _State:
        """The state of some of the rows only (the facts that are not done)."""
        part = Rows.of(em, [rows[i] for i in keep])
        original = {k: self.original[i] for k, i in enumerate(keep) if i in self.original}
        return _State(part, self.tail.select(keep), original)


def _losses(
    em: EditableModel, state: _State, delta: Tensor, owner: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Mean negative log-likelihood of a fact's edit rows, and mean KL of its preserve rows: (n,), (n,)."""
    rows, start = state.rows, state.tail.hidden
    b = owner.shape[0]
    # column 0 of a tail is the subject's last token
    moved = torch.cat([(start[:, :1].float() + delta[owner][:, None]).to(start.dtype), start[:, 1:]], 1)
    final = state.tail.run(em, moved)
    column = rows.scored_at - rows.last[rows.scored_row]
    logp = em.head_logits(final[rows.scored_row, column]).float().log_softmax(-1)
    lengths = torch.bincount(rows.scored_row, minlength=b).float()
    kept = rows.preserve[rows.scored_row]
    each = -logp.gather(1, rows.label[:, None])[:, 0]
    if state.original:
        reference = torch.cat([state.original[i] for i in range(b) if i in state.original])
        kl = (reference.exp() * (reference - logp[kept])).sum(-1)
        each = each.masked_scatter(kept, kl)
    per_row = torch.zeros(b, device=each.device).index_add(
        0, rows.scored_row, each / lengths[rows.scored_row]
    )

    def mean(which: Tensor) -> Tensor:
        total = torch.zeros(count, device=each.device).index_add(0, owner[which], per_row[which])
        number = torch.zeros(count, device=each.device).index_add(
            0, owner[which], torch.ones_like(per_row[which])
        )
        return total / number.clamp_min(1)

    return mean(~rows.preserve), mean(rows.preserve)
