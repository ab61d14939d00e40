"""What is seen of the truth: networks, operators and the observations themselves.

A *network* says what is observed when: it maps the time, counted in steps of the model, to an *operator*
``H: (..., Nx) -> (..., Ny)``, or to None where nothing is observed. Both may be any callable; an operator may
be a neural network. A value that is missing is NaN in ``y``; to a filter it is one of infinite error variance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]  # H: (..., Nx) -> (..., Ny)
Network = Callable[[int], Operator | None]  # time in steps -> H


class Observation(NamedTuple):
    """What is known at one time; the three always travel together."""

    y: Tensor  # (..., Ny) observed values
    H: Operator
    R: Tensor  # (Ny,) error variances: R is diagonal; infinite, (..., Ny), where a value is missing


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


def of_state(network: Network, n_parameters: int) -> Network:
    """The network for a state with ``n_parameters`` parameters, one or more, behind it, which nobody observes."""
    if n_parameters < 1:
        raise ValueError(f"n_parameters = {n_parameters}: expected at least one.")

    def ignoring(k: int) -> Operator | None:
        H = network(k)
        return None if H is None else lambda z: H(z[..., :-n_parameters])

    return ignoring


def picked(H: Operator, n_sites: int, device: torch.device | str = "cpu") -> Tensor:
    """Which points H observes, (Ny,), for an operator that picks points: it is shown their numbers.

    Raises
    ------
    ValueError
        if H does anything else than pick points
    """
    try:
        index = H(torch.arange(n_sites, dtype=torch.float64, device=device)).round().long()
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"H does not take a state of {n_sites} points: {error}") from error
    probe = torch.arange(1, n_sites + 1, dtype=torch.float64, device=device).sin()  # no zero, which 2 x would leave
    if (index < 0).any() or (index >= n_sites).any() or not torch.equal(H(probe), probe[index]):
        raise ValueError("H does not pick points: where it observes cannot be told.")
    return index


@dataclass(frozen=True)
class Observations:
    """Observations at K times; ``observations[k]`` is an :class:`Observation`, or None where all is missing.

    A slice ``observations[a:b]`` is again ``Observations`` and keeps each time's network. Where values are missing is
    looked up once: do not change y in place, make others (``dataclasses.replace(observations, y=…)``).

    Parameters
    ----------
    y : (..., K, Ny), leading axes are independent experiments; NaN where a value is missing. An experiment
        that misses all values of a time which others of the batch see is analysed with them: inflated, not corrected
    network : time -> operator
    R : (Ny,) error variances
    times : time of each row in steps of the model, increasing; every step from 0 by default
    """

    y: Tensor
    network: Network
    R: Tensor
    times: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.y.ndim < 2:
            raise ValueError(f"y has shape {tuple(self.y.shape)}: expected (..., K, Ny), time before space.")
        if self.R.shape != self.y.shape[-1:]:
            raise ValueError(
                f"R has shape {tuple(self.R.shape)}: expected ({self.y.shape[-1]},), one error variance per "
                "observed value (R is diagonal in this course; for another, multiply y and H by its R^(-1/2))."
            )
        if not (torch.isfinite(self.R).all() and (self.R > 0).all()):
            raise ValueError(
                "R: error variances must be positive and finite; a perfect observation is not a Gaussian one, "
                "and a missing one is NaN in y."
            )
        if (bad := torch.isinf(self.y)).any():
            k = int(bad.any(-1).reshape(-1, len(self)).any(0).to(torch.int8).argmax())
            raise ValueError(f"y: {int(bad.sum())} values are infinite, the first at time {k}; a missing value is NaN.")
        times = range(len(self)) if self.times is None else self.times
        ordered = all(a < b for a, b in itertools.pairwise(times)) and all(int(k) == k >= 0 for k in times)
        if len(times) != len(self) or not ordered:
            raise ValueError(f"times: expected {len(self)} whole numbers of steps, increasing from 0 or later.")
        gaps = torch.isnan(self.y)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "_gaps", gaps if gaps.any() else None)  # most observations have none

    def __len__(self) -> int:
        return self.y.shape[-2]

    def to(self, device: str) -> Observations:
        """The same on another device."""
        return replace(self, y=self.y.to(device), R=self.R.to(device))

    def on_grid(self, n_sites: int) -> tuple[Tensor, Tensor]:
        """Observed values at their points and their precision 1 / R, zero where nothing is seen: (..., K, Nx) each.

        Raises
        ------
        ValueError
            if an operator does anything else than pick points, each once
        """
        values = self.y.new_zeros(*self.y.shape[:-1], n_sites)
        precision = torch.zeros_like(values)
        for k in range(len(self)):
            if (obs := self[k]) is not None:
                points = picked(obs.H, n_sites, self.y.device)
                if len(points.unique()) < len(points):
                    raise ValueError(f"time {k}: a point is observed twice; give the mean of both, with its variance.")
                values[..., k, points], precision[..., k, points] = obs.y, (1.0 / obs.R).expand_as(obs.y)
        return values, precision

    def steps_before(self, k: int) -> int:
        """Steps of the model from the observations before to those at k; none before the first."""
        return self.times[k] - self.times[k - 1] if k else 0

    def __getitem__(self, k):
        if isinstance(k, slice):
            if k.indices(len(self))[2] != 1:
                raise ValueError("Observations are consecutive: use a slice without a stride.")
            return replace(self, y=self.y[..., k, :], times=self.times[k])
        if not -len(self) <= k < len(self):
            raise IndexError(f"time {k} of {len(self)}.")
        y, R, H = self.y[..., k, :], self.R, self.network(self.times[k])
        if H is None:
            return None
        if self._gaps is not None and (gaps := self._gaps[..., k, :]).any():
            if gaps.all():
                return None
            y, R = y.masked_fill(gaps, 0.0), R.expand_as(gaps).masked_fill(gaps, math.inf)
        return Observation(y, H, R)


def observe(
    truth: Tensor, network: Network, std: float, *, generator: torch.Generator, times: Sequence[int] | None = None
) -> Observations:
    """Observe a trajectory: ``y_k = H_k(x_k) + eps_k`` with ``eps_k ~ N(0, std^2 I)``.

    Parameters
    ----------
    truth : (..., K, Nx); row k is the state at time k, and stays aligned with ``observations[k]``
    network : what is observed when; the same number of values at every time, or None for nothing
    std : standard deviation of the error, in units of the state
    times : rows of the truth to observe, increasing; all by default
    """
    if truth.ndim < 2:
        raise ValueError(f"truth has shape {tuple(truth.shape)}: expected (..., K, Nx), time before space.")
    if not std > 0:
        raise ValueError(f"std = {std}: expected a positive standard deviation.")
    times = range(truth.shape[-2]) if times is None else times
    if outside := [k for k in times if not 0 <= k < truth.shape[-2]]:
        raise ValueError(
            f"times: {outside[0]} is outside of the truth, which has the times 0 to {truth.shape[-2] - 1}."
        )
    seen = [None if (H := network(k)) is None else H(truth[..., k, :]) for k in times]
    if len(sizes := {s.shape[-1] for s in seen if s is not None}) != 1:
        raise ValueError(
            f"The network observes {sorted(sizes)} values at different times: expected one number for all."
        )
    nothing = torch.full_like(next(s for s in seen if s is not None), math.nan)
    seen = torch.stack([nothing if s is None else s for s in seen], -2)  # (..., K, Ny)
    noise = std * torch.randn(seen.shape, dtype=seen.dtype, generator=generator).to(seen.device)
    R = torch.full(seen.shape[-1:], std**2, dtype=seen.dtype, device=seen.device)
    return Observations(seen + noise, network, R, times)
