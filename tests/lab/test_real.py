"""The real world is consistent: tables, phrasings, what is held out, and the edits."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from tests.lab.real import PLANS, build
from tests.lab.real_tables import DATA, Knowledge, bare, table
from tests.lab.world import KnownFact, World


@pytest.fixture(scope="module", params=[0, 1])
def world(request: pytest.FixtureRequest) -> World:
    return build(int(request.param))


@pytest.fixture(scope="module")
def known() -> Knowledge:
    return Knowledge()


def by_key(world: World) -> dict[tuple[str, str], KnownFact]:
    return {(fact.subject, fact.relation): fact for fact in world.facts}


def test_tables_are_clean() -> None:
    for path in DATA.glob("*.tsv"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert all(cell and cell == cell.strip() for cell in line.split("\t")), (path.name, line)
    subjects = [
        name
        for file in ("countries", "cities", "landmarks", "people", "works", "companies")
        for name in [next(iter(row.values())) for row in table(file)]
    ]
    assert [name for name, n in Counter(subjects).items() if n > 1] == []


def test_tables_agree(known: Knowledge) -> None:
    a = known.answers
    for country, capital in a["capital"].items():
        assert a["country"].get(capital, country) == country
    assert set(a["country"].values()) <= set(a["continent"]) | {"Cyprus", "Turkey"}
    for relation in ("birth_city", "headquarters", "location"):
        assert set(a[relation].values()) <= set(a["country"])
    assert set(a["creator"].values()) <= set(a["birth_city"])
    assert set(a["occupation"].values()) == set(a["field"])
    assert set(a["family"]) <= set(a["language"].values())
    for who, famous in a["known_for"].items():
        assert a["creator"].get(famous, who) == who, famous


def test_size(world: World) -> None:
    assert world.name == "real"
    assert sum(len(s.text.split()) for s in world.statements) < 230_000
    assert all(len(s.text.split()) <= 27 for s in world.statements)
    assert 2500 <= sum("." not in fact.relation for fact in world.facts) <= 3700


def test_statements_hold_their_answers(world: World) -> None:
    assert len({s.text for s in world.statements}) == len(world.statements)
    for s in world.statements:
        assert s.answer
        assert s.text[s.start : s.start + len(s.answer)] == s.answer
        assert s.text.endswith(".")
        assert s.text[0].isupper()


def test_facts_do_not_contradict(world: World) -> None:
    assert len(by_key(world)) == len(world.facts)
    answers: dict[str, str] = {}
    for fact in world.facts:
        assert fact.answer
        for prompt in fact.prompts + fact.held_out:
            assert fact.subject in prompt
            assert not prompt.endswith(" ")
            assert answers.setdefault(prompt, fact.answer) == fact.answer


def test_no_prompt_begins_another_one(world: World) -> None:
    # "X was born in the" and "X was born in the city of" would leave the answer open.
    prompts = {p for fact in world.facts for p in fact.prompts + fact.held_out}
    for prompt in prompts:
        words = prompt.split(" ")
        assert not any(" ".join(words[:n]) in prompts for n in range(1, len(words))), prompt


def test_held_out_phrasings_are_never_stated(world: World, known: Knowledge) -> None:
    starts = {s.text[: s.start - 1] for s in world.statements}
    stated = {s.text for s in world.statements}
    shares: dict[str, list[bool]] = defaultdict(list)
    for fact in world.facts:
        assert not starts & set(fact.held_out)
        assert stated >= {f"{prompt} {fact.answer}." for prompt in fact.prompts}
        if "." in fact.relation:
            shares[fact.relation].append(bool(fact.prompts))
            assert len(fact.prompts + fact.held_out) == len(known.chains[fact.relation]) == 4
            assert len(fact.prompts) in (0, 3)
        else:
            assert (len(fact.prompts), len(fact.held_out)) == (4, 2)
    for chain, trained in shares.items():
        assert 0.6 < sum(trained) / len(trained) < 0.95, chain


def test_every_phrasing_is_trained_for_others(world: World, known: Knowledge) -> None:
    stated = {s.text[: s.start - 1] for s in world.statements}
    for relation, phrasings in (known.phrasings | known.chains).items():
        first = known.answers[relation.partition(".")[0]]
        for template in phrasings:
            assert "{s}" in template
            capital = (template.replace("{s}", name) for name in first)
            assert sum(text[0].upper() + text[1:] in stated for text in capital) >= 15, template


def test_edits(world: World, known: Knowledge) -> None:
    facts, edits = by_key(world), world.edits
    starts = {s.text[: s.start - 1] for s in world.statements}
    assert len(edits) >= 80
    assert sum(bool(e["portability"]) for e in edits) >= 60
    assert len({e["id"] for e in edits}) == len({e["subject"] for e in edits}) == len(edits)
    assert {e["id"].rpartition("-")[0] for e in edits} == set(PLANS)
    edited = {e["subject"] for e in edits}
    for edit in edits:
        relation = edit["id"].rpartition("-")[0]
        fact = facts[edit["subject"], relation]
        assert edit["prompt"] in fact.prompts
        assert edit["ground_truth"] == fact.answer != edit["target"]
        assert edit["target"] in known.answers[relation].values()
        assert tuple(edit["rephrase"]) == fact.held_out
        assert Counter(p["type"] for p in edit["locality"]) == {"same_subject": 3, "neighbourhood": 3}
        probes = [p["prompt"] for p in edit["locality"] + edit["portability"]]
        assert len(set(probes)) == len(probes)
        assert not starts & {*probes, *edit["rephrase"]}
        for probe in edit["locality"]:
            source = next(f for f in world.facts if probe["prompt"] in f.held_out)
            assert source.answer == probe["answer"]
            own = source.subject == edit["subject"]
            assert own == (probe["type"] == "same_subject")
            assert own == (source.relation != relation)
            assert own or (source.subject not in edited and source.answer != edit["target"])


def test_portability_follows_from_the_target(world: World, known: Knowledge) -> None:
    facts = by_key(world)
    names = {bare(n): n for answers in known.answers.values() for n in answers}
    changed = {(names[e["subject"]], e["id"].rpartition("-")[0]) for e in world.edits}
    for edit in world.edits:
        relation = edit["id"].rpartition("-")[0]
        chained = any(chain.startswith(f"{relation}.") for chain in known.chains)
        assert 1 <= len(edit["portability"]) <= 3 if chained else not edit["portability"]
        for probe in edit["portability"]:
            assert probe["type"] == "two_hop"
            assert edit["subject"] in probe["prompt"]
            chain = next(
                c
                for c, phrasings in known.chains.items()
                if c.startswith(f"{relation}.")
                and probe["prompt"].lower()
                in {t.replace("{s}", names[edit["subject"]]).lower() for t in phrasings}
            )
            steps = known.hop(chain.partition(".")[2], edit["target"])
            assert steps[-1][2] == probe["answer"]
            assert not changed & {s[:2] for s in steps}
            old = facts.get((edit["subject"], chain))
            assert old is None or (old.prompts == () and old.answer != probe["answer"])


def test_edit_subjects_are_unambiguous(world: World) -> None:
    texts = {t for fact in world.facts for t in (fact.subject, bare(fact.answer))}
    for edit in world.edits:
        assert not [t for t in texts - {edit["subject"]} if t in edit["subject"] or edit["subject"] in t]


def test_build_is_deterministic() -> None:
    first = build(0)
    assert first == build(0)
    assert first.edits != build(1).edits
