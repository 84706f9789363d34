"""A fact to edit, and the prompts that test what the edit did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from hubedit.errors import FactsError
from hubedit.facts.find_subject import name_in


@dataclass(frozen=True)
class Probe:
    """A prompt with the answers that are right for it after the edit.

    `answers` may be empty when the data set gives none: then only "unchanged" can be tested.
    `kind` is the data set's own type name (`Relation_Specificity`, `same_subject`, `two_hop`, ...).
    """

    prompt: str
    answers: tuple[str, ...] = ()
    kind: str = ""

    def __post_init__(self) -> None:
        _listed(self, "answers", str)


@dataclass(frozen=True)
class Fact:
    """One edit: after it, `prompt` is continued with `target`.

    `prompt` holds `subject` literally and ends right before the answer; without a subject it is what
    `subject_of` finds. `ground_truth` are the old
    answers (may be empty). `rephrase` are other prompts for the same fact; `locality` prompts whose
    answer must not change; `portability` prompts whose answer follows from the edit.
    `line` is where the fact stood in its file (1-based; 0 when made in memory). `join` is what stands
    between the prompt, or a rephrasing, and the target; None: what the text itself asks for
    (`hubedit.model.join.joined`). `question`: how the fact is asked where a question is needed ("": made
    from the prompt).
    """

    prompt: str
    subject: str = ""
    target: str = ""
    id: str = ""
    ground_truth: tuple[str, ...] = ()
    rephrase: tuple[str, ...] = ()
    locality: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()
    line: int = field(default=0, compare=False)
    join: str | None = None
    question: str = ""

    def __post_init__(self) -> None:
        for name in ("prompt", "subject", "target"):
            if not isinstance(value := getattr(self, name), str):
                raise FactsError(f"{name} is text, and not {value!r}", _EXAMPLE)
        for name in ("prompt", "target"):
            if not getattr(self, name):
                raise FactsError(f"a fact needs a {name}", _EXAMPLE)
        if not self.subject.strip():
            if "{}" in self.prompt:
                raise FactsError(f"{{}} in {self.prompt!r} stands for a subject that is not given", _EXAMPLE)
            object.__setattr__(self, "subject", subject_of(self.prompt))
        for name in ("ground_truth", "rephrase"):
            _listed(self, name, str)
        for name in ("locality", "portability"):
            _listed(self, name, Probe)

    @property
    def template(self) -> tuple[str, str]:
        """What stands before and after the subject's last occurrence in the prompt."""
        before, found, after = self.prompt.rpartition(self.subject)
        if not found:
            raise ValueError(f"subject {self.subject!r} is not in prompt {self.prompt!r}")
        return before, after


class Draft(TypedDict, total=False):
    """The fields of a `Fact` as they were read, of which some may be missing or empty."""

    prompt: str
    subject: str
    target: str
    id: str
    ground_truth: tuple[str, ...]
    rephrase: tuple[str, ...]
    locality: tuple[Probe, ...]
    portability: tuple[Probe, ...]
    join: str | None
    question: str


def subject_of(prompt: str) -> str:
    """The subject where none is given: a name in the prompt, else all of it, so that the edit is made at its
    last token."""
    return name_in(prompt) or prompt.strip()


_EXAMPLE = 'hubedit.Fact("The capital of Japan is", subject="Japan", target="Kyoto")'


def _listed(owner: object, name: str, kind: type) -> None:
    """Makes a field that was given as a list a tuple. Raises FactsError for one text, and for other kinds."""
    value = getattr(owner, name)
    found = None if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if found is None or not all(isinstance(each, kind) for each in found):
        what = "texts" if kind is str else "hubedit.Probe(prompt, answers)"
        raise FactsError(f"{name} is a list of {what}, and not {value!r}", f"write {name}=[...]")
    object.__setattr__(owner, name, found)
