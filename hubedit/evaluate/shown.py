"""What a model says before and after an edit, some facts at a time: so a long reading shows how far it is."""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.evaluate.forced import Forced, Pair
from hubedit.evaluate.forms import all_forms
from hubedit.evaluate.reading import Reading, read
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.forms import forms_of, usual
from hubedit.progress import Progress
from hubedit.report.markup import plural

PART = 100
"""Facts asked together: enough prompts to fill batches of nearly one length."""


def read_shown(
    em: EditableModel, facts: Sequence[Fact], stage: str, progress: Progress, *, in_context: bool = False
) -> Reading:
    """`read` of all facts, as a stage of that name."""
    texts: dict[str, str] = {}
    scored: dict[Pair, Forced] = {}
    progress.start(stage, len(facts), "facts")
    for at in range(0, len(facts), PART):
        part = facts[at : at + PART]
        found = read(em, part, in_context=in_context)
        texts |= found.texts
        scored |= found.scored
        progress.advance(len(part))
    progress.finish(plural(len(texts), "prompt"))
    return Reading(texts, scored, in_context)


def forms_shown(
    em: EditableModel, facts: Sequence[Fact], own: Reading, stage: str, progress: Progress
) -> dict[str, Reading]:
    """`all_forms` of all facts, as a stage of that name; `own`: in the usual form, not asked again."""
    texts: dict[str, dict[str, str]] = {form: {} for form in forms_of(em)}
    progress.start(stage, len(facts), "facts")
    for at in range(0, len(facts), PART):
        part = facts[at : at + PART]
        for form, reading in all_forms(em, part, own).items():
            texts[form].update(reading.texts)
        progress.advance(len(part))
    progress.finish()
    others = {form: Reading(found, {}, own.in_context) for form, found in texts.items()}
    return others | {usual(em): own}
