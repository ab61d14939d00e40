"""The one loop of data assimilation: analyse, forecast, analyse, …"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor
from tqdm.auto import trange

from .filters import Filter, FilterDivergence
from .models import Step, one_thread
from .observations import Observations


@dataclass(frozen=True)
class CycleResult:
    """What a filter gave at the times of the observations; row k belongs to time k.

    Leading axes are those of the experiments. ``result[a:b]`` is the same for some of the times.
    """

    forecast: Tensor  # (..., K, Nx) means before the analysis; row 0 is the mean of the start
    analysis: Tensor  # (..., K, Nx) means after it
    forecast_variance: Tensor  # (..., K, Nx) of the ensemble
    variance: Tensor  # (..., K, Nx)
    diagnostics: dict[str, Tensor] = field(default_factory=dict)  # each (..., K)
    ensembles: Tensor | None = None  # (..., K, Ne, Nx) forecast ensembles, if asked for

    @property
    def forecast_spread(self) -> Tensor:
        """(..., K) root of the mean forecast variance."""
        return self.forecast_variance.mean(-1).sqrt()

    @property
    def spread(self) -> Tensor:
        """(..., K) root of the mean analysis variance."""
        return self.variance.mean(-1).sqrt()

    @property
    def increments(self) -> Tensor:
        """(..., K, Nx) analysis minus forecast."""
        return self.analysis - self.forecast

    def __len__(self) -> int:
        return self.analysis.shape[-2]

    def __getitem__(self, times: slice) -> CycleResult:
        if not isinstance(times, slice):
            raise TypeError(f"CycleResult takes a slice of times, not {times!r}.")
        states = {f.name: getattr(self, f.name)[..., times, :] for f in fields(self)[:4]}
        ensembles = None if self.ensembles is None else self.ensembles[..., times, :, :]
        return CycleResult(
            **states,
            diagnostics={n: v[..., times] for n, v in self.diagnostics.items()},
            ensembles=ensembles,
        )


def cycle(
    method: Filter,
    step: Step,
    observations: Observations,
    start: Tensor,
    *,
    generator: torch.Generator | None = None,
    progress: str = "",
    keep_ensembles: bool = False,
) -> CycleResult:
    """Assimilate all observations in turn: analyse at time 0, then forecast and analyse.

    Parameters
    ----------
    method : the filter with its tuning
    step : the model between two observation times; also a hybrid or a network, in evaluation mode
    observations : K times, (..., K, Ny); leading axes are independent experiments
    start : (..., M, Nx), a sample of possible states at time 0, e.g. of the model's climate
    generator : for methods that draw random numbers
    progress : text of a progress bar; silent without
    keep_ensembles : keep the forecast ensembles (for rank histograms; K x Ne x Nx numbers)

    Raises
    ------
    ValueError
        if the shapes of start, model and observations do not fit each other
    FilterDivergence
        if the filter leaves the finite numbers; ``error.partial`` holds all results before
    """
    rows: list[dict[str, Tensor]] = []
    try:
        with torch.inference_mode(), one_thread():  # cheaper than no_grad; `collected` makes ordinary tensors again
            state = method.start(for_all(start, observations), generator)
            check_fit(state.moments()[0], step, observations)
            for k in trange(len(observations), desc=progress, disable=not progress):
                if k:
                    state = method.forecast(state, step, generator)
                row = dict(zip(("forecast", "forecast_variance"), state.moments(), strict=True))
                if keep_ensembles:
                    row["ensembles"] = state.E
                state, diagnostics = method.analyse(state, observations[k], generator)
                row |= dict(zip(("analysis", "variance"), state.moments(), strict=True)) | diagnostics
                if not math.isfinite(row["variance"].sum()):
                    raise FloatingPointError("the analysis is not finite")
                rows.append(row)
    except (FloatingPointError, torch.linalg.LinAlgError) as error:
        diverged = FilterDivergence(
            f"The filter diverged at time {len(rows)} of {len(observations)} ({error}). Increase inflation, "
            "model_error_std or the ensemble, or start closer to the truth. `.partial` holds the result so far."
        )
        diverged.partial = collected(rows)
        raise diverged from error
    return collected(rows)


def collected(rows: list[dict[str, Tensor]]) -> CycleResult | None:
    """The rows of all times as one result, time just before the state's axes; None if there are none."""
    if not rows:
        return None
    states = {
        n: torch.stack([r[n] for r in rows], -2) for n in ("forecast", "forecast_variance", "analysis", "variance")
    }
    ensembles = torch.stack([r["ensembles"] for r in rows], -3) if "ensembles" in rows[0] else None
    names = rows[0].keys() - states.keys() - {"ensembles"}
    return CycleResult(
        **states,
        diagnostics={n: torch.stack([r[n] for r in rows], -1) for n in sorted(names)},
        ensembles=ensembles,
    )


def for_all(start: Tensor, observations: Observations) -> Tensor:
    """The start (..., M, Nx) repeated for every experiment of the observations."""
    if len(observations) == 0:
        raise ValueError("observations: there are none, nothing to assimilate.")
    try:
        batch = torch.broadcast_shapes(start.shape[:-2], observations.y.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"start has experiments {tuple(start.shape[:-2])} but the observations {tuple(observations.y.shape[:-2])}: "
            "expected the same leading axes, or axes of one."
        ) from None
    return start.expand(*batch, *start.shape[-2:])


def check_fit(x: Tensor, step: Step, observations: Observations) -> None:
    """Raise ValueError unless state, model and observations fit each other in shape and dtype."""
    obs = observations[0]
    if x.dtype != obs.y.dtype:
        raise ValueError(
            f"start is {x.dtype} but the observations are {obs.y.dtype}: convert one with .to(torch.float64)."
        )
    if not torch.isfinite(x).all():
        raise ValueError("start: the ensemble contains NaN or infinite values.")
    if isinstance(step, torch.nn.Module) and step.training:
        raise ValueError("step is a network in training mode: call step.eval() first.")
    if (next_x := step(x)).dtype != x.dtype:
        raise ValueError(f"step maps {x.dtype} to {next_x.dtype}: expected the dtype of the state.")
    if next_x.shape != x.shape:
        raise ValueError(
            f"step maps a state of shape {tuple(x.shape)} to {tuple(next_x.shape)}: expected the same shape."
        )
    if (seen := obs.H(x)).shape[-1] != obs.y.shape[-1]:
        raise ValueError(
            f"H of a state with {x.shape[-1]} points gives {seen.shape[-1]} values, but {obs.y.shape[-1]} "
            "are observed: state and observations belong to grids or networks of different size."
        )
