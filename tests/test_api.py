"""The names at the top of hubedit: light to import, and called as they are documented."""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hubedit
import hubedit.edit.rows
from hubedit.cache import Cache
from hubedit.errors import HubEditError, PatchError
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.tokens import encode, pad
from hubedit.patch.identity import patch_id
from tests.quick import FACTS, QUICK

Editable = Callable[..., EditableModel]
OTHER = (Fact("The capital of Japan is", "Japan", "Paris"),)


def logits(em: EditableModel, text: str) -> torch.Tensor:
    found = run(em, pad([encode(em.tokenizer, text).ids], em.pad_id), logits=True).logits
    assert found is not None
    return found[0, -1]


def test_the_names_are_there_and_importing_them_waits_for_nothing() -> None:
    code = """
import sys
import hubedit
assert {"load", "edit", "evaluate", "merge", "revert", "push", "Patch", "Fact"} <= set(dir(hubedit))
heavy = {"torch", "transformers", "peft", "numpy", "huggingface_hub", "jinja2"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert all(getattr(hubedit, name) for name in hubedit.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        hubedit.__getattr__("nothing")


def test_a_verb_is_a_function_and_the_package_of_what_it_does() -> None:
    assert list(inspect.signature(hubedit.edit).parameters)[:3] == ["model", "facts", "config"]
    assert list(inspect.signature(hubedit.evaluate).parameters)[:2] == ["model", "facts"]
    assert inspect.ismodule(sys.modules["hubedit.edit.rows"])
    shown = pydoc.plain(pydoc.render_doc(hubedit.edit))
    assert "hubedit.edit(model: EditableModel, facts: Fact | Iterable[Fact]" in shown
    assert "`on`: a patch of the same model" in shown
    assert {"methods", "solve", "compute"} <= set(dir(hubedit.edit))
    for verb in (hubedit.edit, hubedit.evaluate):
        assert copy.deepcopy(verb) is copy.copy(verb) is pickle.loads(pickle.dumps(verb)) is verb


@pytest.mark.parametrize(
    "code",
    [
        "import hubedit.edit as e; assert e.methods.__path__ and e.compute.compute and callable(e)",
        "from hubedit import edit; assert edit.methods; import hubedit.edit as e; assert e is edit",
        "import hubedit.edit.rows; import hubedit; assert callable(hubedit.edit) and hubedit.edit.solve",
        "import hubedit; assert hubedit.edit.methods; from hubedit.edit import solve; assert solve.__path__",
        "import hubedit, importlib as i; i.reload(hubedit.edit); assert hubedit.edit.__doc__.count('on')",
        "from hubedit.evaluate import compare; import hubedit; assert callable(hubedit.evaluate)",
        "import hubedit.edit as e; assert not hasattr(e, 'nothing') and not hasattr(e, '_secret')",
    ],
)
def test_a_verb_and_its_package_are_there_in_every_order(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_edit_in_memory_is_what_apply_writes(editable: Editable, tmp_path: Path) -> None:
    from hubedit.pipeline import apply_facts

    em, cache = editable(), Cache(tmp_path / "cache")
    patch = hubedit.edit(em, FACTS, QUICK, cache=cache)
    written = apply_facts(em, FACTS, QUICK, out=tmp_path / "patch", cache=cache).patch
    assert patch.facts == written.facts == FACTS
    assert {m: torch.equal(f.B, written.factors[m].B) for m, f in patch.factors.items()} == dict.fromkeys(
        written.factors, True
    )
    saved = hubedit.Patch.load(patch.save(tmp_path / "saved"))
    assert saved.facts == FACTS and saved.record["config"] == written.record["config"]


def test_a_patch_and_a_patch_is_their_sum(editable: Editable, tmp_path: Path) -> None:
    em, cache = editable(), Cache(tmp_path)
    one, two = (hubedit.edit(em, facts, QUICK, cache=cache) for facts in (FACTS, OTHER))
    both = one + two
    assert both.facts == (*one.facts, *two.facts)
    for module, factor in both.factors.items():
        dense = one.factors[module].dense() + two.factors[module].dense()
        torch.testing.assert_close(factor.dense(), dense)
    moved = logits(em.with_patch(both), "The capital of Japan is")
    torch.testing.assert_close(
        moved, logits(em.with_patch(one).with_patch(two), "The capital of Japan is"), atol=1e-4, rtol=1e-4
    )
    again = hubedit.edit(em, FACTS, replace(QUICK, lam=1.0), cache=cache)
    with pytest.raises(PatchError, match="edit the same facts"):
        one + again


def test_a_patch_counts_as_itself_its_folder_or_its_model(editable: Editable, tmp_path: Path) -> None:
    em, cache = editable(), Cache(tmp_path / "cache")
    patch = hubedit.edit(em, FACTS, QUICK, cache=cache)
    folder = patch.save(tmp_path / "patch")
    reports = [hubedit.evaluate(em, FACTS, patch=p, cache=cache) for p in (patch, folder, str(folder))]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]["facts"][0]["probability_after"] != reports[0]["facts"][0]["probability_before"]
    alone = hubedit.evaluate(em.with_patch(patch), FACTS, cache=cache)
    assert alone["metrics_before"]["success"] == reports[0]["metrics"]["success"]
    assert "metrics" not in hubedit.evaluate(em, FACTS, cache=cache)
    stacked = hubedit.edit(em, OTHER, QUICK, on=folder, cache=cache)
    assert stacked.facts == (*FACTS, *OTHER)


def test_a_patch_goes_into_the_weights_and_out_again(editable: Editable, tmp_path: Path) -> None:
    em, cache = editable(), Cache(tmp_path / "cache")
    patch = hubedit.edit(em, FACTS, QUICK, cache=cache)
    done = hubedit.merge(patch, tmp_path / "merged")
    assert [part.name for part in done.record.patches] == ["patch 1"]
    merged = hubedit.load(str(done.path), device="cpu")
    prompt = FACTS[0].prompt
    torch.testing.assert_close(
        logits(merged, prompt), logits(em.with_patch(patch), prompt), atol=1e-4, rtol=1e-4
    )
    back = hubedit.revert(done.path)
    assert back.record is None
    assert hubedit.load(str(done.path), device="cpu").weights_hash() == em.weights_hash()


def test_with_patch_refuses_another_model_s_patch(editable: Editable, tmp_path: Path) -> None:
    patch = hubedit.edit(editable(), FACTS, QUICK, cache=Cache(tmp_path))
    with pytest.raises(PatchError, match="has no editable module"):
        editable("gpt2").with_patch(patch)
    wrong: Any = str(tmp_path)
    with pytest.raises(PatchError, match=r"takes a hubedit.Patch, and this is of type str .*Patch.load"):
        editable().with_patch(wrong)


def test_a_patch_is_a_value_that_is_copied_and_pickled(editable: Editable, tmp_path: Path) -> None:
    patch = hubedit.edit(editable(), FACTS, QUICK, cache=tmp_path)
    for again in (copy.deepcopy(patch), pickle.loads(pickle.dumps(patch))):
        assert (again.facts, again.record) == (patch.facts, patch.record)
        assert all(torch.equal(again.factors[m].B, f.B) for m, f in patch.factors.items())
    assert repr(patch).endswith(f"2 facts, rank {patch.rank}, 4 weights>")
    one: Any = 1
    with pytest.raises(TypeError):
        patch + one


FACT = FACTS[1]
RECORD = {"prompt": FACT.prompt, "subject": FACT.subject, "target": FACT.target}
# called as by somebody without a type checker
api: Any = hubedit
changed: Any = replace
WRONG: dict[str, tuple[Callable[[EditableModel], object], str]] = {
    "facts as dictionaries": (lambda em: api.edit(em, [RECORD]), "number 1 is of type dict"),
    "facts as text": (lambda em: api.edit(em, "a -> b"), "must be hubedit.Fact objects, and are of type"),
    "texts as facts": (lambda em: api.edit(em, [FACT, "a -> b"]), "number 2 is of type str"),
    "no facts": (lambda em: api.edit(em, []), "no facts to edit"),
    "facts that contradict each other": (
        lambda em: api.edit(em, [FACT, changed(FACT, target="Ulm")]),
        "fact 2 contradicts fact 1",
    ),
    "None as facts": (lambda em: api.edit(em, None), "hubedit.load_facts"),
    "a prompt without its subject": (
        lambda em: api.edit(em, hubedit.Fact("It is in", "Paris", "Italy")),
        "1 problem",
    ),
    "a path as model": (lambda em: api.edit("demo", FACTS), "must be one of hubedit.load"),
    "a transformers model": (lambda em: api.edit(em.model, FACTS), "hubedit.load"),
    "a method as configuration": (lambda em: api.edit(em, FACTS, "memit"), "method_defaults"),
    "alpha as a number": (
        lambda em: api.edit(em, FACTS, changed(QUICK, alpha=0.3)),
        "alpha must be text in quotation marks",
    ),
    "an unknown method": (lambda em: api.edit(em, FACTS, changed(QUICK, method="memmit")), "one of: joint"),
    "a number as patch": (lambda em: api.edit(em, FACTS, QUICK, on=3), "a patch is expected"),
    "a list as patch": (lambda em: api.evaluate(em, FACTS, patch=["a"]), "a patch is expected"),
    "nothing to evaluate": (lambda em: api.evaluate(em, []), "no facts to evaluate"),
    "evaluated dictionaries": (lambda em: api.evaluate(em, [RECORD]), "hubedit.Fact"),
    "an evaluated prompt without its subject": (
        lambda em: api.evaluate(em, [hubedit.Fact("It is in", "Paris", "Italy")]),
        "1 problem",
    ),
    "nothing to merge": (lambda em: api.merge([], "out"), "no patch was given"),
    "a model to merge": (lambda em: api.merge(em, "out"), "a patch is expected"),
    "a number to push": (lambda em: api.push(3, "me/there"), "a patch is expected"),
    "no folder to load": (lambda em: api.load("./none"), "no such folder"),
    "None to load": (lambda em: api.load(None), "a model is named by text"),
    "an unknown way to chat": (lambda em: api.load(em.path, chat="yes"), "unknown chat 'yes'"),
    "no file of facts": (lambda em: api.load_facts("none.jsonl"), "no such file"),
    "dictionaries as a file": (lambda em: api.load_facts([RECORD]), "reads a file"),
    "a rephrasing that is no list": (
        lambda em: changed(FACT, rephrase="Curie was born in"),
        "is a list of texts",
    ),
    "texts as probes": (lambda em: changed(FACT, locality=["Bob was born in"]), "hubedit.Probe"),
    "an answer that is no list": (lambda em: api.Probe("Bob was born in", "Rome"), "is a list of texts"),
    "a subject of None": (lambda em: changed(FACT, subject=None), "subject is text"),
    "no target": (lambda em: api.Fact("The capital of Japan is", "Japan"), "a fact needs a target"),
    "no prompt": (lambda em: api.Fact("", target="Rome"), "a fact needs a prompt"),
    "a place for no subject": (lambda em: api.Fact("{} was born in", target="Rome"), "not given"),
    "a negative setting": (lambda em: api.EditConfig(lam=-1.0), "lam must not be negative"),
    "an unknown method of a configuration": (lambda em: api.EditConfig("memmit"), "one of: joint"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_clear_error(
    name: str, editable: Editable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    call, what = WRONG[name]
    with pytest.raises(HubEditError) as caught:
        call(editable())
    assert what in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_fact_a_list_of_texts_and_a_folder_as_cache_will_do(editable: Editable, tmp_path: Path) -> None:
    em = editable()
    patch = hubedit.edit(em, FACT, QUICK, cache=str(tmp_path / "cache"))
    assert patch.facts == (FACT,)
    same = hubedit.edit(em, (fact for fact in [FACT]), QUICK, cache=Cache(str(tmp_path / "cache")))
    assert patch_id(same) == patch_id(patch)
    text = ["The capital of Italy is Rome.", "It is a very large city."]
    report = hubedit.evaluate(em, FACT, patch=patch, text=text, cache=tmp_path / "cache")
    alone = hubedit.evaluate(em, FACT, text=text[1])
    assert report["perplexity"]["n"] > alone["perplexity"]["n"] > 1 and report["kl"]["mean"] > 0
    listed: Any = ["Where was Curie born? In"]
    assert replace(FACT, rephrase=listed).rephrase == tuple(listed)
