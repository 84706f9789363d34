"""Tasks of the harness: local ones offline, and clear errors where it is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hubedit.errors import ConfigError
from hubedit.evaluate.harness import (
    Score,
    Task,
    _scores,
    locate,
    require,
    run_task,
    task_key,
    tasks_json,
    unique,
)
from hubedit.model.editable import EditableModel
from tests.model.test_hooks import random_factors

Editable = Callable[..., EditableModel]

QUESTIONS = [("The capital of France is", "Paris"), ("The capital of Italy is", "Rome")]
GENERATE = """
task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    train: {file}
    test: {file}
output_type: generate_until
training_split: train
fewshot_split: train
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: " {{{{answer}}}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 4
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
CHOOSE = """
task: capital_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["Paris", "Rome", "Tokyo"]
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two tasks over two questions."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "tasks"
    folder.mkdir()
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in QUESTIONS))
    (folder / "generate.yaml").write_text(GENERATE.format(file=file))
    (folder / "choose.yaml").write_text(CHOOSE.format(file=file))
    return folder


def test_task_names_and_examples() -> None:
    assert unique(["gsm8k", " hellaswag ", "gsm8k:5", "gsm8k"]) == (
        Task("gsm8k", 2),
        Task("hellaswag"),
        Task("gsm8k", 5),
    )
    for wrong in ("", ":3", "gsm8k:", "gsm8k:two"):
        with pytest.raises(ConfigError, match="no task"):
            Task.parse(wrong)


def test_a_task_is_named_by_its_file(tasks: Path, tmp_path: Path) -> None:
    file = tasks / "generate.yaml"
    assert locate([f"{file}:1", f"{tasks / 'choose.yaml'}"]) == (
        (Task("capitals", 1), Task("capital_choice")),
        tasks,
    )
    assert locate(["gsm8k", str(file)], tasks) == ((Task("gsm8k", 2), Task("capitals")), tasks)
    assert locate(["gsm8k"], tmp_path) == ((Task("gsm8k", 2),), tmp_path)
    with pytest.raises(ConfigError, match="is not in"):
        locate([str(file)], tmp_path)
    with pytest.raises(ConfigError, match="cannot read"):
        locate([str(tasks / "none.yaml")])
    (tasks / "empty.yaml").write_text("dataset_path: json\n")
    with pytest.raises(ConfigError, match="defines no task"):
        locate([str(tasks / "empty.yaml")])


def test_without_the_harness_the_extra_is_named(editable: Editable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match="lm-eval") as failure:
        require()
    assert "hubedit[eval]" in failure.value.hint
    with pytest.raises(ConfigError, match="lm-eval"):
        run_task(editable(), Task("gsm8k"))


@pytest.mark.slow
def test_local_tasks_run_offline_before_and_after(editable: Editable, tasks: Path) -> None:
    pytest.importorskip("lm_eval")
    em = editable("llama")
    settings = em.model.generation_config.to_dict()
    padding = em.tokenizer.padding_side
    edited = em.with_patch(random_factors(em, scale=2.0))
    choice = Task("capital_choice", 0)
    plain, changed = (run_task(side, choice, folder=tasks) for side in (em, edited))
    assert plain["acc"].n == changed["acc"].n == 2
    assert plain["acc"].value == pytest.approx(by_hand(em), abs=1e-6)
    with edited.active():
        assert changed["acc"].value == pytest.approx(by_hand(em), abs=1e-6)
    found = run_task(em, Task("capitals", 1), folder=tasks, limit=1)
    assert found["exact_match"].n == 1 and found["exact_match"].value in (0.0, 1.0)
    assert em.tokenizer.padding_side == padding
    assert em.model.generation_config.to_dict() == settings
    with pytest.raises(ConfigError, match="no folder"):
        run_task(em, choice, folder=tasks / "choose.yaml")


def test_a_task_that_nobody_knows(editable: Editable, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = pytest.importorskip("lm_eval.tasks")

    class Nothing:
        all_tasks: tuple[str, ...] = ()

        def __init__(self, **_: object) -> None: ...

    # its own definitions take long to read
    monkeypatch.setattr(harness, "TaskManager", Nothing)
    with pytest.raises(ConfigError, match="knows no task no_such_task"):
        run_task(editable(), Task("no_such_task"))


def by_hand(em: EditableModel) -> float:
    """Share of the questions whose right answer has the largest total probability of the three."""
    from hubedit.evaluate.forced import forced

    right = 0
    for question, answer in QUESTIONS:
        choices = ["Paris", "Rome", "Tokyo"]
        found = forced(em, [(question, choice) for choice in choices])
        total = [found[question, choice].logp * len(found[question, choice].labels) for choice in choices]
        right += choices[total.index(max(total))] == answer
    return right / len(QUESTIONS)


def test_the_files_of_a_task_are_part_of_its_key(tasks: Path) -> None:
    task = Task("capitals", 0)
    first = task_key(task, tasks, 0)
    assert task_key(task, tasks, 0) == first
    assert task_key(task, tasks, 5) != first != task_key(Task("capitals", 1), tasks, 0)
    (tasks / "questions.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    assert task_key(task, tasks, 0) != first
    assert task_key(task, None, 0)["files"] == ""


def test_only_definitions_and_the_data_they_name_are_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\ndataset_kwargs: {data_files: {test: data/own.jsonl}}\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own.jsonl").write_text("{}\n")
    keys = [task_key(Task("mine"), tmp_path, 0)]
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "data" / "other.jsonl").write_text("{}\n")
    assert task_key(Task("mine"), tmp_path, 0) == keys[0], "what is written beside it changes nothing"
    (tmp_path / "data" / "own.jsonl").write_text('{"question": "a"}\n')
    keys.append(task_key(Task("mine"), tmp_path, 0))
    (tmp_path / "more.py").write_text("def answer(doc): return doc\n")
    keys.append(task_key(Task("mine"), tmp_path, 0))
    (tmp_path / "mine.yaml").write_text("task: mine\ndataset_path: data\n")
    keys.append(task_key(Task("mine"), tmp_path, 0))
    (tmp_path / "data" / "other.jsonl").write_text('{"question": "b"}\n')
    keys.append(task_key(Task("mine"), tmp_path, 0))
    assert len({key["files"] for key in keys}) == len(keys)


def test_scores_are_read_from_the_harness_result() -> None:
    results = {
        "alias": "gsm8k",
        "exact_match,strict-match": 0.5,
        "exact_match_stderr,strict-match": 0.1,
        "acc,none": 0.25,
        "acc_stderr,none": "N/A",
        "bad,none": float("nan"),
    }
    data = {"results": {"gsm8k": results}, "n-samples": {"gsm8k": {"original": 9, "effective": 4}}}
    assert _scores(data, "gsm8k") == {
        "exact_match,strict-match": Score(0.5, 0.1, 4),
        "acc": Score(0.25, None, 4),
    }
    group = {"results": {}, "groups": {"all": {"acc,none": 1.0}}, "n-samples": {"a": {"effective": 2}}}
    assert _scores(group, "all") == {"acc": Score(1.0, None, 2)}


def test_tasks_in_the_report() -> None:
    old, new = {"t": {"acc": Score(0.5, 0.1, 4)}}, {"t": {"acc": Score(0.4, None, 4)}}
    assert tasks_json(old, new) == {"t": {"acc": {"before": 0.5, "stderr_before": 0.1, "after": 0.4, "n": 4}}}
    assert tasks_json({}, {}) == {}
    # nothing right: an error of 0 would mean certainty
    none = {"t": {"exact_match,strict": Score(0.0, 0.0, 20), "bleu": Score(0.0, 0.0, 20)}}
    found = tasks_json(none, none)["t"]
    assert found["exact_match,strict"]["interval"] == pytest.approx([0, 0.1611], abs=1e-4)
    assert found["exact_match,strict"]["interval"] == found["exact_match,strict"]["interval_before"]
    assert "stderr_after" not in found["exact_match,strict"] and found["bleu"]["stderr_after"] == 0
