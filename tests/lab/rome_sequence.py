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
from dataclasses import dataclass, replace

from hubedit.cache import Cache
from hubedit.demo import facts_path, model_path
from hubedit.edit.compute import compute
from hubedit.edit.corpus import holdout_rows
from hubedit.edit.probes import read_text
from hubedit.edit.stages import TEXT_ROWS
from hubedit.errors import CollapseError
from hubedit.evaluate import compare, read
from hubedit.facts import Fact, Probe, load_facts
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.load import load
from hubedit.model.tokens import encode
from hubedit.presets import method_defaults
from hubedit.progress import Silent
from tests.lab.real_tables import Knowledge, bare, fill


def first_token_facts(em: EditableModel, count: int) -> list[Fact]:
    """Up to `count` facts of the bundled model's world, each about another subject of one token that begins
    its prompt; the target is the answer of another subject, two subjects of more tokens are neighbours."""
    known = Knowledge()
    found: dict[str, Fact] = {}
    for relation in ("continent", "country", "home_country", "birth_country"):
        template = next(t for t in known.phrasings[relation] if t.startswith("{s}"))
        answers = known.answers[relation]
        short = [n for n in answers if len(encode(em.tokenizer, n).ids) == 1]
        near = [n for n in answers if n not in short][:2]
        for name in short:
            target = next(a for a in reversed(answers.values()) if a != answers[name])
            local = tuple(Probe(fill(template, n), (bare(answers[n]),)) for n in near)
            fact = Fact(fill(template, name), name, bare(target), locality=local)
            found.setdefault(name, fact)
    return list(found.values())[:count]


@dataclass(frozen=True)
class Left:
    """What is left after the first `facts` edits. `metrics`: shares, 0 to 1; `nll` of text, nats a token;
    `size`: |dW| / |W| of the site that changed most."""

    facts: int
    metrics: dict[str, float]
    nll: float
    size: float


def sequence(em: EditableModel, facts: list[Fact], method: str, layers: str, counts: list[int]) -> list[Left]:
    """Edits all facts one after another and looks at the model after the first n, for every n of `counts`."""
    config = replace(method_defaults(method), layers=layers, collapse="tell")
    edit = compute(em, facts, config)
    text = holdout_rows(em, config.stats, TEXT_ROWS, Cache(), Silent())
    found = []
    for n in counts:
        before = read(em, facts[:n])
        part = {s: LowRank(f.B[:, :n], f.A[:n]) for s, f in edit.factors.items()}
        with applied(em, part):
            after, nll = read(em, facts[:n]), read_text(em, text).nll
        size = max(f.norm() / float(em.weight(s).norm()) for s, f in part.items())
        found.append(Left(n, dict(compare(facts[:n], before, after).metrics), nll, size))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=str(model_path()))
    parser.add_argument("facts", nargs="?", default=str(facts_path()))
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--layers", default="auto")
    parser.add_argument("--methods", default="rome,r-rome")
    parser.add_argument("--first-token", action="store_true")
    args = parser.parse_args()
    em = load(args.model, device="cpu")
    facts = list(load_facts(args.facts, limit=args.edits).facts)
    if args.first_token:
        facts = first_token_facts(em, args.edits)
    counts = [*range(args.every, len(facts), args.every), len(facts)]
    names = ("success", "generalisation", "locality", "neighbourhood")
    print("method   facts  success  generalisation  locality  neighbourhood  nll of text  |dW|/|W|")
    for method in args.methods.split(","):
        try:
            for left in sequence(em, facts, method, args.layers, counts):
                shares = [f"{left.metrics[m]:.1%}" if m in left.metrics else "" for m in names]
                figures = (*shares, f"{left.nll:.3f}", f"{left.size:.3f}")
                widths = (7, 14, 8, 13, 11, 8)
                shown = "  ".join(f"{v:>{w}}" for v, w in zip(figures, widths, strict=True))
                print(f"{method:8} {left.facts:5}  {shown}", flush=True)
        except CollapseError as error:
            print(f"{method:8} {len(facts):5}  {error}")


if __name__ == "__main__":
    main()
