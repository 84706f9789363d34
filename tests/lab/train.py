"""Trains a small model on a world until it knows its facts.

    python -m tests.lab.train --world invented --arch qwen2 --people 240 --seed 1 --minutes 28 --out DIR

`DIR` gets the model and tokenizer, `corpus.txt`, `edits.jsonl`, `known.jsonl` and `lab.json` (what
was asked for, and what the model knows). It always holds the best model so far: a run may be killed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import math
import os
import random
import shutil
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.lab import invented
from tests.lab.architectures import ARCHITECTURES, Size, make
from tests.lab.packing import Pack, questions, share_right
from tests.lab.world import World

_log = logging.getLogger("tests.lab.train")
_KINDS = ("trained", "held_out", "two_hop")


@dataclass(frozen=True)
class Plan:
    """How long and how to train.

    The schedule runs over `tokens` (then a run is reproducible) or, when that is 0, over `minutes`.
    Training ends early when `target` of the trained prompts are answered exactly.
    """

    minutes: float = 28.0
    tokens: int = 0
    target: float = 0.97
    rate: float = 3e-3
    rows: int = 20
    length: int = 64
    warmup: float = 0.03
    decay: float = 0.05
    evaluations: int = 25
    sample: int = 500
    dtype: str = "auto"
    save_dtype: str = "float32"
    compile: bool = False


def train(
    world: World,
    arch: str,
    out: Path,
    size: Size | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train `arch` on `world`, write everything under `out` and return what `lab.json` says.

    `start`: a lab model of the same people and shape; training goes on from its weights.
    """
    size, plan = size or Size(), plan or Plan()
    torch.manual_seed(seed)
    # its tokenizer too: another share of two-hop statements makes another vocabulary
    model, tokenizer = make(arch, size, world) if start is None else _made(start)
    torch.nn.Module.to(model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    record: dict[str, Any] = {"world": world.name, "arch": arch, "seed": seed, "size": asdict(size)}
    record |= {"start": json.loads((start / "lab.json").read_text())} if start is not None else {}
    record |= {"plan": asdict(plan), "parameters": model.num_parameters(), "figures": []}
    out.mkdir(parents=True, exist_ok=True)
    write_world(world, out)
    _log.info("%s: %d statements, %d facts, %s", world.name, len(world.statements), len(world.facts), arch)
    _Run(world, model, tokenizer, plan, seed, out, record).go()
    return record


def _made(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model, PreTrainedTokenizerFast.from_pretrained(folder)


class _Run:
    """One training run: the loop, its schedule, its evaluations and its checkpoints."""

    def __init__(
        self,
        world: World,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        plan: Plan,
        seed: int,
        out: Path,
        record: dict[str, Any],
    ) -> None:
        self.model, self.tokenizer, self.plan, self.out, self.record = model, tokenizer, plan, out, record
        self.asked = {kind: questions(world.facts, kind) for kind in _KINDS}
        self.batches = Pack.of(tokenizer, world.statements).batches(plan.rows, plan.length, seed)
        self.rng = random.Random(f"evaluation-{seed}")
        self.best, self.tokens, self.seconds = -1.0, 0, 0.0
        decayed = [p for p in model.parameters() if p.ndim >= 2]
        plain = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": plan.decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), foreach=True)

    def go(self) -> None:
        """Train to the end of the plan, or until the target is met."""
        plan, model = self.plan, self.model
        half = plan.dtype == "bfloat16" or (plan.dtype == "auto" and _bfloat16_is_faster(model.device))
        _log.info("computing in %s", "bfloat16 (autocast)" if half else "float32")
        forward = torch.compile(model) if plan.compile else model
        model.train()
        begin = last = time.perf_counter()
        done, due, losses = 0.0, 1 / plan.evaluations, list[float]()
        last_tokens = 0
        while done < 1:
            ids, weights = (t.to(model.device) for t in next(self.batches))
            context = torch.autocast(model.device.type, torch.bfloat16) if half else nullcontext()
            with context:
                logits = forward(input_ids=ids, use_cache=False).logits
            loss = _loss(logits, ids, weights)
            for group in self.optimizer.param_groups:
                group["lr"] = plan.rate * _schedule(done, plan.warmup)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            self.optimizer.step()
            losses.append(loss.item())
            self.tokens += ids.numel()
            self.seconds = time.perf_counter() - begin
            done = self.tokens / plan.tokens if plan.tokens else self.seconds / (60 * plan.minutes)
            if done >= due and done < 1:
                due = done + 1 / plan.evaluations
                pace = (self.tokens - last_tokens) / (time.perf_counter() - last)
                figures = self.evaluate(plan.sample, sum(losses) / len(losses), pace)
                losses, last, last_tokens = [], time.perf_counter(), self.tokens
                # The sample can be lucky: all prompts decide.
                if figures["trained"] >= plan.target and self.evaluate(None)["trained"] >= plan.target:
                    return
        self.evaluate(None)

    def evaluate(
        self, sample: int | None, loss: float = math.nan, pace: float = math.nan
    ) -> dict[str, float]:
        """Shares answered exactly (of `sample` prompts each, or of all); keeps the best model."""
        figures: dict[str, float] = {"tokens": self.tokens, "seconds": round(self.seconds, 1)}
        for kind, asked in self.asked.items():
            chosen = asked if sample is None else self.rng.sample(asked, min(sample, len(asked)))
            right = share_right(self.model, self.tokenizer, chosen)
            figures[kind] = round(sum(right) / max(1, len(right)), 4)
        if not math.isnan(loss):
            figures |= {"loss": round(loss, 4), "tokens_per_second": round(pace)}
        self.record["figures"].append(figures)
        _log.info("%s%s", "all: " if sample is None else "", json.dumps(figures))
        score = figures["trained"] + figures["held_out"]
        # Samples are noisy; the model at the end, tested on everything, replaces an equal one.
        if score >= self.best - (0.02 if sample is None else 0.0):
            self.best = max(score, self.best)
            self.record["final"] = figures
            save(self.model, self.tokenizer, self.out, self.plan.save_dtype, self.record)
        return figures


def _loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean next-token loss. logits (rows, length, vocabulary), the others (rows, length)."""
    each = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    flat = weights[:, 1:].flatten()
    return (each * flat).sum() / flat.sum()


def _schedule(done: float, warmup: float) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    if done < warmup:
        return max(done / warmup, 0.02)
    return 0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


def _bfloat16_is_faster(device: torch.device) -> bool:
    """A micro-benchmark of half a second: on CPUs without the instructions bfloat16 is far slower."""
    if device.type != "cpu":
        return True
    pace = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(512, 256, dtype=dtype), torch.randn(256, 256, dtype=dtype)
        a @ b
        begin, runs = time.perf_counter(), 0
        while time.perf_counter() - begin < 0.25:
            a @ b
            runs += 1
        pace.append(runs)
    return pace[1] > 1.3 * pace[0]


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path, dtype: str, record: dict[str, Any]
) -> None:
    """Write model, tokenizer and `lab.json` into `out`, each file at once."""
    new = out / ".new"
    shutil.rmtree(new, ignore_errors=True)
    wanted: torch.dtype = getattr(torch, dtype)
    state = {name: t.detach().to(wanted).cpu().contiguous() for name, t in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    kept, model.config.dtype = model.config.dtype, wanted
    model.save_pretrained(new, state_dict=state)
    model.config.dtype = kept
    tokenizer.save_pretrained(new)
    (new / "lab.json").write_text(json.dumps(record, indent=1) + "\n")
    for path in new.iterdir():
        os.replace(path, out / path.name)
    new.rmdir()


def write_world(world: World, out: Path) -> None:
    """`corpus.txt`, one statement a line; `edits.jsonl`; `known.jsonl`, one fact a line."""
    (out / "corpus.txt").write_text("".join(f"{s.text}\n" for s in world.statements))
    (out / "edits.jsonl").write_text(_jsonl(world.edits))
    (out / "known.jsonl").write_text(_jsonl(asdict(fact) for fact in world.facts))


def _jsonl(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _world(name: str, people: int, seed: int, two_hop_share: float) -> World:
    if name == "invented":
        return invented.build(people, seed, two_hop_share)
    # Imported by name: the true facts are not needed for an invented world.
    world: World = importlib.import_module("tests.lab.real").build()
    return world


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=("invented", "real"), default="invented")
    parser.add_argument("--arch", choices=tuple(ARCHITECTURES), default="qwen2")
    parser.add_argument("--people", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--two-hop-share", type=float, default=invented.TWO_HOP_SHARE)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="go on from this lab model of the same world")
    parser.add_argument("--threads", type=int, default=1)
    for config in (Size, Plan):
        for f in fields(config):
            flag = "--" + f.name.replace("_", "-")
            if isinstance(f.default, bool):
                parser.add_argument(flag, action="store_true")
            else:
                parser.add_argument(flag, type=type(f.default), default=f.default)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    size = Size(**{f.name: getattr(args, f.name) for f in fields(Size)})
    plan = Plan(**{f.name: getattr(args, f.name) for f in fields(Plan)})
    world = _world(args.world, args.people, args.seed, args.two_hop_share)
    train(world, args.arch, args.out, size, plan, args.seed, args.start)


if __name__ == "__main__":
    main()
