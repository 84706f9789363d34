"""Keys, outputs and hidden states at the subject's last token, prompt by prompt."""

from __future__ import annotations

from collections import Counter
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

KEY_TOKENS = 8192
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
    """(count, n): picks each fact's first row, its bare prompt. Sparse, float64: of N facts with a few rows
    each, all but a few entries of a row are zero."""
    first = _first(rows)
    return _weights(rows, count, [float(first[r.fact] == n) for n, r in enumerate(rows)])


def halves(rows: Sequence[Row], count: int) -> Tensor:
    """(count, n): means over each fact's rows in which the bare prompt counts one half (MEMIT). Sparse,
    float64."""
    first, number = _first(rows), Counter(r.fact for r in rows)
    values = [
        1.0 if number[r.fact] == 1 else 0.5 if first[r.fact] == n else 0.5 / (number[r.fact] - 1)
        for n, r in enumerate(rows)
    ]
    return _weights(rows, count, values)


def uniform(rows: Sequence[Row], count: int) -> Tensor:
    """(count, n): means over each fact's rows (ROME). Sparse, float64."""
    number = Counter(r.fact for r in rows)
    return _weights(rows, count, [1 / number[r.fact] for r in rows])


def _first(rows: Sequence[Row]) -> dict[int, int]:
    """The number of each fact's first row."""
    return {r.fact: n for n, r in reversed(list(enumerate(rows)))}


def _weights(rows: Sequence[Row], count: int, values: Sequence[float]) -> Tensor:
    """(count, n): the value of each row, in the row of its fact."""
    place = torch.tensor([[r.fact for r in rows], list(range(len(rows)))])
    numbers = torch.tensor(values, dtype=torch.float64)
    return torch.sparse_coo_tensor(place, numbers, (count, len(rows)), check_invariants=True).coalesce()
