"""Facts in, a verified patch out: what `hubedit apply` does, as one function."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.compute import Edit, compute
from hubedit.edit.locate.balance import check_values, parse_layers
from hubedit.edit.record import edit_record, method_record, portable, statistics_record
from hubedit.edit.result import judge_collapse
from hubedit.edit.stages import TEXT_ROWS, check_one_layer, unseen_rows
from hubedit.edit.statistics.corpus import SELF, holdout_rows
from hubedit.edit.statistics.documents import source as corpus_source
from hubedit.errors import ConfigError, FactsError, HubEditError, StrictError
from hubedit.evaluate import EditReport, Reading, compare, read
from hubedit.evaluate.drift import drift
from hubedit.evaluate.measure import Measured
from hubedit.evaluate.report import report as report_json
from hubedit.evaluate.side import Side
from hubedit.facts import Fact, check_tokens, to_record
from hubedit.folder import check_free as check_place
from hubedit.folder import next_step
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.patch import Patch, base_record
from hubedit.patch.identity import patch_id
from hubedit.patch.ontop import protected, replaced, stacked, standing_on, whole_sites
from hubedit.patch.value import RECORD
from hubedit.presets import check_method, check_settings
from hubedit.progress import Progress, Silent
from hubedit.report.files import Source, shown_files
from hubedit.report.licence import licence_of
from hubedit.report.markup import plural

_SHOWN = 3  # facts that a message names one by one


@dataclass(frozen=True, eq=False)
class Applied:
    """A patch that was written. `report`: through the patch as it is on disk, truncated or not; `told`:
    the content of report.json."""

    path: Path
    patch: Patch
    edit: Edit
    report: EditReport
    told: Mapping[str, Any]


def apply_facts(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    *,
    out: str | Path,
    on: Patch | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
    source: str = "facts",
    with_facts: bool = True,
    overwrite: bool = False,
    strict: bool = False,
    command: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Applied:
    """Computes a patch that edits `facts` into `em`, tests it by generation, and writes it to `out`.

    `source`: the facts' file, for messages. `with_facts`: False keeps the facts themselves out of the
    folder. `on`: an older patch to edit on top of; the result does both. `overwrite` replaces an older
    patch at `out`. `command`: the words of the command line, for the record; `notes`: what a reader of the
    figures should know, for report and card.
    Everything that can be refused is refused before the long work: FactsError, ConfigError, PatchError.
    Raises CollapseError when the edit would damage the model, PatchError when the disk refuses; then
    nothing is at `out`. With `strict` raises StrictError after writing when facts still fail.
    """
    cache, progress = cache or Cache(), progress or Silent()
    path = Path(out)
    check_facts(em, facts, source)
    check_config(em, config)
    check_free(path, overwrite)
    cache.check()
    statistics = statistics_record(em, config) | ({"repo": cache.repo} if cache.repo else {})
    weights = _checksum(em)
    seconds: dict[str, float] = {}

    kept = protected(on, facts)
    again = replaced(on, facts)
    for fact in again[:_SHOWN]:
        progress.message(f"edited again: {fact.prompt!r}, which the older patch makes {fact.target!r}")
    if len(again) > _SHOWN:
        progress.message(f"and {len(again) - _SHOWN:,} more facts of the older patch are edited again")
    with standing_on(em, on) as stood:
        start = time.perf_counter()
        before = _read(stood, facts, "asking before", progress)
        context = read(stood, facts, in_context=True)
        kept_before = read(stood, kept)
        seconds["reading before"] = time.perf_counter() - start
        edit = compute(stood, facts, config, kept=kept, cache=cache, progress=progress)
        tried = holdout_rows(stood, config.stats, TEXT_ROWS, cache, progress)
        text, used = unseen_rows(stood, config.stats, cache, progress)
    seconds |= edit.seconds

    start = time.perf_counter()
    patch, perplexity = _patch(em, edit, facts, config), edit.perplexity_after
    if on is not None:
        patch = stacked(on, patch)
    truncated = 0 < config.rank < max(factor.rank for factor in patch.factors.values())
    if truncated:
        patch, _ = patch.truncate(config.rank)
    if truncated:
        moved = drift(_side(em, on), _side(em, patch), tried)
        count = max(sum(moved.tokens), 1)
        clean, cut = sum(moved.nll_before) / count, sum(moved.nll_after) / count
        judge_collapse(edit.reports, clean, cut, config, progress)
        perplexity = float(torch.tensor(cut).exp())
    moved = drift(_side(em, on), _side(em, patch), text)
    with applied(em, on_device(em, patch)):
        after = _read(em, facts, "asking after", progress)
        kept_after = read(em, kept)
    report = compare(facts, before, after)
    seconds["reading after"] = time.perf_counter() - start
    if _checksum(em) != weights:
        raise HubEditError("the model's weights changed during the edit; nothing was written", "report this")

    made = edit_record(
        em,
        edit,
        config,
        base=patch.record["base"],
        statistics=statistics,
        seconds=seconds,
        command=command,
    )
    made["perplexity"]["after"] = perplexity
    if on is not None:
        made["sites"] = whole_sites(made["sites"], patch, em)
    record = {**patch.record, **made, "metrics": report.metrics, "counts": report.counts}
    patch = replace(patch, record=record)
    told = {
        **report_json(facts, Measured(before, context=context), Measured(after)),
        **moved.to_json(),
        "text": {"corpus": portable(config.stats.corpus), "rows": len(moved.tokens), "used": used},
    }
    told["notes"] = [*told.get("notes", ()), *notes]
    told = {name: value for name, value in told.items() if value not in ({}, [], None)}
    if kept:
        shares = [compare(kept, r, r).metrics["success"] for r in (kept_before, kept_after)]
        told["on"] = {"facts": len(kept), "success_before": shares[0], "success_after": shares[1]}
        progress.message(
            f"{plural(len(kept), 'fact')} of the older patch: "
            f"{shares[0]:.0%} hold before, {shares[1]:.0%} after"
        )
    files = _files(patch, told, path.name, with_facts)
    patch.save(path, with_facts=with_facts, files=files, overwrite=overwrite)
    if strict:
        check_strict(report)
    return Applied(path, patch, edit, report, told)


def check_facts(em: EditableModel, facts: Sequence[Fact], source: str = "facts") -> None:
    """Raises FactsError with every fact that the model's tokenizer cannot place."""
    if not facts:
        raise FactsError(f"{source}: no facts to edit", "write one fact on each line")
    problems = check_tokens(facts, em.tokenizer, source)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise FactsError(f"{source}: {count} with the tokenizer of {em.ref}", problems=problems)


def check_config(em: EditableModel, config: EditConfig) -> None:
    """Raises ConfigError for settings that do not fit the model, which the long work would meet late."""
    check_method(config.method)
    check_values(config)
    layers = (0,) if config.layers == "auto" else parse_layers(config.layers, em.num_layers)
    check_one_layer(config, layers)
    for name in ("rank", "lam", "batch_size", "l2"):
        value = getattr(config, name)
        if not 0 <= value < float("inf"):
            raise ConfigError(f"{name.replace('_', ' ')} must not be negative, but is {value}")
    check_settings(config)
    if config.stats.corpus != SELF:
        corpus_source(config.stats.corpus)


def check_free(path: Path, overwrite: bool) -> None:
    """Raises ConfigError unless a patch can be written to `path`: free, or an older patch to replace."""
    try:
        check_place(path, RECORD, overwrite=overwrite)
    except OSError as error:
        hint = f"{next_step(error)} with --out"
        raise ConfigError(f"cannot write to {path}: {error.strerror or error}", hint) from error


def check_strict(report: EditReport) -> None:
    """Raises StrictError when facts of a written patch still fail."""
    if report.failed:
        count, total = len(report.failed), len(report.outcomes)
        fail = "fails" if count == 1 else "fail"
        raise StrictError(
            f"{count} of {plural(total, 'fact')} still {fail}; the patch was written all the same"
        )


def on_device(em: EditableModel, patch: Patch) -> Mapping[Any, Any]:
    """The patch's factors as `applied` takes them, where the model is."""
    return {site: factor.to(em.device) for site, factor in patch.by_site(em).items()}


def _patch(em: EditableModel, edit: Edit, facts: Sequence[Fact], config: EditConfig) -> Patch:
    # PEFT takes a local base by its path, which must hold wherever it is loaded from
    base = em.ref if em.commit else str(em.path.resolve())
    factors = {em.module_name(site): factor for site, factor in edit.factors.items()}
    record = {
        **method_record(config),
        "base": {**base_record(em, edit.factors), "licence": licence_of(em.path)},
    }
    return Patch(factors, record, base, em.commit, tuple(facts), em.family.conv1d)


def _read(em: EditableModel, facts: Sequence[Fact], stage: str, progress: Progress) -> Reading:
    progress.start(stage, len(facts), "facts")
    reading = read(em, facts)
    progress.advance(len(facts))
    progress.finish(f"{len(reading.texts)} prompts")
    return reading


def _side(em: EditableModel, patch: Patch | None) -> Side:
    return Side(em) if patch is None else Side(em, patch.by_site(em), patch_id(patch))


def _files(patch: Patch, report: dict[str, Any], name: str, with_facts: bool) -> dict[str, bytes]:
    """The files beside the adapter: report.json, the card, the page and the figures."""
    if not with_facts:
        numbers = ("probability_before", "probability_after", "rank_before", "rank_after", "success")
        told = {k: v for k, v in report.items() if k not in ("relations", "damage")}  # they quote the facts
        report = {**told, "facts": [{k: f[k] for k in numbers} for f in report["facts"]]}
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    facts = [to_record(fact) for fact in patch.facts] if with_facts else []
    shown = shown_files(Source(patch.full_record(), report, name, facts, with_facts))
    return {"report.json": f"{text}\n".encode(), **shown}


def _checksum(em: EditableModel) -> tuple[int, ...]:
    """One number a parameter, from its bits, computed where it lies: cheap on a GPU too."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tuple(
        int(p.detach().view(kinds[p.element_size()]).sum(dtype=torch.int64)) for _, p in em.parameters()
    )
