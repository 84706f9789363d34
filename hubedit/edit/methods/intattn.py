"""IntAttn-Edit (Liu et al. 2025, "Balancing knowledge updates", arXiv 2510.27400): MEMIT at both sites.

for each edited layer l in order, with the layers before in effect, and R = (z - h[L]) / (layers left):

    o_proj:     dW = (alpha R)^T        K_a (lam C_a + K_a^T K_a)^-1
    down_proj:  dW = ((1 - alpha) R)^T  K_m (lam C_m + K_m^T K_m)^-1

K_a, K_m (N, d_in) are the keys of the two sites at the subject's last token, C_a, C_m (d_in, d_in) the second
moments of their inputs. Both sites are solved from the same states. alpha is the share that attention has of
the indirect effects in the causal trace (`hubedit.edit.locate.alpha`), of all edited layers or of each, or
given. alpha = 0 is MEMIT, alpha = 1 edits attention alone (the paper's table 3).

Read from the paper's abstract and supplementary tables, and from MEMIT, which it extends; its main text was
not at hand (docs/method.md, "What is whose").
"""

from __future__ import annotations

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.layered import layered
from hubedit.edit.methods.memit import ridge
from hubedit.edit.result import Edit


def intattn(batch: EditBatch) -> Edit:
    """IntAttn-Edit on attention's output and the MLP's down projection of the edited layers."""
    return layered(batch, ridge(batch), batch.baseline.alpha)
