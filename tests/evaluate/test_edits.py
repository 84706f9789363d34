"""What an edit did: metrics on readings made by hand, and readings of tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import exp, log

import pytest

from hubedit.evaluate import EditReport, Reading, answered, compare, read
from hubedit.evaluate.edits import exact, in_harmonic_mean
from hubedit.evaluate.forced import Forced, Pair, forced
from hubedit.evaluate.reading import MOST_ANSWER_TOKENS, questions
from hubedit.facts import Fact, Probe
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from tests.edit.editing import FACTS
from tests.model.test_hooks import random_factors

Editable = Callable[..., EditableModel]

FACT = Fact(
    "The capital of France is",
    "France",
    "Rome",
    id="1",
    rephrase=("France's capital is", "The French capital is"),
    locality=(
        Probe("The language of France is", ("French",)),
        Probe("The president of France is"),
        Probe("The capital of Japan is", ("Tokyo",)),
    ),
    portability=(
        Probe("The river in France's capital is", ("Tiber", "the Tiber")),
        Probe("Nothing is known of"),
    ),
)
BEFORE = {
    "The capital of France is": " Paris. It",
    "France's capital is": " Paris",
    "The French capital is": " Paris",
    "The language of France is": " French, which",
    "The president of France is": " a man. He",
    "The capital of Japan is": " Tokyo",
    "The river in France's capital is": " the Seine",
    "Nothing is known of": " it",
}
AFTER = {
    "The capital of France is": " Rome, the city",
    "France's capital is": " Rome",
    "The French capital is": " Romeo",
    "The language of France is": " French. Not",
    "The president of France is": " a man! She",
    "The capital of Japan is": " Rome",
    "The river in France's capital is": " Tiber.",
    "Nothing is known of": " that",
}
OLD, NEW = Forced((1,), (2,), log(0.01), 40), Forced((1,), (1,), log(0.9), 1)


def scored(value: Forced, *facts: Fact) -> dict[Pair, Forced]:
    """The targets of the facts, all with the same score."""
    return {(fact.prompt, fact.target): value for fact in facts}


def compared(fact: Fact = FACT, changes: Mapping[str, str] | None = None) -> EditReport:
    after = {**AFTER, **(changes or {})}
    return compare([fact], Reading(BEFORE, scored(OLD, fact)), Reading(after, scored(NEW, fact)))


def test_every_metric_counts_its_own_prompts() -> None:
    report = compared()
    assert report.metrics == {
        "success": 1.0,
        "generalisation": 0.5,
        "locality": 1.0,
        "neighbourhood": 0.0,
        "portability": 1.0,
    }
    assert report.counts == {
        "success": 1,
        "generalisation": 2,
        "locality": 2,
        "neighbourhood": 1,
        "portability": 1,
    }
    assert report.harmonic_mean == 0.0
    assert compared(changes={"The capital of Japan is": "Tokyo"}).harmonic_mean == pytest.approx(5 / (4 + 2))


def test_outcomes_tell_before_and_after() -> None:
    (outcome,) = compared().outcomes
    assert (outcome.before, outcome.after) == ("Paris", "Rome, the city")
    assert (outcome.probability_before, outcome.probability_after) == pytest.approx((0.01, 0.9))
    assert (outcome.rank_before, outcome.rank_after) == (40, 1)
    assert outcome.success
    assert compared().failed == ()


def test_facts_that_fail_are_listed() -> None:
    report = compared(changes={"The capital of France is": " Paris"})
    assert [o.fact.id for o in report.failed] == ["1"]
    assert report.metrics["success"] == 0


def test_a_metric_without_prompts_is_absent() -> None:
    bare = Fact(FACT.prompt, FACT.subject, FACT.target)
    report = compared(bare)
    assert report.metrics == {"success": 1.0}
    assert report.harmonic_mean is None
    one = compared(replace(bare, portability=(Probe("Nothing is known of"),)))
    assert "portability" not in one.metrics, "no answer to compare with"


def test_prompts_that_were_not_read_are_left_out() -> None:
    def only(texts: Mapping[str, str]) -> dict[str, str]:
        return {FACT.prompt: texts[FACT.prompt]}

    report = compare(
        [FACT], Reading(only(BEFORE), scored(OLD, FACT)), Reading(only(AFTER), scored(NEW, FACT))
    )
    assert report.counts == {"success": 1}


@pytest.mark.parametrize(
    ("subject", "prompt", "metric"),
    [
        ("Ada", "The capital of Canada is", "neighbourhood"),
        ("Ada", "The sister of ADA is", "locality"),
        ("日本", "日本の言語は", "locality"),
        ("St. Louis", "The river of St. Louis is", "locality"),
    ],
)
def test_the_prompts_own_words_decide_whose_locality_it_is(subject: str, prompt: str, metric: str) -> None:
    fact = Fact(f"{subject} is", subject, "x", locality=(Probe(prompt),))
    texts = {fact.prompt: "x", prompt: "y"}
    reading = Reading(texts, scored(OLD, fact))
    assert set(compare([fact], reading, reading).metrics) == {"success", metric}


def test_the_report_is_plain_json() -> None:
    data = compared().to_json()
    assert json.loads(json.dumps(data)) == data
    assert data["facts"][0]["before"] == "Paris"


def test_reading_generates_and_scores(editable: Editable) -> None:
    em = editable()
    found = read(em, FACTS)
    assert list(found.texts) == [f.prompt for f in FACTS]
    targets = [(f.prompt, f.target) for f in FACTS]
    assert [found.scored[pair].rank for pair in targets] == [forced(em, targets)[p].rank for p in targets]
    for prompt, text in found.texts.items():
        assert greedy(em, [prompt], 30)[0].startswith(text)
    report = compare(FACTS, found, found)
    assert report.outcomes[0].probability_before == pytest.approx(exp(found.scored[targets[0]].logp))


def test_probes_are_read_only_when_asked_for(editable: Editable) -> None:
    em = editable()
    assert set(read(em, [FACT], probes=False).texts) == {FACT.prompt}
    everything = {FACT.prompt, *FACT.rephrase, *(p.prompt for p in (*FACT.locality, *FACT.portability))}
    assert set(read(em, [FACT]).texts) == everything


def test_reading_sees_what_is_applied_and_an_unedited_model_is_unchanged(editable: Editable) -> None:
    em = editable("gpt2")
    plain = read(em, [FACT])
    patched = em.with_patch(random_factors(em, scale=0.5))
    edited = read(patched, [FACT])
    assert edited.texts != plain.texts
    same = compare([FACT], plain, read(em, [FACT]))
    assert same.metrics["locality"] == same.metrics["neighbourhood"] == 1.0


def test_long_targets_are_waited_for_and_blank_answers_do_no_harm(editable: Editable) -> None:
    em, long = editable(), "Marie Curie " * 30
    assert questions(em, [replace(FACT, target=long)]).new > 60
    probed = replace(FACT, locality=(Probe("Rome is", (long, " ")),))
    assert questions(em, [probed]).new == MOST_ANSWER_TOKENS + 4
    blank = replace(FACT, locality=(Probe("Rome is", ("", " ")),), portability=())
    assert questions(em, [blank]).new < 20
    assert "Rome is" in read(em, [blank]).texts


def test_intervals_relations_and_flipped_neighbours() -> None:
    facts = [FACT, replace(FACT, id="2"), replace(FACT, id="", prompt="The capital of  France is")]
    before = {**BEFORE, facts[2].prompt: " Paris"}
    after = {**AFTER, facts[2].prompt: " Paris"}
    old, new = Reading(before, scored(OLD, *facts)), Reading(after, scored(NEW, *facts))
    report = compare(facts, old, new)
    assert report.intervals["success"] == (0.0, 1.0)
    assert report.intervals["generalisation"] == (0.5, 0.5)
    # no neighbour of the three facts stayed as it was: Wilson's interval, over facts
    assert report.intervals["neighbourhood"] == pytest.approx((0, 0.5615), abs=1e-4)
    assert report.intervals["probability"] == pytest.approx((0.9, 0.9))
    one = compare(facts[:1], old, new).intervals
    assert one["success"] == pytest.approx((0.2065, 1), abs=1e-4)
    assert "generalisation" not in one, "one fact, whose two rephrasings differ"
    data = report.to_json()
    assert data["relations"] == {
        "The capital of {} is": {"success": 1.0, "n": 2},
        "The capital of  {} is": {"success": 0.0, "n": 1},
    }
    flipped = {"prompt": "The capital of Japan is", "before": "Tokyo", "after": "Rome"}
    assert data["damage"]["flipped_neighbours"] == [
        {"fact": "1", **flipped},
        {"fact": "2", **flipped},
        {"fact": "The capital of  France is", **flipped},
    ]
    assert data["probability_shift"] == [pytest.approx([0.01, 0.9])] * 3


def test_the_harmonic_mean_has_an_interval() -> None:
    facts = [replace(FACT, id=str(n), prompt=f"{n} The capital of France is") for n in range(9)]
    said = {fact.prompt: " Rome" if n % 3 else " Paris" for n, fact in enumerate(facts)}
    old = Reading({**BEFORE, **said}, scored(OLD, *facts))
    report = compare(facts, old, Reading({**AFTER, **said}, scored(NEW, *facts)))
    kept = EditReport((), {k: v for k, v in report.metrics.items() if k != "neighbourhood"}, report.counts)
    # a share of 0 pulls the mean down to 0, and its upper end holds it up
    assert report.harmonic_mean == 0 and report.intervals["harmonic_mean"][0] == 0
    assert 0 < report.intervals["harmonic_mean"][1] < (kept.harmonic_mean or 0)


def test_damage_and_intervals_that_were_not_measured_are_absent() -> None:
    bare = Fact(FACT.prompt, FACT.subject, FACT.target)
    data = compared(bare).to_json()
    assert "damage" not in data and set(data["intervals"]) == {"success"}
    kept = compared(changes={"The capital of Japan is": "Tokyo"}).to_json()
    assert kept["damage"] == {"flipped_same_subject": [], "flipped_neighbours": []}, "asked, and none flipped"


def test_a_model_alone_is_not_compared_with_itself() -> None:
    report = answered([FACT], Reading(BEFORE, scored(OLD, FACT)))
    assert report.metrics == {"success": 0.0, "generalisation": 0.0, "portability": 0.0}
    assert report.counts == {"success": 1, "generalisation": 2, "portability": 1}


def test_exact_match_counts_what_says_nothing_else() -> None:
    fact = Fact(
        "The capital of France is",
        "France",
        "Rome",
        rephrase=("France's capital is", "not asked"),
        portability=(
            Probe("The river of the capital of France is", ("Tiber", "Tevere")),
            Probe("Without an answer", ()),
        ),
    )
    texts = {
        "The capital of France is": " Rome. It is",
        "France's capital is": " Rome, and the",
        "The river of the capital of France is": " the Tiber",
        "Without an answer": " x",
    }
    reading = Reading(texts)
    values = exact([fact, replace(fact, rephrase=(), portability=())], reading)
    assert values == {
        "success": [[1.0], [1.0]],
        "generalisation": [[0.0], []],
        "portability": [[0.0], []],
    }
    texts["The river of the capital of France is"] = " Tevere"
    assert exact([fact], reading)["portability"] == [[1.0]]


def test_the_whole_continuation_stands_beside_the_first_word() -> None:
    reading, old = Reading(AFTER), Reading(BEFORE)
    # "French, which" is now "French. Not", "a man. He" is "a man! She", "Tokyo" is "Rome"
    assert exact([FACT], reading, old)["locality"] == [[0.0, 0.0]]
    assert exact([FACT], old, old)["neighbourhood"] == [[1.0]]
    assert compared().metrics["locality"] == 1.0, "the first words are the same"
    assert "locality" not in exact([FACT], old), "nothing to compare with"


def test_a_few_stray_prompts_do_not_decide_the_harmonic_mean() -> None:
    """Success counts however many neighbours there are."""
    counts = {"success": 100, "locality": 2, "neighbourhood": 2000}
    assert in_harmonic_mean(counts, 100) == ["success", "neighbourhood"]
    assert in_harmonic_mean({"success": 20, "locality": 2}, 20) == ["success", "locality"]
    stray = replace(FACT, id="s", prompt="So the capital of France is")
    others = [
        replace(FACT, prompt=f"{n} The capital of France is", locality=FACT.locality[2:]) for n in range(30)
    ]
    said = {fact.prompt: " Rome" for fact in (stray, *others)}
    wrong = {**said, "The language of France is": " Latin", "The president of France is": " she"}
    old = Reading({**BEFORE, **said}, scored(OLD, stray, *others))
    report = compare([stray, *others], old, Reading({**AFTER, **wrong}, scored(NEW, stray, *others)))
    assert report.counts["locality"] == 2 and report.metrics["locality"] == 0
    kept = [value for name, value in report.metrics.items() if name != "locality"]
    assert min(kept) == 0 or report.harmonic_mean == pytest.approx(len(kept) / sum(1 / v for v in kept))
