"""Looking into a forward pass and changing it, by context managers that always remove what they put in.

Nothing here switches gradients off: parameters need none, so a graph is only built where a caller
puts in a tensor that does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.model.tokens import Batch

Change = Callable[[Tensor], Tensor]
"""Maps an output (b, t, d) to what stands in its place."""


Place = TypeVar("Place", Site, int)


@dataclass
class Captured:
    """What `run` saw: site inputs (b, t, d_in), site outputs and residual streams (b, t, d), logits."""

    inputs: dict[Site, Tensor] = field(default_factory=dict)
    outputs: dict[Site, Tensor] = field(default_factory=dict)
    hidden: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


@contextmanager
def replaced(
    em: EditableModel,
    sites: Mapping[Site, Change] | None = None,
    embeddings: Change | None = None,
    hidden: Mapping[int, Change] | None = None,
) -> Iterator[None]:
    """Interventions: each function gets an output (b, t, d) and returns what takes its place.

    `sites`: outputs of sites; `embeddings`: of the token embeddings; `hidden`: the residual stream
    after a layer.
    """
    with ExitStack() as stack:
        if embeddings is not None:
            stack.enter_context(behind(em.embeddings(), _changer(embeddings)))
        for site, change in (sites or {}).items():
            stack.enter_context(behind(em.site(site), _changer(change)))
        for layer, change in (hidden or {}).items():
            stack.enter_context(behind(em.block(layer), _changer(change)))
        yield


def run(
    em: EditableModel,
    batch: Batch,
    *,
    inputs: Collection[Site] = (),
    outputs: Collection[Site] = (),
    hidden: Collection[int] = (),
    stop: bool = True,
    logits: bool = False,
) -> Captured:
    """One forward pass that keeps what is asked for.

    `hidden[l]` is the residual stream after layer l. With `stop`, and unless `logits` are wanted,
    layers above the last one needed are not run. The captured values are those with the model's patches,
    and inside `replaced` with its change.
    """
    captured = Captured()
    layers = [s.layer for s in (*inputs, *outputs)] + list(hidden)
    if not layers and not logits:
        return captured
    with ExitStack() as stack:
        for site in inputs:
            stack.enter_context(before(em.site(site), _input_keeper(captured.inputs, site)))
        for site in outputs:
            stack.enter_context(keeping(em.site(site), captured.outputs, site))
        for layer in hidden:
            stack.enter_context(keeping(em.block(layer), captured.hidden, layer))
        if stop and not logits:
            stack.enter_context(stopping_after(em.block(max(layers))))
        result = forward(em, batch)
        if logits:
            assert result is not None
            captured.logits = result.logits
    for place in (captured.inputs, captured.outputs):
        _bring(place, em.device)
    _bring(captured.hidden, em.device)
    return captured


def _bring(kept: dict[Place, Tensor], device: torch.device) -> None:
    """Puts everything on one device: a model may lie on several."""
    for key, value in kept.items():
        kept[key] = value.to(device)


def forward(em: EditableModel, batch: Batch) -> Any | None:
    """The model's own forward pass without a cache; None when a hook stopped it."""
    try:
        with em.active():
            return em.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    except _Stopped:
        return None


def new_cache(em: EditableModel) -> Any:
    """An empty cache of keys and values for `forward_on`, as the model makes one itself."""
    from transformers import DynamicCache

    return DynamicCache(config=em.model.config)


def forward_on(em: EditableModel, cache: Any, **inputs: Any) -> Any:
    """A forward pass that reads transformers' `cache` and adds to it; without one where that is None.

    From transformers 5.24 on the argument is called `cache`, and its older name is deprecated.
    """
    name = "cache" if "cache" in signature(type(em.model).forward).parameters else "past_key_values"
    kept = {"use_cache": False} if cache is None else {name: cache, "use_cache": True}
    with em.active():
        return em.model(**inputs, **kept)


class _Stopped(Exception):
    """Ends a forward pass whose rest is not needed."""


def _stop(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    raise _Stopped


def _hidden_of(output: Any) -> Tensor:
    """A block returns the residual stream alone or first in a tuple, depending on the family."""
    value = output[0] if isinstance(output, tuple) else output
    assert isinstance(value, Tensor)
    return value


def _keeper(store: dict[Any, Tensor], key: Site | int) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        store[key] = _hidden_of(output)

    return keep


def _input_keeper(store: dict[Site, Tensor], key: Site) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        store[key] = args[0]

    return keep


def _changer(change: Change) -> Callable[..., Any]:
    def apply(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        new = change(_hidden_of(output))
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return apply


@contextmanager
def keeping(module: nn.Module, store: dict[Any, Tensor], key: Site | int) -> Iterator[None]:
    """Stores the module's output (for a block: the residual stream) under `key`."""
    with behind(module, _keeper(store, key)):
        yield


@contextmanager
def entering(block: nn.Module, store: dict[Any, Tensor], key: int) -> Iterator[None]:
    """Stores the residual stream that the block gets under `key`."""

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store[key] = args[0] if args else kwargs["hidden_states"]

    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def stopping_after(module: nn.Module) -> Iterator[None]:
    """`forward` ends once the module has run."""
    with behind(module, _stop):
        yield


@contextmanager
def stopping(module: nn.Module) -> Iterator[None]:
    """The forward pass inside ends once the module has run; the code after it goes on behind the `with`."""
    with stopping_after(module), suppress(_Stopped):
        yield


@contextmanager
def starting_from(block: nn.Module, hidden: Tensor) -> Iterator[None]:
    """The block gets `hidden` (b, t, d) as the residual stream, whatever came before."""

    def swap(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    handle = block.register_forward_pre_hook(swap, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def behind(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """`hook` runs after the module and the forward hooks that are there already; it may change the output."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def before(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """`hook` runs before the module, after the pre-hooks that are there already; it may change the
    positional arguments."""
    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
