"""What must not leave the machine, or stand in a message: tokens, signatures, paths."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import huggingface_hub
import pytest

from hubedit.errors import HubError
from hubedit.hub.account import client
from hubedit.hub.private import nameless, without_paths
from hubedit.remote import line, redacted, translated_errors, without_tokens

TOKEN = "hf_" + "aB3" * 11 + "x"


def test_tokens_and_signatures_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "short-secret")
    said = f"403 for https://s3.x.org/a/b?X-Amz-Signature=1f&t={TOKEN} with Bearer {TOKEN}, or short-secret"
    assert redacted(said) == "403 for https://s3.x.org/a/b with Bearer hf…, or hf…"
    assert line(OSError(said)) == redacted(said)
    # names that only begin alike stay
    assert without_tokens("hf_hub_download of hf_transfer") == "hf_hub_download of hf_transfer"


def test_names_of_files_are_withheld() -> None:
    line = "hubedit apply italy.jsonl --model lab/m@v1 --out rome-patch --on old-rome --layers 3,4 --seed -1"
    more = " --search --preset rome.toml --corpus=rome.txt --push ada/rome --force"
    record = {"base": {"ref": "lab/m"}, "seed": 1, "command": (line + more).split()}
    assert nameless(record) == record | {
        "command": "hubedit apply facts.jsonl --model lab/m@v1 --out patch --on patch --layers 3,4 --seed -1 "
        "--search --preset PRESET --corpus=CORPUS --push PUSH --force".split()
    }
    local = nameless({"base": {"ref": "ada/m"}, "command": ["hubedit", "apply", "x", "-m", "rome-model"]})
    assert local["command"] == ["hubedit", "apply", "facts.jsonl", "-m", "ada/m"]
    assert nameless({"seed": 1}) == {"seed": 1}


def test_nothing_of_the_machine_is_pushed() -> None:
    record = {"command": ["hubedit", "/home/ada/facts.jsonl", f"--note={TOKEN}"], "base": "lab/model"}
    assert without_paths(record) == {
        "command": ["hubedit", "facts.jsonl", "--note=hf…"],
        "base": "lab/model",
    }
    # the text of a fact is nobody's path
    fact = "The page https://x.org/y?z=1 is about"
    assert without_paths({"prompt": fact}) == {"prompt": fact}


def reading() -> None:
    with translated_errors("ada/x", kind=HubError):
        pass


@pytest.mark.parametrize("way", [reading, client])
def test_the_clients_own_log_lines_hold_no_signature(way: Callable[[], object]) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    above = logging.getLogger(huggingface_hub.__name__)  # made when it is imported
    above.addHandler(handler)
    try:
        for _ in range(2):
            way()
        logging.getLogger("huggingface_hub.utils._http").warning(
            "'%s' thrown while requesting PUT %s", "refused", "https://bucket.example/x?X-Signature=s3cret"
        )
    finally:
        above.removeHandler(handler)
    assert stream.getvalue() == "'refused' thrown while requesting PUT https://bucket.example/x\n"
    assert len(handler.filters) == 1
