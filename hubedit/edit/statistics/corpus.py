"""The corpus as rows of tokens: what the statistics and the perplexity check read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Literal

import torch

from hubedit.cache import Cache, Entry, digest
from hubedit.config import StatsConfig
from hubedit.documents import documents, fingerprint
from hubedit.edit.statistics.size import corpus_tokens
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.memory import TokenBudget
from hubedit.model.sample import DRAW, sample_documents
from hubedit.parallel import Share, gathered, world
from hubedit.progress import Progress

SELF = "self"
_ROW = 256  # tokens a row of real text
_LENGTH = 128  # tokens a stream of generated text
_PIECE = 100_000  # characters tokenized at once
TEXT_ROWS = 16
"""Rows that are reported on; as many before them are for the check."""
CHECK_TOKENS = 512
"""Of those the first with so many tokens are what an edit is checked for collapse on: more take seconds over
a vocabulary of 262,144 entries, and show the same (docs/experiments.md)."""
_HOLDOUT_ROUND = 32  # streams a round of held-out text: enough for what is checked and what is reported

_KINDS = (
    "famous people",
    "companies and their products",
    "cities, countries and languages",
    "films, television and songs",
    "sports and athletes",
    "science and history",
)
OPENINGS = ("",) * len(_KINDS) + tuple(f"Facts about {kind}:\n- " for kind in _KINDS)
"""How generated texts begin: half of them anyhow, half as lists of facts, so that names of many kinds are
among what is preserved. On a real model neighbours' answers then change a quarter less often
(docs/experiments.md)."""

Part = Literal["statistics", "holdout"]


def corpus_key(config: StatsConfig, em: EditableModel) -> dict[str, Any]:
    """What identifies the text itself; the number of tokens read from it is not part of it."""
    if config.corpus == SELF:
        return {
            "self": em.identity,
            "dtype": str(em.dtype),
            "device": em.device.type,
            "seed": config.seed,
            "draw": DRAW,
            "openings": list(OPENINGS),
            "length": text_length(em),
        }
    return {**fingerprint(config.corpus), "row": _length(em, _ROW)}


def token_rows(
    em: EditableModel, config: StatsConfig, tokens: int, cache: Cache, progress: Progress
) -> list[list[int]]:
    """The first `tokens` tokens of the corpus, as rows that begin as prompts do (BOS where there is one).

    A corpus that is shorter gives all it has, with a notice. Raises ConfigError when it has nothing.
    """
    rows: list[list[int]] = []
    count = 0
    generated = config.corpus == SELF
    size = _written_at_once(em, "statistics")
    stage = _Stage(progress, "generating text", -(-tokens // size) * size, "tokens")
    for row in _generated(em, config, "statistics", cache, stage) if generated else _read(em, config.corpus):
        rows.append(row[: tokens - count])
        count += len(rows[-1])
        stage.advance(len(rows[-1]))
        if count >= tokens:
            break
    stage.finish(f"{len(rows)} texts, {count:,} tokens of which are used")
    if not rows:
        raise ConfigError(f"corpus {config.corpus} holds no text", "give another file, or 'self'")
    if count < tokens:
        progress.message(f"the corpus has {count} tokens of the {tokens} asked for: all are used")
    return rows


def holdout_rows(
    em: EditableModel, config: StatsConfig, rows: int, cache: Cache, progress: Progress
) -> list[list[int]]:
    """`rows` rows of the same corpus to measure perplexity on, of at least two tokens each.

    They follow the tokens that the statistics read (for "self": sampled apart); a corpus that ends
    before gives its last rows instead. Fewer when the corpus has fewer.
    """
    if config.corpus == SELF:
        size = _written_at_once(em, "holdout")
        stage = _Stage(progress, "generating text to compare on", size, "tokens")
        held: list[list[int]] = []
        sampled = (row for row in _generated(em, config, "holdout", cache, stage) if len(row) > 1)
        for row in islice(sampled, rows):
            held.append(row)
            stage.advance(len(row))
        stage.finish(f"{len(held)} texts")
        return held
    needed, count = corpus_tokens(em, config), 0
    tail: deque[list[int]] = deque(maxlen=rows)
    behind = 0
    for row in _read(em, config.corpus):
        if len(row) > 1:
            tail.append(row)
            behind += count >= needed
        count += len(row)
        if behind == rows:
            break
    return list(tail)


def checked_rows(em: EditableModel, config: StatsConfig, cache: Cache, progress: Progress) -> list[list[int]]:
    """Token rows on which an edit is checked for collapse: `CHECK_TOKENS` of them, or what there is."""
    rows = holdout_rows(em, config, TEXT_ROWS, cache, progress)
    sums = accumulate(map(len, rows))
    enough = next((n for n, tokens in enumerate(sums, 1) if tokens >= CHECK_TOKENS), None)
    return rows[:enough]


def unseen_rows(
    em: EditableModel, config: StatsConfig, cache: Cache, progress: Progress
) -> tuple[list[list[int]], bool]:
    """Token rows to measure perplexity and divergence on, and whether an edit with this text used them.

    They follow those of which an edit is checked for collapse on some; a corpus that ends before gives those
    instead.
    """
    tried = holdout_rows(em, config, TEXT_ROWS, cache, progress)
    more = holdout_rows(em, config, 2 * TEXT_ROWS, cache, progress)
    if len(more) == 2 * TEXT_ROWS and more[:TEXT_ROWS] == tried:
        return more[TEXT_ROWS:], False
    return tried, True


@dataclass
class _Stage:
    """A stage of the progress that begins with the first text that has to be written: text from the cache
    takes no time. `done`: tokens that were read; `ahead`: written and not read yet."""

    progress: Progress
    name: str
    total: int
    unit: str
    done: int = 0
    ahead: int = 0
    shown: int = 0
    begun: bool = False

    def begin(self) -> None:
        """Shows the stage, with what was done before, unless it is shown already."""
        if not self.begun:
            self.begun = True
            self.progress.start(self.name, self.total, self.unit)
            self._show()

    def advance(self, amount: int) -> None:
        self.done += amount
        self.ahead = max(0, self.ahead - amount)
        self._show()

    def wrote(self, amount: int) -> None:
        """Work is shown as it is done: the texts of a round are read all at once, when it ends."""
        self.ahead += amount
        self._show()

    def _show(self) -> None:
        now = min(self.total, self.done + self.ahead)
        if self.begun and now > self.shown:
            self.progress.advance(now - self.shown)
            self.shown = now

    def finish(self, note: str) -> None:
        if self.begun:
            self.progress.finish(note)


def _generated(
    em: EditableModel, config: StatsConfig, part: Part, cache: Cache, stage: _Stage
) -> Iterator[list[int]]:
    """Documents the model writes, round by round without end; every round is kept in the cache.

    With several processes each writes a round at a time.
    """
    number = 0
    while True:
        rounds = range(number, number + world().size)
        yield from _rounds(em, config, part, rounds, cache, stage)
        number = rounds.stop


def _rounds(
    em: EditableModel, config: StatsConfig, part: Part, numbers: Sequence[int], cache: Cache, stage: _Stage
) -> list[list[int]]:
    streams = round_streams(em, part)
    keys = {n: round_key(em, config, part, n) for n in numbers}
    found = {n: entry for n in numbers if (entry := cache.load("corpus", keys[n])) is not None}
    missing = [n for n in numbers if n not in found]
    texts = {n: _unpacked(entry) for n, entry in found.items()}
    if missing:
        stage.begin()
        seeds = {n: int(digest([config.seed, part, n])[:12], 16) for n in missing}
        for own in gathered(_write, em, seeds, streams, progress=stage):
            texts |= own
    for n in missing:
        cache.save(
            "corpus",
            keys[n],
            {
                "ids": torch.tensor([i for row in texts[n] for i in row], dtype=torch.int32),
                "lengths": torch.tensor([len(row) for row in texts[n]], dtype=torch.int32),
            },
            {"model": em.ref},
        )
    return [row for n in numbers for row in texts[n]]


def round_streams(em: EditableModel, part: Part) -> int:
    """Texts that are written side by side in one round, each of `text_length` tokens."""
    return _HOLDOUT_ROUND if part == "holdout" else 64 if em.device.type == "cpu" else 128


def _written_at_once(em: EditableModel, part: Part) -> int:
    """Tokens that all processes write before any are read: a round each."""
    return world().size * round_streams(em, part) * text_length(em)


def text_length(em: EditableModel) -> int:
    """Tokens of each text of a round."""
    return _length(em, _LENGTH)


def round_key(em: EditableModel, config: StatsConfig, part: Part, number: int) -> dict[str, Any]:
    """Under which the cache has a round of generated text."""
    return {**corpus_key(config, em), "part": part, "round": number, "streams": round_streams(em, part)}


def _unpacked(entry: Entry) -> list[list[int]]:
    sizes: list[int] = entry.tensors["lengths"].tolist()
    ids: list[int] = entry.tensors["ids"].tolist()
    ends = list(accumulate(sizes))
    return [ids[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _write(
    em: EditableModel, share: Share, seeds: Mapping[int, int], streams: int, progress: _Stage | None = None
) -> dict[int, list[list[int]]]:
    """One process's part of some rounds; the others write as much in the same time."""

    def wrote(amount: int) -> None:
        if progress is not None:
            progress.wrote(share.size * amount)

    return {n: _sample(em, streams, seeds[n], wrote) for n in share.of(sorted(seeds))}


def _sample(em: EditableModel, streams: int, seed: int, wrote: Callable[[int], object]) -> list[list[int]]:
    length = text_length(em)
    budget = TokenBudget(em.device, streams * length)
    while True:
        rows = max(1, budget.tokens // length)
        try:
            return sample_documents(em, rows, length, seed, OPENINGS, wrote)
        except RuntimeError as error:
            budget.shrink(error, rows, length)


def _read(em: EditableModel, corpus: str) -> Iterator[list[int]]:
    """Rows of a file or data set: a document each, long ones cut."""
    size = _length(em, _ROW)
    start = [em.tokenizer.bos_token_id] if em.has_bos else []
    for text in documents(corpus):
        for at in range(0, len(text), _PIECE):
            ids = em.tokenizer(text[at : at + _PIECE], add_special_tokens=False)["input_ids"]
            body = size - len(start)
            for cut in range(0, len(ids), body):
                yield start + ids[cut : cut + body]


def _length(em: EditableModel, wanted: int) -> int:
    return min(wanted, em.max_positions)
