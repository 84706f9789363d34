"""Targets a second, against the published one-fact-at-a-time recipe on the same model in the same run.

    python -m tests.benchmarks.targets [--shape small | --model MODEL [--data FILE]] [--facts 24] [--plain 2]
        [--steps 25]

Both take the same steps on the same rows (none ends early): random ones of a model with random weights, or
with `--model` MEMIT's rows for the facts of `--data`, the bundled model's own by default. Then there is a
third line: what the default edit takes for all its targets. Ends with 1 when the last line is not 5 times
faster on a CPU, 50 times on a GPU (`--least` sets another bound).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import EditConfig, TargetConfig
from hubedit.edit.compute import compute
from hubedit.edit.methods.context_templates import generated_contexts, published_rows
from hubedit.edit.rows import Row
from hubedit.edit.targets.optimise import optimise
from hubedit.facts import Fact, load_facts
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import replaced
from hubedit.model.instruct import choose
from hubedit.model.load import load
from hubedit.model.tokens import pad
from tests.benchmarks.profile import FACTS
from tests.benchmarks.shapes import folder, model, parser, rows, tell, throughput, timed


def published(em: EditableModel, own: Sequence[Row], layer: int, config: TargetConfig) -> Tensor:
    """compute_z of MEMIT for one fact: the whole model on the whole rows, logits everywhere, torch's Adam."""
    batch = pad([r.ids for r in own], em.pad_id, em.device)
    at = torch.tensor([r.last for r in own], device=em.device)
    each = torch.arange(len(own), device=em.device)
    delta = torch.zeros(em.hidden_size, device=em.device, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=config.step)

    def add(h: Tensor) -> Tensor:
        moved = h.clone()
        moved[each, at] = (h[each, at].float() + delta).to(h.dtype)
        return moved

    before: Tensor | None = None
    for step in range(config.steps):
        optimizer.zero_grad()
        with replaced(em, hidden={layer: add}):
            out = em.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
        logp = out.logits.float().log_softmax(-1)
        if before is None:
            before = logp.detach()
        edits, kept = [], []
        for i, r in enumerate(own):
            span = slice(r.first_scored, len(r.ids))
            if r.preserve:
                old, now = before[i, span], logp[i, span]
                # theirs is KL(edited || original)
                kept.append((now.exp() * (now - old)).sum(-1).mean())
            else:
                places = torch.arange(r.first_scored, len(r.ids), device=em.device)
                edits.append(-logp[i, places, torch.tensor(r.labels, device=em.device)].mean())
        loss = torch.stack(edits).mean() + config.kl * torch.stack(kept).mean()
        if step == config.steps - 1:
            break  # their loop looks once more than it moves
        torch.autograd.backward(loss)
        optimizer.step()
    return delta.detach()


def floor(em: EditableModel, all_rows: Sequence[Row], layer: int, steps: int, speed: float) -> float:
    """Seconds that the matrix products alone need: forward and the gradient by the input, on the tails."""
    tail = sum(len(r.ids) - r.last for r in all_rows)
    scored = sum(len(r.labels) for r in all_rows)
    blocks = sum(p.numel() for n in range(layer + 1, em.num_layers) for p in em.block(n).parameters())
    head = em.vocabulary * em.hidden_size
    needed: float = 4 * steps * (tail * blocks + scored * head) / speed
    return needed


def whole(em: EditableModel, facts: Sequence[Fact]) -> float:
    """Seconds a fact that the default edit takes for all its targets, every site and round of them, in the
    chat template where `apply` would use it."""
    em = replace(em, chat=choose(em, "auto", "", None)[0])
    with folder() as place:
        edit = compute(em, facts, EditConfig(collapse="tell"), cache=Cache(Path(place)))
    return edit.seconds["targets"] / len(facts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints facts a second both ways."""
    options = parser(__doc__)
    options.add_argument("--model", help="a checkpoint instead of random weights")
    options.add_argument("--data", type=Path, default=FACTS, help="facts with subjects, for --model")
    options.add_argument("--facts", type=int, default=24)
    options.add_argument("--plain", type=int, default=2, help="facts through the published recipe")
    options.add_argument("--steps", type=int, default=25)
    options.add_argument("--layer", type=int, help="default: as MEMIT's, 8 of 28")
    options.add_argument("--least", type=float)
    args = options.parse_args(arguments)
    facts: list[Fact] = []
    if args.model:
        em = load(args.model, device=args.device, dtype=args.dtype or "auto")
        facts = list(load_facts(args.data).facts[: args.facts])
    else:
        em = model(args.shape, args.device, args.dtype)
    layer = args.layer if args.layer is not None else em.num_layers * 8 // 28
    config = TargetConfig(steps=args.steps, step=0.5, kl=0.0625, loss=0.0, optimizer="adam")
    if facts:
        edits, essence = published_rows(em, facts, generated_contexts(em, 5, 0))
        made = [*edits, *essence]
    else:
        made = rows(em, args.facts)
    count = 1 + max(r.fact for r in made)
    optimise(em, [r for r in made if r.fact == 0], 1, layer, TargetConfig(steps=1))
    with timed(args.device) as seconds:
        optimise(em, made, count, layer, config)
        fast = seconds() / count
    with timed(args.device) as seconds:
        plain = min(args.plain, count)
        for fact in range(plain):
            published(em, [r for r in made if r.fact == fact], layer, config)
        slow = seconds() / plain
    least = floor(em, made, layer, args.steps, throughput(args.device, em.dtype)) / count
    table = [
        ["", "facts", "s a fact", "facts/s", "x", "share of matrix speed"],
        ["published recipe, one at a time", plain, slow, 1 / slow, 1.0, ""],
        ["the same steps in batches", count, fast, 1 / fast, slow / fast, least / fast],
    ]
    result = {"facts": count, "seconds_a_fact": fast, "published": slow, "times": slow / fast}
    result |= {"share_of_matrix_speed": least / fast, "steps": args.steps}
    if facts:
        fast = whole(em, facts)
        table.append(["the default edit", count, fast, 1 / fast, slow / fast, ""])
        result |= {"default_seconds_a_fact": fast, "default_times": slow / fast}
    tell(args, table, result)
    bound = args.least if args.least is not None else 50 if args.device.startswith("cuda") else 5
    if slow / fast < bound:
        print(f"less than {bound:g} times the published recipe", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
