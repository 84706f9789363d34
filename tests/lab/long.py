"""How long a target may be: edits whose new answers have 10 to 100 tokens, as a table.

    python -m tests.lab.long MODEL --data FOLDER [--facts 5] [--lengths 10,20,30,50,70,100]

MODEL is any checkpoint, FOLDER the public files of `tests.lab.known`: prompts are CounterFact's, targets the
beginnings of its real texts, cut at a word so that they have at most so many tokens. Each length edits the
same prompts, all at once, with the defaults. `whole`: answers that begin with the whole target; `tokens`: the
share of the target's tokens up to the first wrong one, greedily; `text`: perplexity after / before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.compute import compute
from hubedit.evaluate.forced import forced
from hubedit.evaluate.reading import read
from hubedit.evaluate.records import read_records
from hubedit.facts import Fact
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.forms import put
from hubedit.model.load import load
from hubedit.model.tokens import continuation
from tests.lab.known import FILES, TEXTS, candidates, texts


def cut(em: EditableModel, fact: Fact, text: str, length: int) -> Fact:
    """The fact with the first words of a text as its target, at most `length` tokens."""
    words = text.split()
    prompt, join = put(em, fact)
    count = 1
    while (
        count < len(words)
        and len(continuation(em.tokenizer, prompt, " ".join(words[: count + 1]), join)) <= length
    ):
        count += 1
    return replace(fact, target=" ".join(words[:count]))


def right_share(em: EditableModel, facts: Sequence[Fact]) -> float:
    """The mean share of the targets' tokens that come before the first wrong one."""
    pairs = [(put(em, fact)[0], fact.target) for fact in facts]
    shares = []
    for score in forced(em, pairs).values():
        same = [a == b for a, b in zip(score.labels, score.predicted, strict=True)]
        shares.append((same.index(False) if False in same else len(same)) / len(same))
    return sum(shares) / max(len(shares), 1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the public files")
    parser.add_argument("--facts", type=int, default=5)
    parser.add_argument("--lengths", default="10,20,30,50,70,100")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    em = load(str(args.model), device=args.device, dtype=args.dtype)
    pool = candidates(read_records(args.data / FILES["counterfact"]).facts, 20 * args.facts, args.seed)
    bare = [
        replace(fact, ground_truth=(), rephrase=(), locality=(), portability=())
        for fact in pool[: args.facts]
    ]
    answers = texts(args.data / TEXTS)
    print("| tokens of the target | whole, % | tokens, % | text | seconds |\n|---:|---:|---:|---:|---:|")
    for length in map(int, args.lengths.split(",")):
        facts = [cut(em, fact, answers[n % len(answers)], length) for n, fact in enumerate(bare)]
        start = time.perf_counter()
        edit = compute(em, facts, EditConfig(collapse="tell"), cache=Cache(args.cache))
        seconds = time.perf_counter() - start
        changed = em.with_patch(edit.factors)
        reading, share = read(changed, facts, probes=False), right_share(changed, facts)
        whole = [gives(reading.text(fact, fact.prompt) or "", [fact.target]) for fact in facts]
        ratio = edit.perplexity_after / edit.perplexity_before
        shown = (f"{100 * sum(whole) / len(whole):.0f}", f"{100 * share:.0f}", f"{ratio:.3f}")
        print(f"| {length} | {' | '.join(shown)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
