"""One run on several processes: `torchrun --nproc-per-node 2 -m hubedit apply ...`.

Rank 0 runs the whole program. The others `serve`: they load the same model when rank 0 does, wait for a
task, do their share of it, and hand it back. So no two ranks have to decide the same thing alike, only
rank 0 writes and prints, and an error anywhere ends as one error on rank 0. With one process, `summed` and
`gathered` just call the task.

A task is a function of a module, `task(em, share, *arguments, progress=None)`; `share` says which part.
The patches of rank 0's model are in effect for the task on every rank.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hubedit.errors import HubEditError
from hubedit.model.editable import EditableModel

T = TypeVar("T")

_WAIT = timedelta(days=7)  # the others wait through whatever rank 0 does alone


@dataclass(frozen=True)
class Share:
    """Part `rank` of `size` equal ones."""

    rank: int = 0
    size: int = 1

    def of(self, items: Sequence[T]) -> list[T]:
        """Every `size`-th item: neighbours are alike in length, so the parts take about the same time."""
        return list(items[self.rank :: self.size])


def world() -> Share:
    """This process among all of them; (0, 1) outside `team`."""
    if dist.is_available() and dist.is_initialized():
        return Share(dist.get_rank(), dist.get_world_size())
    return Share()


def launched() -> Share:
    """What torchrun says in the environment, before anything is set up."""
    return Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def team() -> Iterator[Share]:
    """Joins the processes that torchrun started; nothing to do with one. When rank 0 leaves, all end."""
    if launched().size < 2:
        yield Share()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_WAIT)
    share = world()
    try:
        yield share
    finally:
        try:
            if share.rank == 0:
                _send(None)
        finally:
            dist.destroy_process_group()


def hold(load: Callable[..., EditableModel], *arguments: Any, **options: Any) -> EditableModel:
    """`load(*arguments, **options)` on every rank, so that tasks on this model are shared. Rank 0 only."""
    if world().size == 1:
        return load(*arguments, **options)
    _send(("load", load, arguments, options))
    return replace(_together(lambda: load(*arguments, **options)), shared=True)


def serve() -> None:
    """What the ranks other than 0 do, until rank 0 leaves `team`."""
    em: EditableModel | None = None
    while (order := _receive()) is not None:
        kind, task, arguments, options = order
        try:
            if kind == "load":
                em = None  # the older one's memory comes first
                em = replace(_together(partial(task, *arguments, **options)), shared=True)
            elif em is not None:
                moved = em
                for factors in options:
                    moved = moved.with_patch(factors)
                _take_part(kind, task, moved, arguments)
        except _Left:
            continue


class _Left(Exception):
    """Ends a task on a rank other than 0: rank 0 tells what happened."""


def summed(
    task: Callable[..., dict[str, Tensor]], em: EditableModel, *arguments: Any, progress: Any = None
) -> dict[str, Tensor]:
    """Calls the task on every rank; the sum over ranks of each tensor it returns. Rank 0 only."""
    result: dict[str, Tensor] = _order(task, em, arguments, "sum", progress)
    return result


def gathered(task: Callable[..., T], em: EditableModel, *arguments: Any, progress: Any = None) -> list[T]:
    """Calls the task on every rank; what each of them returns, by rank. Rank 0 only."""
    result: list[T] = _order(task, em, arguments, "list", progress)
    return result


def _order(task: Any, em: EditableModel, arguments: tuple[Any, ...], kind: str, progress: Any) -> Any:
    if em.shared:
        patches = [{site: f.to("cpu") for site, f in factors.items()} for factors in em.patches]
        _send((kind, task, arguments, patches))
    return _take_part(kind, task, em, arguments, progress)


def _take_part(
    kind: str, task: Any, em: EditableModel, arguments: tuple[Any, ...], progress: Any = None
) -> Any:
    if not em.shared:
        value = task(em, Share(), *arguments, progress=progress)
        return value if kind == "sum" else [value]
    share = world()
    value = _together(lambda: task(em, share, *arguments, progress=progress))
    if kind == "sum":
        for name in sorted(value):
            dist.all_reduce(value[name])
        return value
    found: list[Any] | None = [None] * share.size if share.rank == 0 else None
    dist.gather_object(value, found)
    return found


def _together(action: Callable[[], T]) -> T:
    """`action` on every rank. Where one fails, rank 0 raises its error, and the others _Left."""
    share = world()
    done: list[T] = []
    failure: Exception | None = None
    try:
        done.append(action())
    except Exception as error:  # whatever it is has to reach rank 0, or all would wait for ever
        failure = error
    told: list[Any] = [None] * share.size
    dist.all_gather_object(told, None if failure is None else _portable(failure, share))
    if any(told):
        if share.rank > 0:
            raise _Left
        raise failure or next(error for error in told if error is not None)
    return done[0]


def _portable(failure: Exception, share: Share) -> HubEditError:
    """The error of a rank as one that any rank can raise; its traceback comes along for --debug."""
    if isinstance(failure, HubEditError):
        error = HubEditError(failure.message, failure.hint, failure.problems)
        error.exit_code = failure.exit_code
    else:
        text = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        error = HubEditError(f"process {share.rank} of {share.size} failed: {type(failure).__name__}: {text}")
    error.add_note("".join(traceback.format_exception(failure)))
    return error


def _send(order: Any) -> None:
    dist.broadcast_object_list([order], src=0, device=torch.device("cpu"))


def _receive() -> Any:
    box: list[Any] = [None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]
