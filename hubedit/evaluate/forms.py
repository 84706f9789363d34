"""The same facts in other forms: as written, as a question, after an instruction, in the chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubedit.evaluate.edits import exact, marks
from hubedit.evaluate.judge import Case, judged
from hubedit.evaluate.knowedit import Values
from hubedit.evaluate.reading import Reading, read_forms
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.forms import forms_of, usual
from hubedit.progress import Progress

Readings = Mapping[str, Reading]
"""By form."""

_SHOWN = ("success", "generalisation", "neighbourhood", "portability")


def all_forms(
    em: EditableModel, facts: Sequence[Fact], own: Reading, progress: Progress, stage: str
) -> dict[str, Reading]:
    """The facts in every form that the model has; `own`: in the usual one. In the others their own prompts
    alone are asked, in a stage of that name."""
    others = [form for form in forms_of(em) if form != usual(em)]
    asked = read_forms(em, facts, others, in_context=own.in_context, progress=progress, stage=stage)
    return {form: own if form == usual(em) else asked[form] for form in forms_of(em)}


def form_values(
    facts: Sequence[Fact],
    readings: Readings,
    before: Readings | None = None,
    right: Mapping[Case, bool] | None = None,
) -> Values:
    """Values by "form/metric" and fact, 1.0 or 0.0 for each prompt: success by the answer that a text begins
    with, exact (it says nothing else), generalisation and portability; neighbourhood with the readings
    `before`, and judged with a judge's verdicts `right`."""
    values: Values = {}
    for form, reading in readings.items():
        old = before.get(form) if before is not None else None
        found: Values = {
            name: [[float(good) for good in group] for group in groups]
            for name, groups in marks(facts, old or reading, reading).items()
            if name in _SHOWN and (old is not None or name != "neighbourhood")
        }
        found["exact"] = exact(facts, reading)["success"]
        if right is not None:
            found["judged"] = judged(facts, reading, right)
        for name in (*_SHOWN[:1], "exact", "judged", *_SHOWN[1:]):
            if any(found.get(name, ())):
                values[f"{form}/{name}"] = found[name]
    return values
