"""The schemas facts come in: how each is recognised, and what of it becomes what of a `Fact`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hubedit.facts import datasets
from hubedit.facts.fact import Record
from hubedit.facts.source import Raw
from hubedit.facts.types import Draft, Probe

OWN_FIELDS = (
    "prompt", "subject", "target", "ground_truth", "rephrase", "locality", "portability", "id", "join",
    "question",
)  # fmt: skip
CSV_FIELDS = ("prompt", "subject", "target", "ground_truth", "rephrase", "id", "question")


@dataclass(frozen=True)
class Schema:
    """`read` takes from a record what a fact is made of, unchecked; `strict`: hubedit's own."""

    name: str
    read: Callable[[Record], Draft]
    strict: bool = False


def _own(record: Record) -> Draft:
    record.known(OWN_FIELDS)
    return _row(record)


def _row(record: Record) -> Draft:
    """Without a look at unknown fields: for CSV they are reported once, for the header."""
    return Draft(
        prompt=record.prompt("prompt", 'the text before the answer: "The capital of France is"'),
        subject=record.text("subject"),
        target=record.text("target", 'the new answer: "Lyon"'),
        id=record.id("id"),
        ground_truth=record.texts("ground_truth"),
        rephrase=record.prompts("rephrase"),
        locality=record.probes("locality"),
        portability=record.probes("portability"),
        join=record.join(),
        question=record.prompt("question"),
    )


def _edit(record: Record) -> Draft:
    """KnowEdit and flat CounterFact: one family of field names."""
    rephrase = record.prompts("rephrase_prompt") + record.prompts("rephrase")
    rephrase += record.prompts("rephrase_prompts")
    flat_locality = _pair(record, "locality_prompt", "locality_ground_truth", "neighborhood")
    flat_portability = _pair(record, "portability_prompt", "portability_ground_truth", "portability")
    return Draft(
        prompt=record.prompt("prompt", "the text before the answer"),
        subject=record.text("subject"),
        target=record.text("target_new", "the new answer"),
        id=record.id("case_id") or record.id("id"),
        ground_truth=record.texts("ground_truth"),
        rephrase=tuple(dict.fromkeys(rephrase)),
        locality=record.probes("locality") + flat_locality,
        portability=record.probes("portability") + flat_portability,
    )


def _counterfact(record: Record) -> Draft:
    inner = _rewrite(record)
    if inner is None:
        record.problems.append(
            '"requested_rewrite" holds no rewrite; write one with prompt, subject, target_new, target_true'
        )
        return Draft()
    template = inner.prompt("prompt", 'a prompt with {}: "The capital of {} is"')
    subject = inner.text("subject", "what replaces {} in the prompt")
    target, truth = _value(inner, "target_new", True), _value(inner, "target_true", False)
    old, new = ((truth,) if truth else ()), ((target,) if target else ())
    return Draft(
        # here `{}` always stands for the subject, whatever the subject is
        prompt=template.replace("{}", subject),
        subject=subject,
        target=target,
        id=record.id("case_id"),
        ground_truth=old,
        rephrase=record.prompts("paraphrase_prompts"),
        # neighbours share the old answer, the subjects of attribute prompts already have the new one
        locality=tuple(Probe(p, old, "neighborhood") for p in record.prompts("neighborhood_prompts"))
        + tuple(Probe(p, new, "attribute") for p in record.prompts("attribute_prompts")),
    )


def _mquake(record: Record) -> Draft:
    """One rewrite of a MQuAKE case (Zhong et al. 2023): its own question is a rephrasing, the questions of
    the case are answered by all of its rewrites together."""
    fact, inner = _counterfact(record), _rewrite(record)
    answers = tuple(dict.fromkeys(record.texts("new_answer") + record.texts("new_answer_alias")))
    fact["rephrase"] = inner.prompts("question") if inner is not None else ()
    fact["portability"] = tuple(Probe(p, answers, "multi_hop") for p in record.prompts("questions"))
    return fact


def _rewrite(record: Record) -> Record | None:
    """The object in "requested_rewrite"; what is wrong in it is noted in the record."""
    request = record.data.get("requested_rewrite")
    if not isinstance(request, Mapping):
        return None
    return Record(request, strict=False, problems=record.problems, notices=record.notices)


def _zsre(record: Record) -> Draft:
    portability: tuple[Probe, ...] = ()
    extra = record.data.get("portability")
    if isinstance(extra, Mapping) and "New Question" in extra:
        inner = Record(extra, strict=False, problems=record.problems, notices=record.notices)
        portability = _pair(inner, "New Question", "New Answer", "portability")
    elif extra is not None:
        portability = record.probes("portability")
    return Draft(
        prompt=record.prompt("src", "the question"),
        subject=record.text("subject"),
        target=record.text("alt", "the new answer"),
        id=record.id("case_id") or record.id("id"),
        ground_truth=record.texts("answers"),
        rephrase=record.prompts("rephrase"),
        locality=_pair(record, "loc", "loc_ans", "neighborhood"),
        portability=portability,
    )


def _value(record: Record, key: str, needed: bool) -> str:
    """CounterFact's {"str": ..., "id": ...}, which MQuAKE-Remastered writes as two fields."""
    value = record.data.get(key, record.data.get(f"{key}_str"))
    if isinstance(value, Mapping):
        inner = Record({key: value.get("str")}, False, record.problems, record.notices)
        return inner.text(key, "the new answer as its str" if needed else "")
    return Record({key: value}, False, record.problems, record.notices).text(
        key, "the new answer" if needed else ""
    )


def _pair(record: Record, prompts: str, answers: str, kind: str) -> tuple[Probe, ...]:
    """A prompt and its answers in two fields, or as many of both."""
    question, answer = record.data.get(prompts), record.data.get(answers)
    if question is None:
        return ()
    name = f"{prompts}/{answers}"
    both = {"prompt": question, "ground_truth": answer}
    # an object from type to columns when there are many, a list of one when there is one
    inner = Record({name: {kind: both} if isinstance(question, list) else [both]}, strict=False)
    probes = inner.probes(name, kind)
    record.problems += inner.problems
    record.notices += inner.notices
    return probes


SCHEMAS = {
    schema.name: schema
    for schema in (
        Schema("jsonl", _own, strict=True),
        Schema("json", _own, strict=True),
        Schema("csv", _row, strict=True),
        Schema("knowedit", _edit),
        Schema("counterfact", _counterfact),
        Schema("counterfact-flat", _edit),
        Schema("mquake", _mquake),
        Schema("zsre", _zsre),
        Schema("qaedit", datasets.qaedit),
        Schema("wikibigedit", datasets.wikibigedit),
        Schema("rippleedits", datasets.rippleedits),
    )
}
FORMATS = ("auto", *SCHEMAS)


def by_rewrite(records: Iterable[Raw]) -> Iterator[Raw]:
    """The records, and of one whose "requested_rewrite" is a list (MQuAKE) one for each rewrite.

    The questions of the case go with its last rewrite: so each counts once, and where it is among the facts
    the others are too.
    """
    for number, raw in enumerate(records, 1):
        data = raw.data
        rewrites = data.get("requested_rewrite") if isinstance(data, Mapping) else None
        if not isinstance(rewrites, list) or not rewrites:
            yield replace(raw, number=number)
            continue
        for part, rewrite in enumerate(rewrites, 1):
            last, name = part == len(rewrites), data.get("case_id")
            own = {**data, "requested_rewrite": rewrite, "questions": data.get("questions") if last else []}
            if len(rewrites) > 1 and isinstance(name, (str, int)):
                own["case_id"] = f"{name}-{part}"
            several = part if len(rewrites) > 1 else 0
            yield Raw(raw.line, own, raw.doubled if part == 1 else (), number, several)


def looks_like(data: Mapping[str, Any], own: str) -> str:
    """The schema one record has by its field names; `own` where nothing speaks for a benchmark's."""
    if found := datasets.which(data):
        return found
    if "requested_rewrite" in data:
        return "mquake" if "questions" in data else "counterfact"
    if "target_new" in data:
        flat = {"case_id", "locality_prompt", "locality_ground_truth"} & set(data)
        return "counterfact-flat" if flat and not isinstance(data.get("locality"), Mapping) else "knowedit"
    if "src" in data and ("alt" in data or "loc" in data):
        return "zsre"
    return own


def detect(records: Iterable[Any], own: str) -> Schema:
    """The schema that most of the records have."""
    votes = Counter(looks_like(data, own) for data in records if isinstance(data, Mapping))
    return SCHEMAS[votes.most_common(1)[0][0] if votes else own]
