"""Facts in, a patch out: in memory (`edit_facts`), or tested by generation and written (`apply_facts`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.checks import check_config, check_facts
from hubedit.edit.compute import Edit, compute
from hubedit.edit.methods.earlier import save_keys
from hubedit.edit.patch_record import edit_record, method_record, statistics_record
from hubedit.edit.result import judge_collapse
from hubedit.edit.statistics.corpus import checked_rows, unseen_rows
from hubedit.edit.statistics.second_moments import second_moments
from hubedit.environment import peak_memory, portable
from hubedit.errors import HubEditError, StrictError
from hubedit.evaluate import EditReport, Reading, compare, read
from hubedit.evaluate.drift import drift
from hubedit.evaluate.forms import all_forms
from hubedit.evaluate.measure import Measured
from hubedit.evaluate.report import report as report_json
from hubedit.facts import Fact, to_record
from hubedit.facts.tokens import long_targets
from hubedit.folder import check_free as check_place
from hubedit.model.chat import RECORD as CHAT
from hubedit.model.editable import EditableModel
from hubedit.model.memory import release
from hubedit.patch import Patch, base_record
from hubedit.patch.identity import patch_id
from hubedit.patch.ledger import brief, sizes
from hubedit.patch.ontop import origins, protected, replaced, stacked, whole_sites
from hubedit.patch.owners import as_record
from hubedit.patch.ranks import cut, rank_for
from hubedit.patch.value import RECORD
from hubedit.progress import Progress, Silent
from hubedit.report.files import patch_files
from hubedit.report.licence import licence_of
from hubedit.report.markup import plural

_SHOWN = 3  # facts that a message names one by one
_CONTEXT, _OLDER = "asking with the fact in front", "asking the older patch's facts"
_ASKED = 50  # this many of an older patch's first facts and of its last are asked again


@dataclass(frozen=True, eq=False)
class Edited:
    """A patch in memory. `before`, `after`: the model without it (an older one stays) and with it."""

    patch: Patch
    edit: Edit
    before: EditableModel
    after: EditableModel


@dataclass(frozen=True, eq=False)
class Applied:
    """A patch that was written. `report`: through the patch as it is on disk, truncated or not; `content`:
    of report.json."""

    path: Path
    patch: Patch
    edit: Edit
    report: EditReport
    content: Mapping[str, Any]


def edit_facts(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    *,
    on: Patch | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
    source: str = "facts",
    command: Sequence[str] = (),
) -> Edited:
    """Computes a patch that edits `facts` into `em`, checked for collapse and not yet asked anything.

    `on`: an older patch to edit on top of; the result does both. `source`: the facts' file, for messages;
    `command`: the words of the command line, for the record.
    Raises FactsError, ConfigError and PatchError before the long work, CollapseError when the edit would
    damage the model.
    """
    cache, progress = cache or Cache(), progress or Silent()
    check_facts(em, facts, source)
    check_config(em, config)
    cache.check()
    statistics = statistics_record(em, config) | ({"repo": cache.repo} if cache.repo else {})
    weights = em.checksum()

    before, kept, steps = em if on is None else em.with_patch(on), protected(on, facts), origins(on, facts)
    older = None if on is None else before.patches[-1]  # checked, and not wider than the matrices
    edit = compute(em, facts, config, on=older, earlier=kept, steps=steps, cache=cache, progress=progress)
    patch, perplexity = _patch(em, edit, facts, config), edit.perplexity_after
    save_keys(cache, patch_id(patch), config.method, [fact.prompt for fact in facts], edit.keys)
    if on is not None:
        patch = stacked(on, patch)
    patch, truncated = _cut(em, patch, config, cache, progress)
    after = em.with_patch(patch.by_site(em))
    if truncated:
        progress.start("measuring perplexity of the cut patch")
        moved = drift(before, after, checked_rows(em, config.stats, cache, Silent()))
        count = max(sum(moved.tokens), 1)
        clean, left = sum(moved.nll_before) / count, sum(moved.nll_after) / count
        judge_collapse(edit.reports, clean, left, config, progress)
        perplexity = float(torch.tensor(left).exp())
        progress.finish()
    if em.checksum() != weights:
        raise HubEditError("the model's weights changed during the edit; nothing was written", "report this")
    made = edit_record(
        em,
        edit,
        config,
        base=patch.record["base"],
        statistics=statistics,
        seconds=edit.seconds,
        command=command,
    )
    made["perplexity"]["after"] = perplexity
    if on is not None:
        *older, step = patch.record["steps"]
        own, drifts = brief(made), {site: r.drift for site, r in edit.whole.items()}
        made["sites"] = whole_sites(made["sites"], patch, em, drifts)
        made["steps"] = [*older, step | own | {"whole": sizes(made)}]
    return Edited(replace(patch, record={**patch.record, **made}), edit, before, after)


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
    brief: bool = False,
) -> Applied:
    """Computes a patch that edits `facts` into `em`, tests it by generation, and writes it to `out`.

    `source`, `on`, `command`: as for `edit_facts`. `with_facts`: False keeps the facts themselves out of the
    folder. `overwrite` replaces an older patch at `out`; `notes`: what readers of report and card know;
    `brief`: prompts are asked in their usual form alone, and not with the fact in front of them.
    Everything that can be refused is refused before the long work: FactsError, ConfigError, PatchError.
    Raises CollapseError when the edit would damage the model, PatchError when the disk refuses; then
    nothing is at `out`. With `strict` raises StrictError after writing when facts still fail.
    """
    cache, progress, path = cache or Cache(), progress or Silent(), Path(out)
    check_facts(em, facts, source)
    check_config(em, config)
    check_free(path, overwrite)
    cache.check()
    kept = protected(on, facts)
    # a long stack's facts are not all asked for every batch; `hubedit check` asks all of them
    some = kept if len(kept) <= 2 * _ASKED else (*kept[:_ASKED], *kept[-_ASKED:])
    _announce(em, facts, on, source, progress)
    start = time.perf_counter()
    stood = em if on is None else em.with_patch(on)
    before = read(stood, facts, progress=progress, stage="asking before")
    some_before = read(stood, some, progress=progress, stage=_OLDER) if some else None
    forms_before: Mapping[str, Reading] = {}
    context_forms: Mapping[str, Reading] = {}
    context = None
    if not brief:
        forms_before = all_forms(stood, facts, before, progress, "asking before, in other forms")
        context = read(stood, facts, in_context=True, progress=progress, stage=_CONTEXT)
        context_forms = all_forms(stood, facts, context, progress, f"{_CONTEXT}, in other forms")
    release(em.device)
    seconds = {"reading before": time.perf_counter() - start}

    found = edit_facts(
        em, facts, config, on=on, cache=cache, progress=progress, source=source, command=command
    )
    edited = found.after

    release(em.device)
    start = time.perf_counter()
    text, used = unseen_rows(em, config.stats, cache, progress)
    progress.start("comparing both models on text")
    moved = drift(stood, edited, text)
    progress.finish(f"{sum(moved.tokens)} tokens")
    release(em.device)
    after = read(edited, facts, progress=progress, stage="asking after")
    some_after = read(edited, some, progress=progress, stage=_OLDER) if some else None
    forms_after: Mapping[str, Reading] = {}
    if not brief:
        forms_after = all_forms(edited, facts, after, progress, "asking after, in other forms")
    report = compare(facts, before, after)
    stages = {**found.edit.seconds, **seconds, "reading after": time.perf_counter() - start}

    measured: dict[str, Any] = {"metrics": report.metrics, "counts": report.counts}
    measured |= {"seconds": sum(stages.values()), "seconds_by_stage": stages}
    made = {**found.patch.record, **measured, "peak_memory": peak_memory(em.device)}
    content = {
        **report_json(
            facts,
            Measured(before, context=context, forms=forms_before, context_forms=context_forms),
            Measured(after, forms=forms_after),
        ),
        **moved.to_json(),
        "text": {"corpus": portable(config.stats.corpus), "rows": len(moved.tokens), "used": used},
    }
    content["notes"] = [*content.get("notes", ()), *notes]
    if notes:
        made["notes"] = list(notes)
    content = {name: value for name, value in content.items() if value not in ({}, [], None)}
    if some_before is not None and some_after is not None:
        shares = [compare(some, r, r).metrics["success"] for r in (some_before, some_after)]
        older = {"asked": len(some), "success_before": shares[0], "success_after": shares[1]}
        content["on"] = {"facts": len(kept), **older}
        progress.message(
            f"{plural(len(some), 'fact')} of the older patch: "
            f"{shares[0]:.0%} hold before, {shares[1]:.0%} after"
        )
    if on is not None:
        *steps, step = made["steps"]
        asked = {"metrics": report.metrics} | ({"older": content["on"]} if kept else {})
        made["steps"] = [*steps, step | asked]
    patch = replace(found.patch, record=made)
    own = [to_record(fact) for fact in patch.facts]
    files = patch_files(patch.full_record(), content, path.name, own, with_facts=with_facts)
    patch.save(path, with_facts=with_facts, files=files, overwrite=overwrite)
    if strict:
        check_strict(report)
    return Applied(path, patch, found.edit, report, content)


def check_free(path: Path, overwrite: bool) -> None:
    """Raises ConfigError unless a patch can be written to `path`: free, or an older patch to replace."""
    check_place(path, RECORD, overwrite=overwrite)


def check_strict(report: EditReport) -> None:
    """Raises StrictError when facts of a written patch still fail."""
    if report.failed:
        count, total = len(report.failed), len(report.outcomes)
        fail = "fails" if count == 1 else "fail"
        raise StrictError(
            f"{count} of {plural(total, 'fact')} still {fail}; the patch was written all the same"
        )


def _announce(
    em: EditableModel, facts: Sequence[Fact], on: Patch | None, source: str, progress: Progress
) -> None:
    """Says which targets are long, and which facts of the older patch are edited again."""
    for line in (long := long_targets(facts, em.tokenizer, source))[:_SHOWN]:
        progress.message(line)
    if len(long) > _SHOWN:
        progress.message(f"and {len(long) - _SHOWN:,} more targets as long")
    again = replaced(on, facts)
    for fact in again[:_SHOWN]:
        progress.message(f"edited again: {fact.prompt!r}, which the older patch makes {fact.target!r}")
    if len(again) > _SHOWN:
        progress.message(f"and {len(again) - _SHOWN:,} more facts of the older patch are edited again")


def _patch(em: EditableModel, edit: Edit, facts: Sequence[Fact], config: EditConfig) -> Patch:
    # PEFT takes a local base by its path, which must hold wherever it is loaded from
    base = em.ref if em.commit else str(em.path.resolve())
    factors = {em.module_name(site): factor for site, factor in edit.factors.items()}
    record = {
        **method_record(config),
        "base": {**base_record(em, edit.factors), "licence": licence_of(em.path)},
        **({} if em.chat is None else {CHAT: {"system": em.chat.system}}),
    }
    if edit.rows is not None:
        record["rows"] = as_record(dict.fromkeys(factors, edit.rows))
    return Patch(factors, record, base, em.commit, tuple(facts), em.family.conv1d)


def _cut(
    em: EditableModel, patch: Patch, config: EditConfig, cache: Cache, progress: Progress
) -> tuple[Patch, bool]:
    """The patch at the rank that the configuration asks for, and whether it is a smaller one."""
    exact = max(pair.rank for pair in patch.pairs.values())
    if config.rank == 0 or exact <= config.rank:
        return patch, False
    sites = patch.sites(em)
    found = second_moments(em, sites.values(), config.stats, cache, progress)
    moments = {module: found[site].matrix.numpy() for module, site in sites.items()}
    rank = config.rank if config.rank > 0 else rank_for(patch, moments)
    return (cut(patch, rank, moments), True) if rank < exact else (patch, False)
