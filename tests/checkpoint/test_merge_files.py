"""How files get into a merged model: linked, copied, taken over, or left behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hubedit.checkpoint.merge import MergeOptions, merge
from hubedit.checkpoint.read import Checkpoint
from hubedit.model.fetch import Source
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny


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
