"""What every fact needs in addition, `delta`: gradient descent on it, all facts at once.

    delta_i = argmin  mean_c -log P(target | c + prompt; x += delta) / len(target)  +  kl * KL  +  decay

published methods (`hubedit.edit.targets.optimizers.Adam`; MEMIT, Meng et al. 2023, eq. 16, and its code):
    x = h[L], KL(edited || original) on "{subject} is a", decay * |delta| / |x|^2
ROME's family (Meng et al. 2022, eq. 4, and its code): the same with x = W k of the one MLP
the joint edit (`Steepest`): x = what a site writes, W k, KL(original || edited), decay * |delta| / |W k|

The likelihood and the KL are in `hubedit.edit.targets.passes`. Steps of a given length along the gradient
reach the same loss with a shorter delta: Adam moves every coordinate by the same amount. Only the
layers from there on are run, on the tokens from the subject's last one on, in batches of rows of about the
same length; nothing of the model needs a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubedit.config import TargetConfig
from hubedit.edit.rows import Row, bare_rows, chunks
from hubedit.edit.targets.optimizers import RULES
from hubedit.edit.targets.passes import Pass, pass_tokens, passes_of
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.memory import fitting, free_memory, out_of_memory, release
from hubedit.model.sites import Site
from hubedit.parallel import Share, summed
from hubedit.progress import Progress, Silent

_LEAST = 64  # tokens in one pass below which a part of the facts is taken instead


@dataclass(frozen=True)
class Targets:
    """`delta` (N, d): what must be added at the subject's last token after layer `layer`, float32, CPU.

    `norm` (N,): |h[L]| there; `loss` (N,): the final objective; `nll` (N,): its first term. Of a site: what
    it must write more, and the norm of what it writes there. Of the joint edit's: that norm's mean over a
    fact's edit rows, and the loss before the last move, which the next site sees.
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
    site: Site | None = None,
    factors: Mapping[Site, LowRank] | None = None,
    tokens: int = 0,
    pass_limit: int = 0,
    progress: Progress | None = None,
) -> Targets:
    """Targets of `count` facts from their edit and preserve rows.

    `site`: delta is added to what this site of `layer` writes, before any norm that follows; without it, to
    the residual stream after `layer`.

    `factors` (at layers up to `layer`): delta starts from the model with them in effect, while what is
    preserved are the predictions of the model without.

    `tokens`: padded tokens of the facts that are optimised together, `pass_limit`: of those that go through
    the model at once (0: chosen from the device); fewer when memory runs out. With several processes each
    takes a part of the facts.
    """
    moved = {site: factor.to("cpu") for site, factor in (factors or {}).items()}
    sizes = tokens, pass_limit
    found = summed(_share, em, list(rows), count, layer, config, site, moved, sizes, progress=progress)
    return Targets(layer, **found)


def default_tokens(em: EditableModel, free: int = 0) -> int:
    """Padded tokens in one batch that is trained on: few on a CPU's cache, on a GPU what fits into half of
    `free` bytes (0: those now)."""
    return 6144 if em.device.type == "cpu" else pass_tokens(em, -1, free)


def _share(
    em: EditableModel,
    share: Share,
    rows: list[Row],
    count: int,
    layer: int,
    config: TargetConfig,
    site: Site | None,
    factors: Mapping[Site, LowRank],
    sizes: tuple[int, int],
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """One process's part of the facts; zeros for the others."""
    progress = progress or Silent()
    result = {
        name: torch.zeros(count, *shape)
        for name, shape in {"delta": (em.hidden_size,), "norm": (), "loss": (), "nll": ()}.items()
    }
    longest: dict[int, int] = {}
    for r in rows:
        longest[r.fact] = max(longest.get(r.fact, 0), len(r.ids))
    own = set(share.of(sorted(longest, key=lambda fact: (longest[fact], fact))))
    moved = em.with_patch(factors)
    tokens, limit = sizes[0] or chunk_tokens(em, layer), sizes[1] or pass_tokens(em, layer)
    finished: set[int] = set()

    def done(facts: Iterable[int]) -> None:
        new = set(facts) - finished  # a part that runs out of memory begins again
        finished.update(new)
        progress.advance(len(new) * share.size)

    def work(part: list[Row]) -> None:
        nonlocal limit
        facts = sorted({r.fact for r in part})
        while True:
            try:
                found = _optimise_chunk(em, part, facts, layer, config, site, moved, limit, done)
                break
            except (RuntimeError, MemoryError) as error:
                if limit <= _LEAST or not out_of_memory(error):
                    raise
            release(em.device)
            limit = max(_LEAST, limit // 2)
        for name, values in zip(("delta", "norm", "loss", "nll"), found, strict=True):
            result[name][facts] = values.float().cpu()
        done(facts)

    mine = [r for r in rows if r.fact in own]
    fitting(mine, chunks, work, tokens, em.device)
    return result


def chunk_tokens(em: EditableModel, layer: int, free: int = 0) -> int:
    """Padded tokens of the facts that are optimised together; their keys, values and predictions are kept
    meanwhile. `free`: bytes (0: those now)."""
    if em.device.type == "cpu":
        # of each token keys and values above `layer` in float32, and log-probabilities at about every third
        kept: int = 8 * em.hidden_size * (em.num_layers - 1 - layer) + 4 * em.vocabulary // 3
        return max(12288, min(49152, 2**30 // kept))
    return 65536 if (free or free_memory(em.device)) > 24 * 2**30 else 16384


def _optimise_chunk(
    em: EditableModel,
    rows: list[Row],
    facts: list[int],
    layer: int,
    config: TargetConfig,
    site: Site | None,
    moved: EditableModel,
    limit: int,
    done: Callable[[Iterable[int]], None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """delta, norm, loss and nll of `facts`, delta starting from `moved`, while what is preserved are the
    predictions of `em`; at most `limit` tokens go through the model at once. `done` hears
    after each step which facts are finished."""
    place = {fact: i for i, fact in enumerate(facts)}
    start = layer if site is None else site.layer - 1
    passes, gathered = passes_of(em, rows, place, start, limit, site, config.entries, moved), len(facts)
    u = torch.zeros(len(facts), em.hidden_size, device=em.device)
    published = RULES[config.optimizer].published
    joint = site is not None and not published
    passes, nll, kl, grad = _objective(passes, u, config, published, gradient=True)
    norm = _norms(passes, rows, place, mean=joint)
    rule = RULES[config.optimizer](config, norm, em.hidden_size)
    best_u, best_loss, best_nll = u.clone(), torch.full_like(norm, math.inf), torch.full_like(norm, math.inf)
    active = torch.ones(len(facts), dtype=torch.bool, device=em.device)
    # the joint edit's steps are short, and the next site looks at what they brought
    looks = rule.moves if joint else rule.moves + 1
    for step in range(looks):
        final = step == rule.moves
        if step:
            delta = u * rule.unit
            passes, nll, kl, grad = _objective(passes, delta, config, published, gradient=not final)
        leaf = u.clone().requires_grad_()
        # |delta|'s gradient is undefined at 0, so the root is kept off it
        decay = rule.decay(((leaf * rule.unit).square().sum(1) + 1e-12).sqrt())
        with torch.no_grad():
            loss = nll + config.kl * kl + decay
            better = active & (torch.isfinite(loss) if published else loss < best_loss)
            best_u[better] = u[better]
            best_loss[better] = loss[better]
            best_nll[better] = nll[better]
            active = active & (loss > config.loss)
        done(facts[i] for i in (~active).nonzero()[:, 0].tolist())
        if final or not bool(active.any()):
            break
        (shrink,) = torch.autograd.grad(decay.sum(), leaf)
        with torch.no_grad():
            u = torch.where(active[:, None], rule.move(u, grad * rule.unit + shrink, step), u)
        alive = active.tolist()
        if len(passes) > 1 and 2 * sum(alive) <= gathered:
            # few rows are left in each: fewer passes hold them all
            gathered = sum(alive)
            passes = []  # not in memory beside the new ones
            left = [r for r in rows if alive[place[r.fact]]]
            passes = passes_of(em, left, place, start, limit, site, config.entries, moved)
        else:
            passes = [some for part in passes if (some := part.only(active)) is not None]
    if joint:
        best_u = torch.where(active[:, None], u, best_u)
    return best_u * rule.unit, norm, best_loss, best_nll


def _norms(passes: Sequence[Pass], rows: Sequence[Row], place: Mapping[int, int], *, mean: bool) -> Tensor:
    """(n,): the size of what delta is added to, of each fact's bare prompt, or the mean of its edit rows."""
    device = passes[0].size.device
    total, number = torch.zeros(len(place), device=device), torch.zeros(len(place), device=device)
    bare = bare_rows(rows)
    for part in passes:
        counted = [not r.preserve if mean else bare[r.fact] is r for r in part.rows]
        keep = torch.tensor(counted, device=device)
        total.index_add_(0, part.owner[keep], part.size[keep])
        number.index_add_(0, part.owner[keep], torch.ones_like(part.size[keep]))
    return total / number


def _objective(
    passes: Sequence[Pass],
    delta: Tensor,
    config: TargetConfig,
    reverse: bool = False,
    *,
    gradient: bool,
) -> tuple[list[Pass], Tensor, Tensor, Tensor]:
    """The passes, evaluated at least once; per fact the mean negative log-likelihood of its edit rows and the
    mean KL of its preserve rows, (n,) each, and the gradient of nll + kl * KL in delta, (n, d). One pass's
    activations at a time. `reverse`: as in `Pass.objective`."""
    nll = torch.zeros(len(delta), device=delta.device)
    kl, total = nll.clone(), torch.zeros_like(delta)
    ready = []
    for part in passes:
        if part.head is None:
            part, found = part.first(delta, config.kl, reverse)
        else:
            found = part.objective(delta, config.kl, reverse, gradient=gradient)
        ready.append(part)
        nll += found[0]
        kl += found[1]
        if found[2] is not None:
            total += found[2]
    return ready, nll, kl, total
