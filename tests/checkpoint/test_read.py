"""Checkpoints are read exactly, and whatever lies about itself is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError
from hubedit.model.fetch import weight_files
from hubedit.weights.header import read_header
from tests.checkpoint.tiny import MODULES, local, tiny

SHARD = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_every_tensor_is_read_as_safetensors_reads_it(tmp_path: Path, shards: int) -> None:
    folder = tiny(tmp_path / "m", shards=shards)
    checkpoint = Checkpoint.open(folder)
    expected = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
    assert set(checkpoint.tensors) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.read(name), tensor) and checkpoint.read(name).dtype == tensor.dtype
        raw = tensor.flatten().view(torch.uint8).numpy().tobytes()
        assert checkpoint.sha256(name) == hashlib.sha256(raw).hexdigest()
        entry = checkpoint.entry(name)
        assert entry.file.read_bytes()[entry.start : entry.end] == raw
    assert checkpoint.config["model_type"] == "llama"
    with pytest.raises(CheckpointError, match="has no tensor nothing"):
        checkpoint.read("nothing")


def test_every_dtype_of_torch_is_read(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "m", shards=1)
    names = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 float8_e4m3fn float8_e5m2"
    tensors = {name: torch.zeros(2, 3).to(getattr(torch, name)) for name in names.split()}
    tensors |= {"empty": torch.empty(0, 4), "scalar": torch.tensor(2.5)}
    save_file(tensors, folder / "model.safetensors")
    checkpoint = Checkpoint.open(folder)
    for name, tensor in tensors.items():
        read = checkpoint.read(name)
        assert read.dtype == tensor.dtype and read.shape == tensor.shape
        assert torch.equal(read.double(), tensor.double())


# --- files that lie --------------------------------------------------------------------------------------


def rewrite(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the header of a safetensors file, not its tensors."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def first(header: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(value for name, value in header.items() if name != "__metadata__")
    return found


def head(file: Path, data: bytes) -> None:
    file.write_bytes(data)


LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda f: head(f, b""), "cut short"),
    "seven bytes": (lambda f: head(f, b"1234567"), "cut short"),
    "long header": (lambda f: head(f, struct.pack("<Q", 1 << 62) + b"{}"), "cut short"),
    "truncated": (lambda f: head(f, f.read_bytes()[:-1]), "tensors end at"),
    "longer": (lambda f: head(f, f.read_bytes() + b"x"), "tensors end at"),
    "no json": (lambda f: head(f, struct.pack("<Q", 4) + b"{{{{"), "not JSON"),
    "no text": (lambda f: head(f, struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe"), "not JSON"),
    "deep": (lambda f: head(f, struct.pack("<Q", 200_000) + b"[" * 200_000), "not JSON"),
    "no object": (lambda f: head(f, struct.pack("<Q", 2) + b"[]"), "no JSON object"),
    "twice": (lambda f: head(f, struct.pack("<Q", 15) + b'{"a":{},"a":{}}'), "twice"),
    "surrogate": (lambda f: head(f, struct.pack("<Q", 13) + b'{"\\ud800":{}}'), "is called"),
    "metadata": (lambda f: rewrite(f, lambda h: h.update(__metadata__={"a": 1})), "table of strings"),
    "no table": (lambda f: rewrite(f, lambda h: h.update(x=[])), "not described"),
    "more keys": (lambda f: rewrite(f, lambda h: first(h).update(y=1)), "not described"),
    "dtype": (lambda f: rewrite(f, lambda h: first(h).update(dtype="F7")), "unknown dtype"),
    "dtype list": (lambda f: rewrite(f, lambda h: first(h).update(dtype=[])), "unknown dtype"),
    "shape": (lambda f: rewrite(f, lambda h: first(h).update(shape=[-1, -21])), "has no shape"),
    "huge shape": (lambda f: rewrite(f, lambda h: first(h).update(shape=[1 << 62] * 3)), "another size"),
    "offsets": (lambda f: rewrite(f, lambda h: first(h)["data_offsets"].reverse()), "has no place"),
    "float": (lambda f: rewrite(f, lambda h: first(h).update(data_offsets=[0.0, 42.0])), "has no place"),
    "size": (lambda f: rewrite(f, lambda h: first(h).update(shape=[3])), "another size"),
    "gap": (lambda f: rewrite(f, lambda h: h.pop(next(k for k in h if k != "__metadata__"))), "gap|end at"),
    "beyond": (lambda f: rewrite(f, lambda h: first(h).update(shape=[9**9], data_offsets=[0, 18**9])), "."),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    folder = tiny(tmp_path / "m")
    damage, message = LIES[lie]
    damage(folder / SHARD)
    with pytest.raises(CheckpointError, match=message) as raised:
        Checkpoint.open(folder)
    assert SHARD in raised.value.message and "\n" not in raised.value.message


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(4), "b": torch.ones(4), "c": torch.ones(4)}, file)
    rewrite(file, lambda h: h["b"].update(data_offsets=[8, 24]))
    with pytest.raises(CheckpointError, match="overlaps"):
        read_header(file)


def index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / INDEX).read_text())
    change(data)
    (folder / INDEX).write_text(json.dumps(data))


def moved(folder: Path, name: str) -> None:
    index(folder, lambda d: d["weight_map"].update({f"{MODULES[0]}.weight": name}))


INDEXES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (lambda p: (p / SHARD).unlink(), "lacks the shard"),
    "outside": (lambda p: moved(p, "../secret.safetensors"), "no file beside it"),
    "absolute": (lambda p: moved(p, "/etc/passwd.safetensors"), "no file beside it"),
    "folder": (lambda p: moved(p, "sub/x.safetensors"), "no file beside it"),
    "backslash": (lambda p: moved(p, "..\\x.safetensors"), "no file beside it"),
    "nul": (lambda p: moved(p, "a\0.safetensors"), "no file beside it"),
    "other kind": (lambda p: moved(p, "config.json"), "no file beside it"),
    "long": (lambda p: moved(p, "x" * 5000 + ".safetensors"), "lacks the shard"),
    "wrong shard": (lambda p: moved(p, "model-00002-of-00002.safetensors"), "index says otherwise"),
    "unknown tensor": (lambda p: index(p, lambda d: d["weight_map"].update(ghost=SHARD)), "ghost of"),
    "no map": (lambda p: index(p, lambda d: d.update(weight_map=[])), "no weight_map"),
    "numbers": (lambda p: index(p, lambda d: d["weight_map"].update(a=1)), "no weight_map"),
    "no json": (lambda p: (p / INDEX).write_text("{"), "not JSON"),
    "no config": (lambda p: (p / "config.json").unlink(), "config.json is missing"),
    "no weights": (lambda p: (p / INDEX).unlink(), "no safetensors weights"),
}  # fmt: skip


@pytest.mark.parametrize("damage", INDEXES)
def test_an_index_that_lies_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tiny(tmp_path / "m")
    save_file({f"{MODULES[0]}.weight": torch.ones(1)}, tmp_path / "secret.safetensors")
    change, message = INDEXES[damage]
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folder)


# --- from modules to tensors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "tensor"),
    [
        ("model.layers.0.mlp.down_proj", "model.layers.0.mlp.down_proj"),
        ("transformer.h.3.mlp.c_proj", "h.3.mlp.c_proj"),
        ("model.layers.1.mlp.down_proj", "language_model.model.layers.1.mlp.down_proj"),
        ("model.layers.1.mlp.down_proj", "model.language_model.layers.1.mlp.down_proj"),
        ("gpt_neox.layers.1.attention.dense", "layers.1.attention.dense"),
        ("lm_head", "language_model.lm_head"),
    ],
)
def test_a_module_is_found_under_other_prefixes(tmp_path: Path, module: str, tensor: str) -> None:
    folder = tiny(tmp_path / "m", shards=1)
    others = {f"{tensor.replace('1', '11').replace('3', '13').replace('0', '10')}x.weight": torch.ones(2, 3)}
    save_file({f"{tensor}.weight": torch.ones(2, 3), **others}, folder / "model.safetensors")
    assert Checkpoint.open(folder).module_tensor(module, (2, 3)) == f"{tensor}.weight"
    assert Checkpoint.open(folder).module_tensor(module, (3, 2), fan_in_fan_out=True) == f"{tensor}.weight"
    with pytest.raises(CheckpointError, match="is 2 x 3, but the patch needs 3 x 2"):
        Checkpoint.open(folder).module_tensor(module, (3, 2))
    with pytest.raises(CheckpointError, match="has no tensor for module"):
        Checkpoint.open(folder).module_tensor("model.layers.7.mlp.down_proj", (2, 3))


def test_what_could_be_two_tensors_is_refused_unless_one_has_the_shape(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "m", shards=1)
    name = "model.layers.0.mlp.down_proj"
    file = folder / "model.safetensors"
    one, other = f"language_model.{name}.weight", f"model.language_model.{name}.weight"
    two = {one: torch.ones(2, 3), other: torch.ones(2, 3)}
    save_file(two, file)
    with pytest.raises(CheckpointError, match=r"could be language_model.* or model.language_model"):
        Checkpoint.open(folder).module_tensor(name, (2, 3))
    save_file({**two, other: torch.ones(4, 3)}, file)
    assert Checkpoint.open(folder).module_tensor(name, (2, 3)) == one
    save_file({**two, f"{name}.weight": torch.ones(2, 3)}, file)
    assert Checkpoint.open(folder).module_tensor(name, (2, 3)) == f"{name}.weight"


def test_a_single_file_comes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    both = tiny(tmp_path / "both")
    shutil.copy(tiny(tmp_path / "one", shards=1, seed=4) / "model.safetensors", both)
    assert list(Checkpoint.open(both).headers) == ["model.safetensors"]
    assert weight_files(local(both)) == (both / "model.safetensors",)
    (both / "model.safetensors").unlink()
    assert [file.name for file in weight_files(local(both))] == list(Checkpoint.open(both).headers)
