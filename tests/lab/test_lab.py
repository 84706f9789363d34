"""The lab's own tests: the world is consistent, tokenizers are exact, a pico run learns and is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests.lab.architectures import ARCHITECTURES, Size, make
from tests.lab.invented import HOPS, PHRASINGS, build
from tests.lab.packing import Pack, questions, share_right
from tests.lab.train import Plan, train
from tests.lab.world import World

PICO = Size(layers=2, hidden=32, intermediate=64, heads=4, kv_heads=2, context=128)


@pytest.fixture(scope="module")
def world() -> World:
    return build(people=20, seed=3)


def test_statements_hold_their_answers(world: World) -> None:
    for s in world.statements:
        assert s.text[s.start : s.start + len(s.answer)] == s.answer
    assert build(20, 3) == world


def test_held_out_phrasings_are_never_stated(world: World) -> None:
    texts = [s.text for s in world.statements]
    for fact in world.facts:
        for prompt in fact.held_out:
            assert not any(text.startswith(prompt) for text in texts)
        for prompt in fact.prompts:
            assert f"{prompt} {fact.answer}." in texts
        if fact.relation in PHRASINGS:
            assert len(fact.held_out) == 1 and len(fact.prompts) == 5


def test_worlds_of_different_seeds_share_no_name() -> None:
    def names(world: World) -> set[str]:
        return {f.subject for f in world.facts} | {f.answer for f in world.facts if f.answer[0].isupper()}

    assert not names(build(120, 1)) & names(build(120, 2))


def test_edits_are_counterfactual_and_consistent() -> None:
    world = build(240, 1)
    known = {(f.subject, f.relation): f for f in world.facts}
    edited = {e["subject"] for e in world.edits}
    assert len(world.edits) >= 60 and {e["id"].split("-")[0] for e in world.edits} == set(PHRASINGS)
    assert len({e["id"] for e in world.edits}) == len(world.edits)
    for edit in world.edits:
        fact = known[edit["subject"], edit["id"].split("-")[0]]
        assert edit["ground_truth"] == fact.answer != edit["target"]
        assert edit["subject"] in edit["prompt"] and edit["prompt"] in fact.prompts
        assert edit["rephrase"][0] == fact.held_out[0] and len(edit["rephrase"]) == 5
        kinds = [probe["type"] for probe in edit["locality"]]
        assert kinds.count("same_subject") == 3 and kinds.count("neighbourhood") == 3
        for probe in edit["locality"]:
            asked = next(f for f in known.values() if probe["prompt"] in f.prompts)
            assert asked.answer == probe["answer"]
            if probe["type"] == "same_subject":
                assert asked.subject == edit["subject"] and asked.relation != fact.relation
            else:
                assert asked.subject not in edited and asked.relation == fact.relation
        truth = {known[edit["subject"], hop].answer for hop in HOPS}
        assert all(probe["answer"] not in truth for probe in edit["portability"])


@pytest.mark.parametrize("arch", ["qwen2", "mistral"])
def test_tokenizers_are_lossless_and_give_offsets(world: World, arch: str, tmp_path: Path) -> None:
    _, tokenizer = make(arch, PICO, world)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for s in world.statements[::50]:
        encoded = again(s.text, return_offsets_mapping=True)
        assert encoded.input_ids == tokenizer(s.text).input_ids
        assert again.decode(encoded.input_ids, skip_special_tokens=True) == s.text
        assert encoded.offset_mapping[-1][1] == len(s.text)
        assert (encoded.input_ids[0] == again.bos_token_id) == (arch == "mistral")
    people = {f.subject for f in world.facts if f.relation == "pet"}
    assert all(len(tokenizer(p, add_special_tokens=False).input_ids) >= 3 for p in people)


def test_rows_weigh_answers(world: World) -> None:
    _, tokenizer = make("mistral", PICO, world)
    ids, weights = next(Pack.of(tokenizer, world.statements).batches(rows=8, length=64, seed=0))
    assert ids.shape == weights.shape == (8, 64)
    assert (ids[:, 0] == tokenizer.bos_token_id).all() and (weights[:, 0] == 0).all()
    answers = str(tokenizer.decode(ids[weights == 1.0])).split()
    stated = {word for f in world.facts for word in f.answer.split()}
    assert answers and set(answers) <= stated


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_a_pico_run_is_saved_and_answers_as_generation_does(world: World, arch: str, tmp_path: Path) -> None:
    plan = Plan(tokens=6000, rows=8, rate=1e-2, evaluations=2, sample=20, save_dtype="float32")
    record = train(world, arch, tmp_path, PICO, plan, seed=0)
    assert record["final"]["tokens"] >= 6000
    lab = json.loads((tmp_path / "lab.json").read_text())
    assert lab["arch"] == arch and lab["figures"]
    for name in ("corpus.txt", "edits.jsonl", "known.jsonl"):
        assert (tmp_path / name).stat().st_size > 0
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    prompt, answer = questions(world.facts, "trained")[0]
    encoded = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(
            **encoded, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    text = str(tokenizer.decode(written[0], skip_special_tokens=True))
    right = share_right(model, tokenizer, [(prompt, answer)])
    assert right[0] == text.startswith(f"{prompt} {answer}")
