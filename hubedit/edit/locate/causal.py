"""The runs of causal tracing: clean, corrupted, and corrupted with single outputs put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubedit.cache import digest
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import replaced, run
from hubedit.model.resume import resume
from hubedit.model.sites import Site
from hubedit.model.tokens import Batch, Prompt, pad


@dataclass(frozen=True, eq=False)
class Clean:
    """Clean runs of some prompts. `outputs[site]` (f, t, d); `answer` (f,) the most probable next token."""

    outputs: Mapping[Site, Tensor]
    answer: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Corrupted runs, one row a (prompt, noise sample).

    `fact` (b,) maps rows to prompts of `clean`; `hidden[l]` (b, t, d) residual streams; `noise`
    (b, t, d) is what was added to the embeddings; `logits` (b, vocabulary) at the last token;
    `foil` (b,) the token other than the answer that these rank first.
    """

    batch: Batch
    clean: Clean
    fact: Tensor
    noise: Tensor
    hidden: Mapping[int, Tensor]
    logits: Tensor
    foil: Tensor


def subject_deviation(em: EditableModel, prompts: Sequence[Prompt]) -> float:
    """Standard deviation of the embeddings' elements over all subject tokens of the prompts."""
    ids = sorted(i for p in prompts for i in p.ids[p.first : p.last + 1])
    with torch.no_grad():
        vectors = em.embeddings()(torch.tensor(ids, device=em.device)).float()
    return float(vectors.std())


def subject_noise(prompt: Prompt, width: int, scale: float, seed: int, sample: int) -> Tensor:
    """(subject tokens, width) float32 Gaussian noise; the prompt, the seed and the sample determine it."""
    number = int(digest([seed, sample, prompt.text, prompt.first, prompt.last])[:15], 16)
    generator = torch.Generator().manual_seed(number)
    return torch.randn(prompt.last - prompt.first + 1, width, generator=generator) * scale


@torch.no_grad()
def clean_runs(em: EditableModel, prompts: Sequence[Prompt]) -> Clean:
    """Runs the prompts as they are."""
    batch = pad([p.ids for p in prompts], em.pad_id, em.device)
    top = em.num_layers - 1
    captured = run(em, batch, outputs=em.sites(), hidden=[top])
    logits = _last_logits(em, captured.hidden[top], batch)
    return Clean(captured.outputs, logits.argmax(-1), logits)


@torch.no_grad()
def corrupted_runs(
    em: EditableModel,
    prompts: Sequence[Prompt],
    clean: Clean,
    rows: Sequence[tuple[int, int]],
    scale: float,
    seed: int,
) -> Corrupted:
    """Runs the rows (index of the prompt, noise sample) with noise on the subject's embeddings."""
    batch = pad([prompts[i].ids for i, _ in rows], em.pad_id, em.device)
    noise = torch.zeros(*batch.ids.shape, em.hidden_size)
    for row, (i, sample) in enumerate(rows):
        p = prompts[i]
        noise[row, p.first : p.last + 1] = subject_noise(p, em.hidden_size, scale, seed, sample)
    noise = noise.to(em.device)
    top = em.num_layers - 1
    with replaced(em, embeddings=lambda x: (x.float() + noise).to(x.dtype)):
        captured = run(em, batch, hidden=range(em.num_layers))
    logits = _last_logits(em, captured.hidden[top], batch)
    fact = torch.tensor([i for i, _ in rows], device=em.device)
    others = logits.scatter(1, clean.answer[fact][:, None], -torch.inf)
    return Corrupted(batch, clean, fact, noise, captured.hidden, logits, others.argmax(-1))


@torch.no_grad()
def restored_logits(em: EditableModel, runs: Corrupted, sites: Sequence[Site], place: Tensor) -> Tensor:
    """(b, vocabulary) logits when the sites' outputs at token `place` (b,) are the clean ones.

    A row with `place` -1 stays corrupted and is not run; neither are blocks below the lowest site.
    """
    rows = (place >= 0).nonzero()[:, 0]
    at, every = place[rows], torch.arange(len(rows), device=rows.device)
    batch = Batch(runs.batch.ids[rows], runs.batch.mask[rows], runs.batch.lengths[rows])
    noise = runs.noise[rows]

    def change(site: Site, output: Tensor) -> Tensor:
        changed = output.clone()
        clean = runs.clean.outputs[site][runs.fact[rows], at]
        changed[every.to(output.device), at.to(output.device)] = clean.to(output)
        return changed

    changes = {site: lambda output, site=site: change(site, output) for site in sites}
    lowest, top = min(site.layer for site in sites), em.num_layers - 1
    if lowest == 0:
        with replaced(em, changes, embeddings=lambda x: (x.float() + noise).to(x.dtype)):
            final = run(em, batch, hidden=[top]).hidden[top]
    else:
        with replaced(em, changes):
            final = resume(em, lowest - 1, runs.hidden[lowest - 1][rows], batch)
    logits = runs.logits.clone()
    logits[rows] = _last_logits(em, final, batch)
    return logits


def measures(logits: Tensor, answer: Tensor, foil: Tensor) -> Tensor:
    """(b, 2) float64: probability of `answer` (b,), and its logit minus that of `foil` (b,)."""
    own = logits.gather(1, answer[:, None])[:, 0]
    other = logits.gather(1, foil[:, None])[:, 0]
    return torch.stack([(own - logits.logsumexp(-1)).exp(), own - other], 1).double().cpu()


def _last_logits(em: EditableModel, hidden: Tensor, batch: Batch) -> Tensor:
    """(b, vocabulary) float32 logits at every row's last token."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return em.head_logits(hidden[rows, batch.lengths - 1]).float()
