"""What a batch knows of the batches before it: the keys of their facts, each as it was when its batch was
done.

They are taken once, right after a batch, and carried: in a run as the sum of their squares, from which facts
can be left out, and from one patch to the next in the cache. Each counts 1, as all rows of a new fact do
together, however many there are. So what a batch costs does not grow with the number of batches: no earlier
prompt is tokenized or goes into the model again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hubedit.cache import Cache
from hubedit.edit.batch import EditBatch
from hubedit.edit.rows import edit_rows
from hubedit.edit.solve.keys import at_subject, keys
from hubedit.facts import Fact
from hubedit.facts.together import Names
from hubedit.model.sites import Site

_KIND = "keys"


class Earlier:
    """`facts`: edited before, in order; `names`: of their subjects; `keys`: of each fact (d_in,), float32;
    `squares`: K^T K (d_in, d_in) of all of them, float64. All on the CPU."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.names: list[Names] = []
        self.keys: dict[Site, list[Tensor]] = {}
        self.squares: dict[Site, Tensor] = {}

    def add(self, facts: Sequence[Fact], names: Sequence[Names], new: Mapping[Site, Tensor]) -> None:
        """More facts with the names of their subjects and their keys (n, d_in) at every site."""
        self.facts += facts
        self.names += names
        for site, own in new.items():
            k = own.float()
            self.keys.setdefault(site, []).extend(k)
            self.squares[site] = self.squares[site] + _squares(k) if site in self.squares else _squares(k)

    def drop(self, out: Collection[int]) -> None:
        """Forgets facts, by their places."""
        if not out:
            return
        self.squares = self.without(out)
        left = [n for n in range(len(self.facts)) if n not in out]
        self.facts = [self.facts[n] for n in left]
        self.names = [self.names[n] for n in left]
        self.keys = {site: [k[n] for n in left] for site, k in self.keys.items()}

    def without(self, out: Collection[int]) -> dict[Site, Tensor]:
        """The squares without some of the facts."""
        some = sorted(out)
        if not some:
            return dict(self.squares)
        gone = {site: torch.stack([k[n] for n in some]) for site, k in self.keys.items()}
        return {site: total - _squares(gone[site]) for site, total in self.squares.items()}


def _squares(k: Tensor) -> Tensor:
    wide = k.double()
    return wide.T @ wide


def keys_now(batch: EditBatch, facts: Sequence[Fact]) -> dict[Site, Tensor]:
    """The keys (M, d_in) that facts have now, averaged over contexts, at every edited site."""
    if not facts:
        return {}
    rows, sites = edit_rows(batch.model, facts, batch.contexts), sorted(batch.baseline.moments)
    state = at_subject(batch.model, rows, batch.baseline.layers[-1], sites)
    return {site: keys(state, rows, len(facts), site).float() for site in sites}


def kept_keys(batch: EditBatch, facts: Sequence[Fact], steps: Sequence[str]) -> dict[Site, Tensor]:
    """The keys of facts edited before, from the cache where the step that edited a fact has left them, under
    its id. Those that are not there are what they are now, and stay for the next time; without `steps` all
    are.
    """
    sites = sorted(batch.baseline.moments)
    if not steps or not facts:
        return keys_now(batch, facts)
    known: dict[tuple[Site, str], dict[str, Tensor]] = {}
    for site in sites:
        for step in dict.fromkeys(steps):
            entry = batch.cache.load(_KIND, _key(step, batch.config.method, site))
            rows = entry.tensors["keys"] if entry is not None else ()
            known[site, step] = dict(
                zip(entry.record["prompts"] if entry is not None else (), rows, strict=True)
            )
    missing = [
        n
        for n, (fact, step) in enumerate(zip(facts, steps, strict=True))
        if any(fact.prompt not in known[site, step] for site in sites)
    ]
    for site, now in keys_now(batch, [facts[n] for n in missing]).items():
        for n, key in zip(missing, now, strict=True):
            known[site, steps[n]][facts[n].prompt] = key
    for step in dict.fromkeys(steps[n] for n in missing):
        own = known[sites[0], step]
        save_keys(
            batch.cache,
            step,
            batch.config.method,
            list(own),
            {s: torch.stack(list(known[s, step].values())) for s in sites},
        )
    pairs = list(zip(facts, steps, strict=True))
    return {site: torch.stack([known[site, step][fact.prompt] for fact, step in pairs]) for site in sites}


def save_keys(
    cache: Cache, step: str, method: str, prompts: Iterable[str], found: Mapping[Site, Tensor]
) -> None:
    """Leaves the keys (n, d_in) of a step's facts in the cache, under the id of the patch that it alone
    is."""
    for site, own in found.items():
        key = _key(step, method, site)
        if cache.load(_KIND, key) is None:  # a run that goes on where it was killed has them
            cache.save(_KIND, key, {"keys": own}, {"prompts": list(prompts)})


def _key(step: str, method: str, site: Site) -> dict[str, str]:
    return {"step": step, "method": method, "site": str(site)}
