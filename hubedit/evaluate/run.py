"""The whole evaluation: a model alone, or before and after as an adapter and as a merged checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from hubedit.cache import Cache
from hubedit.evaluate.damage import MOST_TESTED, Parts, broken_by_batch, worst
from hubedit.evaluate.edits import compare
from hubedit.evaluate.judge import cases, verdicts
from hubedit.evaluate.measure import Measured, Rows, Settings, known, measure
from hubedit.evaluate.report import report
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.progress import Progress, Silent

# said once, for the whole report
_ONCE = ("facts", "probability_shift", "notes")


def evaluate(
    base: EditableModel,
    facts: Sequence[Fact],
    *,
    edited: Mapping[str, EditableModel] | None = None,
    rows: Rows = (),
    real: Rows = (),
    bystanders: Sequence[Fact] = (),
    parts: Parts | None = None,
    settings: Settings | None = None,
    judge: EditableModel | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Content of report.json for `base`, and for what was made of it.

    `edited`: "adapter" and "merged", as far as they are there; the first is the top level, and when there
    are two, both stand under `variants`. `rows`: unrelated text as tokens; `real`: real text. `bystanders`:
    of `candidates`; those that the unedited model knows are asked again. `parts`: whose the rows of the
    adapter's factors are; without it nothing is said of facts that break others. `judge`: a model that says
    whether the answers in `settings.forms` mean the target (`hubedit.evaluate.judge.as_judge`).
    """
    settings, progress = settings or Settings(), progress or Silent()
    edited = edited or {}

    asked = known(base, bystanders, cache=cache, progress=progress) if edited else []

    def one(em: EditableModel, name: str, before: EditableModel | None = None) -> Measured:
        # text is read with both models at once, so with the base alone only where nothing is edited
        text, other = (rows, real) if before is not None or not edited else ((), ())
        return measure(
            em,
            facts,
            before=before,
            rows=text,
            real=other,
            bystanders=asked if before is not None else (),
            settings=settings,
            name=name,
            cache=cache,
            progress=progress,
        )

    old = one(base, "before" if edited else "")
    sides = {name: one(em, name if len(edited) > 1 else "after", base) for name, em in edited.items()}
    right = None
    if judge is not None:
        by_form = [forms for side in (old, *sides.values()) for forms in (side.forms, side.context_forms)]
        said = cases(facts, chain.from_iterable(forms.values() for forms in by_form))
        right = verdicts(judge, said, cache=cache, progress=progress)
    if not edited:
        return report(facts, old, right=right, seed=settings.seed)
    reports = {}
    for name, em in edited.items():
        new = sides[name]
        data = report(facts, old, new, bystanders=asked, right=right, seed=settings.seed)
        data["damage"] = {**data.get("damage", {}), **_damage(base, em, facts, old, new, parts, progress)}
        reports[name] = data
    first = next(iter(reports.values()))
    if len(reports) > 1:
        variants = {n: {k: v for k, v in r.items() if k not in _ONCE} for n, r in reports.items()}
        return {**first, "variants": variants}
    return first


def _damage(
    base: EditableModel,
    edited: EditableModel,
    facts: Sequence[Fact],
    old: Measured,
    new: Measured,
    parts: Parts | None,
    progress: Progress,
) -> dict[str, Any]:
    result = compare(facts, old.reading, new.reading)
    damage: dict[str, Any] = {"worst": worst(base, edited, result)}
    if parts is not None and edited.patches:
        damage["broken_by_batch"], asked = broken_by_batch(edited, result, parts, progress)
        known = set(parts.facts)
        left = sum(1 for o in result.failed if o.fact in known) - asked
        if left:
            damage["not_asked"] = f"{left} more facts fail; the first {MOST_TESTED} were tested on their own"
    return damage
