"""A patch on disk: exact, reproducible, complete or absent, and refused with one line when damaged."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hubedit import folder
from hubedit.errors import PatchError
from hubedit.facts import Fact, Probe
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.patch import Patch, base_record, tensor_sha256

FACTS = (
    Fact("The capital of France is", "France", "Lyon", id="a", ground_truth=("Paris",)),
    Fact("東京は", "東京", "日本の首都\u2028です", id="b", locality=(Probe("京都は", ("古い",), "same"),)),
)
DOWN, OUT = "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.o_proj"
Editable = Callable[..., EditableModel]


def made(ranks: tuple[int, int] = (3, 5), seed: int = 0, **more: Any) -> Patch:
    g = torch.Generator().manual_seed(seed)
    factors = {
        name: LowRank(torch.randn(6, rank, generator=g), torch.randn(rank, 7, generator=g))
        for name, rank in zip((DOWN, OUT), ranks, strict=True)
    }
    return Patch(factors, {"seed": seed}, "owner/base", "c" * 40, **{"facts": FACTS, **more})


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranks=st.tuples(st.integers(1, 20), st.integers(0, 20)), seed=st.integers(0, 99))
def test_saving_and_loading_changes_no_bit(tmp_path: Path, ranks: tuple[int, int], seed: int) -> None:
    before = made(ranks, seed)
    after = Patch.load(before.save(tmp_path / "p", overwrite=True))
    assert set(after.factors) == set(before.factors)
    for module, factor in before.factors.items():
        assert torch.equal(after.factors[module].A, factor.A)
        assert torch.equal(after.factors[module].B, factor.B)
    assert (after.base, after.commit, after.facts) == (before.base, before.commit, FACTS)
    assert after.full_record() == after.record == before.full_record()


def test_equal_patches_give_equal_bytes(tmp_path: Path) -> None:
    one, two = made(), made()
    two = Patch(dict(reversed(list(two.factors.items()))), two.record, two.base, two.commit, two.facts)
    one.save(tmp_path / "1", files={"plots/a.png": b"x"})
    time.sleep(0.01)
    two.save(tmp_path / "2", files={"plots/a.png": b"x"})
    Patch.load(tmp_path / "1").save(tmp_path / "3", files={"plots/a.png": b"x"})
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "3")


@pytest.mark.parametrize(("largest", "rank"), [(1, 1), (2, 8), (9, 16), (65, 128), (512, 512), (513, 513)])
def test_the_adapter_has_one_rank_that_every_loader_takes(tmp_path: Path, largest: int, rank: int) -> None:
    path = made((1, largest)).save(tmp_path / "p")
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == rank
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["target_modules"] == sorted([DOWN, OUT])
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/base", "c" * 40)
    tensors = load_file(path / "adapter_model.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        f"base_model.model.{module}.lora_{half}.weight": shape
        for module in (DOWN, OUT)
        for half, shape in (("A", (rank, 7)), ("B", (6, rank)))
    }
    assert all(t.dtype == torch.float32 for t in tensors.values())


def test_facts_are_left_out_when_asked(tmp_path: Path) -> None:
    path = made().save(tmp_path / "p", with_facts=False)
    assert "facts.jsonl" not in content(path)
    assert all("Lyon" not in data.decode("latin-1") for data in content(path).values())
    loaded = Patch.load(path)
    assert loaded.facts == ()
    # the record still says which facts they were
    assert loaded.full_record()["facts"] == made().full_record()["facts"]


def test_truncation_is_optimal_and_says_what_it_keeps() -> None:
    whole = made((6, 2))
    cut, energy = whole.truncate(2)
    assert energy[OUT] == 1.0 and torch.equal(cut.factors[OUT].B, whole.factors[OUT].B)
    values = torch.linalg.svdvals(whole.factors[DOWN].dense().double())
    assert energy[DOWN] == pytest.approx(float((values[:2] ** 2).sum() / (values**2).sum()))
    assert cut.record["truncation"] == {"rank": 2, "energy": energy}
    with pytest.raises(PatchError):
        whole.truncate(0)


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    patch = Patch(made().factors, {"x": [float("nan"), (1.0, float("inf"))]}, "b")
    assert Patch.load(patch.save(tmp_path / "p")).record["x"] == [None, [1.0, None]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_patch_never_holds_nan(bad: float) -> None:
    with pytest.raises(PatchError, match="NaN or infinity"):
        Patch({DOWN: LowRank(torch.full((6, 1), bad), torch.ones(1, 7))}, {}, "b")
    with pytest.raises(PatchError, match="changes nothing"):
        Patch({}, {}, "b")


# --- damaged patches -------------------------------------------------------------------------------------


def edit_config(path: Path, **changes: Any) -> None:
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")


KEY = f"base_model.model.{DOWN}.lora_A.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no record": (lambda p: (p / "hubedit.json").unlink(), "hubedit.json is missing"),
    "no config": (lambda p: (p / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    "no tensors": (lambda p: (p / "adapter_model.safetensors").unlink(), "safetensors is missing"),
    "no json": (lambda p: (p / "hubedit.json").write_text("{"), "is not JSON"),
    "no text": (lambda p: (p / "hubedit.json").write_bytes(b"\xff\xfe"), "is not JSON"),
    "no object": (lambda p: (p / "hubedit.json").write_text("[]"), "JSON object"),
    "older": (lambda p: (p / "hubedit.json").write_text("{}"), "schema_version is None"),
    "newer": (lambda p: (p / "hubedit.json").write_text('{"schema_version": 99}'), "schema_version is 99"),
    "no sites": (lambda p: (p / "hubedit.json").write_text('{"schema_version": 1}'), "does not list"),
    "kind": (lambda p: edit_config(p, peft_type="IA3"), "peft_type is 'IA3'"),
    "scaling": (lambda p: edit_config(p, lora_alpha=3), "scaling 1"),
    "rank": (lambda p: edit_config(p, r=16, lora_alpha=16), "but r is 16"),
    "no rank": (lambda p: edit_config(p, r=0), "r is 0"),
    "pattern": (lambda p: edit_config(p, rank_pattern={DOWN: 4}), "rank_pattern is set"),
    "dora": (lambda p: edit_config(p, use_dora=True), "use_dora is set"),
    "regex": (lambda p: edit_config(p, target_modules="all-linear"), "target_modules is not a list"),
    "no base": (lambda p: edit_config(p, base_model_name_or_path=None), "base_model_name_or_path is missing"),
    "lost module": (lambda p: edit_config(p, target_modules=[OUT]), f"{DOWN} has tensors but is not in"),
    "extra module": (lambda p: edit_config(p, target_modules=[OUT, DOWN, "x"]), "x has no lora_A"),
    "no partner": (lambda p: edit_tensors(p, lambda t: t.pop(KEY)), f"{DOWN} has no lora_A"),
    "prefix": (
        lambda p: edit_tensors(p, lambda t: t.update({"m.lora_A.weight": t.pop(KEY)})),
        "no LoRA tensor",
    ),
    "shape": (lambda p: edit_tensors(p, lambda t: t.update({KEY: torch.zeros(2, 7)})), r"shape \(2, 7\)"),
    "nan": (lambda p: edit_tensors(p, lambda t: t[KEY].fill_(float("nan"))), "NaN or infinity"),
    "half": (lambda p: edit_tensors(p, lambda t: t.update({KEY: t[KEY].bfloat16()})), "is bfloat16"),
    "padding": (lambda p: edit_tensors(p, lambda t: t[KEY].fill_(1.0)), "tensors have more"),
    "cut": (lambda p: os.truncate(p / "adapter_model.safetensors", 300), "cannot be read"),
    "noise": (lambda p: (p / "adapter_model.safetensors").write_bytes(b"x" * 99), "cannot be read"),
    "facts": (lambda p: (p / "facts.jsonl").write_text('{"prompt": 1}\n'), "facts.jsonl:1"),
    "facts json": (lambda p: (p / "facts.jsonl").write_text("{\n"), "facts.jsonl:1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_patch_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = made().save(tmp_path / "p")
    spoil, message = DAMAGE[damage]
    spoil(path)
    with pytest.raises(PatchError, match=message) as raised:
        Patch.load(path)
    assert raised.value.hint
    assert "\n" not in raised.value.message and str(path) in raised.value.message


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="is no patch folder"):
        Patch.load(tmp_path / "nothing")


# --- writing ---------------------------------------------------------------------------------------------


def test_nothing_is_replaced_unless_asked_and_never_a_strangers_folder(tmp_path: Path) -> None:
    path = made().save(tmp_path / "p")
    before = content(path)
    with pytest.raises(PatchError, match="exists already"):
        made(seed=1).save(path)
    assert content(path) == before
    made(seed=1).save(path, overwrite=True)
    assert Patch.load(path).record["seed"] == 1
    stranger = tmp_path / "mine"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("years of work")
    with pytest.raises(PatchError, match="never replaced"):
        made().save(stranger, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(PatchError, match="no folder"):
        made().save(tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    made().save(tmp_path / "empty")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "mine", "p"]


@pytest.mark.parametrize("name", ["../x", "/x", "", "plots/../../x"])
def test_no_file_is_written_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no file name"):
        made().save(tmp_path / "p", files={name: b""})
    with pytest.raises(ValueError, match="written by the patch itself"):
        made().save(tmp_path / "p", files={"hubedit.json": b""})


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_disk_that_refuses_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, exists: bool
) -> None:
    path = tmp_path / "p"
    if exists:
        made().save(path)
    before = content(tmp_path)
    real, calls = getattr(os, call), []

    def refuse(*arguments: Any) -> None:
        calls.append(arguments)
        # with an old folder in the way the second rename is the one that puts the new one there
        if len(calls) == (2 if exists else 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(os, call, refuse)
    monkeypatch.setattr(folder, "_exchange", lambda *_: False)  # the way of systems that cannot swap folders
    with pytest.raises(PatchError, match="No space left on device"):
        made(seed=1).save(path, overwrite=True)
    assert content(tmp_path) == before
    assert os.listdir(tmp_path) == (["p"] if exists else [])


def test_a_place_one_may_not_write_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PatchError, match="cannot be written"):
        made().save(tmp_path / "file" / "p")


def test_an_interrupted_run_leaves_nothing_at_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "_sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made().save(tmp_path / "p")
    assert os.listdir(tmp_path) == []


_KILLED = """
import os, signal, sys
from hubedit import folder
from tests.test_patch import made
at = sys.argv[2]
real = getattr(folder, at)
def die(*a):
    if at == "_sync_file": real(*a)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(folder, at, die)
made(seed=1).save(sys.argv[1], overwrite=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_run_leaves_the_old_patch_and_the_next_run_tidies(tmp_path: Path) -> None:
    path = made().save(tmp_path / "p")
    before = content(path)
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), "_sync_file"], check=False, capture_output=True
    )
    assert run.returncode == -9, run.stderr
    assert content(path) == before
    assert len(os.listdir(tmp_path)) == 2
    # killed between the two renames: the old folder is still there, under another name
    os.rename(path, tmp_path / ".p.0123abcd.old")
    with pytest.raises(PatchError, match="exists already"):
        made(seed=1).save(path)
    assert os.listdir(tmp_path) == ["p"]
    assert content(path) == before


def test_a_run_that_is_still_writing_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".p.0123abcd.part"
    other.mkdir()
    with folder._held(other):
        made().save(tmp_path / "p")
        assert other.is_dir()
    made().save(tmp_path / "p", overwrite=True)
    assert not other.exists()


# --- the base model --------------------------------------------------------------------------------------


def patch_for(em: EditableModel, sites: tuple[Site, ...]) -> Patch:
    factors = {}
    for site in sites:
        d_out, d_in = em.weight(site).shape
        factors[em.module_name(site)] = LowRank(torch.randn(d_out, 2), torch.randn(2, d_in))
    return Patch(factors, {"base": base_record(em, sites)}, em.ref, em.commit, (), em.family.conv1d)


SITES = (Site(1, "attention"), Site(2, "mlp"))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_patch_knows_its_base(editable: Editable, tmp_path: Path, family: str) -> None:
    em = editable(family)
    patch = Patch.load(patch_for(em, SITES).save(tmp_path / "p"))
    patch.fits(em)
    assert set(patch.sites(em).values()) == set(patch.by_site(em)) == set(SITES)
    hashes = dict(patch.record["base"]["tensors"])
    hashes[em.module_name(SITES[1])] = "0" * 64
    other = Patch(patch.factors, {"base": {"tensors": hashes}}, patch.base)
    with pytest.raises(PatchError, match=f"{em.module_name(SITES[1])} has other weights"):
        other.fits(em)
    with pytest.raises(PatchError, match="does not say"):
        Patch(patch.factors, {}, patch.base).fits(em)


def test_a_patch_for_another_architecture_is_refused(editable: Editable) -> None:
    em = editable("llama")
    with pytest.raises(PatchError, match="no editable module"):
        patch_for(editable("gpt2"), SITES).sites(em)
    wide = {em.module_name(SITES[1]): LowRank(torch.ones(32, 1), torch.ones(1, 65))}
    with pytest.raises(PatchError, match=r"is 32 x 64 in .* but 32 x 65 in the patch"):
        Patch(wide, {}, "b").sites(em)


@given(st.sampled_from([torch.bfloat16, torch.float16, torch.float32]), st.integers(0, 9))
def test_the_hash_of_a_weight_does_not_depend_on_the_type_it_was_loaded_in(
    dtype: torch.dtype, seed: int
) -> None:
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    assert tensor_sha256(weight) == tensor_sha256(weight.float()) == tensor_sha256(weight.double())
    changed = weight.clone()
    changed[0, 0] += 1
    assert tensor_sha256(changed) != tensor_sha256(weight)


_FULL = """
import resource, sys
from hubedit.errors import PatchError
from tests.test_patch import made
patch = made((40, 4000))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    patch.save(sys.argv[1])
except PatchError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes to stand for a full disk")
def test_a_file_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path / "p")], check=True, capture_output=True)
    assert b"File too large" in run.stdout and run.stdout.count(b"\n") == 1
    assert os.listdir(tmp_path) == []
