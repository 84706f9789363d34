"""Results as CSV, with the plain numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hubedit.bench.numbers import Line
from hubedit.bench.published import Published
from hubedit.bench.tables import printed_beside
from hubedit.report.markup import csv_cell


def csv_text(found: Sequence[Line], kinds: Sequence[str]) -> str:
    """One line a run and metric with the plain numbers (shares 0..1); `published` is as printed."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    head = "model data method label alpha batch_size edits metric before in_context mean low high"
    writer.writerow([*head.split(), "replicates", "failed", "published"])
    for line in found:
        own = [line.model, line.data, line.method, line.label, line.alpha, line.batch_size, line.edits]
        printed: dict[str, Published] = {}
        for kind in kinds:
            printed |= {key: p for key, p in printed_beside(kind, line).items() if key not in printed}
        for key in dict.fromkeys((*line.numbers, *line.before, *line.in_context)) or [""]:
            value = line.numbers.get(key)
            sides = (line.before.get(key), line.in_context.get(key))
            numbers = [number.mean if number else None for number in sides]
            numbers += [value.mean, value.low, value.high] if value else [None] * 3
            shown = printed[key].text if key in printed else None
            row = [*own, key, *numbers, value.n if value else 0, len(line.errors), shown]
            writer.writerow(list(map(csv_cell, row)))
    return target.getvalue()
