"""What the live explorers of learning and hybrid compute and draw; as in :mod:`mooc_da.explorers`."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from . import plots, stages
from .config import seeded
from .cycle import cycle
from .explorers import CFG, N_FORGET, N_UNSCORED, NATURE, PHYSICAL, View, panels
from .learning import fit
from .models import Step, one_thread, repeated, spin_up, trajectory
from .networks import CorrectionCNN, CubicRidge, HybridModel
from .observations import Observations, checkerboard, observe
from .scores import forecast_errors, rmse

N_UPDATES, BATCH = 400, 32  # gradient steps of the little network, states in each
N_LEARN, N_CHECK, N_TEST = 1000, 100, 300  # states to learn from, to validate, to test
N_STARTS, N_LEAD = 60, 80  # forecasts, and steps of the longest
N_CYCLES = 160  # of three filters: 8 MTU, of which the first 3 are left to forget the start


@functools.lru_cache(maxsize=4)
def examples(draw: int) -> tuple[Tensor, Tensor]:
    """States of the true model, an MTU apart or in other runs, and the error of the physical model's step there."""
    starts = spin_up(NATURE, (70,), generator=seeded(CFG.seed + draw, "explorer: examples"), n_steps=N_FORGET)
    states = trajectory(repeated(NATURE, 20), starts, 20)[:, :20].flatten(0, 1)  # (1400, points)
    return states, NATURE(states) - PHYSICAL(states)


@one_thread()
def training_explorer(noise: float, amount: int, width: int, draw: int) -> View:
    """A little network trained on the spot: its learning curve, and what it says of errors it has not seen.

    Parameters
    ----------
    noise : standard deviation of what is added to the true errors of the model to make targets
    amount : states to learn from
    width : channels of the only hidden layer
    """
    states, errors = examples(draw)
    drawn = torch.randn(errors.shape, dtype=errors.dtype, generator=seeded(CFG.seed + draw, "explorer: targets"))
    targets = errors + noise * drawn
    training, validation = (states[:amount], targets[:amount]), tuple(v[N_LEARN:][:N_CHECK] for v in (states, targets))
    fresh, wanted = (v[-N_TEST:] for v in (states, errors))
    network = CorrectionCNN((), (width,), (7, 1), generators=[seeded(CFG.seed + draw, "explorer: weights")])
    epochs = math.ceil(N_UPDATES / math.ceil(amount / BATCH))
    history = fit(network, training, validation, epochs=epochs, batch_size=BATCH, learning_rate=2e-2,
                  generator=seeded(CFG.seed + draw, "explorer: batches"))  # fmt: skip
    with torch.no_grad():
        prediction = network(fresh)
    before, after = (float(e.square().mean().sqrt()) for e in (wanted, prediction - wanted))
    ridge = float((CubicRidge(*training, ridge=CFG.ridge)(fresh) - wanted).square().mean().sqrt())
    slope = float((prediction * wanted).sum() / wanted.square().sum())
    unit = float(network.y_std**2)
    floor = noise**2 / unit
    last, best = float(history.training[-1]), float(history.best_validation)

    figure, (curve, cloud) = panels((0.075, 0.14, 0.49, 0.76), (0.66, 0.14, 0.32, 0.76))
    curves = {"training": history.training[:, None], "validation": history.validation[:, None]}
    plots.learning_curves(
        curves, ax=curve, floor=floor, title=f"{amount} states, noise {noise:g}: validation {best:.2f}"
    )
    curve.set(ylim=(0, 1.6))
    curve.legend(loc="upper right", ncols=3, fontsize=9.5, handlelength=1.8, columnspacing=1.0, borderaxespad=0)
    plots.joint_density(wanted, prediction, ax=cloud, limit=0.6, slope=slope, xlabel="true error of the model",
                        ylabel="network", title=f"Error {before:.3f} to {after:.3f}")  # fmt: skip
    numbers = (
        f"Loss at the end {last:.2f} (training), best {best:.2f} (validation); the noise alone makes {floor:.2f}. "
        f"RMSE against the true error: {after:.3f} (no correction {before:.3f}, cubic ridge {ridge:.3f}). "
        f"{epochs} epochs, {sum(p.numel() for p in network.parameters())} parameters."
    )
    alt = (
        f"Left, training and validation loss over {epochs} epochs; right, the network's prediction against the true "
        f"error of the model, a cloud about a line of slope {slope:.2f}. {numbers}"
    )
    return View(figure, alt, numbers)


def model_named(name: str, loop_pass: int, draw: int) -> Step:
    """The physical model, or a hybrid with one of the five trained networks, another for every draw."""
    if name == "physical":
        return PHYSICAL
    network = stages.correction(CFG, "truth") if "truth" in name else stages.correction(CFG, n_passes=loop_pass)
    number = draw % CFG.n_seeds
    return HybridModel(PHYSICAL, network.select(slice(number, number + 1)).eval().requires_grad_(False))


@functools.lru_cache(maxsize=4)
def true_forecasts(draw: int) -> Tensor:
    """True runs to forecast, (1, N_STARTS, N_LEAD + 1, Nx); the leading axis is that of the network."""
    starts = spin_up(NATURE, (1, N_STARTS), generator=seeded(CFG.seed + draw, "explorer: forecasts"), n_steps=N_FORGET)
    return trajectory(NATURE, starts, N_LEAD)


@functools.lru_cache(maxsize=128)
def leads(name: str, loop_pass: int, start_error: float, draw: int) -> Tensor:
    """Forecast RMSE of a model by lead, (N_LEAD + 1,), from starts with an error of that size."""
    runs = true_forecasts(draw)
    noise = torch.randn(runs[..., 0, :].shape, dtype=runs.dtype, generator=seeded(CFG.seed + draw, "explorer: starts"))
    starts = runs[..., 0, :] + start_error * noise
    return forecast_errors(model_named(name, loop_pass, draw), runs, starts=starts)[0]


@functools.lru_cache(maxsize=4)
def filter_task(draw: int) -> tuple[Tensor, Observations, Tensor]:
    """Truth (1, N_CYCLES, Nx), its observations, and an ensemble to start from, (1, n_members, Nx)."""
    truth = spin_up(NATURE, (1,), generator=seeded(CFG.seed + draw, "explorer: filter truth"), n_steps=N_FORGET)
    truth = trajectory(NATURE, truth, N_CYCLES - 1)
    seen = observe(truth, checkerboard, CFG.obs_std, generator=seeded(CFG.seed + draw, "explorer: filter noise"))
    errors = torch.randn(1, CFG.n_members + 1, CFG.n_sites, dtype=truth.dtype,
                         generator=seeded(CFG.seed + draw, "explorer: filter guess"))  # fmt: skip
    return truth, seen, truth[:, :1] + errors[:, :1] + errors[:, 1:]


@functools.lru_cache(maxsize=128)
def in_filter(name: str, loop_pass: int, variance: float, draw: int) -> tuple[float, float]:
    """Analysis RMSE and spread of a model in the filter of the course, from the same observations for each."""
    truth, seen, start = filter_task(draw)
    result = cycle(stages.enkf(CFG, variance), model_named(name, loop_pass, draw), seen, start)[N_UNSCORED:]
    return float(rmse(result.analysis, truth[:, N_UNSCORED:]).mean()), float(result.spread.mean())


@one_thread()
def hybrid_explorer(lead: float, start_error: float, variance: float, loop_pass: int, draw: int) -> View:
    """Physical model and hybrids: forecast error at a lead, analysis error and spread in the filter.

    Parameters
    ----------
    lead : MTU, a multiple of the step
    start_error : standard deviation of the error of the starts
    variance : sigma_q^2 / dt that the filter supposes
    loop_pass : of the hybrid's network; 1 learnt from the analysis with the physical model, 2 to 8 from its own
    """
    passes = {"physical": 0, "hybrid": loop_pass, "hybrid from truth": 0}  # what does not depend on it is kept
    errors = {name: leads(name, n, start_error, draw) for name, n in passes.items()}
    scores = {name: in_filter(name, n, variance, draw) for name, n in passes.items()}
    k = round(lead / CFG.dt)
    figure, (forecasts, bars) = panels((0.06, 0.14, 0.46, 0.76), (0.665, 0.14, 0.315, 0.76))
    for name, values in errors.items():
        forecasts.plot(torch.arange(N_LEAD + 1) * CFG.dt, values, **plots.style(name))
        forecasts.plot(lead, values[k], "o", color=plots.STYLE[name]["color"], markersize=8)
    forecasts.axvline(lead, color="0.6", linewidth=1, zorder=0)
    forecasts.set(xlim=(0, N_LEAD * CFG.dt), ylim=(0, None), xlabel="lead (MTU)", ylabel="RMSE")
    forecasts.set_title(f"Forecast at {lead:g} MTU: {errors['physical'][k]:.2f} to {errors['hybrid'][k]:.2f}")
    forecasts.legend(loc="lower right")
    for place, (name, (error, spread)) in enumerate(scores.items()):
        bars.barh(place, error, height=0.5, color=plots.STYLE[name]["color"])
        bars.plot([spread, spread], [place - 0.3, place + 0.3], color="black", linewidth=3,
                  label="" if place else "spread")  # fmt: skip
        bars.annotate(f"RMSE {error:.2f}, spread {spread:.2f}", (0, place + 0.32), (3, -2), textcoords="offset points",
                      va="top", fontsize=10.5)  # fmt: skip
    bars.set_yticks(range(len(scores)), ["physical", f"hybrid,\npass {loop_pass}", "hybrid\nfrom truth"])
    bars.set(
        xlim=(0, max(0.4, 1.1 * max(max(v) for v in scores.values()))),
        ylim=(2.9, -0.5),
        xlabel="analysis RMSE (bars), spread (black)",
    )
    bars.set_title(rf"In the filter, $\sigma_q^2$/dt = {variance:g}")
    numbers = "; ".join(
        f"{name}: forecast RMSE {errors[name][k]:.2f}, analysis RMSE {error:.3f}, spread {spread:.3f}"
        for name, (error, spread) in scores.items()
    )
    settings = (
        f"{N_STARTS} forecasts of {lead:g} MTU from starts wrong by {start_error:g}, "
        f"filter with σ_q²/dt = {variance:g}, hybrid of pass {loop_pass}"
    )
    alt = f"Left, forecast error by lead for three models; right, the errors of their analyses. {settings}. {numbers}."
    return View(figure, alt, f"{settings}, one run of {N_CYCLES * CFG.dt:g} MTU. {numbers}.")
