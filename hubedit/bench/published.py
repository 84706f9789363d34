"""The published numbers of IntAttn-Edit, as data: what measured ones are set beside.

Liu, Wang, Zhao and Hu, "Balancing Knowledge Updates: Toward Unified Modular Editing in LLMs"
(arXiv 2510.27400), supplementary material, tables 1 to 5. `published.tsv` has them as printed: shares in
per cent, fluency as 100 times the entropy. Table 4 names no model, table 5 edits 100 facts of a data set
that it does not name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

SOURCE = "arXiv 2510.27400, supplementary material"
JOINT = "joint"
"""The alpha of table 3's joint edit: the one that the authors' balancing found, not printed there."""

AS_PRINTED = {"memit": ("intattn", "0")}
"""Method and alpha under which table 3 prints another one: MEMIT is the edit of the MLP alone."""

_MODELS = ("Qwen2.5-7B", "Mistral-7B")


@dataclass(frozen=True)
class Published:
    """One printed number. `model`, `data`: "" where the table names none; `metric`: as `hubedit.bench` names
    it; `text`: as printed."""

    table: int
    model: str
    data: str
    method: str
    alpha: str
    metric: str
    text: str


def published() -> tuple[Published, ...]:
    """All numbers, table by table."""
    lines = (Path(__file__).parent / "published.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return tuple(Published(int(table), *rest) for table, *rest in rows)


def printed_numbers(
    tables: Collection[int], model: str, data: str, method: str, alpha: str = ""
) -> dict[str, Published]:
    """The printed numbers of a run by metric; {} where the paper has none for this model, data and method."""
    return {
        row.metric: row
        for row in published()
        if row.table in tables
        and _alike(row.model, model)
        and (not row.data or _plain(row.data) == _plain(data))
        and (row.method, row.alpha) == (method, alpha)
    }


def _alike(printed: str, name: str) -> bool:
    known = [printed] if printed else _MODELS
    return _plain(name) in {_plain(model) for model in known}


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
