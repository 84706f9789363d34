"""Models of real shapes with random weights, made in code, and what every benchmark prints."""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from hubedit.edit.rows import Row
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.families import family_of
from tests.pico import tokenizers

# hidden, inner, layers, heads, key-value heads, vocabulary, tied
SHAPES: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    "pico": (32, 64, 4, 4, 2, 0, True),
    "small": (256, 1024, 6, 4, 2, 8192, True),
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 151936, True),
    "qwen2.5-7b": (3584, 18944, 28, 28, 4, 152064, False),
}


def parser(about: str | None) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shape", choices=SHAPES, default="small")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on a GPU")
    made.add_argument("--json", type=Path, help="also write the result there")
    return made


def model(shape: str, device: str, dtype: str | None) -> EditableModel:
    """A Qwen 2.5 of that shape with random weights, and a tokenizer whose ids all fit it."""
    hidden, inner, layers, heads, groups, vocabulary, tied = SHAPES[shape]
    words = tokenizers("byte_bpe")
    kind = getattr(torch, dtype or ("bfloat16" if device.startswith("cuda") else "float32"))
    make: Any = Qwen2Config
    config = make(
        vocab_size=max(vocabulary, len(words)),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    auto: Any = AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device(device):
        made = auto.from_config(config, dtype=kind)
    made.eval().requires_grad_(False)
    return EditableModel(made, words, family_of(config), shape, "", Path(), f"random {shape}")


def save(em: EditableModel, folder: Path) -> Path:
    """The model as a checkpoint, as the command line reads it."""
    words: PreTrainedTokenizerFast = em.tokenizer
    em.model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def rows(em: EditableModel, facts: int, contexts: int = 5, preserved: int = 4) -> list[Row]:
    """Rows as an edit has them: bare prompts of 8 tokens, the same after contexts, and preserved ones."""
    generator = torch.Generator().manual_seed(0)
    top = len(em.tokenizer) - 1

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, top, (count,), generator=generator).tolist())

    made = []
    for fact in range(facts):
        subject, ask, answer = draw(4), draw(4), draw(2)
        made.append(Row(fact, (*subject, *ask, *answer[:-1]), 3, answer))
        for _ in range(contexts):
            made.append(Row(fact, (*draw(10), *subject, *ask, *answer[:-1]), 13, answer))
        for _ in range(preserved):
            made.append(Row(fact, (*draw(2), *subject, *draw(2)), 5, draw(1), preserve=True))
    return made


def facts_of(em: EditableModel, count: int) -> list[Fact]:
    """Facts about made-up subjects; the ground truth is left open, so the trace takes the model's answers."""
    places = ("Paris", "Rome", "Tokyo", "Berlin", "Vienna", "London")
    return [Fact(f"The city where Person{n} lives is", f"Person{n}", places[n % 6]) for n in range(count)]


@contextmanager
def timed(device: str) -> Iterator[Callable[[], float]]:
    """Seconds since it was entered, with the device's queue drained."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()

    def seconds() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    yield seconds


def throughput(device: str, dtype: torch.dtype) -> float:
    """Measured matrix throughput in FLOP/s of that type."""
    n = 8192 if device.startswith("cuda") else 1024
    a = torch.randn(n, n, device=device, dtype=dtype)
    a @ a
    with timed(device) as seconds:
        for _ in range(10 if device.startswith("cuda") else 3):
            a @ a
        taken = seconds()
    return (10 if device.startswith("cuda") else 3) * 2 * n**3 / taken


def tell(options: argparse.Namespace, table: Sequence[Sequence[Any]], result: dict[str, Any]) -> None:
    """Prints the table, the first row being its head, and the JSON line; writes it where --json says."""
    cells = [[f"{c:.4g}" if isinstance(c, float) else str(c) for c in row] for row in table]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    full = {"device": options.device, "name": name, "shape": options.shape, **result}
    line = json.dumps(full)
    print(line)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")


def folder() -> tempfile.TemporaryDirectory[str]:
    """A place for checkpoints and caches of one benchmark."""
    return tempfile.TemporaryDirectory(prefix="hubedit-benchmark-")
