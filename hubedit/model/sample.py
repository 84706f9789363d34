"""Text that a model writes itself: the corpus when no other is at hand.

Sampling at temperature 1 among the likeliest tokens, from the start of a document, follows what the model
was trained on closely enough for second moments, and needs neither a download nor a choice of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hubedit.errors import ModelError
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import forward_on, new_cache

TOP = 64
"""Tokens are drawn among this many likeliest ones: of a vocabulary of 262,144 a step otherwise spends more
time on the draw than on the model."""

DRAW = f"top {TOP}"
"""How tokens are drawn, for keys of caches: another way gives another text from the same seed."""


def sample_documents(
    em: EditableModel,
    rows: int,
    length: int,
    seed: int,
    prompts: Sequence[str] = (),
    wrote: Callable[[int], object] = lambda _: None,
) -> list[list[int]]:
    """Token ids of documents sampled in `rows` parallel streams of `length` tokens each.

    A stream that ends a document (eos) starts the next one at position 0 and no longer sees the old
    one, so every document stands alone as a prompt does, and no step of the batch is wasted. eos is
    never the first token of a document: a model that would only ever stop still gives text.
    With `prompts` the documents begin with them, in turn. Each document has the tokens the tokenizer
    would give it (with BOS where it adds one).
    The same seed, model and device give the same text. `wrote` is called with the tokens of each step.
    Raises ModelError when the model computes NaN.
    """
    device = em.device
    generator = torch.Generator(device).manual_seed(seed)
    starts, lengths, hidden_start = _starts(em, prompts, seed, length)
    ends = _ends(em)
    banned, stops = _banned(em).nonzero()[:, 0], ends.nonzero()[:, 0]
    which = torch.arange(rows, device=device) % len(starts)
    token = starts[which, 0]
    offset, position = torch.zeros_like(which), torch.zeros_like(which)
    ids = torch.empty(rows, length, dtype=torch.long, device=device)
    begins = torch.zeros(rows, length, dtype=torch.bool, device=device)
    mask = torch.zeros(rows, length, dtype=torch.long, device=device)
    begins[:, 0] = True
    cache = new_cache(em)
    sound = torch.ones((), dtype=torch.bool, device=device)
    with torch.no_grad():
        for step in range(length):
            ids[:, step] = token
            mask[:, step] = 1
            wrote(rows)
            if step == length - 1:
                break
            out = forward_on(
                em,
                cache,
                input_ids=token[:, None],
                attention_mask=mask[:, : step + 1],
                position_ids=position[:, None],
            )
            # in place: a copy of these is the longest part of a step where the vocabulary is large
            logits = out.logits[:, -1].index_fill_(1, banned, -torch.inf)
            fresh = (position == lengths[which] - 1).nonzero()
            logits[fresh, stops] = -torch.inf
            best = logits.topk(min(TOP, logits.shape[-1]), -1)
            p = best.values.float().softmax(-1)
            sound &= torch.isfinite(p).all()
            drawn = best.indices.gather(1, draw(p, generator)[:, None])[:, 0]
            given = offset + 1 < lengths[which]
            ended = ends[drawn] & ~given
            offset = torch.where(ended, 0, offset + given.long())
            position = torch.where(ended, 0, position + 1)
            which = torch.where(ended, (which + rows) % len(starts), which)
            token = torch.where(given | ended, starts[which, offset], drawn)
            mask = mask * ~ended[:, None]
            begins[:, step + 1] = ended
    if not bool(sound):
        kind = str(em.dtype).removeprefix("torch.")
        hint = "use --dtype bfloat16 or float32" if kind == "float16" else "give a text with --corpus"
        raise ModelError(f"{em.ref} computes NaN in {kind} when it writes text", hint)
    return _split(ids.cpu(), begins.cpu(), drop=1 if hidden_start else 0)


def draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """One index (b,) from each row of `p` (b, n), probabilities up to a factor, by one uniform number a row.
    `torch.multinomial` draws n numbers a row: longer than a small model takes."""
    return pick(p, torch.rand(len(p), device=p.device, generator=generator))


def pick(p: Tensor, uniform: Tensor) -> Tensor:
    """The index (b,) in each row of `p` (b, n) at which its cumulative sum passes the share `uniform` (b,),
    0..1, of the whole."""
    total = p.cumsum(-1)
    at = uniform[:, None] * total[:, -1:]
    drawn = torch.searchsorted(total, at, right=True)[:, 0].clamp_max(p.shape[1] - 1)
    # a sum in parts, as a GPU takes it, is not quite monotone, and rounding may reach the end of the table
    possible = p.gather(1, drawn[:, None])[:, 0] > 0
    return torch.where(possible, drawn, p.argmax(-1))


def _starts(em: EditableModel, prompts: Sequence[str], seed: int, length: int) -> tuple[Tensor, Tensor, bool]:
    """How documents begin: ids (n, w) right-padded, lengths (n,), and whether the first token is no text."""
    tokenizer, text_config = em.tokenizer, em.model.config.get_text_config()
    known = (tokenizer.bos_token_id, text_config.bos_token_id, tokenizer.eos_token_id)
    start = next((i for i in known if isinstance(i, int) and 0 <= i < _vocabulary(em)), None)
    texts = [tokenizer(p, add_special_tokens=False)["input_ids"][: length - 2] for p in prompts]
    if start is not None:
        table = [[start, *ids] for ids in texts or [[]]]
    elif texts:
        table = [ids for ids in texts if ids]
    else:
        ordinary = (~_banned(em) & ~_ends(em)).nonzero()[:, 0].cpu()
        pick = torch.randint(len(ordinary), (1021,), generator=torch.Generator().manual_seed(seed))
        table = [[int(i)] for i in ordinary[pick]]
    width = max(len(row) for row in table)
    padded = torch.tensor([row + [0] * (width - len(row)) for row in table], device=em.device)
    lengths = torch.tensor([len(row) for row in table], device=em.device)
    return padded, lengths, start is not None and not em.has_bos


def _vocabulary(em: EditableModel) -> int:
    return int(em.model.config.get_text_config().vocab_size)


def _ends(em: EditableModel) -> Tensor:
    """(vocabulary,) bool: the tokens that end a text."""
    flags = torch.zeros(_vocabulary(em), dtype=torch.bool)
    for i in em.eos_ids:
        if i < len(flags):
            flags[i] = True
    return flags.to(em.device)


def _banned(em: EditableModel) -> Tensor:
    """(vocabulary,) bool: what is no text: special tokens other than eos, rows without a token."""
    flags = torch.zeros(_vocabulary(em), dtype=torch.bool)
    flags[len(em.tokenizer) :] = True
    for i in em.tokenizer.all_special_ids:
        if 0 <= i < len(flags):
            flags[i] = True
    return flags.to(em.device) & ~_ends(em)


def _split(ids: Tensor, begins: Tensor, drop: int) -> list[list[int]]:
    """The documents of all streams; `drop` tokens at the start of each are left out."""
    documents = []
    for row, marks in zip(ids.tolist(), begins.tolist(), strict=True):
        edges = [i for i, mark in enumerate(marks) if mark] + [len(row)]
        documents += [row[a + drop : b] for a, b in pairwise(edges)]
    return [d for d in documents if d]
