"""A tensor that a model stores twice: readers take one value of it, or the model is refused. What has one
value loads, whatever else is wrong with the index or a header."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.read import Checkpoint
from hubedit.checkpoint.revert import revert
from hubedit.errors import CheckpointError, HubEditError, ModelError
from hubedit.linalg import LowRank
from hubedit.model.load import load
from hubedit.patch import Patch, tensor_sha256
from tests.checkpoint.tiny import local
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
def test_a_wrong_index_is_no_reason_to_load_nothing(tmp_path: Path, wrong: str) -> None:
    """There is one value, which is loaded; what reads tensors by the index refuses."""
    folder = pico("llama", tmp_path / "m")
    wanted = load_file(folder / "model.safetensors")[NORM]
    in_two_shards(folder, SECOND, 0.0)
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    if wrong == "is not in":
        data["weight_map"]["model.layers.9.mlp.down_proj.weight"] = FIRST
    else:
        data["weight_map"][NORM] = FIRST
    index.write_text(json.dumps(data))
    weights = dict(load(str(folder), device="cpu", dtype="float32").parameters())
    assert torch.equal(weights[NORM], wanted)
    with pytest.raises(CheckpointError, match=wrong):
        Checkpoint.open(folder)


@pytest.mark.parametrize("odd", ["name", "key"])
def test_a_header_that_safetensors_takes_loads(tmp_path: Path, odd: str) -> None:
    folder = pico("llama", tmp_path / "m")
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if odd == "name":
        end = max(value["data_offsets"][1] for name, value in header.items() if name != "__metadata__")
        header["a\u00a0b"] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    else:
        header[NORM]["note"] = 1
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    assert load(str(folder), device="cpu").num_layers == 4
    with pytest.raises(CheckpointError):
        Checkpoint.open(folder)


def with_head(folder: Path, head: torch.Tensor, **more: torch.Tensor) -> Path:
    """Writes a head, and other tensors, beside what the model stores."""
    file = folder / "model.safetensors"
    save_file({**load_file(file), "lm_head.weight": head, **more}, file, metadata={"format": "pt"})
    return folder


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
    words = load_file(folder / "model.safetensors")[words_of(family)]
    shutil.copytree(folder, tmp_path / "same")
    assert outcomes(with_head(tmp_path / "same", words)) == {""}
    with_head(folder, words + 1)
    if not says:
        assert outcomes(folder) == {""}
        return
    with pytest.raises(ModelError, match=says) as caught:
        load(str(folder), device="cpu")
    assert "--local-dir" in caught.value.hint


def test_a_head_in_another_type_than_the_embeddings(tmp_path: Path) -> None:
    folder, words = pico("llama", tmp_path / "m", tied=True), words_of("llama")
    stored = load_file(folder / "model.safetensors")[words].bfloat16()
    with_head(folder, stored.float(), **{words: stored})
    em = load(str(folder), device="cpu", dtype="float32")
    assert torch.equal(em.model.get_parameter("lm_head.weight"), stored.float())
    with_head(folder, stored.float() + 2**-20, **{words: stored})
    with pytest.raises(ModelError, match="other values"):
        load(str(folder), device="cpu", dtype="float32")


def test_a_head_with_other_values_is_carried_through_merge_and_revert(tmp_path: Path) -> None:
    """No patch changes it, and a model that was merged before stays one that can be reverted."""
    folder = pico("llama", tmp_path / "m", tied=True)
    file = folder / "model.safetensors"
    with_head(folder, load_file(file)[words_of("llama")] + 1)
    before = load_file(file)
    weight = before[DOWN]
    module = DOWN.removesuffix(".weight")
    factor = LowRank(torch.ones(weight.shape[0], 1), torch.ones(1, weight.shape[1]))
    record = {"base": {"ref": "m", "commit": "", "tensors": {module: tensor_sha256(weight)}}}
    merged = merge([Patch({module: factor}, record, str(folder), "")], local(folder), tmp_path / "out").path
    after = load_file(merged / file.name)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [DOWN]
    revert(merged, base=local(folder))
    assert all(torch.equal(value, before[name]) for name, value in load_file(merged / file.name).items())


def words_of(family: str) -> str:
    return "model.embed_tokens.weight" if family == "llama" else "transformer.wte.weight"
