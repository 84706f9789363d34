"""Edits a lab model and prints its metrics: one line a run.

    python -m tests.lab.experiment MODEL_DIR --edits 60 [--set layers=0-2 --set targets.kl=0.5 ...]

The metrics are those of `hubedit.evaluate` (greedy exact match); HM is their harmonic mean. Only edits
whose true fact the model knows are taken. Worlds used to tune are not the ones results are reported on.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubedit.cache import Cache
from hubedit.config import EditConfig, from_dict, to_dict
from hubedit.edit.compute import Edit, compute
from hubedit.evaluate import EditReport, compare, read
from hubedit.facts import Fact, Probe
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.load import load

SENTENCES = (
    "The shop on the corner was closed for the winter.",
    "She put the letter back into the drawer.",
    "Trains run every hour, except on Sundays.",
    "Nobody had seen the cat since Monday.",
)
"""They stand in no corpus of the models, so they are no context that an edit has seen."""


def edits_of(folder: Path) -> list[Fact]:
    """The edits of a lab model's folder."""
    facts = []
    for number, line in enumerate((folder / "edits.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        r = json.loads(line)

        def probes(entries: list[dict[str, str]]) -> tuple[Probe, ...]:
            return tuple(Probe(p["prompt"], (p["answer"],), p["type"]) for p in entries)

        facts.append(
            Fact(
                r["prompt"],
                r["subject"],
                r["target"],
                r["id"],
                (r["ground_truth"],),
                tuple(r["rephrase"]),
                probes(r["locality"]),
                probes(r["portability"]),
                number,
            )
        )
    return facts


def known(em: EditableModel, facts: Sequence[Fact]) -> list[Fact]:
    """Facts whose old answer the model gives; their probes keep only what it answers rightly before."""
    texts = dict(zip(prompts := [f.prompt for f in facts], greedy(em, prompts, 8), strict=True))
    result = []
    for fact in facts:
        if gives(texts[fact.prompt], fact.ground_truth):
            said = greedy(em, [p.prompt for p in fact.locality], 8) if fact.locality else []
            right = tuple(p for p, t in zip(fact.locality, said, strict=True) if gives(t, p.answers))
            result.append(replace(fact, locality=right))
    return result


def measure(
    em: EditableModel, facts: Sequence[Fact], config: EditConfig, cache: Cache
) -> tuple[Edit, EditReport, float]:
    """One run: the edit, its report, and its seconds."""
    start = time.perf_counter()
    edit = compute(em, facts, config, cache=cache)
    seconds = time.perf_counter() - start
    before = read(em, facts)
    patched = em.with_patch(edit.factors)
    after = read(patched, facts)
    return edit, compare(facts, before, after), seconds


def in_text(em: EditableModel, facts: Sequence[Fact], edit: Edit) -> tuple[float | None, int]:
    """The share of the facts' own prompts after an unrelated sentence that give the new answer, of those (so
    many) where the unedited model gives the old one; None where there are none."""
    asked = [
        (f"{SENTENCES[(n + k) % len(SENTENCES)]} {fact.prompt}", fact)
        for n, fact in enumerate(facts)
        for k in range(2)
    ]
    said = greedy(em, [prompt for prompt, _ in asked], 8)
    right = [a for a, text in zip(asked, said, strict=True) if gives(text, a[1].ground_truth)]
    patched = em.with_patch(edit.factors)
    new = greedy(patched, [prompt for prompt, _ in right], 8)
    hits = [gives(text, [fact.target]) for (_, fact), text in zip(right, new, strict=True)]
    return (sum(hits) / len(hits) if hits else None), len(hits)


def override(config: EditConfig, settings: Sequence[str]) -> EditConfig:
    """`config` with `name=value` or `group.name=value` settings."""
    data: dict[str, Any] = to_dict(config)
    for setting in settings:
        name, _, text = setting.partition("=")
        group, _, leaf = name.rpartition(".")
        place = data[group] if group else data
        try:
            place[leaf] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            place[leaf] = text
        if isinstance(place[leaf], (int, float)) and name in ("layers", "alpha"):
            place[leaf] = text
    return from_dict(EditConfig, data)


def line(label: str, edit: Edit, report: EditReport, seconds: float) -> str:
    """One row of figures."""
    names = ("success", "generalisation", "locality", "neighbourhood", "portability")
    figures = " ".join(f"{100 * report.metrics.get(n, float('nan')):5.1f}" for n in names)
    hm = 100 * (report.harmonic_mean or 0)
    assert edit.targets is not None, "the joint method has them"
    layers = ",".join(map(str, edit.layers))
    return (
        f"{figures} | HM {hm:5.1f} | {label} | layers {layers} alpha {max(edit.alpha.values()):.2f} "
        f"loss {float(edit.targets.loss.mean()):.2f} nll {float(edit.targets.nll.mean()):.2f} "
        f"ppl {edit.perplexity_before:.2f}>{edit.perplexity_after:.2f} {seconds:.0f}s"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--try", action="append", default=[], dest="tries", help="settings, comma separated")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--in-text", action="store_true", help="ask the prompts after other sentences too")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    em = load(str(args.model), device="cpu")
    facts = known(em, edits_of(args.model))[args.skip : args.skip + args.edits]
    cache = Cache(args.cache)
    print(f"{args.model.name}: {len(facts)} facts")
    for attempt in args.tries or [""]:
        config = override(EditConfig(), [*args.settings, *(s for s in attempt.split(";") if s)])
        try:
            edit, report, seconds = measure(em, facts, config, cache)
            print(line(attempt or "default", edit, report, seconds), flush=True)
            if args.in_text:
                share, count = in_text(em, facts, edit)
                figure = "nothing known" if share is None else f"{share:.1%} of {count}"
                print(f"    after an unrelated sentence: {figure}", flush=True)
        except Exception as error:
            print(f"{attempt}: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
