"""What a model says to a prompt: its greedy answer and the likeliest next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.hooks import run
from hubedit.model.tokens import decode, encode, pad


@dataclass(frozen=True)
class NextToken:
    """A token as text, with its probability as the next one."""

    token: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """`text`: the greedy continuation; `top`: the likeliest first tokens, the likeliest first."""

    prompt: str
    text: str
    top: tuple[NextToken, ...]


@torch.no_grad()
def ask(
    em: EditableModel, prompts: Sequence[str], *, max_new_tokens: int = 16, top: int = 5
) -> tuple[Answer, ...]:
    """One answer a prompt, in order. Call it inside `applied` to ask the edited model."""
    texts = greedy(em, prompts, max_new_tokens)
    answers = []
    for prompt, text in zip(prompts, texts, strict=True):
        ids = encode(em.tokenizer, prompt).ids
        last = em.num_layers - 1
        hidden = run(em, pad([ids], em.pad_id, em.device), hidden=[last]).hidden[last]
        likely = em.head_logits(hidden[0, -1]).float().softmax(-1).topk(top)
        tokens = tuple(
            NextToken(
                decode(em.tokenizer, [int(i)]) or str(em.tokenizer.convert_ids_to_tokens(int(i))), float(p)
            )
            for p, i in zip(likely.values, likely.indices, strict=True)
        )
        answers.append(Answer(prompt, text, tokens))
    return tuple(answers)
