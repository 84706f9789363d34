"""How long a target may be: edits whose new answers have many tokens, as a table.

    python -m tests.lab.long MODEL [--data FOLDER] [--facts 5] [--lengths 10,20,30,50,70,100] [--per 8,1000]

MODEL is any checkpoint. Edited are the facts of `data/long-answers.jsonl`, whose answers are sentences that
read on from their prompts, ten of 9 to 15 tokens and six of 20 to 25. With FOLDER, the public files of
`tests.lab.known`, the targets are instead the hardest that there are: the beginnings of unrelated texts, cut
at a word so that they have at most so many tokens, behind CounterFact's prompts.

Each row edits its facts at once with the defaults. `per` is `targets.tokens_per_rounds`; with 1000 a long
target gets no more rounds than a short one. `whole`: answers that begin with the
whole target; `tokens`: the share of the target's tokens up to the first wrong one, greedily; `text`:
perplexity after / before.
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
from hubedit.facts import Fact, load_facts
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.forms import put
from hubedit.model.load import load
from hubedit.model.tokens import continuation
from tests.lab.known import FILES, TEXTS, candidates, texts

ANSWERS = Path(__file__).parent / "data" / "long-answers.jsonl"
_BETWEEN = 16  # tokens: where one group of those answers ends and the next one begins


def size(em: EditableModel, fact: Fact) -> int:
    """Tokens of the target behind its prompt."""
    prompt, join = put(em, fact)
    return len(continuation(em.tokenizer, prompt, fact.target, join))


def cut(em: EditableModel, fact: Fact, text: str, length: int) -> Fact:
    """The fact with the first words of a text as its target, at most `length` tokens."""
    words = text.split()
    count = 1
    while count < len(words) and size(em, replace(fact, target=" ".join(words[: count + 1]))) <= length:
        count += 1
    return replace(fact, target=" ".join(words[:count]))


def groups(em: EditableModel, facts: Sequence[Fact]) -> dict[str, list[Fact]]:
    """Facts with targets of about one length together, by the tokens of the shortest and the longest."""
    sizes = [(size(em, fact), fact) for fact in facts]
    parts = ([s for s in sizes if s[0] <= _BETWEEN], [s for s in sizes if s[0] > _BETWEEN])
    return {
        f"{min(n for n, _ in part)} to {max(n for n, _ in part)}": [fact for _, fact in part]
        for part in parts
        if part
    }


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
    parser.add_argument("--data", type=Path, help="the folder with the public files")
    parser.add_argument("--facts", type=int, default=5)
    parser.add_argument("--lengths", default="10,20,30,50,70,100")
    parser.add_argument("--per", default=str(EditConfig().targets.tokens_per_rounds))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    em = load(str(args.model), device=args.device, dtype=args.dtype)
    if args.data is None:
        sets = groups(em, load_facts(ANSWERS).facts)
    else:
        pool = candidates(read_records(args.data / FILES["counterfact"]).facts, 20 * args.facts, args.seed)
        bare = [
            replace(fact, ground_truth=(), rephrase=(), locality=(), portability=())
            for fact in pool[: args.facts]
        ]
        answers = texts(args.data / TEXTS)
        sets = {
            length: [cut(em, fact, answers[n % len(answers)], int(length)) for n, fact in enumerate(bare)]
            for length in args.lengths.split(",")
        }
    print("| tokens of the target | facts | per | whole, % | tokens, % | text | seconds |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for name, facts in sets.items():
        for per in map(int, args.per.split(",")):
            config = EditConfig(collapse="tell")
            config = replace(config, targets=replace(config.targets, tokens_per_rounds=per))
            start = time.perf_counter()
            edit = compute(em, facts, config, cache=Cache(args.cache))
            seconds = time.perf_counter() - start
            changed = em.with_patch(edit.factors)
            reading, share = read(changed, facts, probes=False), right_share(changed, facts)
            whole = [gives(reading.text(fact, fact.prompt) or "", [fact.target]) for fact in facts]
            ratio = edit.perplexity_after / edit.perplexity_before
            shown = f"{100 * sum(whole) / len(whole):.0f} | {100 * share:.0f} | {ratio:.3f} | {seconds:.0f}"
            print(f"| {name} | {len(facts)} | {per} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
