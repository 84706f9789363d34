"""Keys, outputs and hidden states at the subject's last token, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubedit.edit.rows import Row, by_length
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.memory import pass_size
from hubedit.model.sites import Site
from hubedit.model.tokens import pad

KEY_TOKENS = 32768
"""Most padded tokens of a pass for keys: no gradients, only the layers up to the site."""


@dataclass(frozen=True)
class States:
    """Of n rows, float64 on the CPU: `hidden` (n, d) after a layer, `inputs` (n, d_in) and `outputs` (n, d)
    of sites."""

    hidden: Tensor
    inputs: dict[Site, Tensor]
    outputs: dict[Site, Tensor]


@torch.no_grad()
def at_subject(em: EditableModel, rows: Sequence[Row], layer: int, sites: Sequence[Site] = ()) -> States:
    """States of every row at its subject's last token, in the rows' order; `hidden` after `layer`."""
    # what follows the subject's last token cannot change them
    short = [Row(r.fact, r.ids[: r.last + 1], r.last, ()) for r in rows]
    place = {r: n for n, r in enumerate(dict.fromkeys(short))}
    hidden = torch.zeros(len(place), em.hidden_size, dtype=torch.float64)
    inputs = {s: torch.zeros(len(place), em.d_in(s), dtype=torch.float64) for s in sites}
    outputs = {s: torch.zeros_like(hidden) for s in sites}
    for part in by_length(list(place), pass_size(em, KEY_TOKENS)):
        batch = pad([r.ids for r in part], em.pad_id, em.device)
        found = run(em, batch, inputs=sites, outputs=sites, hidden=[layer])
        at = torch.arange(len(part), device=em.device)
        last = torch.tensor([r.last for r in part], device=em.device)
        to = torch.tensor([place[r] for r in part])
        hidden[to] = found.hidden[layer][at, last].to("cpu", torch.float64)
        for s in sites:
            inputs[s][to] = found.inputs[s][at, last].to("cpu", torch.float64)
            outputs[s][to] = found.outputs[s][at, last].to("cpu", torch.float64)
    every = torch.tensor([place[r] for r in short])
    return States(
        hidden[every], {s: x[every] for s, x in inputs.items()}, {s: x[every] for s, x in outputs.items()}
    )


def keys(state: States, rows: Sequence[Row], count: int, site: Site) -> Tensor:
    """Keys (N, d_in) of a site: the bare prompt counts one half, the contexts the other."""
    return halves(rows, count) @ state.inputs[site]


def bare(rows: Sequence[Row], count: int) -> Tensor:
    """(count, n): picks each fact's first row, its bare prompt. float64."""
    first = {r.fact: n for n, r in reversed(list(enumerate(rows)))}
    picked = torch.zeros(count, len(rows), dtype=torch.float64)
    picked[list(first), list(first.values())] = 1.0
    return picked


def halves(rows: Sequence[Row], count: int) -> Tensor:
    """(count, n): means over each fact's rows in which the bare prompt counts one half (MEMIT). float64."""
    mean, picked = uniform(rows, count), bare(rows, count)
    number = (mean > 0).sum(1, keepdim=True)
    others = (mean * number - picked) / (number - 1).clamp_min(1)
    return torch.where(number > 1, 0.5 * picked + 0.5 * others, picked)


def uniform(rows: Sequence[Row], count: int) -> Tensor:
    """(count, n): means over each fact's rows (ROME). float64."""
    weights = torch.zeros(count, len(rows), dtype=torch.float64)
    for n, r in enumerate(rows):
        weights[r.fact, n] = 1.0
    return weights / weights.sum(1, keepdim=True).clamp_min(1)
