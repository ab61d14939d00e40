"""What the judges of notebook 3 measure for themselves: horizons, chaos and innovations of hybrids, kept once made."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from .. import stages
from ..config import seeded
from ..models import Lorenz96, Step, lyapunov_exponents, repeated, spin_up, trajectory
from ..networks import CorrectionCNN, HybridModel
from ..scores import forecast_errors, skill_horizon
from ._twins import CFG, NATURE, PHYSICAL


@cache
def few_networks() -> CorrectionCNN:
    """Two of the five networks, to be quick."""
    return stages.correction(CFG).select(slice(0, 2))


@cache
def true_runs() -> Tensor:
    """The true runs of the notebook, (500, T + 1, Nx)."""
    return stages.forecast_truth(CFG)


def states(n: int, stream: str, model: Lorenz96 = NATURE) -> Tensor:
    """Independent states of a model's climate, (n, Nx)."""
    return spin_up(model, (n,), generator=seeded(3, stream), n_steps=400)


def horizon(step: Step, truth: Tensor, starts: Tensor | None = None) -> float:
    """Mean skill horizon, MTU, at half the std of the runs (..., n_runs, T + 1, Nx)."""
    return float(skill_horizon(forecast_errors(step, truth, starts=starts), float(truth.std()) / 2, CFG.dt).mean())


@cache
def from_noisy_starts() -> dict[float, tuple[float, float]]:
    """Horizons of the physical model and of the hybrid, by the noise of their starts."""
    runs = true_runs()[:300, :46].expand(2, -1, -1, -1)
    eps = torch.randn(runs[..., 0, :].shape, dtype=runs.dtype, generator=seeded(1, "noise"))
    models = (PHYSICAL, HybridModel(PHYSICAL, few_networks()))
    return {s: tuple(horizon(m, runs, runs[..., 0, :] + s * eps) for m in models) for s in (0.0, 0.2, 1.0)}


@cache
def chaos() -> tuple[Tensor, float]:
    """Four states of the physical model's climate, and its largest exponent along the 15 MTU from there."""
    x0 = states(4, "growth", PHYSICAL)
    return x0, float(lyapunov_exponents(PHYSICAL, x0, 260, CFG.dt, 1, n_discarded=40).mean())


@cache
def innovations_over_expected() -> tuple[Tensor, Tensor]:
    """chi2 of the hybrid's filter in the last 300 assimilated times: with the old model error, with a tenth of it."""
    network = few_networks().select(slice(0, 1))
    hybrid = HybridModel(PHYSICAL, lambda x: network(x.unsqueeze(0)).squeeze(0))  # for a batch of two filters
    times, variances = slice(CFG.n_assimilated - 300, CFG.n_assimilated), torch.tensor([1.0, 0.1])
    run = stages.assimilate(replace(CFG, n_seeds=1), hybrid, CFG.model_error_variance * variances, times=times)
    return tuple(run.diagnostics["chi2"])


class Gains(NamedTuple):
    """Hybrid over physical horizon with both forcings raised by 2, in other cases, and the thresholds."""

    right: float
    old_physical: float  # the physical model keeps its forcing
    old_climate: float
    new_threshold: float
    old_threshold: float


@cache
def gains() -> Gains:
    """By which factor the hybrid's horizon is longer, from 200 of the true runs."""

    def gain(truth: Tensor, model: Lorenz96) -> float:
        truths = truth.expand(2, -1, -1, -1)
        return horizon(HybridModel(model, few_networks()), truths) / horizon(model, truths)

    nature, updated = replace(NATURE, forcing=CFG.true_forcing + 2), replace(PHYSICAL, forcing=CFG.forcing + 2)
    old = true_runs()[:200, :46]
    new = trajectory(nature, repeated(nature, 200)(true_runs()[:200, -1]), 45)
    thresholds = (float(truth.std()) / 2 for truth in (new, true_runs()))
    return Gains(gain(new, updated), gain(new, PHYSICAL), gain(old, PHYSICAL), *thresholds)
