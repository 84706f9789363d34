"""The edits of the trials and those of the final check: facts that the model knows, with other targets.

The two are split by subject, neighbours included, so that a preset is not chosen on what it is reported on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hubedit.errors import FactsError
from hubedit.facts import Fact, Probe, check_tokens
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.forms import greedy_answers, worded
from hubedit.model.tokens import continuation
from hubedit.progress import Progress
from hubedit.tune.bank import Candidate

LEAST = 8
"""Facts (of different subjects) that must be known."""
SUBJECTS_AT_ONCE = 48
REPHRASED, SAME_SUBJECT, NEIGHBOURS = 2, 3, 2
"""At most this many prompts of each kind for a fact."""
_IMPLIED = (frozenset({"location", "land_country"}),)
"""Relations of the bank of which one follows from the other: no test of locality."""


@dataclass(frozen=True)
class Cases:
    """`trial`: edited in every trial; `check`: only by what was chosen, at the end. `asked`, `known`: how
    many facts the model was asked for, and how many it answered rightly."""

    trial: tuple[Fact, ...]
    check: tuple[Fact, ...]
    asked: int
    known: int


def prepare_cases(
    em: EditableModel, given: Sequence[Candidate], edits: int, seed: int, progress: Progress
) -> Cases:
    """At most `edits` facts for the trials and as many for the check.

    Raises FactsError when the model knows too few.
    """
    asked, known = ask(em, given, 3 * edits, seed, progress)
    subjects = sorted({c.subject for c in known})
    if len(subjects) < LEAST:
        raise FactsError(
            f"{em.ref} knows {len(subjects)} of {asked} facts, and tuning needs {LEAST}",
            "give facts that it knows with --facts, each with its ground_truth",
        )
    others: dict[str, list[str]] = {}
    for c in given:
        others.setdefault(c.relation, []).append(c.answers[0])
    rng = random.Random(f"tune/{seed}")
    rng.shuffle(subjects)
    half = len(subjects) // 2
    sides = []
    for own in (subjects[:half], subjects[half:]):
        part = [c for c in known if c.subject in set(own)]
        sides.append(_edits(em, part, others, min(edits, max(2, 2 * len(own) // 3)), rng))
    if len(sides[0]) < edits:
        progress.message(
            f"{len(known)} facts that the model knows give {len(sides[0])} edits for the trials, "
            f"not {edits}: budgets are for a whole batch, so give more facts to tune for larger ones"
        )
    if not all(sides):
        raise FactsError(
            f"no other targets can be found for the facts that {em.ref} knows",
            "give facts of which several have the same prompt but for the subject, or with targets",
        )
    return Cases(sides[0], sides[1], asked, len(known))


def ask(
    em: EditableModel, given: Sequence[Candidate], enough: int, seed: int, progress: Progress
) -> tuple[int, list[Candidate]]:
    """How many candidates were asked, and those the model answers rightly by greedy generation, with the
    prompts that it answers rightly. Stops once facts of `enough` subjects are known."""
    by_subject: dict[str, list[Candidate]] = {}
    for c in given:
        by_subject.setdefault(c.subject, []).append(c)
    order = sorted(by_subject)
    random.Random(f"ask/{seed}").shuffle(order)
    known: list[Candidate] = []
    asked = 0
    progress.start("asking the model", len(order), "subjects")
    for at in range(0, len(order), SUBJECTS_AT_ONCE):
        part = [c for subject in order[at : at + SUBJECTS_AT_ONCE] for c in by_subject[subject]]
        prompts = list(dict.fromkeys(p for c in part for p in c.prompts))
        longest = max(len(continuation(em.tokenizer, c.prompts[0], a)) for c in part for a in c.answers)
        answered = dict(
            zip(prompts, greedy_answers(em, [(p, worded(em, p)) for p in prompts], longest + 2), strict=True)
        )
        for c in part:
            right = tuple(p for p in c.prompts if gives(answered[p], c.answers))
            if right:
                known.append(replace(c, prompts=right))
        asked += len(part)
        progress.advance(len(order[at : at + SUBJECTS_AT_ONCE]))
        if len({c.subject for c in known}) >= enough:
            break
    progress.finish(f"{len(known)} of {asked} facts known")
    return asked, known


def _edits(
    em: EditableModel,
    known: Sequence[Candidate],
    answers: dict[str, list[str]],
    count: int,
    rng: random.Random,
) -> tuple[Fact, ...]:
    """Up to `count` edits, one a subject, of all relations in turn; the other subjects are neighbours."""
    groups: dict[str, list[Candidate]] = {}
    for c in known:
        groups.setdefault(c.relation, []).append(c)
    for group in groups.values():
        rng.shuffle(group)
    chosen: dict[str, tuple[Candidate, Fact]] = {}
    while len(chosen) < count and any(groups.values()):
        for group in groups.values():
            while group and len(chosen) < count:
                c = group.pop()
                if c.subject not in chosen and (fact := _fact(em, c, answers[c.relation], rng)) is not None:
                    chosen[c.subject] = c, fact
                    break
    free = [c for c in known if c.subject not in chosen]
    return tuple(replace(f, locality=_stays(c, known, free, rng)) for c, f in chosen.values())


def _fact(em: EditableModel, c: Candidate, answers: Sequence[str], rng: random.Random) -> Fact | None:
    """The edit of a candidate to another answer of its relation, or None where there is none that fits."""
    wrong = sorted({a for a in answers if not gives(a, c.answers) and not gives(c.answers[0], [a])})
    if not (c.target or wrong):
        return None
    fact = Fact(
        c.prompts[0],
        c.subject,
        c.target or rng.choice(wrong),
        ground_truth=c.answers,
        rephrase=c.prompts[1 : 1 + REPHRASED],
        locality=c.locality,
        portability=c.portability,
    )
    return None if check_tokens([fact], em.tokenizer, "tune") else fact


def _stays(
    c: Candidate, known: Sequence[Candidate], free: Sequence[Candidate], rng: random.Random
) -> tuple[Probe, ...]:
    """What must not change: other relations of the subject, and the relation of others, not edited."""
    if c.locality:
        return c.locality
    about = [
        o
        for o in known
        if o.subject == c.subject
        and o.relation != c.relation
        and frozenset({o.relation, c.relation}) not in _IMPLIED
    ]
    near = [o for o in free if o.relation == c.relation] or list(free)
    about, near = rng.sample(about, len(about))[:SAME_SUBJECT], rng.sample(near, len(near))[:NEIGHBOURS]
    return (
        *(Probe(o.prompts[0], o.answers, "same_subject") for o in about),
        *(Probe(o.prompts[0], o.answers, "neighbourhood") for o in near),
    )
