"""Extracting: the patch turns the base into the edited model, as PEFT loads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file

from hubedit.checkpoint.diff import diff_checkpoints
from hubedit.checkpoint.extract import extract
from hubedit.checkpoint.fit import fit
from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError, ConfigError, ModelError
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import find
from hubedit.model.sites import Site
from hubedit.patch import Patch, base_record
from tests.pico import FAMILIES, pico

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
Editable = Callable[..., EditableModel]
Pico = Callable[..., Path]
SITES = (Site(0, "attention"), Site(1, "mlp"), Site(3, "mlp"))
Q = "model.layers.0.self_attn.q_proj.weight"


def patch_for(em: EditableModel, size: float = 0.3) -> Patch:
    factors = {}
    for number, site in enumerate(SITES):
        weight = em.weight(site).float()
        factor = LowRank(torch.randn(weight.shape[0], number + 1), torch.randn(number + 1, weight.shape[1]))
        factors[em.module_name(site)] = factor * (size * float(weight.norm()) / factor.norm())
    record = {"base": base_record(em, SITES)}
    return Patch(factors, record, str(em.path), em.commit, (), em.family.conv1d)


def edited(path: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of a model with other tensors."""
    shutil.copytree(path, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file({n: t.contiguous() for n, t in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_patch_comes_back(editable: Editable, tmp_path: Path, family: str) -> None:
    em = editable(family)
    patch = patch_for(em)
    base = find(str(em.path))
    merge([patch], base, tmp_path / "merged")
    found = extract(base, find(str(tmp_path / "merged")))
    assert set(found.patch.factors) == set(patch.factors)
    for module, factor in patch.factors.items():
        got = found.patch.factors[module]
        assert got.rank == factor.rank and found.energy[module] > 0.999
        torch.testing.assert_close(got.dense(), factor.dense(), rtol=1e-4, atol=1e-5)
    path = found.patch.save(tmp_path / "patch")
    Patch.load(path).fits(em)
    assert fit(found.patch, base).fits and not fit(found.patch, base).unverified

    ids = torch.randint(5, em.vocabulary - 1, (2, 9))
    auto: Any = getattr(transformers, em.family.loader)
    models: list[Any] = [
        auto.from_pretrained(p, dtype=torch.float32, attn_implementation=em.family.attention)
        for p in (em.path, tmp_path / "merged")
    ]
    with torch.no_grad():
        ours = PeftModel.from_pretrained(models[0], str(path)).eval()(input_ids=ids).logits
        theirs = models[1].eval()(input_ids=ids).logits
    assert float((ours - theirs).abs().max()) < 1e-3


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["llama", "gpt2"]), st.integers(0, 99), st.floats(0.02, 2))
def test_the_change_is_that_of_the_merge_to_rounding(
    editable: Editable, tmp_path: Path, family: str, seed: int, size: float
) -> None:
    em = editable(family)
    torch.manual_seed(seed)
    patch = patch_for(em, size)
    out = tmp_path / f"{family}{seed}{size}"
    base = find(str(em.path))
    if not out.exists():
        merge([patch], base, out)
    for module, factor in extract(base, find(str(out))).patch.factors.items():
        lost = float((factor.dense() - patch.factors[module].dense()).norm())
        assert lost < 1e-5 * (1 + patch.factors[module].norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_is_not_taken_for_the_edit(tmp_path: Path, dtype: torch.dtype) -> None:
    path = pico("llama", tmp_path / "base", dtype=dtype)
    name = "model.layers.2.mlp.down_proj.weight"
    edit = torch.randn(32, 2) @ torch.randn(2, 64) * 0.1

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = (tensors[name].float() + edit).to(dtype)

    found = extract(find(str(path)), find(str(edited(path, tmp_path / "edited", change))))
    (factor,) = found.patch.factors.values()
    assert factor.rank == 2 and found.energy[name.removesuffix(".weight")] > 0.99
    assert float((factor.dense() - edit).norm() / edit.norm()) < 0.02


def test_any_linear_weight_and_a_given_rank(pico_path: Pico, tmp_path: Path) -> None:
    path = pico_path("llama")
    delta = torch.randn(32, 32)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[Q] = tensors[Q] + delta

    other = edited(path, tmp_path / "edited", change)
    whole = extract(find(str(path)), find(str(other)))
    module = Q.removesuffix(".weight")
    values = torch.linalg.svdvals(delta.double()) ** 2
    share = values.cumsum(0) / values.sum()
    assert whole.patch.factors[module].rank == int((share < 0.999).sum()) + 1
    cut = extract(find(str(path)), find(str(other)), rank=4)
    lost = (cut.patch.factors[module].dense() - delta).double().norm()
    assert float(lost) == pytest.approx(float(values[4:].sum().sqrt()), rel=1e-4)  # Eckart-Young
    assert cut.energy[module] == pytest.approx(float(share[3]), abs=1e-5)
    assert cut.patch.record["extracted"]["energy"] == dict(cut.energy)
    for model in (path, other):
        assert str(model.parent) not in json.dumps(cut.patch.full_record())


def test_what_no_adapter_can_hold_is_refused_or_listed(pico_path: Pico, tmp_path: Path) -> None:
    path = pico_path("llama")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("model.norm.weight", "model.embed_tokens.weight", Q):
            tensors[name] = tensors[name] * 2

    base, other = find(str(path)), find(str(edited(path, tmp_path / "edited", change)))
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens\.weight, model\.norm\.weight") as raised:
        extract(base, other)
    assert "--partial" in raised.value.hint
    found = extract(base, other, partial=True)
    assert set(found.left_out) == {"model.norm.weight", "model.embed_tokens.weight"}
    assert set(found.patch.factors) == {Q.removesuffix(".weight")}


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_can_be_edited_a_tied_one_not(tmp_path: Path, tied: bool) -> None:
    path = pico("llama", tmp_path / "base", tied=tied)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.embed_tokens.weight" if tied else "lm_head.weight"
        tensors[name] = tensors[name] + torch.outer(torch.randn(len(tensors[name])), torch.randn(32))

    base, other = find(str(path)), find(str(edited(path, tmp_path / "edited", change)))
    if tied:
        with pytest.raises(CheckpointError, match="no linear weights"):
            extract(base, other)
        with pytest.raises(CheckpointError, match="no linear weight differs"):
            extract(base, other, partial=True)
    else:
        assert extract(base, other).patch.factors["lm_head"].rank == 1


@pytest.mark.parametrize("swapped", [False, True])
def test_a_head_that_was_untied_is_no_silent_loss(tmp_path: Path, swapped: bool) -> None:
    path = pico("llama", tmp_path / "base", tied=True)
    embeddings = load_file(path / "model.safetensors")["model.embed_tokens.weight"]
    heads = {"copy": embeddings.clone(), "own": embeddings + 1}

    def found(name: str, partial: bool) -> Any:
        out = tmp_path / f"{name}{partial}"

        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors[Q] = tensors[Q] * 2
            tensors["lm_head.weight"] = heads[name]

        edited(path, out, change)
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
        pair = [find(str(path)), find(str(out))]
        return extract(*(pair[::-1] if swapped else pair), partial=partial)

    assert not found("copy", False).left_out
    with pytest.raises(CheckpointError, match=r"no linear weights: lm_head\.weight"):
        found("own", False)
    assert found("own", True).left_out == {"lm_head.weight": pytest.approx(embeddings.numel() ** 0.5)}


@pytest.mark.parametrize("more", [2, -3])
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("gpt_neox", False)])
def test_vocabularies_that_differ_in_size(tmp_path: Path, family: str, tied: bool, more: int) -> None:
    path = pico(family, tmp_path / "base", tied=tied)
    stored = load_file(path / "model.safetensors")
    rows = {name for name, t in stored.items() if len(t) > 400}
    ends = ("2.mlp.down_proj.weight", "2.attention.dense.weight")
    weight = next(name for name in stored if name.endswith(ends))

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[weight] = tensors[weight] + torch.outer(torch.randn(len(tensors[weight])), tensors[weight][0])
        for name in rows:
            grown = torch.cat([tensors[name], torch.ones(2, tensors[name].shape[1])])
            tensors[name] = grown if more > 0 else tensors[name][:more]

    base, other = find(str(path)), find(str(edited(path, tmp_path / "edited", change)))
    with pytest.raises(CheckpointError, match=r"450 x 32 in the base, 4\d\d x 32 in the edited") as raised:
        extract(base, other)
    assert "--partial" in raised.value.hint and rows
    found = extract(base, other, partial=True)
    assert found.left_out == dict.fromkeys(rows)
    assert set(found.patch.factors) == {weight.removesuffix(".weight")}
    assert json.loads(json.dumps(found.patch.full_record()))["extracted"]["left_out"] == dict.fromkeys(rows)


def test_checkpoints_without_the_root_in_their_names(pico_path: Pico, tmp_path: Path) -> None:
    def bare(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    base = edited(pico_path("gpt2"), tmp_path / "base", bare)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["h.1.attn.c_proj.weight"] += torch.outer(torch.arange(32.0), torch.randn(32))

    other = edited(base, tmp_path / "edited", change)
    patch = extract(find(str(base)), find(str(other))).patch
    (factor,) = patch.factors.values()
    assert set(patch.factors) == {"transformer.h.1.attn.c_proj"} and patch.fan_in_fan_out
    # stored (d_in, d_out): the module's weight has the outer product the other way round
    row = factor.dense()[0]
    torch.testing.assert_close(row / row[1], torch.arange(32.0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "mine", "theirs", "module"),
    [
        ("gpt2", "transformer.", "", "transformer.h.1.mlp.c_proj"),  # the Hub's GPT-2, and one trained on
        ("gpt_neox", "embed_out", "lm_head", "gpt_neox.layers.1.mlp.dense_4h_to_h"),
        ("llama", "model.", "language_model.model.", "model.layers.1.mlp.down_proj"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_other_names_of_the_same_tensors(
    pico_path: Pico, tmp_path: Path, family: str, mine: str, theirs: str, module: str, swapped: bool
) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace(mine, theirs, 1)] = tensors.pop(name)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{module}.weight"] += 0.1 * torch.ones_like(tensors[f"{module}.weight"])

    plain = pico_path(family)
    base = plain if swapped else edited(plain, tmp_path / "base", rename)
    other = edited(plain, tmp_path / "changed", change)
    if swapped:
        other = edited(other, tmp_path / "renamed", rename)
    found = diff_checkpoints(Checkpoint.open(base), Checkpoint.open(other))
    assert not found.only_a and not found.only_b and len(found.changed) == 1
    patch = extract(find(str(base)), find(str(other))).patch
    assert set(patch.factors) == {module}
    merge([patch], find(str(base)), tmp_path / "out")
    (left,) = diff_checkpoints(Checkpoint.open(tmp_path / "out"), Checkpoint.open(other)).changed or (None,)
    assert left is None or (left.norm is not None and left.norm < 1e-4)


def test_what_cannot_be_compared_is_one_line(pico_path: Pico, tmp_path: Path) -> None:
    llama = find(str(pico_path("llama")))

    def refused(
        kind: type[Exception], match: str, change: Callable[[dict[str, torch.Tensor]], object]
    ) -> None:
        other = edited(llama.folder, tmp_path / f"{len(list(tmp_path.iterdir()))}", change)
        with pytest.raises(kind, match=match):
            extract(llama, find(str(other)))

    refused(CheckpointError, "equal weights", lambda t: None)
    refused(CheckpointError, "only the base has", lambda t: t.pop(Q))
    refused(CheckpointError, "only the edited model has x", lambda t: t.update(x=torch.ones(1)))
    refused(CheckpointError, r"is 32 x 32 in the base, 32 x 33", lambda t: t.update({Q: torch.ones(32, 33)}))
    refused(CheckpointError, "stored as I8", lambda t: t.update({Q: t[Q].to(torch.int8)}))
    refused(CheckpointError, "NaN", lambda t: t[Q].fill_(float("nan")))
    with pytest.raises(CheckpointError, match="the base is a llama, the edited model is 'gpt2'"):
        extract(llama, find(str(pico_path("gpt2"))))
    with pytest.raises(ConfigError):
        extract(llama, llama, rank=-1)
    strange = edited(llama.folder, tmp_path / "strange", lambda t: None)
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps({**config, "model_type": "strange"}))
    with pytest.raises(ModelError, match="not supported"):
        extract(find(str(strange)), llama)
