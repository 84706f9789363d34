"""Second moments of the sites' inputs: one pass over the corpus for all of them.

E[k k^T] is what an edit has to leave alone (MEMIT, eq. 14). About 10 tokens a dimension suffice
("Efficient Knowledge Editing via Minimal Precomputation", arXiv 2506.04226).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import StatsConfig
from hubedit.edit.statistics.corpus import corpus_key, token_rows
from hubedit.edit.statistics.size import corpus_tokens, name_rows, needed_tokens
from hubedit.linalg import Moments, SecondMoment, mean_of
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.memory import TokenBudget, free_memory
from hubedit.model.sites import Site
from hubedit.model.tokens import pad
from hubedit.name_sentences import names_digest
from hubedit.parallel import Share, gathered, summed
from hubedit.progress import Progress, Silent

_FORMAT = 2  # goes up when a change here gives other numbers for the same inputs
_EVERY = 60.0  # seconds between two saved states, at least
_SHARE = 20.0  # saving takes at most one part in this many of the time


@dataclass(frozen=True)
class StatsEntry:
    """One cached second moment: of which site of which model, over how many tokens of what."""

    path: Path
    model: str
    identity: str
    site: str
    corpus: str
    names: float
    tokens: int
    width: int
    size: int


def second_moments(
    em: EditableModel,
    sites: Iterable[Site],
    config: StatsConfig,
    cache: Cache,
    progress: Progress,
    *,
    tokens_at_once: int = 0,
    save_every: float = _EVERY,
) -> dict[Site, Moments]:
    """E[k k^T] of every site's input over the corpus and sentences about names, from the cache where it is
    there.

    What is missing is computed in one pass that stops after the last layer needed (in several where the
    GPU is short of memory), of `tokens_at_once` padded tokens in a batch (0: chosen for the device). Its
    state is saved every `save_every` seconds, and more rarely where that takes long, and continued by the
    next call. Padding is left out, and so is the first token of every row; sums are in float64. A
    message says when there are fewer tokens than a site has inputs.
    Raises ConfigError for a corpus that cannot be used.
    """
    wanted = sorted(set(sites))
    tokens = needed_tokens(em, config)
    corpus = source_key(config, em)
    keys = {site: stats_key(em, site, corpus, tokens) for site in wanted}
    found = {site: entry for site in wanted if (entry := _cached(cache, keys[site])) is not None}
    missing = [site for site in wanted if site not in found]
    if missing:
        rows = [row for row in _rows(em, config, cache, progress) if len(row) > 1]
        rows.sort(key=len, reverse=True)
        total, count = sum(map(len, rows)), sum(len(row) - 1 for row in rows)
        parts = _parts(em, missing)
        progress.start("statistics", total * len(parts), "tokens")
        for part in parts:
            partial = {"sites": [keys[site] for site in part]}
            pace = tokens_at_once, save_every
            sums = summed(_sums, em, part, rows, cache.root, partial, pace, progress=progress)
            for site in part:
                found[site] = mean_of(sums.pop(str(site)), count)
                record: dict[str, Any] = {"model": em.ref, "identity": em.identity, "site": str(site)}
                tensors = {"matrix": found[site].matrix, "count": torch.tensor(count)}
                record |= {"corpus": config.corpus, "names": config.names, "tokens": total}
                cache.save("stats", keys[site], tensors, record)
            gathered(_forget, em, cache.root, partial)
        progress.finish(f"{len(missing)} sites, {total} tokens")
    few = [site for site in wanted if found[site].count < em.d_in(site)]
    if few:
        read, inputs = min(found[s].count for s in few), max(map(em.d_in, few))
        mend = "--tokens 0 reads enough" if 0 < config.tokens <= inputs else "give a longer --corpus"
        progress.message(
            f"{read} tokens say little about what the {inputs} inputs of a site carry: other answers may "
            f"change more; {mend}"
        )
    return {site: found[site] for site in wanted}


def source_key(config: StatsConfig, em: EditableModel) -> dict[str, Any]:
    """What identifies the text of the statistics; the number of tokens is not part of it."""
    named = {"names": [config.names, names_digest()]} if config.names else {}
    return {**corpus_key(config, em), **named}


def _rows(em: EditableModel, config: StatsConfig, cache: Cache, progress: Progress) -> list[list[int]]:
    """Sentences about names, and the corpus for the rest of the tokens."""
    rest = corpus_tokens(em, config)
    return name_rows(em, config) + (token_rows(em, config, rest, cache, progress) if rest else [])


def stats_key(em: EditableModel, site: Site, corpus: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """Every input a second moment depends on."""
    return {
        "format": _FORMAT,
        "model": em.identity,
        "site": str(site),
        "corpus": dict(corpus),
        "tokens": tokens,
        "dtype": str(em.dtype),
    }


def cached_entries(cache: Cache) -> list[StatsEntry]:
    """What the cache holds, without reading the matrices; damaged files are left out."""
    entries = []
    for path in cache.entries("stats"):
        try:
            with safe_open(path, framework="pt") as file:
                record = json.loads((file.metadata() or {})["hubedit"])
                width = file.get_slice("matrix").get_shape()[0]
                named = {k: record[k] for k in ("model", "identity", "site", "corpus", "tokens")}
                named["names"] = record.get("names", 0.0)
                entries.append(StatsEntry(path=path, width=width, size=path.stat().st_size, **named))
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError):
            continue
    return entries


def clear_entries(cache: Cache) -> int:
    """Deletes all second moments, unfinished passes, generated text and perplexities of unedited models;
    returns how many moments."""
    for kind in ("stats-partial", "corpus", "perplexity"):
        cache.clear(kind)
    return cache.clear("stats")


def _cached(cache: Cache, key: Mapping[str, Any]) -> Moments | None:
    entry = cache.load("stats", key)
    return None if entry is None else Moments(entry.tensors["matrix"], int(entry.tensors["count"]))


def _sums(
    em: EditableModel,
    share: Share,
    sites: Sequence[Site],
    rows: Sequence[Sequence[int]],
    root: Path,
    key: Mapping[str, Any],
    pace: tuple[int, float] = (0, _EVERY),
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """One process's part of the pass: sum(x x^T) of every site over its rows."""
    progress = progress or Silent()
    state = _Pass(em, sites, Cache(root), _own_key(key, share), *pace)
    progress.advance(state.tokens * share.size)
    for done in state.read(share.of(rows)):
        progress.advance(done * share.size)
    return {str(site): total.state()[0] for site, total in state.sums.items()}


def _forget(
    em: EditableModel, share: Share, root: Path, key: Mapping[str, Any], progress: Progress | None = None
) -> None:
    """Drops the saved state once the result stands in the cache."""
    Cache(root).path("stats-partial", _own_key(key, share)).unlink(missing_ok=True)


def _own_key(key: Mapping[str, Any], share: Share) -> dict[str, Any]:
    return {**key, "part": [share.rank, share.size]} if share.size > 1 else dict(key)


class _Pass:
    """One pass over the rows, with its sums; continues where an interrupted one stopped."""

    def __init__(
        self,
        em: EditableModel,
        sites: Sequence[Site],
        cache: Cache,
        key: dict[str, Any],
        tokens_at_once: int,
        save_every: float,
    ) -> None:
        self.em, self.cache, self.key = em, cache, key
        self.tokens_at_once, self.save_every = tokens_at_once, save_every
        device = _place(em, sites)
        self.sums = {site: SecondMoment(em.d_in(site), device) for site in sites}
        self.rows = self.tokens = 0
        self.cost, self.saved = 0.0, time.monotonic()
        entry = cache.load("stats-partial", key)
        if entry is not None:
            self.rows, self.tokens = entry.record["rows"], entry.record["tokens"]
            for site in sites:
                self.sums[site].restore(entry.tensors[str(site)], self.tokens)

    def read(self, rows: Sequence[Sequence[int]]) -> Iterator[int]:
        """Adds the rows not yet seen; yields the number of tokens of every batch."""
        budget = TokenBudget(self.em.device, self.tokens_at_once)
        lengths = [len(row) for row in rows]
        while self.rows < len(rows):
            end = budget.take(lengths, self.rows)
            part = rows[self.rows : end]
            try:
                inputs = self._inputs(part)
            except RuntimeError as error:
                budget.shrink(error, len(part), lengths[self.rows])
                continue
            for site, x in inputs.items():
                self.sums[site].update(x)
            del inputs
            self.rows = end
            done = sum(map(len, part))
            self.tokens += done
            if time.monotonic() - self.saved > max(self.save_every, _SHARE * self.cost):
                self._save()
            yield done

    def _inputs(self, rows: Sequence[Sequence[int]]) -> dict[Site, Tensor]:
        """Inputs (tokens, d_in) of every site, without padding and without every row's first token."""
        batch = pad(rows, self.em.pad_id, self.em.device)
        with torch.no_grad():
            captured = run(self.em, batch, inputs=list(self.sums), stop=True)
        keep = batch.mask.bool()
        # an attention sink: its norm is many times that of any other token, and nothing is edited there
        keep[:, 0] = False
        return {site: captured.inputs[site][keep] for site in self.sums}

    def _save(self) -> None:
        began = time.monotonic()
        tensors = {str(site): total.state()[0] for site, total in self.sums.items()}
        record = {"rows": self.rows, "tokens": self.tokens}
        self.cache.save("stats-partial", self.key, tensors, record)
        self.saved = time.monotonic()
        self.cost = self.saved - began


def _parts(em: EditableModel, sites: Sequence[Site]) -> list[list[Site]]:
    """Sites whose sums share half of the memory that is free: one pass over the corpus for each part.

    A pass is cheap beside moving large sums to the CPU after every batch.
    """
    room = free_memory(em.device) // 2
    parts: list[list[Site]] = []
    taken = 0
    for site in sites:
        own = _sum_bytes(em, [site])
        if not parts or taken + own > room:
            parts.append([])
            taken = 0
        parts[-1].append(site)
        taken += own
    return parts


def _place(em: EditableModel, sites: Sequence[Site]) -> torch.device:
    """Where the sums live: on the model's device unless even one site's would crowd it out."""
    return torch.device("cpu") if _sum_bytes(em, sites) > free_memory(em.device) // 2 else em.device


def _sum_bytes(em: EditableModel, sites: Sequence[Site]) -> int:
    """Of the float64 sums."""
    return sum(8 * em.d_in(site) ** 2 for site in sites)
