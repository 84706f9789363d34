"""Several patches in one model: their order, their bases, and facts that two of them edit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hubedit.checkpoint.merge import MergeOptions, merge, prepare
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError, PatchError
from hubedit.patch import Patch, tensor_sha256
from hubedit.patch.compose import ConflictError, OnConflict
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny

DOWN = MODULES[1]


def test_merging_onto_a_merged_model_equals_merging_the_stack_at_once(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    patches = [patch(base, 1, MODULES[:2]), patch(base, 2, MODULES[1:])]
    at_once = merge(patches, local(base), tmp_path / "at-once")
    first = merge(patches[:1], local(base), tmp_path / "first")
    then = merge(patches[1:], local(first.path), tmp_path / "then")
    assert content(then.path) == content(at_once.path)
    with pytest.raises(CheckpointError, match="in the stack already"):
        merge(patches[:1], local(first.path), tmp_path / "twice")


def test_a_hubedit_patch_fits_on_top_of_an_adapter_of_another_tool(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    made = patch(base, 1)
    foreign = replace(made, record={"foreign": {}})
    after = patch(base, 2)
    at_once = merge([foreign, after], local(base), tmp_path / "at-once")
    first = merge([foreign], local(base), tmp_path / "first")
    then = merge([after], local(first.path), tmp_path / "then")
    assert content(then.path) == content(at_once.path)
    other = patch(tiny(tmp_path / "other", seed=3), 2)
    with pytest.raises(PatchError, match="has other weights"):
        merge([other], local(first.path), tmp_path / "no")


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0)])
def test_patches_made_in_different_types_fit_one_base_in_any_order(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    base = tiny(tmp_path / "m", torch.float32)
    checkpoint = Checkpoint.open(base)
    kinds = (torch.bfloat16, torch.float32, torch.float16)
    patches = []
    for seed, kind in enumerate(kinds):
        made = patch(base, seed)
        hashes = {m: tensor_sha256(checkpoint.read(f"{m}.weight").to(kind)) for m in MODULES}
        told = {**made.record["base"], "tensors": hashes, "dtype": str(kind).removeprefix("torch.")}
        patches.append(replace(made, record={**made.record, "base": told}))
    at_once = merge([patches[n] for n in order], local(base), tmp_path / "at-once")
    model = base
    for n in order:
        model = merge([patches[n]], local(model), tmp_path / f"after{n}").path
    assert content(model) == content(at_once.path)


@pytest.mark.parametrize(
    ("base", "told"),
    [
        (r"C:\Users\me\model", "model"),
        (r"C:\Users\me\model\\", "model"),
        (r"C:/model", "model"),
        (r"me\model", "model"),
        (r"\\host\share/model", "model"),
        ("/home/me/model/", "model"),
        ("~/model", "model"),
        ("owner/model", "owner/model"),
        ("gpt2", "gpt2"),
        ("", ""),
    ],
)
def test_no_path_of_this_machine_gets_into_the_record(tmp_path: Path, base: str, told: str) -> None:
    folder = tiny(tmp_path / "m")
    made = replace(patch(folder), base=base)
    done = prepare([made], local(folder), tmp_path / "out")
    assert done.assembly.record is not None and done.assembly.record.patches[0].base == told


def test_a_patch_made_on_the_merged_model_fits_it(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    first = merge([patch(base, 1)], local(base), tmp_path / "first")
    on_top = patch(first.path, 2)
    merge([on_top], local(first.path), tmp_path / "then")
    with pytest.raises(PatchError, match="has other weights"):
        merge([on_top], local(base), tmp_path / "no")


def test_a_merged_model_that_was_trained_on_takes_no_patch(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m", shards=1)
    first = merge([patch(base, 1)], local(base), tmp_path / "first")
    entry = Checkpoint.open(first.path).entry(f"{DOWN}.weight")
    data = bytearray(entry.file.read_bytes())
    data[entry.start] ^= 1
    entry.file.write_bytes(data)
    with pytest.raises(CheckpointError, match="was changed after the merge"):
        merge([patch(base, 2)], local(first.path), tmp_path / "then")


# --- conflicts -------------------------------------------------------------------------------------------


def test_contradictions_stop_or_one_of_them_counts(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    lyon, nice = patch(base, 1, fact="Lyon"), patch(base, 2, fact="Nice")
    with pytest.raises(ConflictError, match="contradict each other"):
        merge([lyon, nice], local(base), tmp_path / "out")
    rules: dict[OnConflict, Patch] = {"first": lyon, "last": nice}
    for rule, wins in rules.items():
        done = merge([lyon, nice], local(base), tmp_path / rule, MergeOptions(on_conflict=rule))
        alone = merge([wins], local(base), tmp_path / f"alone-{rule}")
        assert content(done.path) == content(alone.path)
        assert any("left out" in line for line in done.warnings)
    # also against a patch that was merged earlier
    first = merge([lyon], local(base), tmp_path / "m1")
    with pytest.raises(ConflictError):
        merge([nice], local(first.path), tmp_path / "m2")
    after = merge([nice], local(first.path), tmp_path / "m3", MergeOptions(on_conflict="last"))
    assert content(after.path) == content(tmp_path / "alone-last")


def test_a_fact_that_two_patches_edit_to_one_target_is_merged_once(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    one, two = patch(base, 1, fact="Lyon"), patch(base, 2, fact="Lyon")
    with pytest.raises(ConflictError, match="edit the same facts"):
        merge([one, two], local(base), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = merge([one, two], local(base), tmp_path / "last", MergeOptions(on_conflict="last"))
    assert content(done.path) == content(merge([two], local(base), tmp_path / "alone").path)


def test_a_fact_that_cannot_be_taken_out_stops_the_merge(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    lyon, nice = patch(base, 1, fact="Lyon"), patch(base, 2, fact="Nice")
    mixed = replace(lyon, record={**lyon.record, "truncation": {"rank": 1}})
    with pytest.raises(ConflictError, match="cannot: its patch is truncated"):
        merge([mixed, nice], local(base), tmp_path / "out", MergeOptions(on_conflict="last"))
    assert not (tmp_path / "out").exists()
