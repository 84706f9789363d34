"""ROME and R-ROME over a long sequence of edits: what is left after every few facts.

    python -m tests.lab.rome_sequence [MODEL FACTS] [--edits 100] [--every 20]

One fact is one column of the factors, so the patch after n facts is the first n columns. Without arguments
the bundled model and its facts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from hubedit.cache import Cache
from hubedit.demo import facts_path, model_path
from hubedit.edit.compute import compute
from hubedit.edit.corpus import holdout_rows
from hubedit.edit.probes import read_text
from hubedit.edit.stages import TEXT_ROWS
from hubedit.errors import CollapseError
from hubedit.evaluate import compare, read
from hubedit.facts import load_facts
from hubedit.linalg import LowRank
from hubedit.model.hooks import applied
from hubedit.model.load import load
from hubedit.presets import method_defaults
from hubedit.progress import Silent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(model_path()))
    parser.add_argument("facts", nargs="?", default=str(facts_path()))
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--layers", default="auto")
    parser.add_argument("--methods", default="rome,r-rome")
    args = parser.parse_args()
    em = load(args.model, device="cpu")
    facts = load_facts(args.facts, limit=args.edits).facts
    counts = [*range(args.every, len(facts), args.every), len(facts)]
    before = {n: read(em, facts[:n]) for n in counts}
    print("method   facts  success  generalisation  locality  neighbourhood  nll of text  |dW|/|W|")
    for method in args.methods.split(","):
        config = replace(method_defaults(method), layers=args.layers, collapse="tell")
        try:
            edit = compute(em, facts, config)
        except CollapseError as error:
            print(f"{method:8} {len(facts):5}  {error}")
            continue
        text = holdout_rows(em, config.stats, TEXT_ROWS, Cache(), Silent())
        for n in counts:
            part = {s: LowRank(f.B[:, :n], f.A[:n]) for s, f in edit.factors.items()}
            with applied(em, part):
                after, nll = read(em, facts[:n]), read_text(em, text).nll
            found = compare(facts[:n], before[n], after).metrics
            size = max(f.norm() / float(em.weight(s).norm()) for s, f in part.items())
            shown = (found.get(m, float("nan")) for m in ("generalisation", "locality", "neighbourhood"))
            general, local, near = shown
            print(
                f"{method:8} {n:5}  {found['success']:7.1%}  {general:14.1%}  {local:8.1%}  {near:13.1%}  "
                f"{nll:11.3f}  {size:8.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
