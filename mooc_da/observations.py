"""What is seen of the truth: networks, operators and the observations themselves.

A *network* says what is observed when: it maps the time index ``k`` to an *operator*
``H: (..., Nx) -> (..., Ny)``. Both may be any callable; an operator may be a neural network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]  # H: (..., Nx) -> (..., Ny)
Network = Callable[[int], Operator]  # time index k -> H_k


class Observation(NamedTuple):
    """What is known at one time; the three always travel together."""

    y: Tensor  # (..., Ny) observed values
    H: Operator
    R: Tensor  # (Ny,) error variances: R is diagonal


@dataclass(frozen=True)
class Pick:
    """Observe the points ``start, start + stride, ...`` of the last axis."""

    start: int = 0
    stride: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        return x[..., self.start :: self.stride]


def everywhere(k: int) -> Operator:
    """Every point at every time."""
    return Pick()


def every(stride: int, start: int = 0) -> Network:
    """Every ``stride``-th point, the same at every time."""
    if stride < 1 or start < 0:
        raise ValueError(f"stride = {stride}, start = {start}: expected stride >= 1 and start >= 0.")
    return lambda k: Pick(start, stride)


def checkerboard(k: int) -> Operator:
    """Even points at even times, odd points at odd times."""
    return Pick(k % 2, 2)


@dataclass(frozen=True)
class Observations:
    """Observations at the times 0 … K − 1; ``observations[k]`` is an :class:`Observation`.

    A slice ``observations[a:b]`` is again ``Observations`` and keeps each time's network.

    Parameters
    ----------
    y : (..., K, Ny), leading axes are independent experiments
    network : time index -> operator
    R : (Ny,) error variances
    first : time index of ``y[..., 0, :]`` in the network
    """

    y: Tensor
    network: Network
    R: Tensor
    first: int = 0

    def __post_init__(self) -> None:
        if self.y.ndim < 2:
            raise ValueError(f"y has shape {tuple(self.y.shape)}: expected (..., K, Ny), time before space.")
        if self.R.shape != self.y.shape[-1:]:
            raise ValueError(
                f"R has shape {tuple(self.R.shape)}: expected ({self.y.shape[-1]},), one error variance per "
                "observed value (R is diagonal in this course)."
            )
        if not (torch.isfinite(self.R).all() and (self.R > 0).all()):
            raise ValueError(
                "R: error variances must be positive and finite; a perfect observation is not a Gaussian one."
            )
        bad = ~torch.isfinite(self.y)
        if bad.any():
            k = int(
                bad.flatten(0, -3).any(0).any(-1).to(torch.int8).argmax()
                if self.y.ndim > 2
                else bad.any(-1).to(torch.int8).argmax()
            )
            raise ValueError(
                f"y: {int(bad.sum())} values are NaN or infinite, the first at time {k}; remove those times."
            )

    def __len__(self) -> int:
        return self.y.shape[-2]

    def to(self, device: str) -> Observations:
        """The same on another device."""
        return replace(self, y=self.y.to(device), R=self.R.to(device))

    def __getitem__(self, k):
        if isinstance(k, slice):
            first, _, stride = k.indices(len(self))
            if stride != 1:
                raise ValueError("Observations are consecutive: use a slice without a stride.")
            return replace(self, y=self.y[..., k, :], first=self.first + first)
        if not -len(self) <= k < len(self):
            raise IndexError(f"time {k} of {len(self)}.")
        k %= len(self)
        return Observation(self.y[..., k, :], self.network(self.first + k), self.R)


def observe(truth: Tensor, network: Network, std: float, *, generator: torch.Generator) -> Observations:
    """Observe a trajectory: ``y_k = H_k(x_k) + eps_k`` with ``eps_k ~ N(0, std^2 I)``.

    Parameters
    ----------
    truth : (..., K, Nx); row k is the state at time k, and stays aligned with ``observations[k]``
    network : what is observed when; the same number of values at every time
    std : standard deviation of the error, in units of the state
    """
    if truth.ndim < 2:
        raise ValueError(f"truth has shape {tuple(truth.shape)}: expected (..., K, Nx), time before space.")
    if not std > 0:
        raise ValueError(f"std = {std}: expected a positive standard deviation.")
    seen = [network(k)(truth[..., k, :]) for k in range(truth.shape[-2])]
    if len(sizes := {s.shape[-1] for s in seen}) != 1:
        raise ValueError(
            f"The network observes {sorted(sizes)} values at different times: expected one number for all."
        )
    seen = torch.stack(seen, -2)  # (..., K, Ny)
    noise = std * torch.randn(seen.shape, dtype=seen.dtype, generator=generator).to(seen.device)
    R = torch.full(seen.shape[-1:], std**2, dtype=seen.dtype, device=seen.device)
    return Observations(seen + noise, network, R)
