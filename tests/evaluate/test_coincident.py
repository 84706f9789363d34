"""Probes that an edit has seen count in no figure, and the report says how many there are."""

from __future__ import annotations

import pytest

from hubedit.evaluate.coincident import apart
from hubedit.evaluate.forced import Forced
from hubedit.evaluate.measure import Measured
from hubedit.evaluate.reading import Reading
from hubedit.evaluate.report import report
from hubedit.facts import Fact, Probe
from hubedit.model.forms import as_question
from hubedit.names import sentences

JAPAN = Fact(
    "The capital of Japan is",
    "Japan",
    "Rome",
    ground_truth=("Tokyo",),
    rephrase=("Japan's capital is",),
    locality=(Probe("The capital of Peru is", ("Lima",)),),
)
PERU = Fact("The capital of Peru is", "Peru", "Oslo", ground_truth=("Lima",), rephrase=("Peru's capital is",))


def texts(facts: list[Fact], answer: str) -> Reading:
    prompts = [f.prompt for f in facts] + [p for f in facts for p in f.rephrase]
    prompts += [p.prompt for f in facts for p in f.locality]
    scored = {(f.prompt, f.target): Forced((1,), (1,), -0.1) for f in facts}
    return Reading(dict.fromkeys(prompts, answer), scored)


@pytest.mark.parametrize(
    "text",
    [
        PERU.prompt,  # another fact's prompt
        f" {JAPAN.prompt} ",
        as_question(JAPAN.prompt),
        f"Question: {as_question(JAPAN.prompt)}\nAnswer:",
        f"As for {JAPAN.prompt}",
        "Peru is a",  # preserved
        next(sentences()),  # preserved, too
    ],
)
def test_a_probe_that_an_edit_sees_is_counted_apart(text: str) -> None:
    probes = (Probe(text, ("Lima",)), Probe("Japan lies in", ("Asia",)))
    fact = Fact(JAPAN.prompt, "Japan", "Rome", rephrase=(text, "Japan's capital is"), portability=probes)
    (rest, _), found = apart([fact, PERU])
    assert found == [text, text]
    assert rest.rephrase == ("Japan's capital is",) and rest.portability == probes[1:]


def test_the_report_says_so_and_counts_the_others() -> None:
    facts = [JAPAN, PERU]
    content = report(facts, Measured(texts(facts, " Lima")), Measured(texts(facts, " Oslo")))
    assert content["coincident"] == {"n": 1, "prompts": [PERU.prompt]}
    assert content["counts"] == {"success": 2, "generalisation": 2}, "no neighbourhood is left"
    assert any("1; no figure counts them" in note for note in content["notes"])
    clean = report([PERU], Measured(texts([PERU], " Lima")), Measured(texts([PERU], " Oslo")))
    assert "coincident" not in clean
