"""Random failures during a push: the repository is as before or as it shall be, and no local file is lost."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from tests.hub.conftest import Client, change
from tests.hub.loopback import Hub

ROUNDS = 60
KINDS = ("status", "drop-request", "drop-response", "lost", "slow")
STATUS = (400, 403, 404, 412, 429, 500, 502, 503)


def state(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def contents(hub: Hub, repo: str) -> dict[str, str]:
    return {path: entry["sha256"] for path, entry in hub.tree(repo).items()}


@pytest.mark.slow
def test_random_failures(hub: Hub, client: Client, patch: Path) -> None:
    chance = random.Random(4)
    assert client("push", patch, "faulty").code == 0
    done = failed = faults = 0
    for number in range(ROUNDS):
        change(patch, number)
        local, before = state(patch), contents(hub, "ada/faulty")
        head, weights = hub.head("ada/faulty"), local["adapter_model.safetensors"]
        hub.clear()
        kind = chance.choice(KINDS)
        hub.fault(
            ".",
            kind,
            skip=chance.randrange(11),
            times=chance.choice((1, 2, 40, 40)),
            status=chance.choice(STATUS),
            at=chance.choice((0, 1, 20, 200, 3000)),
            seconds=0.01,
        )
        ran = client("push", patch, "faulty")
        met = [line for line in hub.log() if line["fault"]]
        hub.clear()
        faults += bool(met)
        assert state(patch) == local
        after = contents(hub, "ada/faulty")
        assert ran.code in (0, 1), (met, ran.err)
        assert "Traceback" not in ran.err and "internal error" not in ran.err, (met, ran.err)
        if after["adapter_model.safetensors"] == weights:
            done += 1
            repo = hub.repo("ada/faulty")
            assert repo is not None
            # one commit, even where its answer was lost
            assert repo["commits"][repo["commits"].index(head) + 1 :] == [hub.head("ada/faulty")]
        else:
            failed += 1
            assert after == before and hub.head("ada/faulty") == head and ran.code == 1, (met, ran.err)
            assert len([line for line in ran.err.splitlines() if line.startswith("error:")]) == 1
        # the same command again always ends well, and adds at most the one commit that was missing
        assert client("push", patch, "faulty").code == 0
        assert contents(hub, "ada/faulty")["adapter_model.safetensors"] == weights
    assert faults >= 50 and done > 10 and failed > 10


def test_random_failures_of_a_first_push(hub: Hub, client: Client, patch: Path) -> None:
    chance = random.Random(5)
    for number in range(12):
        repo = f"ada/new{number}"
        hub.clear()
        hub.fault(".", chance.choice(KINDS), skip=chance.randrange(16), times=chance.choice((1, 40)), at=1)
        client("push", patch, repo)
        hub.clear()
        found = hub.repo(repo)
        # never a part of the patch, and never a public repository
        assert (
            found is None
            or (found["private"] and set(hub.tree(repo)) == {".gitattributes"})
            or ("adapter_config.json" in hub.tree(repo) and "adapter_model.safetensors" in hub.tree(repo))
        )
        assert client("push", patch, repo).code == 0


def test_a_race_is_retried_on_the_new_parent(hub: Hub, client: Client, patch: Path) -> None:
    client("push", patch, "race")
    change(patch, 1)
    hub.fault("POST .*/commit/", "race", repo="ada/race", files={"NOTES.md": "by somebody else"})
    done = client("push", patch, "race", "--json").json
    assert done["created"] and hub.content("ada/race", "NOTES.md") == b"by somebody else"
    assert hub.head("ada/race") == done["commit"]


def test_a_race_for_the_same_file_is_reported(hub: Hub, client: Client, patch: Path) -> None:
    client("push", patch, "rival")
    change(patch, 1)
    hub.fault("POST .*/commit/", "race", repo="ada/rival", files={"adapter_config.json": "{}"})
    ran = client("push", patch, "rival")
    assert ran.code == 1 and "somebody else changed adapter_config.json" in ran.err
    assert hub.content("ada/rival", "adapter_config.json") == b"{}"


def test_a_lost_answer_makes_no_second_commit_or_pull_request(hub: Hub, client: Client, patch: Path) -> None:
    client("push", patch, "lost")
    change(patch, 1)
    hub.fault("POST .*/commit/", "lost")
    assert client("push", patch, "lost", "--json").json["created"]
    change(patch, 2)
    hub.fault("POST .*/commit/", "lost")
    asked = client("push", patch, "ada/lost", "--pr", "--json").json
    repo = hub.repo("ada/lost")
    assert repo is not None and len(repo["commits"]) == 4 and len(repo["discussions"]) == 1
    assert asked["revision"] == "refs/pr/1"
