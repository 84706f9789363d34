"""A merge is W + B A rounded once, in the same files, and nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from hubedit.checkpoint.merge import Attached, MergeOptions, merge, prepare
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError, PatchError
from hubedit.model.fetch import Source
from hubedit.patch import Patch, tensor_sha256
from hubedit.patch.compose import ConflictError
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
    done = merge(
        [one], local(base), tmp_path / "out", card=lambda r, f: f"{r['lineage'][0]['id']} {f[0].target}"
    )
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


# --- links -----------------------------------------------------------------------------------------------


def test_a_local_bases_weights_may_be_linked_but_never_a_caches(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    untouched = "model-00002-of-00002.safetensors"
    one = patch(base, modules=[MODULES[0]])
    assert Checkpoint.open(base).entry(f"{MODULES[0]}.weight").file.name != untouched
    linked = merge([one], local(base), tmp_path / "linked")
    assert linked.files[untouched] in ("linked", "cloned")
    copied = merge([one], local(base), tmp_path / "copied", MergeOptions(link="copy"))
    assert copied.files[untouched] == "copied"
    # the cache: links to blobs, which nothing may ever write through or share
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / ("c" * 40)
    shutil.copytree(base, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    before = content(blobs)
    for source in (local(snapshot), Source("owner/base", snapshot, "c" * 40)):
        out = tmp_path / f"out{bool(source.commit)}"
        done = merge([one], source, out)
        assert done.files[untouched] in ("copied", "cloned")
        assert not [p for p in out.rglob("*") if p.is_symlink()]
        assert not {p.stat().st_ino for p in out.iterdir()} & {p.stat().st_ino for p in blobs.iterdir()}
        assert (out / "originals").exists() == (not source.commit)
    assert content(blobs) == before
    trees = [content(p) for p in (linked.path, copied.path)]
    assert trees[0] == trees[1]


def test_other_copies_of_the_weights_stay_behind(tmp_path: Path) -> None:
    stale = ("pytorch_model.bin", "consolidated.safetensors", "original/consolidated.00.pth", "m.gguf")
    base = tiny(
        tmp_path / "m", shards=1, more={**dict.fromkeys(stale, "old"), ".git/HEAD": "x", "vocab.txt": "y"}
    )
    (base / "model.safetensors.index.json").write_text("{}")
    done = merge([patch(base)], local(base), tmp_path / "out")
    assert set(done.left_out) == {*stale}
    new = content(done.path)
    assert not {*stale, ".git/HEAD", "model.safetensors.index.json"} & set(new) and new["vocab.txt"] == b"y"


def test_only_what_belongs_to_a_model_is_taken_over(tmp_path: Path) -> None:
    good = ("generation_config.json", "merges.txt", "chat_template.jinja", "NOTICE.txt", "USE_POLICY.md")
    chat = ("tokenizer.model", "additional_chat_templates/tool.jinja", "special_tokens_map.json")
    bad = (
        "optimizer.pt",
        "rng_state.pth",
        "trainer_state.json",
        "cat.png",
        "credentials.json",
        "params.json",
    )
    folders = ("wandb/run-1/log.txt", "wandb/run-1/x.py", "checkpoint-5/optimizer.pt", "checkpoint-5/a.json")
    hidden = (".env", ".cache/x.json", "__pycache__/x.py")
    weights = (
        "openvino_model.bin",
        "onnx/model.onnx",
        "flax_model.msgpack",
        "checkpoint-5/model.safetensors",
    )
    named = (*good, *chat, *bad, *folders, *hidden, *weights)
    base = tiny(tmp_path / "m", more=dict.fromkeys(named, "x"))
    done = merge([patch(base)], local(base), tmp_path / "out")
    assert set(done.left_out) == {*bad, *weights, "wandb/", "checkpoint-5/"}
    new = set(content(done.path))
    assert {*good, *chat} <= new and not new & {*bad, *folders, *hidden, *weights}


# --- onto a merged model ---------------------------------------------------------------------------------


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
    for rule, wins in (("first", lyon), ("last", nice)):
        done = merge([lyon, nice], local(base), tmp_path / rule, MergeOptions(on_conflict=rule))  # type: ignore[arg-type]
        alone = merge([wins], local(base), tmp_path / f"alone-{rule}")
        assert content(done.path) == content(alone.path)
        assert any("left out" in line for line in done.warnings)
    # also against a patch that was merged earlier
    first = merge([lyon], local(base), tmp_path / "m1")
    with pytest.raises(ConflictError):
        merge([nice], local(first.path), tmp_path / "m2")
    after = merge([nice], local(first.path), tmp_path / "m3", MergeOptions(on_conflict="last"))
    assert content(after.path) == content(tmp_path / "alone-last")
