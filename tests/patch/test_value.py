"""A patch on disk: exact, reproducible, and with one rank that every loader takes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from hubedit.errors import PatchError
from hubedit.linalg import LowRank
from hubedit.patch import Patch
from tests.patch.parts import DOWN, FACTS, OUT, content, made


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
