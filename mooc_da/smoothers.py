"""Ensemble smoothers: observations also correct the states before them.

The EnKS carries the ensembles of past times along; the IEnKS and 4DEnVar fit the ensemble at the beginning
of a window, and run the model again. Symbols as in :mod:`mooc_da.filters`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .ensembles import anomalies, check_observed, inflate, modes, rotate
from .filters import Ensemble, EnsembleFilter, Window, Windowed, etkf_update
from .models import Step, repeated
from .observations import Observation


@dataclass(frozen=True)
class LaggedEnsemble(Ensemble):
    """The ensemble of a fixed-lag smoother with those of the observation times before it."""

    past: tuple[Tensor, ...] = ()  # each (..., Ne, Nx), newest first


@dataclass(frozen=True)
class EnKS(EnsembleFilter):
    """Ensemble Kalman smoother of fixed lag (Evensen & van Leeuwen 2000), with the transform of the ETKF.

    The weights that :func:`etkf_update` finds for the members hold for their whole history: the states of the
    last times, written one after the other, are updated like one long state. The filter itself is the ETKF;
    what the smoother adds is in ``result.smoothed``. Inflation is for the present alone.

    Parameters
    ----------
    lag : how many observation times back; each costs memory and a product of matrices, no model run
    """

    lag: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lag < 0:
            raise ValueError(f"lag = {self.lag}: expected lag >= 0, a number of observation times.")

    def start(self, sample: Tensor, generator: torch.Generator | None = None) -> LaggedEnsemble:
        return LaggedEnsemble(super().start(sample, generator).E)

    def analyse(
        self, state: LaggedEnsemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[LaggedEnsemble, dict]:
        history = torch.cat((state.E, *state.past), -1)  # (..., Ne, Nx (1 + lag))
        history, statistics = etkf_update(history, obs.H(state.E), obs.y, obs.R)
        history = rotate(history, generator) if self.rotation else history
        E, *past = history.split(state.E.shape[-1], -1)
        return LaggedEnsemble(inflate(E, self.inflation), tuple(past)), statistics

    def remember(self, state: LaggedEnsemble) -> LaggedEnsemble:
        """The present joins the past, and what is older than the lag leaves it."""
        return replace(state, past=(state.E, *state.past)[: self.lag])


class WindowEnsemble(NamedTuple):
    """An ensemble run through a window."""

    trajectory: list[Tensor]  # E at its times, each (..., Ne, Nx)
    HE: Tensor  # (..., Ne, m), all that is observed, one after the other
    y: Tensor  # (..., m)
    R: Tensor  # (..., m)

    @classmethod
    def run(cls, E: Tensor, step: Step, window: Window) -> WindowEnsemble:
        """The ensemble E at the beginning, run by the model and observed."""
        trajectory, seen = [], []
        for n_steps, obs in window:
            E = repeated(step, n_steps)(E) if n_steps else E
            trajectory.append(E)
            if obs is not None:
                seen.append((obs.H(E), obs.y, obs.R.expand_as(obs.y)))
        if not seen:
            return cls(trajectory, E[..., :0], E[..., 0, :0], E[..., 0, :0])
        return cls(trajectory, *(torch.cat(parts, -1) for parts in zip(*seen, strict=True)))

    def states(self) -> list[Ensemble]:
        return [Ensemble(E) for E in self.trajectory]


@dataclass(frozen=True)
class FourDEnVar(Windowed, EnsembleFilter):
    r"""4DEnVar (Liu, Xiao & Wang 2008, doi 10.1175/2008MWR2312.1), with a transform; for ``cycle_windows``.

    Minimises over weights w of the members, whose trajectories stand in for tangent and adjoint,

    .. math:: J(w) = \tfrac{N}{2} |w|^2 + \tfrac12 \sum_k |\delta_k - Y_k^T w|^2

    Quadratic, so that :func:`etkf_update` of the whole trajectory, with the observations of all times side by
    side, is its minimum: the same weights correct the beginning, the middle and the end of the window.

    Within a window (:class:`Windowed`) the model is taken as perfect; ``model_error_std`` acts from one to the next.
    """

    def assimilate(
        self, state: Ensemble, step: Step, window: Window, generator: torch.Generator | None = None
    ) -> tuple[list[Ensemble], list[Ensemble], dict]:
        run = WindowEnsemble.run(state.E, step, window)
        if not run.y.shape[-1]:
            return run.states(), run.states(), {}
        history, statistics = etkf_update(torch.cat(run.trajectory, -1), run.HE, run.y, run.R)
        history = self.finished(history, generator)
        return run.states(), [Ensemble(E) for E in history.split(state.E.shape[-1], -1)], statistics


@dataclass(frozen=True)
class IEnKS(FourDEnVar):
    r"""Iterative ensemble Kalman smoother (Bocquet & Sakov 2014, doi 10.1002/qj.2236); for ``cycle_windows``.

    Gauss–Newton on the cost of 4DEnVar with the ensemble run anew from each estimate,
    :math:`E = x + (w + T) X`; :math:`Y` are its observed anomalies, brought back by :math:`T^{-1}`:

    .. math:: w \leftarrow w + (Y Y^T + N I)^{-1} (Y \delta - N w), \qquad T = \sqrt{N} (Y Y^T + N I)^{-1/2}

    One iteration with ``lag = 0`` is the ETKF; ``lag = 1`` the iterative EnKF (Sakov, Oliver & Bertino 2012).

    Parameters
    ----------
    iterations : at most so many
    tolerance : stop when the root mean square of the change of w is smaller
    """

    iterations: int = 10
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"iterations = {self.iterations}: expected at least one.")

    def assimilate(
        self, state: Ensemble, step: Step, window: Window, generator: torch.Generator | None = None
    ) -> tuple[list[Ensemble], list[Ensemble], dict]:
        x, X = anomalies(state.E)
        N = self.size - 1.0
        w = X.new_zeros(*X.shape[:-1])  # (..., Ne)
        identity = torch.eye(self.size, dtype=X.dtype, device=X.device)
        T, T_inverse = identity, identity
        background, converged, iteration = None, False, 0
        while iteration < self.iterations and not converged:
            run = WindowEnsemble.run(x + (w.unsqueeze(-2) + T) @ X, step, window)
            background = background or run.states()
            if not run.y.shape[-1]:
                return background, background, {}
            check_observed(state.E, run.HE, run.y, run.R)
            hx, Y = anomalies(run.HE)
            scale = run.R.rsqrt().unsqueeze(-2)
            Y = T_inverse @ (Y * scale)
            delta = (run.y.unsqueeze(-2) - hx) * scale  # (..., 1, m)
            U, s2 = modes(Y)
            gradient = (Y @ delta.mT).squeeze(-1) - N * w
            projected = (U.mT @ gradient.unsqueeze(-1)).squeeze(-1)
            outside = gradient - (U @ projected.unsqueeze(-1)).squeeze(-1)
            dw = outside / N + (U @ (projected / (s2 + N)).unsqueeze(-1)).squeeze(-1)
            w, iteration = w + dw, iteration + 1
            root = ((s2 + N) / N).sqrt().unsqueeze(-2)
            T = identity + U * (1.0 / root - 1.0) @ U.mT
            T_inverse = identity + U * (root - 1.0) @ U.mT
            converged = bool((dw.square().mean(-1) < self.tolerance**2).all())
        E = self.finished(x + (w.unsqueeze(-2) + T) @ X, generator)
        analysis = WindowEnsemble.run(E, step, [(n_steps, None) for n_steps, _ in window]).states()
        return background, analysis, {"iterations": torch.full_like(w[..., 0], iteration)}
