"""ROME and R-ROME over a long sequence of edits: what is left after every few facts.

    python -m tests.lab.rome_sequence [MODEL FACTS] [--edits 100] [--every 20]
    python -m tests.lab.rome_sequence --first-token

One fact is one column of the factors, so the patch after n facts is the first n columns. Without arguments
the bundled model and its facts. `--first-token` takes facts whose subject is one token and begins its prompt
("Egypt lies on the continent of"): the cases on which ROME collapses (Yang et al. 2024, arXiv 2406.11263),
because a key without anything before it is far from the key averaged over contexts.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

from hubedit.cache import Cache
from hubedit.demo import facts_path, model_path
from hubedit.edit.compute import compute
from hubedit.edit.statistics.corpus import TEXT_ROWS, holdout_rows
from hubedit.errors import CollapseError
from hubedit.evaluate import compare, read
from hubedit.facts import Fact, Probe, load_facts
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.model.score import perplexity
from hubedit.model.tokens import encode
from hubedit.presets import method_defaults
from hubedit.progress import Silent
from tests.lab.real_tables import Knowledge, bare, fill


def first_token_facts(em: EditableModel, count: int, seed: int = 0) -> list[Fact]:
    """Up to `count` facts of the bundled model's world, each about another subject of one token that begins
    its prompt. Targets are drawn from the relation's other answers, a neighbour from its longer subjects."""
    known, rng = Knowledge(), random.Random(f"first-token/{seed}")
    found: dict[str, Fact] = {}
    for relation in ("continent", "country", "home_country", "birth_country"):
        template = next(t for t in known.phrasings[relation] if t.startswith("{s}"))
        answers = known.answers[relation]
        short = [n for n in answers if len(encode(em.tokenizer, n).ids) == 1]
        long = sorted(set(answers) - set(short))
        for name in short:
            target = rng.choice(sorted(set(answers.values()) - {answers[name]}))
            near = rng.choice(long)
            local = (Probe(fill(template, near), (bare(answers[near]),)),)
            found.setdefault(name, Fact(fill(template, name), name, bare(target), locality=local))
    return list(found.values())[:count]


@dataclass(frozen=True)
class AfterEdits:
    """The model after the first `facts` edits. `metrics`: shares, 0 to 1; `nll` of text, nats a token;
    `size`: |dW| / |W| of the site that changed most."""

    facts: int
    metrics: dict[str, float]
    nll: float
    size: float


def sequence(
    em: EditableModel, facts: Sequence[Fact], method: str, layers: str, counts: Sequence[int]
) -> list[AfterEdits]:
    """Edits all facts one after another and looks at the model after the first n, for every n of `counts`."""
    config = replace(method_defaults(method), layers=layers, collapse="tell")
    edit = compute(em, facts, config)
    text = holdout_rows(em, config.stats, TEXT_ROWS, Cache(), Silent())
    found = []
    for n in counts:
        before = read(em, facts[:n])
        part = {s: LowRank(f.B[:, :n], f.A[:n]) for s, f in edit.factors.items()}
        patched = em.with_patch(part)
        after, nll = read(patched, facts[:n]), log(perplexity(patched, text))
        size = max(f.norm() / float(em.weight(s).norm()) for s, f in part.items())
        found.append(AfterEdits(n, dict(compare(facts[:n], before, after).metrics), nll, size))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=str(model_path()))
    parser.add_argument("facts", nargs="?")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--layers", default="auto")
    parser.add_argument("--methods", default="rome,r-rome")
    parser.add_argument("--first-token", action="store_true")
    args = parser.parse_args()
    if args.first_token and (args.facts or args.model != str(model_path())):
        parser.error("--first-token takes its facts from the bundled model's world")
    em = load(args.model, device="cpu")
    given = load_facts(args.facts or facts_path(), limit=args.edits).facts
    facts = first_token_facts(em, args.edits) if args.first_token else given
    counts = [*range(args.every, len(facts), args.every), len(facts)]
    names = ("success", "generalisation", "locality", "neighbourhood")
    print("method   facts  success  generalisation  locality  neighbourhood  nll of text  |dW|/|W|")
    for method in args.methods.split(","):
        try:
            for found in sequence(em, facts, method, args.layers, counts):
                shares = [f"{found.metrics[m]:.1%}" if m in found.metrics else "" for m in names]
                figures = (*shares, f"{found.nll:.3f}", f"{found.size:.3f}")
                widths = (7, 14, 8, 13, 11, 8)
                shown = "  ".join(f"{v:>{w}}" for v, w in zip(figures, widths, strict=True))
                print(f"{method:8} {found.facts:5}  {shown}", flush=True)
        except CollapseError as error:
            print(f"{method:8} {len(facts):5}  {error}")


if __name__ == "__main__":
    main()
