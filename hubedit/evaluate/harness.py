"""General abilities: tasks of EleutherAI's lm-evaluation-harness, run on the model in memory.

GSM8K has two examples in front, as in the tables of the method's authors; other tasks have what their own
definition says. `name:N` asks for N examples.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

from hubedit.errors import ConfigError
from hubedit.evaluate.bootstrap import wilson
from hubedit.model.editable import EditableModel

SHOTS = {"gsm8k": 2}
_SHARES = ("acc", "acc_norm", "exact_match")
_FILE = re.compile(r"(.+\.ya?ml)(:\d+)?")
_DEFINITIONS = (".yaml", ".yml", ".py")
# a name of a file may be at most so long
_WORD = re.compile(r"(?<![^\s\"'\[\]{},])[^\s\"'\[\]{},]{1,200}(?![^\s\"'\[\]{},])")
_DATA = re.compile(r"\b(?:dataset_path|data_dir):[ \t]*[\"']?([^\s\"',}]{1,200})")
_INSTALL = "pip install 'hubedit[eval]'"


@dataclass(frozen=True)
class Task:
    """A task of the harness by name. `shots`: examples in front of each question (None: the task's own);
    `limit`: how many of its questions, from the first on, where a run says nothing of it (0: all)."""

    name: str
    shots: int | None = None
    limit: int = 0

    @classmethod
    def parse(cls, text: str) -> Task:
        """`gsm8k` or `gsm8k:5`. Raises ConfigError."""
        name, colon, shots = text.strip().partition(":")
        if not name or (colon and not shots.isdecimal()):
            raise ConfigError(f"no task: {text!r}", "write its name, or name:N for N examples in front")
        return cls(name, int(shots) if colon else SHOTS.get(name))


@dataclass(frozen=True)
class Score:
    """`value`, its standard `error` (None where the harness gives none) and `n` questions."""

    value: float
    error: float | None
    n: int


def require(tasks: Sequence[Task] = (), folder: Path | None = None) -> None:
    """Raises ConfigError unless the harness is installed and knows the tasks. `folder`: as for `run_task`."""
    _module("lm_eval")
    _check_folder(folder)
    if tasks:
        with _silent():
            _manager(tasks, folder)


def _check_folder(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", "give the folder that holds the tasks' YAML files")


def release() -> dict[str, str]:
    """Name and version of the harness; empty where it is not installed."""
    try:
        return {"lm_eval": version("lm_eval")}
    except PackageNotFoundError:
        return {}


def task_key(task: Task, folder: Path | None, limit: int) -> dict[str, Any]:
    """What a task's result depends on, apart from the model. `folder`: with definitions of one's own; of them
    and of the data that they name the content counts, of nothing else that lies there."""
    files = _sources(folder) if folder is not None else []
    content = hashlib.sha256()
    for file in files:
        content.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return {
        "task": task.name,
        "shots": task.shots,
        "limit": limit or task.limit,
        **release(),
        "files": content.hexdigest() if files else "",
    }


def _sources(folder: Path) -> list[Path]:
    """The definitions in a folder, then the files and folders of data that their text names."""
    definitions = sorted(f for f in folder.rglob("*") if f.suffix in _DEFINITIONS and f.is_file())
    found = list(definitions)
    for file in definitions:
        text = file.read_text(encoding="utf-8", errors="replace")
        # the harness looks for data from where it runs; people write it beside the definition
        named = [place / word for word in _WORD.findall(text) for place in (Path(), folder)]
        found += [path for path in named if path.is_file()]
        folders = [place / word for word in _DATA.findall(text) for place in (Path(), folder)]
        found += [f for path in folders if path.is_dir() for f in sorted(path.rglob("*")) if f.is_file()]
    return list(dict.fromkeys(found))


def run_task(
    em: EditableModel, task: Task, *, folder: Path | None = None, limit: int = 0, seed: int = 0
) -> dict[str, Score]:
    """Scores by metric ("exact_match,strict-match"). `folder`: task definitions (YAML) of one's own;
    `limit`: how many questions, from the first on (0: all); `seed`: of the choice of examples.

    Raises ConfigError when the harness is not installed, the task is not known, or its data cannot be read.
    """
    harness, models = _module("lm_eval"), _module("lm_eval.models.huggingface")
    _check_folder(folder)
    with _silent(), em.active():
        manager = _manager([task], folder)
        # the harness sets padding on the tokenizer it is given
        model = models.HFLM(
            pretrained=em.model,
            tokenizer=copy.deepcopy(em.tokenizer),
            batch_size=16 if em.device.type == "cpu" else "auto",
            max_length=em.max_positions,
        )
        try:
            found = harness.simple_evaluate(
                model=model,
                tasks=[task.name],
                num_fewshot=task.shots,
                limit=limit or task.limit or None,
                task_manager=manager,
                bootstrap_iters=1000,
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
                apply_chat_template=em.chat is not None,
                fewshot_as_multiturn=em.chat is not None,
                system_instruction=em.chat.system or None if em.chat is not None else None,
            )
        except (OSError, ValueError, KeyError, ConnectionError, ImportError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"task {task.name} cannot be run: {first}",
                "its data comes from the Hub; --task-path DIR names tasks with files of your own",
            ) from error
    return _scores(found, task.name)


def _manager(tasks: Sequence[Task], folder: Path | None) -> Any:
    """What the harness knows of tasks; its own definitions take seconds to read, so the folder goes first."""
    make = _module("lm_eval.tasks").TaskManager
    if folder is not None:
        own = make(include_path=str(folder), include_defaults=False)
        if all(task.name in own.all_tasks for task in tasks):
            return own
    manager = make(include_path=str(folder) if folder is not None else None)
    for task in tasks:
        if task.name not in manager.all_tasks:
            raise ConfigError(
                f"the harness knows no task {task.name}", "see lm-eval ls tasks, or add --task-path DIR"
            )
    return manager


def _scores(found: Mapping[str, Any], name: str) -> dict[str, Score]:
    """The numbers of one task, or of a group of tasks as the harness sums it up."""
    results = found["results"].get(name) or found.get("groups", {}).get(name) or {}
    samples = found.get("n-samples", {})
    own = samples.get(name, {}).get("effective")
    count = own if own is not None else sum(s.get("effective", 0) for s in samples.values())
    scores: dict[str, Score] = {}
    for key, value in results.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        if not isfinite(value):
            continue
        error = results.get(f"{metric}_stderr,{kind}")
        if not isinstance(error, (int, float)) or not isfinite(error):
            error = None  # the harness writes "N/A" where it has none
        scores[metric if kind == "none" else key] = Score(float(value), error, int(count))
    return scores


def tasks_json(
    before: Mapping[str, Mapping[str, Score]], after: Mapping[str, Mapping[str, Score]]
) -> dict[str, Any]:
    """`tasks` of report.json: by task and metric the value before and after, with standard errors and n.

    Where every answer is right, or every one wrong, the harness's error is 0: Wilson's interval stands there.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for side, results in (("before", before), ("after", after)):
        for task, metrics in results.items():
            for metric, score in metrics.items():
                entry = table.setdefault(task, {}).setdefault(metric, {})
                entry |= {side: score.value, "n": score.n}
                if score.error == 0 and score.value in (0, 1) and metric.partition(",")[0] in _SHARES:
                    name = "interval" if side == "after" else "interval_before"
                    entry[name] = list(wilson(score.value, score.n))
                elif score.error is not None:
                    entry[f"stderr_{side}"] = score.error
    return table


def unique(tasks: Sequence[str]) -> tuple[Task, ...]:
    """The tasks named, each once. Raises ConfigError like `Task.parse`."""
    return tuple(dict.fromkeys(Task.parse(text) for text in tasks))


def locate(texts: Sequence[str], folder: Path | None = None) -> tuple[tuple[Task, ...], Path | None]:
    """The tasks named, each once, and the folder of their definitions.

    A task may be given as its YAML file, `path/to/task.yaml[:N]`; its folder is then `folder`. Raises
    ConfigError for a file that defines no task, or files in different folders.
    """
    names: list[str] = []
    for text in texts:
        found = _FILE.fullmatch(text.strip())
        if found is None:
            names.append(text)
            continue
        file = Path(found[1]).expanduser()
        names.append(_name_in(file) + (found[2] or ""))
        if folder is not None and folder.resolve() != file.resolve().parent:
            raise ConfigError(
                f"{file} is not in {folder}", "put the task files into one folder: --task-path DIR"
            )
        folder = file.parent
    return unique(names), folder


def _name_in(file: Path) -> str:
    """The task that a file defines. Its YAML may have tags of the harness's own, so it is not parsed."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {file}: {reason}", "give the task's YAML file") from error
    found = re.search(r"^task:[ \t]*[\"']?([\w.-]+)", text, re.MULTILINE)
    if found is None:
        raise ConfigError(f"{file} defines no task", "it needs a line `task: name`")
    return found[1]


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"tasks need the package lm-eval ({error})", _INSTALL) from error


@contextmanager
def _silent() -> Iterator[None]:
    """The harness writes bars and warnings on both streams; what it finds is in its result."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
