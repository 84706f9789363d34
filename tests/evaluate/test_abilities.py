"""The default set of abilities: names, and grade-school questions from a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hubedit.errors import ConfigError
from hubedit.evaluate.abilities import FILE_TASK, QUESTIONS, abilities
from hubedit.evaluate.harness import Task, run_task, task_key
from hubedit.model.editable import EditableModel


def questions(path: Path, count: int) -> Path:
    rows = [
        {"question": f"What is {n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_default_set_asks_two_hundred_questions_of_each() -> None:
    tasks, folder = abilities("hub")
    assert folder is None
    assert [task.name for task in tasks] == ["mmlu", "gsm8k", "arc_challenge", "ifeval", "truthfulqa_mc2"]
    limits = {task.name: task.limit for task in tasks}
    assert limits["mmlu"] == 4 and set(limits.values()) == {4, QUESTIONS}
    assert task_key(tasks[1], None, 0)["limit"] == QUESTIONS and task_key(tasks[1], None, 7)["limit"] == 7


def test_a_file_of_questions_is_a_task_with_two_examples(tmp_path: Path) -> None:
    tasks, folder = abilities(str(questions(tmp_path / "q.jsonl", QUESTIONS + 9)))
    assert tasks == (Task(FILE_TASK, 2),) and folder is not None
    rows = [(folder / name).read_text().splitlines() for name in ("train.jsonl", "test.jsonl")]
    assert [len(part) for part in rows] == [2, QUESTIONS]
    assert not set(rows[0]) & set(rows[1])
    assert abilities(str(tmp_path / "q.jsonl")) == (tasks, folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"question": "?"}\n', ":1: no question with its answer"),
        ("[]\n", ":1: no question with its answer"),
        ("{\n", ":1: invalid JSON"),
        ('{"question": "?", "answer": "1"}\n' * 2, "has 2 questions"),
    ],
)
def test_files_that_hold_no_questions(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        abilities(str(file))
    with pytest.raises(ConfigError, match="cannot read"):
        abilities(str(tmp_path / "none.jsonl"))


@pytest.mark.slow
def test_the_harness_runs_questions_from_a_file(
    editable: Callable[..., EditableModel], tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    (task,), folder = abilities(str(questions(tmp_path / "q.jsonl", 5)))
    scores = run_task(editable("llama"), task, folder=folder)
    (score,) = scores.values()
    assert score.n == 3 and score.value == 0
