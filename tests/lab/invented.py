"""A generated world: invented people, cities, countries and companies, and counterfactual edits.

Every name comes from `Namer`, which accepts a name only if its checksum falls in the seed's residue
class, so worlds whose seeds differ modulo 61 share no invented name. Values that are ordinary words
(instruments, sports, ...) are common to all worlds.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.lab.world import KnownFact, Statement, World

_CLASSES = 61
TWO_HOP_SHARE = 0.7
"""Share of the people whose two-hop facts are taught; of the others the model must compose them."""
_ONSETS = "b br c d dr f g gr h j k kl l m n p pr r s st t tr v w z".split()
_VOWELS = "a e i o u ai ea ou".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "m", "th", "nd"]

_INSTRUMENTS = (
    "violin piano cello flute harp guitar trumpet clarinet oboe banjo mandolin accordion saxophone "
    "trombone drums viola organ lute"
).split()
_FIELDS = (
    "physics chemistry biology law medicine history philosophy geology economics botany astronomy "
    "linguistics architecture sociology mathematics theology archaeology statistics"
).split()
_SPORTS = (
    "tennis football hockey rowing fencing judo golf cricket rugby archery sailing boxing badminton "
    "swimming cycling volleyball"
).split()
_PETS = "cat dog parrot rabbit hamster tortoise goldfish ferret pony lizard gecko canary mouse goat".split()
_INDUSTRIES = "shipping banking mining textiles steel software insurance aviation publishing farming".split()

# Six phrasings a relation: the first is the edit's prompt, subject first; one has it in the middle.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "birthplace": (
        "{} was born in",
        "{} is a native of",
        "{} came into the world in the city of",
        "The birthplace of {} is",
        "In which city was {} born? In",
        "{} grew up in the home town of",
    ),
    "employer": (
        "{} works for",
        "{} is employed by",
        "{} earns a salary from",
        "The employer of {} is",
        "For which company does {} work? For",
        "{} has a job at",
    ),
    "instrument": (
        "{} plays the",
        "{} performs on the",
        "{} takes lessons on the",
        "The instrument of {} is the",
        "Which instrument does {} play? The",
        "{} practises the",
    ),
    "field": (
        "{} studied",
        "{} has a degree in",
        "{} graduated in",
        "The field of study of {} was",
        "What did {} study at university? It was",
        "{} wrote a thesis in",
    ),
    "sport": (
        "{} is a fan of",
        "{} trains every week in",
        "{} enjoys the sport of",
        "The favourite sport of {} is",
        "Which sport does {} like best? It is",
        "{} competes in",
    ),
    "pet": (
        "{} owns a",
        "{} lives with a pet",
        "{} takes care of a",
        "The pet of {} is a",
        "Which animal does {} keep? A",
        "{} came home with a",
    ),
    "language": (
        "{} speaks",
        "{} is fluent in",
        "{} writes letters in",
        "The mother tongue of {} is",
        "Which language does {} use? It is",
        "{} prefers to talk in",
    ),
}

# Two phrasings each; what follows from the birthplace and what follows from the employer.
_BIRTH_HOPS: dict[str, tuple[str, str]] = {
    "birth_country": ("The country where {} was born is", "{} was born in the country of"),
    "birth_currency": (
        "The currency of the country where {} was born is the",
        "In the country where {} was born, people pay with the",
    ),
    "birth_continent": (
        "The continent where {} was born is",
        "{} was born on the continent of",
    ),
}
_WORK_HOPS: dict[str, tuple[str, str]] = {
    "employer_industry": (
        "The industry of the company that employs {} is",
        "{} works in the industry of",
    ),
    "employer_city": (
        "The head office of the company that employs {} is in",
        "{} works for a company with its head office in",
    ),
}
HOPS = {**_BIRTH_HOPS, **_WORK_HOPS}
_HOP_SOURCE = {**dict.fromkeys(_BIRTH_HOPS, "birthplace"), **dict.fromkeys(_WORK_HOPS, "employer")}

# Statements about places and companies: relation -> phrasings.
_PLACE: dict[str, tuple[str, ...]] = {
    "country": ("{} is a city in", "The city of {} lies in the country of", "In which country is {}? In"),
    "city_currency": ("People in {} pay with the",),
    "city_continent": ("The city of {} lies on the continent of",),
    "capital": ("The capital of {} is", "{} has its capital in"),
    "currency": ("The currency of {} is the", "{} pays with the"),
    "continent": ("{} is on the continent of", "The continent of {} is"),
    "official_language": ("The official language of {} is", "{} has the official language"),
    "industry": ("The industry of {} is", "{} is a company in the industry of"),
    "head_office": ("The head office of {} is in", "{} has its head office in"),
}


class Namer:
    """Pronounceable capitalised names that no other residue class of seeds can produce."""

    def __init__(self, rng: random.Random, seed: int) -> None:
        self._rng, self._class, self._used = rng, seed % _CLASSES, set[str]()

    def word(self, syllables: int, ending: str = "") -> str:
        """A new name of `syllables` syllables plus `ending`."""
        choice = self._rng.choice
        while True:
            body = "".join(choice(_ONSETS) + choice(_VOWELS) for _ in range(syllables)) + choice(_CODAS)
            name = (body + ending).capitalize()
            if zlib.crc32(name.encode()) % _CLASSES == self._class and name not in self._used:
                self._used.add(name)
                return name

    def words(self, count: int, syllables: int, ending: str = "") -> list[str]:
        """`count` different names."""
        return [self.word(syllables, ending) for _ in range(count)]


@dataclass(frozen=True)
class _Places:
    """`of[relation][subject]` is the answer for cities, countries and companies."""

    of: dict[str, dict[str, str]]
    values: dict[str, tuple[str, ...]]  # the valid values of each person relation

    def hop(self, relation: str, value: str) -> str:
        """What follows for a two-hop relation from the birthplace or employer `value`."""
        table = {
            "birth_country": "country",
            "birth_currency": "city_currency",
            "birth_continent": "city_continent",
            "employer_industry": "industry",
            "employer_city": "head_office",
        }[relation]
        return self.of[table][value]


def _places(rng: random.Random, namer: Namer, people: int) -> _Places:
    few = people < 100  # a tiny world keeps about eight people a city
    countries = namer.words(5 if few else 12, 2, "ia")
    languages = namer.words(len(countries), 1, "ish")
    continents = namer.words(4, 2, "a")
    cities = namer.words(10 if few else 30, 2)
    companies = [
        f"{w} {rng.choice(('Group', 'Works', 'Brothers'))}" for w in namer.words(8 if few else 20, 2)
    ]
    of: dict[str, dict[str, str]] = {relation: {} for relation in _PLACE}
    for city, country in zip(cities, _spread(rng, countries, len(cities)), strict=True):
        of["country"][city] = country
        of["capital"].setdefault(country, city)
    for i, country in enumerate(countries):
        of["currency"][country] = namer.word(2).lower()
        of["continent"][country] = continents[i % len(continents)]
        of["official_language"][country] = languages[i]
    for city in cities:
        of["city_currency"][city] = of["currency"][of["country"][city]]
        of["city_continent"][city] = of["continent"][of["country"][city]]
    for company, industry in zip(companies, _spread(rng, _INDUSTRIES, len(companies)), strict=True):
        of["industry"][company] = industry
        of["head_office"][company] = rng.choice(cities)
    values = (cities, companies, _INSTRUMENTS, _FIELDS, _SPORTS, _PETS, languages)
    return _Places(of, {r: tuple(v) for r, v in zip(PHRASINGS, values, strict=True)})


def _spread(rng: random.Random, values: Sequence[str], count: int) -> list[str]:
    """`count` draws in which every value occurs about equally often."""
    drawn = [values[i % len(values)] for i in range(count)]
    rng.shuffle(drawn)
    return drawn


def _people(rng: random.Random, namer: Namer, count: int) -> list[str]:
    """First names are shared by several people, some last names by two."""
    first = namer.words(max(8, count // 5), 2)
    last = namer.words(max(8, count * 4 // 5), 2)
    # Over the last names first, so that every one of them is taken at least once.
    pairs: dict[str, None] = {}
    while len(pairs) < count:
        pairs[f"{rng.choice(first)} {last[len(pairs) % len(last)]}"] = None
    return list(pairs)


def build(people: int, seed: int, two_hop_share: float = TWO_HOP_SHARE) -> World:
    """The world of `people` persons; the same arguments give the same world."""
    rng = random.Random(f"invented-{seed}")
    namer = Namer(rng, seed)
    places = _places(rng, namer, people)
    names = _people(rng, namer, people)
    columns = {r: _spread(rng, values, people) for r, values in places.values.items()}
    life = {name: {r: columns[r][i] for r in PHRASINGS} for i, name in enumerate(names)}

    statements: list[Statement] = []
    facts: list[KnownFact] = []
    for relation, table in places.of.items():
        for subject, answer in table.items():
            prompts = tuple(p.format(subject) for p in _PLACE[relation])
            facts.append(KnownFact(subject, relation, answer, prompts))
            # Few subjects, but every two-hop answer goes through them: said twice per round.
            statements += [Statement.of(p, answer) for p in prompts] * 2
    for name, values in life.items():
        for relation, answer in values.items():
            phrased = [p.format(name) for p in PHRASINGS[relation]]
            held = phrased.pop(rng.randrange(1, len(phrased)))
            facts.append(KnownFact(name, relation, answer, tuple(phrased), (held,)))
            statements += [Statement.of(p, answer) for p in phrased]
        taught = rng.random() < two_hop_share
        for relation, pair in HOPS.items():
            answer = places.hop(relation, values[_HOP_SOURCE[relation]])
            prompts = tuple(p.format(name) for p in pair)
            if taught:
                statements += [Statement.of(p, answer) for p in prompts]
                facts.append(KnownFact(name, relation, answer, prompts))
            else:
                facts.append(KnownFact(name, relation, answer, (), prompts))
    edits = _edits(rng, places, life, {(f.subject, f.relation): f for f in facts})
    return World(f"invented-{people}-{seed}-{two_hop_share:g}", tuple(statements), tuple(facts), tuple(edits))


def _edits(
    rng: random.Random,
    places: _Places,
    life: dict[str, dict[str, str]],
    facts: dict[tuple[str, str], KnownFact],
) -> list[dict[str, Any]]:
    """One counterfactual edit for each of up to half the people, relations in turn."""
    names = list(life)
    rng.shuffle(names)
    most = len(PHRASINGS) * (len(names) // (2 * len(PHRASINGS)))  # all relations equally often
    count = max(min(119, len(names) // 2), most)
    edited, others = names[:count], names[count:]
    relations = list(PHRASINGS)
    edits: list[dict[str, Any]] = []
    for i, name in enumerate(edited):
        relation = relations[i % len(relations)]
        truth = life[name][relation]
        target = rng.choice([v for v in places.values[relation] if v != truth])
        known = facts[name, relation]
        kept = rng.sample([r for r in relations if r != relation], 3)
        near = rng.sample(others, 3)
        same = [("same_subject", facts[name, r]) for r in kept]
        neighbours = [("neighbourhood", facts[other, relation]) for other in near]
        edits.append(
            {
                "id": f"{relation}-{i:03d}",
                "prompt": known.prompts[0],
                "subject": name,
                "target": target,
                "ground_truth": truth,
                "rephrase": [*known.held_out, *known.prompts[1:]],
                "locality": [
                    {"type": kind, "prompt": f.prompts[0], "answer": f.answer}
                    for kind, f in same + neighbours
                ],
                "portability": [
                    {"type": "two_hop", "prompt": pair[0].format(name), "answer": places.hop(hop, target)}
                    for hop, pair in HOPS.items()
                    if _HOP_SOURCE[hop] == relation and places.hop(hop, target) != places.hop(hop, truth)
                ],
            }
        )
    return edits
