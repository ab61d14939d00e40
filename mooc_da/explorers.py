"""What the live explorers of model and filter compute and draw: settings in, a :class:`View` out.

Every function is pure: the same settings give the same picture, and ``draw`` numbers the random world (truth,
noise, first weights) in which they are tried, so that a change of the picture is an effect of the setting.
All numbers not set here are those of ``Experiment()``.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from . import plots, stages
from .config import Experiment, seeded
from .cycle import CycleResult, cycle
from .filters import ETKF, EnKF, FilterDivergence
from .finite_size import EnKFN
from .models import CubicLorenz96, Step, one_thread, spin_up, trajectory
from .observations import Observations, every, observe
from .scores import rank_histogram, rmse, skill_horizon

CFG = Experiment()
NATURE, PHYSICAL = stages.true_model(CFG), stages.physical_model(CFG)
FILTERS = {"ETKF": ETKF, "EnKF": EnKF, "EnKF-N": EnKFN}
N_CYCLES, N_UNSCORED = 200, 60  # of the filters: 10 MTU, of which the first 3 are left to forget the start
N_RUNS, N_FORGET, N_SEEN = 16, 300, 400  # of the model: runs, steps to the attractor, steps to be seen
N_TWINS, N_GROWTH = 50, 300  # twin runs, steps they take


class View(NamedTuple):
    """A picture and what it shows in words."""

    figure: Figure
    alt: str  # what is seen, for those who do not see it
    numbers: str  # the result in one line


def panels(*boxes: tuple[float, float, float, float]) -> tuple[Figure, list[Axes]]:
    """A figure outside of pyplot, with axes at fixed places (left, bottom, width, height): quick to draw."""
    figure = Figure(figsize=(9.6, 4.7))
    FigureCanvasAgg(figure)
    return figure, [figure.add_axes(box) for box in boxes]


# The filter


@functools.lru_cache(maxsize=8)
def world(draw: int) -> tuple[Tensor, Tensor]:
    """A truth (K, Nx) and a sample of states around a guess of it (80, Nx): both off by one unit at every point."""
    start = spin_up(NATURE, generator=seeded(CFG.seed + draw, "explorer: truth"), n_steps=N_FORGET)
    truth = trajectory(NATURE, start, N_CYCLES - 1)
    errors = torch.randn(81, CFG.n_sites, dtype=truth.dtype, generator=seeded(CFG.seed + draw, "explorer: guess"))
    return truth, truth[0] + errors[0] + errors[1:]


def between(error: float) -> CubicLorenz96:
    """A model that has ``error`` times the error of the physical one; 0 is the true model, 1 the physical one."""
    return CubicLorenz96(
        forcing=CFG.true_forcing + error * (CFG.forcing - CFG.true_forcing),
        cubic=(1 - error) * CFG.true_cubic,
        friction=CFG.true_friction + error * (1 - CFG.true_friction),
        dt=CFG.dt,
    )


def filtered(
    method: str, size: int, inflation: float, variance: float, obs_std: float, stride: int, error: float, draw: int
) -> tuple[Observations, CycleResult, str]:
    """Observations, the filter's result, and in words where it broke down, if it did; see :func:`filter_cockpit`."""
    truth, sample = world(draw)
    seen = observe(
        truth, lambda k: every(stride, k % stride)(k), obs_std, generator=seeded(CFG.seed + draw, "explorer: noise")
    )
    tuned = FILTERS[method](size=size, inflation=inflation, model_error_std=CFG.error_std(variance))
    try:
        generator = seeded(CFG.seed + draw, "explorer: filter")
        return seen, cycle(tuned, between(error), seen, sample, keep_ensembles=True, generator=generator), ""
    except FilterDivergence as divergence:
        if divergence.partial is None:
            raise
        end = len(divergence.partial) * CFG.dt
        return seen, divergence.partial, f"The filter broke down after {end:.1f} MTU: no finite numbers any more. "


def filter_cockpit(
    method: str, size: int, inflation: float, variance: float, obs_std: float, stride: int, error: float, draw: int
) -> View:
    """A filter over 200 times: one point, error against spread, rank histogram.

    Parameters
    ----------
    method : a key of FILTERS
    size, inflation : members, factor of the anomalies
    variance : sigma_q^2 / dt that the filter supposes
    obs_std : of the observations
    stride : one of so many points is observed at each time, each in turn
    error : of the model, see :func:`between`

    Raises
    ------
    FilterDivergence
        if the filter leaves the finite numbers at once; later, what there is until then is drawn
    """
    truth, _ = world(draw)
    seen, result, lost = filtered(method, size, inflation, variance, obs_std, stride, error, draw)
    K = len(result)
    errors, scored = rmse(result.analysis, truth[:K]), slice(min(N_UNSCORED, K // 2), K)
    score, spread = float(errors[scored].mean()), float(result.spread[scored].mean())
    counts = rank_histogram(result.ensembles[scored], truth[scored])
    outside, expected = float(counts[0] + counts[-1]), 2 / (size + 1)

    above, left, right = (0.075, 0.66, 0.91, 0.27), (0.075, 0.125, 0.51, 0.38), (0.665, 0.125, 0.32, 0.38)
    figure, (point, time, ranks) = panels(above, left, right)
    times = torch.arange(K) * CFG.dt
    point.plot(times, truth[:K, 0], **plots.style("truth"))
    point.plot(times[::stride], seen.y[:K:stride, 0], markersize=5, **plots.style("observations"))
    point.plot(times, result.analysis[:, 0], **plots.style("analysis"))
    told = "it broke down" if lost else verdict(score, spread)
    point.set(xlim=(0, N_CYCLES * CFG.dt), ylim=(-11, 16), ylabel="$x_0$",
              title=f"{method}: error {score:.2f}, spread {spread:.2f}: {told}")  # fmt: skip
    point.legend(loc="lower right", ncols=3, bbox_to_anchor=(1.0, 0.98), borderaxespad=0, handlelength=1.6)
    time.plot(times, errors, **plots.style("analysis", "RMSE"))
    time.plot(times, result.spread, **plots.style("spread"))
    time.axhline(obs_std, color="0.35", linewidth=1, linestyle=":", label="error of the observations")
    time.axvspan(0, scored.start * CFG.dt, color="0.93", zorder=0)
    time.set(xlim=(0, N_CYCLES * CFG.dt), ylim=(0.02, 12), xlabel="time (MTU); grey: not scored")
    time.set_yscale("log", subs=())  # minor ticks take as long to draw as all the rest
    time.set_title("Error of the analysis, and what the filter thinks of it")
    time.legend(loc="upper right", ncols=3, fontsize=9.5, handlelength=1.6, columnspacing=1.0, borderaxespad=0)
    n = size + 1
    ranks.stairs(counts * n, range(n + 1), fill=True, color=plots.STYLE["spread"]["color"])
    ranks.axhline(1.0, **plots.style("truth", "reliable"))
    ranks.set(xlim=(0, n), ylim=(0, max(2.5, 1.05 * n * float(counts.max()))), xlabel="members below the truth")
    ranks.set_title(f"Truth outside: {outside:.0%}, reliable {expected:.0%}")
    ranks.legend(loc="upper center", fontsize=9.5)
    alt = (
        f"{method} with {size} members over {K * CFG.dt:.0f} MTU. {lost}The analysis RMSE is {score:.2f} and "
        f"the spread {spread:.2f}: {told}. The truth is outside of all members in {outside:.0%} of the cases, against "
        f"{expected:.0%} for a reliable ensemble. The errors of the observations are {obs_std:g}."
    )
    numbers = (
        f"{lost}RMSE {score:.3f}, spread {spread:.3f} ({told}); outside of all members {outside:.0%} "
        f"(reliable {expected:.0%}); {len(result.analysis[0]) // stride} observations at each time. One run."
    )
    return View(figure, alt, numbers)


def verdict(error: float, spread: float) -> str:
    """What a mean error and a mean spread say about a filter."""
    if not math.isfinite(error) or error > 2.5 or (error > 1 and spread < 0.5 * error):
        return "it has lost the truth"
    if error > 1.2 * spread:
        return "too sure of itself"
    return "too careful" if spread > 1.2 * error else "it knows its error"


# The model


@torch.inference_mode()
def runs_and_growth(step: Step, x: Tensor, n_steps: int, n_discarded: int = 100) -> tuple[Tensor, Tensor]:
    """Runs from x (..., Nx), as (..., n_steps + 1, Nx), and the rate per MTU at which a small error grows in each.

    The rate comes from a second run beside each, brought back to a tiny distance after every step, and leaves out the
    first ``n_discarded`` steps: cheaper and less exact than :func:`mooc_da.lyapunov_exponents`.
    """
    size, total, states = 1e-7, 0.0, [x]
    e = torch.randn(x.shape, dtype=x.dtype, generator=seeded(CFG.seed, "explorer: direction"))
    e = size * e / e.norm(dim=-1, keepdim=True)
    for k in range(n_steps):
        x, other = step(torch.stack((x, x + e))).unbind(0)
        states.append(x)
        e = other - x
        factor = e.norm(dim=-1, keepdim=True) / size
        e = e / factor
        if k >= n_discarded:
            total = total + factor.log()
    return torch.stack(states, -2), total.squeeze(-1) / ((n_steps - n_discarded) * CFG.dt)


@one_thread()
def model_explorer(forcing: float, cubic: float, friction: float, draw: int) -> View:
    """States of the true model's equation for any of its parameters, and how fast its errors grow."""
    model = CubicLorenz96(forcing=forcing, cubic=cubic, friction=friction, dt=CFG.dt)
    x = model.random_state((N_RUNS,), CFG.n_sites, generator=seeded(CFG.seed + draw, "explorer: states"))
    with torch.inference_mode():
        before = [x]
        for _ in range(N_FORGET):
            before.append(model(before[-1]))
    after, rates = runs_and_growth(model, before.pop(), N_SEEN)
    states = torch.cat((torch.stack(before, 1), after), 1)  # (runs, times, points)
    finite = torch.isfinite(states).all(-1)
    figure, (picture, bar) = panels((0.07, 0.14, 0.8, 0.73), (0.89, 0.14, 0.02, 0.73))
    told = f"F = {forcing:g}, ν = {cubic:g}, λ = {friction:g}"
    if finite.all():
        seen, first = after[0], 0
        rate, uncertainty = float(rates.mean()), float(rates.std()) / N_RUNS**0.5
        kind = regime(rate, uncertainty, float(after.std(1).mean()))
        estimate = f"{rate:.2f} ± {uncertainty:.2f} per MTU"
        title = f"{told}: largest Lyapunov exponent about {estimate}"
        alt = f"Values around the ring over {N_SEEN * CFG.dt:.0f} MTU with {told}: {kind}. Errors grow at {estimate}."
        mean, std = float(after.mean()), float(after.std())
        numbers = (
            f"Largest Lyapunov exponent {estimate}: an estimate over {N_RUNS} runs of "
            f"{(N_SEEN - 100) * CFG.dt:.0f} MTU, ± its standard error; {kind}. Mean {mean:.2f}, "
            f"standard deviation {std:.2f}."
        )
    else:
        ends = finite.long().argmin(-1) + finite.all(-1) * (len(states[0]) + 1)
        run, end = int(ends.argmin()), int(ends.min())
        first = max(0, end - N_SEEN)
        seen = states[run, first : max(end, 2)]
        title = f"{told}: blows up after {end * CFG.dt:.1f} MTU"
        alt = numbers = (
            f"With {told} the model blows up: {int((~finite.all(-1)).sum())} of {N_RUNS} runs leave the finite numbers "
            f"within {(N_FORGET + N_SEEN) * CFG.dt:.0f} MTU, the first after {end * CFG.dt:.1f} MTU. It has no climate "
            "and no Lyapunov exponent. The cubic term does not conserve the energy: try a smaller ν or more friction."
        )
    extent = (first * CFG.dt, (first + len(seen)) * CFG.dt, 0, CFG.n_sites)
    image = picture.imshow(seen.mT.numpy(), aspect="auto", origin="lower", extent=extent, vmin=2.3 - 10, vmax=2.3 + 10,
                           cmap="RdBu_r", interpolation="nearest")  # fmt: skip
    figure.colorbar(image, cax=bar, label="$x_n$")
    picture.set(xlabel="time (MTU)", ylabel="point $n$", title=title)
    return View(figure, alt, numbers)


def regime(rate: float, uncertainty: float, variation: float) -> str:
    """What a largest exponent with its standard error and a standard deviation in time say about a model."""
    if variation < 1e-3:
        return "it comes to rest, and every error dies"
    if rate > max(3 * uncertainty, 0.05):
        return f"it is chaotic, and a small error doubles in {math.log(2) / rate:.2f} MTU"
    return "it moves, but shows no clear sign of chaos: waves that repeat, or nearly so"


@functools.lru_cache(maxsize=4)
def twins(draw: int) -> tuple[Tensor, float]:
    """True runs (runs, times, points) and the rate at which their errors grow, per MTU."""
    starts = spin_up(NATURE, (N_TWINS,), generator=seeded(CFG.seed + draw, "explorer: twins"), n_steps=N_FORGET)
    runs, rates = runs_and_growth(NATURE, starts, N_GROWTH)
    return runs, float(rates.mean())


@one_thread()
def error_growth_explorer(size: float, model: str, draw: int) -> View:
    """How an error of the start grows from run to run and on average, with the true or the physical model.

    Parameters
    ----------
    size : standard deviation of the error at every point
    model : "true" or "physical"
    """
    runs, rate = twins(draw)
    std = float(runs.std())
    noise = torch.randn(runs[:, 0].shape, dtype=runs.dtype, generator=seeded(CFG.seed + draw, "explorer: errors"))
    steps = {"perfect": NATURE} | ({"physical": PHYSICAL} if model == "physical" else {})
    errors = {
        name: rmse(trajectory(step, runs[:, 0] + size * noise, N_GROWTH), runs) for name, step in steps.items()
    }  # each (runs, times)
    typical = {name: values.log().mean(0).exp() for name, values in errors.items()}
    horizons = {name: float(skill_horizon(values, std / 2, CFG.dt)) for name, values in typical.items()}
    shown = list(steps)[-1]

    figure, (ax,) = panels((0.09, 0.14, 0.89, 0.76))
    leads = torch.arange(N_GROWTH + 1) * CFG.dt
    ax.plot(leads, errors[shown][:12].T, color="0.72", linewidth=0.8)
    labels = {"perfect": "true model, wrong start", "physical": "physical model, wrong start"}
    colours = {
        "perfect": plots.style("analysis", labels["perfect"]),
        "physical": plots.style("physical", labels["physical"]),
    }
    for name, values in typical.items():
        ax.plot(leads, values, **colours[name])
    ax.plot(
        leads, size * (rate * leads).exp(), **plots.style("perfect", rf"$e^{{\lambda_1 t}}$, $\lambda_1$ = {rate:.2f}")
    )
    for level, text, above in (
        (2**0.5 * std, r"two states at random: $\sqrt{2}\,\times$ std", 10),
        (std / 2, "half the std", -13),
    ):
        ax.axhline(level, color="0.6", linewidth=1, zorder=0)
        ax.annotate(text, (1.0, level), (-2, above), xycoords=("axes fraction", "data"), textcoords="offset points",
                    fontsize=10.5, color="0.35", ha="right")  # fmt: skip
    useful = f"useful for {horizons[shown]:.1f} MTU"
    ax.set(xlim=(0, N_GROWTH * CFG.dt), ylim=(min(size / 3, 0.01), 30), xlabel="time (MTU)", ylabel="RMSE of a run")
    ax.set_yscale("log", subs=())
    ax.set_title(f"Start wrong by {size:g}, {model} model: {useful}")
    ax.legend(loc="lower right", title="thin: single runs; thick: typical (geometric mean)", title_fontsize=10)
    final = float(errors[shown][:, -1].square().mean().sqrt()) / (2**0.5 * std)
    lead = ", ".join(f"{labels[name]}: {horizons[name]:.2f} MTU" for name in steps)
    numbers = (
        f"Time until the typical error passes half the standard deviation ({std / 2:.2f}): {lead}. "
        f"λ₁ ≈ {rate:.2f} per MTU: ten times in {math.log(10) / rate:.2f} MTU. "
        f"At the end the error is {final:.2f} of √2 × std."
    )
    alt = (
        f"Errors of {N_TWINS} runs over {N_GROWTH * CFG.dt:.0f} MTU on a logarithmic scale, from {size:g}, "
        f"{model} model. " + numbers
    )
    return View(figure, alt, numbers)
