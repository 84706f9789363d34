"""MEMIT (Meng et al. 2023, "Mass-editing memory in a transformer", arXiv 2210.07229, eq. 14).

    dW = R^T K (lam C + K_prev^T K_prev + K^T K)^-1

with K_prev the keys of facts edited before (none in a single batch).
"""

from __future__ import annotations

from torch import Tensor

from hubedit.edit.methods.layered import earlier_moment, layered
from hubedit.edit.result import Edit
from hubedit.edit.spread import solve_device
from hubedit.edit.stages import Job
from hubedit.linalg import KeySpace, LowRank, Preserved
from hubedit.model.sites import Site


def memit(job: Job) -> Edit:
    """MEMIT on the MLP projections of the edited layers."""
    lam = job.config.lam

    def solve(site: Site, keys: Tensor, residual: Tensor) -> tuple[LowRank, float]:
        space = KeySpace.of(keys, weighted(job, site))
        return space.solve(residual, 1.0), lam

    return layered(job, solve)


def weighted(job: Job, site: Site) -> Preserved:
    """lam C, with the keys of earlier facts; a small ridge stands for what a sample of C does not know."""
    kept = job.ground.moments[site].matrix.double() * job.config.lam
    earlier = earlier_moment(job, site)
    return Preserved.of(kept if earlier is None else kept + earlier, device=solve_device(job.em))
