"""Reads benchmark files as `hubedit eval --dataset` does, and says what became of every record.

    python -m tests.lab.records zsre.json counterfact.json

For each file: its schema, how many records were read and how many are facts, the reason for each one that is
not, and what the metrics can be taken over. It ends with 1 when a record was dropped, or when a field of a
record in the file is not in the fact that was made of it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubedit.errors import FactsError
from hubedit.evaluate.records import Records, read_records
from hubedit.facts import Fact
from hubedit.facts.text import clean, fill, trim

_TARGETS = ("target_new", "alt", "attribute", "target")
_PROMPTS = ("prompt", "src")


def summary(records: Records) -> dict[str, int]:
    """What the metrics can be taken over: records, prompts and answers."""
    facts = records.facts
    counts = Counter[str]()
    counts["records"], counts["facts"], counts["skipped"] = records.total, len(facts), len(records.skipped)
    for fact in facts:
        counts["old answers"] += len(fact.ground_truth)
        counts["without an old answer"] += not fact.ground_truth
        counts["rephrasings"] += len(fact.rephrase)
        for name, probes in (("locality", fact.locality), ("portability", fact.portability)):
            for probe in probes:
                counts[f"{name}/{probe.kind}"] += 1
                counts[f"{name} without an answer"] += not probe.answers
    return dict(counts)


def misread(path: Path, records: Records) -> list[str]:
    """Records whose prompt, subject, target or probes are not those of the file, read a second way."""
    by_line = {fact.line: fact for fact in records.facts}
    wrong = []
    facts = iter(records.facts) if len(records.facts) == records.total else None
    for number, data in enumerate(_objects(path), 1):
        # several records may stand on one line; where none was skipped, the order tells which is which
        fact = next(facts) if facts is not None else by_line.get(number)
        if fact is not None and (what := _differs(data, fact)):
            wrong.append(f"record {number}: {what}")
    return wrong


def _differs(data: Mapping[str, Any], fact: Fact) -> str:
    inner = data.get("requested_rewrite", data)
    target = next(inner[name] for name in _TARGETS if name in inner)
    target = target["str"] if isinstance(target, Mapping) else target
    prompt = next(inner[name] for name in _PROMPTS if name in inner)
    if trim(str(target)) != fact.target:
        return f"target {target!r} became {fact.target!r}"
    if fill(prompt, fact.subject) != fact.prompt:
        return f"prompt {prompt!r} became {fact.prompt!r}"
    old = [a for a in _strings(inner.get("ground_truth", inner.get("answers"))) if a != fact.target]
    lost = [a for a in old if a not in fact.ground_truth and a.casefold() != fact.target.casefold()]
    if lost:
        return f"old answers {lost} are missing"
    for name, probes in (("locality", fact.locality), ("portability", fact.portability)):
        field = data.get(name)
        if not isinstance(field, Mapping):
            continue
        wanted = [
            (kind, item["prompt"], tuple(dict.fromkeys(_strings(item.get("ground_truth")))))
            for kind, items in field.items()
            for item in items or ()
            if clean(item.get("prompt") or "")
        ]
        found = [(probe.kind, probe.prompt, probe.answers) for probe in probes]
        if wanted != found:
            return f"{name} has {len(found)} of {len(wanted)} prompts, or other ones"
    return ""


def _strings(value: Any) -> Iterator[str]:
    """The strings of a string, a list, or a list of lists, without empty ones."""
    if isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif value is not None and clean(str(value)):
        yield clean(str(value))


def _objects(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    data = json.loads(text) if text.lstrip().startswith("[") else None
    return (
        data if isinstance(data, list) else [json.loads(line) for line in text.splitlines() if line.strip()]
    )


def main(paths: list[str]) -> int:
    """Prints the counts of every file; 1 when a record was dropped or misread."""
    bad = 0
    for name in paths:
        path = Path(name)
        try:
            records = read_records(path)
        except FactsError as error:
            print(f"{path.name}: {error.message}")
            for problem in error.problems[:3]:
                print(f"  {problem}")
            bad += 1
            continue
        wrong = misread(path, records)
        print(f"{path.name} ({records.format})")
        for what, count in summary(records).items():
            print(f"  {count:7,} {what}")
        print(f"  {len(wrong):7,} misread")
        for line in (*records.skipped, *wrong, *records.notices):
            print(f"  {line}")
        bad += len(records.skipped) + len(wrong)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
