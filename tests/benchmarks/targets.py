"""Targets a second, against the published one-fact-at-a-time recipe on the same model in the same run.

    python -m tests.benchmarks.targets [--shape small] [--facts 24] [--plain 2] [--steps 25]

Both take the same steps on the same rows (none ends early). Ends with 1 when batches are not 5 times faster
on a CPU, 50 times on a GPU (`--least` sets another bound).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from hubedit.config import TargetConfig
from hubedit.edit.rows import Row
from hubedit.edit.targets.optimise import optimise
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import replaced
from hubedit.model.tokens import pad
from tests.benchmarks.shapes import model, parser, rows, tell, throughput, timed


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints facts a second both ways."""
    options = parser(__doc__)
    options.add_argument("--facts", type=int, default=24)
    options.add_argument("--plain", type=int, default=2, help="facts through the published recipe")
    options.add_argument("--steps", type=int, default=25)
    options.add_argument("--layer", type=int, help="default: as MEMIT's, 8 of 28")
    options.add_argument("--least", type=float)
    args = options.parse_args(arguments)
    em = model(args.shape, args.device, args.dtype)
    layer = args.layer if args.layer is not None else em.num_layers * 8 // 28
    config = TargetConfig(steps=args.steps, step=0.5, kl=0.0625, loss=0.0, optimizer="adam")
    made = rows(em, args.facts)
    optimise(em, rows(em, 1), 1, layer, TargetConfig(steps=1))
    with timed(args.device) as seconds:
        optimise(em, made, args.facts, layer, config)
        fast = seconds() / args.facts
    with timed(args.device) as seconds:
        for fact in range(args.plain):
            published(em, [r for r in made if r.fact == fact], layer, config)
        slow = seconds() / args.plain
    least = floor(em, made, layer, args.steps, throughput(args.device, em.dtype)) / args.facts
    table = [
        ["", "facts", "s a fact", "facts/s", "x", "share of matrix speed"],
        ["published recipe, one at a time", args.plain, slow, 1 / slow, 1.0, ""],
        ["hubedit", args.facts, fast, 1 / fast, slow / fast, least / fast],
    ]
    result = {"facts": args.facts, "seconds_a_fact": fast, "published": slow, "times": slow / fast}
    tell(args, table, {**result, "share_of_matrix_speed": least / fast, "steps": args.steps})
    bound = args.least if args.least is not None else 50 if args.device.startswith("cuda") else 5
    if slow / fast < bound:
        print(f"less than {bound:g} times the published recipe", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
