"""How good, how certain, how alive: scores of analyses, forecasts and models.

All take leading batch axes. The root of a mean square is taken once, over everything it averages.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .models import Step, one_thread


def rmse(estimate: Tensor, truth: Tensor) -> Tensor:
    """Root-mean-square error over the state at each time: (..., Nx) -> (...,)."""
    if estimate.shape[-2:] != truth.shape[-2:]:
        raise ValueError(
            f"estimate {tuple(estimate.shape)} and truth {tuple(truth.shape)} do not cover the same times and points."
        )
    return (estimate - truth).square().mean(-1).sqrt()


class Estimate(NamedTuple):
    """A mean over experiments and its spread: the standard deviation between single experiments."""

    mean: float
    std: float

    def __str__(self) -> str:
        digits = 1 if abs(self.mean) >= 10 else 2 if abs(self.mean) >= 1 else 3
        spread = "" if self.std != self.std else f" ± {self.std:.{digits}f}"  # NaN for a single experiment
        return f"{self.mean:.{digits}f}{spread}"


def over_seeds(values: Tensor) -> Estimate:
    """Mean and standard deviation over the first axis, one value per experiment; std is NaN for one."""
    values = torch.as_tensor(values, dtype=torch.float64).flatten()
    return Estimate(float(values.mean()), float(values.std()) if len(values) > 1 else float("nan"))


def crps(E: Tensor, truth: Tensor) -> Tensor:
    r"""Continuous ranked probability score of an ensemble, (...,): smaller is better, in units of the state.

    :math:`\overline{|E_i - x|} - \tfrac12 \overline{|E_i - E_j|}`, averaged over the state (Gneiting &
    Raftery 2007, doi 10.1198/016214506000001437), with the fair 1 / (Ne (Ne - 1)) mean over pairs.

    Parameters
    ----------
    E : (..., Ne, Nx); truth : (..., Nx)
    """
    if E.ndim < 2 or E.shape[-1] != truth.shape[-1] or E.shape[-2] < 2:
        raise ValueError(
            f"E {tuple(E.shape)} and truth {tuple(truth.shape)}: expected (..., Ne, Nx) and (..., Nx), Ne > 1."
        )
    n_members = E.shape[-2]
    ordered = E.sort(-2).values
    weights = 2.0 * torch.arange(1, n_members + 1, dtype=E.dtype, device=E.device) - n_members - 1
    pairs = (weights[:, None] * ordered).sum(-2) / (
        n_members * (n_members - 1)
    )  # half the mean distance of two members
    return ((E - truth.unsqueeze(-2)).abs().mean(-2) - pairs).mean(-1)


def rank_histogram(E: Tensor, truth: Tensor) -> Tensor:
    """How often the truth falls between each two members, (Ne + 1,), summing to one; flat if the ensemble is reliable.

    U-shaped: too little spread; a dome: too much; sloping: biased (Hamill 2001,
    doi 10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2).

    Parameters
    ----------
    E : (..., Ne, Nx); truth : (..., Nx); counted over all leading axes and points
    """
    ranks = (E < truth.unsqueeze(-2)).sum(-2).flatten()
    return torch.bincount(ranks, minlength=E.shape[-2] + 1).to(E.dtype) / len(ranks)


@one_thread()
def forecast_errors(step: Step, truth: Tensor, n_steps: int | None = None, starts: Tensor | None = None) -> Tensor:
    """RMSE at leads 0 … n_steps over independent true runs: (..., n_steps + 1).

    Parameters
    ----------
    truth : (..., n_runs, T + 1, Nx); the forecasts start at row 0
    n_steps : T by default
    starts : (..., n_runs, Nx), to start from something else than the truth, e.g. from analyses
    """
    n_steps = truth.shape[-2] - 1 if n_steps is None else n_steps
    if not 0 < n_steps < truth.shape[-2]:
        raise ValueError(
            f"n_steps = {n_steps}: the truth has {truth.shape[-2]} times, expected 1 … {truth.shape[-2] - 1}."
        )
    x = truth[..., 0, :] if starts is None else starts
    errors = []
    with torch.no_grad():
        for k in range(n_steps + 1):
            if k:
                x = step(x)
            errors.append((x - truth[..., k, :]).square().mean((-2, -1)).sqrt())
    return torch.stack(errors, -1)


def skill_horizon(errors: Tensor, threshold: float, dt: float) -> Tensor:
    """Lead, MTU, at which the RMSE by lead (..., T + 1) first passes the threshold, (...,); NaN if it never does."""
    above = ~(errors <= threshold)  # a forecast that is no longer finite is lost too
    k = above.to(torch.int8).argmax(-1, keepdim=True)
    before, after = (errors.gather(-1, (k - i).clamp(min=0)) for i in (1, 0))
    part = torch.where(after.isfinite(), (after - threshold) / (after - before), 0.0)
    lead = (k - part).clamp(min=0).squeeze(-1) * dt
    return torch.where(above.any(-1), lead, torch.nan)


class Climate(NamedTuple):
    """Long-run statistics of a model: mean and standard deviation of the state, each (...,)."""

    mean: Tensor
    std: Tensor


@one_thread()
def climate(step: Step, x0: Tensor, n_steps: int) -> Climate:
    """Statistics over points, times and the runs x0 (..., n_runs, Nx), each ``n_steps`` long.

    Raises
    ------
    FloatingPointError
        if a run leaves the finite numbers
    """
    x, total, squares = x0, 0.0, 0.0
    with torch.no_grad():
        for _ in range(n_steps):
            x = step(x)
            total, squares = total + x.mean((-2, -1)), squares + x.square().mean((-2, -1))
    if not torch.isfinite(squares).all():
        raise FloatingPointError(f"The model blew up within {n_steps} steps: it has no climate.")
    mean = total / n_steps
    return Climate(mean, (squares / n_steps - mean**2).sqrt())


def spectrum(states: Tensor) -> Tensor:
    """Mean power at each wavenumber around the ring: (..., K, Nx) -> (..., Nx // 2 + 1).

    Normalised so that the sum over all wavenumbers, each but the first and last counted twice, is the mean square.
    """
    return torch.fft.rfft(states, norm="forward").abs().square().mean(-2)


def kaplan_yorke_dimension(exponents: Tensor) -> Tensor:
    """Dimension of the attractor from its Lyapunov exponents (..., n), largest first (Kaplan & Yorke 1979)."""
    sums = exponents.cumsum(-1)
    j = (sums >= 0).sum(-1, keepdim=True).clamp(max=exponents.shape[-1] - 1)  # exponents with a sum not negative
    rest = torch.where(j > 0, sums.gather(-1, (j - 1).clamp(min=0)), 0.0)
    return (j + rest / exponents.gather(-1, j).abs()).squeeze(-1)
