"""The one loop of data assimilation: analyse, forecast, analyse, …; time by time or window by window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm, trange

from .filters import Ensemble, EnsembleFilter, Filter, FilterDivergence, WindowMethod
from .hybrids import BlendedEnsemble
from .models import Step, one_thread
from .observations import Observations
from .particles import ParticleFilter
from .smoothers import EnKS
from .variational import Var4D, VariationalMethod


@dataclass(frozen=True)
class CycleResult:
    """What a method gave at the times of the observations; row k belongs to ``observations[k]``.

    Leading axes are those of the experiments. ``result[a:b]`` is the same for some of the times. At a time
    without observations, analysis and forecast are the same, and the diagnostics NaN.
    """

    forecast: Tensor  # (..., K, Nx) means before the analysis; row 0 is the mean of the start
    analysis: Tensor  # (..., K, Nx) means after it
    forecast_variance: Tensor  # (..., K, Nx) of the ensemble
    variance: Tensor  # (..., K, Nx)
    diagnostics: dict[str, Tensor] = field(default_factory=dict)  # each (..., K)
    ensembles: Tensor | None = None  # (..., K, Ne, Nx) forecast ensembles, if asked for
    smoothed: Tensor | None = None  # (..., K, Nx) means that know later observations too, from a smoother
    smoothed_variance: Tensor | None = None  # (..., K, Nx)
    final: Any = None  # the method's state after the last analysis, to go on from

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
        rows = {
            f.name: value[..., times, :] if f.name != "ensembles" else value[..., times, :, :]
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return CycleResult(**rows, diagnostics={n: v[..., times] for n, v in self.diagnostics.items()})


def cycle(
    method: Filter,
    step: Step,
    observations: Observations,
    start: Tensor | Any,
    *,
    generator: torch.Generator | None = None,
    progress: str = "",
    keep_ensembles: bool = False,
    differentiate: int = 0,
) -> CycleResult:
    """Assimilate all observations in turn: analyse at the first time, then forecast and analyse.

    Parameters
    ----------
    method : the filter with its tuning
    step : one step of the model; also a hybrid or a network, in evaluation mode. Between two observations
        it is taken as many times as their ``times`` are apart
    observations : K times, (..., K, Ny); leading axes are independent experiments
    start : (..., M, Nx), a sample of possible states at the first time, e.g. of the model's climate; or
        the state of the method at that time, for example a forecast from the ``final`` one of another run
    generator : for methods that draw random numbers
    progress : text of a progress bar; silent without
    keep_ensembles : keep the forecast ensembles (for rank histograms; K x Ne x Nx numbers)
    differentiate : number of times through which gradients flow back, to learn what is in the model or
        the method; a longer run is cut into such pieces. Zero keeps no gradients, which is faster

    Raises
    ------
    ValueError
        if the shapes of start, model and observations do not fit each other
    FilterDivergence
        if the filter leaves the finite numbers; ``error.partial`` holds all results before
    """
    if not hasattr(method, "analyse"):
        raise TypeError(f"{type(method).__name__} works on windows: use cycle_windows.")
    if keep_ensembles and (not isinstance(method, EnsembleFilter) or isinstance(method, ParticleFilter)):
        raise TypeError(f"keep_ensembles: {type(method).__name__} has no ensemble of equal members to keep.")
    if differentiate and isinstance(method, VariationalMethod | BlendedEnsemble):
        raise TypeError(f"differentiate: {type(method).__name__} minimises without gradients; use an ensemble filter.")
    rows: list[dict[str, Tensor]] = []
    with guarded(method, rows, len(observations), differentiate):
        state = method.start(for_all(start, observations), generator) if isinstance(start, Tensor) else start
        check_fit(state.E[..., :1, :] if hasattr(state, "E") else state.x.unsqueeze(-2), step, observations)
        for k in trange(len(observations), desc=progress, disable=not progress):
            if differentiate and k and k % differentiate == 0:
                state = detached(state)
            for _ in range(observations.steps_before(k)):
                state = method.forecast(state, step, generator)
            row = dict(zip(("forecast", "forecast_variance"), state.moments(), strict=True))
            if keep_ensembles:
                row["ensembles"] = state.E
            diagnostics = {}
            if (obs := observations[k]) is not None:
                state, diagnostics = method.analyse(state, obs, generator)
            row |= dict(zip(("analysis", "variance"), state.moments(), strict=True)) | diagnostics
            check_finite(row["analysis"])
            rows.append(row)
            if isinstance(method, EnKS):
                for j, E in enumerate((state.E, *state.past)):
                    rows[k - j] |= dict(zip(("smoothed", "smoothed_variance"), Ensemble(E).moments(), strict=True))
                state = method.remember(state)
    return collected(rows, state)


def cycle_windows(
    method: WindowMethod,
    step: Step,
    observations: Observations,
    start: Tensor,
    *,
    generator: torch.Generator | None = None,
    progress: str = "",
) -> CycleResult:
    """Assimilate window by window, for methods that fit a whole trajectory: 4D-Var, 4DEnVar, IEnKS.

    A window reaches ``method.lag`` observation times back from its last one, to the time whose state the
    method corrects, and moves on by ``method.shift`` of them. Each observation is assimilated once, in the
    first window that holds it. ``lag = shift = L`` gives windows side by side (the first begins with the
    first observation); ``lag = 0`` corrects the state at the time of each observation, as a filter does.

    In the result, ``analysis`` is the trajectory of the first window that holds a time, ``smoothed`` that of
    the last one; the diagnostics of a window stand in all its new rows. Arguments and errors as in :func:`cycle`.
    """
    if not hasattr(method, "assimilate"):
        raise TypeError(f"{type(method).__name__} works on one time after the other: use cycle.")
    rows: list[dict[str, Tensor]] = []
    with guarded(method, rows, len(observations)):
        state, first = method.start(for_all(start, observations), generator), 0
        check_fit(state.E[..., :1, :] if hasattr(state, "E") else state.x.unsqueeze(-2), step, observations)
        end = method.shift if method.lag else 0  # of the first window
        ends = range(end, max(end + 1, len(observations) - 1 + method.shift), method.shift)
        for end in tqdm(ends, desc=progress, disable=not progress):
            end = min(end, len(observations) - 1)
            begin = max(0, end - method.lag)
            for _ in range(observations.times[begin] - observations.times[first]):  # to what this window corrects
                state = method.forecast(state, step, generator)
            window = [
                (observations.steps_before(k) if k > begin else 0, observations[k] if k >= len(rows) else None)
                for k in range(begin, end + 1)
            ]
            background, trajectory, diagnostics = method.assimilate(state, step, window, generator)
            if "log_likelihood" in diagnostics:  # of all that is new; each row takes its share
                diagnostics["log_likelihood"] = diagnostics["log_likelihood"] / (end + 1 - len(rows))
            for j, (before, after) in enumerate(zip(background, trajectory, strict=True)):
                mean, variance = after.moments()
                check_finite(mean)
                if begin + j == len(rows):
                    row = dict(zip(("forecast", "forecast_variance"), before.moments(), strict=True))
                    rows.append(row | {"analysis": mean, "variance": variance} | diagnostics)
                rows[begin + j] |= {"smoothed": mean, "smoothed_variance": variance}
            weak = isinstance(method, Var4D) and method.model_error is not None
            state, first = (trajectory[-1], end) if weak else (trajectory[0], begin)
    return collected(rows, trajectory[-1])


@contextmanager
def guarded(method: Any, rows: list, n_times: int, differentiate: int = 0) -> Iterator[None]:
    """One thread, no more gradients than asked for, and a divergence that hands over the rows there are."""
    if differentiate:
        gradients = torch.enable_grad()
    else:  # inference is cheaper, but closed to methods that differentiate inside
        gradients = torch.no_grad() if getattr(method, "linearises", False) else torch.inference_mode()
    try:
        with gradients, one_thread():
            yield
    except (FloatingPointError, torch.linalg.LinAlgError) as error:
        diverged = FilterDivergence(
            f"The filter diverged at time {len(rows)} of {n_times} ({error}). Increase inflation, model_error_std or "
            "size, whichever the method has, or start closer to the truth. `.partial` holds the result so far."
        )
        diverged.partial = collected(rows, None)
        raise diverged from error


def check_finite(mean: Tensor) -> None:
    """Raise FloatingPointError unless the mean (..., Nx) is finite."""
    if not math.isfinite(mean.detach().sum()):
        raise FloatingPointError("the analysis is not finite")


def detached(state: Any) -> Any:
    """The same state, through which no gradient flows back."""
    cut = {}
    for name, value in ((f.name, getattr(state, f.name)) for f in fields(state)):
        if isinstance(value, Tensor):
            cut[name] = value.detach()
        elif isinstance(value, tuple):  # the past of a smoother
            cut[name] = tuple(part.detach() for part in value)
    return replace(state, **cut)


def collected(rows: list[dict[str, Tensor]], final: Any) -> CycleResult | None:
    """The rows of all times as one result, time just before the state's axes; None if there are none."""
    if not rows:
        return None
    states = ("forecast", "forecast_variance", "analysis", "variance", "smoothed", "smoothed_variance", "ensembles")
    names = sorted({n for row in rows for n in row} - {*states})
    nothing = torch.full_like(rows[0]["analysis"][..., 0], math.nan)
    return CycleResult(
        **{n: torch.stack([r[n] for r in rows], -3 if n == "ensembles" else -2) for n in states if n in rows[0]},
        diagnostics={n: torch.stack([r.get(n, nothing).expand_as(nothing) for r in rows], -1) for n in names},
        final=final,
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
    obs = next((seen for k in range(len(observations)) if (seen := observations[k]) is not None), None)
    if obs is None:
        raise ValueError("observations: all values are missing, nothing to assimilate.")
    if x.dtype != obs.y.dtype:
        raise ValueError(
            f"start is {x.dtype} but the observations are {obs.y.dtype}: convert one with .to(torch.float64)."
        )
    if not torch.isfinite(x).all():
        raise ValueError("start: the ensemble contains NaN or infinite values.")
    for name, network in (("step", step), ("H", obs.H)):
        if isinstance(network, torch.nn.Module) and network.training:
            raise ValueError(f"{name} is a network in training mode: call {name}.eval() first.")
    if (next_x := step(x)).dtype != x.dtype:
        raise ValueError(f"step maps {x.dtype} to {next_x.dtype}: expected the dtype of the state.")
    if next_x.shape != x.shape:
        raise ValueError(
            f"step maps a state of shape {tuple(x.shape)} to {tuple(next_x.shape)}: expected the same shape."
        )
    try:
        seen = obs.H(x)
    except RuntimeError as error:
        raise ValueError(
            f"H cannot take a state of {x.dtype} and shape {tuple(x.shape)} ({error}): a float32 network must convert "
            "what it takes and gives."
        ) from error
    if seen.dtype != x.dtype:
        raise ValueError(f"H maps {x.dtype} to {seen.dtype}: expected the dtype of the state; convert in H.")
    if seen.shape[-1] != obs.y.shape[-1]:
        raise ValueError(
            f"H of a state with {x.shape[-1]} points gives {seen.shape[-1]} values, but {obs.y.shape[-1]} "
            "are observed: state and observations belong to grids or networks of different size."
        )
