"""The card (README.md) of a patch and of a merged model: a pure function of their record and report.

What was not measured is absent. No local path gets into a card: a local base is its folder's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubedit.report import about
from hubedit.report.contents import USE, limits, loading, merged_contents, patch_contents, place
from hubedit.report.measures import Json, variant
from hubedit.report.metadata import front_matter
from hubedit.report.plots import Plot
from hubedit.report.templates import render

_MOST = 500
# bytes of the table of facts: a card is to be read
_SIZE = 200_000


def patch_card(
    record: Json,
    report: Json | None = None,
    *,
    with_facts: bool = True,
    name: str = "patch",
    commit: str = "",
    facts: Sequence[Json] = (),
    plots: Sequence[Plot] = (),
) -> str:
    """Markdown with the Hub's metadata, for a patch's repository.

    `record`: `Patch.full_record()`; `report`: content of report.json. Every key of both is optional.
    `with_facts`: False keeps the facts themselves out of it. `name`, `commit`: where the patch is, for
    the loading code. `facts`: lines of facts.jsonl, shown where the report has none. `plots`: the
    figures that lie beside the card.
    """
    report = report or {}
    values = patch_contents(record, report, facts, with_facts=with_facts, most=_MOST, size=_SIZE)
    return _filled("patch_card.md.j2", values, record, report, name, commit, plots, False, with_facts)


def merged_card(
    record: Json,
    report: Json | None = None,
    name: str = "merged",
    *,
    with_facts: bool = True,
    commit: str = "",
    facts: Sequence[Json] = (),
    plots: Sequence[Plot] = (),
) -> str:
    """Markdown with the Hub's metadata, for a model that patches were merged into.

    `record`: its hubedit.json: `base`, `patches` (one entry each, in order), `tensors` (what rounding left
    of each change), and `reports`, the patches' own; every key is optional. The rest as for `patch_card`.
    Of a report with variants the merged model's figures are shown; without one, those of the patches,
    and that they are.
    """
    report = report or {}
    values = merged_contents(record, report, facts, with_facts=with_facts, most=_MOST, size=_SIZE)
    return _filled(
        "merged_card.md.j2", values, record, variant(report, "merged"), name, commit, plots, True, with_facts
    )


def _filled(
    template: str,
    values: dict[str, Any],
    record: Json,
    report: Json,
    name: str,
    commit: str,
    plots: Sequence[Plot],
    merged: bool,
    with_facts: bool,
) -> str:
    more = {
        "plots": plots,
        "pinned": bool(commit),
        "load": loading(values["base"], place(name), commit, merged=merged),
        "limits": limits(values, merged=merged),
        "use": USE,
        "again": "" if merged or not with_facts else about.again(record, place(name)),
        "front": front_matter(record, report, name=name, merged=merged),
    }
    return render(template, {**values, **more})
