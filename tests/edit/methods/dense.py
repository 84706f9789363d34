"""Published formulas written out densely, on a copy of the model whose weights really change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig
from hubedit.edit.compute import compute
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row
from hubedit.edit.statistics.second_moments import second_moments
from hubedit.facts import Fact
from hubedit.linalg import Moments
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.presets import method_defaults
from hubedit.progress import Silent
from tests.edit.editing import FACTS

RIDGE = 1e-4
TEXT = Path(__file__).parents[2] / "pico.py"


def settings(method: str, layers: str, **more: Any) -> EditConfig:
    """The published settings, with few steps, little text and two contexts; a collapse is only told."""
    config = method_defaults(method)
    targets = replace(config.targets, steps=6, contexts=2 if config.targets.contexts else 0)
    config = replace(config, layers=layers, collapse="tell", targets=targets)
    chosen: dict[str, Any] = {"stats": StatsConfig(str(TEXT), 200), **more}
    return replace(config, **chosen)


def edited(em: EditableModel, config: EditConfig, folder: Path, facts: Sequence[Fact] = FACTS) -> Edit:
    return compute(em, facts, config, cache=Cache(folder))


def moments(em: EditableModel, config: EditConfig, folder: Path, site: Site) -> Tensor:
    """The C that the method was given, float64."""
    found: dict[Site, Moments] = second_moments(em, [site], config.stats, Cache(folder), Silent())
    return found[site].matrix.double()


def ridged(c: Tensor) -> Tensor:
    return c + RIDGE * c.diagonal().mean() * torch.eye(len(c), dtype=torch.float64)


def changed(em: EditableModel) -> EditableModel:
    """The same model with weights of its own."""
    return replace(em, model=copy.deepcopy(em.model))


def add(em: EditableModel, site: Site, change: Tensor) -> None:
    """W += change (d_out, d_in)."""
    with torch.no_grad():
        em.weight(site).add_(change.to(em.dtype))


def at_last(em: EditableModel, row: Row, site: Site, layer: int) -> tuple[Tensor, Tensor]:
    """The key of a site and the residual stream after a layer at a row's subject, by plain hooks."""
    seen = states(em, row, site, layer)
    return seen["key"], seen["hidden"]


def states(em: EditableModel, row: Row, site: Site, layer: int) -> dict[str, Tensor]:
    """At a row's subject, by plain hooks: the "key" of a site, what the site "written", and the residual
    stream after a layer, "hidden"."""
    seen: dict[str, Tensor] = {}

    def key(module: object, args: tuple[Tensor, ...], out: Tensor) -> None:
        seen["key"], seen["written"] = args[0][0, row.last].double(), out[0, row.last].double()

    def hidden(module: object, args: object, out: object) -> None:
        value = out[0] if isinstance(out, tuple) else out
        assert isinstance(value, Tensor)
        seen["hidden"] = value[0, row.last].double()

    handles = [em.site(site).register_forward_hook(key), em.block(layer).register_forward_hook(hidden)]
    with torch.no_grad():
        em.model(input_ids=torch.tensor([row.ids]))
    for handle in handles:
        handle.remove()
    return seen


def memit_keys(em: EditableModel, rows: Sequence[Row], site: Site, last: int) -> tuple[Tensor, Tensor]:
    """(N, d_in) keys, the bare prompt one half and the contexts the other; (N, d) h[L] of bare prompts."""
    keys, hidden = [], []
    for n in range(max(r.fact for r in rows) + 1):
        found = [at_last(em, r, site, last) for r in rows if r.fact == n]
        others = [k for k, _ in found[1:]]
        keys.append((found[0][0] + torch.stack(others).mean(0)) / 2 if others else found[0][0])
        hidden.append(found[0][1])
    return torch.stack(keys), torch.stack(hidden)


def through_layers(
    em: EditableModel,
    rows: Sequence[Row],
    delta: Tensor,
    layers: Sequence[int],
    solve: Callable[[Site, Tensor, Tensor], Tensor],
    alpha: Mapping[int, float] | None = None,
) -> dict[Site, Tensor]:
    """MEMIT's algorithm 1 with a dense `solve(site, K, R)`, at both sites where a layer has an `alpha`; `em`
    keeps the changes. A layer's sites are both solved before either changes."""
    last = layers[-1]
    z = memit_keys(em, rows, Site(last, "mlp"), last)[1] + delta.double()
    found = {}
    for position, layer in enumerate(layers):
        share = (alpha or {}).get(layer, 0.0)
        own = {}
        for site, part in ((Site(layer, "attention"), share), (Site(layer, "mlp"), 1 - share)):
            if part:
                keys, hidden = memit_keys(em, rows, site, last)
                own[site] = solve(site, keys, part * (z - hidden) / (len(layers) - position))
        for site, change in own.items():
            add(em, site, change)
        found.update(own)
    return found


def near(found: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    """Equal up to a share of the expected size."""
    assert float((found.double() - expected).norm()) <= relative * float(expected.norm())
