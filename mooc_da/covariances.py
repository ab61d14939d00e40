"""Error covariances: the background's as a square root, estimates of B and R, and tests of consistency.

A covariance B is given as an operator: ``B.sqrt(v)`` turns a control vector ``v (..., n, rank)`` into a
departure ``(..., n, Nx)`` of the state with ``B = sqrt sqrt^T``, so that ``v ~ N(0, I)`` gives ``N(0, B)``. No
matrix of the size of a field is formed, and no covariance is ever inverted. n counts vectors, one or several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .models import Step, repeated
from .observations import Observations


class Covariance(Protocol):
    """What a variational method asks of a covariance."""

    @property
    def rank(self) -> int:
        """Length of the control vector."""

    @property
    def variance(self) -> Tensor:
        """(..., Nx), the diagonal."""

    def sqrt(self, v: Tensor) -> Tensor:
        """(..., n, rank) -> (..., n, Nx)."""


@dataclass(frozen=True)
class Diagonal:
    """Uncorrelated errors of the given variance (Nx,)."""

    variance: Tensor

    def __post_init__(self) -> None:
        if not (torch.isfinite(self.variance).all() and (self.variance >= 0).all()):
            raise ValueError("variance: expected finite numbers, zero or positive.")

    @property
    def rank(self) -> int:
        return self.variance.shape[-1]

    def sqrt(self, v: Tensor) -> Tensor:
        return v * self.variance.sqrt()


@dataclass(frozen=True)
class Dense:
    """A covariance matrix (..., Nx, Nx), for few variables; its square root is the Cholesky factor."""

    matrix: Tensor

    def __post_init__(self) -> None:
        B = self.matrix
        if B.ndim < 2 or B.shape[-1] != B.shape[-2]:
            raise ValueError(f"B has shape {tuple(B.shape)}: expected a square matrix (..., Nx, Nx).")
        if not torch.isfinite(B).all():
            raise ValueError("B contains NaN or infinite values.")
        if (gap := float((B - B.mT).abs().max())) > 1e-10 * float(B.abs().max()):
            raise ValueError(f"B is not symmetric (by {gap:.2g}): expected a covariance matrix; take (B + B^T) / 2.")
        L, failed = torch.linalg.cholesky_ex(0.5 * (B + B.mT))
        if failed.any():
            smallest = float(torch.linalg.eigvalsh(B).min())
            raise ValueError(
                f"B is not positive definite (smallest eigenvalue {smallest:.2g}): add a small variance to its "
                "diagonal, or give its samples to LowRank."
            )
        object.__setattr__(self, "_L", L)

    @property
    def variance(self) -> Tensor:
        return self.matrix.diagonal(dim1=-2, dim2=-1)

    @property
    def rank(self) -> int:
        return self.matrix.shape[-1]

    def sqrt(self, v: Tensor) -> Tensor:
        return v @ self._L.mT


@dataclass(frozen=True)
class LowRank:
    """The covariance ``X^T X / (M - 1)`` of anomalies X (..., M, Nx): of an ensemble, or of a sample of a field."""

    X: Tensor

    def __post_init__(self) -> None:
        if self.X.ndim < 2 or self.X.shape[-2] < 2 or not torch.isfinite(self.X).all():
            raise ValueError(f"X {tuple(self.X.shape)}: expected finite anomalies (..., M, Nx) of at least 2 states.")

    @property
    def variance(self) -> Tensor:
        return (self.X**2).sum(-2) / (self.rank - 1.0)

    @property
    def rank(self) -> int:
        return self.X.shape[-2]

    def sqrt(self, v: Tensor) -> Tensor:
        return v @ self.X / math.sqrt(self.rank - 1.0)


@dataclass(frozen=True)
class Homogeneous:
    r"""The same correlation :math:`e^{-d^2 / 2 l^2}` everywhere on a periodic grid, for one or several fields.

    White noise with the square root of the correlation's spectrum: two FFTs, whatever the size. The
    fields, one after the other in the state, are uncorrelated with each other.

    Parameters
    ----------
    std : (F,) standard deviation of each field
    length : l, in points of the grid
    grid : number of points along each axis
    """

    std: Tensor
    length: float
    grid: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.std.ndim != 1 or not (self.std >= 0).all():
            raise ValueError("std: expected one standard deviation, zero or positive, for each field, (F,).")
        if not self.length > 0:
            raise ValueError(f"length = {self.length}: expected a positive length.")
        d2 = torch.zeros(self.grid, dtype=self.std.dtype, device=self.std.device)
        for axis, n in enumerate(self.grid):
            distance = torch.arange(n, dtype=d2.dtype, device=d2.device)
            distance = torch.minimum(distance, n - distance) ** 2
            d2 = d2 + distance.reshape([-1 if a == axis else 1 for a in range(len(self.grid))])
        spectrum = torch.fft.rfftn((-0.5 * d2 / self.length**2).exp()).real.clamp(min=0.0)  # no rounding below zero
        variance = torch.fft.irfftn(spectrum, s=self.grid).flatten()[0]
        object.__setattr__(self, "_root", (spectrum / variance).sqrt())

    @property
    def variance(self) -> Tensor:
        return (self.std**2).repeat_interleave(math.prod(self.grid))

    @property
    def rank(self) -> int:
        return len(self.std) * math.prod(self.grid)

    def sqrt(self, v: Tensor) -> Tensor:
        axes = tuple(range(-len(self.grid), 0))
        fields = v.unflatten(-1, (len(self.std), *self.grid))
        fields = torch.fft.irfftn(torch.fft.rfftn(fields, dim=axes) * self._root, s=self.grid, dim=axes)
        return (fields.flatten(-len(self.grid)) * self.std.unsqueeze(-1)).flatten(-2)


@dataclass(frozen=True)
class Blend:
    """A weighted sum of covariances, ``sum_i w_i B_i``: static with flow-dependent, or one multiplied by a factor.

    Its control vector holds those of the parts, one after the other (Lorenc 2003).
    """

    parts: Sequence[Covariance]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.weights) or not self.parts or not all(w >= 0 for w in self.weights):
            raise ValueError(f"weights = {self.weights}: expected one, zero or positive, for each covariance.")

    @property
    def variance(self) -> Tensor:
        return sum(w * B.variance for w, B in zip(self.weights, self.parts, strict=True))

    @property
    def rank(self) -> int:
        return sum(B.rank for B in self.parts)

    def sqrt(self, v: Tensor) -> Tensor:
        pieces = v.split([B.rank for B in self.parts], -1)
        return sum(math.sqrt(w) * B.sqrt(p) for w, B, p in zip(self.weights, self.parts, pieces, strict=True))


def scaled(B: Covariance, factor: float) -> Blend:
    """The covariance ``factor * B``."""
    return Blend((B,), (factor,))


def from_anomalies(X: Tensor) -> Covariance:
    """The covariance of anomalies (M, Nx) in its smaller form: a matrix if there are more samples than variables."""
    if X.ndim != 2:
        raise ValueError(
            f"X has shape {tuple(X.shape)}: expected (M, Nx), one state a row; flatten(0, -2) makes it so."
        )
    n_samples, n_sites = X.shape
    return Dense(X.mT @ X / (n_samples - 1.0)) if n_samples > 2 * n_sites else LowRank(X)


def climatological(states: Tensor) -> Covariance:
    """B of a forecast that knows nothing but the climate: the covariance of states (M, Nx) of a long run.

    A forecast knows more, so multiply it by a factor below one (:func:`scaled`) and tune that.
    """
    return from_anomalies(states - states.mean(-2, keepdim=True))


def nmc(step: Step, analyses: Tensor, short: int, long: int) -> Covariance:
    """B from differences of forecasts valid at the same time (NMC method; Parrish & Derber 1992).

    ``x(long) - x(short)`` for all analyses, halved in variance as if the two errors were independent and equal.
    Its shape is better known than its size: tune a factor.

    Parameters
    ----------
    analyses : (K, Nx), one at each step
    short, long : lead times in steps
    """
    if not 0 < short < long < analyses.shape[-2]:
        raise ValueError(f"short = {short}, long = {long}: expected 0 < short < long < {analyses.shape[-2]} analyses.")
    old = repeated(step, long)(analyses[: short - long])
    new = repeated(step, short)(analyses[long - short :])
    differences = old - new
    return from_anomalies((differences - differences.mean(-2, keepdim=True)) / math.sqrt(2.0))


def desroziers(forecast: Tensor, analysis: Tensor, observations: Observations) -> tuple[Tensor, Tensor]:
    r"""Variances of observation and forecast errors from departures (Desroziers et al. 2005, doi 10.1256/qj.05.108).

    .. math:: R \approx \overline{d_a d_f}, \quad H P^f H^T \approx \overline{(d_f - d_a)\, d_f}, \qquad
              d_f = y - H(x^f), \; d_a = y - H(x^a)

    exact if the analysis used the right covariances; where they differ from those used, these are wrong.

    Parameters
    ----------
    forecast, analysis : (..., K, Nx) of a :class:`mooc_da.CycleResult`

    Returns
    -------
    (..., Ny) each: the estimates of the diagonals of R and of HPH^T, averaged over the times
    """
    d_f, d_a = departures(forecast, observations), departures(analysis, observations)
    return (d_a * d_f).nanmean(-2), ((d_f - d_a) * d_f).nanmean(-2)


def departures(states: Tensor, observations: Observations) -> Tensor:
    """``y_k - H_k(x_k)``, (..., K, Ny), for states (..., K, Nx); NaN where a value is missing."""
    if states.shape[-2] != len(observations):
        raise ValueError(f"{states.shape[-2]} states for {len(observations)} observations: expected the same times.")
    rows = []
    for k in range(len(observations)):
        H = observations.network(observations.times[k])
        y = observations.y[..., k, :]
        rows.append(torch.full_like(y, math.nan) if H is None else y - H(states[..., k, :]))
    return torch.stack(rows, -2)


def chi2_consistency(chi2: Tensor, n_values: int) -> tuple[Tensor, Tensor]:
    """Time mean of the innovations' chi2 per value, and the standard error of that mean if all were right, (...,).

    One in a consistent filter; above, the forecast errors are larger than the spread and R say.

    Parameters
    ----------
    chi2 : (..., K), ``result.diagnostics["chi2"]``
    n_values : Ny, observed values at each time
    """
    return chi2.nanmean(-1), (2.0 / (n_values * torch.isfinite(chi2).sum(-1))).sqrt()
