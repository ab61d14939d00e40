"""Beat the hybrid: fixed observations, sealed scores for any model, and a board of entries.

    from mooc_da import challenge
    model = ...  # any step (M, 40) -> (M, 40), for any number M of states
    challenge.enter("my model", model)

One experiment of the course, whose truth is not given: observations of 5000 times. Learn from them what
you like. Scores come from other true runs, drawn from seeds of their own. The seal is one of honour: the
seeds stand below, and whoever uses them has beaten nobody.
"""

from __future__ import annotations

import functools
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from . import reader, stages
from .cache import cached
from .config import Experiment
from .cycle import CycleResult
from .filters import FilterDivergence
from .learning import Pairs
from .models import Lorenz96, Step, one_thread, repeated
from .observations import Observations, checkerboard
from .scores import climate, forecast_errors, over_seeds, rmse, skill_horizon

EXPERIMENT = Experiment(seed=7_000, n_seeds=1, n_truth=6_000)  # the one given
SEALED = replace(  # those that score: five filters, and five groups of independent forecasts and free runs
    EXPERIMENT, seed=8_000, n_seeds=5, n_truth=700, n_assimilated=1, burn_in=0, gap=0, test_burn_in=200, n_test=499
)
N_GROUPS, LIMIT = 5, SEALED.n_forecast * SEALED.dt  # horizons are measured up to the limit, MTU
VARIANCES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.0)  # sigma_q^2 / dt, to be chosen from by the innovations
N_TUNING = 300  # last of the given times, on which it is chosen
FREE_RUNS, SPIN_UP, FREE_STEPS = 40, 400, 500  # 40 runs of 25 MTU, after 20 MTU to forget their starts: 1000 MTU
BOUND = 100.0  # a state beyond is no weather of this planet, where |x| stays below about 20
DATA = Path(__file__).with_name("challenge_data")

COLUMNS = {  # key -> heading, format of a number
    "horizon": ("skill horizon (MTU)", ".2f"),
    "analysis": ("analysis RMSE", ".3f"),
    "mean": ("climate mean, error (%)", "+z.1f"),
    "std": ("climate std, error (%)", "+z.1f"),
    "cost": ("cost of a step", ".1f"),
}


class Refused(ValueError):
    """The model cannot be scored; the message says why, and what to do."""


# What is given


def observations() -> Observations:
    """The observations of the challenge, y (5000, 20), as stored with the package: all there is to learn from."""
    given = _given()
    return replace(given, y=given.y[0])


def analysis(*, progress: str = "") -> CycleResult:
    """The course's filter with the physical model over the given observations, burn-in included: (5000, 40)."""
    _given()
    return _single(stages.analysis(EXPERIMENT, progress=progress))


def assimilate(step: Step, variance: float, *, progress: str = "") -> CycleResult:
    """The course's filter with another model and ``sigma_q^2 = variance * dt``: to go round the loop again."""
    _given()
    return _single(stages.assimilate(EXPERIMENT, step, variance, progress=progress))


def pairs(states: Tensor | None = None) -> tuple[Pairs, Pairs]:
    """Training and validation pairs (K, 40), as in notebook 2, from the analyses (5000, 40) given or :func:`analysis`.

    Targets are the errors of a step of the *physical* model.
    """
    return stages.pairs_of(EXPERIMENT, analysis().analysis if states is None else states)


def tune(step: Step, variances: tuple[float, ...] = VARIANCES) -> tuple[float, Tensor]:
    """The ``sigma_q^2 / dt`` that the innovations of the given observations choose, and all log-likelihoods.

    The same rule chooses the filter of every entry. A model with parameters of shape (n, 1, 1) may compare
    these too, with n variances.
    """
    _given()
    best, likelihood = stages.tune_model_error(EXPERIMENT, step, variances, n_times=N_TUNING, n_seeds=1)
    return best, likelihood[0]


def physical_model() -> Lorenz96:
    """The wrong model you have."""
    return stages.physical_model(EXPERIMENT)


def _given() -> Observations:
    """The file in the place of the stage ``observations``, so that every later stage starts from it."""
    noise_variance = torch.full((EXPERIMENT.n_sites // 2,), EXPERIMENT.obs_std**2, dtype=torch.float64)

    def load() -> dict:
        y = torch.load(DATA / "observations.pt", weights_only=True)
        return {"y": y.double().unsqueeze(0), "R": noise_variance}

    return Observations(network=checkerboard, **cached("observations", EXPERIMENT, load))


def _single(result: CycleResult) -> CycleResult:
    """The one experiment of a batch of one."""
    parts = {name: value[0] for name, value in vars(result).items() if isinstance(value, Tensor)}
    return CycleResult(**parts, diagnostics={name: value[0] for name, value in result.diagnostics.items()})


# Scores


@functools.cache
def _sealed(cfg: Experiment) -> tuple[Tensor, float, float]:
    """True runs to forecast (n_groups, n_starts / n_groups, T + 1, Nx), and mean and std of the true climate."""
    runs = stages.forecast_truth(cfg)
    mean, std = climate(stages.true_model(cfg), runs[:, -1], 200)
    return runs.unflatten(0, (N_GROUPS, -1)), float(mean), float(std)


@one_thread()
def score(model: Step, *, progress: str = "") -> dict:
    """All scores of a model, each as a list of values from independent test sets, so that they have a spread.

    ``horizon``: lead, MTU, at which the forecast RMSE from true states passes half the climatological std (five
    groups of 100 forecasts; at most 5 MTU). ``analysis``: RMSE of the course's filter on fresh observations (five
    experiments of 499 times), with the sigma_q that :func:`tune` chooses. ``mean`` and ``std``: errors of the climate
    in per cent (five groups of runs, 1000 MTU in all). ``cost``: time of a step of 40 states over the physical
    model's. ``variance`` is the chosen sigma_q^2 / dt; ``status`` says "stable" or where the model failed, and
    the scores that it failed are empty lists.

    Raises
    ------
    Refused
        if the model is not a deterministic map of states (M, 40) to such states
    """
    began = time.perf_counter()

    def tell(text: str) -> None:
        if progress:
            print(text, end="", flush=True)

    tell(f"{progress}: check … ")
    step = _guarded(model)
    with torch.no_grad():
        _check(step)
        tell("forecasts … ")
        runs, true_mean, true_std = _sealed(SEALED)
        horizon = skill_horizon(forecast_errors(step, runs), true_std / 2, SEALED.dt).nan_to_num(LIMIT)
        scores, failures = {"horizon": horizon.tolist()}, []
        tell("filter … ")
        try:
            scores["variance"], _ = tune(step)
            result = stages.assimilate(SEALED, step, scores["variance"], times=stages.test_times(SEALED))
            errors = rmse(result[SEALED.test_burn_in :].analysis, stages.test_truth(SEALED)).mean(-1)
            scores["analysis"] = errors.tolist()
        except FilterDivergence:
            failures.append("the filter")
            scores |= {"variance": None, "analysis": []}
        tell("climate … ")
        mean, std = _climate(step, runs)
        if max(mean.abs().max(), std.max()) < BOUND:
            scores |= {"mean": (100 * (mean / true_mean - 1)).tolist(), "std": (100 * (std / true_std - 1)).tolist()}
        else:
            failures.append("free runs")
            scores |= {"mean": [], "std": []}
        tell("cost … ")
        scores["cost"] = _cost(step)
    scores["status"] = f"unstable in {' and '.join(failures)}" if failures else "stable"
    tell(f"{scores['status']} ({time.perf_counter() - began:.0f} s)\n")
    return scores


def _guarded(model: Step) -> Step:
    """The model for states (..., 40), in portions that fit the processor's cache, its misbehaviour explained."""

    def step(x: Tensor) -> Tensor:
        try:
            y = model(x)
        except Exception as error:  # whatever a reader's code raises
            raise Refused(
                f"the model fails on float64 states of shape {tuple(x.shape)} with {type(error).__name__}: {error}. "
                "It must take any number M of states, (M, 40). A float32 network converts inside: "
                "network(x.float()).double(); of networks in a batch, enter one: CorrectionCNN() has no batch."
            ) from error
        if not isinstance(y, Tensor):
            raise Refused(f"the model returns {type(y).__name__}: expected a tensor, the states one step later.")
        if y.shape != x.shape:
            raise Refused(
                f"the model maps states of shape {tuple(x.shape)} to {tuple(y.shape)}: expected the same shape, "
                "the states one step later."
            )
        if y.dtype != x.dtype:
            raise Refused(f"the model maps {x.dtype} to {y.dtype}: convert what it gives, .to(x.dtype).")
        return y

    return lambda x: torch.cat([step(portion) for portion in x.flatten(0, -2).split(100)]).view_as(x)


def _check(step: Step) -> None:
    """Raise Refused unless the model maps states of the physical climate to finite states, each for itself."""
    x = stages.climatological_ensemble(EXPERIMENT)  # (1, n_members, Nx)
    before, y = x.clone(), step(x)
    if not torch.equal(x, before):
        raise Refused("the model changes the state it is given: return a new tensor instead (y = x + …, not x += …).")
    if not torch.isfinite(y).all():
        raise Refused(
            "the model gives NaN or infinite values after one step from quite normal states: look for a division by "
            "zero, or for a training that diverged."
        )
    if not torch.allclose(step(x), y, rtol=1e-5, atol=1e-5):
        raise Refused(
            "the model gives two answers to the same states: switch off dropout with .eval(), draw no random numbers "
            "in a step, and keep no memory from one step to the next."
        )
    if not torch.allclose(step(x[0, 1:3]), y[0, 1:3], rtol=1e-4, atol=1e-4):
        raise Refused(
            "the step of a state depends on the other states in the batch: call .eval() on what has BatchNorm, or "
            "normalise with fixed numbers from the training data, not with those of the batch."
        )


def _climate(step: Step, runs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of the model's own climate, (n_groups,) each; infinite where it blows up."""
    starts = runs[..., -1, :].flatten(0, 1)[:FREE_RUNS].unflatten(0, (N_GROUPS, -1))
    try:
        mean, std = climate(step, repeated(step, SPIN_UP)(starts), FREE_STEPS)
    except FloatingPointError:
        return torch.full((N_GROUPS,), math.inf), torch.full((N_GROUPS,), math.inf)
    return mean, std


def _cost(step: Step, n_times: int = 5, n_steps: int = 20) -> list[float]:
    """Time of a step over the physical model's: each the fastest of some, for the machine may be busy."""
    x, physical = stages.climatological_ensemble(EXPERIMENT), _guarded(physical_model())

    def fastest(timed: Step) -> float:
        seconds = []
        for _ in range(n_steps):
            began = time.perf_counter()
            timed(x)
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    return [fastest(step) / fastest(physical) for _ in range(n_times)]


# The board


def enter(name: str, model: Step) -> None:
    """Score a model, keep its scores in the reader's progress file, and show the board.

    A model that cannot be scored is refused with a reason; nothing is raised. An entry of the same name is replaced.
    """
    if not isinstance(name, str) or not 0 < len(name.strip()) <= 60 or not name.isprintable():
        return reader.say("**Refused:** a name is a text of 1 to 60 characters on one line.")
    name = name.strip()
    if name in shipped():
        return reader.say(f"**Refused:** {name!r} is an entry of the course; choose a name of your own.")
    try:
        scores = score(model, progress=name)
    except Refused as reason:
        print("refused")
        return reader.say(f"**Refused:** {reason}")
    if name in reader.recall("challenge"):
        reader.say(f"Your entry {name!r} was there before; its scores are replaced.")
    if not reader.record("challenge", name, scores):
        reader.say("Your progress file cannot be written: the entry lasts as long as this session.")
    return board()


def shipped() -> dict[str, dict]:
    """The entries of the course, name -> scores as :func:`score` gives them, with ``how`` and ``reference``."""
    return json.loads((DATA / "entries.json").read_text(encoding="utf-8"))["entries"]


def entries() -> dict[str, dict]:
    """All entries, best first: the stable ones by skill horizon, a tie by analysis RMSE, then the unstable ones."""
    kept = reader.recall("challenge").items()
    own = {name: scores | {"own": True} for name, scores in kept if {*COLUMNS, "status"} <= {*scores}}

    def key(item: tuple[str, dict]) -> tuple:
        scores = item[1]
        tie = over_seeds(torch.tensor(scores["analysis"])).mean if scores["analysis"] else math.inf
        return scores["status"] != "stable", -over_seeds(torch.tensor(scores["horizon"])).mean, tie

    return dict(sorted((shipped() | own).items(), key=key))


def board() -> None:
    """Show all entries, best first: your own in bold with a star, references that know the truth without a rank."""
    heads = ["", "entry", *(heading for heading, _ in COLUMNS.values()), "remark"]
    rows, rank = [heads, ["---"] * len(heads)], 0
    for name, scores in entries().items():
        ranked = scores["status"] == "stable" and not scores.get("reference")
        rank += ranked
        label = name.replace("|", "\\|")
        remark = "" if scores["status"] == "stable" else scores["status"]
        rows.append([
            str(rank) if ranked else "–",
            f"★ **{label}**" if scores.get("own") else label,
            *(_shown(scores, column) for column in COLUMNS),
            "knows the truth" if scores.get("reference") else remark,
        ])  # fmt: skip
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    reader.say(f"{table}\n\nBest skill horizon first; ± is the spread between single test sets; ★ your own.")


def _shown(scores: dict, column: str) -> str:
    """Mean and spread of a score as text."""
    if not (values := scores[column]):
        return "–"
    estimate, form = over_seeds(torch.tensor(values)), COLUMNS[column][1]
    if column == "horizon" and min(values) >= LIMIT:
        return f"> {LIMIT:g}"
    return f"{estimate.mean:{form}} ± {estimate.std:{form.removeprefix('+z')}}"
