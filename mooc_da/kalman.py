"""Kalman filters that carry a mean and a covariance: the Kalman filter, extended and unscented.

For few variables: the covariance is ``Nx x Nx``, and a forecast costs as many model runs as there are variables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .ensembles import anomalies
from .filters import gaussian_statistics
from .models import Step, jacobian
from .observations import Observation, Operator


@dataclass(frozen=True)
class Gaussian:
    """State of a Kalman filter."""

    x: Tensor  # (..., Nx) mean
    P: Tensor  # (..., Nx, Nx) covariance

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of every state variable, each (..., Nx)."""
        return self.x, self.P.diagonal(dim1=-2, dim2=-1)


def kf_update(x: Tensor, P: Tensor, Hx: Tensor, H: Tensor, y: Tensor, R: Tensor) -> tuple[Tensor, Tensor, dict]:
    """Analysis of the (extended) Kalman filter (Kalman 1960, doi 10.1115/1.3662552).

    ``K = P H^T (H P H^T + R)^-1``, ``x_a = x + K (y - H(x))``, ``P_a = (I - K H) P``: solved by Cholesky in
    units of the observation error.

    Parameters
    ----------
    x, P : mean (..., Nx) and covariance (..., Nx, Nx) of the forecast
    Hx, H : what is seen of the mean, (..., Ny), and the matrix of the operator, (..., Ny, Nx)
    y, R : observed values (..., Ny) and their variances, infinite where missing

    Returns
    -------
    x_a, P_a and the statistics of the innovation, see :func:`mooc_da.ensembles.innovation_statistics`
    """
    return gain_update(x, P, P @ H.mT, H @ P @ H.mT, Hx, y, R)


def gain_update(
    x: Tensor, P: Tensor, P_xy: Tensor, P_yy: Tensor, y_mean: Tensor, y: Tensor, R: Tensor
) -> tuple[Tensor, Tensor, dict]:
    """What all Gaussian updates share: condition on y, given its covariances with the state and with itself."""
    scale = R.rsqrt().unsqueeze(-1)  # zero where a value is missing
    delta = (y - y_mean) * scale.squeeze(-1)
    C = P_xy * scale.mT  # (..., Nx, Ny)
    S = scale * P_yy * scale.mT + torch.eye(R.shape[-1], dtype=x.dtype, device=x.device)
    L = torch.linalg.cholesky(S)
    Z = torch.linalg.solve_triangular(L, C.mT, upper=False)  # P_a = P - C S^-1 C^T = P - Z^T Z
    z = torch.linalg.solve_triangular(L, delta.unsqueeze(-1), upper=False)
    P_a = P - Z.mT @ Z
    P_a = 0.5 * (P_a + P_a.mT)  # what rounding makes asymmetric would grow with the errors of the model
    return x + (Z.mT @ z).squeeze(-1), P_a, gaussian_statistics(delta, L, R)


@dataclass(frozen=True)
class GaussianFilter:
    """What the filters of this module share: tuning and start.

    Parameters
    ----------
    inflation : factor of the standard deviation, at every step of the model; 1 for none
    model_error_std : sigma_q per step of the model, Q = sigma_q^2 I
    """

    inflation: float | Tensor = 1.0
    model_error_std: float | Tensor = 0.0
    linearises: ClassVar[bool] = True  # differentiates inside

    def __post_init__(self) -> None:
        if any(torch.is_tensor(v) and v.numel() != 1 for v in (self.inflation, self.model_error_std)):
            raise ValueError(
                f"{type(self).__name__} takes one tuning for all experiments; ensemble filters take several."
            )
        inflation, std = (float(torch.as_tensor(v).detach()) for v in (self.inflation, self.model_error_std))
        if not 0 < inflation < math.inf:
            raise ValueError(f"inflation = {inflation}: expected a positive factor.")
        if not 0 <= std < math.inf:
            raise ValueError(f"model_error_std = {std}: expected zero or a positive number.")

    def start(self, sample: Tensor, generator: torch.Generator | None = None) -> Gaussian:
        """Mean and covariance of the sample (..., M, Nx)."""
        if sample.ndim < 2 or sample.shape[-2] < 2:
            raise ValueError(f"start has shape {tuple(sample.shape)}: expected (..., M, Nx) with at least 2 states.")
        x, X = anomalies(sample)
        return Gaussian(x.squeeze(-2), X.mT @ X / (sample.shape[-2] - 1.0))

    def inflated(self, P: Tensor) -> Tensor:
        """The covariance of a forecast, with the error of the model."""
        Q = self.model_error_std**2 * torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
        return self.inflation**2 * P + Q


@dataclass(frozen=True)
class ExtendedKF(GaussianFilter):
    """Extended Kalman filter: the Kalman filter of the model and the operator linearised about the mean.

    ``x_f = M(x)`` and ``P_f = inflation^2 M' P M'^T + Q`` with the Jacobian ``M'`` of the step; then
    :func:`kf_update`. The derivatives are exact, so that a network needs nothing else.
    """

    def forecast(self, state: Gaussian, step: Step, generator: torch.Generator | None = None) -> Gaussian:
        """The mean by the model, the covariance by its Jacobian."""
        x, M = self.linearised(step, state.x, "step")
        return Gaussian(x, self.inflated(M @ state.P @ M.mT))

    def analyse(
        self, state: Gaussian, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Gaussian, dict]:
        Hx, H = self.linearised(obs.H, state.x, "H")
        x, P, statistics = kf_update(state.x, state.P, Hx, H, obs.y, obs.R)
        return Gaussian(x, P), statistics

    def linearised(self, f: Step | Operator, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        return jacobian(f, x)


@dataclass(frozen=True)
class KF(ExtendedKF):
    """The Kalman filter: exact where the model and the operator are linear, and refused where they are not."""

    def linearised(self, f: Step | Operator, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        value, A = jacobian(f, x)
        elsewhere = -1.0 - x  # on the other side of zero, and not there by symmetry
        tangent = value + (A @ (elsewhere - x).unsqueeze(-1)).squeeze(-1)
        departure = float((f(elsewhere.unsqueeze(-2)).squeeze(-2) - tangent).detach().abs().max())
        if departure > torch.finfo(x.dtype).eps ** 0.5 * (1.0 + value.abs().max()):
            raise ValueError(
                f"KF: {name} is not linear (its tangent misses its value elsewhere by {departure:.2g}): use "
                "ExtendedKF or UnscentedKF."
            )
        return value, A


@dataclass(frozen=True)
class UnscentedKF(GaussianFilter):
    r"""Unscented Kalman filter (Julier & Uhlmann 2004, doi 10.1109/JPROC.2003.823141).

    Means and covariances are those of :math:`2 N_x + 1` sigma points :math:`x, x \pm \sqrt{N_x + \kappa}\, s_i`
    (:math:`s_i` the columns of a square root of P) with weights :math:`\kappa / (N_x + \kappa)` for the mean and
    :math:`1 / 2 (N_x + \kappa)` for the others: right to second order, without a derivative. With
    :math:`\kappa = 0` the points are those of the cubature Kalman filter (Arasaratnam & Haykin 2009).

    Parameters
    ----------
    kappa : spread of the points; zero or more, so that every covariance stays positive
    """

    kappa: float = 0.0
    linearises: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kappa >= 0:
            raise ValueError(f"kappa = {self.kappa}: expected zero or more, a negative weight loses the covariance.")

    def forecast(self, state: Gaussian, step: Step, generator: torch.Generator | None = None) -> Gaussian:
        """Mean and covariance of the sigma points one step on, then model error."""
        points, weights = sigma_points(state, self.kappa)
        E = step(points)
        x = weights @ E
        return Gaussian(x, self.inflated(weighted_covariance(E, E, weights)))

    def analyse(
        self, state: Gaussian, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Gaussian, dict]:
        E, weights = sigma_points(state, self.kappa)
        HE = obs.H(E)
        P_xy, P_yy = weighted_covariance(E, HE, weights), weighted_covariance(HE, HE, weights)
        x, P, statistics = gain_update(state.x, state.P, P_xy, P_yy, weights @ HE, obs.y, obs.R)
        return Gaussian(x, P), statistics


def sigma_points(state: Gaussian, kappa: float) -> tuple[Tensor, Tensor]:
    """Sigma points ``(..., 2 Nx + 1, Nx)`` and their weights ``(2 Nx + 1,)``; see :class:`UnscentedKF`."""
    n = state.x.shape[-1]
    P = state.P
    mean_variance = P.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    jitter = max(1e-12, 10 * torch.finfo(P.dtype).eps) * mean_variance  # a start of few states has no full rank
    S = math.sqrt(n + kappa) * torch.linalg.cholesky(P + jitter * torch.eye(n, dtype=P.dtype, device=P.device)).mT
    x = state.x.unsqueeze(-2)
    weights = torch.full((2 * n + 1,), 0.5 / (n + kappa), dtype=P.dtype, device=P.device)
    weights[0] = kappa / (n + kappa)
    return torch.cat((x, x + S, x - S), -2), weights


def weighted_covariance(A: Tensor, B: Tensor, weights: Tensor) -> Tensor:
    """Covariance ``(..., Na, Nb)`` of points ``A (..., N, Na)`` and ``B (..., N, Nb)``."""
    A = A - (weights @ A).unsqueeze(-2)
    B = B - (weights @ B).unsqueeze(-2)
    return A.mT @ (weights.unsqueeze(-1) * B)
