"""Fluency: the weighted n-gram entropy of text that the model writes (Meng et al. 2022, ROME, section 3.4).

The mean of (2/3) H2 and (4/3) H3, where Hn is the entropy in bits of the text's word n-grams: low when the
text repeats itself. As in the authors' code (`n_gram_entropy`, `generate_fast`): the text is the prompt and
what follows it up to 100 tokens, sampled from the five likeliest tokens, an end-of-text token does not
end it, and its words are those of the Penn treebank. Papers often print it times 100.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from math import log2

import torch
from torch import Tensor

from hubedit.cache import digest
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import forward_on, new_cache
from hubedit.model.memory import TokenBudget, release
from hubedit.model.tokens import decode, token_ids

LENGTH = 100  # tokens of a text, its prompt included
TOP = 5
WEIGHTS = {2: 2 / 3, 3: 4 / 3}

# contractions split as in the treebank ("does n't", "Peru 's"), numbers and hyphenated words whole, every
# other sign a word of its own
_WORD = re.compile(
    r"\.\.\.|\w+(?=n['’]t\b)|n['’]t\b|['’](?:s|m|d|ll|re|ve)\b|\d+(?:[.,:]\d+)+|(?:[^\W\d_]\.){2,}"
    r"|\w+(?:-\w+)*|[^\w\s]",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """Words and punctuation marks, split as the Penn treebank does."""
    return _WORD.findall(text)


def entropy(tokens: Sequence[str], n: int) -> float:
    """Entropy in bits of the n-grams of a text; 0 when it has none."""
    counts = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    total = counts.total()
    return sum(-c / total * log2(c / total) for c in counts.values())


def fluency(text: str) -> float:
    """The weighted 2- and 3-gram entropy of a text, in bits."""
    tokens = words(text)
    return sum(weight * entropy(tokens, n) for n, weight in WEIGHTS.items()) / len(WEIGHTS)


@torch.no_grad()
def write(em: EditableModel, prompts: Sequence[str], *, length: int = LENGTH, seed: int = 0) -> list[str]:
    """Each prompt with what the model samples after it, up to `length` tokens together.

    Every prompt has random numbers of its own, so its text depends neither on the batch it is in nor on
    the other prompts. A prompt that is as long already stays as it is.
    """
    length = min(length, em.max_positions)
    ids = token_ids(em.tokenizer, prompts)
    order = sorted((i for i, row in enumerate(ids) if len(row) < length), key=lambda i: len(ids[i]))
    texts = dict(enumerate(prompts))
    budget, at = TokenBudget(em.device), 0
    while at < len(order):
        part = order[at : budget.take([length] * len(order), at)]
        try:
            rows = _sample(em, [ids[i] for i in part], [_noise(prompts[i], seed, length) for i in part])
        except (RuntimeError, MemoryError) as error:
            budget.shrink(error, len(part), length)
            rows = []
        if not rows:
            release(em.device)
            continue
        for i, row in zip(part, rows, strict=True):
            texts[i] = unicodedata.normalize("NFKD", decode(em.tokenizer, row[:length])).replace("\n\n", " ")
        at += len(part)
    return [texts[i] for i in range(len(prompts))]


def _noise(prompt: str, seed: int, length: int) -> Tensor:
    """Gumbel noise (length, TOP): the largest of logits plus noise is a sample from their softmax."""
    generator = torch.Generator().manual_seed(int(digest([seed, prompt])[:12], 16))
    uniform = torch.rand(length, TOP, generator=generator).clamp(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


def _sample(em: EditableModel, ids: Sequence[Sequence[int]], noise: Sequence[Tensor]) -> list[list[int]]:
    """Rows as they stand, extended until the shortest has as many tokens as there is noise."""
    width = max(map(len, ids))
    padded = torch.tensor([[*[em.pad_id] * (width - len(row)), *row] for row in ids], device=em.device)
    lengths = torch.tensor([len(row) for row in ids], device=em.device)
    mask = (torch.arange(width, device=em.device)[None] >= width - lengths[:, None]).long()
    position = (mask.cumsum(-1) - 1).clamp_min(0)
    gumbel = torch.stack(list(noise)).to(em.device)
    steps = gumbel.shape[1] - int(lengths.min())
    token, cache, new = padded, new_cache(em), []
    for step in range(steps):
        out = forward_on(em, cache, input_ids=token, attention_mask=mask, position_ids=position)
        best = out.logits[:, -1].float().topk(min(TOP, out.logits.shape[-1]))
        pick = (best.values + gumbel[:, step, : best.values.shape[1]]).argmax(-1, keepdim=True)
        token = best.indices.gather(1, pick)
        new.append(token)
        position = position[:, -1:] + 1
        # a row that is long enough goes on only because others do: it must not leave the model's context
        position = position.clamp_max(em.max_positions - 1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    tail = torch.cat(new, 1).tolist() if new else [[] for _ in ids]
    return [[*row, *more] for row, more in zip(ids, tail, strict=True)]
