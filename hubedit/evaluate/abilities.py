"""The default set of general abilities: five tasks of the harness from the Hub, or grade-school mathematics
from a file of one's own, for machines without a network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hubedit.cache import default_root
from hubedit.errors import ConfigError
from hubedit.evaluate.harness import Task
from hubedit.folder import write_file

HUB = "hub"
QUESTIONS = 200
SHOTS = 2
_MMLU_SUBJECTS = 57
TASKS = (
    Task("mmlu", None, -(-QUESTIONS // _MMLU_SUBJECTS)),  # the harness limits each of its subjects
    Task("gsm8k", SHOTS, QUESTIONS),
    Task("arc_challenge", None, QUESTIONS),
    Task("ifeval", None, QUESTIONS),
    Task("truthfulqa_mc2", None, QUESTIONS),
)
FILE_TASK = "gsm8k_file"
_DEFINITION = {
    "task": FILE_TASK,
    "dataset_path": "json",
    "output_type": "generate_until",
    "fewshot_split": "train",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer}}",
    "fewshot_config": {"sampler": "first_n"},
    "num_fewshot": SHOTS,
    "generation_kwargs": {"until": ["Question:", "\n\n"], "do_sample": False, "max_gen_toks": 240},
    "filter_list": [
        {
            "name": "last-number",
            "filter": [
                {"function": "regex", "group_select": -1, "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)"},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "regexes_to_ignore": [",", r"\$", r"(?s).*#### ", r"\.$"],
        }
    ],
    "metadata": {"version": 1},
}


def abilities(source: str) -> tuple[tuple[Task, ...], Path | None]:
    """The tasks, and the folder of their definitions (None: the harness's own).

    `source`: "hub", or a file of JSON lines with "question" and "answer" as GSM8K has them, where the number
    follows "####"; its first two questions are the examples in front of each. Raises ConfigError for
    a file that has no such questions.
    """
    if source == HUB:
        return TASKS, None
    rows = _questions(Path(source).expanduser())
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    parts = {"train.jsonl": "".join(lines[:SHOTS]), "test.jsonl": "".join(lines[SHOTS : SHOTS + QUESTIONS])}
    digest = hashlib.sha256("".join(parts.values()).encode()).hexdigest()[:16]
    folder = default_root() / "tasks" / f"{FILE_TASK}-{digest}"
    files = {name.removesuffix(".jsonl"): str(folder / name) for name in parts}
    definition: dict[str, Any] = {**_DEFINITION, "dataset_kwargs": {"data_files": files}}
    # YAML holds all of JSON
    parts[f"{FILE_TASK}.yaml"] = f"task: {FILE_TASK}\n" + "".join(
        f"{name}: {json.dumps(value)}\n" for name, value in definition.items() if name != "task"
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in parts.items():
        write_file(folder / name, text.encode())
    return (Task(FILE_TASK, SHOTS),), folder


def _questions(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = f"{HUB}, or a file of JSON lines with question and answer"
        raise ConfigError(f"cannot read {path}: {reason}", hint) from error
    rows: list[dict[str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}:{number}: invalid JSON: {error.msg}") from error
        if row is None:
            continue
        found = {name: row.get(name) if isinstance(row, dict) else None for name in ("question", "answer")}
        if not all(isinstance(value, str) and value.strip() for value in found.values()):
            raise ConfigError(
                f"{path}:{number}: no question with its answer",
                'write {"question": "...", "answer": "... #### 7"}',
            )
        rows.append({name: str(value) for name, value in found.items()})
    if len(rows) <= SHOTS:
        raise ConfigError(f"{path} has {len(rows)} questions", f"{SHOTS} are examples, so give more")
    return rows
