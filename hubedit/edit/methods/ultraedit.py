"""UltraEdit (Gu et al. 2025, "Training-, subject-, and memory-free lifelong editing", arXiv 2505.14679).

For each edited weight, one row for each token of a batch's answers, at the position that predicts it:

    h, g   the weight's input and the gradient of  -log P(target | prompt)  in its output
    V   = -eta |h^|^2 g^        with h^ and g^ the two, normalised by mean and deviation, coordinate by
                                coordinate, of all rows of this batch and of the batches before
    dW^T = (H^T H + l2 I)^-1 H^T V,    H (t, d_in) the inputs as they are

One forward and one backward pass, one linear solve: nothing is descended, and no subject is needed. As in the
authors' code weights of one shape share their running statistics. The next batch meets the model as this one
has left it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row, Rows, by_length, edit_rows
from hubedit.edit.solve.site_report import solve_device
from hubedit.edit.targets.optimise import default_tokens
from hubedit.errors import ConfigError
from hubedit.linalg import LowRank, RunningScale, ridge_rows
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import behind, run
from hubedit.model.memory import fitting
from hubedit.model.sites import Site

Features = Mapping[Site, tuple[Tensor, Tensor]]
"""Inputs (t, d_in) and gradients (t, d_out) at the tokens of the answers, in their order; float64, CPU."""


def ultraedit(batch: EditBatch) -> Edit:
    """UltraEdit on the MLP projections of the edited layers. Raises ConfigError where there is one token in
    all, of which no deviation is known."""
    em, config, facts = batch.model, batch.config, batch.facts
    sites = [Site(layer, "mlp") for layer in batch.baseline.layers]
    size, device = config.batch_size or len(facts), solve_device(em)
    scales: dict[torch.Size, RunningScale] = {}
    owners: list[int] = []
    total: dict[Site, LowRank] = {}
    batch.progress.start("editing", len(facts), "facts")
    for start in range(0, len(facts), size):
        rows = edit_rows(em, facts[start : start + size], ())
        owners += [start + r.fact for r in rows for _ in r.labels]
        features = features_of(em.with_patch(total), rows, sites)
        batch.clock.lap("gradients")
        for site, (inputs, gradients) in features.items():
            shape = em.weight(site).shape
            scale = scales.setdefault(shape, RunningScale(sum(shape), device))
            scale.update(torch.cat([inputs, gradients], 1))
        for site, (inputs, gradients) in features.items():
            scale = scales[em.weight(site).shape]
            own = solve(inputs.to(device), gradients.to(device), scale, config.targets.step, config.l2)
            update = own.to("cpu", torch.float32)
            total[site] = (total[site] + update).compress() if site in total else update.compress()
        batch.clock.lap("solve")
        batch.progress.advance(len(facts[start : start + size]))
    if min(scale.count for scale in scales.values()) < 2:
        raise ConfigError(
            "ultraedit normalises over the tokens of all answers, and there is one",
            "give more facts, or more --layers",
        )
    batch.progress.finish()
    reports = {s: report(em, s, f, batch.baseline, config.l2) for s, f in total.items()}
    return finished(batch, total, reports, None, {}, rows=owners)


def solve(inputs: Tensor, gradients: Tensor, scale: RunningScale, eta: float, l2: float) -> LowRank:
    """The update from inputs (t, d_in) and gradients (t, d_out) of one batch: B = V^T, A = (H H^T + l2 I)^-1
    H. float64."""
    width = inputs.shape[1]
    normed = scale.normalise(torch.cat([inputs, gradients], 1))
    h, g = normed[:, :width], normed[:, width:]
    values = -eta * h.square().sum(1, keepdim=True) * g
    return LowRank(values.T.contiguous(), ridge_rows(inputs, l2))


def features_of(em: EditableModel, rows: Sequence[Row], sites: Sequence[Site]) -> Features:
    """One forward and one backward pass over the rows, of each row's summed -log P(labels)."""
    place, total = {}, 0
    for r in rows:
        place[r] = total
        total += len(r.labels)
    found = {
        s: (
            torch.zeros(total, em.d_in(s), dtype=torch.float64),
            torch.zeros(total, em.hidden_size, dtype=torch.float64),
        )
        for s in sites
    }

    def work(part: list[Row]) -> None:
        to = torch.tensor([place[r] + k for r in part for k in range(len(r.labels))])
        for site, (inputs, gradients) in _features(em, part, sites).items():
            found[site][0][to] = inputs.to("cpu", torch.float64)
            found[site][1][to] = gradients.to("cpu", torch.float64)

    fitting(rows, by_length, work, default_tokens(em), em.device)
    return found


def _features(
    em: EditableModel, rows: Sequence[Row], sites: Sequence[Site]
) -> dict[Site, tuple[Tensor, Tensor]]:
    tensors, last = Rows.of(em, rows), em.num_layers - 1
    leaves: dict[Site, Tensor] = {}

    def leaf(site: Site) -> Any:
        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            leaves[site] = torch.zeros_like(output, requires_grad=True)
            return output + leaves[site]

        return add

    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(behind(em.site(site), leaf(site)))
        seen = run(em, tensors.batch, inputs=sites, hidden=[last])
    at = (tensors.scored_row, tensors.scored_at)
    logp = em.head_logits(seen.hidden[last][at]).float().log_softmax(-1)
    loss = -logp.gather(1, tensors.label[:, None]).sum()
    gradients = torch.autograd.grad(loss, [leaves[site] for site in sites])
    return {
        site: (seen.inputs[site].detach()[at], gradient.to(em.device)[at])
        for site, gradient in zip(sites, gradients, strict=True)
    }
