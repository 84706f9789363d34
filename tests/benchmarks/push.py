"""Bytes on the wire of a merged push: everything, changed shards only, and with Xet changed chunks only.

`python -m tests.benchmarks.push [--mb 64]` makes a checkpoint of that size in four shards, edits one weight
of 4 MB and pushes it to the loopback Hub, first without and then with Xet.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hubedit.linalg import LowRank
from hubedit.patch import Patch, tensor_sha256
from tests.hub.loopback import Hub, serve

WIDTH, SHARDS = 1024, 4
BASE = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("lab/base", exist_ok=True)
print(api.upload_folder(repo_id="lab/base", folder_path=sys.argv[1]).oid)
"""
PUSH = """
import sys
from pathlib import Path
from hubedit.hub import Where
from hubedit.hub.send import send
done = send(Path(sys.argv[1]), Where("merged"), merged=True)
print(sum(done.uploaded.values()), sum(done.copied.values()))
"""
MODULE = "model.layers.1.mlp.down_proj"


def checkpoint(folder: Path, megabytes: int) -> torch.Tensor:
    """Random weights in shards; returns the weight that is edited, (1024, 1024) in float32: 4 MB."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    per_shard = max(1, megabytes // SHARDS // 4)
    owner: dict[str, str] = {}
    edited = torch.empty(0)
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        tensors: dict[str, torch.Tensor] = {}
        for n in range(per_shard):
            key = f"model.layers.{shard}.{'mlp.down_proj' if n == 0 else f'other.{n}'}.weight"
            tensors[key] = torch.randn(WIDTH, WIDTH, generator=generator)
            owner[key] = name
        if shard == 1:
            edited = tensors[f"{MODULE}.weight"]
        save_file(tensors, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": owner}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return edited


def patch(folder: Path, weight: torch.Tensor, commit: str) -> Path:
    """A patch of rank 4 for that weight."""
    factors = {MODULE: LowRank(torch.randn(WIDTH, 4), torch.randn(4, WIDTH))}
    base = {
        "ref": "lab/base",
        "commit": commit,
        "dtype": "float32",
        "tensors": {MODULE: tensor_sha256(weight)},
    }
    return Patch(factors, {"base": base}, "lab/base", commit).save(folder)


def run(hub: Hub, code: str, home: Path, *words: str) -> str:
    """Output of a client; fails loudly."""
    ran = hub.python(code, home, *words)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return ran.stdout.strip()


def measure(megabytes: int, xet: bool) -> dict[str, Any]:
    """Bytes sent by one merged push."""
    with tempfile.TemporaryDirectory() as work:
        here = Path(work)
        weight = checkpoint(here / "base", megabytes)
        size = sum(f.stat().st_size for f in (here / "base").glob("*.safetensors"))
        with serve(here / "hub", xet=xet) as hub:
            commit = run(hub, BASE, here / "home", str(here / "base")).splitlines()[-1]
            made = patch(here / "patch", weight, commit)
            before = hub.call("stored")
            hub.clear()
            uploaded, copied = map(int, run(hub, PUSH, here / "home", str(made)).split()[-2:])
            over_http = sum(line["received"] for line in hub.log())
            chunks = hub.call("stored") - before
    return {
        "Xet": xet,
        "checkpoint": size,
        "changed": weight.numel() * 4,
        "copied on the server": copied,
        "files to upload": uploaded,
        "bytes on the wire": over_http + chunks,
    }


def main() -> None:
    """Prints one line of JSON each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=64)
    given = parser.parse_args()
    for xet in (False, True):
        print(json.dumps(measure(given.mb, xet)))


if __name__ == "__main__":
    main()
