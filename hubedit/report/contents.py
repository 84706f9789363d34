"""What the card and the HTML report both say, of a patch and of a merged model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubedit.report import about, evidence
from hubedit.report.comparison import Compared, compare
from hubedit.report.licence import licence_metadata
from hubedit.report.markup import is_hub, last, number, percent, plural, quoted
from hubedit.report.measures import Json, measures, outcomes, variant
from hubedit.report.tables import tables

USE = (
    "For research on editing knowledge, and for correcting facts that a model has wrong or that have "
    "changed, where the figures above are good enough for the purpose. Not for putting false statements "
    "into a model that others will trust."
)

# of several patches in one model, what is shown of each
_OF_EACH = ("Method", "Layers", "Attention's share (alpha)", "Rank", "Size of the changes", "Statistics from")


def patch_contents(
    record: Json, report: Json, facts: Sequence[Json], *, with_facts: bool, most: int, size: int
) -> dict[str, Any]:
    """The values of a patch's templates. `most`, `size`: rows and bytes of the table of facts."""
    edits = evidence.edits(report, facts, with_facts=with_facts, most=most, size=size)
    stored = number((record.get("facts") or {}).get("count"))
    count = edits.total if stored is None else int(stored)
    return {
        "base": about.base_of(record),
        "licence": _licence(record),
        "version": (record.get("packages") or {}).get("hubedit", ""),
        "count": count,
        "edits": edits,
        "withheld": not with_facts and count > 0,
        "hidden": 0,
        "failed": evidence.failed(report),
        "asked": len(outcomes(report)),
        "tables": tables(report),
        "damage": evidence.damage(report, with_facts=with_facts),
        "notes": about.notes(report, record),
        "made": about.made(record),
        "way": about.way(record),
        "large": [remark] if (remark := _large(record)) else [],
        "configuration": about.configuration(record),
        "evaluation": about.evaluation(report, record),
        "command": about.reproduction(record),
        "lineage": [],
        "realised": [],
        "converted": "",
        "of_patches": None,
    }


def merged_contents(
    record: Json, report: Json, facts: Sequence[Json], *, with_facts: bool, most: int, size: int
) -> dict[str, Any]:
    """The values of a merged model's templates. `report`: of which only the merged model's figures count."""
    own = variant(report, "merged")
    patches = patches_of(record)
    reports = [r if isinstance(r, Mapping) else {} for r in record.get("reports") or ()]
    if not facts:
        keys = ("prompt", "subject", "target")
        # what the adapters said is no statement about the merged model
        facts = [{k: o[k] for k in keys if k in o} for r in reports for o in outcomes(r)]
    values = patch_contents(record, own, facts, with_facts=with_facts, most=most, size=size)
    counts = [_facts(patch) for patch in patches]
    if counts and None not in counts:
        values["count"] = sum(count or 0 for count in counts)
    shown = len(values["edits"].rows) + values["edits"].left
    values["hidden"] = max(0, values["count"] - shown) if shown else 0
    values["withheld"] = values["count"] > 0 and not shown and (not with_facts or bool(patches))
    values["lineage"] = lineage(record)
    values["realised"] = realised(record)
    values["converted"] = str(record.get("converted") or "")
    values["of_patches"] = None if measures(own) else _of_patches(reports)
    return values | _made(record)


def _made(record: Json) -> dict[str, Any]:
    """How a merged model's patches were made, as their own records say."""
    records = [r for r in record.get("records") or () if isinstance(r, Mapping)]
    merged = [("Merged with" if name == "Versions" else name, text) for name, text in about.made(record)]
    if len(records) == 1:
        (one,) = records
        found = {"configuration": about.configuration(one), "command": about.reproduction(one)}
        rows = about.made(one)
    else:
        found = {"configuration": about.configuration(record), "command": about.reproduction(record)}
        rows = [
            (f"Patch {n}: {name}", text)
            for n, one in enumerate(records, 1)
            for name, text in about.made(one)
            if name in _OF_EACH
        ]
    ways = dict.fromkeys(about.way(one) for one in records)
    return {
        **found,
        "made": rows + merged,
        "way": next(iter(ways)) if len(ways) == 1 else "",
        "large": list(dict.fromkeys(remark for one in records if (remark := _large(one)))),
    }


def loading(base: Mapping[str, str], name: str, commit: str, *, merged: bool) -> str:
    """Three lines of Python that load it (two for a merged model), after the imports; revisions pinned.

    `base`: of `about.base_of`; `name`, `commit`: where the patch or merged model is.
    """

    def place(name: str, commit: str) -> str:
        return quoted(name) + (f", revision={quoted(commit)}" if commit else "")

    auto = f"from transformers import {base['loader']}, AutoTokenizer"
    there = place(name, commit) if merged else place(base["place"], base["commit"])
    tokenizer = f"tokenizer = AutoTokenizer.from_pretrained({there})"
    model = f'{base["loader"]}.from_pretrained({there}, dtype="auto")'
    if merged:
        return f"{auto}\n\n{tokenizer}\nmodel = {model}"
    own = f"model = PeftModel.from_pretrained(base, {place(name, commit)})"
    return f"from peft import PeftModel\n{auto}\n\n{tokenizer}\nbase = {model}\n{own}"


def limits(values: Mapping[str, Any], *, merged: bool) -> list[str]:
    """What a user must know before relying on it; `values` of `patch_contents` or `merged_contents`."""
    pinned = ", at the commit above" if values["base"]["commit"] else ""
    sentences = [
        f"The adapter fits this base model only{pinned}. Loaded on another model of the same shape it gives "
        "no warning and wrong answers.",
        "Keep the adapter in float32: in bfloat16 small edits can vanish.",
    ]
    if merged:
        sentences = ["Do not load the patches on top of this model: they are in it already."]
    sentences += [
        "An edit changes what the model says about its subject. Facts that follow from it may or may not "
        "change with it.",
        "Prompts of other forms, other languages and long conversations may still give the old answer.",
    ]
    sentences += values["large"]
    if values["failed"]:
        sentences.append(
            f"{plural(values['failed'], 'fact')} of the {values['asked']:,} did not change as asked."
        )
    if not values["tables"]:
        sentences.append(f"The {'merged model' if merged else 'patch'} was not evaluated.")
    return sentences


def _large(record: Json) -> str:
    """A remark on changes that are larger than the weight they are added to; "" for none."""
    relative, sizes = about.norms(record)
    above = [norm for _, _, norm in sizes if norm > 1] if relative else []
    if not above:
        return ""
    which = "the edited weight" if len(sizes) == 1 else f"{len(above)} of the {len(sizes)} edited weights"
    return (
        f"The change of {which} is larger than the weight itself (up to {max(above):.2g} times its norm): "
        "what the model makes of inputs unlike those measured above may have changed."
    )


def place(name: str) -> str:
    """The name for loading code: of the Hub, or a folder's without where it lies."""
    return name if is_hub(name) else last(name) or "patch"


def lineage(record: Json) -> list[tuple[str, str]]:
    """(patch, what is known of it) for every patch of a merged model, in the order of merging."""
    rows = []
    for place, patch in enumerate(patches_of(record), start=1):
        details = [f"id {patch['id']}"] if patch.get("id") else []
        if amount := _facts(patch):
            details.append(plural(amount, "fact"))
        if (weight := number(patch.get("weight"))) is not None and weight != 1:
            details.append(f"weight {weight:g}")
        folder = str(patch.get("folder") or "")
        inside = folder if folder.startswith("patches/") and ".." not in folder else last(folder)
        rows.append((str(patch.get("name") or inside or f"patch {place}"), ", ".join(details)))
    return rows


def realised(record: Json) -> list[tuple[str, str]]:
    """(tensor, energy of its change that rounding kept) where the merge measured it."""
    rows = []
    for tensor, stored in (record.get("tensors") or record.get("realised") or {}).items():
        known = stored if isinstance(stored, Mapping) else {"kept": stored}
        # before the merge the record has no dtype, and its numbers mean nothing yet
        kept = number(known.get("kept", known.get("energy"))) if known.get("dtype", "?") else None
        if kept is not None:
            dtype = f" in {known['dtype']}" if known.get("dtype") else ""
            rows.append((str(tensor), f"{percent(kept)}{dtype}"))
    return rows


def patches_of(record: Json) -> list[Json]:
    """The patches of a merged model's record, in the order of merging."""
    found = record.get("patches") or record.get("lineage") or ()
    return [p if isinstance(p, Mapping) else {"name": last(str(p))} for p in found]


def _facts(patch: Json) -> int | None:
    stored = patch.get("facts")
    count = number(stored.get("count") if isinstance(stored, Mapping) else stored)
    return None if count is None else int(count)


def _of_patches(reports: Sequence[Json]) -> Compared | None:
    """What the patches' own reports say, where the merged model has none."""
    named: list[tuple[str, Json, Json]] = [(f"Patch {n}", {}, r) for n, r in enumerate(reports, 1)]
    known = [entry for entry in named if measures(entry[2])]
    return compare(known) if known else None


def _licence(record: Json) -> str:
    base = about.base_of(record)
    found = licence_metadata(record.get("base") or {}, base["name"] if base["hub"] else "", base["commit"])
    stored = found.get("license_name") or found.get("license") or ""
    return ", ".join(stored) if isinstance(stored, list) else str(stored)
