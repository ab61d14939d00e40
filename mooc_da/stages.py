"""The stages of the story, each recomputed when asked for or taken from a cache.

    truth -> observations -> analysis -> correction        (and the independent data that test them)

Every stage is a function of the :class:`~mooc_da.Experiment` alone, so that each notebook runs on its
own. Results hold all experiments (seeds) of the configuration along their first axis; experiment s
is the same whether it is computed alone or with others (but the loop goes on as long as any of them gets better).

What takes longer than a second is kept; :mod:`mooc_da.cache` says where.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from . import cache
from .cache import cached
from .config import Experiment, seeded
from .cycle import CycleResult, cycle
from .finite_size import EnKFN
from .learning import Pairs, fit, split_in_time, training_pairs
from .loop import PASSES, close_the_loop
from .models import CubicLorenz96, Lorenz96, Step, spin_up, trajectory
from .networks import CorrectionCNN, HybridModel
from .observations import Observations, checkerboard, observe


def true_model(cfg: Experiment) -> CubicLorenz96:
    """The model nature runs, unknown to everything but the truth and the scores."""
    return CubicLorenz96(forcing=cfg.true_forcing, dt=cfg.dt, cubic=cfg.true_cubic, friction=cfg.true_friction)


def physical_model(cfg: Experiment) -> Lorenz96:
    """The wrong model we have."""
    return Lorenz96(forcing=cfg.forcing, dt=cfg.dt)


def sample(cfg: Experiment, model, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Independent states on the attractor of a model, drawn for every experiment on its own: (n_seeds, *shape, Nx)."""
    states = [
        model.random_state(shape, cfg.n_sites, generator=seeded(cfg.seed + s, stream)) for s in range(cfg.n_seeds)
    ]
    return spin_up(model, states=torch.stack(states))


def truth(cfg: Experiment) -> Tensor:
    """What nature did: (n_seeds, n_truth, Nx), row k at time k; starts on the attractor of the true model."""
    model = true_model(cfg)

    def compute() -> dict:
        with torch.no_grad():
            return {"truth": trajectory(model, sample(cfg, model, "truth"), cfg.n_truth - 1)}

    return cached("truth", cfg, compute)["truth"]


def observations(cfg: Experiment) -> Observations:
    """What is seen of it: half of the points at each time, in turn (checkerboard), with noise."""

    def compute() -> dict:
        streams = [seeded(cfg.seed + s, "observations") for s in range(cfg.n_seeds)]
        single = [observe(x, checkerboard, cfg.obs_std, generator=g) for x, g in zip(truth(cfg), streams, strict=True)]
        return {"y": torch.stack([o.y for o in single]), "R": single[0].R}

    return Observations(network=checkerboard, **cached("observations", cfg, compute))


def enkf(cfg: Experiment, variance: float | Tensor) -> EnKFN:
    """The filter of the course with model error of ``sigma_q^2 = variance * dt``; a tensor tries several.

    Zero says that the model is perfect; then there is nothing for the adaptive inflation to find.
    """
    adaptive = torch.is_tensor(variance) or variance > 0
    return EnKFN(size=cfg.n_members, model_error_std=cfg.error_std(variance), adaptive=adaptive)


def climatological_ensemble(cfg: Experiment) -> Tensor:
    """The filter's start, (n_seeds, n_members, Nx): before it has seen anything it knows the climate of its model."""
    return sample(cfg, physical_model(cfg), "ensemble", (cfg.n_members,))


def assimilate(
    cfg: Experiment,
    step: Step,
    variance: float,
    *,
    times: slice | None = None,
    device: str = "cpu",
    progress: str = "",
) -> CycleResult:
    """The filter of the course with any model over some of the times: the first ``n_assimilated`` by default."""
    seen = observations(cfg)[times or slice(0, cfg.n_assimilated)].to(device)
    return cycle(enkf(cfg, variance), step, seen, climatological_ensemble(cfg).to(device), progress=progress)


def tune_model_error(
    cfg: Experiment,
    step: Step,
    variances: Sequence[float],
    *,
    n_times: int = 600,
    n_seeds: int = 2,
    device: str = "cpu",
) -> tuple[float, Tensor]:
    """Choose ``sigma_q^2 / dt`` by the likelihood of the observations alone: the truth is not asked.

    All candidates run in one batch over the last ``n_times`` of the assimilated observations.

    Returns
    -------
    The best candidate and the mean log-likelihood per observation time, (n_seeds, n_candidates).
    """
    few = replace(cfg, n_seeds=min(n_seeds, cfg.n_seeds))
    seen = observations(cfg)[cfg.n_assimilated - n_times : cfg.n_assimilated].to(device)
    seen = replace(seen, y=seen.y[: few.n_seeds, None])  # (n_seeds, 1, K, Ny)
    start = climatological_ensemble(few).to(device).unsqueeze(1)  # the filter repeats it for every candidate
    filter_ = enkf(cfg, torch.tensor(list(variances), dtype=torch.float64, device=device))
    result = cycle(filter_, step, seen, start)
    likelihood = result.diagnostics["log_likelihood"][..., n_times // 3 :].mean(-1)
    return variances[int(likelihood.mean(0).argmax())], likelihood


def analysis(cfg: Experiment, *, device: str = "cpu", progress: str = "") -> CycleResult:
    """EnKF with the wrong model over the first ``n_assimilated`` times, burn-in included."""

    def compute() -> dict:
        result = assimilate(cfg, physical_model(cfg), cfg.model_error_variance, device=device, progress=progress)
        return {name: value for name, value in vars(result).items() if name != "final" and value is not None}

    return CycleResult(**cached("analysis", cfg, compute, device))


def test_times(cfg: Experiment) -> slice:
    """The last times of the truth, which nothing is learnt or tuned on, with a burn-in for a filter before them."""
    return slice(cfg.n_truth - cfg.n_test - cfg.test_burn_in, cfg.n_truth)


def test_truth(cfg: Experiment) -> Tensor:
    """The truth of the test times without their burn-in: (n_seeds, n_test, Nx)."""
    return truth(cfg)[:, -cfg.n_test :]


def forecast_truth(cfg: Experiment) -> Tensor:
    """Independent true runs to score forecasts on: (n_starts, n_forecast + 1, Nx), the same for every experiment."""
    model = true_model(cfg)
    starts = model.random_state((cfg.n_starts,), cfg.n_sites, generator=seeded(cfg.seed, "forecasts"))
    with torch.no_grad():
        return trajectory(model, spin_up(model, states=starts), cfg.n_forecast)


def pairs(cfg: Experiment, source: str = "analysis", *, device: str = "cpu") -> tuple[Pairs, Pairs]:
    """Training and validation pairs from the ``"analysis"`` or, as a ceiling, from the ``"truth"`` of its times."""
    if source not in ("analysis", "truth"):
        raise ValueError(f"source = {source!r}: expected 'analysis' or 'truth'.")
    return pairs_of(cfg, analysis(cfg, device=device).analysis if source == "analysis" else truth(cfg).to(device))


def pairs_of(cfg: Experiment, states: Tensor) -> tuple[Pairs, Pairs]:
    """Training and validation pairs from states at the assimilated times, (..., n_assimilated or more, Nx)."""
    used = states[..., cfg.burn_in : cfg.n_assimilated, :]
    return split_in_time(training_pairs(used, physical_model(cfg)), cfg.validation_fraction, cfg.gap)


def untrained(cfg: Experiment, stream: str = "weights") -> CorrectionCNN:
    """One network per experiment, with its first weights."""
    generators = [seeded(cfg.seed + s, stream) for s in range(cfg.n_seeds)]
    return CorrectionCNN((cfg.n_seeds,), cfg.channels, cfg.widths, generators=generators)


def correction(
    cfg: Experiment, source: str = "analysis", *, n_passes: int = 1, device: str = "cpu", progress: str = ""
) -> CorrectionCNN:
    """One trained network per experiment; see :func:`pairs` for the source. Shipped for the default experiment.

    With ``n_passes`` above one, as :func:`loop` leaves it after it has learnt from that many analyses.
    """
    network = untrained(cfg).to(device)

    def compute() -> dict:
        train(cfg, network, *pairs(cfg, source, device=device), progress=progress)
        return copied(network)

    last = len(PASSES) + 1 if source == "analysis" else 1
    if not 1 <= n_passes <= last:
        raise ValueError(f"n_passes = {n_passes}: expected 1 to {last} where the source is the {source}.")
    if n_passes == 1:
        weights = cached(f"correction-{source}", cfg, compute, device)
    else:
        ended = loop(cfg, device=device, progress=progress)
        if n_passes > len(ended.likelihood):
            raise ValueError(f"n_passes = {n_passes}: the loop stopped after {len(ended.likelihood)}.")
        weights = {name: values[n_passes - 1] for name, values in ended.weights.items()}
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def copied(network: CorrectionCNN) -> dict[str, Tensor]:
    """The weights of a network by name, which further training does not change."""
    return {name: value.clone() for name, value in network.state_dict().items()}


class Loop(NamedTuple):
    """What :func:`loop` leaves of its P passes for the S experiments; row p has learnt from p + 1 analyses."""

    weights: dict[str, Tensor]  # of the networks by name, each (P, S, ...)
    model_error_std: Tensor  # (P, S) the sigma_q chosen for its hybrid, per step
    inflation: Tensor  # (P, S)
    likelihood: Tensor  # (P, S) log-likelihood of a held-out observation time

    def best(self) -> Tensor:
        """(S,) the pass under which the held-out observations are likeliest."""
        return self.likelihood.argmax(0)


def loop(cfg: Experiment, *, device: str = "cpu", progress: str = "") -> Loop:
    """The networks of all passes through :func:`mooc_da.close_the_loop`, from :func:`correction` on; shipped too."""
    physical = physical_model(cfg)

    def compute() -> dict:
        network = correction(cfg, device=device)
        seen = observations(cfg)[: cfg.n_assimilated].to(device)
        start = climatological_ensemble(cfg).to(device)
        rows = [
            copied(network)
            | {"model_error_std": done.tuning.model_error_std, "inflation": done.tuning.inflation}
            | {"likelihood": done.likelihood}
            for done in close_the_loop(
                network,
                partial(HybridModel, physical),
                seen,
                start,
                PASSES,
                generator=seeded(cfg.seed, "loop"),
                progress=progress,
            )
        ]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    values = dict(cached("loop", cfg, compute, device))
    told = {name: values.pop(name) for name in ("model_error_std", "inflation", "likelihood")}
    return Loop(values, **told)


def surrogate(cfg: Experiment, *, device: str = "cpu") -> CorrectionCNN:
    """The network that the loop ends with: of each experiment that of the best pass, by held-out observations alone."""
    ended, network = loop(cfg, device=device), untrained(cfg).to(device)
    best, experiments = ended.best(), torch.arange(cfg.n_seeds, device=device)
    network.load_state_dict({name: values[best, experiments] for name, values in ended.weights.items()})
    return network.eval().requires_grad_(False)


def train(cfg: Experiment, network: CorrectionCNN, training: Pairs, validation: Pairs, **options):
    """:func:`mooc_da.fit` with the numbers of the configuration; ``options`` override them."""
    numbers = {
        "epochs": cfg.epochs,
        "batch_size": cfg.batch_size,
        "learning_rate": cfg.learning_rate,
    }
    return fit(
        network,
        training,
        validation,
        **numbers | {"generator": seeded(cfg.seed, "batches")} | options,
    )


def ship(cfg: Experiment | None = None) -> None:
    """Train the networks of the default experiment anew and keep them with the package; when a default changes."""
    cfg = cfg or Experiment()
    os.environ["MOOC_DA_CACHE"] = "none"  # so that nothing old is read
    cache.memory.clear()
    for old in cache.SHIPPED.glob("*.pt"):
        old.unlink()
    for source in ("analysis", "truth"):
        correction(cfg, source)
    loop(cfg)
    for (name, _), values in cache.memory.items():
        if name.startswith(("correction-", "loop-")):
            cache.store(values, cache.SHIPPED / name)
