"""Out of memory: known in every device's words, answered with smaller batches, nothing done twice."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.environment import peak_memory
from hubedit.errors import HubEditError
from hubedit.model.memory import (
    CPU_PASS,
    TokenBudget,
    _malloc_trim,
    fitting,
    forget_peak,
    out_of_memory,
    pass_size,
    release,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_it_is_known_in_every_devices_words(error: Exception) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch"), ValueError("out of memory"), KeyboardInterrupt()]
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert not out_of_memory(error)


def test_the_real_thing_on_this_machine() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert out_of_memory(caught.value)
    release(CPU)


def split(items: Sequence[list[int]], budget: int) -> list[list[list[int]]]:
    """Items of `item[0]` tokens, the longest last as in `hubedit.edit.rows.chunks`."""
    parts: list[list[list[int]]] = []
    for item in sorted(items):
        if parts and sum(i[0] for i in parts[-1]) + item[0] <= budget:
            parts[-1].append(item)
        else:
            parts.append([item])
    return parts


@given(
    st.lists(st.integers(1, 30), max_size=12),
    st.integers(40, 400),
    st.lists(st.booleans(), max_size=3),
    st.sampled_from([MemoryError(), torch.OutOfMemoryError("full")]),
)
def test_every_item_is_worked_on_once(
    sizes: list[int], room: int, more: list[bool], error: Exception
) -> None:
    """Whatever fits at the moment: the device may also get fuller while the work goes on."""
    items = [[n] for n in sizes]
    done: list[list[int]] = []
    surprises = list(more)

    def work(part: list[list[int]]) -> None:
        if sum(i[0] for i in part) > room or (len(part) > 1 and surprises and surprises.pop()):
            raise error
        done.extend(part)

    fitting(items, split, work, 1000, CPU)
    assert sorted(map(id, done)) == sorted(map(id, items))


def test_a_part_that_cannot_be_cut_is_said_plainly_and_at_once() -> None:
    items, tried = [[5], [9], [6]], []

    def work(part: list[list[int]]) -> None:
        tried.append(len(part))
        if [9] in part:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(HubEditError, match="one fact at a time") as caught:
        fitting(items, split, work, 256, CPU)
    assert tried == [3, 2, 1], "5 + 6 + 9, then 5 + 6, then 9 alone"
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_no_batch_is_tried_twice() -> None:
    """A budget far above what there is shrinks at once to where it cuts something."""
    items: list[list[int]] = [[3], [4], [5]]
    tried: list[tuple[int, ...]] = []

    def work(part: list[list[int]]) -> None:
        tried.append(tuple(i[0] for i in part))
        if len(part) > 1:
            raise MemoryError

    fitting(items, split, work, 10**6, CPU)
    assert len(set(tried)) == len(tried)
    assert sorted(t for t in tried if len(t) == 1) == [(3,), (4,), (5,)]


def test_an_error_of_another_kind_passes_through() -> None:
    def work(part: list[list[int]]) -> None:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        fitting([[1]], split, work, 256, CPU)


@given(st.lists(st.integers(1, 20), min_size=1), st.integers(1, 60))
def test_a_budget_takes_every_row_once_within_its_tokens(lengths: list[int], tokens: int) -> None:
    budget, start = TokenBudget(CPU, tokens), 0
    while start < len(lengths):
        end = budget.take(lengths, start)
        assert end > start
        assert end == start + 1 or max(lengths[start:end]) * (end - start) <= tokens
        start = end
    assert start == len(lengths)


def test_a_budget_shrinks_below_the_batch_that_failed() -> None:
    full = torch.OutOfMemoryError("full")
    budget = TokenBudget(CPU, 1000)
    budget.shrink(full, 4, 10)
    assert budget.tokens == 20
    with pytest.raises(HubEditError, match="one prompt of 10 tokens"):
        budget.shrink(full, 1, 10)
    with pytest.raises(ValueError, match="other"):
        budget.shrink(ValueError("other"), 4, 10)
    assert TokenBudget(CPU).tokens < TokenBudget(torch.device("cuda")).tokens


@pytest.mark.parametrize(
    ("device", "places", "size"),
    [("cpu", None, CPU_PASS), ("cuda", None, 8192), ("cpu", {"model": "disk"}, 8192)],
)
def test_passes_are_small_on_a_cpu_that_holds_the_model(
    device: str, places: dict[str, str] | None, size: int
) -> None:
    em: Any = SimpleNamespace(device=torch.device(device), model=SimpleNamespace(hf_device_map=places))
    assert pass_size(em, 8192) == size
    assert pass_size(em, 64) == 64
    assert pass_size(em, 8192, 512) == (512 if size == CPU_PASS else size)


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks can be forgotten on Linux alone"
)
def test_a_peak_is_forgotten() -> None:
    held = bytearray(200 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    high = peak_memory(CPU)["process"]
    del held
    forget_peak(CPU)
    forgotten = peak_memory(CPU)["process"] < high - (100 << 20)
    assert forgotten is Path("/proc/self/clear_refs").exists()


@pytest.mark.skipif(_malloc_trim() is None, reason="only glibc can be told to")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident() -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1]) // 1024

    small = [bytearray(b"x" * 65536) for _ in range(2000)]  # 125 MB, too small to be mapped one by one
    last = small.pop()  # above them all in the heap, so that nothing can be cut off behind it
    full = resident()
    small.clear()
    release(CPU)
    assert resident() < full - 80 and last


def test_another_c_library_has_nothing_to_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert _malloc_trim() is None
    release(CPU)
