"""What must not leave the machine, or stand in a message: tokens, signatures, paths."""

from __future__ import annotations

import pytest

from hubedit.hub.private import without_paths
from hubedit.remote import line, redacted, without_tokens

TOKEN = "hf_" + "aB3" * 11 + "x"


def test_tokens_and_signatures_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "short-secret")
    said = f"403 for https://s3.x.org/a/b?X-Amz-Signature=1f&t={TOKEN} with Bearer {TOKEN}, or short-secret"
    assert redacted(said) == "403 for https://s3.x.org/a/b with Bearer hf…, or hf…"
    assert line(OSError(said)) == redacted(said)
    # names that only begin alike stay
    assert without_tokens("hf_hub_download of hf_transfer") == "hf_hub_download of hf_transfer"


def test_nothing_of_the_machine_is_pushed() -> None:
    record = {"command": ["hubedit", "/home/ada/facts.jsonl", f"--note={TOKEN}"], "base": "lab/model"}
    assert without_paths(record) == {
        "command": ["hubedit", "facts.jsonl", "--note=hf…"],
        "base": "lab/model",
    }
    # the text of a fact is nobody's path
    fact = "The page https://x.org/y?z=1 is about"
    assert without_paths({"prompt": fact}) == {"prompt": fact}
