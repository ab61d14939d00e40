"""Ensemble Kalman filters: one pure update function per algorithm, and a small dataclass with its tuning.

An update takes the ensemble ``E (..., Ne, Nx)`` and the OBSERVED ensemble ``HE (..., Ne, Ny)``, so
that the observation operator may be anything, a neural network included. In all of them

    x, X  mean and anomalies of E             Y      anomalies of HE divided by the error std, R^(-1/2)
    delta R^(-1/2) (y - mean of HE)           U, s2  modes of Y (left singular vectors, squared values)
    g     U^T Y delta                         N      Ne - 1

and the analysis is ``E_a = x + (w + T) X`` with weights ``w`` of the mean and a transform ``T`` of
the anomalies, both computed in the space of the observations or members, whichever is smaller.

| filter  | assumes                                   | cost of an analysis               | reference             |
|---------|-------------------------------------------|-----------------------------------|-----------------------|
| `EnKF`  | Gaussian errors; perturbs observations    | a solve of size Ny                | Burgers et al. (1998) |
| `ETKF`  | Gaussian errors                           | an eigenproblem, min(Ne, Ny)      | Hunt et al. (2007)    |
| `EnKFN` | unknown mean and covariance of the prior  | two of them, a 1-D minimisation   | Raanes et al. (2019)  |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .ensembles import (
    InnovationModes,
    anomalies,
    check_observed,
    inflate,
    innovation_modes,
    innovation_statistics,
    rotate,
    sqrt_core,
    transformed,
    with_variance_factor,
)
from .models import Step
from .observations import Observation


class FilterDivergence(RuntimeError):
    """The filter left the finite numbers; ``partial`` is the result up to the time before."""

    partial = None


def enkf_update(E: Tensor, HE: Tensor, y: Tensor, R: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Stochastic EnKF with perturbed observations.

    Burgers, van Leeuwen & Evensen (1998), doi 10.1175/1520-0493(1998)126<1719:ASITEK>2.0.CO;2:

    ``E_a = E + (delta_i + eps_i) (Y^T Y + N I)^-1 Y^T X`` for every member i with its own innovation
    ``delta_i`` and a centred draw ``eps_i ~ N(0, I)``, all in units of the error; solved, never inverted.
    """
    check_observed(E, HE, y, R)
    _, X = anomalies(E)
    _, Y = anomalies(HE)
    Y = Y * R.rsqrt()
    eps = torch.randn(HE.shape, dtype=E.dtype, generator=generator).to(E.device)
    departures = (y.unsqueeze(-2) - HE) * R.rsqrt() + eps - eps.mean(-2, keepdim=True)  # (..., Ne, Ny)
    S = Y.mT @ Y + (E.shape[-2] - 1) * torch.eye(Y.shape[-1], dtype=E.dtype, device=E.device)
    return E + departures @ torch.cholesky_solve(Y.mT @ X, torch.linalg.cholesky(S))


def etkf_update(E: Tensor, HE: Tensor, y: Tensor, R: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Ensemble transform Kalman filter, symmetric square root (Hunt et al. 2007, doi 10.1016/j.physd.2006.11.008).

    ``w = (Y Y^T + N I)^-1 Y delta`` and ``T = sqrt(N) (Y Y^T + N I)^(-1/2)``, both diagonal in the modes.

    Returns
    -------
    E_a : (..., Ne, Nx) and the :func:`innovation_statistics`
    """
    m = innovation_modes(E, HE, y, R)
    N = E.shape[-2] - 1.0
    T = torch.diag_embed((N / (m.s2 + N)).sqrt() - 1.0)  # less the identity, which acts everywhere
    return transformed(m, w=m.g / (m.s2 + N), T=T, rest=1.0), innovation_statistics(m, R)


def enkf_n_update(E: Tensor, HE: Tensor, y: Tensor, R: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Finite-size EnKF (EnKF-N; Bocquet 2011, doi 10.5194/npg-18-735-2011; Bocquet & Sakov 2012).

    The true mean and covariance behind an ensemble of finite size are unknown; marginalised out,
    the prior of the weights has a fatter tail. Its effect is an inflation, chosen anew by each analysis:

    .. math:: \zeta = \arg\min D, \quad w = (Y Y^T + \zeta I)^{-1} Y \delta, \quad
              T = \sqrt{N} \Big( Y Y^T + \zeta I - \tfrac{2 \zeta^2}{N_e + 1} w w^T \Big)^{-1/2}.

    with the dual cost D of :func:`finite_size_zeta`. With :math:`\zeta = N_e - 1` and without the
    last term this is the ETKF.

    Returns
    -------
    E_a : (..., Ne, Nx), the :func:`innovation_statistics` and ``zeta``
    """
    m = innovation_modes(E, HE, y, R)
    zeta = finite_size_zeta(m.s2, m.g, E.shape[-2])
    return finite_size_analysis(m, zeta), innovation_statistics(m, R) | {"zeta": zeta}


def finite_size_zeta(s2: Tensor, g: Tensor, n_members: int) -> Tensor:
    r"""Minimiser of the dual cost of the EnKF-N, (...,); bounded by :math:`N_e - 1`, so that it never deflates.

    .. math:: D(\zeta) = \delta^T (I + Y^T Y / \zeta)^{-1} \delta + \epsilon \zeta
              + (N_e + 1) \ln \frac{N_e + 1}{\zeta} - (N_e + 1)

    with :math:`\epsilon = 1 + 1/N_e` (Bocquet & Sakov 2012, doi 10.5194/npg-19-383-2012).
    In the modes of Y the first term is, up to a constant, :math:`-\sum_m g_m^2 / (s_m^2 + \zeta)`.
    The cost may have several minima: a logarithmic grid finds the lowest, a Newton step polishes
    it, for all experiments of a batch at once.
    """
    grid, static_cost = zeta_grid(n_members, g.dtype, g.device)  # (G, 1), (G,)
    cost = static_cost - ((g * g).unsqueeze(-2) / (s2.unsqueeze(-2) + grid)).sum(-1)  # (..., G)
    zeta = grid[cost.argmin(-1)]  # (..., 1)
    distance = s2 + zeta
    w = g / distance
    zeta = zeta.squeeze(-1)
    stiffness = torch.linalg.vecdot(w, w) + (1.0 + 1.0 / n_members)  # |w|^2 + epsilon
    residual = zeta * stiffness - (n_members + 1.0)  # zeta dD/dzeta
    slope = stiffness - 2.0 * zeta * torch.linalg.vecdot(w, w / distance)
    return (zeta - residual / slope.clamp(min=0.1)).clamp(n_members * 1e-3, n_members - 1.0)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept must serve with gradients too
def zeta_grid(n_members: int, dtype: torch.dtype, device: torch.device, size: int = 128) -> tuple[Tensor, Tensor]:
    """Three decades of zeta below Ne - 1, (G, 1), and the part of the dual cost that depends on nothing else, (G,)."""
    grid = (n_members - 1) * torch.logspace(-3, 0, size, dtype=dtype, device=device)
    return grid.unsqueeze(-1), (1 + 1 / n_members) * grid - (n_members + 1) * grid.log()


def finite_size_analysis(m: InnovationModes, zeta: Tensor) -> Tensor:
    """The analysis of the EnKF-N for a given ``zeta (...,)``; see :func:`enkf_n_update`."""
    N = m.X.shape[-2] - 1.0
    zeta = zeta.unsqueeze(-1)
    diagonal = m.s2 + zeta
    w = m.g / diagonal
    v = (math.sqrt(2.0 / (N + 2.0)) * zeta * w).unsqueeze(-1)  # the Hessian is a diagonal less v v^T
    values, vectors = torch.linalg.eigh(torch.diag_embed(diagonal) - v * v.mT)  # positive at the minimum of D
    rest = (N / zeta).sqrt()  # outside the modes the Hessian is zeta I
    T = vectors * ((N / values.abs()).sqrt() - rest).unsqueeze(-2) @ vectors.mT
    return transformed(m, w, T, rest.unsqueeze(-1))


@dataclass(frozen=True)
class Ensemble:
    """State of an ensemble filter: what is carried from one time to the next."""

    E: Tensor  # (..., Ne, Nx)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of every state variable, each (..., Nx)."""
        x, X = anomalies(self.E)
        return x.squeeze(-2), (X * X).sum(-2) / (self.E.shape[-2] - 1.0)


@dataclass(frozen=True)
class AdaptiveEnsemble(Ensemble):
    """The ensemble of an adaptive EnKF-N with what it has learnt of its prior inflation."""

    beta: Tensor  # (...,) estimate of the factor missing in the forecast variance
    nu: float  # certainty of beta: the number of analyses it is worth


class Filter(Protocol):
    """What :func:`mooc_da.cycle` asks of a filter."""

    def start(self, sample: Tensor, generator: torch.Generator | None) -> Ensemble:
        """State before the first observation, from a sample (..., M, Nx) of possible states."""

    def forecast(self, state: Ensemble, step: Step, generator: torch.Generator | None) -> Ensemble:
        """State at the next time, before its observation."""

    def analyse(
        self, state: Ensemble, obs: Observation, generator: torch.Generator | None
    ) -> tuple[Ensemble, dict[str, Tensor]]:
        """State after the observation, and diagnostics, each (...,)."""


@dataclass(frozen=True)
class EnsembleFilter:
    """What all ensemble filters of the course share: tuning, start and forecast.

    Parameters
    ----------
    size : Ne, number of members
    inflation : factor of the analysis anomalies, 1 for none; may be a tensor, one per experiment
    model_error_std : sigma_q per step, in units of the state; may be a tensor, one per experiment
    model_error : how it enters the ensemble: :func:`sqrt_core` or :func:`additive_noise`
    rotation : rotate the analysis ensemble at random, :func:`rotate`; for small ensembles
    """

    size: int = 40
    inflation: float | Tensor = 1.0
    model_error_std: float | Tensor = 0.0
    model_error: Callable[..., Tensor] = sqrt_core
    rotation: bool = False

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"size = {self.size}: an ensemble needs at least 2 members to have a spread.")
        for name, smallest in (("inflation", "positive"), ("model_error_std", "zero or positive")):
            value = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            if not torch.isfinite(value).all() or (value < 0).any() or (smallest == "positive" and (value == 0).any()):
                raise ValueError(f"{name} = {getattr(self, name)}: expected finite numbers, {smallest}.")

    def start(self, sample: Tensor, generator: torch.Generator | None = None) -> Ensemble:
        """The first ``size`` members of the sample (..., M, Nx), once for each tuning."""
        if sample.ndim < 2 or sample.shape[-2] < self.size:
            raise ValueError(
                f"start has shape {tuple(sample.shape)}: expected (..., M, Nx) with at least "
                f"size = {self.size} states, for example spin_up(model, (40,), generator=...)."
            )
        tunings = [torch.as_tensor(value).shape for value in (self.inflation, self.model_error_std)]
        try:
            batch = torch.broadcast_shapes(sample.shape[:-2], *tunings)
        except RuntimeError:
            raise ValueError(
                f"inflation and model_error_std have shapes {[tuple(t) for t in tunings]} but the experiments "
                f"{tuple(sample.shape[:-2])}: expected an axis for each, e.g. experiments (S, 1)."
            ) from None
        return Ensemble(sample[..., : self.size, :].expand(*batch, -1, -1))

    def forecast(self, state: Ensemble, step: Step, generator: torch.Generator | None = None) -> Ensemble:
        """Every member one step on, then model error."""
        E = step(state.E)
        if torch.is_tensor(self.model_error_std) or self.model_error_std > 0:
            E = self.model_error(E, self.model_error_std, generator)
        return replace(state, E=E)

    def finished(self, E: Tensor, generator: torch.Generator | None) -> Tensor:
        """The analysis ensemble inflated and rotated, where asked for."""
        if torch.is_tensor(self.inflation) or self.inflation != 1:
            E = inflate(E, self.inflation)
        return rotate(E, generator) if self.rotation else E


@dataclass(frozen=True)
class EnKF(EnsembleFilter):
    """Stochastic EnKF: :func:`enkf_update`. Draws from the generator given to ``cycle``."""

    def analyse(
        self, state: Ensemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Ensemble, dict]:
        E = enkf_update(state.E, obs.H(state.E), obs.y, obs.R, generator=generator)
        return Ensemble(self.finished(E, generator)), {}


@dataclass(frozen=True)
class ETKF(EnsembleFilter):
    """Ensemble transform Kalman filter: :func:`etkf_update`."""

    def analyse(
        self, state: Ensemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Ensemble, dict]:
        E, statistics = etkf_update(state.E, obs.H(state.E), obs.y, obs.R)
        return Ensemble(self.finished(E, generator)), statistics


@dataclass(frozen=True)
class EnKFN(EnsembleFilter):
    r"""Finite-size EnKF with the hybrid adaptive inflation of Raanes, Bocquet & Carrassi (2019, doi 10.1002/qj.3386).

    Two inflations at work: :math:`\zeta` (:func:`enkf_n_update`) answers the sampling error of this
    analysis; :math:`\beta` answers what is wrong all the time, above all the model. Each analysis
    estimates it from its innovation, :math:`\hat\beta = (|\delta|^2 - N_y) (N_e - 1) / \sum_m s_m^2`,
    and updates :math:`\beta \leftarrow (\nu \beta + \hat\beta) / (\nu + 1), \; \nu \leftarrow \nu + 1`;
    the prior anomalies are multiplied by the root of its mean, :math:`\beta \nu / (\nu - 2)`.

    Parameters
    ----------
    adaptive : estimate beta (True) or keep it at one (the plain EnKF-N)
    nu : certainty of ``beta = 1`` at the start, in analyses
    nu_max : bound of the certainty; a finite one lets beta forget after that many analyses
    beta_min : lower bound of the factor; below one, a too wide ensemble may be deflated, at the risk of collapse
    beta_in_update : False is the variant in the code of Bocquet & Brajard (2023), where beta enters
        the dual cost of zeta but not the update; kept to compare with the numbers of that course
    """

    adaptive: bool = True
    nu: float = 100.0
    nu_max: float = float("inf")
    beta_min: float = 1.0
    beta_in_update: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 < self.nu <= self.nu_max:
            raise ValueError(f"nu = {self.nu}, nu_max = {self.nu_max}: expected 2 < nu <= nu_max.")
        if not self.beta_min > 0:
            raise ValueError(f"beta_min = {self.beta_min}: expected a positive factor.")

    def start(self, sample: Tensor, generator: torch.Generator | None = None) -> AdaptiveEnsemble:
        E = super().start(sample, generator).E
        return AdaptiveEnsemble(E, beta=torch.ones(E.shape[:-2], dtype=E.dtype, device=E.device), nu=self.nu)

    def analyse(
        self, state: AdaptiveEnsemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[AdaptiveEnsemble, dict]:
        m = innovation_modes(state.E, obs.H(state.E), obs.y, obs.R)
        beta, nu, prior = state.beta, state.nu, m
        if self.adaptive:
            known = (beta * (nu / (nu - 2))).clamp(min=self.beta_min)  # before this innovation
            statistics = innovation_statistics(with_variance_factor(m, known), obs.R)
            estimate = (m.delta2 - float(obs.R.shape[-1])) * (self.size - 1.0) / m.s2.sum(-1)
            beta = torch.lerp(beta, estimate, 1 / (nu + 1))
            nu = min(nu + 1, self.nu_max)
            factor = (beta * (nu / (nu - 2))).clamp(min=self.beta_min)
            prior = with_variance_factor(m, factor)
            statistics["beta"] = factor
        else:
            statistics = innovation_statistics(m, obs.R)
        zeta = finite_size_zeta(prior.s2, prior.g, self.size)
        E = finite_size_analysis(prior if self.beta_in_update else m, zeta)
        return AdaptiveEnsemble(self.finished(E, generator), beta, nu), statistics | {"zeta": zeta}
