"""The model card of the surrogate that the loop ends with: what it is, what it is good for, and where it fails.

``python -m mooc_da.model_card``, in the root of the repository, measures everything anew, in some minutes, and writes
``loop_data/model_card.json`` and ``notebooks/model_card.md``. The sections follow Mitchell et al. (2019,
doi 10.1145/3287560.3287596).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from . import stages
from .cycle import cycle
from .loop import PASSES
from .loop_attempts import CFG, NATURE, PHYSICAL
from .loop_study import DATA, results, the_surrogate
from .models import Step, one_thread, repeated, trajectory
from .networks import HybridModel
from .scores import Estimate, forecast_errors, over_seeds, rank_histogram, rmse, skill_horizon

FACTS, CARD = DATA / "model_card.json", Path("notebooks", "model_card.md")
MTU = round(1 / CFG.dt)  # steps
LEADS = (0.5, 1.0, 2.0, 5.0)  # MTU
STUDIED = {
    "physical model": "physical alone",
    "hybrid of notebook 3": "the loop",  # its first pass
    "this surrogate": "the surrogate",
    "trained on the truth, as in notebook 2": "from truth as in notebook 2",
    "trained on the truth, long schedule": "from truth long schedule",
    "trained on the truth with SOAP": "from truth with soap",
    "perfect model": "perfect model",
}


# Measured


def facts() -> dict:
    """All numbers of the card that the study has not measured, each a list over the five experiments."""
    model, variance = next(the_surrogate())
    runs = stages.forecast_truth(CFG).expand(CFG.n_seeds, -1, -1, -1)
    errors = forecast_errors(model, runs)
    weights = sum(p[0].numel() for p in model.correction.parameters())
    states = stages.truth(CFG)[:, : CFG.n_assimilated]
    return {
        "torch": torch.__version__,
        "parameters": weights,
        "passes": stages.loop(CFG).best().tolist(),
        "range": [float(states.min()), float(states.max())],
        "variance": variance.tolist(),
        "leads": {f"{lead:g}": errors[:, round(lead * MTU)].tolist() for lead in LEADS},
        "calibration": calibration(model, variance),
        "long run": long_run(model),
        "failures": failures(model),
    }


def calibration(model: Step, variance: Tensor) -> dict:
    """How well the filter with the model knows its own error, on the test times."""
    times, test = stages.test_times(CFG), stages.test_truth(CFG)
    seen, start = stages.observations(CFG)[times], stages.climatological_ensemble(CFG)
    result = cycle(stages.enkf(CFG, variance), model, seen, start, keep_ensembles=True)[CFG.test_burn_in :]
    ranks = [rank_histogram(E, x) for E, x in zip(result.ensembles, test, strict=True)]
    return {
        "error": rmse(result.analysis, test).mean(-1).tolist(),
        "spread": result.spread.mean(-1).tolist(),
        "chi2": result.diagnostics["chi2"].mean(-1).tolist(),
        "outer ranks": [float((r[0] + r[-1]) * len(r) / 2) for r in ranks],
    }


@one_thread()
def long_run(model: Step, n_starts: int = 100, length: int = 1000) -> dict:
    """Free runs of ``length`` MTU from ``n_starts`` true states for every network: how many stay, how far they go."""
    x = stages.forecast_truth(CFG)[:n_starts, -1].expand(CFG.n_seeds, -1, -1)
    largest = x.abs().amax((-2, -1))
    with torch.no_grad():
        for _ in range(length * MTU):
            x = model(x)
            largest = torch.maximum(largest, x.abs().amax((-2, -1)))
    stayed = torch.isfinite(x).all(-1) & (x.abs().amax(-1) < 100)
    return {"starts": n_starts, "length": length, "stayed": stayed.sum(-1).tolist(), "largest": largest.tolist()}


def failures(model: HybridModel) -> dict:
    """Horizons, MTU, where the surrogate was not made for; the physical model's under the same circumstances beside."""
    half = replace(PHYSICAL, dt=CFG.dt / 2)
    ring = stages.forecast_truth(CFG)[:200, -1]
    generator = torch.Generator().manual_seed(CFG.seed)
    twice = ring.repeat(1, 2)
    twice = twice + 0.1 * torch.randn(twice.shape, dtype=twice.dtype, generator=generator)
    cases = {
        "as learnt": (NATURE, PHYSICAL, model, ring),
        "forcing of nature and of the physical model higher by 1": (*stronger(model, 1.0), ring),
        "forcing of nature and of the physical model higher by 2": (*stronger(model, 2.0), ring),
        "forcing of nature and of the physical model lower by 2": (*stronger(model, -2.0), ring),
        "half the time step": (NATURE, PHYSICAL, repeated(HybridModel(half, model.correction), 2), ring),
        "a ring of 80 points": (NATURE, PHYSICAL, model, twice),
    }
    return {
        name: {"physical": horizons(nature, physical, states), "surrogate": horizons(nature, hybrid, states)}
        for name, (nature, physical, hybrid, states) in cases.items()
    }


def stronger(model: HybridModel, more: float) -> tuple[Step, Step, Step]:
    """Nature, physical model and hybrid under another forcing; the network is left as it is."""
    physical = replace(PHYSICAL, forcing=PHYSICAL.forcing + more)
    return replace(NATURE, forcing=NATURE.forcing + more), physical, HybridModel(physical, model.correction)


def horizons(nature: Step, model: Step, states: Tensor) -> list[float | None]:
    """Skill horizon of a model for each experiment, None if beyond the longest forecast.

    From ``states`` (n, Nx), once they have reached that nature's attractor and forgotten each other: 30 MTU.
    """
    runs = trajectory(nature, repeated(nature, 600)(states), CFG.n_forecast)
    errors = forecast_errors(model, runs.expand(CFG.n_seeds, *runs.shape))
    return [h if h == h else None for h in skill_horizon(errors, float(runs.std()) / 2, CFG.dt).tolist()]


# Written


def written(facts: dict) -> str:
    """The card, in Markdown."""
    study = {name: results(key)["passes"][0] for name, key in STUDIED.items()}
    calibrated, long, low_high = facts["calibration"], facts["long run"], facts["range"]
    observed = f"{CFG.n_assimilated} times, half of the {CFG.n_sites} points at each, noise {CFG.obs_std:g}"
    surrogate, nature = study["this surrogate"], study["perfect model"]
    leads = "; ".join(f"{told(values)} at {lead} MTU" for lead, values in facts["leads"].items())
    failed = (
        f"| {name} | {lasted(case['physical'])} | {lasted(case['surrogate'])} |"
        for name, case in facts["failures"].items()
    )
    failures = "\n".join(failed)
    return f"""# Model card: the surrogate at the end of the loop

Written by `python -m mooc_da.model_card`; do not edit by hand. Values are mean ± standard deviation over five
experiments, each with a truth, observations and a network of its own.

## What it is

Lorenz-96 with F = {PHYSICAL.forcing:g} (RK4, step {CFG.dt:g} MTU) plus a periodic convolutional network of
{facts["parameters"]} parameters that corrects the step: `stages.surrogate(Experiment())` in
`HybridModel(stages.physical_model(cfg), …)`. Kept: the weights after
{among(facts["passes"])} of the loop's {len(PASSES)} passes, chosen by held-out observations.

**For:** teaching; forecasts and data assimilation in the twin experiment of this course. **Not for:** anything else.

## Data

Observations alone: {observed}, seen by each of the five. The last fifth chose $\\sigma_q$, inflation, weights and pass.
No run was shown the truth; the *form* of the loop (lengths of rollouts, lags, epochs) comes from trials whose scores
were taken on the truth. The true states of that period lie between {low_high[0]:.1f} and {low_high[1]:.1f}: the
range it knows.

## Skill

On fresh data: forecasts from {CFG.n_starts} true states of other runs; the filter of the course over
{CFG.n_test} times of other observations.

| model | skill horizon (MTU) | analysis RMSE | error of a step |
|---|---|---|---|
{rows(study, ("horizon", "analysis", "step"))}

Forecast RMSE of the surrogate: {leads}.

## Calibration

In the filter, with the $\\sigma_q^2/\\mathrm{{d}}t$ that innovations chose ({told(facts["variance"])}): analysis error
{told(calibrated["error"])}, spread {told(calibrated["spread"])}; innovations over what the filter expects, in squares,
{told(calibrated["chi2"])} (1 is consistent); the truth is outside the forecast ensemble
{told(calibrated["outer ranks"])} times as often as it should be.

## Long-run behaviour

| model | largest exponent (per MTU) | climate mean | climate std |
|---|---|---|---|
{rows(study, ("exponent", "mean", "std"))}

Against nature: exponent {off(surrogate, nature, "exponent")}, mean {off(surrogate, nature, "mean")}, std
{off(surrogate, nature, "std")}. Of {long["starts"]} free runs of {long["length"]} MTU for each network
{among(long["stayed"])} stay on the attractor; the largest |x| met is {max(long["largest"]):.1f}.

## Where it fails

Skill horizon (MTU) in other circumstances, without new training:

| circumstance | physical model | surrogate |
|---|---|---|
{failures}

The network corrects one step of {CFG.dt:g} MTU in one climate: it knows nothing of another step or of another forcing.
It sees five points to either side, so that the size of the ring does not matter.
"""


def card() -> str:
    """The card of the surrogate that comes with the package."""
    return written(json.loads(FACTS.read_text(encoding="utf-8")))


def told(values: list[float]) -> Estimate:
    """Mean ± spread over the experiments."""
    return over_seeds(torch.tensor(values, dtype=torch.float64))


def lasted(values: list[float | None]) -> str:
    """A horizon, which may lie beyond the longest forecast."""
    return f"> {CFG.n_forecast * CFG.dt:g}" if None in values else str(told(values))


def among(values: list) -> str:
    """Smallest to largest."""
    return f"{min(values)} to {max(values)}" if min(values) != max(values) else f"{values[0]}"


def off(model: dict, nature: dict, name: str) -> str:
    """Difference to nature, per cent."""
    return f"{100 * (told(model[name]).mean / told(nature[name]).mean - 1):+.1f} %"


def rows(study: dict, names: tuple[str, ...]) -> str:
    """Lines of a table with these scores."""
    return "\n".join(f"| {model} | {' | '.join(lasted(s[name]) for name in names)} |" for model, s in study.items())


if __name__ == "__main__":
    if not CARD.parent.is_dir():  # rather now than after minutes
        raise SystemExit(f"There is no folder {CARD.parent} here: run this in the root of the repository.")
    FACTS.write_text(json.dumps(facts(), indent=1) + "\n", encoding="utf-8")
    CARD.write_text(card(), encoding="utf-8")
