"""Dynamical models: a step is a value ``x_k -> x_{k+1}``; everything else is a function of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]  # x_k -> x_{k+1}, (..., Nx) -> (..., Nx)


def rk4(tendency: Callable[[Tensor], Tensor], x: Tensor, dt: float) -> Tensor:
    """One step of the classical fourth-order Runge–Kutta scheme for ``dx/dt = tendency(x)``.

    Parameters
    ----------
    tendency : function ``(..., Nx) -> (..., Nx)``, per MTU
    x : (..., Nx)
    dt : step, MTU; the error of one step is O(dt^5)
    """
    k1 = tendency(x)
    k2 = tendency(torch.add(x, k1, alpha=dt / 2))  # x + dt/2 k1 in one operation
    k3 = tendency(torch.add(x, k2, alpha=dt / 2))
    k4 = tendency(torch.add(x, k3, alpha=dt))
    return torch.add(x, k1 + 2.0 * (k2 + k3) + k4, alpha=dt / 6)


@dataclass(frozen=True)
class Lorenz96:
    r"""The model of Lorenz & Emanuel (1998, doi 10.1175/1520-0469(1998)055<0399:OSFSWO>2.0.CO;2).

    .. math:: dx_n/dt = (x_{n+1} - x_{n-2}) x_{n-1} - x_n + F, \qquad n \text{ modulo } N_x

    Advection, friction and forcing of a quantity on a latitude circle. With F = 8 it is chaotic:
    13 of 40 Lyapunov exponents are positive.

    Parameters
    ----------
    forcing : F; a tensor gives every experiment of a batch its own, e.g. shape (S, 1, 1)
    dt : step of :func:`rk4`, MTU
    """

    forcing: float | Tensor = 8.0
    dt: float = 0.05

    def tendency(self, x: Tensor) -> Tensor:
        """dx/dt per MTU, (..., Nx) -> (..., Nx)."""
        n = x.shape[-1]
        ring = torch.cat((x[..., -2:], x, x[..., :1]), -1)  # a halo: ring[j] = x[j - 2]
        x_minus2, x_minus1, x_plus1 = ring[..., :n], ring[..., 1 : n + 1], ring[..., 3:]
        return (x_plus1 - x_minus2) * x_minus1 - x + self.forcing

    def __call__(self, x: Tensor) -> Tensor:
        return rk4(self.tendency, x, self.dt)

    def random_state(self, shape: tuple[int, ...], n_sites: int = 40, *, generator: torch.Generator) -> Tensor:
        """Random states off the attractor to spin up from, (*shape, n_sites)."""
        return torch.randn(*shape, n_sites, dtype=torch.float64, generator=generator) + 2.0


@dataclass(frozen=True)
class CubicLorenz96(Lorenz96):
    r"""The true model of the course: Lorenz-96 with a cubic term, friction and a stronger forcing.

    .. math::
        dx_n/dt = (x_{n+1} - x_{n-2}) x_{n-1}
                + \nu \{ x_{n-2} x_n (x_{n+1} - x_{n-3}) - x_{n-1} x_{n+1} (x_{n+2} - x_{n-2}) \}
                - \lambda x_n + F

    The form integrated in the course of Bocquet & Brajard (2023). The cubic term does not conserve
    :math:`\sum x_n^2`: its second product telescopes, its first does not.

    Parameters
    ----------
    forcing, dt : as in :class:`Lorenz96`
    cubic : nu; with ``cubic=0, friction=1`` this is Lorenz-96
    friction : lambda, per MTU
    """

    forcing: float | Tensor = 8.5
    cubic: float = 0.025
    friction: float = 1.01

    def tendency(self, x: Tensor) -> Tensor:
        """dx/dt per MTU, (..., Nx) -> (..., Nx)."""
        n = x.shape[-1]
        ring = torch.cat((x[..., -3:], x, x[..., :2]), -1)  # ring[j] = x[j - 3]
        x_minus3, x_minus2, x_minus1 = ring[..., :n], ring[..., 1 : n + 1], ring[..., 2 : n + 2]
        x_plus1, x_plus2 = ring[..., 4 : n + 4], ring[..., 5:]
        cubic = x_minus2 * x * (x_plus1 - x_minus3) - x_minus1 * x_plus1 * (x_plus2 - x_minus2)
        return (x_plus1 - x_minus2) * x_minus1 + self.cubic * cubic - self.friction * x + self.forcing


@dataclass(frozen=True)
class Lorenz63:
    r"""Lorenz (1963, doi 10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2).

    .. math:: \dot x = \sigma (y - x), \quad \dot y = x (\rho - z) - y, \quad \dot z = x y - \beta z
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8.0 / 3.0
    dt: float = 0.01

    def tendency(self, state: Tensor) -> Tensor:
        """d(x, y, z)/dt, (..., 3) -> (..., 3)."""
        x, y, z = state.unbind(-1)
        return torch.stack((self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z), -1)

    def __call__(self, state: Tensor) -> Tensor:
        return rk4(self.tendency, state, self.dt)

    def random_state(self, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        """Random states around (0, 0, 25) to spin up from, (*shape, 3), far from the slow spirals about the centres."""
        centre = torch.tensor([0.0, 0.0, 25.0], dtype=torch.float64)
        return centre + 10.0 * torch.randn(*shape, 3, dtype=torch.float64, generator=generator)


def tangent_linear(f: Step, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """``f(x)`` and its derivative along the directions, ``f'(x) d``: the exact tangent-linear of any function.

    By two sweeps backwards: the first, ``u -> f'(x)^T u``, is linear in u, and its own derivative is ``f'(x)``.
    In PyTorch this is several times faster than forward mode, which is slow where constants enter.

    Parameters
    ----------
    f : (..., n) -> (..., m)
    x, directions : (..., n), one direction for each state
    """
    keep_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        x = leaf(x, keep_graph)
        y = followed(f, x)
        if not y.requires_grad:  # f does not depend on x
            return y, torch.zeros_like(y)
        u = torch.zeros_like(y, requires_grad=True)
        (transposed,) = torch.autograd.grad(y, x, u, create_graph=True, allow_unused=True)
        if transposed is None or not transposed.requires_grad:  # only on parameters
            return y if keep_graph else y.detach(), torch.zeros_like(y)
        (tangent,) = torch.autograd.grad(transposed, u, directions.clone(), create_graph=keep_graph)
    return y if keep_graph else y.detach(), tangent


def followed(f: Step, x: Tensor) -> Tensor:
    """``f(x)``, refused with a ValueError if f depends on x in a way that PyTorch cannot differentiate."""
    y = f(x)
    if x.requires_grad and not y.requires_grad:
        with torch.no_grad():
            constant = torch.equal(f(x + 1.0), y)
        if not constant:
            raise ValueError(
                f"{getattr(f, '__name__', type(f).__name__)}: its derivative is cut off. Leave out .detach(), .data, "
                "torch.no_grad() and NumPy inside it, or take a method that needs no derivatives, such as the ETKF."
            )
    return y


def leaf(x: Tensor, keep_graph: bool) -> Tensor:
    """A copy to differentiate by, still a function of what x depends on if ``keep_graph``."""
    x = x.clone() if keep_graph else x.detach().clone()
    return x if x.requires_grad else x.requires_grad_()


def jacobian(f: Step, x: Tensor, n_outputs: int | None = None) -> tuple[Tensor, Tensor]:
    """``f(x) (..., m)`` and its derivative ``(..., m, n)``, exact, for any function of a batch of states.

    All at once, on copies of the state: one copy for each output and one sweep backwards where outputs are
    few, else one for each input and :func:`tangent_linear`. Where gradients are recorded, value and
    derivative can be differentiated further.

    Parameters
    ----------
    x : (..., n)
    n_outputs : m, if known; saves a call of f
    """
    n = x.shape[-1]
    if n_outputs is None:
        with torch.no_grad():
            n_outputs = f(x.unsqueeze(-2)).shape[-1]
    backwards = n_outputs <= max(64, 2 * n)
    copies = x.unsqueeze(-2).repeat_interleave(n_outputs if backwards else n, -2)
    each = torch.eye(copies.shape[-2], dtype=x.dtype, device=x.device).expand(*copies.shape[:-1], -1)
    if not backwards:
        values, columns = tangent_linear(f, copies, each)
        return values[..., 0, :], columns.mT
    keep_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        copies = leaf(copies, keep_graph)
        values = followed(f, copies)
        if not values.requires_grad:  # f does not depend on x
            return values[..., 0, :], torch.zeros_like(copies)
        (rows,) = torch.autograd.grad(values, copies, each.clone(), create_graph=keep_graph, allow_unused=True)
    values, rows = values[..., 0, :], torch.zeros_like(copies) if rows is None else rows  # None: only on parameters
    return values if keep_graph else values.detach(), rows


def repeated(step: Step, n: int) -> Step:
    """The step ``n`` times over, as one step: observations every ``n`` steps of a model."""
    if n < 1:
        raise ValueError(f"n = {n}: expected at least one step.")

    def n_steps(x: Tensor) -> Tensor:
        for _ in range(n):
            x = step(x)
        return x

    return n_steps


def augmented(model_of: Callable[[Tensor], Step], n_parameters: int) -> Step:
    """The step of a state with parameters behind it, ``(x, theta) -> (model_of(theta)(x), theta)``.

    A filter that runs it estimates the parameters with the state, through their covariance in the ensemble;
    they stay as they are between analyses. With :func:`mooc_da.observations.of_state` as the network.

    Parameters
    ----------
    model_of : parameters (..., n_parameters) -> model, for example ``lambda F: Lorenz96(forcing=F)``
    n_parameters : how many of the last numbers of the state are parameters, at least one
    """
    if n_parameters < 1:
        raise ValueError(f"n_parameters = {n_parameters}: expected at least one.")

    def step(z: Tensor) -> Tensor:
        x, theta = z[..., :-n_parameters], z[..., -n_parameters:]
        return torch.cat((model_of(theta)(x), theta), -1)

    return step


def trajectory(step: Step, x0: Tensor, n_steps: int) -> Tensor:
    """States of ``n_steps`` steps from ``x0``: (..., n_steps + 1, Nx); row 0 is ``x0``.

    Raises
    ------
    FloatingPointError
        if the model blows up; says at which step.
    """
    states = [x0]
    for _ in range(n_steps):
        states.append(step(states[-1]))
    states = torch.stack(states, -2)  # (..., n_steps + 1, Nx)
    if not torch.isfinite(states.detach().sum()):
        finite = torch.isfinite(states).all(-1).reshape(-1, n_steps + 1).all(0)  # (n_steps + 1,)
        raise FloatingPointError(
            f"The model blew up at step {int(finite.long().argmin())} of {n_steps}: use a smaller dt or another start."
        )
    return states


def spin_up(
    model,
    shape: tuple[int, ...] = (),
    *,
    states: Tensor | None = None,
    generator: torch.Generator | None = None,
    n_steps: int = 1000,
) -> Tensor:
    """Independent states on the attractor of ``model``: (*shape, Nx).

    Each is a run of its own of ``n_steps`` steps, all in one batch, from ``states`` (*shape, Nx) or else
    from ``model.random_state(shape, generator=generator)``.
    """
    x = model.random_state(shape, generator=generator) if states is None else states
    with torch.no_grad():
        return repeated(model, n_steps)(x)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread inside, then restore the number there was; also a decorator.

    For arrays as small as here, more threads gain little, and cost several times the time where
    another program wants the same cores, as on a shared server or in a full class.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@one_thread()
def lyapunov_exponents(
    step: Step,
    x0: Tensor,
    n_steps: int,
    dt: float,
    n_exponents: int | None = None,
    *,
    n_discarded: int = 100,
) -> Tensor:
    """Lyapunov spectrum per MTU, (..., n_exponents), in the order of QR: descending in runs long enough.

    Tangent vectors are carried by the exact tangent-linear step and re-orthonormalised by QR at every
    step (Benettin et al. 1980, doi 10.1007/BF02128236). Sampling error falls as ``1 / sqrt(n_steps)``.

    Parameters
    ----------
    x0 : (..., Nx), on the attractor; leading axes are independent runs
    dt : length of one step, MTU
    n_exponents : how many (all Nx by default)
    n_discarded : first steps, in which the vectors find their directions
    """
    n_sites = x0.shape[-1]
    n_exponents = n_exponents or n_sites
    if n_exponents > n_sites:
        raise ValueError(f"n_exponents = {n_exponents}: a state of {n_sites} numbers has only {n_sites}.")
    x = x0
    Q = torch.eye(n_sites, n_exponents, dtype=x0.dtype, device=x0.device).expand(*x0.shape[:-1], -1, -1)
    log_growth = x0.new_zeros(*x0.shape[:-1], n_exponents)
    with torch.no_grad():
        for k in range(n_discarded + n_steps):
            states = x.unsqueeze(-2).repeat_interleave(n_exponents, -2)
            states, tangents = tangent_linear(step, states, Q.mT)  # (..., n_exponents, Nx)
            x = states[..., 0, :]
            Q, growth = torch.linalg.qr(tangents.mT)
            if k >= n_discarded:
                log_growth += growth.diagonal(dim1=-2, dim2=-1).abs().log()
    return log_growth / (n_steps * dt)
