"""How much faster evaluation is in batches than one prompt at a time, with the same numbers.

    python -m tests.benchmarks.evaluate [--facts 30] [--writes 10]

The bundled model, all that `hubedit eval` measures of facts: greedy generation, teacher forcing, and text
written for fluency. Ends with 1 when a number differs or batches are not five times faster. What is compared
is this process's time on the CPU, in one thread, which other work on the machine does not lengthen much; the
time by the clock stands beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from math import isclose

import torch

from hubedit.demo import facts_path, model_path
from hubedit.evaluate.fluency import fluency, write
from hubedit.evaluate.forced import Forced, Pair, forced
from hubedit.evaluate.measure import Measured
from hubedit.evaluate.reading import Reading, answers_of, new_tokens, read
from hubedit.evaluate.report import report
from hubedit.facts import Fact, load_facts
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.load import load


def batched(em: EditableModel, facts: list[Fact], writes: int) -> Measured:
    """As `hubedit eval` does it."""
    texts = write(em, [fact.prompt for fact in facts[:writes]])
    return Measured(read(em, facts), tuple(map(fluency, texts)))


def one_by_one(em: EditableModel, facts: list[Fact], writes: int) -> Measured:
    """Every prompt and every pair in a forward pass of its own."""
    length = new_tokens(em, facts)
    prompts: dict[str, None] = {}
    for fact in facts:
        probes = (*fact.locality, *fact.portability)
        prompts |= dict.fromkeys((fact.prompt, *fact.rephrase, *(p.prompt for p in probes)))
    texts = {prompt: greedy(em, [prompt], length)[0] for prompt in prompts}
    found: dict[Pair, Forced] = {}
    for pair in dict.fromkeys(pair for fact in facts for pair in answers_of(fact)):
        found |= forced(em, [pair])
    entropies = tuple(fluency(write(em, [fact.prompt])[0]) for fact in facts[:writes])
    return Measured(Reading(texts, found), entropies)


def differences(a: object, b: object, at: str = "") -> list[str]:
    """Places where two reports differ by more than rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = sorted(set(a) | set(b))
        return [d for n in names for d in differences(a.get(n), b.get(n), f"{at}/{n}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{at}/{i}")]
    if isinstance(a, float) and isinstance(b, float):
        return [] if isclose(a, b, rel_tol=1e-3, abs_tol=1e-5) else [f"{at}: {a} and {b}"]
    return [] if a == b else [f"{at}: {a} and {b}"]


def main() -> int:
    """Prints both times, their ratio, and every number that differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=30)
    parser.add_argument("--writes", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    em = load(str(model_path()), device="cpu")
    facts = list(load_facts(facts_path(), limit=options.facts).facts)
    batched(em, facts[:2], 1)  # the first passes are slower, whatever comes first

    start = time.process_time(), time.perf_counter()
    together = batched(em, facts, options.writes)
    fast, clock = time.process_time() - start[0], time.perf_counter() - start[1]
    start = time.process_time(), time.perf_counter()
    alone = one_by_one(em, facts, options.writes)
    slow, clock_alone = time.process_time() - start[0], time.perf_counter() - start[1]

    wrong = differences(report(facts, together), report(facts, alone))
    prompts = len(together.reading.texts) + len(together.reading.scored)
    print(f"{len(facts)} facts, {prompts} prompts and pairs, {options.writes} texts of 100 tokens")
    print(f"in batches {fast:.2f} s, one at a time {slow:.2f} s: {slow / fast:.1f} x faster")
    print(f"by the clock {clock:.2f} s and {clock_alone:.2f} s")
    print(f"{len(wrong)} numbers differ", *wrong[:20], sep="\n  ")
    return 1 if wrong or slow < 5 * fast else 0


if __name__ == "__main__":
    sys.exit(main())
