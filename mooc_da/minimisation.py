"""Gauss–Newton minimisation of a sum of squares with a background, for a batch of experiments at once.

    J(v) = 1/2 |v|^2 + 1/2 |r(v)|^2

v is the control vector, x = x_b + B^(1/2) v, and r the misfits in units of their errors. Each iteration solves
``(I + G^T G) dv = -grad J`` with ``G = dr/dv``, which never inverts B and is well conditioned by the identity.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .models import jacobian

Residual = Callable[[Tensor], tuple[Tensor, Tensor]]  # v (..., n, r) -> misfits (..., n, m), states (..., n, T, Nx)
LARGEST_MATRIX = 512**2  # entries; where the tangents would have more, the Hessian is applied, not formed


class Minimum(NamedTuple):
    """Where a minimisation ended, and how it got there."""

    v: Tensor  # (..., r)
    first: Tensor  # (..., T, Nx) states at the first guess
    states: Tensor  # (..., T, Nx) at the minimum
    variance: Tensor  # (..., T, Nx) by the Hessian; NaN where that is not formed
    cost: Tensor  # (..., iterations + 1), J before each iteration and after the last
    gradient: Tensor  # (..., iterations + 1), |grad J|
    converged: Tensor  # (...,) gradient below tolerance


class MinimisationDivergence(FloatingPointError):
    """The cost is not finite; ``partial`` is the :class:`Minimum` of the iterations before."""

    partial = None


class Linearisation(NamedTuple):
    """The residual about a point."""

    v: Tensor  # (..., r)
    misfits: Tensor  # (..., m)
    states: Tensor  # (..., T, Nx)
    gradient: Tensor  # (..., r) of J
    cost: Tensor  # (...,)
    G: Tensor | None  # (..., r, m), transposed: a row for each direction; None if not formed
    tangents: Tensor | None  # (..., r, T, Nx) of the states


def minimise(
    residual: Residual, v0: Tensor, *, n_states: int = 0, iterations: int = 20, tolerance: float = 1e-4
) -> Minimum:
    """Gauss–Newton with Levenberg–Marquardt damping, which sets in where a step would raise the cost.

    Parameters
    ----------
    residual : v -> misfits and states; any number of vectors side by side, each by itself
    v0 : (..., r) first guess
    n_states : T Nx, numbers in the states of one vector; with r it says whether the Jacobian can be formed
    iterations : at most so many
    tolerance : stop when ``|grad J|`` has fallen below this fraction of ``1 + |grad J(v0)|``, in all experiments

    Raises
    ------
    MinimisationDivergence
        if the cost at the first guess is not finite

    Warns
    -----
    RuntimeWarning
        if the tolerance is not reached
    """
    with torch.inference_mode(False), torch.no_grad():
        form = v0.shape[-1] * max(v0.shape[-1], n_states) <= LARGEST_MATRIX
        here = linearised(residual, v0.clone(), form)
        first, costs, gradients = here.states, [here.cost], [here.gradient.norm(dim=-1)]
        goal = tolerance * (1.0 + gradients[0])
        damping = torch.zeros_like(here.cost)
        if not torch.isfinite(here.cost).all():
            error = MinimisationDivergence("the cost of the first guess is not finite: check the model, H and x_b")
            error.partial = minimum(first, here, costs, gradients, goal)
            raise error
        for _ in range(iterations):
            if (gradients[-1] <= goal).all():
                break
            dv = newton_step(residual, here, damping)
            there = linearised(residual, here.v - dv, form, here.misfits.shape[-1] + math.prod(here.states.shape[-2:]))
            better = there.cost <= here.cost * (1.0 + 1e-12)  # False also where it is not a number
            damping = adapted(damping, dv, here, there)
            here = Linearisation(*(select(better, new, old) for new, old in zip(there, here, strict=True)))
            costs.append(here.cost)
            gradients.append(here.gradient.norm(dim=-1))
        result = minimum(first, here, costs, gradients, goal)
    if not result.converged.all():
        warnings.warn(
            f"The minimisation stopped after {iterations} iterations with {int((~result.converged).sum())} of "
            f"{result.converged.numel()} short of the tolerance: allow more iterations or shorten the window.",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def adapted(damping: Tensor, dv: Tensor, here: Linearisation, there: Linearisation) -> Tensor:
    """Less damping where the cost fell as the linearisation promised, more where it did not."""
    promised = 0.5 * (torch.linalg.vecdot(dv, here.gradient) + damping * torch.linalg.vecdot(dv, dv))
    gain = (here.cost - there.cost) / promised.clamp(min=torch.finfo(dv.dtype).tiny)
    less = torch.where(damping > 1e-2, damping / 5.0, 0.0)
    more = 3.0 * damping.clamp(min=1.0)
    return torch.where(gain > 0.75, less, torch.where(gain > 0.25, damping, more))


def minimum(first: Tensor, here: Linearisation, costs: list[Tensor], gradients: list[Tensor], goal: Tensor) -> Minimum:
    """The result of the iterations so far."""
    cost, gradient = torch.stack(costs, -1), torch.stack(gradients, -1)
    return Minimum(here.v, first, here.states, posterior_variance(here), cost, gradient, gradient[..., -1] <= goal)


def select(mask: Tensor, new: Tensor | None, old: Tensor | None) -> Tensor | None:
    """New where the mask (...,) says so, old elsewhere."""
    if new is None:
        return None
    return torch.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)


def linearised(residual: Residual, v: Tensor, form: bool, n_outputs: int | None = None) -> Linearisation:
    """The residual at v with the gradient of the cost, and with its Jacobian if it is to be formed."""
    if form:
        shape = ()

        def joint(v: Tensor) -> Tensor:
            nonlocal shape
            misfits, states = residual(v)
            shape = states.shape[-2:]
            return torch.cat((misfits, states.flatten(-2)), -1)

        values, J = jacobian(joint, v, n_outputs)
        m = values.shape[-1] - math.prod(shape)
        misfits, states = values[..., :m], values[..., m:].unflatten(-1, shape)
        G, tangents = J[..., :m, :].mT, J[..., m:, :].mT.unflatten(-1, shape)
        gradient = v + (G @ misfits.unsqueeze(-1)).squeeze(-1)
    else:
        G = tangents = None
        with torch.enable_grad():
            row = v.detach().unsqueeze(-2).requires_grad_()
            misfits, states = residual(row)
            (back,) = torch.autograd.grad(misfits, row, misfits.detach())
        misfits, states = misfits.detach().squeeze(-2), states.detach().squeeze(-3)
        gradient = v + back.squeeze(-2)
    cost = 0.5 * (torch.linalg.vecdot(v, v) + torch.linalg.vecdot(misfits, misfits))
    return Linearisation(v, misfits, states, gradient, cost, G, tangents)


def newton_step(residual: Residual, here: Linearisation, damping: Tensor) -> Tensor:
    """``((1 + damping) I + G^T G)^-1 grad J``: by Cholesky, or by conjugate gradients if G is not formed."""
    damping = 1.0 + damping.unsqueeze(-1)
    if here.G is not None:
        A = here.G @ here.G.mT + torch.diag_embed(damping.expand_as(here.gradient))
        return torch.cholesky_solve(here.gradient.unsqueeze(-1), torch.linalg.cholesky(A)).squeeze(-1)
    with torch.enable_grad():  # one graph serves all products: forwards as in tangent_linear, then backwards
        row = here.v.detach().unsqueeze(-2).requires_grad_()
        misfits = residual(row)[0]
        u = torch.zeros_like(misfits, requires_grad=True)
        (transposed,) = torch.autograd.grad(misfits, row, u, create_graph=True)

    def hessian(p: Tensor) -> Tensor:
        (Gp,) = torch.autograd.grad(transposed, u, p.unsqueeze(-2), retain_graph=True)
        (GtGp,) = torch.autograd.grad(misfits, row, Gp, retain_graph=True)
        return damping * p + GtGp.squeeze(-2)

    return conjugate_gradients(hessian, here.gradient)


def conjugate_gradients(
    A: Callable[[Tensor], Tensor], b: Tensor, tolerance: float = 1e-6, iterations: int = 200
) -> Tensor:
    """Solution of ``A x = b`` for symmetric positive A, (..., r), until ``|b - A x| <= tolerance |b|`` everywhere.

    Hestenes & Stiefel (1952, doi 10.6028/jres.049.044).
    """
    x, residual = torch.zeros_like(b), b
    p = residual
    r2 = torch.linalg.vecdot(residual, residual).unsqueeze(-1)
    goal = tolerance**2 * r2
    tiny = torch.finfo(b.dtype).tiny
    for _ in range(iterations):
        if (r2 <= goal).all():
            break
        Ap = A(p)
        step = r2 / torch.linalg.vecdot(p, Ap).unsqueeze(-1).clamp(min=tiny)
        x, residual = x + step * p, residual - step * Ap
        r2, before = torch.linalg.vecdot(residual, residual).unsqueeze(-1), r2
        p = residual + r2 / before.clamp(min=tiny) * p
    return x


def posterior_variance(here: Linearisation) -> Tensor:
    """(..., T, Nx): diagonal of ``X (I + G^T G)^-1 X^T`` with the tangents X; NaN if G is not formed."""
    if here.G is None:
        return torch.full_like(here.states, torch.nan)
    rank = here.v.shape[-1]
    A = here.G @ here.G.mT + torch.eye(rank, dtype=here.v.dtype, device=here.v.device)
    L = torch.linalg.cholesky_ex(A).L
    Z = torch.linalg.solve_triangular(L, here.tangents.flatten(-2), upper=False)
    return (Z * Z).sum(-2).unflatten(-1, here.tangents.shape[-2:])
