"""Readers of three data sets that are built otherwise than the field's older ones.

QAEdit (Yang et al. 2025, arXiv 2502.11177), WikiBigEdit (Thede et al. 2025, arXiv 2503.05683) and RippleEdits
(Cohen et al. 2023, arXiv 2307.12976); docs/facts.md says against which public files each was checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hubedit.facts.fact import Record
from hubedit.facts.find_subject import name_in
from hubedit.facts.types import Draft, Probe

_VERB = re.compile(r"\b(?:is|are|was|were)(?= )")
_KEPT = (
    "Relation_Specificity",
    "Relation_Specifity",
    "Forgetfulness",
)  # the second is how their page spells it
_FOLLOWS = ("Logical_Generalization", "Subject_Aliasing", "Compositionality_I", "Compositionality_II")


def which(data: Mapping[str, Any]) -> str:
    """The data set that a record belongs to by its fields, or ""."""
    if isinstance(data.get("edit"), Mapping) and "example_type" in data:
        return "rippleedits"
    if "update" in data and "ans" in data:
        return "wikibigedit"
    local = data.get("locality")
    first = local[0] if isinstance(local, list) and local else None
    return "qaedit" if isinstance(first, Mapping) and "loc" in first else ""


def qaedit(record: Record) -> Draft:
    """A question with its answer; locality are questions of other people, with answers."""
    local = record.data.get("locality")
    pairs = [pair for pair in local if isinstance(pair, Mapping)] if isinstance(local, list) else []
    probes = [{"prompt": p.get("loc"), "ground_truth": p.get("loc_ans")} for p in pairs]
    return Draft(
        prompt=record.prompt("prompt", "the question"),
        subject=record.text("subject"),
        target=record.text("target", "the answer"),
        id=record.id("id"),
        rephrase=record.prompts("rephrase"),
        locality=_probes(record, "locality", probes, "neighborhood"),
    )


def wikibigedit(record: Record) -> Draft:
    """A question about a fact that changed; one phrasing of it is written for a persona, one question needs
    two hops."""
    rephrase = record.prompts("rephrase") + record.prompts("personas")
    return Draft(
        prompt=record.prompt("update", "the question"),
        subject=record.text("subject"),
        target=record.text("ans", "the answer"),
        rephrase=tuple(dict.fromkeys(rephrase)),
        locality=_pair(record, "loc", "neighborhood"),
        portability=_pair(record, "mhop", "multi_hop"),
    )


def rippleedits(record: Record) -> Draft:
    """A statement in one sentence, taken apart at its verb; its tests are kept without their conditions on
    what the model knows.

    The file names its entities by Wikidata's numbers, so the subject is what the statement shares with the
    tests about the same one.
    """
    edit = Record(record.data["edit"], False, record.problems, record.notices)
    whole = edit.text("prompt", "the fact in a sentence").removesuffix(".")
    before = edit.data.get("previous_fact")
    old = before.get("prompt") if isinstance(before, Mapping) else None
    old = old.strip().removesuffix(".") if isinstance(old, str) else ""
    verbs = [found.end() for found in _VERB.finditer(whole[: _common(whole, old)] if old else whole)]
    if whole and not verbs:
        record.problems.append(f'"{whole}" has no verb to take it apart at; write prompt and target apart')
        return Draft()
    at = verbs[-1] if verbs else 0
    prompt, same = whole[:at], edit.data.get("subject_id")
    about = [
        q.get("prompt", "") for q in _queries(record, (*_KEPT, *_FOLLOWS)) if q.get("subject_id") == same
    ]
    return Draft(
        prompt=prompt,
        subject=_shared(prompt, [text for text in about if isinstance(text, str)]) or name_in(prompt),
        target=whole[at:].strip(),
        ground_truth=(old[at:].strip(),) if old else (),
        locality=tuple(p for name in _KEPT for p in _tests(record, name)),
        portability=tuple(p for name in _FOLLOWS for p in _tests(record, name)),
    )


def _shared(prompt: str, others: list[str]) -> str:
    """The name before the verb that the prompt and another one end in."""
    own = prompt.split()[:-1]
    for other in others:
        words = other.split()[:-1]
        count = _common(own[::-1], words[::-1])
        name = own[len(own) - count :]
        while name and not (name[0][0].isupper() or name[0][0].isdigit()):
            name = name[1:]
        if name and count < len(own):
            return " ".join(name)
    return ""


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many items both begin with."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((n for n, (x, y) in pairs if x != y), min(len(a), len(b)))


def _tests(record: Record, name: str) -> tuple[Probe, ...]:
    probes = [
        {"prompt": query.get("prompt"), "ground_truth": [_names(a) for a in _list(query.get("answers"))]}
        for query in _queries(record, (name,))
    ]
    return _probes(record, name, probes, name)


def _names(answer: Any) -> list[Any]:
    return [answer.get("value"), *_list(answer.get("aliases"))] if isinstance(answer, Mapping) else [answer]


def _queries(record: Record, names: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    for name in names:
        for test in _list(record.data.get(name)):
            for query in _list(test.get("test_queries")) if isinstance(test, Mapping) else ():
                if isinstance(query, Mapping):
                    yield query


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _pair(record: Record, name: str, kind: str) -> tuple[Probe, ...]:
    """A question and its answer in `name` and `name`_ans; none where the record has no such question."""
    if not record.data.get(name):
        return ()
    pair = {"prompt": record.data[name], "ground_truth": record.data.get(f"{name}_ans")}
    return _probes(record, name, [pair], kind)


def _probes(record: Record, name: str, probes: list[Any], kind: str) -> tuple[Probe, ...]:
    inner = Record({name: probes}, False, record.problems, record.notices)
    return inner.probes(name, kind)
