"""Spreading the residuals over the edited sites: keys, closed-form solve, next site with the deltas active.

For each edited layer l in order (method section 4; MEMIT algorithm 1, extended to attention):

    R = (z - h[L]) / (number of edited layers left)
    attention-first:  o_proj gets alpha R, then h[L] is measured again and down_proj gets what remains
    joint:            o_proj gets alpha R and down_proj (1 - alpha) R, from the same keys

Each site's lambda is the smallest that keeps its predicted drift tr(dW C dW^T) / tr(W C W^T) in budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hubedit.config import EditConfig
from hubedit.edit.balance import parse_null_space
from hubedit.edit.residual import site_residual
from hubedit.edit.rows import OTHER, Row, bare_rows, by_length
from hubedit.errors import ConfigError
from hubedit.linalg import (
    KeySpace,
    LowRank,
    Moments,
    Preserved,
    SecondMoment,
    Threshold,
    null_space,
    output_power,
)
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied, run
from hubedit.model.memory import parked, pass_size
from hubedit.model.sites import Site
from hubedit.model.tokens import pad

KEY_TOKENS = 32768
"""Most padded tokens of a pass for keys; no gradients, only the layers up to L."""


@dataclass(frozen=True)
class Budget:
    """Largest drift a site may have, relative to its own output power; `lam` > 0 fixes lambda instead."""

    attention: float
    mlp: float
    lam: float = 0.0

    def of(self, site: Site) -> float:
        """The budget of one site."""
        return self.attention if site.kind == "attention" else self.mlp


@dataclass(frozen=True)
class SiteReport:
    """What the solve did at one site: lambda (0: there is none), relative drift, share of the residual
    realised on the keys (None: it had no residual), |dW| and |W| (Frobenius)."""

    lam: float
    drift: float
    reached: float | None
    norm: float
    weight_norm: float


@dataclass
class Solution:
    """The factors found, and what the solve did at each site."""

    factors: dict[Site, LowRank] = field(default_factory=dict)
    reports: dict[Site, SiteReport] = field(default_factory=dict)


class Spreader:
    """Solves for one batch of facts on a model; the rows are the facts' edit rows (bare prompt first)."""

    def __init__(
        self,
        em: EditableModel,
        rows: Sequence[Row],
        count: int,
        layers: Sequence[int],
        moments: Mapping[Site, Moments],
        *,
        around: Sequence[Row] = (),
        unreached: Collection[int] = (),
        own: float = 0.5,
        ridge: float = 1e-4,
        earlier: Mapping[Site, Tensor] | None = None,
        earlier_weight: float = 0.0,
        threshold: Threshold | None = None,
    ) -> None:
        """`around`, `own`: prompts that join what is preserved, and their weight (`_around_subjects`).
        `unreached`: facts whose answers are written at too (`hubedit.edit.unreached`).
        `earlier`: keys (M, d_in) of facts edited before; `earlier_weight` K^T K joins what is preserved.
        `threshold`: write only into the null space of what is preserved.
        """
        self.em, self.count, self.layers = em, count, tuple(layers)
        # what follows the subject's last token cannot change its keys
        self.rows = [Row(r.fact, r.ids[: r.last + 1], r.last, ()) for r in rows]
        self.moments = moments
        self.ridge = ridge
        self.around, self.own = tuple(around) or tuple(rows), own
        self.unreached = frozenset(unreached)
        self.earlier, self.earlier_weight = earlier or {}, earlier_weight
        self.threshold = threshold
        self._own_moments: dict[Site, Tensor] = {}
        self._preserved: dict[Site, Preserved] = {}
        self._power: dict[Site, float] = {}
        self.clean = self.mean_at_subject(hidden=self.layers[-1])["hidden"]

    def preserved(self, site: Site) -> Preserved:
        """The Cholesky factor of a site's moment, made once; one is on a GPU that is short of memory."""
        device = solve_device(self.em)
        if site not in self._preserved:
            matrix = self.moments[site].matrix
            if self.own > 0:
                matrix = (1 - self.own) * matrix + self.own * self._around_subjects(site)
            # budgets are of the model's output without the keys of earlier facts, which are large
            self._power[site] = output_power(self.em.weight(site).to(device), matrix.to(device))
            if site in self.earlier and self.earlier_weight > 0:
                keys = self.earlier[site].to(matrix)
                matrix = matrix + self.earlier_weight * keys.T @ keys
            basis = None if self.threshold is None else free_basis(matrix.to(device), self.threshold, site)
            made = Preserved.of(matrix, self.ridge, device, basis)
            self._preserved[site] = made.to(parked(made.factor.nbytes, device))
        return self._preserved[site].to(device)

    @torch.no_grad()
    def _around_subjects(self, site: Site) -> Tensor:
        """The second moment of a site's inputs at every token of the batch's own prompts except the edited
        ones, and of prompts about other subjects: what stands beside the subject's last token is read by
        the same prompt, and the corpus hardly knows it. (d_in, d_in) float32."""
        if not self._own_moments:
            sites = [s for s in self.moments if s.layer in self.layers]
            sums = {s: SecondMoment(self.em.d_in(s), solve_device(self.em)) for s in sites}
            for part in by_length(self.around, pass_size(self.em, KEY_TOKENS)):
                batch = pad([r.ids for r in part], self.em.pad_id, self.em.device)
                kept = batch.mask.bool()
                edited = torch.tensor([i for i, r in enumerate(part) if r.fact != OTHER], dtype=torch.long)
                kept[edited, torch.tensor([r.last for r in part])[edited]] = False
                for i in (i for i, r in enumerate(part) if r.fact in self.unreached and not r.preserve):
                    kept[i, part[i].first_scored :] = False
                found = run(self.em, batch, inputs=sites)
                for s in sites:
                    sums[s].update(found.inputs[s][kept].to(solve_device(self.em)))
            self._own_moments = {s: total.finish().matrix for s, total in sums.items() if total.count}
        return self._own_moments.get(site, self.moments[site].matrix)

    @torch.no_grad()
    def mean_at_subject(
        self, hidden: int, sites: Sequence[Site] = (), outputs: Sequence[Site] = ()
    ) -> dict[str, Tensor]:
        """Means over each fact's contexts, at the subject's last token: the bare prompt counts one half,
        the contexts the other. "hidden": (N, d) after layer `hidden`; str(site): (N, d_in) keys;
        "out " + str(site): (N, d) what the site writes. float64."""
        sums: dict[str, Tensor] = {}
        number = Counter(r.fact for r in self.rows)
        weight = {id(r): 0.5 / max(1, number[r.fact] - 1) for r in self.rows}
        weight |= {id(r): 1.0 if number[n] == 1 else 0.5 for n, r in bare_rows(self.rows).items()}
        for part in by_length(self.rows, pass_size(self.em, KEY_TOKENS)):
            batch = pad([r.ids for r in part], self.em.pad_id, self.em.device)
            found = run(self.em, batch, inputs=sites, outputs=outputs, hidden=[hidden])
            rows_at = torch.arange(len(part), device=self.em.device)
            last = torch.tensor([r.last for r in part], device=self.em.device)
            fact = torch.tensor([r.fact for r in part])
            share = torch.tensor([weight[id(r)] for r in part], dtype=torch.float64)
            for name, values in (
                ("hidden", found.hidden[hidden]),
                *((str(s), found.inputs[s]) for s in sites),
                *((f"out {s}", found.outputs[s]) for s in outputs),
            ):
                at = values[rows_at, last].to("cpu", torch.float64)
                total = sums.setdefault(name, torch.zeros(self.count, at.shape[1], dtype=torch.float64))
                total.index_add_(0, fact, at * share[:, None])
        return sums

    def solve(
        self, delta: Tensor, alpha: Mapping[int, float], budget: Budget, *, order: str = "attention-first"
    ) -> Solution:
        """Factors that add `delta` (N, d) after the last layer; `alpha[l]`: attention's share at layer l."""
        solution = Solution()
        live: dict[Site, LowRank] = {}
        with applied(self.em, live):
            for position, layer in enumerate(self.layers):
                left = len(self.layers) - position
                share = alpha.get(layer, 0.0)
                sites = [(Site(layer, "attention"), share)] if share > 0 else []
                sites += [(Site(layer, "mlp"), 1.0)] if share < 1 else []
                if order == "joint":
                    both = [s for s, _ in sites]
                    state = self.mean_at_subject(self.layers[-1], both, both)
                    residual = (delta.double() - (state["hidden"] - self.clean)) / left
                    for site, _ in sites:
                        part = share if site.kind == "attention" else 1 - share
                        wanted = self._site_residual(site, state, part * residual)
                        self._solve_site(solution, live, site, state[str(site)], wanted, budget)
                    continue
                for site, part in sites:
                    state = self.mean_at_subject(self.layers[-1], [site], [site])
                    residual = (delta.double() - (state["hidden"] - self.clean)) / left
                    wanted = self._site_residual(site, state, part * residual)
                    self._solve_site(solution, live, site, state[str(site)], wanted, budget)
        return solution

    def correct(self, solution: Solution, delta: Tensor, alpha: Mapping[int, float]) -> Solution:
        """The same sites and right factors, with left factors moved so that `delta` is met more closely.

        One more pass with every lambda as it was: rank does not grow.
        """
        factors = dict(solution.factors)
        live = dict(factors)
        with applied(self.em, live):
            for position, layer in enumerate(self.layers):
                left = len(self.layers) - position
                for site in (Site(layer, "attention"), Site(layer, "mlp")):
                    if site not in factors:
                        continue
                    share = alpha.get(layer, 0.0) if site.kind == "attention" else 1.0
                    state = self.mean_at_subject(self.layers[-1], outputs=[site])
                    residual = share * (delta.double() - (state["hidden"] - self.clean)) / left
                    moved = factors[site].B.clone()  # columns behind the facts' own are of their answers
                    moved[:, : self.count] += self._site_residual(site, state, residual).T.to(moved)
                    factors[site] = LowRank(moved, factors[site].A)
                    live[site] = factors[site].to(self.em.device)
        return Solution(factors, self.reports(factors, solution))

    def _site_residual(self, site: Site, state: Mapping[str, Tensor], residual: Tensor) -> Tensor:
        """`site_residual` on measured states. What a norm's fixed length cannot reach remains, and `correct`
        or the next layer goes on from there."""
        return site_residual(self.em, site, state.get(f"out {site}"), residual)

    def reports(self, factors: Mapping[Site, LowRank], solution: Solution) -> dict[Site, SiteReport]:
        """Reports of factors that share their A with `solution`."""
        result = {}
        for site, factor in factors.items():
            old = solution.reports[site]
            half = self.whitened(site, factor)
            # from what is written, and not from the key space: that rounds where keys are the same
            left = factor.B.to(half)
            drift = float(((left.T @ left) * (half @ half.T)).sum().clamp_min(0))
            drift /= max(self._power[site], 1e-30)
            result[site] = SiteReport(old.lam, drift, old.reached, factor.norm(), old.weight_norm)
        return result

    def whitened(self, site: Site, factor: LowRank) -> Tensor:
        """A L (rank, d_in) with L L^T what the site preserves, so that |B A L|^2 is the drift. float64."""
        preserved = self.preserved(site)
        right = factor.A.to(preserved.factor)
        return (right if preserved.basis is None else right @ preserved.basis) @ preserved.factor

    def _solve_site(
        self,
        solution: Solution,
        live: dict[Site, LowRank],
        site: Site,
        keys: Tensor,
        residual: Tensor,
        budget: Budget,
    ) -> None:
        preserved = self.preserved(site)
        space = KeySpace.of(keys.to(preserved.factor), preserved)
        residual = residual.to(preserved.factor)
        power = max(self._power[site], 1e-30)
        lam = budget.lam or space.lam_for(residual, budget.of(site) * power)
        factor = space.solve(residual, lam).to(device="cpu", dtype=torch.float32)
        weight = float(self.em.weight(site).float().norm())
        solution.factors[site] = factor
        solution.reports[site] = SiteReport(
            lam, space.drift(residual, lam) / power, space.reached(residual, lam), factor.norm(), weight
        )
        live[site] = factor.to(self.em.device)


def threshold(config: EditConfig) -> Threshold | None:
    """The threshold of `config.null_space`; None where updates may write anywhere."""
    parsed = parse_null_space(config.null_space)
    return Threshold(*parsed) if parsed else None


def free_basis(moment: Tensor, bound: Threshold, site: Site) -> Tensor:
    """`null_space` of a site's moment, on its device. Raises ConfigError when it is empty."""
    basis = null_space(moment, bound)
    if not basis.shape[1]:
        raise ConfigError(
            f"no direction of site {site} is free: every eigenvalue of its moment is above the threshold",
            "raise --null-space; 1% counts relative to the largest eigenvalue",
        )
    return basis


def solve_device(em: EditableModel) -> torch.device:
    """Where float64 solves run: the model's GPU, else the CPU (MPS has no float64)."""
    return em.device if em.device.type == "cuda" else torch.device("cpu")
