"""What tests of editing share: facts, second moments of a tiny model, and its own random factors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hubedit.facts import Fact
from hubedit.linalg import Moments, SecondMoment
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.sites import Site
from hubedit.model.tokens import encode, pad
from tests.pico import SENTENCES

FACTS = (
    Fact("The capital of France is", "France", "Rome"),
    Fact("The mother tongue of Danielle Darrieux is", "Danielle Darrieux", "English"),
    Fact("Marie Curie was born in", "Marie Curie", "Rome"),
    Fact("Autonomous University of Madrid, which is located in", "Autonomous University of Madrid", "Sweden"),
)


@torch.no_grad()
def moments_of(em: EditableModel, sites: Sequence[Site] = ()) -> dict[Site, Moments]:
    """E[k k^T] of every site over the pico corpus."""
    batch = pad([encode(em.tokenizer, text).ids for text in SENTENCES], em.pad_id)
    inputs = run(em, batch, inputs=sites or em.sites()).inputs
    found = {}
    for site, x in inputs.items():
        total = SecondMoment(em.d_in(site))
        total.update(x[batch.mask.bool()])
        found[site] = total.finish()
    return found
