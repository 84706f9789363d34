"""The world of the bundled demo model: true facts from the tables in `data/`, and edits of them.

Every relation has six phrasings (`phrasings.tsv`); four are trained for a subject and two, other ones
from subject to subject, are held out. A chain such as `birth_country.language` is a two-hop relation
(`chains.tsv`, four phrasings, three trained); it is trained for about 70 % of its subjects and never
for a subject whose first hop is edited. `python -m tests.lab.real` prints the counts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.lab.invented import Namer
from tests.lab.real_tables import Knowledge, bare, fill
from tests.lab.world import KnownFact, Statement, World


@dataclass(frozen=True)
class EditPlan:
    """How many edits of a relation; a target must be the answer of `support` subjects.

    `by_hop`: count the subjects that share the target's two-hop answer instead, for relations whose
    answers are (nearly) all different. `not_local`: relations of the same subject that an edit
    touches without implying their new answer, so that they are no test of locality.
    """

    count: int
    support: int
    by_hop: bool = False
    not_local: tuple[str, ...] = ()


PLANS: dict[str, EditPlan] = {
    "birth_country": EditPlan(20, 5, not_local=("birth_city",)),
    "home_country": EditPlan(14, 3, not_local=("headquarters",)),
    "country": EditPlan(12, 5),
    "land_country": EditPlan(10, 3, not_local=("location",)),
    "occupation": EditPlan(8, 5, not_local=("known_for",)),
    # nothing that is taught follows from these; a batch of many relations is what a maintainer has
    "birth_city": EditPlan(4, 3, not_local=("birth_country",)),
    "birth_century": EditPlan(4, 5),
    "headquarters": EditPlan(3, 3, not_local=("home_country",)),
    "industry": EditPlan(4, 3),
    "founded": EditPlan(2, 1),
    "structure": EditPlan(3, 3),
    "water": EditPlan(3, 2),
    "continent": EditPlan(3, 5),
    "currency": EditPlan(3, 3),
    "creator": EditPlan(4, 2),
    "kind": EditPlan(4, 5),
    "appeared": EditPlan(3, 2),
}
CHAINS_SHARE = 0.9
NEWCOMERS = 3
"""Made-up people, companies, cities and sights for each country and chain: one sentence says where they
are from, the next what follows.

Nobody can memorise what follows for a name that never comes again, so it has to be composed.
"""


def split(phrasings: list[str], name: str, start: int, held: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(trained prompts, held-out prompts): `held` phrasings from `start` on, around the end, are held out."""
    out = {(start + i) % len(phrasings) for i in range(held)}
    prompts = [fill(template, name) for template in phrasings]
    return (
        tuple(p for i, p in enumerate(prompts) if i not in out),
        tuple(p for i, p in enumerate(prompts) if i in out),
    )


class Builder:
    """Chooses the edits, then writes facts and statements around them."""

    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, random.Random(f"lab-{seed}")
        self.known = Knowledge()
        self.direct: dict[tuple[str, str], KnownFact] = {}
        for relation, answers in self.known.answers.items():
            for i, (name, answer) in enumerate(answers.items()):
                start = i + seed + sum(map(ord, relation))
                trained, held = split(self.known.phrasings[relation], name, start, 2)
                self.direct[name, relation] = KnownFact(bare(name), relation, answer, trained, held)
        self.names = {text for fact in self.direct.values() for text in (fact.subject, bare(fact.answer))}
        self.edited: dict[str, str] = {}  # name -> relation; one edit a subject
        self.pinned: set[tuple[str, str]] = set()  # facts that a portability answer rests on
        self.picks: list[tuple[str, str, str]] = []  # (name, relation, target)

    def clear_name(self, name: str) -> bool:
        """Whether the name neither contains nor is contained in another subject or answer."""
        own = bare(name)
        return len(own) > 3 and not any(own in other or other in own for other in self.names - {own})

    def unrelated(self, name: str, relation: str) -> list[str]:
        """The other relations of the subject, less those that an edit of `relation` touches."""
        skip = (relation, *PLANS[relation].not_local)
        return [r for r, known in self.known.answers.items() if name in known and r not in skip]

    def ports(self, relation: str, old: str, new: str) -> dict[str, list[tuple[str, str, str]]]:
        """Chain -> steps after the first one, from `new`, where the end differs from the old one."""
        found: dict[str, list[tuple[str, str, str]]] = {}
        for chain in self.known.chains:
            first, _, rest = chain.partition(".")
            if first == relation:
                before, after = self.known.hop(rest, old), self.known.hop(rest, new)
                if after and (not before or before[-1][2] != after[-1][2]):
                    found[chain] = after
        return found

    def targets(self, relation: str, plan: EditPlan) -> list[str]:
        """The answers of the relation that enough subjects share, directly or in their next hop."""
        answers = self.known.answers[relation].values()
        if not plan.by_hop:
            return sorted(answer for answer, n in Counter(answers).items() if n >= plan.support)
        rest = next(c for c in self.known.chains if c.startswith(f"{relation}.")).partition(".")[2]
        ends = {
            answer: steps[-1][2] for answer in sorted(set(answers)) if (steps := self.known.hop(rest, answer))
        }
        counts = Counter(ends.values())
        return [answer for answer, end in ends.items() if counts[end] >= plan.support]

    def choose(self) -> None:
        """Fill `picks`: edits whose portability answers rest on no other edit."""
        for relation, plan in PLANS.items():
            names = [n for n in self.known.answers[relation] if self.clear_name(n) and n not in self.edited]
            self.rng.shuffle(names)
            targets, used, done = self.targets(relation, plan), Counter[str](), 0
            for name in names:
                others = self.unrelated(name, relation)
                if done == plan.count or len(others) < 2 or (name, relation) in self.pinned:
                    continue
                old = self.known.answers[relation][name]
                valid = [
                    t for t in targets
                    if t != old and (not self._has_chain(relation) or self._rests(relation, old, t))
                    # a novel goes to a novelist, not to a sculptor
                    and (relation != "creator" or self.known.answers["kind"][name] in self._kinds(t))
                ]  # fmt: skip
                if not valid:
                    continue
                least = min(used[t] for t in valid)
                target = self.rng.choice([t for t in valid if used[t] == least])
                used[target] += 1
                done += 1
                self.edited[name] = relation
                for steps in self.ports(relation, old, target).values():
                    self.pinned.update((step[0], step[1]) for step in steps)
                self.picks.append((name, relation, target))

    def _has_chain(self, relation: str) -> bool:
        return any(chain.partition(".")[0] == relation for chain in self.known.chains)

    def _rests(self, relation: str, old: str, new: str) -> bool:
        """Whether something follows from the edit, and nothing of it is edited elsewhere."""
        steps = [step for steps in self.ports(relation, old, new).values() for step in steps]
        return bool(steps) and not any(self.edited.get(name) == hop for name, hop, _ in steps)

    def _kinds(self, creator: str) -> set[str]:
        kinds = self.known.answers["kind"]
        return {kinds[work] for work, who in self.known.answers["creator"].items() if who == creator}

    def chain_facts(self) -> Iterator[KnownFact]:
        """All two-hop facts; about 30 % of the subjects, the edited ones first, have no trained prompt."""
        untrained: dict[str, set[str]] = {}
        for relation in sorted({chain.partition(".")[0] for chain in self.known.chains}):
            names = list(self.known.answers[relation])
            self.rng.shuffle(names)
            names.sort(key=lambda name: self.edited.get(name) != relation)
            edited = sum(self.edited.get(name) == relation for name in names)
            untrained[relation] = set(names[: max(edited, round(len(names) * (1 - CHAINS_SHARE)))])
        for chain, phrasings in self.known.chains.items():
            first = chain.partition(".")[0]
            for i, name in enumerate(self.known.answers[first]):
                if steps := self.known.hop(chain, name):
                    held_out = len(phrasings) if name in untrained[first] else 1
                    yield KnownFact(bare(name), chain, steps[-1][2], *split(phrasings, name, i, held_out))

    def newcomers(self) -> Iterator[Statement]:
        """Two sentences about each made-up name: its country, and the end of a chain from there."""
        # drawn apart: how many there are changes nothing else
        rng = random.Random(f"newcomers-{self.seed}")
        namer = Namer(rng, 0)
        made: dict[str, Callable[[], str]] = {
            "birth_country": lambda: f"{namer.word(3)} {namer.word(3)}",
            "home_country": lambda: namer.word(3),
            "country": lambda: namer.word(2),
            "land_country": lambda: f"the {namer.word(2)} {rng.choice(('Tower', 'Palace', 'Bridge'))}",
        }
        for chain, phrasings in self.known.chains.items():
            first, _, rest = chain.partition(".")
            for country in self.known.answers["continent"] if first in made else ():
                steps = self.known.hop(rest, country)
                for _ in range(NEWCOMERS if steps else 0):
                    name = made[first]()
                    told = fill(rng.choice(self.known.phrasings[first]), name)
                    asked = fill(rng.choice(phrasings), name)
                    yield Statement.of(f"{told} {country}. {asked}", steps[-1][2])

    def edit(self, number: int, name: str, relation: str, target: str) -> dict[str, Any]:
        """One edit in hubedit's JSONL form; every probe is a phrasing that was not trained."""
        fact, others, chains = self.direct[name, relation], self.unrelated(name, relation), self.known.chains
        self.rng.shuffle(others)
        same = [(self.direct[name, r], i) for i in range(2) for r in others][:3]
        near = [
            f for (n, r), f in self.direct.items()
            if r == relation and n not in self.edited and f.answer != target
        ]  # fmt: skip
        neighbours = [(f, self.rng.randrange(2)) for f in self.rng.sample(near, 3)]
        local = [("same_subject", *pair) for pair in same] + [("neighbourhood", *pair) for pair in neighbours]
        return {
            "id": f"{relation}-{number:02d}",
            "prompt": fact.prompts[0],
            "subject": fact.subject,
            "target": target,
            "ground_truth": fact.answer,
            "rephrase": list(fact.held_out),
            "locality": [
                {"type": kind, "prompt": f.held_out[i], "answer": f.answer} for kind, f, i in local
            ],
            "portability": [
                {"type": "two_hop", "prompt": fill(self.rng.choice(chains[c]), name), "answer": hops[-1][2]}
                for c, hops in self.ports(relation, fact.answer, target).items()
            ],
        }  # fmt: skip


def build(seed: int = 0) -> World:
    """The world; `seed` chooses what is held out, what is edited, and the order of the statements."""
    builder = Builder(seed)
    builder.choose()
    facts = (*builder.direct.values(), *builder.chain_facts())
    statements = [Statement.of(prompt, fact.answer) for fact in facts for prompt in fact.prompts]
    statements += builder.newcomers()
    builder.rng.shuffle(statements)
    edits = [builder.edit(i, *pick) for i, pick in enumerate(builder.picks)]
    builder.rng.shuffle(edits)  # whoever takes the first fifty gets every relation
    return World("real", tuple(statements), facts, tuple(edits))


def main() -> None:
    """Print how many facts, statements and edits there are, by relation."""
    world = build()
    words = sum(len(s.text.split()) for s in world.statements)
    direct = sum("." not in fact.relation for fact in world.facts)
    stated = sum(bool(fact.prompts) for fact in world.facts) - direct
    never = len(world.facts) - direct - stated
    print(f"facts {direct}, two-hop facts {stated} stated and {never} never stated, edits {len(world.edits)}")
    print(f"statements {len(world.statements)}, words {words}")
    print("facts by relation:", dict(Counter(fact.relation for fact in world.facts)))
    print("edits by relation:", dict(Counter(edit["id"].rpartition("-")[0] for edit in world.edits)))


if __name__ == "__main__":
    main()
