"""Between ensemble and variational: covariances blended of both, and an ensemble of variational analyses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .covariances import Blend, Covariance, LowRank
from .ensembles import anomalies
from .filters import Ensemble, EnsembleFilter, Window, Windowed, etkf_update
from .models import Step
from .observations import Observation
from .smoothers import WindowEnsemble
from .variational import diagnostics, var3d_update, var4d_update


@dataclass(frozen=True)
class BlendedEnsemble(EnsembleFilter):
    """What the hybrids share: an ensemble, and a static covariance to blend with its own.

    Parameters
    ----------
    covariance : static B
    weight : of the ensemble's covariance, between 0 (all static) and 1: ``B = (1 - weight) B + weight P``
    iterations, tolerance : of :func:`mooc_da.minimisation.minimise`
    """

    covariance: Covariance = field(kw_only=True)
    weight: float = 0.5
    iterations: int = 20
    tolerance: float = 1e-4
    linearises: ClassVar[bool] = True  # differentiates inside

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight = {self.weight}: expected a fraction between 0 (static) and 1 (ensemble).")

    def blended(self, X: Tensor) -> Blend:
        """The covariance for anomalies X (..., Ne, Nx)."""
        if not torch.isfinite(X).all():
            raise FloatingPointError("the forecast ensemble is not finite")
        return Blend((self.covariance, LowRank(X)), (1.0 - self.weight, self.weight))


@dataclass(frozen=True)
class HybridVar(BlendedEnsemble):
    """ETKF–3D-Var (Wang, Snyder & Hamill 2007), for ``cycle``.

    The mean is analysed by 3D-Var with a blended covariance (Hamill & Snyder 2000), the anomalies by the
    ETKF, which lays them around the new mean. ``chi2`` and ``log_likelihood`` are those of the ETKF alone.
    """

    def analyse(
        self, state: Ensemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[Ensemble, dict]:
        x, X = anomalies(state.E)
        found = var3d_update(x.squeeze(-2), self.blended(X), obs, iterations=self.iterations, tolerance=self.tolerance)
        E, statistics = etkf_update(state.E, obs.H(state.E), obs.y, obs.R)
        _, X = anomalies(self.finished(E, generator))
        return Ensemble(found.states + X), statistics | diagnostics(found)


@dataclass(frozen=True)
class EnsembleVar4D(Windowed, BlendedEnsemble):
    """Ensemble of 4D-Vars (Isaksen et al. 2010): every member a 4D-Var with observations perturbed anew.

    All members are minimised in one batch. For ``cycle_windows``, with the window of :class:`Windowed`.
    """

    def assimilate(
        self, state: Ensemble, step: Step, window: Window, generator: torch.Generator | None = None
    ) -> tuple[list[Ensemble], list[Ensemble], dict]:
        _, X = anomalies(state.E)
        background = WindowEnsemble.run(state.E, step, [(n_steps, None) for n_steps, _ in window]).states()
        found = var4d_update(
            state.E,
            self.blended(X.unsqueeze(-3)),
            step,
            [(n_steps, self.perturbed(obs, state.E.shape[:-2], generator)) for n_steps, obs in window],
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
        analysis = [Ensemble(self.finished(E, generator)) for E in found.states.unbind(-2)]
        return background, analysis, {name: value.mean(-1) for name, value in diagnostics(found).items()}

    def perturbed(
        self, obs: Observation | None, batch: tuple[int, ...], generator: torch.Generator | None
    ) -> Observation | None:
        """The observation once for every member (..., Ne, Ny), with errors drawn from N(0, R) and centred."""
        if obs is None:
            return None
        eps = torch.randn(*batch, self.size, obs.y.shape[-1], dtype=obs.y.dtype, generator=generator)
        eps = eps.to(obs.y.device) - eps.mean(-2, keepdim=True).to(obs.y.device)
        R = obs.R if obs.R.ndim == 1 else obs.R.unsqueeze(-2)
        return Observation(obs.y.unsqueeze(-2) + torch.where(torch.isfinite(R), R, 0.0).sqrt() * eps, obs.H, R)
