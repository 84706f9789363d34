"""Facts as JSON Lines in hubedit's own schema, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from hubedit.errors import FactsError
from hubedit.facts.check import finish
from hubedit.facts.fact import Record
from hubedit.facts.schemas import SCHEMAS
from hubedit.facts.types import Fact, Probe


def to_record(fact: Fact) -> dict[str, Any]:
    """The fact as a JSON object; fields that are empty are left out, `line` is not part of it."""
    record: dict[str, Any] = {"id": fact.id} if fact.id else {}
    record |= {"prompt": fact.prompt, "subject": fact.subject, "target": fact.target}
    if fact.join is not None:
        record["join"] = fact.join
    if fact.question:
        record["question"] = fact.question
    if fact.ground_truth:
        record["ground_truth"] = _one_or_list(fact.ground_truth)
    if fact.rephrase:
        record["rephrase"] = list(fact.rephrase)
    if fact.locality:
        record["locality"] = [_probe(probe) for probe in fact.locality]
    if fact.portability:
        record["portability"] = [_probe(probe) for probe in fact.portability]
    return record


def from_record(data: Mapping[str, Any]) -> Fact:
    """The fact of a JSON object in hubedit's schema: the inverse of `to_record` for every loaded fact.

    Raises FactsError with all problems.
    """
    record = Record(data, strict=True)
    fact = finish(SCHEMAS["jsonl"].read(record), record)
    if fact is None or record.problems:
        raise FactsError("not a usable fact", record.problems[0], record.problems)
    return fact


def dump_facts(facts: Iterable[Fact]) -> str:
    """JSON Lines, one fact a line, the same bytes for the same facts."""
    return "".join(json.dumps(to_record(fact), ensure_ascii=False) + "\n" for fact in facts)


def _probe(probe: Probe) -> dict[str, Any]:
    record: dict[str, Any] = {"prompt": probe.prompt}
    if probe.answers:
        record["answer"] = _one_or_list(probe.answers)
    if probe.kind:
        record["type"] = probe.kind
    return record


def _one_or_list(texts: tuple[str, ...]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)
