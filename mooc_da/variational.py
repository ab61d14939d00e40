"""Variational methods: the state, or the trajectory, that minimises a cost; derivatives by automatic differentiation.

Control-variable space throughout, ``x = x_b + B^(1/2) v``, so that the background term is ``|v|^2 / 2``:

    3D-Var   J(v) = 1/2 |v|^2 + 1/2 |R^(-1/2) (y - H(x_b + B^(1/2) v))|^2
    4D-Var   J(v) = 1/2 |v|^2 + 1/2 sum_k |R^(-1/2) (y_k - H_k(x_k))|^2,     x_k = M(x_{k-1}),  x_0 = x_b + B^(1/2) v
    weak     J(v, q_1 … q_n) = the same + 1/2 sum_k |q_k|^2,                 x_k = M(x_{k-1}) + Q^(1/2) q_k

| method          | assumes                       | cost                           | reference                  |
|-----------------|-------------------------------|--------------------------------|----------------------------|
| `Var3D`         | B the same at all times       | tangents of H                  | Lorenc (1986)              |
| `Var4D`         | also: the model is perfect    | tangents of the window         | Talagrand & Courtier 1987  |
| `Var4D`, weak   | model errors of covariance Q  | the same, n times the unknowns | Trémolet (2006)            |

All methods of the package, also 4DEnVar, IEnKS and the hybrids: the table in :mod:`mooc_da.filters`. Model and
observation operator may be any functions of PyTorch, also networks: no tangent or adjoint code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .covariances import Covariance
from .filters import Window, Windowed
from .minimisation import Minimum, Residual, minimise
from .models import Step, followed, repeated
from .observations import Observation


def blue_update(x_b: Tensor, B: Covariance, H: Tensor, y: Tensor, R: Tensor) -> Tensor:
    """Best linear unbiased estimate, the minimum of 3D-Var in closed form where H is a matrix (Ny, Nx).

    ``x_a = x_b + B H^T (H B H^T + R)^-1 (y - H x_b)``, with B^(1/2) in place of B and a solve of size Ny.
    """
    scale = R.rsqrt()
    identity = torch.eye(B.rank, dtype=x_b.dtype, device=x_b.device)
    S = B.sqrt(identity)  # (..., r, Nx), transposed square root
    Y = (S @ H.mT) * scale  # (..., r, Ny)
    delta = (y - x_b @ H.mT) * scale
    A = Y.mT @ Y + torch.eye(R.shape[-1], dtype=x_b.dtype, device=x_b.device)
    weights = Y @ torch.cholesky_solve(delta.unsqueeze(-1), torch.linalg.cholesky(A))  # (..., r, 1)
    return x_b + (S.mT @ weights).squeeze(-1)


def trajectory_residual(
    x_b: Tensor, B: Covariance, step: Step, window: Window, Q: Covariance | None = None
) -> Residual:
    """The misfits of a window as a function of its control vector, for :func:`mooc_da.minimisation.minimise`."""

    def residual(v: Tensor) -> tuple[Tensor, Tensor]:
        v_0, *q = v.split([B.rank] + [Q.rank] * (len(window) - 1), -1) if Q else (v,)
        x = x_b.unsqueeze(-2) + B.sqrt(v_0)  # (..., n, Nx)
        states, misfits = [], []
        for k, (n_steps, obs) in enumerate(window):
            x = followed(repeated(step, n_steps), x) if n_steps else x
            if Q and k:
                x = x + Q.sqrt(q[k - 1])
            states.append(x)
            if obs is not None:
                misfits.append((followed(obs.H, x) - obs.y.unsqueeze(-2)) * obs.R.rsqrt().unsqueeze(-2))
        return torch.cat(misfits, -1) if misfits else v[..., :0], torch.stack(states, -2)

    return residual


def var3d_update(
    x_b: Tensor, B: Covariance, obs: Observation, *, iterations: int = 20, tolerance: float = 1e-4
) -> Minimum:
    """3D-Var analysis (Lorenc 1986, doi 10.1002/qj.49711247414): the minimum of the cost at one time.

    One iteration reaches it if H is linear.

    Parameters
    ----------
    x_b : (..., Nx) background
    B : its error covariance
    obs : what is observed
    """
    return var4d_update(x_b, B, lambda x: x, [(0, obs)], iterations=iterations, tolerance=tolerance)


def var4d_update(
    x_b: Tensor,
    B: Covariance,
    step: Step,
    window: Window,
    *,
    Q: Covariance | None = None,
    iterations: int = 20,
    tolerance: float = 1e-4,
) -> Minimum:
    """4D-Var analysis of a window (Talagrand & Courtier 1987, doi 10.1002/qj.49711347812).

    Strong constraint by default; with the covariance Q of the model's error between two times of the
    window, weak constraint (Trémolet 2006, doi 10.1256/qj.05.224). As Q goes to zero, the two agree.

    Parameters
    ----------
    x_b : (..., Nx) background at the beginning of the window
    B : its error covariance
    window : for each of its times the steps since the time before (0 at the beginning) and the observation
        or None

    Returns
    -------
    Minimum, whose ``states (..., T, Nx)`` is the trajectory
    """
    if not window:
        raise ValueError("window: it has no times; expected at least one observation to fit.")
    if window[0][0] != 0 or any(n_steps < 1 for n_steps, _ in window[1:]):
        raise ValueError(
            f"window: steps {[n for n, _ in window]}: expected 0 at the beginning and at least one before "
            "each later time; an observation before its window belongs to another."
        )
    for name, covariance in (("B", B), ("Q", Q)) if Q else (("B", B),):
        if covariance.variance.shape[-1] != x_b.shape[-1] or covariance.variance.dtype != x_b.dtype:
            raise ValueError(
                f"{name} is of {covariance.variance.shape[-1]} variables and {covariance.variance.dtype}, but x_b of "
                f"{x_b.shape[-1]} and {x_b.dtype}: expected the same."
            )
    v0 = x_b.new_zeros(*x_b.shape[:-1], B.rank + (len(window) - 1) * (Q.rank if Q else 0))
    residual = trajectory_residual(x_b.clone(), B, step, window, Q)
    n_states = len(window) * x_b.shape[-1]
    return minimise(residual, v0, n_states=n_states, iterations=iterations, tolerance=tolerance)


@dataclass(frozen=True)
class Estimate:
    """State of a variational method: a state and the variance of its error, as far as it is known."""

    x: Tensor  # (..., Nx)
    variance: Tensor  # (..., Nx)

    def moments(self) -> tuple[Tensor, Tensor]:
        return self.x, self.variance


@dataclass(frozen=True)
class VariationalMethod:
    """What 3D-Var and 4D-Var share: a static background covariance, start and forecast.

    Parameters
    ----------
    covariance : B, of the errors of the background
    iterations, tolerance : of :func:`mooc_da.minimisation.minimise`
    """

    covariance: Covariance
    iterations: int = 20
    tolerance: float = 1e-4
    linearises: ClassVar[bool] = True  # differentiates inside

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.tolerance > 0:
            raise ValueError(
                f"iterations = {self.iterations}, tolerance = {self.tolerance}: expected at least one, above zero."
            )

    def start(self, sample: Tensor, generator: torch.Generator | None = None) -> Estimate:
        """The mean of the sample (..., M, Nx)."""
        if sample.ndim < 2:
            raise ValueError(f"start has shape {tuple(sample.shape)}: expected (..., M, Nx), states as rows.")
        return self.background(sample.mean(-2))

    def background(self, x: Tensor) -> Estimate:
        return Estimate(x, self.covariance.variance.expand_as(x))

    def forecast(self, state: Estimate, step: Step, generator: torch.Generator | None = None) -> Estimate:
        """One step of the model; the variance is again that of B."""
        return self.background(step(state.x.unsqueeze(-2)).squeeze(-2))  # a batch of one, as in the minimisation


@dataclass(frozen=True)
class Var3D(VariationalMethod):
    """3D-Var, for :func:`mooc_da.cycle`: :func:`var3d_update` with the same B at all times."""

    def analyse(
        self, state: Estimate, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Estimate, dict]:
        found = var3d_update(state.x, self.covariance, obs, iterations=self.iterations, tolerance=self.tolerance)
        return Estimate(found.states[..., 0, :], found.variance[..., 0, :]), diagnostics(found)


@dataclass(frozen=True)
class Var4D(Windowed, VariationalMethod):
    """4D-Var, for :func:`mooc_da.cycle_windows`: :func:`var4d_update` with the same B for each window.

    Parameters
    ----------
    lag, shift : the window, see :class:`Windowed`
    model_error : Q, covariance of the model's error between two observation times; None for a perfect model
    """

    model_error: Covariance | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_error is not None and self.shift != self.lag:
            raise ValueError(
                f"lag = {self.lag}, shift = {self.shift}: with model_error, expected shift = lag, "
                "else the next would lose the errors found."
            )

    def assimilate(
        self, state: Estimate, step: Step, window: Window, generator: torch.Generator | None = None
    ) -> tuple[list[Estimate], list[Estimate], dict]:
        found = var4d_update(
            state.x,
            self.covariance,
            step,
            window,
            Q=self.model_error,
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
        background = [self.background(x) for x in found.first.unbind(-2)]
        analysis = [Estimate(x, v) for x, v in zip(found.states.unbind(-2), found.variance.unbind(-2), strict=True)]
        return background, analysis, diagnostics(found)


def diagnostics(found: Minimum) -> dict[str, Tensor]:
    """Of a minimisation, each (...,): final cost, gradient relative to the first, iterations, converged or not."""
    n = found.cost.shape[-1] - 1
    return {
        "cost": found.cost[..., -1],
        "gradient": found.gradient[..., -1] / found.gradient[..., 0].clamp(min=torch.finfo(found.v.dtype).tiny),
        "iterations": torch.full_like(found.cost[..., 0], n),
        "converged": found.converged.to(found.v.dtype),
    }
