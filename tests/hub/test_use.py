"""Using what was pushed: log, revert, patches by their repository, shared statistics, apply --push."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hubedit.cache import Cache
from hubedit.model.editable import EditableModel
from tests.hub.conftest import FACTS, Client, change, write_patch
from tests.hub.loopback import Hub

QUICK = (
    "--layers",
    "1-2",
    "--alpha",
    "0.5",
    "--tokens",
    "200",
    "--device",
    "cpu",
)


def test_log_of_a_patch_here_and_there(hub: Hub, client: Client, patch: Path) -> None:
    here = client("log", patch, "--json").json
    client("push", patch, "logged")
    change(patch, 1)
    client("push", patch, "logged", "--message", "Better")
    there = client("log", "ada/logged", "--json").json
    for found in (here, there):
        (step,) = found["steps"]
        assert found["kind"] == "patch" and step["count"] == 2 and step["metrics"] == {"success": 1.0}
        assert step["facts"] == [[fact.prompt, fact.target.strip()] for fact in FACTS]
    assert [line["title"] for line in there["commits"]] == [
        "Better",
        "Patch of 2 edited facts for lab/pico",
        "initial commit",
    ]
    assert there["steps"][0]["date"] == there["commits"][0]["date"]
    text = client("log", "ada/logged")
    assert FACTS[0].prompt in text.out and "Better" in text.out


def test_log_of_a_merged_model_and_its_revert(
    hub: Hub, client: Client, patch: Path, base: tuple[str, str]
) -> None:
    client("push", patch, "grown", "--merged")
    found = client("log", "ada/grown", "--json").json
    assert found["kind"] == "merged" and found["steps"][0]["name"] == "patch" and found["steps"][0]["id"]
    assert found["steps"][0]["base_commit"] == base[1]
    asked = client("revert", "ada/grown")
    assert asked.code == 2 and "add --yes" in asked.err
    # what cannot be reverted is told at once, whoever would say yes
    client("push", patch, "alone")
    for words in ((), ("--yes",)):
        plain = client("revert", "lab/pico", *words)
        assert plain.code == 1 and "lab/pico holds no merged patches\nhint: nothing to revert" in plain.err
        ran = client("revert", "ada/alone", *words)
        assert ran.code == 1 and "ada/alone holds a patch, and no model" in ran.err
        assert "hint: give the merged model" in ran.err and "--yes" not in ran.err


def test_doctor_of_a_repository(hub: Hub, client: Client, patch: Path) -> None:
    found = client("doctor", "lab/pico", "--device", "cpu", "--json").json
    assert found["ok"] and found["plan"]["num_layers"] == 4
    client("push", patch, "seen")
    alone = client("doctor", "ada/seen")
    assert alone.code == 1 and "holds a patch" in alone.out and "name its base model" in alone.out
    none = client("doctor", "ada/none")
    assert none.code == 1 and none.err.startswith("error: ") and "ada/none" in none.err


def test_a_patch_is_used_by_its_repository(hub: Hub, client: Client, patch: Path) -> None:
    client("push", patch, "used")
    head = hub.head("ada/used")
    said = client("ask", "lab/pico", "The capital of Atlantis is", "-p", f"ada/used@{head}", "--json").json
    assert {"with", "without"} <= set(said["prompts"][0])
    wrong = client("ask", "lab/pico", "x", "-p", "lab/pico")
    assert wrong.code == 1 and "holds no patch" in wrong.err
    # the cache is enough afterwards
    offline = client(
        "ask", f"lab/pico@{hub.head('lab/pico')}", "x", "-p", f"ada/used@{head}", "-q", offline=True
    )
    assert offline.code == 0, offline.err
    cold = client("ask", "lab/pico", "x", "-p", "ada/never", offline=True)
    assert "is not in the local cache, and HF_HUB_OFFLINE is set" in cold.err


def test_inspect_leaves_the_weights_of_a_plain_model_at_the_hub(
    hub: Hub, client: Client, pico_path: Callable[..., Path]
) -> None:
    hub.seed("lab/plain", pico_path())
    hub.clear()
    told = client("inspect", "lab/plain")
    assert told.code == 1 and "hubedit merged no patch into lab/plain" in told.err
    paths = [line["path"] for line in hub.log()]
    assert paths and not [path for path in paths if "safetensors" in path]


def test_inspect_and_diff_read_repositories(hub: Hub, client: Client, patch: Path) -> None:
    client("push", patch, "seen")
    told = client("inspect", "ada/seen", "--json").json
    assert len(told["facts"]) == len(FACTS)
    assert client("diff", patch, "ada/seen", "--json").json["same"]
    client("push", patch, "seen-merged", "--merged")
    told = client("inspect", "ada/seen-merged", "--json").json
    assert len(told["patches"][0]["facts"]) == len(FACTS) and not told["changed_since"]
    found = client("diff", "lab/pico", "ada/seen-merged", "--json").json
    assert len(found["changed"]) == len(told["tensors"])


def test_statistics_are_shared_and_checked(hub: Hub, client: Client, tmp_path: Path) -> None:
    mine, yours = Cache(tmp_path / "mine"), Cache(tmp_path / "yours")
    key = {"model": "m" * 40, "site": "1.mlp"}
    record = {
        "model": "/home/ada/model",
        "identity": "m" * 40,
        "site": "1.mlp",
        "corpus": "self",
        "tokens": 9,
    }
    mine.save("stats", key, {"matrix": torch.eye(4), "count": torch.tensor(9)}, record)
    secret = {"model": "x", "corpus": {"file": "/home/ada/text.txt"}}
    mine.save("stats", secret, {"matrix": torch.eye(4), "count": torch.tensor(9)}, record)
    done = client("stats", "push", "figures", "--cache", mine.root, "--json").json
    assert done["created"] and len(done["left_out"]) == 1 and len(done["uploaded"]) == 2
    assert not client("stats", "push", "figures", "--cache", mine.root, "--json").json["created"]
    got = client("stats", "pull", "ada/figures", "--cache", yours.root, "--json").json
    assert len(got["added"]) == 1
    entry = yours.load("stats", key)
    assert entry is not None and entry.tensors["matrix"].equal(torch.eye(4))
    assert entry.record["model"] == "model"
    # a file under a name that is not its key's
    wrong = tmp_path / "wrong" / "stats"
    wrong.mkdir(parents=True)
    os.link(mine.path("stats", key), wrong / f"{'0' * 32}.safetensors")
    hub.seed("lab/forged", wrong.parent)
    forged = client("stats", "pull", "lab/forged", "--cache", tmp_path / "third")
    assert forged.code == 1 and "is not what its name says" in forged.err
    assert not list((tmp_path / "third").rglob("*.safetensors"))
    nothing = client("stats", "push", "none", "--cache", tmp_path / "empty")
    assert nothing.code == 1 and "holds no statistics" in nothing.err


@pytest.mark.slow
def test_apply_pushes_and_shares(hub: Hub, client: Client, tmp_path: Path, base: tuple[str, str]) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text(
        json.dumps({"prompt": "The capital of Italy is", "subject": "Italy", "target": "Paris"}) + "\n"
    )
    words = ("apply", facts, "--model", "lab/pico", *QUICK, "-q")
    refused = client(*words, "--out", tmp_path / "a", "--push", "ada/applied", token="hf_reader")
    assert refused.code == 1 and "can only read" in refused.err and not (tmp_path / "a").exists()
    hub.fault("POST .*/commit/", "status", status=500, times=99)
    failed = client(*words, "--out", tmp_path / "a", "--push", "ada/applied", "--cache", tmp_path / "c1")
    assert failed.code == 1 and (tmp_path / "a" / "adapter_model.safetensors").is_file()
    assert f"hubedit push {tmp_path / 'a'} ada/applied" in failed.err
    hub.clear()
    assert client("push", tmp_path / "a", "ada/applied").code == 0
    assert client("stats", "push", "applied-stats", "--cache", tmp_path / "c1").code == 0
    hub.clear()
    again = client(
        *words, "--out", tmp_path / "b", "--push", "ada/applied", "--stats-repo", "ada/applied-stats",
        "--cache", tmp_path / "c2",
    )  # fmt: skip
    assert again.code == 0, again.err
    assert [line for line in hub.log() if "resolve" in line["path"] and "/stats/" in line["path"]]
    same = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    assert (tmp_path / "b" / "adapter_model.safetensors").read_bytes() == same
    found = hub.repo("ada/applied")
    assert found is not None and found["private"]
    record = json.loads((tmp_path / "b" / "hubedit.json").read_text())
    assert record["statistics"]["repo"] == "ada/applied-stats"
    assert "statistics: ada/applied-stats" not in again.err  # quiet

    # a fresh edit of the same base, with the statistics that a patch was made with
    assert client("push", tmp_path / "b", "ada/applied").code == 0
    for patch in (tmp_path / "b", "ada/applied"):
        hub.clear()
        more = client(*words[:-1], "--stats-repo", patch, "--out", tmp_path / "c", "--force",
                      "--cache", tmp_path / "c3")  # fmt: skip
        assert more.code == 0 and "statistics: ada/applied-stats" in more.err, more.err
        assert fetched(hub) and len(list((tmp_path / "c3" / "stats").glob("*.safetensors"))) == fetched(hub)
        shutil.rmtree(tmp_path / "c3")

    # on top of a patch other statistics are wanted: of the model with the patch in it
    other = tmp_path / "other.jsonl"
    other.write_text(
        json.dumps({"prompt": "The capital of France is", "subject": "France", "target": "Rome"}) + "\n"
    )
    top = ("apply", other, "--on", tmp_path / "b", *words[2:-1])
    assert client(*top, "--out", tmp_path / "d", "--cache", tmp_path / "c4").code == 0
    assert client("stats", "push", "applied-stats", "--cache", tmp_path / "c4").code == 0
    hub.clear()
    auto = client(*top, "--stats-repo", "auto", "--out", tmp_path / "e", "--cache", tmp_path / "c5")
    assert auto.code == 0 and fetched(hub), auto.err
    assert json.loads((tmp_path / "e" / "hubedit.json").read_text())["statistics"]["repo"]
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "de"]
    assert weights[0] == weights[1]

    # nobody named the repository, and without it the statistics only take longer
    hub.fault("GET .*applied-stats", "status", status=404, times=99)
    gone = client(*top, "--stats-repo", "auto", "--out", tmp_path / "f", "--cache", tmp_path / "c6")
    assert gone.code == 0 and "statistics are computed instead" in gone.err, gone.err
    assert (tmp_path / "f" / "adapter_model.safetensors").read_bytes() == weights[0]


def fetched(hub: Hub) -> int:
    """How many statistics were downloaded."""
    paths = {line["path"] for line in hub.log() if line["method"] == "GET" and line["status"] == 200}
    return len([path for path in paths if "resolve" in path and "/stats/" in path])


def test_what_names_no_statistics(hub: Hub, client: Client, patch: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text(json.dumps({"prompt": "Italy is", "subject": "Italy", "target": "Paris"}) + "\n")
    words = ("apply", facts, "--model", "lab/pico", "--out", tmp_path / "a", "--device", "cpu")
    none = client(*words, "--stats-repo", patch)
    assert none.code == 1 and "names no repository of statistics" in none.err and "OWNER/NAME" in none.err
    away = client(*words, "--stats-repo", "lab/none")
    assert away.code == 1 and "no repository lab/none" in away.err
    path = client(*words, "--stats-repo", "./none")
    assert path.code == 1 and "is not a repository name" in path.err


def test_a_push_of_a_local_base_names_no_folder_in_a_merged_model(
    hub: Hub,
    client: Client,
    base: tuple[str, str],
    editable: Callable[..., EditableModel],
    pico_path: Callable[..., Path],
    tmp_path: Path,
) -> None:
    local = write_patch(editable(), tmp_path / "local", str(pico_path()), "")
    assert client("merge", local, "--model", pico_path(), "--out", tmp_path / "m").code == 0
    done = client("push", tmp_path / "m", "localbase", "--json").json
    assert not done["copied"]
    for name, entry in hub.tree("ada/localbase").items():
        content = b"" if entry["lfs"] else hub.content("ada/localbase", name)
        assert str(pico_path()).encode() not in content and str(tmp_path).encode() not in content, name
    hub.seed("lab/else", pico_path("gpt2"))
    wrong = client("push", tmp_path / "m", "withbase", "--base", "lab/else")
    assert wrong.code == 1 and "is not the base that" in wrong.err and hub.repo("ada/withbase") is None
    based = client("push", tmp_path / "m", "withbase", "--base", "lab/pico", "--json").json
    assert "originals/model.safetensors" not in hub.tree("ada/withbase")
    assert based["created"]
