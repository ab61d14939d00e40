"""Rotating shallow water on a doubly periodic square: vortices and waves in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .models import rk4


@dataclass(frozen=True)
class ShallowWater:
    r"""The nonlinear shallow-water equations on an f-plane, a Step of flat states ``(h, u, v)``, (..., 3 n n).

    .. math::
        \partial_t h &= -\nabla \cdot (h \mathbf{u}) \\
        \partial_t u &= +q\, h v - \partial_x B + \nu \nabla^2 u, \qquad q = (f + \zeta) / h \\
        \partial_t v &= -q\, h u - \partial_y B + \nu \nabla^2 v, \qquad B = g h + (u^2 + v^2) / 2

    with the vorticity :math:`\zeta = \partial_x v - \partial_y u`. In space the energy-conserving scheme of
    Sadourny (1975, doi 10.1175/1520-0469(1975)032<0680:TDOFDM>2.0.CO;2) on the C-grid of Arakawa:
    differences and averages of two neighbours, second order. It conserves mass to rounding and,
    without viscosity, energy up to the error of :func:`rk4`.

    With the defaults lengths are in units of the Rossby radius, times in units of 1 / f, depths in
    units of the mean depth: gravity waves travel at speed one. In a grid cell, rows count to the
    north (y), columns to the east (x)::

            +---v---q        h in the centre
            |       |        u on the eastern face
            |   h   u        v on the northern face
            |       |        vorticity on the north-eastern corner
            +-------+

    Parameters
    ----------
    n : points along each side
    length : of a side of the square
    gravity : g
    coriolis : f, zero for no rotation
    depth : mean depth of :meth:`random_state`
    viscosity : nu; removes what the flow piles up at the grid scale
    dt : step of :func:`rk4`; stable for ``dt < length / n`` over the fastest wave and current together
    """

    n: int = 64
    length: float = 16.0
    gravity: float = 1.0
    coriolis: float = 1.0
    depth: float = 1.0
    viscosity: float = 1e-3
    dt: float = 0.1

    def __post_init__(self) -> None:
        if self.n < 3:
            raise ValueError(f"n = {self.n}: expected at least 3 points along a side.")
        for name in (f.name for f in fields(self)):
            value, may_be_zero = getattr(self, name), name in ("coriolis", "viscosity")
            if not (0 < value < float("inf") or (may_be_zero and value == 0)):
                raise ValueError(f"{name} = {value}: expected a positive number{' or zero' * may_be_zero}.")
        if (courant := self.dt * (self.gravity * self.depth) ** 0.5 / self.dx) > 0.9:
            raise ValueError(
                f"dt = {self.dt}: gravity waves would cross {courant:.1f} cells of {self.dx:.2g} in a step, and the "
                f"model would blow up; use dt <= {0.7 * self.dt / courant:.2g} or a coarser grid."
            )

    @property
    def dx(self) -> float:
        """Distance of two points of the grid."""
        return self.length / self.n

    def fields(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The depth h and the velocity (u, v) of a flat state: three times (..., n, n), rows to the north."""
        if x.shape[-1] != 3 * self.n**2:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: expected (..., {3 * self.n**2}), the fields h, u, v of "
                f"{self.n} x {self.n} points after each other."
            )
        return x.unflatten(-1, (3, self.n, self.n)).unbind(-3)

    def flatten(self, h: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The flat state (..., 3 n n) of three fields (..., n, n)."""
        for name, field in {"h": h, "u": u, "v": v}.items():
            if field.shape[-2:] != (self.n, self.n):
                raise ValueError(f"{name} has shape {tuple(field.shape)}: expected (..., {self.n}, {self.n}).")
        return torch.stack(torch.broadcast_tensors(h, u, v), -3).flatten(-3)

    def tendency(self, x: Tensor) -> Tensor:
        """d(h, u, v)/dt, (..., 3 n n) -> (..., 3 n n)."""
        h, u, v = self.fields(x)
        h_east = east(h)
        U = u * (h + h_east) / 2  # mass flux through the eastern face
        V = v * (h + north(h)) / 2  # ... and through the northern one
        h_corner = (h + h_east + north(h + h_east)) / 4
        q = (self.coriolis + self.vorticity(x)) / h_corner  # potential vorticity
        qU, qV = q * (U + north(U)) / 2, q * (V + east(V)) / 2  # on the corners
        u2, v2 = u * u, v * v
        B = self.gravity * h + (u2 + west(u2) + v2 + south(v2)) / 4
        dh = (west(U) - U + south(V) - V) / self.dx
        du = (qV + south(qV)) / 2 - (east(B) - B) / self.dx
        dv = -(qU + west(qU)) / 2 - (north(B) - B) / self.dx
        if self.viscosity:
            du, dv = du + self.viscosity * self.laplacian(u), dv + self.viscosity * self.laplacian(v)
        return torch.stack((dh, du, dv), -3).flatten(-3)

    def __call__(self, x: Tensor) -> Tensor:
        return rk4(self.tendency, x, self.dt)

    def vorticity(self, x: Tensor) -> Tensor:
        """Relative vorticity on the corners, (..., n, n)."""
        _, u, v = self.fields(x)
        return (east(v) - v - north(u) + u) / self.dx

    def laplacian(self, a: Tensor) -> Tensor:
        """Sum of both second differences of a field (..., n, n)."""
        return (east(a) + west(a) + north(a) + south(a) - 4 * a) / self.dx**2

    def mass(self, x: Tensor) -> Tensor:
        """Integral of h, (...,)."""
        return self.fields(x)[0].sum((-2, -1)) * self.dx**2

    def energy(self, x: Tensor) -> Tensor:
        """Integral of ``(h u^2 + h v^2 + g h^2) / 2``, (...,)."""
        h, u, v = self.fields(x)
        density = u * u * (h + east(h)) / 2 + v * v * (h + north(h)) / 2 + self.gravity * h * h
        return density.sum((-2, -1)) / 2 * self.dx**2

    def geostrophic(self, eta: Tensor) -> Tensor:
        r"""The state balanced with an anomaly of the depth, given on the corners: (..., n, n) -> (..., 3 n n).

        .. math:: f u = -g\, \partial_y \eta, \qquad f v = g\, \partial_x \eta, \qquad h = \bar h + \eta

        Without divergence and, as long as it is weak, steady in the discrete equations too. Without
        rotation nothing balances a slope: the water is at rest, and waves will run.
        """
        h = self.depth + (eta + west(eta) + south(eta + west(eta))) / 4  # corners -> centres
        g_f = self.gravity / self.coriolis if self.coriolis else 0.0
        return self.flatten(h, -g_f * (eta - south(eta)) / self.dx, g_f * (eta - west(eta)) / self.dx)

    def random_state(
        self,
        shape: tuple[int, ...],
        n_vortices: int = 6,
        *,
        height: float = 0.25,
        radius: float | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """Random round vortices in geostrophic balance, high and low pressure, (*shape, 3 n n).

        Parameters
        ----------
        n_vortices : in each state, anywhere in the square
        height : largest anomaly of the depth in a vortex, as a fraction of the mean depth
        radius : standard deviation of their Gaussian shape; a tenth of the side by default
        """
        if n_vortices < 1 or not 0 < height < 1 or (radius is not None and not radius > 0):
            raise ValueError(
                f"n_vortices = {n_vortices}, height = {height}, radius = {radius}: expected at least one vortex, "
                "a height between 0 and 1 and a positive radius."
            )
        draws = torch.rand(*shape, n_vortices, 3, dtype=torch.float64, generator=generator)
        amplitude = height * self.depth * (2 * draws[..., 2] - 1)
        return self.geostrophic(self.vortices(draws[..., :2] * self.length, amplitude, radius or self.length / 10))

    def vortices(self, centre: Tensor, amplitude: Tensor, radius: float | Tensor) -> Tensor:
        """A sum of periodic Gaussian bumps on the corners, (..., n, n).

        Parameters
        ----------
        centre : (..., V, 2), x and y of each bump
        amplitude, radius : (..., V) height and standard deviation of each; a number is the same for all
        """
        wavenumber = 2 * torch.pi / self.length
        corners = torch.arange(1, self.n + 1, dtype=centre.dtype, device=centre.device) * self.dx  # (n,) x or y
        spread = 1 / (wavenumber * torch.as_tensor(radius, dtype=centre.dtype, device=centre.device))[..., None] ** 2
        x, y = (((wavenumber * (corners - c[..., None])).cos() - 1).mul(spread).exp() for c in centre.unbind(-1))
        return torch.einsum("...v, ...vi, ...vj -> ...ij", amplitude, y, x)


def east(a: Tensor) -> Tensor:
    """The neighbour to the east at every point of a periodic field (..., n, n)."""
    return a.roll(-1, -1)


def west(a: Tensor) -> Tensor:
    """The neighbour to the west."""
    return a.roll(1, -1)


def north(a: Tensor) -> Tensor:
    """The neighbour to the north."""
    return a.roll(-1, -2)


def south(a: Tensor) -> Tensor:
    """The neighbour to the south."""
    return a.roll(1, -2)
