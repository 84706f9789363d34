"""Pushing a patch: what lands at the Hub, and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hubedit.model.editable import EditableModel
from hubedit.patch import Patch
from tests.hub.conftest import FACTS, Client, change, write_patch
from tests.hub.loopback import Hub


def commits(hub: Hub, repo: str) -> int:
    found = hub.repo(repo)
    return 0 if found is None else len(found["commits"])


def test_a_patch_is_pushed_in_one_private_commit(hub: Hub, client: Client, patch: Path) -> None:
    done = client("push", patch, "first", "--json").json
    assert (done["repo"], done["created"], done["private"]) == ("ada/first", True, True)
    repo = hub.repo("ada/first")
    assert repo is not None and repo["private"] and len(repo["commits"]) == 2
    weights = (patch / "adapter_model.safetensors").read_bytes()
    assert hub.content("ada/first", "adapter_model.safetensors") == weights
    assert b'PeftModel.from_pretrained(base, "ada/first")' in hub.content("ada/first", "README.md")
    assert {"facts.jsonl", "report.json", "plots/norms.png", "hubedit.json"} <= set(hub.tree("ada/first"))


def test_the_same_push_twice_makes_one_commit(hub: Hub, client: Client, patch: Path) -> None:
    client("push", patch, "twice")
    hub.clear()
    again = client("push", patch, "twice")
    assert again.code == 0 and "holds all of it already" in again.err and commits(hub, "ada/twice") == 2
    assert not [
        line for line in hub.log() if line["method"] in ("PUT", "DELETE") or "/commit/" in line["path"]
    ]
    change(patch, 5)
    hub.clear()
    third = client("push", patch, "twice", "--json").json
    assert "adapter_model.safetensors" in third["uploaded"] and "report.json" in third["kept"]
    assert commits(hub, "ada/twice") == 3


def test_no_local_path_is_pushed(hub: Hub, client: Client, patch: Path) -> None:
    client("push", patch, "paths")
    for name, entry in hub.tree("ada/paths").items():
        if not entry["lfs"]:
            assert b"/home/ada" not in hub.content("ada/paths", name), name
    assert "--out=out" in json.loads(hub.content("ada/paths", "hubedit.json"))["command"]


def test_no_facts_means_no_word_of_them(hub: Hub, client: Client, patch: Path) -> None:
    patch = patch.rename(patch.with_name("atlantis-patch"))
    client("push", patch, "silent")
    done = client("push", patch, "silent", "--no-facts", "--json").json
    assert set(done["deleted"]) == {"facts.jsonl"} and "earlier commits" in done["notes"][0]
    for name in hub.tree("ada/silent"):
        content = hub.content("ada/silent", name).decode(errors="ignore")
        for fact in FACTS:
            assert fact.subject not in content and fact.target.strip() not in content, name
        assert "atlantis" not in content, name
    record = json.loads(hub.content("ada/silent", "hubedit.json"))
    assert record["command"] == ["hubedit", "apply", "facts.jsonl", "--out=patch"]
    assert record["facts"]["count"] == 2 and len(record["facts"]["sha256"]) == 64
    report = json.loads(hub.content("ada/silent", "report.json"))
    assert report["metrics"] == {"success": 1.0} and report["facts"][0]["rank_after"] == 1


def test_a_local_base_must_be_named(
    hub: Hub,
    client: Client,
    base: tuple[str, str],
    editable: Callable[..., EditableModel],
    pico_path: Callable[..., Path],
    tmp_path: Path,
) -> None:
    local = write_patch(editable(), tmp_path / "local", str(pico_path()), "")
    refused = client("push", local, "based")
    assert refused.code == 1 and "--base OWNER/NAME" in refused.err and str(pico_path()) not in refused.err
    assert hub.repo("ada/based") is None
    hub.seed("lab/gpt2", pico_path("gpt2"))
    wrong = client("push", local, "based", "--base", "lab/gpt2")
    assert "is not the model that the patch was made for" in wrong.err
    assert client("push", local, "based", "--base", "lab/pico").code == 0
    config = json.loads(hub.content("ada/based", "adapter_config.json"))
    assert (config["base_model_name_or_path"], config["revision"]) == base
    assert json.loads(hub.content("ada/based", "hubedit.json"))["base"]["ref"] == "lab/pico"
    assert b"base_model: lab/pico" in hub.content("ada/based", "README.md")
    for name in hub.tree("ada/based"):
        assert str(pico_path()).encode() not in hub.content("ada/based", name)


def test_a_pull_request_is_opened_once_and_gone_on_with(hub: Hub, client: Client, patch: Path) -> None:
    client("push", patch, "asked")
    change(patch, 2)
    first = client("push", patch, "ada/asked", "--pr", "--json", token="hf_fine").json
    assert first["revision"] == "refs/pr/1" and first["url"].endswith("/discussions/1")
    again = client("push", patch, "ada/asked", "--pr", "--json").json
    assert not again["created"] and again["revision"] == "refs/pr/1"
    change(patch, 3)
    more = client("push", patch, "ada/asked", "--revision", "refs/pr/1", "--json").json
    assert more["created"]
    repo = hub.repo("ada/asked")
    assert repo is not None and len(repo["discussions"]) == 1 and repo["refs"]["refs/pr/1"] == more["commit"]
    assert repo["refs"]["refs/heads/main"] != more["commit"]


def test_tag_message_and_visibility(hub: Hub, client: Client, patch: Path) -> None:
    done = client("push", patch, "open", "--public", "--tag", "v1", "--message", "Hello", "--json")
    assert "public" in done.err and not done.json["private"]
    repo = hub.repo("ada/open")
    assert repo is not None and repo["refs"]["refs/tags/v1"] == done.json["commit"]
    assert client("push", patch, "open", "--tag", "v1").code == 0
    change(patch, 9)
    taken = client("push", patch, "open", "--tag", "v1")
    assert taken.code == 1 and "has a tag v1 already" in taken.err and commits(hub, "ada/open") == 2
    hidden = client("push", patch, "open", "--private")
    assert hidden.code == 1 and "is public already" in hidden.err


def test_dry_run_lists_and_does_nothing(hub: Hub, client: Client, patch: Path) -> None:
    done = client("push", patch, "dry", "--dry-run")
    assert done.code == 0 and "adapter_model.safetensors" in done.out and hub.repo("ada/dry") is None
    assert not [line for line in hub.log() if line["method"] == "PUT"]


def test_a_patch_never_lands_in_a_model(hub: Hub, client: Client, patch: Path, base: tuple[str, str]) -> None:
    refused = client("push", patch, "lab/pico")
    assert refused.code == 1 and "holds a model" in refused.err and hub.head("lab/pico") == base[1]


def test_pull_and_push_are_a_circle(hub: Hub, client: Client, patch: Path, tmp_path: Path) -> None:
    client("push", patch, "circle")
    out = tmp_path / "pulled"
    found = client("pull", "ada/circle", "--out", out, "--json").json
    assert found["kind"] == "patch" and found["commit"] == hub.head("ada/circle")
    ours, theirs = Patch.load(patch), Patch.load(out)
    for module, factor in ours.factors.items():
        assert factor.A.equal(theirs.factors[module].A) and factor.B.equal(theirs.factors[module].B)
    assert theirs.facts == ours.facts
    assert client("push", out, "circle", "--json").json["created"] is False
    assert client("pull", "ada/circle", "--out", out).code != 0
    cached = client("pull", f"ada/circle@{found['commit']}", "-q", offline=False)
    assert Path(cached.out.strip()).name == found["commit"]
