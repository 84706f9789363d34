"""Names mean one tensor: what is called alike in another part of a model is never changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.checkpoint.extract import extract
from hubedit.checkpoint.fit import fit
from hubedit.checkpoint.merge import MergeOptions, merge
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError
from hubedit.linalg import LowRank
from hubedit.model.families import FAMILIES
from hubedit.model.tensor_names import is_buffer, same_part
from hubedit.patch import Patch
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny

DOWN = MODULES[1]
HEAD, EMBEDDINGS = "lm_head", "model.embed_tokens"


def alone(module: str, shape: tuple[int, int] = (6, 10)) -> Patch:
    """A patch of one module, as an adapter of another tool becomes one."""
    factor = LowRank(torch.ones(shape[0], 1), torch.ones(1, shape[1]))
    return Patch({module: factor}, {"foreign": {"r": 1}}, "someone/base")


def with_tensors(folder: Path, more: Mapping[str, torch.Tensor], config: str = "") -> Path:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})
    if config:
        (folder / "config.json").write_text(config)
    return folder


@pytest.mark.parametrize(
    "prefix", ["mtp.", "model.mtp.", "draft_model.", "vision_tower.", "model.audio_tower.", "text.", "other."]
)
def test_another_part_of_the_model_is_refused_by_name(tmp_path: Path, prefix: str) -> None:
    base = tiny(tmp_path / "m", shards=1)
    stranger = prefix + DOWN.removeprefix("model.")
    before = content(base)
    with pytest.raises(CheckpointError, match=f"module {stranger}; {DOWN}.weight is of another"):
        merge([alone(stranger)], local(base), tmp_path / "out")
    assert content(base) == before and not (tmp_path / "out").exists()
    assert stranger in fit(alone(stranger), local(base)).problems[0]
    # and where the model has that part, its own tensor is the one that changes
    with_tensors(base, {f"{stranger}.weight": torch.ones(6, 10)})
    done = merge([alone(stranger)], local(base), tmp_path / "out")
    assert set(done.record.tensors) == {f"{stranger}.weight"}
    new = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(new[f"{stranger}.weight"], torch.full((6, 10), 2.0))
    assert torch.equal(new[f"{DOWN}.weight"], load_file(base / "model.safetensors")[f"{DOWN}.weight"])


def test_what_means_one_part() -> None:
    assert same_part("model.language_model.layers.0.x") == same_part("language_model.model.layers.0.x")
    assert same_part("embed_out.weight") == same_part("language_model.lm_head.weight")
    assert same_part("lm_head_norm") != same_part("lm_head") and same_part("mtp.lm_head") != "lm_head"


@pytest.mark.parametrize("module", [HEAD, "language_model.lm_head"])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        '{"model_type": "llama", "tie_word_embeddings": true}',
        '{"model_type": "gemma2"}',
        '{"model_type": "unknown", "text_config": {"tie_word_embeddings": true}}',
    ],
)
def test_a_tied_head_is_never_changed(tmp_path: Path, module: str, stored: bool, config: str) -> None:
    base = tiny(tmp_path / "m", shards=1)
    words = load_file(base / "model.safetensors")[f"{EMBEDDINGS}.weight"]
    with_tensors(base, {"lm_head.weight": words.clone()} if stored else {}, config)
    with pytest.raises(CheckpointError, match="tied to the embeddings") as raised:
        merge([alone(module, (7, 3))], local(base), tmp_path / "out")
    assert "PEFT" in raised.value.hint and not (tmp_path / "out").exists()
    assert "tied" in fit(alone(module, (7, 3)), local(base)).problems[0]


def test_a_head_of_its_own_is_changed(tmp_path: Path) -> None:
    config = '{"model_type": "llama", "tie_word_embeddings": false}'
    base = with_tensors(tiny(tmp_path / "m", shards=1), {"lm_head.weight": torch.ones(7, 3)}, config)
    done = merge([alone(HEAD, (7, 3))], local(base), tmp_path / "out")
    assert set(done.record.tensors) == {"lm_head.weight"}


@pytest.mark.parametrize("module", [EMBEDDINGS, "transformer.wte", "gpt_neox.embed_in"])
def test_embeddings_take_no_plain_factors(tmp_path: Path, module: str) -> None:
    base = with_tensors(tiny(tmp_path / "m", shards=1), {f"{module}.weight": torch.ones(7, 3)})
    with pytest.raises(CheckpointError, match="table of embeddings"):
        merge([alone(module, (7, 3))], local(base), tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "transformer.h.0.attn.bias",
        "h.3.attn.masked_bias",
        "gpt_neox.layers.0.attention.bias",
        "gpt_neox.layers.0.attention.masked_bias",
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.1.self_attn.rotary_emb.cos_cached",
    ],
)
def test_buffers_are_left_as_they_are(tmp_path: Path, name: str) -> None:
    buffer = torch.tensor([-1e9, 0.1])
    base = with_tensors(tiny(tmp_path / "m", torch.float32, shards=1), {name: buffer})
    done = merge([patch(base)], local(base), tmp_path / "out", MergeOptions(dtype="float16"))
    new = load_file(done.path / "model.safetensors")
    assert new[name].dtype == torch.float32 and torch.equal(new[name], buffer)
    assert {t.dtype for n, t in new.items() if n != name} == {torch.float16}


def test_weights_that_sound_like_buffers_are_converted() -> None:
    names = ["h.0.attn.c_proj.bias", "layers.0.attention.dense.bias", "layers.0.self_attn.q_proj.bias"]
    assert not any(is_buffer(name) for name in names)


def test_empty_weights_are_told_as_what_they_are(tmp_path: Path) -> None:
    base = with_tensors(tiny(tmp_path / "m", shards=1), {f"{DOWN}.weight": torch.empty(0)})
    with pytest.raises(CheckpointError, match="is empty") as raised:
        merge([alone(DOWN)], local(base), tmp_path / "out")
    assert "ZeRO-3" in raised.value.hint


@pytest.mark.parametrize("command", ["merge", "extract", "fit"])
def test_an_adapter_beside_the_model_is_refused(tmp_path: Path, command: str) -> None:
    base, other = tiny(tmp_path / "m"), tiny(tmp_path / "n", seed=1)
    made = patch(base)
    (base / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    calls: dict[str, Callable[[], object]] = {
        "merge": lambda: merge([made], local(base), tmp_path / "out"),
        "extract": lambda: extract(local(base), local(other)),
        "fit": lambda: fit(made, local(base)),
    }
    with pytest.raises(CheckpointError, match="also holds a LoRA adapter") as raised:
        calls[command]()
    assert "--exclude" in raised.value.hint


# --- a tensor in two shards ------------------------------------------------------------------------------

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def repeated(folder: Path, tensor: str, *, changed: bool = False) -> tuple[str, str]:
    """Copies a tensor into the other shard; (the file that the index names, the other)."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    own = index[tensor]
    other = SECOND if own == FIRST else FIRST
    value = load_file(folder / own)[tensor]
    copy = value + 1 if changed else value
    save_file({**load_file(folder / other), tensor: copy}, folder / other, metadata={"format": "pt"})
    return own, other


@pytest.mark.parametrize("tensor", [f"{DOWN}.weight", f"{MODULES[0]}.weight", "model.norm.weight"])
def test_of_two_equal_copies_the_index_names_the_one(tmp_path: Path, tensor: str) -> None:
    base = tiny(tmp_path / "m")
    one = patch(base)
    plain = merge([one], local(base), tmp_path / "plain")
    own, _ = repeated(base, tensor)
    assert Checkpoint.open(base).entry(tensor).file.name == own
    done = merge([one], local(base), tmp_path / "out")
    assert any(tensor in line and own in line for line in done.warnings)
    # the new folder holds every tensor once, each as without the copy
    wanted = {n: t for f in plain.path.glob("*.safetensors") for n, t in load_file(f).items()}
    found = [(n, t) for f in sorted(done.path.glob("*.safetensors")) for n, t in load_file(f).items()]
    assert sorted(n for n, _ in found) == sorted(wanted)
    assert all(torch.equal(t, wanted[n]) for n, t in found)


def test_copies_that_differ_are_refused_where_readers_disagree(tmp_path: Path) -> None:
    early, late = tiny(tmp_path / "early"), tiny(tmp_path / "late")
    tensors = Checkpoint.open(early).tensors
    first = next(name for name, entry in tensors.items() if entry.file.name == FIRST)
    last = next(name for name, entry in tensors.items() if entry.file.name == SECOND)
    repeated(early, first, changed=True)
    with pytest.raises(CheckpointError, match="other values"):
        Checkpoint.open(early)
    # the index names the last file, which is also the one that counts for those who read all files in order
    repeated(late, last, changed=True)
    assert Checkpoint.open(late).entry(last).file.name == SECOND


def test_a_family_knows_whether_its_head_is_tied() -> None:
    tied = {name for name, family in FAMILIES.items() if family.tied}
    assert tied == {"gemma2", "gemma3", "gemma3_text", "gpt2", "mistral3", "smollm3"}
