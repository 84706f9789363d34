"""What a revert brings back is byte for byte the base, whatever was merged and in whatever order."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from hubedit import folder
from hubedit.checkpoint.merge import Attached, MergeOptions, merge
from hubedit.checkpoint.revert import prepare, revert
from hubedit.errors import CheckpointError, ConfigError
from hubedit.patch.identity import patch_id
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
ORIGINALS = "originals/model.safetensors"


@st.composite
def stacks(draw: st.DrawFn) -> dict[str, Any]:
    """Which modules each patch touches, and in which order the patches are taken out."""
    count = draw(st.integers(1, 4))
    some = st.lists(st.sampled_from(MODULES), min_size=1, max_size=3, unique=True)
    return {
        "modules": draw(st.lists(some, min_size=count, max_size=count)),
        "order": draw(st.permutations(range(count))),
        "cut": draw(st.integers(0, count - 1)),
        "dtype": draw(st.sampled_from(DTYPES)),
        "shards": draw(st.integers(1, 3)),
        "transposed": draw(st.booleans()),
        "together": draw(st.booleans()),
    }


@settings(max_examples=40)
@given(stacks())
def test_any_stack_taken_out_in_any_order_leaves_the_base(
    tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folder, "_sync", lambda _: None)
        patched.setattr(folder, "sync_file", lambda _: None)  # the disk is not what is tested
        root = tmp_path_factory.mktemp("stack")
        base = tiny(root / "m", case["dtype"], shards=case["shards"], transposed=case["transposed"])
        before = content(base)
        made = [
            patch(base, seed, modules, transposed=case["transposed"])
            for seed, modules in enumerate(case["modules"])
        ]
        names = [Attached(f"p{n}") for n in range(len(made))]
        out = root / "out"
        cut = case["cut"] or len(made)
        merge(made[:cut], local(base), out, attached=names[:cut])
        if made[cut:]:
            merge(made[cut:], local(out), root / "more", attached=names[cut:])
            out = root / "more"
        at_once = merge(made, local(base), root / "at-once", attached=names)
        assert content(out) == content(at_once.path)
        ids = [entry.id for entry in at_once.record.patches]
        left = list(range(len(made)))
        for number in case["order"]:
            left.remove(number)
            done = revert(out, patch=ids[number])
            assert done.removed == (ids[number],) and done.left == tuple(ids[n] for n in left)
            if left:
                again = root / f"fresh{len(left)}"
                merge([made[n] for n in left], local(base), again, attached=[names[n] for n in left])
                assert content(out) == content(again)
        assert content(out) == before == content(base)
        shutil.rmtree(root)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_and_last(tmp_path: Path, dtype: torch.dtype) -> None:
    base = tiny(tmp_path / "m", dtype)
    stack = [patch(base, seed) for seed in (1, 2, 3)]
    merge(stack, local(base), tmp_path / "out")
    done = revert(tmp_path / "out", last=True)
    merge(stack[:2], local(base), tmp_path / "two")
    assert content(tmp_path / "out") == content(tmp_path / "two")
    assert set(done.recomputed) == {f"{m}.weight" for m in MODULES} and not done.restored
    done = revert(tmp_path / "out", everything=True)
    assert content(tmp_path / "out") == content(base)
    assert set(done.restored) == {f"{m}.weight" for m in MODULES} and done.record is None
    with pytest.raises(CheckpointError, match="no merged patches"):
        revert(tmp_path / "out")


def test_which_patch_must_be_said(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    done = merge([patch(base, 1), patch(base, 2)], local(base), tmp_path / "out")
    first = done.record.patches[0].id
    before = content(done.path)
    for options, message in (
        ({}, "the stack has 2 patches"),
        ({"last": True, "everything": True}, "exclude each other"),
        ({"patch": "zz"}, "no patch of the stack"),
        ({"patch": ""}, "no patch of the stack"),
    ):
        with pytest.raises(ConfigError, match=message):
            revert(done.path, **options)
    assert content(done.path) == before
    assert revert(done.path, patch=first[:6].upper()).removed == (first,)


def test_the_whole_id_is_understood_too(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    one, two = patch(base, 1), patch(base, 2)
    done = merge([one, two], local(base), tmp_path / "out")
    first = done.record.patches[0].id
    assert len(patch_id(one)) > len(first)
    assert revert(done.path, patch=patch_id(one)).removed == (first,)


def test_nothing_is_written_through_links_to_the_base(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    before = content(base)
    merge([patch(base, 1, MODULES[:1]), patch(base, 2, MODULES[1:2])], local(base), tmp_path / "out")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "out", copy, copy_function=os.link)
    linked = content(copy)
    revert(tmp_path / "out", last=True)
    revert(tmp_path / "out")
    assert content(base) == before and content(copy) == linked


def test_what_the_user_put_into_the_folder_stays(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base, 1), patch(base, 2)], local(base), tmp_path / "out").path
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref")
    (out / "eval.json").write_text("{}")
    (out / "pytorch_model.bin").write_text("mine")
    (out / "link").symlink_to("nowhere")
    (out / "folder").symlink_to(tmp_path)
    for _ in range(2):
        revert(out, last=True)
        assert (out / ".git" / "HEAD").read_text() == "ref" and (out / "eval.json").exists()
        assert (out / "pytorch_model.bin").exists()
        assert os.readlink(out / "link") == "nowhere" and os.readlink(out / "folder") == str(tmp_path)


def test_a_converted_model_gets_the_bases_values_in_its_type(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    stack = [patch(base, 1, MODULES[:1]), patch(base, 2, MODULES[1:])]
    out = merge(stack, local(base), tmp_path / "out", MergeOptions(dtype="float32")).path
    done = revert(out, last=True)
    assert done.record is not None and done.record.converted == "float32"
    old = {k: v for f in base.glob("*.safetensors") for k, v in load_file(f).items()}
    new = {k: v for f in out.glob("*.safetensors") for k, v in load_file(f).items()}
    del old[f"{MODULES[0]}.weight"]
    assert all(torch.equal(new[name], tensor.float()) for name, tensor in old.items())


@pytest.mark.parametrize("given", [False, True])
def test_a_converted_model_never_claims_to_be_the_base(tmp_path: Path, given: bool) -> None:
    base = tiny(tmp_path / "m")
    stack = [patch(base, 1), patch(base, 2)]
    out = merge(stack, local(base), tmp_path / "out", MergeOptions(dtype="float32")).path
    one = merge(stack[:1], local(base), tmp_path / "one", MergeOptions(dtype="float32")).path
    for path, everything, last in ((out, True, False), (one, False, False), (one, False, True)):
        before = content(path)
        with pytest.raises(CheckpointError, match="with --dtype float32, so it cannot become") as raised:
            revert(path, everything=everything, last=last, base=local(base) if given else None)
        assert "use the base itself (" in raised.value.hint and content(path) == before


def test_other_files_hold_the_bases_tensors_again(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base)], local(base), tmp_path / "out", MergeOptions(max_shard_size=300)).path
    assert revert(out).record is None
    old = {k: v for f in base.glob("*.safetensors") for k, v in load_file(f).items()}
    new = {k: v for f in out.glob("*.safetensors") for k, v in load_file(f).items()}
    assert old.keys() == new.keys() and all(torch.equal(new[name], old[name]) for name in old)


def test_a_revert_works_from_another_folder_and_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base)], local(base), tmp_path / "out").path
    (tmp_path / "name").symlink_to(out)
    monkeypatch.chdir(out)
    revert(Path("../name"))
    assert content(out) == content(base) and (tmp_path / "name").is_symlink()


def test_systems_that_cannot_swap_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny(tmp_path / "m")
    monkeypatch.setattr(folder, "_exchange", lambda *_: False)
    out = merge([patch(base)], local(base), tmp_path / "out").path
    before = content(out)
    # a run that was killed between the two renames: the next one puts the old model back first
    os.rename(out, tmp_path / ".out.0123abcd.old")
    assert prepare(out).path == out and content(out) == before
    revert(out)
    assert content(out) == content(base) and sorted(os.listdir(tmp_path)) == ["m", "out"]


def test_two_runs_do_not_change_one_folder_at_once(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base, 1), patch(base, 2)], local(base), tmp_path / "out").path
    with folder.alone(out, error=CheckpointError), pytest.raises(CheckpointError, match="another run"):
        revert(out, last=True)
    late = prepare(out, everything=True)
    revert(out, last=True)
    with pytest.raises(CheckpointError, match="changed meanwhile"):
        late.run()


# --- where the base's bytes come from --------------------------------------------------------------------
