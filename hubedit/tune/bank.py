"""Facts that a model may know: the built-in bank of well-known true ones, or a user's own.

`bank.tsv` holds relation, subject and answer; `phrasings.tsv` several prompts for each relation, so that a
model has more than one chance to show what it knows, and an edit more than one prompt to be tested by.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hubedit.errors import FactsError
from hubedit.facts import Fact, Probe
from hubedit.facts.answers import gives

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Candidate:
    """A true fact to ask a model for. `answers`: right ones, the usual one first; `prompts`: its phrasings;
    `target`: what an edit makes of it ("": another answer of the relation); `locality`, `portability`:
    probes that came with it."""

    relation: str
    subject: str
    answers: tuple[str, ...]
    prompts: tuple[str, ...]
    target: str = ""
    locality: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()


def bank() -> tuple[Candidate, ...]:
    """The built-in facts, in the order of the file."""
    phrasings: dict[str, list[str]] = {}
    for row in _rows("phrasings.tsv"):
        phrasings.setdefault(row["relation"], []).append(row["phrasing"])
    found = []
    for row in _rows("bank.tsv"):
        name, answer = row["subject"], row["answer"]
        prompts = tuple(_sentence(p, name) for p in phrasings[row["relation"]])
        # the article is no part of the name: its first letter changes with its place
        found.append(Candidate(row["relation"], name.removeprefix("the "), _forms(answer), prompts))
    return tuple(found)


def candidates(facts: Sequence[Fact]) -> tuple[Candidate, ...]:
    """A user's facts: those with a ground truth, by which it is seen whether the model knows them.

    Raises FactsError when there is none.
    """
    found = []
    for fact in facts:
        if not fact.ground_truth:
            continue
        target = "" if gives(fact.target, fact.ground_truth) else fact.target
        found.append(
            Candidate(
                "{}".join(fact.template),
                fact.subject,
                fact.ground_truth,
                (fact.prompt, *fact.rephrase),
                target,
                fact.locality,
                fact.portability if target else (),
            )
        )
    if not found:
        hint = 'add "ground_truth" with the true answer, or leave out --facts for the built-in bank'
        raise FactsError("none of the facts says what is true now", hint)
    return tuple(found)


def _sentence(phrasing: str, name: str) -> str:
    text = phrasing.replace("{}", name)
    return text[0].upper() + text[1:]


def _forms(answer: str) -> tuple[str, ...]:
    """With and without the article."""
    return tuple(dict.fromkeys((answer, answer.removeprefix("the "))))


def _rows(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
