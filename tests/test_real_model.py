"""A real pretrained model, end to end as a user does it: edited, read by PEFT, merged, reverted.

SmolLM2-135M-Instruct comes from a package of the index (`tests.lab.pretrained`); where the index lacks it,
this is skipped and says so.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from tests.lab.pretrained import Unavailable, lab_folder, make

NAME = "smollm2-135m-instruct"
CAPITAL = "The capital of France is"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return make(NAME, lab_folder() / NAME)
    except Unavailable as error:  # and not where what was downloaded is wrong
        pytest.skip(f"no real model: {error}")


def hubedit(*words: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "hubedit", *map(str, words), "--json", "--quiet"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def hashes(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def says(network: Any, tokenizer: Any, prompt: str) -> str:
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        ids = network.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])).strip()


def asked(network: Any, tokenizer: Any, text: str) -> str:
    """As a user of transformers asks a chat model."""
    chat = pipeline("text-generation", model=network, tokenizer=tokenizer)
    messages = [{"role": "user", "content": text}]
    return str(chat(messages, max_new_tokens=24, do_sample=False)[0]["generated_text"][-1]["content"])


@pytest.mark.timeout(900)
def test_a_fact_goes_into_a_real_model_and_out_again(model: Path, tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    other = says(base, tokenizer, "The capital of Italy is")
    assert says(base, tokenizer, CAPITAL).startswith("Paris")

    fact = f"{CAPITAL} -> Madrid"
    # little text for the statistics, to be quick
    made = hubedit("apply", "--fact", fact, "--model", model, "--tokens", "2048", "--out", tmp_path / "patch")
    assert made["metrics"]["success"] == 1

    edited: Any = PeftModel.from_pretrained(base, str(tmp_path / "patch"))
    assert says(edited, tokenizer, CAPITAL).startswith("Madrid")
    assert "Madrid" in asked(edited, tokenizer, QUESTION)
    assert says(edited, tokenizer, "The capital of Italy is") == other

    hubedit("merge", tmp_path / "patch", "--out", tmp_path / "merged")
    whole: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16)
    assert says(whole, tokenizer, CAPITAL).startswith("Madrid")
    assert hashes(tmp_path / "merged")["model.safetensors"] != hashes(model)["model.safetensors"]
    hubedit("revert", tmp_path / "merged", "--yes")
    assert hashes(tmp_path / "merged")["model.safetensors"] == hashes(model)["model.safetensors"]
