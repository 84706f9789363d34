"""Known records: which ones count, how they are split, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hubedit.facts import Fact, load_facts
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from tests.lab.known import BYSTANDERS, DRAWS, FACTS, candidates, known, split, texts, write

Editable = Callable[..., EditableModel]


def fact(number: int, subject: str = "", target: str = "Rome") -> Fact:
    subject = subject or f"Person {number}"
    return Fact(f"{subject} was born in", subject, target, ground_truth=("Paris",))


def test_known_are_those_whose_old_answer_the_model_gives(editable: Editable) -> None:
    em = editable("llama")
    prompts = [f"Person {n} was born in" for n in range(4)]
    said = [text.split()[0] for text in greedy(em, prompts, 6)]
    right = [Fact(p, f"Person {n}", "x", ground_truth=(said[n],)) for n, p in enumerate(prompts)]
    wrong = [Fact(p, f"Person {n}", "x", ground_truth=("nothing such",)) for n, p in enumerate(prompts)]
    without = Fact("Person 0 was born in", "Person 0", "x")
    assert known(em, [right[0], *wrong, without, right[3]]) == [right[0], right[3]]


def test_candidates_are_edits_one_a_subject_in_an_order_of_the_seed() -> None:
    facts = [fact(n) for n in range(40)]
    twice, same = fact(1, "Person 0", "Lyon"), fact(50, target="Paris")
    found = candidates([*facts, twice, same], 0, 1)
    assert len(found) == 40 and {f.subject for f in found} == {f.subject for f in facts}
    assert found == candidates([*facts, twice, same], 0, 1) != candidates([*facts, twice, same], 0, 2)
    assert candidates(facts, 10, 1) == candidates(facts, 0, 1)[:10]


def test_sets_are_disjoint_and_shrink_together() -> None:
    for count in (0, 4, 23, 400):
        facts = [fact(n) for n in range(count)]
        parts = split(facts)
        assert (*parts.tuning, *(f for draw in parts.reporting for f in draw), *parts.rest) == tuple(facts)
        size = min(FACTS, count // (DRAWS + 2))
        assert [len(parts.tuning), *map(len, parts.reporting)] == [size] * (DRAWS + 1)
        assert len(parts.rest) >= size


def test_bystanders_have_subjects_that_no_file_edits(tmp_path: Path) -> None:
    found = {"counterfact": [fact(n) for n in range(400)], "zsre": [fact(n) for n in range(300, 360)]}
    counts = write(found, tmp_path)
    files = {name: load_facts(tmp_path / f"{name}.jsonl").facts for name in counts}
    assert {name: len(facts) for name, facts in files.items()} == counts
    assert counts["zsre-tuning"] == counts["zsre-reporting-2"] == 12
    edited = {f.subject for name, facts in files.items() if name != "bystanders" for f in facts}
    assert counts["bystanders"] == BYSTANDERS and not edited & {f.subject for f in files["bystanders"]}


def test_text_is_the_second_half_on_lines_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps([{"Text": f" one\n{n}"} for n in range(4)]))
    assert texts(file) == ["one 2", "one 3"]
