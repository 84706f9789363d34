"""What a testbed world is: statements a model is trained on, and the facts it must then know.

A world is built by `tests.lab.invented` (generated people, cities, companies) or `tests.lab.real`
(true facts, for the bundled demo model); `tests.lab.train` trains a small model on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Statement:
    """One training sentence; `text[start:start + len(answer)] == answer`."""

    text: str
    answer: str
    start: int

    @classmethod
    def of(cls, prompt: str, answer: str, tail: str = ".") -> Statement:
        """The sentence `prompt + " " + answer + tail`."""
        return cls(f"{prompt} {answer}{tail}", answer, len(prompt) + 1)


@dataclass(frozen=True)
class KnownFact:
    """A (subject, relation, answer) triple.

    `prompts`: trained phrasings with the subject filled in, ending right before the answer (no
    trailing space). `held_out`: phrasings of the same relation that are in no training statement
    about this subject.
    """

    subject: str
    relation: str
    answer: str
    prompts: tuple[str, ...]
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """`statements` is the corpus, `facts` what must be answered after training.

    `edits` are counterfactual edits in hubedit's JSONL form (dictionaries with `id`, `prompt`,
    `subject`, `target`, `ground_truth`, `rephrase`, `locality`, `portability`), where `locality`
    entries have `type` `same_subject` or `neighbourhood`, and `portability` entries `two_hop`.
    """

    name: str
    statements: tuple[Statement, ...]
    facts: tuple[KnownFact, ...]
    edits: tuple[dict[str, Any], ...]
