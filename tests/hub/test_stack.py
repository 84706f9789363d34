"""Several patches in one merged repository: added together, on top, and taken out again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubedit.checkpoint.merge import Attached, merge
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import Source
from hubedit.patch import Patch
from hubedit.patch.compose import compose
from hubedit.weights.header import read_header
from tests.hub.conftest import BASE, FACTS, Client, write_patch
from tests.hub.loopback import Hub
from tests.hub.test_merged import same, sent, weights

OTHER = (Fact("The anthem of Utopia is called", "Utopia", " Amaurote"),)


@pytest.fixture
def two(editable: Callable[..., EditableModel], sharded: Source, tmp_path: Path) -> tuple[Path, Path]:
    """Patches that share the weights of layer 2; the second one changes layer 1 as well."""
    one = write_patch(editable(), tmp_path / "one", BASE, sharded.commit)
    place = tmp_path / "more"
    more = write_patch(editable(), place, BASE, sharded.commit, seed=2, facts=OTHER, layers=(1, 2))
    return one, more


def record(hub: Hub, repo: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hub.content(repo, "hubedit.json"))
    found.pop("packages"), found["base"].pop("licence")
    return found


def holds(hub: Hub, repo: str, patches: list[Path], base: Source, out: Path) -> dict[str, Any]:
    """That a repository has the weights and the record of a merge here; returns the record."""
    attached = [Attached(patch.name) for patch in patches]
    ours = merge([Patch.load(p) for p in patches], base, out, attached=attached).record.to_json()
    ours.pop("packages"), ours["base"].pop("licence")
    for name in weights(hub, BASE):
        assert hub.content(repo, name) == (out / name).read_bytes(), name
    found = record(hub, repo)
    assert found == ours
    for number, patch in enumerate(patches, 1):
        path = f"patches/{number}/adapter_model.safetensors"
        assert hub.content(repo, path) == (patch / "adapter_model.safetensors").read_bytes()
    assert f"patches/{len(patches) + 1}/hubedit.json" not in hub.tree(repo)
    return found


def test_several_patches_are_merged_on_the_way_and_taken_out_again(
    hub: Hub, client: Client, two: tuple[Path, Path], sharded: Source, tmp_path: Path
) -> None:
    done = client("push", *two, "pair", "--merged", "--json").json
    ids = [p["id"] for p in holds(hub, "ada/pair", list(two), sharded, tmp_path / "both")["lineage"]]
    assert len(client("log", "ada/pair", "--json").json["steps"]) == 2
    card = hub.content("ada/pair", "README.md").decode()
    assert FACTS[0].prompt in card and OTHER[0].prompt in card
    assert client("push", *two, "pair", "--merged", "--json").json["created"] is False

    unclear = client("revert", "ada/pair", "--yes")
    assert unclear.code == 2 and ids[0] in unclear.err and "--last" in unclear.err
    before = set(hub.tree("ada/pair"))
    hub.clear()
    back = client("revert", "ada/pair", "--last", "--yes", "--json").json
    assert back["created"]
    found = holds(hub, "ada/pair", [two[0]], sharded, tmp_path / "first")
    anew = {t["base_file"] for t in found["realised"].values()}
    large = {p for p in back["uploaded"] if p.endswith(".safetensors") and "/" not in p}
    # the base's shards are copied on the server; sent is only what the other patch still changes
    assert large == anew and sent(hub) == sum(back["uploaded"][name] for name in large)
    copied = {p for p in back["copied"] if p.endswith(".safetensors") and "/" not in p}
    touched = {p for p in done["uploaded"] if p.endswith(".safetensors") and "/" not in p}
    assert copied == touched - anew and all(same(hub, "ada/pair", name) for name in copied)
    assert set(hub.tree("ada/pair")) == {p for p in before if not p.startswith("patches/2/")}
    card = hub.content("ada/pair", "README.md").decode()
    assert FACTS[0].prompt in card and OTHER[0].prompt not in card

    # in the order of the history: everything, and the base itself
    assert client("revert", "ada/pair", "--yes", "--json").json["created"]
    assert {p: e["oid"] for p, e in hub.tree("ada/pair").items()} == {
        p: e["oid"] for p, e in hub.tree(BASE).items()
    }
    repo = hub.repo("ada/pair")
    assert repo is not None and len(repo["commits"]) == 4


def test_a_patch_in_the_middle_is_taken_out_by_its_id(
    hub: Hub, client: Client, two: tuple[Path, Path], sharded: Source, tmp_path: Path
) -> None:
    client("push", *two, "middle", "--merged")
    first = record(hub, "ada/middle")["lineage"][0]["id"]
    wrong = client("revert", "ada/middle", "--patch", "nothing", "--yes")
    assert wrong.code == 2 and "no patch of the stack" in wrong.err
    # copying refused: the files are sent
    hub.call("settings", copying=False)
    assert client("revert", "ada/middle", "--patch", first[:6], "--yes", "--json").json["created"]
    holds(hub, "ada/middle", [two[1]], sharded, tmp_path / "second")
    hub.call("settings", copying=True)
    client("push", *two, "all", "--merged")
    assert client("revert", "ada/all", "--all", "--yes", "--json").json["created"]
    assert all(same(hub, "ada/all", name) for name in weights(hub, BASE))


def test_a_patch_on_top_of_a_merged_repository(
    hub: Hub, client: Client, two: tuple[Path, Path], sharded: Source, tmp_path: Path
) -> None:
    client("push", two[0], "grown", "--merged")
    first = hub.head("ada/grown")
    one = client("push", two[1], "grown", "--merged", "--base", "ada/grown", "--json").json
    assert one["created"] and not any("replaces" in note for note in one["notes"])
    holds(hub, "ada/grown", list(two), sharded, tmp_path / "both")
    again = client("push", two[1], "grown", "--merged", "--base", "ada/grown", "--json").json
    assert not again["created"]
    twice = client("push", two[1], "elsewhere", "--merged", "--base", "ada/grown")
    assert twice.code == 1 and "in the stack already" in twice.err
    other = client("push", two[1], "elsewhere", "--merged", "--base", f"ada/grown@{first}", "--json").json
    assert other["created"]
    holds(hub, "ada/elsewhere", list(two), sharded, tmp_path / "there")
    # without --base the patch goes into its own base, and what was there is named
    told = client("push", two[1], "grown", "--merged", "--json").json
    assert any("held one until now" in note and "--base ada/grown" in note for note in told["notes"])
    holds(hub, "ada/grown", [two[1]], sharded, tmp_path / "alone")
    # no word of any fact, the older ones' neither
    assert (
        client("push", two[1], "hushed", "--merged", "--base", f"ada/grown@{first}", "--no-facts").code == 0
    )
    for name, entry in hub.tree("ada/hushed").items():
        content = b"" if entry["lfs"] else hub.content("ada/hushed", name)
        assert not any(fact.subject.encode() in content for fact in (*FACTS, *OTHER)), name


def test_a_composed_patch_is_merged_like_any_other(
    hub: Hub, client: Client, two: tuple[Path, Path], sharded: Source, tmp_path: Path
) -> None:
    whole = compose([Patch.load(path) for path in two]).save(tmp_path / "whole")
    assert client("push", whole, "composed", "--merged").code == 0
    holds(hub, "ada/composed", [whole], sharded, tmp_path / "out")
    # a patch is named by its repository, too
    client("push", two[0], "one")
    client("push", two[1], "more")
    assert client("push", "ada/one", "ada/more", "named", "--merged").code == 0
    for name in weights(hub, BASE):
        assert hub.content("ada/named", name)
    assert [p["name"] for p in record(hub, "ada/named")["lineage"]] == ["ada/one", "ada/more"]


def test_what_does_not_go_together_is_refused(
    hub: Hub, client: Client, two: tuple[Path, Path], editable: Callable[..., EditableModel], tmp_path: Path
) -> None:
    loose = client("push", *two, "loose")
    assert loose.code == 1 and "several patches" in loose.err and "--merged" in loose.err
    twice = client("push", two[0], two[0], "loose", "--merged")
    assert twice.code == 1 and "in the stack already" in twice.err
    facts = (Fact(FACTS[0].prompt, FACTS[0].subject, " Rome"),)
    against = write_patch(editable(), tmp_path / "against", BASE, hub.head(BASE), seed=3, facts=facts)
    ran = client("push", two[0], against, "loose", "--merged")
    assert ran.code == 1 and FACTS[0].prompt in ran.err and "Traceback" not in ran.err
    assert "hint: make one patch of them first: hubedit compose" in ran.err
    # refused before the base is downloaded, here too
    hub.clear()
    ran = client("merge", two[0], against, "--out", tmp_path / "out")
    assert ran.code == 1 and FACTS[0].prompt in ran.err and "--on-conflict last or first" in ran.err
    ran = client("merge", two[0], "--out", two[1])
    assert ran.code != 0 and f"{two[1]} exists already" in ran.err
    assert not hub.log()
    stranger = write_patch(editable(), tmp_path / "stranger", "lab/pico", "a" * 40, seed=4)
    ran = client("push", two[0], stranger, "loose", "--merged")
    assert ran.code == 1 and "was made for lab/pico@aaaaaaaa" in ran.err and "--base" in ran.err
    assert hub.repo("ada/loose") is None


def test_a_repository_that_was_changed_since_is_left_alone(
    hub: Hub, client: Client, two: tuple[Path, Path], sharded: Source, tmp_path: Path
) -> None:
    client("push", *two, "changed", "--merged")
    # somebody trained the model further, and pushed its weights over the merged ones
    tuned, head = tmp_path / "tuned", hub.head("ada/changed")
    tuned.mkdir()
    for name in hub.tree("ada/changed"):
        (tuned / name).parent.mkdir(parents=True, exist_ok=True)
        (tuned / name).write_bytes(hub.content("ada/changed", name))
    for tensor, touched in record(hub, "ada/changed")["realised"].items():
        entry = read_header(tuned / touched["base_file"]).tensors[tensor]
        with entry.file.open("r+b") as stream:
            stream.seek(entry.start)
            stream.write(b"\1\2\3\4")
    hub.seed("ada/tuned", tuned)
    for words in (("--last",), ("--patch", record(hub, "ada/tuned")["lineage"][0]["id"])):
        ran = client("revert", "ada/tuned", *words, "--yes")
        assert ran.code == 1 and "was changed after the merge" in ran.err, ran.err
    repo = hub.repo("ada/tuned")
    assert repo is not None and len(repo["commits"]) == 2 and hub.head("ada/changed") == head


@pytest.mark.slow
def test_random_failures_of_taking_out(
    hub: Hub, client: Client, two: tuple[Path, Path], sharded: Source, tmp_path: Path
) -> None:
    chance = random.Random(7)
    client("push", *two, "stack", "--merged")
    client("push", two[0], "goal", "--merged")
    goal = {n: e["oid"] for n, e in hub.tree("ada/goal").items() if n.startswith("model")}
    for number in range(12):
        repo = f"ada/fall{number}"
        hub.clear()
        assert client("push", *two, repo, "--merged").code == 0
        before = hub.tree(repo)
        kind = chance.choice(("status", "drop-request", "drop-response", "lost"))
        skip, times, at = chance.randrange(40), chance.choice((1, 40)), chance.choice((0, 1, 500))
        hub.fault(".", kind, skip=skip, times=times, at=at)
        ran = client("revert", repo, "--last", "--yes")
        hub.clear()
        assert "Traceback" not in ran.err and "internal error" not in ran.err, ran.err
        now = hub.tree(repo)
        there = {n: e["oid"] for n, e in now.items() if n.startswith("model")}
        assert now == before or there == goal, (kind, skip)
        if now == before:
            assert client("revert", repo, "--last", "--yes").code == 0
            there = {n: e["oid"] for n, e in hub.tree(repo).items() if n.startswith("model")}
        assert there == goal
