"""Where a subject stands in a tokenised prompt, and which tokens an answer becomes. Any fast tokenizer.

Everything goes through the character offsets of the whole prompt's tokens: a subject tokenised alone
gives other tokens than the same subject inside a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hubedit.errors import TokenError
from hubedit.model.chat import markers
from hubedit.model.join import joined

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Prompt:
    """A tokenised text.

    `ids`: with BOS and the like, as the tokenizer adds them; `first`, `last`: index of the subject's
    first and last token, -1 when no subject was asked for.
    """

    text: str
    ids: tuple[int, ...]
    first: int = -1
    last: int = -1


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids padded on the right: `ids` (b, t) and `mask` (b, t) int64, `lengths` (b,) int64."""

    ids: Tensor
    mask: Tensor
    lengths: Tensor


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> Prompt:
    """The text's tokens. Raises TokenError when there are none."""
    return Prompt(text, _tokens(tokenizer, text)[0])


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """`encode(text).ids` of many texts, in less time than one by one."""
    return [ids for ids, _ in _all_tokens(tokenizer, texts)]


def locate(tokenizer: PreTrainedTokenizerFast, text: str, subject: str) -> Prompt:
    """The text's tokens, with the subject's place: its last occurrence in the text.

    A token that holds any character of the subject belongs to it, so a byte-level token with the
    space before the subject does, and one that spans the subject's end and what follows does too.
    Raises TokenError when the subject is empty or not in the text.
    """
    core = subject.strip()
    start = text.rfind(subject)
    if not core or start < 0:
        raise TokenError(
            f"subject {subject!r} is not in the prompt {text!r}" if core else "the subject is empty",
            "write the subject exactly as it stands in the prompt",
        )
    start += len(subject) - len(subject.lstrip())
    end = start + len(core)
    ids, offsets = _tokens(tokenizer, text)
    inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and a < b]
    if not inside:
        raise TokenError(f"the tokenizer drops the subject {subject!r} from the prompt {text!r}")
    return Prompt(text, ids, inside[0], inside[-1])


def continuation(
    tokenizer: PreTrainedTokenizerFast, text: str, answer: str, join: str | None = None
) -> tuple[int, ...]:
    """Ids of the answer as they follow the prompt's own ids (`hubedit.model.join.joined`); no BOS; never
    empty.

    Raises TokenError when the answer is blank.
    """
    if not answer.strip():
        raise TokenError(
            f"the answer to {text!r} is empty", "give the text that the prompt is continued with"
        )
    whole_text = joined(text, answer, join, tokenizer)
    prompt, _ = _tokens(tokenizer, text)
    whole, _ = _tokens(tokenizer, whole_text)
    if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
        return whole[len(prompt) :]
    # The boundary merged into one token (a prompt that ends with a space or a quote). The prompt keeps
    # its own tokens, and the answer's are those that decode to the same text after them.
    piece = whole_text[len(text) :]
    options = [option for option in _alone(tokenizer, piece) if option]
    want = decode(tokenizer, whole)
    for option in options:
        if decode(tokenizer, (*prompt, *option)) == want:
            return option
    if not options:
        raise TokenError(f"the tokenizer has no tokens for the answer {answer!r}")
    return options[0]


def preceded(tokenizer: PreTrainedTokenizerFast, context: str, text: str) -> str:
    """The text after a context, which goes behind the BOS where the text itself begins with one."""
    bos = tokenizer.bos_token
    start = len(bos) if isinstance(bos, str) and text.startswith(bos) else 0
    return text[:start] + context + text[start:]


def decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """The text of ids, without special tokens."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def pad(sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """Pads on the right. Raises ValueError when there is nothing to pad."""
    if not sequences or not all(sequences):
        raise ValueError("cannot pad an empty batch or an empty sequence")
    lengths = torch.tensor([len(s) for s in sequences])
    width = int(lengths.max())
    ids = torch.tensor([[*s, *[pad_id] * (width - len(s))] for s in sequences])
    mask = (torch.arange(width)[None] < lengths[:, None]).long()
    return Batch(ids.to(device), mask.to(device), lengths.to(device))


def _tokens(
    tokenizer: PreTrainedTokenizerFast, text: str, special: bool = True
) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Ids and character offsets of one text."""
    return _all_tokens(tokenizer, [text], special)[0]


def _all_tokens(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], special: bool = True
) -> list[tuple[tuple[int, ...], list[tuple[int, int]]]]:
    """Ids and character offsets. An end-of-text token that the tokenizer appends is left out, and what it
    puts in front where the text itself begins so. A conversation in the chat template gets nothing in front:
    so whoever serves the model tokenises it, whether the template writes a BOS or not."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenError(f"{text!r} is not valid Unicode: {error.reason}") from error
    if not texts:
        return []
    heads = markers(tokenizer).heads if special else ()
    inside = [bool(heads) and text.startswith(heads) for text in texts]
    encoded: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}
    for chat in set(inside):
        rows = [n for n, own in enumerate(inside) if own == chat]
        part = tokenizer(
            [texts[n] for n in rows],
            add_special_tokens=special and not chat,
            return_offsets_mapping=True,
            truncation=False,
            padding=False,
            verbose=False,
        )
        encoded |= dict(zip(rows, zip(part["input_ids"], part["offset_mapping"], strict=True), strict=True))
    found = []
    for number, text in enumerate(texts):
        ids, offsets = encoded[number]
        end = len(ids)
        while (
            end > 1 and ids[end - 1] == tokenizer.eos_token_id and offsets[end - 1][0] == offsets[end - 1][1]
        ):
            end -= 1
        if not end and special:
            raise TokenError(f"{text!r} gives no tokens", "write a prompt that is not empty")
        start = _doubled(tokenizer, ids[:end], offsets) if special and not inside[number] else 0
        found.append((tuple(ids[start:end]), [(a, b) for a, b in offsets[start:end]]))
    return found


def _doubled(
    tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], offsets: Sequence[tuple[int, int]]
) -> int:
    """How many tokens the tokenizer put in front of a text that begins with the same ones."""
    added = 0
    while added < len(ids) and offsets[added][0] == offsets[added][1] == 0:
        added += 1
    twice = added and tuple(ids[:added]) == tuple(ids[added : 2 * added])
    return added if twice and set(ids[:added]) <= set(tokenizer.all_special_ids) else 0


def _alone(tokenizer: PreTrainedTokenizerFast, piece: str) -> list[tuple[int, ...]]:
    """Ways to tokenise a piece that follows other text: as it stands, and behind a line break.

    The second has no space in front where the tokenizer would put one at the start of a text.
    """
    options = [_tokens(tokenizer, piece, special=False)[0]]
    carrier = _tokens(tokenizer, "\n", special=False)[0]
    behind = _tokens(tokenizer, "\n" + piece, special=False)[0]
    if behind[: len(carrier)] == carrier:
        options.append(behind[len(carrier) :])
    return options
