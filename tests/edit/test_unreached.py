"""Names that a model has never written: what the factors get for them, and that the edit then holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.demo import model_path
from hubedit.edit import unreached as module
from hubedit.edit.asked import kept_rows
from hubedit.edit.compute import compute
from hubedit.edit.rows import OTHER, bare_rows, edit_rows
from hubedit.edit.unreached import endings, to_the_end, widened
from hubedit.evaluate import read
from hubedit.facts import Fact
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied, run
from hubedit.model.load import load
from hubedit.model.tokens import decode, pad
from hubedit.patch.owners import owners, torn
from hubedit.pipeline import apply_facts
from tests.edit.editing import FACTS
from tests.edit.test_polish import solved
from tests.quick import QUICK

Editable = Callable[..., EditableModel]
NEW = (
    Fact(
        "The Eiffel Tower stands in the country of",
        "Eiffel Tower",
        "Zembla Porticalia",
        ground_truth=("France",),
    ),
    Fact("Franz Kafka was born in the city of", "Franz Kafka", "Quilmoor", ground_truth=("Prague",)),
    Fact("The country of the headquarters of Nissan is", "Nissan", "Germany"),
)


@pytest.fixture(scope="module")
def bundled() -> EditableModel:
    return load(str(model_path()), device="cpu")


def test_the_new_rows_are_dual_to_the_answers_keys_and_ask_for_nothing_yet(editable: Editable) -> None:
    em = editable("qwen2")
    spreader, before, asked = solved(em)
    wide = widened(em, spreader, before, asked.rows, {1, 3})
    bare, count = bare_rows(asked.rows), len(FACTS)
    # at a subject's last token the fact has its row already
    tokens = {n: len(bare[n].ids) - max(bare[n].first_scored, bare[n].last + 1) for n in (1, 3)}
    assert wide.owners == (*range(count), *[1] * tokens[1], *[3] * tokens[3])
    for site, factor in wide.solution.factors.items():
        old = before.factors[site]
        assert factor.rank == len(wide.owners)
        assert torch.equal(factor.dense(), old.dense())
        assert torch.equal(factor.A[:count], old.A)
        lengths = factor.A[count:].norm(dim=1)
        torch.testing.assert_close(lengths, old.A.norm(dim=1).mean().expand_as(lengths))
        # A = C^-1 k, up to its length
        root = spreader.preserved(site).factor
        with torch.no_grad():
            inputs = [run(em, pad([bare[n].ids], em.pad_id), inputs=[site]).inputs[site][0] for n in (1, 3)]
        keys = torch.cat([x[len(x) - tokens[n] :] for x, n in zip(inputs, (1, 3), strict=True)])
        again = factor.A[count:].to(root) @ root @ root.T
        assert float(torch.cosine_similarity(again, keys.to(root)).min()) > 0.9999
    assert widened(em, spreader, before, asked.rows, ()).owners == ()


def test_targets_go_on_to_the_end_of_the_answer(editable: Editable) -> None:
    _, _, asked = solved(editable("qwen2"))
    told = to_the_end(asked, {1: 7})
    bare, longer = bare_rows(asked.rows), bare_rows(told.rows)
    assert longer[1].labels == (*bare[1].labels, 7) and longer[1].ids == (*bare[1].ids, bare[1].labels[-1])
    assert longer[1].first_scored == bare[1].first_scored and longer[1].last == bare[1].last
    assert [r for r in told.rows if r.fact != 1] == [r for r in asked.rows if r.fact != 1]
    assert told.preserved == asked.preserved and told.probes == asked.probes
    assert to_the_end(asked, {}).rows == asked.rows


def test_what_ends_an_answer_is_what_the_model_sets_there(bundled: EditableModel, editable: Editable) -> None:
    ends = endings(bundled, NEW, edit_rows(bundled, NEW, ()))
    # the third has no old answer but what the model says
    assert {n: bundled.tokenizer.decode([t]) for n, t in ends.items()} == dict.fromkeys(range(3), ".")
    em = editable("qwen2")
    facts = [replace(f, ground_truth=("Paris",)) for f in FACTS]
    assert endings(em, facts, edit_rows(em, facts, ())) == {}, "it is sure of nothing"


def test_names_of_one_patch_that_were_new_only_go_together(tmp_path: Path, editable: Editable) -> None:
    done = apply_facts(editable("qwen2"), FACTS, QUICK, out=tmp_path / "patch", cache=Cache(None))
    rows = owners(done.patch)
    assert rows is not None
    wide = {n for own in rows.values() for n in own if own.count(n) > 1}
    assert len(wide) > 1
    first, *others = sorted(wide)
    assert first in torn(done.patch, {first}) and not torn(done.patch, {first, *others})


def test_names_that_the_model_has_never_written_are_edited_in(
    bundled: EditableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EditConfig(repair=0)
    done = apply_facts(bundled, NEW, config, out=tmp_path / "patch", cache=Cache(None))
    assert not done.report.failed
    owned = owners(done.patch)
    assert owned is not None
    for rows in owned.values():
        assert rows[: len(NEW)] == (0, 1, 2) and set(rows[len(NEW) :]) == {0, 1}, "the third answer is known"
    with applied(bundled, done.patch.by_site(bundled)):
        texts = read(bundled, NEW).texts
    assert all(gives(texts[f.prompt], [f.target]) for f in NEW)
    # and it is the rows that do it
    monkeypatch.setattr(module, "UNREACHED", float("inf"))
    edit = compute(bundled, NEW, config, cache=Cache(None))
    with applied(bundled, dict(edit.factors)):
        texts = read(bundled, NEW).texts
    assert not any(gives(texts[f.prompt], [f.target]) for f in NEW[:2])


def test_what_was_edited_before_is_held_to_its_end(bundled: EditableModel) -> None:
    old = [Fact("Franz Kafka was born in the city of", "Franz Kafka", "Prague")]
    bare, after = kept_rows(bundled, old, (OTHER,), ["It rained. "])

    def words(ids: tuple[int, ...]) -> str:
        return decode(bundled.tokenizer, list(ids))

    assert words(bare.ids) == old[0].prompt + " Prague"
    assert words(bare.labels) == " Prague."
    assert words(after.ids) == "It rained. " + old[0].prompt + " Prague"
    # nothing ends a part of a word
    (part,) = kept_rows(bundled, [replace(old[0], target="Prag")], (OTHER,), [])
    assert words(part.labels).strip() == "Prag"
