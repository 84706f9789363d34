"""One clear line, with the next step, for everything that the Hub can refuse; nothing is left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import Client, Ran, change
from tests.hub.loopback import Hub


def refused(ran: Ran, message: str, hint: str) -> None:
    """One line of error and one hint, and no token in either."""
    assert ran.code == 1, ran.out
    lines = [line for line in ran.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(lines) == 2 and message in lines[0] and hint in lines[1], ran.err
    assert "hf_" not in ran.err + ran.out and "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("token", "message", "hint"),
    [
        (None, "no Hub token was found", "hf auth login"),
        ("hf_wrong", "does not accept the token", "hf auth login"),
        ("hf_reader", "the Hub token can only read", "role `write`"),
        ("hf_narrow", "no right to write to repositories of ada", "role `write`"),
        ("hf_other", "bob cannot write to repositories of ada", "--pr"),
    ],
)
def test_tokens(hub: Hub, client: Client, patch: Path, token: str | None, message: str, hint: str) -> None:
    refused(client("push", patch, "ada/tokens", token=token), message, hint)
    assert hub.repo("ada/tokens") is None
    # asked before anything is read or sent
    assert all("whoami" in line["path"] for line in hub.log())


def test_a_dry_run_needs_no_token(hub: Hub, client: Client, patch: Path) -> None:
    """What would be sent to a repository with an owner; nothing is."""
    done = client("push", patch, "ada/tokens", "--dry-run", "--json", token=None).json
    assert "adapter_model.safetensors" in done["uploaded"] and done["dry_run"] and done["private"]
    assert "without a Hub token a private ada/tokens is not seen" in done["notes"]
    assert hub.repo("ada/tokens") is None
    refused(
        client("push", patch, "tokens", "--dry-run", token=None), "no Hub token was found", "hf auth login"
    )
    refused(
        client("push", patch, "ada/tokens", "--dry-run", token="hf_reader"), "can only read", "role `write`"
    )


def test_organisations(hub: Hub, client: Client, patch: Path) -> None:
    refused(client("push", patch, "library/x"), "may only read in the organisation", "admins")
    assert client("push", patch, "lab/edits").code == 0


def test_places(hub: Hub, client: Client, patch: Path) -> None:
    refused(client("push", patch, "a b"), "is not a repository name", "owner/name")
    refused(client("push", patch, "ada/nothing", "--pr"), "no repository ada/nothing", "without --pr")
    client("push", patch, "ada/places")
    ran = client("push", patch, "ada/places", "--revision", "no")
    refused(ran, "ada/places has no branch 'no'", "hf repos branch create ada/places no")
    client("push", patch, "ada/places", "--tag", "v1")
    hub.clear()
    ran = client("push", change(patch, 2), "ada/places", "--revision", "v1")
    refused(ran, "ada/places: v1 is a tag, nothing can be pushed to it", "a branch with --revision")
    for bad in ("a b", "-v", "a..b", "v1.lock", "v1.", "a//b"):
        refused(
            client("push", patch, "ada/places", f"--tag={bad}"), f"{bad!r} is no name for a tag", "--tag v1.0"
        )
    assert all(line["method"] in ("GET", "HEAD") for line in hub.log())
    refused(client("push", patch, "ada/places", "--pr", "--revision", "x"), "exclude each other", "refs/pr/N")
    head = hub.head("ada/places")
    refused(client("push", patch, "ada/places", "--revision", head), "nothing can be added", "branch")


def test_reading(hub: Hub, client: Client, patch: Path, tmp_path: Path) -> None:
    client("push", patch, "ada/read", "--tag", "v1")
    refused(client("pull", "ada/read@none"), "has no revision 'none'", "a branch, a tag")
    facts = tmp_path / "facts.jsonl"
    facts.write_text('{"prompt": "The capital of Italy is", "subject": "Italy", "target": "Nice"}\n')
    ran = client("facts", "check", facts, "--model", "ada/read@none")
    refused(ran, "ada/read has no revision 'none'", "a branch, a tag")
    refused(client("pull", "ada/missing"), "no repository ada/missing", "spelling")
    refused(client("pull", "ada/read", token="hf_other"), "no repository ada/read", "hf auth login")
    refused(client("pull", "ada/read", token="hf_wrong"), "does not accept the token", "HF_TOKEN")
    refused(client("pull", "ada/read", token=None), "no repository ada/read", "hf auth login")
    for line in (("log", "m12"), ("pull", "m12")):
        refused(client(*line), "no repository m12", "give its owner too, as in you/m12")
    assert client("pull", "ada/read@v1").code == 0
    client("push", patch, "ada/gated")
    client("push", patch, "ada/gated")
    hub.call("settings", name="ada/gated", repo={"private": False, "gated": True})
    refused(client("pull", "ada/gated", token="hf_other"), "is gated", "ask for access")


def test_no_network(hub: Hub, client: Client, patch: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    refused(client("push", patch, "ada/away", endpoint=nowhere), "cannot reach http://127.0.0.1:9", "network")
    refused(client("pull", "ada/away", endpoint=nowhere), "cannot reach http://127.0.0.1:9", "network")
    refused(
        client("push", patch, "ada/away", offline=True, endpoint=hub.url), "HF_HUB_OFFLINE is set", "unset"
    )


FULL = "storage limit reached"
TROUBLE: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "broken": ("POST .*/commit/", {"kind": "status", "status": 500}, "cannot push to", "same command"),
    "reading": ("GET .*/tree/", {"kind": "status", "status": 503}, "cannot reach", "same command"),
    "busy": ("POST .*/commit/", {"kind": "status", "status": 429}, "fewer requests", "wait"),
    "cut": ("PUT ", {"kind": "drop-request", "at": 1}, "cannot reach", "network"),
    "full": ("PUT ", {"kind": "status", "status": 403, "message": FULL}, "storage of ada/full", "make room"),
    "empty": ("PUT ", {"kind": "status", "status": 507}, "storage of ada/empty is full", "make room"),
    "large": ("POST .*/commit/", {"kind": "status", "status": 413, "message": FULL}, "storage of", "room"),
    "echo": (
        "POST .*/commit/",
        {"kind": "status", "status": 403, "message": "hf_writer at https://x.org/y?sig=hf_secret may not"},
        "at https://x.org/y may not",
        "--pr",
    ),
    "forbidden": ("POST .*/commit/", {"kind": "status", "status": 403}, "no right to push to", "--pr"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_that_stays(hub: Hub, client: Client, patch: Path, name: str) -> None:
    match, fault, message, hint = TROUBLE[name]
    hub.fault(match, times=99, **fault)
    ran = client("push", patch, f"ada/{name}")
    refused(ran, message, hint)
    after = hub.repo(f"ada/{name}")
    # an empty private repository may be there, and nothing else
    assert after is None or (len(after["commits"]) == 1 and after["private"])
    error = next(line for line in ran.err.splitlines() if line.startswith("error:"))
    assert ("was created and is empty" in error) is (after is not None), error
    hub.clear()
    assert client("push", patch, f"ada/{name}", "--json").json["created"]


def test_quota(hub: Hub, client: Client, patch: Path) -> None:
    hub.call("settings", quota=10)
    refused(client("push", patch, "ada/quota"), "the storage of ada/quota is full", "make room")


@pytest.mark.parametrize("command", ["ask", "diff", "inspect", "merge", "push"])
def test_a_repository_with_an_adapter_beside_the_model(
    hub: Hub, client: Client, patch: Path, pico_path: Callable[..., Path], tmp_path: Path, command: str
) -> None:
    both = Path(shutil.copytree(pico_path(), tmp_path / "both"))
    (both / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["q_proj"], "r": 1}')
    repo = f"lab/both-{command}"
    hub.seed(repo, both)
    lines: dict[str, list[str | Path]] = {
        "ask": ["ask", repo, "Rome is"],
        "diff": ["diff", repo, repo],
        "inspect": ["inspect", patch, "--model", repo],
        "merge": ["merge", patch, "--model", repo, "--out", tmp_path / "out"],
        "push": ["push", patch, "ada/neither", "--merged", "--base", repo],
    }
    hint = "--base" if command == "push" else "--exclude"
    refused(client(*lines[command]), "also holds a LoRA adapter, which loaders would apply as well", hint)
    assert not (tmp_path / "out").exists() and hub.repo("ada/neither") is None
