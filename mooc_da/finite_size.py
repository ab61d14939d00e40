"""The finite-size ensemble Kalman filter (EnKF-N), which finds its own inflation; symbols as in ``filters``."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .ensembles import (
    InnovationModes,
    eigh,
    innovation_modes,
    innovation_statistics,
    observed_values,
    transformed,
    with_variance_factor,
)
from .filters import Ensemble, EnsembleFilter
from .observations import Observation


def enkf_n_update(E: Tensor, HE: Tensor, y: Tensor, R: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Finite-size EnKF (EnKF-N; Bocquet 2011, doi 10.5194/npg-18-735-2011; Bocquet & Sakov 2012).

    The true mean and covariance behind an ensemble of finite size are unknown; marginalised out,
    the prior of the weights has a fatter tail. Its effect is an inflation, chosen anew by each analysis:

    .. math:: \zeta = \arg\min D, \quad w = (Y Y^T + \zeta I)^{-1} Y \delta, \quad
              T = \sqrt{N} \Big( Y Y^T + \zeta I - \tfrac{2 \zeta^2}{N_e + 1} w w^T \Big)^{-1/2}.

    with the dual cost D of :func:`finite_size_zeta`. With :math:`\zeta = N_e - 1` and without the
    last term this is the ETKF.

    Returns
    -------
    E_a : (..., Ne, Nx), the :func:`innovation_statistics` and ``zeta``
    """
    m = innovation_modes(E, HE, y, R)
    zeta = finite_size_zeta(m.s2, m.g, E.shape[-2])
    return finite_size_analysis(m, zeta), innovation_statistics(m, R) | {"zeta": zeta}


def finite_size_zeta(s2: Tensor, g: Tensor, n_members: int) -> Tensor:
    r"""Minimiser of the dual cost of the EnKF-N, (...,); bounded by :math:`N_e - 1`, so that it never deflates.

    .. math:: D(\zeta) = \delta^T (I + Y^T Y / \zeta)^{-1} \delta + \epsilon \zeta
              + (N_e + 1) \ln \frac{N_e + 1}{\zeta} - (N_e + 1)

    with :math:`\epsilon = 1 + 1/N_e` (Bocquet & Sakov 2012, doi 10.5194/npg-19-383-2012).
    In the modes of Y the first term is, up to a constant, :math:`-\sum_m g_m^2 / (s_m^2 + \zeta)`.
    The cost may have several minima: a logarithmic grid finds the lowest, a Newton step polishes
    it, for all experiments of a batch at once.
    """
    grid, static_cost = zeta_grid(n_members, g.dtype, g.device)  # (G, 1), (G,)
    cost = static_cost - ((g * g).unsqueeze(-2) / (s2.unsqueeze(-2) + grid)).sum(-1)  # (..., G)
    zeta = grid[cost.argmin(-1)]  # (..., 1)
    distance = s2 + zeta
    w = g / distance
    zeta = zeta.squeeze(-1)
    stiffness = torch.linalg.vecdot(w, w) + (1.0 + 1.0 / n_members)  # |w|^2 + epsilon
    residual = zeta * stiffness - (n_members + 1.0)  # zeta dD/dzeta
    slope = stiffness - 2.0 * zeta * torch.linalg.vecdot(w, w / distance)
    return (zeta - residual / slope.clamp(min=0.1)).clamp(n_members * 1e-3, n_members - 1.0)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept must serve with gradients too
def zeta_grid(n_members: int, dtype: torch.dtype, device: torch.device, size: int = 128) -> tuple[Tensor, Tensor]:
    """Three decades of zeta below Ne - 1, (G, 1), and the part of the dual cost that depends on nothing else, (G,)."""
    grid = (n_members - 1) * torch.logspace(-3, 0, size, dtype=dtype, device=device)
    return grid.unsqueeze(-1), (1 + 1 / n_members) * grid - (n_members + 1) * grid.log()


def finite_size_analysis(m: InnovationModes, zeta: Tensor) -> Tensor:
    """The analysis of the EnKF-N for a given ``zeta (...,)``; see :func:`enkf_n_update`."""
    N = m.X.shape[-2] - 1.0
    zeta = zeta.unsqueeze(-1)
    diagonal = m.s2 + zeta
    w = m.g / diagonal
    v = (math.sqrt(2.0 / (N + 2.0)) * zeta * w).unsqueeze(-1)  # the Hessian is a diagonal less v v^T
    values, vectors = eigh(torch.diag_embed(diagonal) - v * v.mT)  # positive at the minimum of D
    rest = (N / zeta).sqrt()  # outside the modes the Hessian is zeta I
    T = vectors * ((N / values.abs()).sqrt() - rest).unsqueeze(-2) @ vectors.mT
    return transformed(m, w, T, rest.unsqueeze(-1))


@dataclass(frozen=True)
class AdaptiveEnsemble(Ensemble):
    """The ensemble of an adaptive EnKF-N with what it has learnt of its prior inflation."""

    beta: Tensor  # (...,) estimate of the factor missing in the forecast variance
    nu: float  # certainty of beta: the number of analyses it is worth


@dataclass(frozen=True)
class EnKFN(EnsembleFilter):
    r"""Finite-size EnKF with the hybrid adaptive inflation of Raanes, Bocquet & Carrassi (2019, doi 10.1002/qj.3386).

    Two inflations at work: :math:`\zeta` (:func:`enkf_n_update`) answers the sampling error of this
    analysis; :math:`\beta` answers what is wrong all the time, above all the model. Each analysis
    estimates it from its innovation, :math:`\hat\beta = (|\delta|^2 - N_y) (N_e - 1) / \sum_m s_m^2`,
    and updates :math:`\beta \leftarrow (\nu \beta + \hat\beta) / (\nu + 1), \; \nu \leftarrow \nu + 1`;
    the prior anomalies are multiplied by the root of its mean, :math:`\beta \nu / (\nu - 2)`.

    Parameters
    ----------
    adaptive : estimate beta (True) or keep it at one (the plain EnKF-N)
    nu : certainty of ``beta = 1`` at the start, in analyses
    nu_max : bound of the certainty; a finite one lets beta forget after that many analyses
    beta_min : lower bound of the factor; below one, a too wide ensemble may be deflated, at the risk of collapse
    beta_in_update : False is the variant in the code of Bocquet & Brajard (2023), where beta enters
        the dual cost of zeta but not the update; kept to compare with the numbers of that course
    """

    adaptive: bool = True
    nu: float = 100.0
    nu_max: float = float("inf")
    beta_min: float = 1.0
    beta_in_update: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 < self.nu <= self.nu_max:
            raise ValueError(f"nu = {self.nu}, nu_max = {self.nu_max}: expected 2 < nu <= nu_max.")
        if not self.beta_min > 0:
            raise ValueError(f"beta_min = {self.beta_min}: expected a positive factor.")

    def start(self, sample: Tensor, generator: torch.Generator | None = None) -> AdaptiveEnsemble:
        E = super().start(sample, generator).E
        return AdaptiveEnsemble(E, beta=torch.ones(E.shape[:-2], dtype=E.dtype, device=E.device), nu=self.nu)

    def analyse(
        self, state: AdaptiveEnsemble, obs: Observation, generator: torch.Generator | None = None
    ) -> tuple[AdaptiveEnsemble, dict]:
        m = innovation_modes(state.E, obs.H(state.E), obs.y, obs.R)
        beta, nu, prior = state.beta, state.nu, m
        if self.adaptive:
            known = (beta * (nu / (nu - 2))).clamp(min=self.beta_min)  # before this innovation
            statistics = innovation_statistics(with_variance_factor(m, known), obs.R)
            n_values, _ = observed_values(obs.R)
            variance = m.s2.sum(-1).clamp(min=torch.finfo(beta.dtype).tiny)
            estimate = (m.delta2 - n_values) * (self.size - 1.0) / variance
            beta = torch.where(n_values > 0, torch.lerp(beta, estimate, 1 / (nu + 1)), beta)
            nu = min(nu + 1, self.nu_max)
            factor = (beta * (nu / (nu - 2))).clamp(min=self.beta_min)
            prior = with_variance_factor(m, factor)
            statistics["beta"] = factor
        else:
            statistics = innovation_statistics(m, obs.R)
        zeta = finite_size_zeta(prior.s2, prior.g, self.size)
        E = finite_size_analysis(prior if self.beta_in_update else m, zeta)
        return AdaptiveEnsemble(self.finished(E, generator), beta, nu), statistics | {"zeta": zeta}
