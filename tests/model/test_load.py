"""Loading models, and the one line that says why one cannot be loaded."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from hubedit.errors import ConfigError, HubEditError, ModelError
from hubedit.model.fetch import is_path
from hubedit.model.load import cpu_dtype, load
from tests.pico import pico

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Folder = Callable[..., Path]


@pytest.fixture
def folder(pico_path: Folder, tmp_path: Path) -> Path:
    """A copy of a tiny model, to be damaged."""
    return Path(shutil.copytree(pico_path("llama"), tmp_path / "model"))


def refused(ref: object, says: str, kind: type[HubEditError] = ModelError, **options: Any) -> HubEditError:
    with pytest.raises(kind, match=says) as caught:
        load(str(ref), **{"device": "cpu", **options})
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("modules", [("q_proj", "v_proj"), ("o_proj", "down_proj"), ()])
def test_an_adapter_beside_the_model_is_refused(folder: Path, modules: tuple[str, ...]) -> None:
    """transformers would apply it, and the model that is edited would not be the one that was named."""
    config = {"peft_type": "LORA", "base_model_name_or_path": "x", "target_modules": list(modules), "r": 1}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    kinds = {"self_attn": ("q_proj", "v_proj", "o_proj"), "mlp": ("down_proj",)}
    weights = load_file(folder / "model.safetensors")
    adapter = {}
    for part, names in kinds.items():
        for name in set(names) & set(modules):
            module = f"model.layers.0.{part}.{name}"
            rows, columns = weights[f"{module}.weight"].shape
            adapter[f"base_model.model.{module}.lora_A.weight"] = torch.ones(1, columns)
            adapter[f"base_model.model.{module}.lora_B.weight"] = torch.ones(rows, 1)
    if adapter:
        save_file(adapter, folder / "adapter_model.safetensors")
    error = refused(folder, "also holds a LoRA adapter, which loaders would apply as well")
    assert "--exclude" in error.hint


ELSEWHERE = ["../secret.safetensors", "/x.safetensors", "a/b.safetensors", "config.json", ".x.safetensors", 3]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_index_names_no_files_elsewhere(folder: Path, name: object) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "names no files beside it")


def test_a_loaded_model_is_ready_to_be_edited(pico_path: Folder) -> None:
    em = load(str(pico_path("llama")), device="cpu")
    assert not em.model.training
    assert not any(p.requires_grad for p in em.model.parameters())
    assert (em.ref, em.commit, em.path) == (str(pico_path("llama")), "", pico_path("llama"))
    assert em.dtype == torch.float32
    assert em.device == torch.device("cpu")
    assert not em.has_bos
    assert em.max_positions == 256
    assert load(str(pico_path("mistral", "metaspace_bos"))).has_bos


def test_half_precision_is_computed_in_single_on_a_cpu(tmp_path: Path) -> None:
    assert cpu_dtype("torch.bfloat16", fast=lambda: True) == "bfloat16"
    assert cpu_dtype("torch.bfloat16", fast=lambda: False) == "float32"
    assert cpu_dtype("float16") == cpu_dtype(None) == "float32"
    path = str(pico("llama", tmp_path, dtype=torch.bfloat16))
    assert load(path, device="cpu").dtype in (torch.float32, torch.bfloat16)
    assert load(path, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_gemma_2_needs_eager_attention(pico_path: Folder) -> None:
    assert load(str(pico_path("gemma2"))).model.config._attn_implementation == "eager"
    assert load(str(pico_path("llama"))).model.config._attn_implementation == "sdpa"


def test_identity_follows_the_files_contents(folder: Path, pico_path: Folder) -> None:
    first = load(str(folder)).identity
    assert first == load(str(pico_path("llama"))).identity
    assert len(first) == 64
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(str(folder)).identity != first


def test_transformers_own_settings_come_back(pico_path: Folder) -> None:
    settings: Any = logging
    before = settings.get_verbosity(), settings.is_progress_bar_enabled()
    load(str(pico_path("llama")))
    assert (settings.get_verbosity(), settings.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "xla:0"])
def test_a_device_that_is_not_there(device: str, pico_path: Folder) -> None:
    refused(pico_path("llama"), "device", ConfigError, device=device)


def test_an_unknown_dtype(pico_path: Folder) -> None:
    refused(pico_path("llama"), "dtype", ConfigError, dtype="int8")


def test_what_is_never_sent_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the Hub"))
    monkeypatch.chdir(tmp_path)
    for ref in ("./model", "../model", "/no/such", "~/no-such-model", "a/b/c", "C:\\models", "."):
        assert is_path(ref)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert is_path("owner/name")
    assert not is_path("owner/other")
    refused("./model", "no such folder")
    refused("a/b/c", "no such folder")
    refused("owner/name", "no config.json")
    refused("", "no model was named")


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    refused(folder / "config.json", "is a file, not a folder")


def test_an_adapter_instead_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    assert "owner/base" in refused(tmp_path, "PEFT adapter").hint


def test_pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "only pickle weights")


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "no safetensors weights")


def test_a_shard_that_is_not_there(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "lacks the weight file model-00001-of-00002.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 2000])
def test_damaged_weights(keep: int, folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    refused(folder, "cannot read .*model.safetensors")


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "lacks 1 weights, the first is model.layers.1.mlp.down_proj.weight")


def test_weights_of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    refused(folder, "cannot load")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_damaged_json(name: str, folder: Path) -> None:
    (folder / name).write_text("{")
    refused(folder, f"{name} is not valid JSON")


def test_weights_that_are_no_numbers(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    refused(folder, f"{name} holds NaN or infinity")


def test_a_type_too_narrow_for_the_model(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1e30
    save_file(tensors, file, {"format": "pt"})
    assert load(str(folder), dtype="float32").num_layers == 4
    with pytest.raises(ModelError, match="NaN or infinity"):
        load(str(folder), dtype="float16")


def test_no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, "no tokenizer")


def test_a_tokenizer_without_offsets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda *a, **k: type("Slow", (), {"is_fast": False})()
    )
    refused(folder, "no character offsets")


def test_a_family_that_is_not_supported(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "mixtral", "num_local_experts": 8})
    )
    refused(folder, "mixture of experts")


def test_a_merged_model_with_an_adapter_beside_it_loads(folder: Path) -> None:
    (folder / "patches" / "1").mkdir(parents=True)
    (folder / "patches" / "1" / "adapter_config.json").write_text("{}")
    assert load(str(folder)).num_layers == 4


def _http_error(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    client: Any = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__.split(".")[0])
    response = client.Response(status, request=client.Request("GET", "http://127.0.0.1"))
    return kind("first line\nsecond line", response=response)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (lambda: _http_error(errors.RepositoryNotFoundError, 404), "no repository owner/name"),
        (lambda: _http_error(errors.GatedRepoError, 403), "owner/name is gated"),
        (lambda: _http_error(errors.RevisionNotFoundError, 404), "no revision 'v9'"),
        (lambda: _http_error(errors.RemoteEntryNotFoundError, 404), "no file that is needed"),
        (lambda: _http_error(errors.HfHubHTTPError, 503), "cannot download owner/name: first line"),
        (lambda: errors.LocalEntryNotFoundError("not cached"), "cannot reach"),
        (lambda: OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_what_the_hub_answers(
    error: Callable[[], Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise error()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    refused("owner/name@v9", says)


def test_a_name_without_an_owner_is_most_likely_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise errors.LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    refused("nosuchmodel", "there is no folder nosuchmodel here, and http")


def test_not_a_repository_name() -> None:
    refused("owner/na me", "not a repository name")


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_offline_and_not_cached(offline_cache: Path) -> None:
    refused("owner/name", "not in the local cache, and HF_HUB_OFFLINE is set")


def test_offline_and_cached_is_pinned_to_the_commit(offline_cache: Path, pico_path: Folder) -> None:
    repository = offline_cache / "models--owner--name"
    shutil.copytree(pico_path("llama"), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for ref in ("owner/name", "owner/name@main", f"owner/name@{COMMIT}"):
        em = load(ref, device="cpu")
        assert (em.ref, em.commit, em.identity) == ("owner/name", COMMIT, COMMIT)
        assert em.path == repository / "snapshots" / COMMIT
