"""Time and peak memory of a merge, against `cp -r` and against PEFT, each in a process of its own.

`python -m tests.benchmarks.merge [--size 15] [--repeat 3] [--json]` writes a checkpoint of random
bfloat16 weights with the shapes of Qwen2.5-0.5B (up to 2 GB) or Qwen2.5-7B (above; 15 GB are its 28
layers) and a patch of five layers, merges it, and removes everything again. Like `cp`, a merge leaves
it to the system when what it writes reaches the disk; a `cp -r` that is synced stands beside.
`--no-peft` leaves PEFT out, which needs the model in memory; it is stopped after `--peft-limit` minutes, and
told as not finished when it runs out of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
EDITED, RANK = 5, 32
SMALL = {"hidden": 896, "inner": 4864, "layers": 24, "heads": 14, "kv": 2, "vocab": 151936}
LARGE = {"hidden": 3584, "inner": 18944, "layers": 28, "heads": 28, "kv": 4, "vocab": 152064}

PEFT = """
import pathlib, sys
score = pathlib.Path("/proc/self/oom_score_adj")
if score.exists():
    score.write_text("1000")  # where memory runs out, this process ends, and no other
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, patch, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
PeftModel.from_pretrained(model, patch).merge_and_unload().save_pretrained(out, max_shard_size="4GB")
"""
IMPORT = (
    "import hubedit.cli.app, hubedit.cli.merge, hubedit.checkpoint.merge, hubedit.hub.pull, "
    "hubedit.patch.foreign, hubedit.report.card"
)

# what a command of this kind takes before its first line of work: a path among its arguments, and numpy
NOTHING = """
import pathlib, typer
def command(path: pathlib.Path = pathlib.Path()) -> None:
    import numpy
typer.run(command)
"""


def shapes(gigabytes: float) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """(sizes, tensor name -> shape) of a Qwen2 model that takes about so many GB in bfloat16."""
    size = dict(SMALL if gigabytes <= 2 else LARGE)
    hidden, inner, head = size["hidden"], size["inner"], size["hidden"] // size["heads"]
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.q_proj.bias": (hidden,),
        "self_attn.k_proj.weight": (size["kv"] * head, hidden),
        "self_attn.k_proj.bias": (size["kv"] * head,),
        "self_attn.v_proj.weight": (size["kv"] * head, hidden),
        "self_attn.v_proj.bias": (size["kv"] * head,),
        "self_attn.o_proj.weight": (hidden, hidden),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    outer: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (size["vocab"], hidden),
        "model.norm.weight": (hidden,),
    }
    if gigabytes > 2:
        outer["lm_head.weight"] = (size["vocab"], hidden)

    def count(tensors: dict[str, tuple[int, ...]]) -> int:
        return sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in tensors.values())

    room = gigabytes * 1e9 / 2 - count(outer)
    size["layers"] = max(EDITED, min(size["layers"], round(room / count(layer))))
    inside = {
        f"model.layers.{n}.{name}": shape for n in range(size["layers"]) for name, shape in layer.items()
    }
    return size, {**outer, **inside}


def make(folder: Path, gigabytes: float) -> None:
    """Writes the checkpoint `base` and the patch `patch` into `folder`; in a process of its own."""
    import torch

    from hubedit.checkpoint.read import Checkpoint
    from hubedit.linalg import LowRank
    from hubedit.patch import Patch, tensor_sha256
    from hubedit.weights.header import header_bytes, nbytes

    size, tensors = shapes(gigabytes)
    base = folder / "base"
    base.mkdir()
    noise = (0.02 * torch.randn((1 << 25) + 9973)).bfloat16().view(torch.uint8).numpy().data
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    most = 4e9 if gigabytes > 2 else gigabytes * 1e9 / 3
    for name, shape in tensors.items():
        if sum(nbytes("BF16", s) for s in shards[-1].values()) + nbytes("BF16", shape) > most and shards[-1]:
            shards.append({})
        shards[-1][name] = shape
    owner: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        with (base / file).open("wb") as stream:
            stream.write(
                header_bytes({name: ("BF16", shape) for name, shape in shard.items()}, {"format": "pt"})
            )
            for position, (name, shape) in enumerate(shard.items()):
                owner[name] = file
                left, at = nbytes("BF16", shape), 2 * (position * 613 % 4096)
                while left:
                    left -= stream.write(noise[at : at + min(left, len(noise) - at)])
                    at = 0
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": owner}))
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": size["hidden"],
        "intermediate_size": size["inner"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv"],
        "vocab_size": size["vocab"],
        "tie_word_embeddings": gigabytes <= 2,
        "dtype": "bfloat16",
    }
    (base / "config.json").write_text(json.dumps(config))
    checkpoint, factors, hashes = Checkpoint.open(base), {}, {}
    first = size["layers"] // 3
    for layer in range(first, first + EDITED):
        for part in ("self_attn.o_proj", "mlp.down_proj"):
            module = f"model.layers.{layer}.{part}"
            rows, columns = checkpoint.entry(f"{module}.weight").shape
            factors[module] = LowRank(0.01 * torch.randn(rows, RANK), 0.01 * torch.randn(RANK, columns))
            hashes[module] = tensor_sha256(checkpoint.read(f"{module}.weight"))
    record = {"base": {"ref": "base", "commit": "", "tensors": hashes}}
    Patch(factors, record, str(base)).save(folder / "patch")


def measure(command: list[str], most: float | None = None) -> dict[str, float] | None:
    """Seconds, seconds of processor time and peak memory (bytes) of one process.

    None where it was killed, as it is after `most` seconds. Raises SystemExit where it failed.
    """
    os.sync()
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    stop = threading.Timer(most or threading.TIMEOUT_MAX, process.kill)
    stop.start()
    said = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    stop.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == -signal.SIGKILL:
        return None
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{said}")
    scale = 1 if sys.platform == "darwin" else 1024
    seconds = time.monotonic() - began
    return {"seconds": seconds, "processor": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="GB")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the checkpoints are written")
    parser.add_argument("--no-peft", action="store_true")
    parser.add_argument("--peft-limit", type=float, default=20.0, help="minutes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--make", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make(given.make, given.size)
        return
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="hubedit-merge-") as name:
        folder = Path(name)
        itself = [sys.executable, "-m", "tests.benchmarks.merge"]
        subprocess.run([*itself, "--make", name, "--size", str(given.size)], check=True, cwd=ROOT)
        found = compare(folder, given.repeat, peft=0.0 if given.no_peft else 60 * given.peft_limit)
    print(json.dumps(found, indent=2) if given.json else table(found))


def compare(folder: Path, repeat: int, *, peft: float) -> dict[str, Any]:
    """The median of `repeat` runs of each way; what a run wrote is removed before the next.

    `peft`: seconds that PEFT may take, 0 to leave it out; it is run once.
    """
    base, patch, out = (str(folder / name) for name in ("base", "patch", "out"))
    merge = [sys.executable, "-m", "hubedit", "merge", patch, "--model", base, "--out", out, "--quiet"]
    ways = {
        "cp -r": ["cp", "-r", base, out],
        "cp -r, synced": ["sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', base, out],
        "merge --link copy": [*merge, "--link", "copy"],
        "merge --link copy --no-keep-originals": [*merge, "--link", "copy", "--no-keep-originals"],
        "merge --link auto": merge,
        "of it, imports": [sys.executable, "-c", IMPORT],
        "a typer command that does nothing": [sys.executable, "-c", NOTHING],
    }
    rounds = [ways] * repeat
    if peft:
        rounds.append({"PEFT": [sys.executable, "-c", PEFT, base, patch, out]})
    runs: dict[str, list[dict[str, float]]] = {name: [] for each in rounds for name in each}
    for each in rounds:
        for name, command in each.items():
            # the base read, and as much memory just used and free again: else a virtual machine has given it
            # back, and whoever comes first waits until it is there again, longer than for the copy
            subprocess.run(["cp", "-r", base, out], check=True)
            shutil.rmtree(out)
            run = measure(command, peft if name == "PEFT" else None)
            runs[name] += [run] if run else []
            shutil.rmtree(out, ignore_errors=True)
    results = {
        name: {key: statistics.median(run[key] for run in each) for key in ("seconds", "processor", "peak")}
        for name, each in runs.items()
        if each
    }
    size, tensors = sum(file.stat().st_size for file in (folder / "base").iterdir()), _sizes(folder / "base")
    return {
        "bytes": size,
        "largest": max(tensors),
        "limit": 6 * max(tensors) + 300e6,
        "repeat": repeat,
        "results": results,
        "killed": [name for name, each in runs.items() if not each],
    }


def _sizes(base: Path) -> list[int]:
    """Bytes of the down projections, the largest tensors that the patch touches."""
    config = json.loads((base / "config.json").read_text())
    return [2 * config["hidden_size"] * config["intermediate_size"]]


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['bytes'] / 1e9:.2f} GB, largest touched tensor {found['largest'] / 1e6:.1f} MB, "
             f"memory allowed {found['limit'] / 1e6:.0f} MB, median of {found['repeat']}"]  # fmt: skip
    plain, synced = (found["results"][name]["seconds"] for name in ("cp -r", "cp -r, synced"))
    for name, run in found["results"].items():
        seconds, processor = run["seconds"], f"({run['processor']:.2f} s of processor)"
        ratios = f"{seconds / plain:6.2f} x cp {seconds / synced:6.2f} x synced"
        lines.append(f"{name:40} {seconds:8.2f} s {processor:25} {ratios} {run['peak'] / 1e6:8.0f} MB")
    lines += [f"{name:40} was killed: out of memory, or of time" for name in found["killed"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
