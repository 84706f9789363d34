"""What two patches do to each other: facts that contradict, facts edited twice, inputs that both answer to.

Contradictions are read from the facts: one prompt (or a paraphrase that a fact lists), two targets.

Overlap is read from the factors. The keys themselves are not in a patch, but each row of A is the
detector that the solve made of one: the site writes B[:, i] times <A[i], x> for every input x. Two
detectors at an angle of cosine c fire together, so above 0.95 whatever calls one fact's change calls the
other's. Where rows do not belong to facts (truncated or foreign patches) the detectors of a module are a
subspace, and the cosine is that of the smallest principal angle between the two subspaces that carry 90 %
of each change's energy. In few dimensions large subspaces meet by chance; such modules are left out.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.floats import Array
from hubedit.patch.owners import Owners, owners
from hubedit.patch.pair import Pair

if TYPE_CHECKING:
    from hubedit.patch.value import Patch

Kind = Literal["contradiction", "repetition", "overlap"]

PARALLEL = 0.95
_ENERGY = 0.9
# where random subspaces of these sizes come as close as this, a small angle says nothing
_CHANCE = 0.85
_ALIKE = 1.25


@dataclass(frozen=True)
class Conflict:
    """Two patches, by their positions; where facts are meant, those and their positions in the patches.

    `similarity`: of an overlap, the largest cosine and `module`, where it is; else 1.0 and "". `sizes`: of
    an overlap, the Frobenius norms of the two changes there.
    """

    kind: Kind
    first: int
    second: int
    first_fact: int | None = None
    second_fact: int | None = None
    facts: tuple[Fact, ...] = ()
    similarity: float = 1.0
    module: str = ""
    sizes: tuple[float, float] = (1.0, 1.0)

    def stronger(self, names: Sequence[str]) -> str:
        """What becomes of an overlap: both changes are added, so the larger one decides more."""
        one, two = self.sizes
        small, large = sorted(self.sizes)
        if large <= _ALIKE * small:
            return "both changes are added, and neither is much larger"
        name, times = names[self.first if one > two else self.second], large / small if small else math.inf
        return f"both changes are added, and that of {name} is {times:.2g} times as large"

    def describe(self, names: Sequence[str]) -> str:
        """One line for a person; `names` of the patches."""
        one, two = names[self.first], names[self.second]
        if not self.facts:
            return f"{one} and {two} change the same inputs at {self.module} (cosine {self.similarity:.2f})"
        a, b = self.facts
        if self.kind == "contradiction":
            return f'{one} makes "{a.prompt}" answer "{a.target}", {two} "{b.target}"'
        if self.kind == "repetition":
            return f'{one} and {two} both make "{a.prompt}" answer "{a.target}"'
        return (
            f'{one} "{a.prompt}" and {two} "{b.prompt}" answer to the same input at {self.module} '
            f"(cosine {self.similarity:.2f})"
        )


def conflicts(patches: Sequence[Patch]) -> list[Conflict]:
    """Every conflict between any two patches: contradictions first, then repetitions, then overlaps.

    Two facts are reported once, with the gravest. A patch that was saved without its facts can only
    overlap.
    """
    found = [*_between_facts(patches)]
    known = {(c.first, c.first_fact, c.second, c.second_fact) for c in found}
    rows = [owners(patch) for patch in patches]
    for one, two in combinations(range(len(patches)), 2):
        for overlap in _overlaps(patches, rows, one, two):
            if (one, overlap.first_fact, two, overlap.second_fact) not in known:
                found.append(overlap)
    order = ("contradiction", "repetition", "overlap")
    return sorted(found, key=lambda c: order.index(c.kind))


def _between_facts(patches: Sequence[Patch]) -> Iterator[Conflict]:
    """Facts of different patches that share a prompt."""
    by_prompt: dict[str, list[tuple[int, int]]] = {}
    for number, patch in enumerate(patches):
        for position, fact in enumerate(patch.facts):
            for prompt in _prompts(fact):
                by_prompt.setdefault(prompt, []).append((number, position))
    pairs = {pair for places in by_prompt.values() for pair in combinations(places, 2)}
    for (one, a), (two, b) in sorted(pairs):
        if one == two:
            continue  # what one facts file holds was settled when it was read
        facts = patches[one].facts[a], patches[two].facts[b]
        same = normalise(facts[0].target) == normalise(facts[1].target)
        yield Conflict("repetition" if same else "contradiction", one, two, a, b, facts)


def _prompts(fact: Fact) -> set[str]:
    return {normalise(prompt) for prompt in (fact.prompt, *fact.rephrase)}


def _overlaps(patches: Sequence[Patch], rows: Sequence[Owners | None], one: int, two: int) -> list[Conflict]:
    """Pairs of facts with parallel detectors; where facts own no rows, at most one for the two patches."""
    first, second = patches[one], patches[two]
    mine, theirs = rows[one], rows[two]
    shared = [module for module in first.pairs if module in second.pairs]
    shared = [module for module in shared if first.pairs[module].shape == second.pairs[module].shape]
    if mine is None or theirs is None:
        angles = {m: _principal_cosine(first.pairs[m], second.pairs[m]) for m in shared}
        module = max(angles, key=lambda m: angles[m], default="")
        if not module or angles[module] <= PARALLEL:
            return []
        sizes = first.pairs[module].norm(), second.pairs[module].norm()
        return [Conflict("overlap", one, two, similarity=angles[module], module=module, sizes=sizes)]
    best: dict[tuple[int, int], tuple[float, str, tuple[float, float]]] = {}
    for module in shared:
        cosines = np.abs(_unit(first.pairs[module].A) @ _unit(second.pairs[module].A).T)
        for i, j in np.argwhere(cosines > PARALLEL).tolist():
            pair, cosine = (mine[module][i], theirs[module][j]), float(cosines[i, j])
            sizes = _size(first.pairs[module], i), _size(second.pairs[module], j)
            best[pair] = max(best.get(pair, (0.0, "", sizes)), (min(cosine, 1.0), module, sizes))
    return [
        Conflict("overlap", one, two, a, b, (first.facts[a], second.facts[b]), cosine, module, sizes)
        for (a, b), (cosine, module, sizes) in sorted(best.items())
    ]


def _size(pair: Pair, row: int) -> float:
    """Frobenius norm of what one row of A and its column of B change."""
    return float(np.linalg.norm(pair.B[:, row]) * np.linalg.norm(pair.A[row]))


def _unit(rows: Array) -> Array:
    """Rows scaled to length 1, float64; zero rows stay zero."""
    wide = rows.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    scaled: Array = wide / np.where(length > 0, length, 1.0)
    return scaled


def _principal_cosine(one: Pair, two: Pair) -> float:
    """Cosine of the smallest angle between the dominating row spaces; 0 where chance would explain it."""
    a, b = _dominating(one), _dominating(two)
    if not len(a) or not len(b) or chance_cosine(len(a), len(b), one.shape[1]) > _CHANCE:
        return 0.0
    return min(1.0, float(np.linalg.svd(a @ b.T, compute_uv=False)[0]))


def _dominating(pair: Pair) -> Array:
    """Orthonormal rows that span what carries most of the energy, (k, d_in) float64."""
    if not pair.rank:
        return pair.A.astype(np.float64)
    _, values, right = pair.svd()
    energy = np.cumsum(values**2)
    if energy[-1] == 0:
        return right[:0]
    return right[: int((energy < _ENERGY * energy[-1]).sum()) + 1]


def chance_cosine(first: int, second: int, width: int) -> float:
    """Largest principal cosine to expect between random subspaces of these dimensions (Wachter 1980)."""
    x, y = min(1.0, first / width), min(1.0, second / width)
    if x + y >= 1:
        return 1.0
    return math.sqrt(x * (1 - y)) + math.sqrt(y * (1 - x))


def losers(
    found: Iterable[Conflict], keep: Literal["first", "last"], fixed: Container[tuple[int, int]] = ()
) -> dict[int, set[int]]:
    """Patch -> its facts that give way, when of two that contradict or repeat the first or last one stays.

    A fact gives way only to one that stays itself. `fixed`: (patch, fact) pairs that cannot be taken out.
    """
    beaten: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for c in found:
        if c.kind == "overlap" or c.first_fact is None or c.second_fact is None:
            continue
        one, two = (c.first, c.first_fact), (c.second, c.second_fact)
        loser, winner = (two, one) if keep == "first" else (one, two)
        beaten.setdefault(loser, []).append(winner)
    gone: dict[int, set[int]] = {}
    # from the winners' side: what may beat a fact is settled before the fact is
    for patch, fact in sorted(beaten, reverse=keep == "last"):
        stay = any(f not in gone.get(p, ()) for p, f in beaten[patch, fact])
        if stay and (patch, fact) not in fixed:
            gone.setdefault(patch, set()).add(fact)
    return gone
