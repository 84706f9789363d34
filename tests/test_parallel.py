"""Several processes give what one gives, rank 0 alone writes and prints, and an error anywhere ends all."""

from __future__ import annotations

import json
import multiprocessing
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.facts import to_record
from hubedit.model.editable import EditableModel
from hubedit.parallel import Share, gathered, hold, serve, summed, team, world
from hubedit.patch import Patch
from tests.edit.editing import FACTS
from tests.model.test_hooks import random_factors

fork = multiprocessing.get_context("fork")  # the children have torch and the pico models already
Task = Callable[[int, Any], None]


def both(task: Task, size: int = 2) -> list[Any]:
    """Calls `task(rank, queue)` in processes as torchrun starts them; what they put, in order of rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = fork.Queue()

    def started(rank: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": size,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }.items():
                patch.setenv(name, str(value))
            task(rank, queue)

    processes = [fork.Process(target=started, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=500) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * size
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


def command(arguments: Sequence[str], folder: Path) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of every rank of one command line."""

    def task(rank: int, queue: Any) -> None:
        import sys

        from hubedit.cli import app

        names = [folder / f"{rank}.out", folder / f"{rank}.err"]
        with names[0].open("w") as out, names[1].open("w") as err:
            sys.stdout, sys.stderr, sys.argv = out, err, ["hubedit", *arguments]
            try:
                app.main()
            except SystemExit as stop:
                code = stop.code
        queue.put((rank, (code, *(name.read_text() for name in names))))

    return both(task)


@pytest.fixture
def facts_file(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(to_record(f)) + "\n" for f in FACTS[:2]), encoding="utf-8")
    return path


def test_an_edit_by_two_processes_is_the_edit_by_one(
    pico_path: Callable[..., Path], facts_file: Path, tmp_path: Path
) -> None:
    from hubedit.cli.app import run

    options = [
        "--layers",
        "1-2",
        "--tokens",
        "600",
        "--quiet",
    ]
    start = ["apply", str(facts_file), "--model", str(pico_path("qwen2")), *options, "--quiet"]
    assert run([*start, "--out", str(tmp_path / "one"), "--cache", str(tmp_path / "c1")]) == 0
    told = command([*start, "--out", str(tmp_path / "two"), "--cache", str(tmp_path / "c2")], tmp_path)
    assert told[0][0] == told[1][0] == 0, told
    assert str(tmp_path / "two") in told[0][1]
    assert told[1][1:] == ("", ""), "the other process says nothing"
    one, two = Patch.load(tmp_path / "one"), Patch.load(tmp_path / "two")
    assert one.factors.keys() == two.factors.keys() and len(one.factors) >= 2
    for name, factor in one.factors.items():
        other = two.factors[name].dense()
        assert float((factor.dense() - other).norm() / other.norm()) < 5e-3, name
    assert one.record["alpha"] == pytest.approx(two.record["alpha"], rel=1e-3)
    assert not list((tmp_path / "c2").glob("stats-partial/*.safetensors"))


def ranks(em: EditableModel, share: Share, word: str, progress: object = None) -> tuple[int, str, float]:
    return share.rank, word, float(sum(f.norm() for f in em.change.values()))


def ones(em: EditableModel, share: Share, progress: object = None) -> dict[str, torch.Tensor]:
    return {"n": torch.tensor(float(len(share.of(range(5))))), "r": torch.tensor(float(share.rank))}


def failing(em: EditableModel, share: Share, rank: int, progress: object = None) -> None:
    if share.rank == rank:
        raise ValueError(f"no luck on {rank}")


def test_tasks_run_on_every_rank_in_the_same_state(
    editable: Callable[..., EditableModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable()
    monkeypatch.setattr("tests.test_parallel._HELD", em)

    def task(rank: int, queue: Any) -> None:
        found: list[Any] = []
        with team() as share:
            if rank:
                serve()
            else:
                shared = hold(_held)
                patched = shared.with_patch(random_factors(em))
                found = gathered(ranks, patched, "word")
                found.append({k: float(v) for k, v in summed(ones, shared).items()})
            assert share == Share(rank, 2)
        queue.put((rank, found))

    first, second = both(task)
    assert second == []
    assert [f[:2] for f in first[:2]] == [(0, "word"), (1, "word")]
    assert first[0][2] == pytest.approx(first[1][2], rel=1e-5) and first[0][2] > 0
    assert first[2] == {"n": 5.0, "r": 1.0}


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_is_one_error_and_the_team_goes_on(
    rank: int, editable: Callable[..., EditableModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_parallel._HELD", editable())

    def task(own: int, queue: Any) -> None:
        said: list[Any] = []
        with team():
            if own:
                serve()
            else:
                shared = hold(_held)
                try:
                    gathered(failing, shared, rank)
                except Exception as error:
                    said = [str(error), len(gathered(ranks, shared, ""))]
        queue.put((own, said))

    first, second = both(task)
    assert f"no luck on {rank}" in first[0] and first[1] == 2
    assert second == []


def test_a_model_that_cannot_be_loaded_is_one_message(facts_file: Path, tmp_path: Path) -> None:
    told = command(["apply", str(facts_file), "--model", str(tmp_path / "none")], tmp_path)
    assert told[0][0] == 1 and told[0][2].count("error:") == 1
    assert told[1] == (0, "", "")


def test_one_process_needs_no_team(editable: Callable[..., EditableModel]) -> None:
    em = hold(editable)
    assert world() == Share() and not em.shared
    assert gathered(ranks, em, "a") == [(0, "a", 0.0)]
    with pytest.raises(ValueError, match="no luck"):
        gathered(failing, em, 0)
    with team() as share:
        assert share == Share()


_HELD: EditableModel | None = None


def _held() -> EditableModel:
    """Stands for `load`: the other process finds the model where the fork left it."""
    assert _HELD is not None
    return _HELD
