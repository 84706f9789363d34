"""The results file: appended, locked, tolerant of a kill."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from hubedit.bench.results import FILE, Results


def row(key: str) -> dict[str, object]:
    return {"key": key, "cell": {"seed": 0}, "text": "ä" * 500}


def test_half_a_line_is_told_and_costs_no_other(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.append(row("a"))
    with (tmp_path / FILE).open("ab") as stream:
        stream.write(b'{"key": "b", "cell": {"se\xc3')  # a kill cut a letter in two
    assert [r["key"] for r in results.read().rows] == ["a"]
    assert results.read().problems == (f"{FILE}:2: no result, cut off by a kill? It is left out",)
    results.append(row("c"))
    read = results.read()
    assert [r["key"] for r in read.rows] == ["a", "c"] and len(read.problems) == 1


def test_a_later_row_of_a_key_counts(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.append({**row("a"), "error": {}})
    results.append(row("a"))
    assert "error" not in results.read().by_key["a"] and len(results.read().rows) == 2


def test_no_file_is_no_row(tmp_path: Path) -> None:
    assert Results(tmp_path / "none").read().rows == ()


def _append(folder: Path, name: str) -> None:
    for number in range(40):
        Results(folder).append(row(f"{name}{number}"))


def _hold(folder: Path, started: Event, stop: Event) -> None:
    with Results(folder).claim("key") as mine:
        assert mine
        started.set()
        stop.wait()


def test_processes_write_whole_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(tmp_path, name)) for name in "xyz"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    read = Results(tmp_path).read()
    assert len(read.rows) == len(read.by_key) == 120 and not read.problems


def test_a_claim_excludes_and_dies_with_its_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started, stop = context.Event(), context.Event()
    worker = context.Process(target=_hold, args=(tmp_path, started, stop))
    worker.start()
    assert started.wait(60)
    with Results(tmp_path).claim("key") as mine:
        assert not mine
    with Results(tmp_path).claim("other") as mine:
        assert mine
    worker.kill()  # no chance to tidy up
    worker.join()
    with Results(tmp_path).claim("key") as mine:
        assert mine
    assert not list((tmp_path / "claims").iterdir())


def test_a_benchmark_that_begins_meanwhile_is_no_strange_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, real = Results(tmp_path / "out"), Path.iterdir
    (tmp_path / "out").mkdir()

    def begun(folder: Path) -> Iterator[Path]:
        (tmp_path / "out" / "claims").mkdir()  # by another process, while this one looks
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", begun)
    own.check()
