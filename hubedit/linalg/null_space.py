"""The directions that inputs hardly use: updates confined to them leave everything else as it was.

AlphaEdit (Fang et al. 2025, section 3.2) multiplies the update by the projection P = U U^T on the
eigenvectors U of the moment C whose eigenvalues are below a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Threshold:
    """An eigenvalue counts as zero below `value`, or with `relative` below `value` x the largest one."""

    value: float
    relative: bool = False


def null_space(moment: Tensor, threshold: Threshold) -> Tensor:
    """Orthonormal eigenvectors (d_in, m) of C (d_in, d_in) with eigenvalues below the threshold; m may be 0.

    float64, on the moment's device. `basis @ basis.T` is AlphaEdit's P.
    """
    c = moment.double()
    values, vectors = torch.linalg.eigh((c + c.T) / 2)
    bound = threshold.value * (float(values[-1]) if threshold.relative else 1.0)
    # a moment that is zero altogether has nothing to preserve
    free: Tensor = vectors[:, values < max(bound, torch.finfo(torch.float64).tiny)]
    return free
