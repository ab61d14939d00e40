"""Ensemble Kalman filters: one pure update function per algorithm, and a small dataclass with its tuning.

An update takes the ensemble ``E (..., Ne, Nx)`` and the OBSERVED ensemble ``HE (..., Ne, Ny)``, so
that the observation operator may be anything, a neural network included. In all of them

    x, X  mean and anomalies of E             Y      anomalies of HE divided by the error std, R^(-1/2)
    delta R^(-1/2) (y - mean of HE)           U, s2  modes of Y (left singular vectors, squared values)
    g     U^T Y delta                         N      Ne - 1

and the analysis is ``E_a = x + (w + T) X`` with weights ``w`` of the mean and a transform ``T`` of
the anomalies, both computed in the space of the observations or members, whichever is smaller.

All methods of the package: up to `EnKS`, and `Var3D` and `HybridVar`, they run in :func:`mooc_da.cycle`, the
others in :func:`mooc_da.cycle_windows`. Each gives means and variances of the state (those with a dash: the
variance only for small states); n is the size of the state, a step the model from one observation to the next.

| method           | module       | assumes                   | cost of an analysis          | reference               |
|------------------|--------------|---------------------------|------------------------------|-------------------------|
| `KF`             | kalman       | linear model and H        | n steps, a solve, Ny         | Kalman (1960)           |
| `ExtendedKF`     | kalman       | nearly linear in a step   | n tangents, a solve, Ny      | Jazwinski (1970)        |
| `UnscentedKF`    | kalman       | Gaussian                  | 2n steps, a solve, Ny        | Julier & Uhlmann (2004) |
| `EnKF`           | filters      | Gaussian; perturbs y      | Ne steps, a solve, Ny        | Burgers et al. (1998)   |
| `DEnKF`          | filters      | Gaussian, small gain      | Ne steps, modes, min(Ne, Ny) | Sakov & Oke (2008)      |
| `ETKF`           | filters      | Gaussian                  | Ne steps, modes, min(Ne, Ny) | Hunt et al. (2007)      |
| `EnKFN`          | finite_size  | prior moments unknown     | two of these, a 1-D minimum  | Raanes et al. (2019)    |
| `LETKF`          | localisation | far points uncorrelated   | Ne steps, n modes, Ne        | Hunt et al. (2007)      |
| `ParticleFilter` | particles    | Ne above exp(dimension)   | Ne steps, Ne likelihoods     | Gordon et al. (1993)    |
| `EnKS`           | smoothers    | as ETKF                   | ETKF on all states of a lag  | Evensen & van Leeuwen   |
| `IEnKS`          | smoothers    | one minimum in a window   | Ne windows per iteration     | Bocquet & Sakov (2014)  |
| `FourDEnVar`     | smoothers    | nearly linear in a window | Ne windows                   | Liu et al. (2008)       |
| `Var3D` (-)      | variational  | B the same at all times   | a step, iterations of H      | Lorenc (1986)           |
| `Var4D` (-)      | variational  | B; model perfect, or Q    | iterations of tangent runs   | Talagrand & Courtier    |
| `HybridVar`      | hybrids      | B partly of the ensemble  | those of ETKF and 3D-Var     | Wang et al. (2007)      |
| `EnsembleVar4D`  | hybrids      | as 4D-Var; perturbs y     | Ne times that of 4D-Var      | Isaksen et al. (2010)   |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .ensembles import (
    anomalies,
    check_observed,
    inflate,
    innovation_modes,
    innovation_statistics,
    likelihood,
    rotate,
    sqrt_core,
    transformed,
)
from .models import Step
from .observations import Observation

Window = Sequence[tuple[int, Observation | None]]  # steps since the time before, and what is new at this one


class FilterDivergence(RuntimeError):
    """The filter left the finite numbers; ``partial`` is the result up to the time before."""

    partial = None


def enkf_update(
    E: Tensor, HE: Tensor, y: Tensor, R: Tensor, *, generator: torch.Generator | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stochastic EnKF with perturbed observations.

    Burgers, van Leeuwen & Evensen (1998), doi 10.1175/1520-0493(1998)126<1719:ASITEK>2.0.CO;2:

    ``E_a = E + (delta_i + eps_i) (Y^T Y + N I)^-1 Y^T X`` for every member i with its own innovation
    ``delta_i`` and a centred draw ``eps_i ~ N(0, I)``, all in units of the error; solved, never inverted.

    Returns
    -------
    E_a : (..., Ne, Nx) and the statistics of the innovation, see :func:`innovation_statistics`
    """
    check_observed(E, HE, y, R)
    N = E.shape[-2] - 1.0
    scale = R.rsqrt().unsqueeze(-2)
    _, X = anomalies(E)
    hx, Y = anomalies(HE)
    Y = Y * scale
    delta = (y.unsqueeze(-2) - hx) * scale  # (..., 1, Ny)
    eps = torch.randn(HE.shape, dtype=E.dtype, generator=generator).to(E.device)
    departures = delta - Y + eps - eps.mean(-2, keepdim=True)  # (..., Ne, Ny)
    S = Y.mT @ Y / N  # HPH^T in units of R
    S.diagonal(dim1=-2, dim2=-1).add_(1.0)
    L = torch.linalg.cholesky(S)
    E_a = E + departures @ torch.cholesky_solve(Y.mT @ (X / N), L)
    return E_a, gaussian_statistics(delta.squeeze(-2), L, R)


def gaussian_statistics(delta: Tensor, L: Tensor, R: Tensor) -> dict[str, Tensor]:
    """The :func:`innovation_statistics` from a Cholesky factor, ``L L^T = R^(-1/2) H P H^T R^(-1/2) + I``."""
    z = torch.linalg.solve_triangular(L, delta.unsqueeze(-1), upper=False).squeeze(-1)
    return likelihood(torch.linalg.vecdot(z, z), 2.0 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1), R)


def denkf_update(E: Tensor, HE: Tensor, y: Tensor, R: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Deterministic EnKF (Sakov & Oke 2008, doi 10.1111/j.1600-0870.2007.00299.x).

    The mean takes the full gain, the anomalies half of it, ``X_a = X - K H X / 2``: near the right
    covariance where the gain is small, a little too wide where it is not.

    Returns
    -------
    E_a : (..., Ne, Nx) and the :func:`innovation_statistics`
    """
    m = innovation_modes(E, HE, y, R)
    gain = 1.0 / (m.s2 + (E.shape[-2] - 1.0))
    T = torch.diag_embed(-0.5 * m.s2 * gain)  # less the identity, which acts everywhere
    return transformed(m, w=m.g * gain, T=T, rest=1.0), innovation_statistics(m, R)


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


@dataclass(frozen=True)
class Ensemble:
    """State of an ensemble filter: what is carried from one time to the next."""

    E: Tensor  # (..., Ne, Nx)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of every state variable, each (..., Nx)."""
        x, X = anomalies(self.E)
        return x.squeeze(-2), (X * X).sum(-2) / (self.E.shape[-2] - 1.0)


class Filter(Protocol):
    """What :func:`mooc_da.cycle` asks of a filter."""

    def start(self, sample: Tensor, generator: torch.Generator | None) -> Ensemble:
        """State at the time of the first observation, before it, from a sample (..., M, Nx) of possible states."""

    def forecast(self, state: Ensemble, step: Step, generator: torch.Generator | None) -> Ensemble:
        """State at the next time, before its observation."""

    def analyse(
        self, state: Ensemble, obs: Observation, generator: torch.Generator | None
    ) -> tuple[Ensemble, dict[str, Tensor]]:
        """State after the observation, and diagnostics, each (...,)."""


class WindowMethod(Protocol):
    """What :func:`mooc_da.cycle_windows` asks of a method."""

    lag: int  # observation times from the state that is corrected to the last one of a window
    shift: int  # observation times from one window to the next

    def start(self, sample: Tensor, generator: torch.Generator | None) -> Any:
        """State at the first time, from a sample (..., M, Nx) of possible states."""

    def forecast(self, state: Any, step: Step, generator: torch.Generator | None) -> Any:
        """State at the next time."""

    def assimilate(
        self, state: Any, step: Step, window: Window, generator: torch.Generator | None
    ) -> tuple[Sequence[Any], Sequence[Any], dict[str, Tensor]]:
        """Background and analysis at all times of the window, and diagnostics, each (...,)."""


@dataclass(frozen=True)
class Windowed:
    """The window of a method for :func:`mooc_da.cycle_windows`; to be put before another base class.

    Parameters
    ----------
    lag : length of the window, in observation times
    shift : by how many of them it moves on; equal to ``lag``, windows side by side
    """

    lag: int = 1
    shift: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lag < 0 or not 1 <= self.shift <= max(self.lag, 1):
            raise ValueError(
                f"lag = {self.lag}, shift = {self.shift}: expected lag >= 0 and 1 <= shift <= lag (1 if lag is 0)."
            )


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
        E, statistics = enkf_update(state.E, obs.H(state.E), obs.y, obs.R, generator=generator)
        return Ensemble(self.finished(E, generator)), statistics


@dataclass(frozen=True)
class DEnKF(EnsembleFilter):
    """Deterministic EnKF: :func:`denkf_update`."""

    def analyse(
        self, state: Ensemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Ensemble, dict]:
        E, statistics = denkf_update(state.E, obs.H(state.E), obs.y, obs.R)
        return Ensemble(self.finished(E, generator)), statistics


@dataclass(frozen=True)
class ETKF(EnsembleFilter):
    """Ensemble transform Kalman filter: :func:`etkf_update`."""

    def analyse(
        self, state: Ensemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Ensemble, dict]:
        E, statistics = etkf_update(state.E, obs.H(state.E), obs.y, obs.R)
        return Ensemble(self.finished(E, generator)), statistics
