"""Localisation: an ensemble of a few members for a field of many points, one point and its neighbours at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .ensembles import anomalies, check_observed, eigh
from .filters import Ensemble, EnsembleFilter
from .observations import Observation, Operator, picked


def gaspari_cohn(distance: Tensor, radius: float) -> Tensor:
    r"""A taper like the Gaussian :math:`e^{-d^2 / 2 r^2}`, but zero from :math:`2c` on, :math:`c = \sqrt{10/3}\, r`.

    Gaspari & Cohn (1999, doi 10.1002/qj.49712555417), their fifth-order piecewise rational function; the
    factor between c and r is that of Lorenc (2003).
    """
    z = distance / (math.sqrt(10.0 / 3.0) * radius)
    near = 1 - 5 / 3 * z**2 + 5 / 8 * z**3 + 1 / 2 * z**4 - 1 / 4 * z**5
    far = 4 - 5 * z + 5 / 3 * z**2 + 5 / 8 * z**3 - 1 / 2 * z**4 + 1 / 12 * z**5 - 2 / (3 * z.clamp(min=1.0))
    return torch.where(z < 1, near, torch.where(z < 2, far.clamp(min=0.0), 0.0))


class Neighbours(NamedTuple):
    """For each of P points the observations near it, as many columns as the point with most of them has."""

    index: Tensor  # (P, k) which observations
    taper: Tensor  # (P, k) their weights, zero for those that only fill the row


def letkf_update(E: Tensor, HE: Tensor, y: Tensor, R: Tensor, near: Neighbours) -> tuple[Tensor, dict[str, Tensor]]:
    """Local ensemble transform Kalman filter (Hunt et al. 2007, doi 10.1016/j.physd.2006.11.008).

    At every point the analysis of the ETKF, with the observations near it and their error variances
    divided by the taper; all points in one batch of eigenproblems. With a taper of one everywhere
    this is the ETKF.

    Parameters
    ----------
    E, HE, y, R : (..., Ne, Nx), (..., Ne, Ny), (..., Ny), (Ny,)
    near : of P points; Nx is a multiple of P, for several fields on the same points

    Returns
    -------
    E_a : (..., Ne, Nx) and ``n_local``, the mean number of observations of a point, weighted by the taper
    """
    check_observed(E, HE, y, R)
    N = E.shape[-2] - 1.0
    scale = R.rsqrt()
    x, X = anomalies(E)
    hx, Y = anomalies(HE)
    Y = Y * scale.unsqueeze(-2)
    delta = (y - hx.squeeze(-2)) * scale
    Y = Y[..., near.index].movedim(-3, -2)  # (..., P, Ne, k)
    taper = near.taper.to(Y)
    C = Y * taper.unsqueeze(-2)
    s2, U = eigh(C @ Y.mT)  # (..., P, Ne), (..., P, Ne, Ne)
    g = U.mT @ (C @ delta[..., near.index].unsqueeze(-1))  # (..., P, Ne, 1)
    s2 = s2.clamp(min=0.0).unsqueeze(-1) + N
    W = U @ (g / s2 + (N / s2).sqrt() * U.mT)  # (..., P, Ne, Ne): column m makes member m
    X = X.unflatten(-1, (-1, near.index.shape[0])).movedim(-3, -1)  # (..., fields, P, Ne)
    E_a = x + (W.mT.unsqueeze(-4) @ X.unsqueeze(-1)).squeeze(-1).movedim(-1, -3).flatten(-2)
    n_local = (taper * torch.isfinite(R).to(Y)[..., near.index]).sum(-1).mean(-1).expand(E.shape[:-2])
    return E_a, {"n_local": n_local}


@functools.lru_cache(maxsize=32)
def picked_coordinates(H: Operator, n_sites: int, grid: tuple[int, ...], device: torch.device) -> Tensor:
    """Where H observes, (Ny, d), for an operator that picks points."""
    try:
        index = picked(H, n_sites, device)
    except ValueError as error:
        raise ValueError(f"LETKF: {error} Give positions(H).") from None
    points = coordinates(grid, device)  # (P, d)
    return points[index % len(points)]


def coordinates(grid: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices of all points of a grid as numbers, (P, d)."""
    axes = [torch.arange(n, dtype=torch.float64, device=device) for n in grid]
    return torch.cartesian_prod(*axes).reshape(-1, len(grid))


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def neighbours(
    H: Operator,
    n_sites: int,
    grid: tuple[int, ...],
    radius: float,
    positions: Callable[[Operator], Tensor] | None,
    device: torch.device,
) -> Neighbours:
    """Observations with a weight at each point of a periodic grid; never the matrix of all pairs at once."""
    seen = positions(H) if positions else picked_coordinates(H, n_sites, grid, device)
    period = seen.new_tensor(grid)
    rows = []
    for points in coordinates(grid, device).split(512):
        apart = (points.unsqueeze(-2) - seen).abs()
        taper = gaspari_cohn(torch.minimum(apart, period - apart).norm(dim=-1), radius)
        rows.append(taper.sort(-1, descending=True))
    k = max(int((row.values > 0).sum(-1).max()) for row in rows)
    return Neighbours(torch.cat([r.indices[:, :k] for r in rows]), torch.cat([r.values[:, :k] for r in rows]))


@dataclass(frozen=True)
class LETKF(EnsembleFilter):
    """Local ETKF on a periodic grid: :func:`letkf_update` with the taper of :func:`gaspari_cohn`.

    Parameters
    ----------
    radius : length of the taper, in points of the grid; infinite for none
    grid : number of points along each axis; a ring of all Nx points by default. A state of several
        fields holds them one after the other. Parameters behind a state have no place on it
    positions : H -> (Ny, d), where its values belong on the grid; found out by itself if H picks points
    """

    radius: float = 4.0
    grid: tuple[int, ...] = ()
    positions: Callable[[Operator], Tensor] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radius > 0:
            raise ValueError(f"radius = {self.radius}: expected a positive length, or infinity for no localisation.")
        object.__setattr__(self, "grid", tuple(self.grid))

    def analyse(
        self, state: Ensemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Ensemble, dict]:
        n_sites = state.E.shape[-1]
        grid = self.grid or (n_sites,)
        if n_sites % math.prod(grid):
            raise ValueError(f"grid = {grid}: a state of {n_sites} numbers does not fill its {math.prod(grid)} points.")
        near = neighbours(obs.H, n_sites, grid, self.radius, self.positions, state.E.device)
        E, statistics = letkf_update(state.E, obs.H(state.E), obs.y, obs.R, near)
        return Ensemble(self.finished(E, generator)), statistics
