"""Teacher-forced predictions: the same as one forward pass of the model's own, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hubedit.evaluate.forced import Forced, forced
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import replaced
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation, encode
from tests.pico import FAMILIES
from tests.watching import little_memory, passes

Editable = Callable[..., EditableModel]

PAIRS = [
    ("The capital of France is", "Rome"),
    ("The capital of France is", "a very large city in Japan"),
    ("Marie Curie", "was born in Warsaw"),
    ("The river Nile flows through Egypt and", "Sudan"),
]


def by_hand(em: EditableModel, prompt: str, answer: str) -> Forced:
    before, label = encode(em.tokenizer, prompt).ids, continuation(em.tokenizer, prompt, answer)
    with torch.no_grad():
        logits = em.model(input_ids=torch.tensor([[*before, *label]])).logits[0].float()
    places = logits[len(before) - 1 : -1]
    logp = places.log_softmax(-1).gather(1, torch.tensor(label)[:, None]).mean()
    rank = places[0].argsort(descending=True).tolist().index(label[0]) + 1
    return Forced(label, tuple(places.argmax(-1).tolist()), float(logp), rank)


@pytest.mark.parametrize("family", FAMILIES)
def test_predictions_are_the_models_own(editable: Editable, family: str) -> None:
    em = editable(family)
    found = forced(em, PAIRS)
    for pair in PAIRS:
        wanted = by_hand(em, *pair)
        assert (found[pair].labels, found[pair].predicted) == (wanted.labels, wanted.predicted)
        assert found[pair].rank == wanted.rank
        assert found[pair].logp == pytest.approx(wanted.logp, abs=1e-4)


def test_batches_change_nothing(editable: Editable) -> None:
    em = editable("mistral", "metaspace_bos")
    whole = forced(em, PAIRS)
    for tokens in (1, 20):
        small = forced(em, PAIRS, tokens, scored=2)
        assert small.keys() == whole.keys()
        for pair in PAIRS:
            assert small[pair].predicted == whole[pair].predicted
            assert small[pair].logp == pytest.approx(whole[pair].logp, abs=1e-4)


def test_batches_are_halved_when_memory_runs_out(editable: Editable) -> None:
    em, rows = editable(), list[int]()
    whole = forced(em, PAIRS)
    with passes(em, lambda x: rows.append(len(x))), little_memory(em, rows=2):
        assert forced(em, PAIRS).keys() == whole.keys()
    assert rows[0] == 4 and rows[-1] <= 2


def test_pairs_that_cannot_be_placed_are_left_out(editable: Editable) -> None:
    em = editable()
    long = "France " * em.max_positions
    found = forced(em, [("The capital is", " "), ("The capital is", ""), (long, "Rome"), PAIRS[0], PAIRS[0]])
    assert list(found) == [PAIRS[0]]


def test_accuracy_and_probability() -> None:
    found = Forced((1, 2, 3, 4), (1, 9, 3, 4), -0.5, 7)
    assert found.accuracy == 0.75
    assert found.probability == pytest.approx(0.60653, abs=1e-5)
    assert Forced.from_json(found.to_json()) == found


def test_a_broken_model_ranks_everything_last(editable: Editable) -> None:
    em = editable()
    with replaced(em, {Site(0, "mlp"): lambda x: x * torch.nan}):
        found = forced(em, PAIRS)
    assert all(value.logp != value.logp for value in found.values())
    assert all(value.rank == em.vocabulary + 1 for value in found.values())


def test_a_join_decides_which_tokens_are_forced(editable: Editable) -> None:
    em = editable()
    prompt, answer = PAIRS[0]
    found = forced(em, PAIRS, joins={prompt: ""})
    assert found[prompt, answer].labels == continuation(em.tokenizer, prompt, answer, "")
    assert found[prompt, answer].labels != forced(em, PAIRS)[prompt, answer].labels
    assert found[PAIRS[2]].labels == continuation(em.tokenizer, *PAIRS[2])
