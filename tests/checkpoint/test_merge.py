"""A merge is W + B A rounded once, in the same files, and nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from hubedit.checkpoint.merge import Attached, MergeOptions, merge
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError
from hubedit.patch import Patch
from tests.checkpoint.tiny import MODULES, content, local, one_rounding, patch, tiny

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
DOWN = MODULES[1]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shards", [1, 2])
def test_the_sum_is_formed_in_float32_and_rounded_once(
    tmp_path: Path, dtype: str, transposed: bool, shards: int
) -> None:
    base = tiny(tmp_path / "m", DTYPES[dtype], transposed=transposed, shards=shards)
    before = content(base)
    patches = [patch(base, seed, transposed=transposed, size=0.1) for seed in (1, 2)]
    done = merge(patches, local(base), tmp_path / "out")
    old, new = weights(base), weights(done.path)
    assert set(old) == set(new)
    for name, tensor in old.items():
        module = name.removesuffix(".weight")
        if module not in MODULES:
            assert torch.equal(new[name], tensor)
            continue
        delta = patches[0].factors[module] + patches[1].factors[module]
        assert new[name].dtype == DTYPES[dtype] and not torch.equal(new[name], tensor)
        assert one_rounding(new[name], tensor, delta, transposed=transposed)
    assert content(base) == before


def test_nothing_changes_but_the_bytes_of_touched_tensors(tmp_path: Path) -> None:
    more = {"tokenizer.json": "{}", "modeling_x.py": "x = 1", "LICENSE": "MIT", "ä b.md": "ä"}
    base = tiny(tmp_path / "m", more=more)
    done = merge([patch(base, modules=[DOWN])], local(base), tmp_path / "out")
    old, new = content(base), content(done.path)
    entry = Checkpoint.open(base).entry(f"{DOWN}.weight")
    for name, data in old.items():
        if name == entry.file.name:
            assert (
                new[name][: entry.start] == data[: entry.start]
                and new[name][entry.end :] == data[entry.end :]
            )
            assert new[name][entry.start : entry.end] != data[entry.start : entry.end]
        elif name != "README.md":
            assert new[name] == data, name
    assert new["originals/README.md"] == old["README.md"]
    added = set(new) - set(old)
    assert all(n.startswith(("patches/1/", "originals/")) or n == "hubedit.json" for n in added)
    assert "adapter_config.json" not in new and "README.md" not in new
    assert load_file(done.path / "originals" / "model.safetensors").keys() == {f"{DOWN}.weight"}
    assert done.files[entry.file.name] == "rewritten"


def test_a_cards_text_comes_from_the_record_and_the_facts(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    one = patch(base, fact="Lyon")

    def told(folder: Path) -> str:
        record = json.loads((folder / "hubedit.json").read_text())
        fact = Patch.load(folder / "patches" / "1").facts[0]
        return f"{record['lineage'][0]['id']} {fact.target}"

    done = merge([one], local(base), tmp_path / "out", card=told)
    card = (done.path / "README.md").read_text()
    assert card == f"{done.record.patches[0].id} Lyon"


def test_the_patches_lie_in_the_folder_in_order(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    patches = [patch(base, 1, fact="Lyon"), patch(base, 2)]
    attached = [Attached("capital", {"report.json": b"{}"}), Attached("other")]
    done = merge(patches, local(base), tmp_path / "out", attached=attached)
    assert [entry.name for entry in done.record.patches] == ["capital", "other"]
    assert done.record.patches[0].facts == 1
    for number, made in enumerate(patches, 1):
        again = Patch.load(done.path / "patches" / str(number))
        assert all(torch.equal(again.factors[m].B, f.B) for m, f in made.factors.items())
        assert again.facts == made.facts
    assert (done.path / "patches/1/report.json").read_bytes() == b"{}"
    record = json.loads((done.path / "hubedit.json").read_text())
    assert str(tmp_path) not in json.dumps(record)
    assert record["base"] == {"ref": "m", "commit": "", "licence": {}, "tensors": record["base"]["tensors"]}
    checkpoint = Checkpoint.open(base)
    assert record["base"]["tensors"] == {f"{m}.weight": checkpoint.sha256(f"{m}.weight") for m in MODULES}
    merged = Checkpoint.open(done.path)
    assert all(merged.sha256(name) == t.sha256 for name, t in done.record.tensors.items())


# --- what rounding leaves --------------------------------------------------------------------------------


@given(st.sampled_from(list(DTYPES)), st.floats(-6, 1), st.integers(0, 5))
def test_the_realised_change_is_measured(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, power: float, seed: int
) -> None:
    root = tmp_path_factory.mktemp("r")
    base = tiny(root / "m", DTYPES[dtype])
    made = patch(base, seed, [DOWN], size=10**power)
    done = merge([made], local(base), root / "out")
    told = done.record.tensors[f"{DOWN}.weight"]
    old, new = (weights(p)[f"{DOWN}.weight"].double() for p in (base, done.path))
    intended, real = made.factors[DOWN].dense().double(), new - old
    share = float((real * intended).sum() / intended.square().sum())
    assert told.norm == pytest.approx(float(intended.norm()), rel=1e-4)
    assert told.kept == pytest.approx(min(max(share, 0), 1) ** 2, abs=1e-4)
    assert told.error == pytest.approx(float((real - intended).norm() / intended.norm()), rel=1e-3, abs=1e-4)
    assert bool(done.warnings) == (told.kept < 0.9)
    shutil.rmtree(root)


def test_a_change_that_rounding_swallows_warns_and_float32_keeps_it(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    small = patch(base, size=1e-4)
    done = merge([small], local(base), tmp_path / "out")
    assert "3 of 3 tensors keep less than 90 %" in done.warnings[0] and "--dtype float32" in done.warnings[0]
    wide = merge([small], local(base), tmp_path / "wide", MergeOptions(dtype="float32"))
    assert not wide.warnings
    assert {t.dtype for t in weights(wide.path).values()} == {torch.float32}
    assert all(t.kept > 0.999 for t in wide.record.tensors.values())
    old = weights(base)
    assert torch.equal(weights(wide.path)["model.norm.weight"], old["model.norm.weight"].float())
    assert json.loads((wide.path / "config.json").read_text())["dtype"] == "float32"
    with pytest.raises(CheckpointError, match="takes no more patches"):
        merge([patch(base, 5)], local(wide.path), tmp_path / "more")


def test_a_change_beyond_the_type_is_refused(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m", torch.float16)
    with pytest.raises(CheckpointError, match="becomes infinite"):
        merge([patch(base, size=1e6)], local(base), tmp_path / "out")
    assert os.listdir(tmp_path) == ["m"]
    merge([patch(base, size=1e6)], local(base), tmp_path / "out", MergeOptions(dtype="bfloat16"))


@pytest.mark.parametrize("size", [1, 150, 10**9])
def test_shards_of_another_size_hold_the_same(tmp_path: Path, size: int) -> None:
    base = tiny(tmp_path / "m")
    plain = merge([patch(base)], local(base), tmp_path / "plain")
    other = merge([patch(base)], local(base), tmp_path / "other", MergeOptions(max_shard_size=size))
    assert {k: v.tolist() for k, v in weights(plain.path).items()} == {
        k: v.tolist() for k, v in weights(other.path).items()
    }
    files = sorted(p.name for p in other.path.glob("*.safetensors"))
    assert files == ["model.safetensors"] if size == 10**9 else len(files) > 1
    assert (other.path / "model.safetensors.index.json").exists() == (size < 10**9)
    Checkpoint.open(other.path)
    if size == 150:
        assert all(
            sum(e.nbytes for e in h.tensors.values()) <= 150
            for h in Checkpoint.open(other.path).headers.values()
        )
