"""Which facts a cell edits: the first of the data that fit the model, or others for every seed."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from hubedit.bench.cells import Cell
from hubedit.bench.configuration import Sample
from hubedit.errors import FactsError
from hubedit.evaluate.measure import fitting
from hubedit.evaluate.records import dataset
from hubedit.facts import Fact, check_tokens, dump_facts
from hubedit.model.editable import EditableModel


@dataclass(frozen=True)
class Pool:
    """The facts of one data set, one for each prompt. `repeated`: records that were left out because an
    earlier one has their prompt: both cannot be edited at once."""

    facts: tuple[Fact, ...]
    sha256: str
    repeated: int


def pool(source: str) -> Pool:
    """The facts of a file or data set. Raises ConfigError or FactsError where there are none."""
    facts = dataset(source).facts
    single: dict[str, Fact] = {}
    for fact in facts:
        single.setdefault(fact.prompt, fact)
    kept = tuple(single.values())
    return Pool(kept, sha256(kept), len(facts) - len(kept))


def chosen(em: EditableModel, cell: Cell, facts: Pool, sample: Sample) -> tuple[Fact, ...]:
    """As many facts as the cell edits; those that the model's tokenizer cannot place are passed over.

    Raises FactsError when the data has too few.
    """
    order = list(facts.facts)
    if sample == "random":
        random.Random(f"bench-{cell.seed}").shuffle(order)
    found: list[Fact] = []
    for fact in order:
        if len(found) == cell.edits:
            break
        if not check_tokens([fact], em.tokenizer) and fitting(em, [fact])[0]:
            found.append(fact)
    if len(found) < cell.edits:
        raise FactsError(
            f"{cell.data.name} has {len(found)} facts that fit {cell.model.name}, not {cell.edits}",
            "lower edits, or add --limit",
        )
    return tuple(found)


def sha256(facts: tuple[Fact, ...]) -> str:
    """What identifies facts: the hash of their JSON Lines."""
    return hashlib.sha256(dump_facts(facts).encode()).hexdigest()
