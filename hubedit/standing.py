"""Which facts of a patch still hold: all of them asked again, with the patch in effect."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from hubedit.evaluate import Outcome, compare, read
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.patch import Patch
from hubedit.patch.ledger import steps_of


@dataclass(frozen=True)
class Standing:
    """`outcomes`: of every fact that fits in the model's context, with the patch ("before" is "after" there);
    `steps`: for each step of the patch its id, how many of its facts were asked and how many hold."""

    outcomes: tuple[Outcome, ...]
    steps: tuple[tuple[str, int, int], ...]

    @property
    def failed(self) -> tuple[Fact, ...]:
        """The facts that no longer hold."""
        return tuple(o.fact for o in self.outcomes if not o.success)


def standing(em: EditableModel, patch: Patch) -> Standing:
    """Asks all facts of the patch by greedy generation. Raises PatchError where it is of other weights."""
    facts = [replace(f, rephrase=(), locality=(), portability=()) for f in patch.facts]
    reading = read(em.with_patch(patch), facts)
    left = deque(compare(facts, reading, reading).outcomes)  # of those that fit, in their order
    whole, steps, at = [], [], 0
    for step in steps_of(patch):
        own = []
        for n in range(at, at + step["facts"]):
            if left and left[0].fact is facts[n]:
                own.append(replace(left.popleft(), fact=patch.facts[n]))
        steps.append((str(step["id"]), len(own), sum(o.success for o in own)))
        whole += own
        at += step["facts"]
    return Standing(tuple(whole), tuple(steps))
