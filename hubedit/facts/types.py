"""A fact to edit, and the prompts that test what the edit did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Probe:
    """A prompt with the answers that are right for it after the edit.

    `answers` may be empty when the data set gives none: then only "unchanged" can be tested.
    `kind` is the data set's own type name (`Relation_Specificity`, `same_subject`, `two_hop`, ...).
    """

    prompt: str
    answers: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Fact:
    """One edit: after it, `prompt` is continued with `target`.

    `prompt` holds `subject` literally and ends right before the answer. `ground_truth` are the old
    answers (may be empty). `rephrase` are other prompts for the same fact; `locality` prompts whose
    answer must not change; `portability` prompts whose answer follows from the edit.
    `line` is where the fact stood in its file (1-based; 0 when made in memory). `join` is what stands
    between the prompt, or a rephrasing, and the target; None: what the text itself asks for
    (`hubedit.model.join.joined`). `question`: how the fact is asked where a question is needed ("": made
    from the prompt).
    """

    prompt: str
    subject: str
    target: str
    id: str = ""
    ground_truth: tuple[str, ...] = ()
    rephrase: tuple[str, ...] = ()
    locality: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()
    line: int = field(default=0, compare=False)
    join: str | None = None
    question: str = ""

    @property
    def template(self) -> tuple[str, str]:
        """What stands before and after the subject's last occurrence in the prompt."""
        before, found, after = self.prompt.rpartition(self.subject)
        if not found:
            raise ValueError(f"subject {self.subject!r} is not in prompt {self.prompt!r}")
        return before, after
