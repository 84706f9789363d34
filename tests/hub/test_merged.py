"""Merged models at the Hub: copied where nothing changed, and taken back."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hubedit.checkpoint.merge import MergeOptions, merge
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import Source
from hubedit.patch import Patch
from tests.hub.conftest import BASE, FACTS, Client, write_patch
from tests.hub.loopback import Hub


@pytest.fixture
def edit(editable: Callable[..., EditableModel], sharded: Source, tmp_path: Path) -> Path:
    """A patch of two weights of the base."""
    return write_patch(editable(), tmp_path / "edit", BASE, sharded.commit)


def same(hub: Hub, repo: str, path: str) -> bool:
    return bool(hub.tree(repo)[path]["oid"] == hub.tree(BASE)[path]["oid"])


def sent(hub: Hub) -> int:
    return sum(line["received"] for line in hub.log() if line["method"] == "PUT")


def weights(hub: Hub, repo: str) -> list[str]:
    return [p for p in hub.tree(repo) if p.endswith(".safetensors") and "/" not in p and p[0] != "c"]


def test_a_patch_becomes_a_merged_repository_and_goes_back(
    hub: Hub, client: Client, edit: Path, sharded: Source, tmp_path: Path
) -> None:
    plan = client("push", edit, "merged", "--merged", "--dry-run", "--json").json
    assert hub.repo("ada/merged") is None and sent(hub) == 0
    done = client("push", edit, "merged", "--merged", "--json").json
    assert set(done["copied"]) == set(plan["copied"]) and set(plan["uploaded"]) == set(done["uploaded"])
    shards = {p for p in done["uploaded"] if p.endswith(".safetensors") and "/" not in p}
    assert 0 < len(shards) < len(weights(hub, BASE))
    adapter = done["uploaded"]["patches/1/adapter_model.safetensors"]
    pictures = done["uploaded"]["patches/1/plots/norms.png"]
    assert sent(hub) == sum(done["uploaded"][p] for p in shards) + adapter + pictures
    assert "consolidated.safetensors" not in hub.tree("ada/merged")

    # the same bytes as a merge here
    local = tmp_path / "local"
    result = merge([Patch.load(edit)], sharded, local)
    for name in weights(hub, BASE):
        assert hub.content("ada/merged", name) == (local / name).read_bytes()
        assert same(hub, "ada/merged", name) == (name not in shards)
    record = json.loads(hub.content("ada/merged", "hubedit.json"))
    ours = result.record.to_json()
    for each in (record, ours):
        each["lineage"][0].pop("name")
        each.pop("packages"), each["base"].pop("licence")
    assert record == ours
    assert b"base_model: lab/sharded" in hub.content("ada/merged", "README.md")

    # the folder, pushed, changes no weights and sends none
    hub.clear()
    again = client("push", local, "merged", "--json").json
    assert not any(p.endswith("safetensors") and "/" not in p for p in again["uploaded"]) and sent(hub) == 0
    fresh = client("push", local, "folder", "--json").json
    assert {p for p in fresh["uploaded"] if p.endswith(".safetensors") and "/" not in p} == shards
    assert hub.tree("ada/folder")["hubedit.json"]["oid"] == hub.tree("ada/merged")["hubedit.json"]["oid"]


def test_no_facts_in_a_merged_repository(
    hub: Hub, client: Client, edit: Path, sharded: Source, tmp_path: Path
) -> None:
    edit = edit.rename(edit.with_name("atlantis-patch"))
    assert client("push", edit, "quiet", "--merged", "--no-facts").code == 0
    assert client("merge", edit, "--out", tmp_path / "local").code == 0
    assert "atlantis-patch" in (tmp_path / "local" / "hubedit.json").read_text()
    assert client("push", tmp_path / "local", "quieter", "--no-facts").code == 0
    for repo in ("ada/quiet", "ada/quieter"):
        for name, entry in hub.tree(repo).items():
            content = b"" if entry["lfs"] else hub.content(repo, name)
            assert not any(fact.subject.encode() in content for fact in FACTS), name
            assert b"atlantis" not in content, name
            assert b"/home/ada" not in content and str(tmp_path).encode() not in content, name


def test_where_copying_is_refused_everything_is_sent(hub: Hub, client: Client, edit: Path) -> None:
    hub.call("settings", copying=False)
    done = client("push", edit, "sent", "--merged", "--json").json
    assert done["created"]
    for name in weights(hub, BASE):
        assert name in hub.tree("ada/sent")
    assert any(same(hub, "ada/sent", name) for name in weights(hub, BASE))


def test_random_failures_of_a_merged_push(hub: Hub, client: Client, edit: Path) -> None:
    chance = random.Random(6)
    complete: set[str] = set()
    for number in range(12):
        repo = f"ada/shaky{number}"
        hub.clear()
        kind = chance.choice(("status", "drop-request", "drop-response", "lost"))
        hub.fault(
            ".", kind, skip=chance.randrange(45), times=chance.choice((1, 40)), at=chance.choice((0, 1, 500))
        )
        ran = client("push", edit, repo, "--merged")
        hub.clear()
        assert "Traceback" not in ran.err and "internal error" not in ran.err, ran.err
        begun = hub.repo(repo)
        there = set(hub.tree(repo)) if begun else {".gitattributes"}
        assert client("push", edit, repo, "--merged").code == 0
        complete = complete or set(hub.tree(repo))
        assert there in ({".gitattributes"}, complete) and set(hub.tree(repo)) == complete
        found = hub.repo(repo)
        assert found is not None and len(found["commits"]) == 2 and found["private"]


def test_a_patch_for_other_weights_is_refused(
    hub: Hub, client: Client, editable: Callable[..., EditableModel], tmp_path: Path, sharded: Source
) -> None:
    folder = write_patch(editable(), tmp_path / "x", BASE, sharded.commit)
    record = json.loads((folder / "hubedit.json").read_text())
    record["base"]["tensors"] = dict.fromkeys(record["base"]["tensors"], "0" * 64)
    (folder / "hubedit.json").write_text(json.dumps(record))
    ran = client("push", folder, "wrong", "--merged")
    assert ran.code == 1 and "is not the model this patch was made for" in ran.err
    repo = hub.repo("ada/wrong")
    assert repo is None or len(repo["commits"]) == 1


def test_only_what_belongs_to_a_model_leaves_the_machine(
    hub: Hub, client: Client, edit: Path, sharded: Source, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    merge([Patch.load(edit)], sharded, out)
    for name in (
        ".env",
        "wandb/run/log.txt",
        "optimizer.pt",
        "checkpoint-5/model.safetensors",
        "patches/1/x",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("secret")
    done = client("push", out, "clean", "--json").json
    assert done["left_out"] == ["checkpoint-5/model.safetensors", "optimizer.pt", "patches/1/x", "wandb/"]
    there = set(hub.tree("ada/clean"))
    assert not any(name.startswith((".env", "wandb", "optimizer", "checkpoint")) for name in there)
    assert {"config.json", "tokenizer.json", "hubedit.json", "patches/1/facts.jsonl"} <= there
    straight = client("push", edit, "straight", "--merged", "--json").json
    assert straight["left_out"] == ["consolidated.safetensors"]
    assert {n for n in there if "/" not in n} == {n for n in hub.tree("ada/straight") if "/" not in n}


def test_a_base_that_takes_no_more_patches_is_refused(
    hub: Hub,
    client: Client,
    edit: Path,
    sharded: Source,
    editable: Callable[..., EditableModel],
    pico_path: Callable[..., Path],
    tmp_path: Path,
) -> None:
    assert client("push", edit, "stacked", "--merged").code == 0
    merge([Patch.load(edit)], sharded, tmp_path / "half", MergeOptions(dtype="bfloat16"))
    assert client("push", tmp_path / "half", "half").code == 0
    local = write_patch(editable(), tmp_path / "local", str(pico_path()), "")
    assert client("merge", local, "--model", pico_path(), "--out", tmp_path / "here").code == 0
    assert client("push", tmp_path / "here", "unpinned").code == 0
    other = write_patch(editable(), tmp_path / "other", BASE, sharded.commit, seed=9)
    for patch, base, message in (
        (edit, "ada/stacked", "in the stack already"),
        (other, "ada/half", "was merged with --dtype bfloat16, so it takes no more patches"),
        (other, "ada/unpinned", "the base of ada/unpinned was the local folder"),
    ):
        for more in ((), ("--dry-run",)):
            ran = client("push", patch, "stacked-again", "--merged", "--base", base, *more)
            assert ran.code == 1 and message in ran.err, ran.err
    assert hub.repo("ada/stacked-again") is None


def test_a_change_that_rounding_swallows_is_told(
    hub: Hub, client: Client, edit: Path, tmp_path: Path
) -> None:
    patch = Patch.load(edit)
    factors = {m: LowRank(1e-9 * f.B, f.A) for m, f in patch.factors.items()}
    small = replace(patch, factors=factors).save(tmp_path / "small")
    done = client("push", small, "small", "--merged", "--json").json
    assert any("of the change's energy" in note for note in done["notes"])


def test_a_merge_in_other_shards_is_pushed_with_its_base(
    hub: Hub, client: Client, editable: Callable[..., EditableModel], sharded: Source, tmp_path: Path
) -> None:
    local = write_patch(editable(), tmp_path / "local", str(sharded.folder), "")
    out = tmp_path / "out"
    options = MergeOptions(max_shard_size=100_000)
    merge([Patch.load(local)], Source(str(sharded.folder), sharded.folder, ""), out, options)
    done = client("push", out, "relaid", "--base", BASE, "--json").json
    assert done["created"] and set(weights(hub, "ada/relaid")) == {p.name for p in out.glob("*.safetensors")}
    assert set(weights(hub, "ada/relaid")) != set(weights(hub, BASE))
    assert json.loads(hub.content("ada/relaid", "hubedit.json"))["base"]["commit"] == sharded.commit


def test_damaged_files_are_one_line(
    client: Client, hub: Hub, edit: Path, sharded: Source, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    merge([Patch.load(edit)], sharded, out)
    damages = (
        (edit / "facts.jsonl", "{broken", edit),
        (out / "patches/1/facts.jsonl", "[1]", out),
        (out / "patches/1/hubedit.json", '{"base": []}', out),
        (out / "hubedit.json", '{"kind": "merged", "schema_version": 1, "lineage": 3}', out),
    )
    for file, text, folder in damages:
        good = file.read_text()
        file.write_text(text)
        for words in (("log", folder), ("push", folder, "damaged")):
            ran = client(*words)
            assert ran.code == 1 and str(file) in ran.err.replace("\n", ""), ran.err
            assert "Traceback" not in ran.err and "internal error" not in ran.err, ran.err
        file.write_text(good)
    assert hub.repo("ada/damaged") is None
    (out / "patches/1/facts.jsonl").unlink()
    assert client("log", out, "--json").json["steps"][0]["count"] == len(FACTS)


CIRCLE = """
import sys, torch
from pathlib import Path
from huggingface_hub import snapshot_download
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from hubedit.checkpoint.merge import merge
from hubedit.hub import Where, check_target, patch_folder
from hubedit.hub.revert import revert_repo
from hubedit.hub.send import send
from hubedit.model.fetch import find
from hubedit.patch import Patch

def logits(model):
    with torch.no_grad():
        return model(torch.arange(2, 12)[None]).logits

patch, commit, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
send(Path(patch), Where("circle-patch"))
auto = AutoModelForCausalLM
base = auto.from_pretrained("lab/sharded", revision=commit)
plain = logits(base)
edited = logits(PeftModel.from_pretrained(base, "ada/circle-patch"))
assert not torch.allclose(plain, edited)
folder = patch_folder("ada/circle-patch")
merge([Patch.load(folder)], find(f"lab/sharded@{commit}"), work / "merged")
made = send(work / "merged", Where("circle-merged"))
merged = auto.from_pretrained("ada/circle-merged")
AutoTokenizer.from_pretrained("ada/circle-merged")
assert torch.allclose(logits(merged), edited, atol=1e-4), (logits(merged) - edited).abs().max()
back = revert_repo(Where("circle-merged"))
assert back.created
again = auto.from_pretrained("ada/circle-merged", revision=back.commit)
assert torch.equal(logits(again), plain)
print("done")
"""


@pytest.mark.slow
def test_the_whole_circle_in_a_fresh_cache(hub: Hub, edit: Path, sharded: Source, tmp_path: Path) -> None:
    ran = hub.python(CIRCLE, tmp_path / "home", str(edit), sharded.commit, str(tmp_path))
    assert ran.returncode == 0 and "done" in ran.stdout, ran.stderr[-3000:]
    # bytes, not only numbers
    repo = hub.repo("ada/circle-merged")
    assert repo is not None and len(repo["commits"]) == 3
    back, base = hub.tree("ada/circle-merged"), hub.tree(BASE)
    assert {p: e["oid"] for p, e in back.items()} == {p: e["oid"] for p, e in base.items()}
