"""The files that a patch or a merged model shows itself with, made from its hubedit.json and report.json.

README.md, report.html, plots/*.png and .eval_results/*.yaml; all of them can be made again at any time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubedit.errors import HubEditError
from hubedit.folder import next_step, write_file
from hubedit.report.card import merged_card, patch_card
from hubedit.report.contents import patches_of
from hubedit.report.draw import png
from hubedit.report.markup import number
from hubedit.report.measures import Json, measures, variant
from hubedit.report.metadata import eval_files, eval_names
from hubedit.report.page import html_report
from hubedit.report.plots import NAMES, Plot, plots

CARD, PAGE, RECORD, REPORT, FACTS = "README.md", "report.html", "hubedit.json", "report.json", "facts.jsonl"
# the Hub shows no longer page in its viewer, and nobody reads one
_LARGEST = 1_000_000
_KINDS: dict[str, type] = {
    **dict.fromkeys(("metrics", "metrics_before", "counts", "intervals", "intervals_before"), dict),
    **dict.fromkeys(("exact_match", "teacher_forced", "counterfact", "fluency", "perplexity", "kl"), dict),
    **dict.fromkeys(("tasks", "damage", "relations", "text"), dict),
    **dict.fromkeys(("facts", "probability_shift"), list),
    "evaluated": dict,
}


@dataclass(frozen=True)
class Source:
    """What a folder says. `facts`: lines of facts.jsonl; `with_facts`: whether they may be quoted."""

    record: Json
    report: Json
    name: str
    facts: Sequence[Json] = field(default=())
    with_facts: bool = True
    merged: bool = False

    @property
    def measured(self) -> Json:
        """The part of the report that is about this patch or this merged model."""
        return variant(self.report, "merged") if self.merged else self.report

    @property
    def plots(self) -> tuple[Plot, ...]:
        """The figures that can be drawn."""
        return plots(self.record, self.measured, with_facts=self.with_facts)

    def card(self, drawn: Sequence[Plot]) -> str:
        """README.md."""
        make = merged_card if self.merged else patch_card
        return make(
            self.record,
            self.report,
            name=self.name,
            with_facts=self.with_facts,
            facts=self.facts,
            plots=drawn,
        )

    def page(self, drawn: Sequence[Plot]) -> str:
        """The HTML report."""
        return html_report(
            self.record,
            self.report,
            name=self.name,
            with_facts=self.with_facts,
            facts=self.facts,
            plots=drawn,
            merged=self.merged,
        )


def read_source(folder: str | Path) -> Source:
    """Reads a patch, a merged model, or a folder (or file) with a report.json alone.

    Raises HubEditError for anything else, and for files that cannot be read.
    """
    place = Path(folder)
    if place.is_file():
        return Source({}, _report(place), place.stem)
    record = _json(place / RECORD) if (place / RECORD).is_file() else {}
    report = _report(place / REPORT) if (place / REPORT).is_file() else {}
    if not record and not report:
        raise HubEditError(
            f"{place} holds neither {RECORD} nor {REPORT}", "give a patch, a merged model or a report.json"
        )
    name = place.resolve().name
    if record.get("kind") != "merged":
        # a folder that never had a record is a report of its own facts
        known = (place / FACTS).is_file() or not record
        count = number((record.get("facts") or {}).get("count"))
        return Source(record, report, name, _lines(place / FACTS), known or count in (None, 0))
    inside = [place / str(p.get("folder") or "") for p in patches_of(record)]
    reports = [_report(p / REPORT) if (p / REPORT).is_file() else None for p in inside]
    records = [_json(p / RECORD) if (p / RECORD).is_file() else None for p in inside]
    facts = [fact for p in inside for fact in _lines(p / FACTS)]
    quoted = bool(inside) and all((p / FACTS).is_file() for p in inside)
    whole = {**record, "reports": reports, "records": records}
    return Source(whole, report, name, facts, quoted, merged=True)


def shown_files(source: Source, *, page: bool = True) -> dict[str, bytes]:
    """The files by name. `page`: False leaves out report.html, which is never larger than a megabyte."""
    drawn = source.plots
    files = {plot.file: png(plot.draw) for plot in drawn}
    files |= eval_files(source.measured)
    if page:
        html = source.page(drawn).encode()
        if len(html) <= _LARGEST:
            files[PAGE] = html
    if source.record:
        files[CARD] = source.card(drawn).encode()
    return files


def patch_files(
    record: Json, report: dict[str, Any], name: str, facts: Sequence[Json], *, with_facts: bool
) -> dict[str, bytes]:
    """The files beside a new patch's adapter: report.json and the `shown_files`; without facts nothing of
    them is quoted."""
    if not with_facts:
        numbers = ("probability_before", "probability_after", "rank_before", "rank_after", "success")
        silent = {k: v for k, v in report.items() if k not in ("relations", "damage")}  # they quote facts
        report, facts = {**silent, "facts": [{k: f[k] for k in numbers} for f in report["facts"]]}, ()
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    return {REPORT: f"{text}\n".encode(), **shown_files(Source(record, report, name, facts, with_facts))}


def rebuild(folder: str | Path) -> list[str]:
    """Makes the folder's card, page, plots and results again; returns the names of the files.

    Each file is replaced in one step, the card last; figures of before that can no longer be drawn are
    removed. Raises HubEditError.
    """
    place = Path(folder)
    if not place.is_dir():
        raise HubEditError(f"{place} is not a folder", "give a patch or a merged model, or add --html FILE")
    files = shown_files(read_source(place))
    try:
        for name, data in files.items():
            write(place / name, data)
        for name in (*(f"plots/{n}.png" for n in NAMES), *eval_names(), PAGE):
            if name not in files:
                (place / name).unlink(missing_ok=True)
    except OSError as error:
        raise HubEditError(
            f"cannot write in {place}: {error.strerror or error}", f"{next_step(error)} with --html FILE"
        ) from error
    return list(files)


def write(file: Path, data: bytes) -> None:
    """Whole or not at all; never through a symbolic link, which may lead into the Hub's cache.

    Raises OSError.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, data)


def has_numbers(source: Source) -> bool:
    """Whether anything was measured."""
    return bool(measures(source.measured))


def _report(file: Path) -> dict[str, Any]:
    """report.json; its parts have the kinds that hubedit writes."""
    data = _json(file)
    for part in (data, *(v for v in (data.get("variants") or {}).values())):
        for key, kind in _KINDS.items():
            if part.get(key) is not None and not isinstance(part[key], kind):
                raise HubEditError(f"{file}: {key!r} is not what hubedit writes", "run hubedit eval again")
    return data


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HubEditError(f"{file} cannot be read: {error}", "make it again") from error
    if not isinstance(data, dict):
        raise HubEditError(f"{file} holds no JSON object", "make it again")
    return data


def _lines(file: Path) -> list[Json]:
    """facts.jsonl; empty where there is none."""
    if not file.is_file():
        return []
    try:
        # not splitlines(): a fact may hold a character that Unicode counts as the end of a line
        rows = [json.loads(row) for row in file.read_text(encoding="utf-8").split("\n") if row.strip()]
    except (OSError, ValueError) as error:
        raise HubEditError(f"{file} cannot be read: {error}", "make it again") from error
    return [row for row in rows if isinstance(row, dict)]
