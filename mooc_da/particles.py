"""The particle filter: nothing is assumed Gaussian, at a price that grows with the exponential of the dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .ensembles import check_observed, modes, observed_values, per_experiment
from .filters import EnsembleFilter
from .models import Step
from .observations import Observation


@dataclass(frozen=True)
class Particles:
    """State of a particle filter."""

    E: Tensor  # (..., Ne, Nx)
    log_weights: Tensor  # (..., Ne), normalised

    def moments(self) -> tuple[Tensor, Tensor]:
        """Weighted mean and variance of every state variable, each (..., Nx)."""
        X, mean = weighted_anomalies(self)
        return mean.squeeze(-2), (X * X).sum(-2)


def weighted_anomalies(state: Particles) -> tuple[Tensor, Tensor]:
    """X (..., Ne, Nx) with the covariance ``X^T X``, and the mean (..., 1, Nx); a lost particle may be infinite."""
    w = state.log_weights.exp().unsqueeze(-1)
    E = torch.where(w > 0, state.E, 0.0)
    mean = (w * E).sum(-2, keepdim=True)
    return w.sqrt() * (E - mean), mean


def bayes_update(log_weights: Tensor, HE: Tensor, y: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    r"""Bayes' rule for particles (Gordon, Salmond & Smith 1993, doi 10.1049/ip-f-2.1993.0015).

    .. math:: w_i \leftarrow w_i\, p(y \mid x_i) / p(y), \qquad p(y \mid x_i) = N(y; H(x_i), R)

    In logarithms, so that no likelihood underflows.

    Returns
    -------
    log weights (..., Ne) and log p(y) (...,)

    Raises
    ------
    FloatingPointError
        if no particle has a weight left, because H of all of them is infinite or NaN
    """
    n_values, log_R = observed_values(R)
    misfit = (y.unsqueeze(-2) - HE) * R.rsqrt().unsqueeze(-2)
    log_likelihoods = -0.5 * torch.linalg.vecdot(misfit, misfit)
    joint = torch.where(torch.isfinite(log_likelihoods), log_weights + log_likelihoods, -math.inf)
    log_evidence = joint.logsumexp(-1)
    if not torch.isfinite(log_evidence).all():
        raise FloatingPointError("all particles have zero weight: H of every one is NaN, infinite or beyond measure")
    constant = 0.5 * (log_R + n_values * math.log(2.0 * math.pi))
    return joint - log_evidence.unsqueeze(-1), log_evidence - constant


def systematic_resampling(log_weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Indices (..., Ne) of the particles to keep, each about ``Ne w_i`` times (Kitagawa 1996, doi 10.2307/1390750).

    One random number per experiment: the points ``(u + 0 … Ne - 1) / Ne`` are looked up in the sum of the weights.
    """
    n = log_weights.shape[-1]
    u = torch.rand(*log_weights.shape[:-1], 1, dtype=log_weights.dtype, generator=generator).to(log_weights.device)
    points = (u + torch.arange(n, dtype=u.dtype, device=u.device)) / n
    cumulative = log_weights.exp().cumsum(-1)
    return torch.searchsorted(cumulative / cumulative[..., -1:], points).clamp(max=n - 1)


def effective_size(log_weights: Tensor) -> Tensor:
    """``1 / sum w_i^2``, (...,): the number of particles that share the weight."""
    return (-(2.0 * log_weights).logsumexp(-1)).exp()


@dataclass(frozen=True)
class ParticleFilter(EnsembleFilter):
    r"""Bootstrap particle filter: run the particles, weigh them by :func:`bayes_update`, resample when few are left.

    Parameters
    ----------
    resample_below : resample when the effective size falls below this fraction of the size
    bandwidth : regularisation: copies of a particle are moved by noise with the weighted covariance times
        :math:`(\mathrm{bandwidth}\; N_e^{-1/(N_x + 4)})^2`; zero leaves exact copies, which a perfect,
        deterministic model never parts again
    model_error_std : of noise drawn and added to each particle at each step
    """

    size: int = 1000
    resample_below: float = 0.5
    bandwidth: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.resample_below <= 1:
            raise ValueError(f"resample_below = {self.resample_below}: expected a fraction in (0, 1].")
        if not self.bandwidth >= 0:
            raise ValueError(f"bandwidth = {self.bandwidth}: expected zero or a positive factor.")
        if torch.is_tensor(self.inflation) or self.inflation != 1 or self.rotation:
            raise ValueError("ParticleFilter knows no inflation and no rotation: use bandwidth or model_error_std.")

    def start(self, sample: Tensor, generator: torch.Generator | None = None) -> Particles:
        E = super().start(sample, generator).E
        return Particles(E, torch.full(E.shape[:-1], -math.log(self.size), dtype=E.dtype, device=E.device))

    def forecast(self, state: Particles, step: Step, generator: torch.Generator | None = None) -> Particles:
        """Resampled where few are left, every particle goes one step on, with a draw of the model error."""
        state = self.resampled(state, generator)
        E = step(state.E)
        if torch.is_tensor(self.model_error_std) or self.model_error_std > 0:
            noise = torch.randn(E.shape, dtype=E.dtype, generator=generator).to(E.device)
            E = E + per_experiment(self.model_error_std, E) * noise
        return replace(state, E=E)

    def analyse(
        self, state: Particles, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Particles, dict]:
        HE = obs.H(state.E)
        check_observed(state.E, HE, obs.y, obs.R)
        log_weights, log_evidence = bayes_update(state.log_weights, HE, obs.y, obs.R)
        statistics = {"log_likelihood": log_evidence, "effective_size": effective_size(log_weights)}
        return Particles(state.E, log_weights), statistics

    def resampled(self, state: Particles, generator: torch.Generator | None) -> Particles:
        """Equal weights again in the experiments where too few particles share the weight."""
        few = (effective_size(state.log_weights) < self.resample_below * self.size).unsqueeze(-1)  # (..., 1)
        if not few.any():
            return state
        index = systematic_resampling(state.log_weights, generator)
        E = state.E.gather(-2, index.unsqueeze(-1).expand_as(state.E))
        if self.bandwidth:
            E = E + self.jitter(state, generator)
        equal = torch.full_like(state.log_weights, -math.log(self.size))
        return Particles(torch.where(few.unsqueeze(-1), E, state.E), torch.where(few, equal, state.log_weights))

    def jitter(self, state: Particles, generator: torch.Generator | None) -> Tensor:
        """Noise with the shape of the weighted ensemble (..., Ne, Nx)."""
        X, _ = weighted_anomalies(state)
        U, _ = modes(X)
        root = U.mT @ X  # (..., r, Nx), the same covariance with fewer rows
        draws = torch.randn(*X.shape[:-1], root.shape[-2], dtype=X.dtype, generator=generator).to(X.device)
        return self.bandwidth * self.size ** (-1.0 / (X.shape[-1] + 4)) * draws @ root
