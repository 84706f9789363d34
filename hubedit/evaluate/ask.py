"""What a model says to a prompt: its greedy answer and the likeliest next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hubedit.model.editable import EditableModel
from hubedit.model.ending import final_at
from hubedit.model.forms import as_message
from hubedit.model.generate import greedy
from hubedit.model.memory import TokenBudget
from hubedit.model.tokens import decode, pad, token_ids


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
    """One answer a prompt, in order."""
    asked = [as_message(em, prompt) for prompt in prompts]
    texts = greedy(em, asked, max_new_tokens)
    ids = token_ids(em.tokenizer, asked)
    budget = TokenBudget(em.device)
    answers: list[Answer] = []
    while len(answers) < len(ids):
        at = len(answers)
        part = ids[at : budget.take([len(row) for row in ids], at)]
        batch = pad(part, em.pad_id, em.device)
        states = final_at(em, batch, torch.arange(len(part), device=em.device), batch.lengths - 1)
        likely = em.head_logits(states).float().softmax(-1).topk(top)
        for row, (values, indices) in enumerate(zip(likely.values, likely.indices, strict=True), at):
            tokens = tuple(
                NextToken(_shown(em, int(i)), float(p)) for p, i in zip(values, indices, strict=True)
            )
            answers.append(Answer(prompts[row], texts[row], tokens))
    return tuple(answers)


def _shown(em: EditableModel, token: int) -> str:
    return decode(em.tokenizer, [token]) or str(em.tokenizer.convert_ids_to_tokens(token))
