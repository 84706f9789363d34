"""The patch through the loaders that people use: the logits are those of the edit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import AutoPeftModelForCausalLM, PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.patch import Patch, base_record
from tests.pico import FAMILIES

Pico = Callable[..., Path]
SITES = (Site(0, "attention"), Site(1, "mlp"), Site(2, "attention"), Site(3, "mlp"))
Editable = Callable[..., EditableModel]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


def patch_for(em: EditableModel) -> Patch:
    """Random factors of differing ranks, as large as the weights themselves."""
    factors = {}
    for number, site in enumerate(SITES):
        weight = em.weight(site).float()
        factor = LowRank(torch.randn(weight.shape[0], number + 1), torch.randn(number + 1, weight.shape[1]))
        factors[em.module_name(site)] = factor * (float(weight.norm()) / factor.norm())
    record = {"base": base_record(em, SITES)}
    return Patch(factors, record, str(em.path), em.commit, (), em.family.conv1d)


@contextmanager
def no_warning(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """Fails when a loader says that keys were missing, unexpected or unknown."""
    recwarn.clear()
    yield
    said = [str(w.message) for w in recwarn if "key" in str(w.message).lower() or "fan_in" in str(w.message)]
    assert not said


@pytest.mark.parametrize("family", FAMILIES)
def test_every_loader_gives_the_logits_of_the_edit_in_memory(
    editable: Editable, tmp_path: Path, family: str, recwarn: pytest.WarningsRecorder
) -> None:
    em = editable(family)
    path = patch_for(em).save(tmp_path / "patch")
    patch = Patch.load(path)
    patch.fits(em)
    ids = torch.randint(5, em.vocabulary - 1, (2, 9))
    with torch.no_grad():
        plain = em.model(input_ids=ids).logits
        with em.with_patch(patch).active() as edited:
            wanted = edited(input_ids=ids).logits
    assert float((wanted - plain).abs().max()) > 0.1

    def base() -> torch.nn.Module:
        model: torch.nn.Module = getattr(transformers, em.family.loader).from_pretrained(
            em.path, dtype=torch.float32, attn_implementation=em.family.attention
        )
        return model.eval()

    def same(model: torch.nn.Module) -> None:
        with torch.no_grad():
            logits: Tensor = model.eval()(input_ids=ids).logits
        assert float((logits - wanted).abs().max()) < 1e-4

    with no_warning(recwarn):
        same(PeftModel.from_pretrained(base(), str(path)))
    if em.family.loader == "AutoModelForCausalLM":  # PEFT has no such class for the others
        with no_warning(recwarn):
            same(
                AutoPeftModelForCausalLM.from_pretrained(
                    str(path), dtype=torch.float32, attn_implementation=em.family.attention
                )
            )
    with no_warning(recwarn):
        model: Any = base()
        model.load_adapter(str(path))
        same(model)


def test_merging_into_the_weights_gives_the_same_model(editable: Editable, tmp_path: Path) -> None:
    em = editable("gpt2")
    path = patch_for(em).save(tmp_path / "patch")
    ids = torch.randint(5, em.model.config.vocab_size, (1, 7))
    with torch.no_grad(), em.with_patch(Patch.load(path)).active() as edited:
        wanted = edited(input_ids=ids).logits
    base = AutoModelForCausalLM.from_pretrained(em.path, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(path)).merge_and_unload()
    with torch.no_grad():
        assert float((merged.eval()(input_ids=ids).logits - wanted).abs().max()) < 1e-4


def test_a_base_with_layers_on_the_disk(
    editable: Editable, pico_path: Pico, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT is to be told again where the layers are, under the names that they have inside it."""
    monkeypatch.chdir(tmp_path)  # PEFT writes the adapted layers below the working directory
    em = editable("llama")
    path = patch_for(em).save(tmp_path / "patch")
    ids = torch.randint(5, em.model.config.vocab_size, (2, 9))
    with torch.no_grad(), em.with_patch(Patch.load(path)).active() as edited:
        wanted = edited(input_ids=ids).logits
    parts = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
    where: dict[str, str] = dict.fromkeys(parts, "cpu")
    where |= {f"model.layers.{layer}": "cpu" if layer < 2 else "disk" for layer in range(em.num_layers)}
    auto: Any = AutoModelForCausalLM
    base = auto.from_pretrained(
        pico_path("llama"), dtype=torch.float32, device_map=where, offload_folder=tmp_path / "base"
    )
    assert any(p.device.type == "meta" for p in base.parameters())
    inside = {f"base_model.model.{name}": place for name, place in where.items()}
    peft: Any = PeftModel
    model = peft.from_pretrained(base, str(path), device_map=inside, offload_dir=str(tmp_path / "patched"))
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, wanted, rtol=1e-3, atol=1e-3)
