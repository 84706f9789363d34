"""A tensor that a model stores twice: every command takes one value of it, or all refuse the model alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import HubEditError
from hubedit.model.load import load
from tests.pico import pico

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
DOWN, NORM = "model.layers.1.mlp.down_proj.weight", "model.norm.weight"


def outcomes(folder: Path) -> set[str]:
    """What those that load a model, and those that read its files, say of it; "" where they take it."""
    said = set()
    reads: tuple[Callable[[], object], ...] = (
        lambda: load(str(folder), device="cpu"),
        lambda: Checkpoint.open(folder),
    )
    for read in reads:
        try:
            read()
            said.add("")
        except HubEditError as error:
            said.add(str(error))
    return said


def in_two_shards(folder: Path, named: str, change: float) -> Path:
    """`DOWN` in both of two shards, of which the index names one; the other holds it plus `change`."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    other = SECOND if named == FIRST else FIRST
    norm = {NORM: tensors[NORM]}
    rest = {name: value for name, value in tensors.items() if name not in (DOWN, NORM)}
    for file, own in {FIRST: rest, SECOND: norm}.items():
        value = tensors[DOWN] + (change if file == other else 0)
        save_file({**own, DOWN: value}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {**dict.fromkeys(rest, FIRST), NORM: SECOND, DOWN: named}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(("named", "change", "says"), [(FIRST, 1.0, "other values"), (FIRST, 0.0, "")])
def test_two_copies_in_two_shards(tmp_path: Path, named: str, change: float, says: str) -> None:
    (found,) = outcomes(in_two_shards(pico("llama", tmp_path / "m"), named, change))
    assert says in found and bool(found) == bool(says)


def test_the_last_copy_counts_where_the_index_names_it(tmp_path: Path) -> None:
    folder = pico("llama", tmp_path / "m")
    wanted = load_file(folder / "model.safetensors")[DOWN]
    in_two_shards(folder, SECOND, 1.0)
    assert outcomes(folder) == {""}
    weight = dict(load(str(folder), device="cpu", dtype="float32").parameters())[DOWN]
    assert torch.equal(weight, wanted)
    assert Checkpoint.open(folder).entry(DOWN).file.name == SECOND


@pytest.mark.parametrize("wrong", ["is not in", "index says otherwise"])
def test_an_index_that_is_wrong_about_a_tensor(tmp_path: Path, wrong: str) -> None:
    folder = in_two_shards(pico("llama", tmp_path / "m"), SECOND, 0.0)
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    if wrong == "is not in":
        data["weight_map"]["model.layers.9.mlp.down_proj.weight"] = FIRST
    else:
        data["weight_map"][NORM] = FIRST
    index.write_text(json.dumps(data))
    (found,) = outcomes(folder)
    assert wrong in found


@pytest.mark.parametrize(
    ("family", "tied", "says"),
    [("llama", True, "lm_head"), ("gpt2", True, "lm_head"), ("llama", False, ""), ("gpt2", None, "")],
)
def test_a_head_beside_the_embeddings_that_it_is_tied_to(
    tmp_path: Path, family: str, tied: bool | None, says: str
) -> None:
    """Where nothing is said of a tie, the family's habit is no reason to refuse what transformers loads."""
    folder = pico(family, tmp_path / "m", tied=True)
    config = json.loads((folder / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    said = {} if tied is None else {"tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps({**config, **said}))
    file = folder / "model.safetensors"
    tensors = load_file(file)
    words = tensors["model.embed_tokens.weight" if family == "llama" else "transformer.wte.weight"]
    for change in (0, 1):
        shutil.copytree(folder, tmp_path / str(change))
        save_file(
            {**tensors, "lm_head.weight": words + change},
            tmp_path / str(change) / file.name,
            metadata={"format": "pt"},
        )
    assert outcomes(tmp_path / "0") == {""}
    (found,) = outcomes(tmp_path / "1")
    assert says in found and bool(found) == bool(says)
