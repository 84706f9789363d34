"""The whole circle by command line: apply and push, load with PEFT, merge and push, load, take back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hub.conftest import Client
from tests.hub.loopback import Hub
from tests.hub.test_use import QUICK

LOADED = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

def logits(model):
    with torch.no_grad():
        return model(torch.arange(2, 12)[None]).logits

base_commit, patch_commit, merged, merged_commit = sys.argv[1:]
auto = AutoModelForCausalLM
base = auto.from_pretrained("lab/pico", revision=base_commit)
plain = logits(base)
edited = logits(PeftModel.from_pretrained(base, "ada/circle", revision=patch_commit))
assert not torch.allclose(plain, edited)
if merged:
    AutoTokenizer.from_pretrained(merged, revision=merged_commit)
    found = logits(auto.from_pretrained(merged, revision=merged_commit))
    assert torch.allclose(found, edited, atol=1e-4), (found - edited).abs().max()
print("done")
"""


@pytest.mark.slow
def test_apply_push_load_merge_push_load_revert(
    hub: Hub, client: Client, base: tuple[str, str], tmp_path: Path
) -> None:
    facts = tmp_path / "facts.jsonl"
    fact = {"prompt": "The capital of Italy is", "subject": "Italy", "target": "Paris"}
    facts.write_text(json.dumps(fact) + "\n")
    out = tmp_path / "patch"
    made = client("apply", facts, "--model", base[0], *QUICK, "-q", "--out", out, "--push", "ada/circle")
    assert made.code == 0, made.err
    head = hub.head("ada/circle")

    # somebody else, who has neither hubedit's folder nor its cache
    loaded = hub.python(LOADED, tmp_path / "fresh", base[1], head, "", "")
    assert loaded.returncode == 0 and "done" in loaded.stdout, loaded.stderr[-2000:]

    # a failing push loses nothing
    merged = tmp_path / "merged"
    hub.fault("POST .*/commit/", "status", status=500, times=99)
    failed = client("merge", f"ada/circle@{head}", "--out", merged, "--push", "ada/circle-model")
    assert failed.code == 1 and f"hubedit push {merged} ada/circle-model" in failed.err
    hub.clear()
    pushed = client("push", merged, "ada/circle-model", "--json").json
    assert pushed["created"]
    again = client("merge", f"ada/circle@{head}", "--out", tmp_path / "m2", "--push", "ada/circle-model")
    assert again.code == 0 and hub.head("ada/circle-model") == pushed["commit"], again.err
    arguments = base[1], head, "ada/circle-model", pushed["commit"]
    loaded = hub.python(LOADED, tmp_path / "other", *arguments)
    assert loaded.returncode == 0 and "done" in loaded.stdout, loaded.stderr[-2000:]

    assert client("revert", "ada/circle-model", "--yes", "--json").json["created"]
    back, there = hub.tree("ada/circle-model"), hub.tree(base[0])
    assert {p: e["oid"] for p, e in back.items()} == {p: e["oid"] for p, e in there.items()}
    assert hub.content("ada/circle-model", "model.safetensors") == hub.content(base[0], "model.safetensors")
