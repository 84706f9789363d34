"""How fast a model's block, its head and matrix products are on a machine: measured in a second or two."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hubedit.cost.work import Work
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import behind, forward_on, new_cache, stopping

_ROW, _TAIL = 32, 8  # tokens of a row in a pass of prompts, and in one with a gradient
_PREFIX = 48  # tokens that stand before a step of generation
_FEW, _MANY = 4, 64  # rows of such a step
_SPAN = 0.05  # seconds that one pass should take
_REPEAT, _SWEEPS = 2, 2  # times that each kind is timed in a row, and that all of them are


def measure(em: EditableModel) -> Work:
    """Seconds of one of each kind of work, in the model's type on its device.

    Only the first block is run, as the model itself runs it, and the head; the best of several times, so that
    what else the machine does meanwhile is left out. All kinds are timed in turn, again and again: else one
    that falls into a slow moment would seem twice as slow.
    """
    timer = _Timer(em.unpatched)
    with torch.no_grad():
        timer.full(_ROW)  # sets things up
        few = timer.full(_ROW)
    most = 2048 if em.device.type == "cpu" else 8192
    count = int(min(most, max(_ROW, _ROW * _SPAN / max(few.block, 1e-9))))
    best = _Times(*map(min, zip(*(_times(timer, count) for _ in range(_SWEEPS)), strict=True)))
    row = max(0.0, (best.many - best.few) / (_MANY - _FEW))
    position = max(0.0, (best.head_many - best.head_few) / (_MANY - _FEW))
    return Work(
        tokens=best.token,
        gradients=best.gradient,
        steps=max(0.0, best.few - _FEW * row),
        rows=row,
        calls=best.call,
        heads=max(0.0, best.head_few - _FEW * position),
        entries=position / em.vocabulary,
        single=best.single,
        double=best.double,
        seconds=1.0,
    )


class _Times(NamedTuple):
    """Seconds of a token in the block, forward and with its gradient; of a step of generation there with few
    rows and with many, and outside the block; of the head with few and many; of an operation in a product."""

    token: float
    gradient: float
    few: float
    many: float
    call: float
    head_few: float
    head_many: float
    single: float
    double: float


def _times(timer: _Timer, count: int) -> _Times:
    """All of them once; `count`: tokens of a large pass."""
    device = timer.em.device
    with torch.no_grad():
        whole = timer.of(lambda: timer.full(count))
        few, many = timer.generated(_FEW), timer.generated(_MANY)
        heads = timer.head(_FEW), timer.head(_MANY)
    gradient = timer.of(lambda: timer.full(min(count, 512), _TAIL, gradient=True))
    return _Times(
        whole.block / whole.tokens,
        gradient.block / gradient.tokens,
        few.block,
        many.block,
        few.outside,
        *heads,
        _product(device, torch.float32),
        _product(device, torch.float64),
    )


class _Seconds:
    """`block`: in the first block; `outside`: in the rest of the pass; `tokens`: that went through."""

    def __init__(self, block: float, outside: float, tokens: int) -> None:
        self.block, self.outside, self.tokens = block, outside, tokens


class _Moment(NamedTuple):
    """On two clocks: of the world, and of what this process has computed."""

    world: float
    own: float

    def since(self, earlier: _Moment) -> float:
        """Seconds, without those in which the machine did something else."""
        return min(self.world - earlier.world, self.own - earlier.own)


def _now(device: torch.device) -> _Moment:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    world = time.perf_counter()
    return _Moment(world, time.process_time() if device.type == "cpu" else world)


class _Timer:
    """Times passes of a model that end behind its first block."""

    def __init__(self, em: EditableModel) -> None:
        self.em = em
        self.block = em.block(0)

    def of(self, run: Callable[[], _Seconds]) -> _Seconds:
        """The best of several."""
        found = [run() for _ in range(_REPEAT)]
        return _Seconds(min(one.block for one in found), min(one.outside for one in found), found[0].tokens)

    def full(self, tokens: int, row: int = _ROW, gradient: bool = False) -> _Seconds:
        """A pass of whole rows."""
        rows = max(1, tokens // row)
        x = self._input(rows, row).requires_grad_(gradient)
        mask = torch.ones(rows, row, dtype=torch.long, device=self.em.device)
        found: list[Tensor] = []
        with ExitStack() as stack:
            marks = stack.enter_context(self._marks())
            stack.enter_context(behind(self.block, lambda _, __, out: found.append(_first(out))))
            began = _now(self.em.device)
            with stopping(self.block):
                model: Any = self.em.model
                model(inputs_embeds=x, attention_mask=mask, use_cache=False)
            if gradient:
                torch.autograd.grad(found[0].float().sum(), x)
            ended = _now(self.em.device)
        block = (ended if gradient else marks[1]).since(marks[0])
        return _Seconds(block, ended.since(began) - block, rows * row)

    def generated(self, rows: int) -> _Seconds:
        """One step of generation behind a prefix, the best of a few."""
        cache = new_cache(self.em)
        found = []
        for step in range(_REPEAT + 2):
            width = 1 if step else _PREFIX
            whole = _PREFIX + step
            mask = torch.ones(rows, whole, dtype=torch.long, device=self.em.device)
            place = torch.arange(whole - width, whole, device=self.em.device).expand(rows, width)
            with self._marks() as marks:
                began = _now(self.em.device)
                with stopping(self.block):
                    forward_on(
                        self.em,
                        cache,
                        inputs_embeds=self._input(rows, width),
                        attention_mask=mask,
                        position_ids=place,
                    )
                ended = _now(self.em.device)
            block = marks[1].since(marks[0])
            found.append(_Seconds(block, ended.since(began) - block, rows))
        return self.of(iter(found[2:]).__next__)

    def head(self, positions: int) -> float:
        """Seconds of all predictions at some positions, with the softmax."""
        hidden = self._input(1, positions)[0]
        times = []
        for _ in range(_REPEAT):
            began = _now(self.em.device)
            self.em.head_logits(hidden).float().log_softmax(-1)
            times.append(_now(self.em.device).since(began))
        return min(times)

    def _input(self, rows: int, width: int) -> Tensor:
        em = self.em
        return torch.full((rows, width, em.hidden_size), 0.1, dtype=em.dtype, device=em.device)

    @contextmanager
    def _marks(self) -> Iterator[list[_Moment]]:
        """Gets the times at which the block begins and ends."""
        marks: list[_Moment] = []

        def mark(module: nn.Module, *_: object) -> None:
            marks.append(_now(self.em.device))

        first = self.block.register_forward_pre_hook(mark)
        last = self.block.register_forward_hook(mark)
        try:
            yield marks
        finally:
            first.remove()
            last.remove()


def _first(output: Any) -> Tensor:
    value = output[0] if isinstance(output, tuple) else output
    assert isinstance(value, Tensor)
    return value


def _product(device: torch.device, kind: torch.dtype) -> float:
    """Seconds of one floating-point operation in a matrix product; where the device lacks the type, of the
    CPU."""
    place = "cpu" if device.type == "mps" and kind is torch.float64 else device
    size = 1024 if device.type == "cpu" else 4096
    a, b = (torch.ones(shape, dtype=kind, device=place) for shape in ((size // 2, size), (size, size)))
    times = []
    for _ in range(_REPEAT + 1):  # the first sets things up
        began = _now(a.device)
        float((a @ b)[0, 0])  # waits for a GPU
        times.append(_now(a.device).since(began))
    return min(times[1:]) / size**3  # 2 * size / 2 * size * size
