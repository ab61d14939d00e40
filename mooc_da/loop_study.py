"""The study of notebook 6: every way tried to close the loop, its price, and what limits it.

    python -m mooc_da.loop_study "the loop" "from true starts"

runs those experiments anew and writes a file each to the folder ``loop_data``; without names it lists them all
with what they are. Each is a function that yields, pass by pass, the models it has made: what it does is its
docstring, which the file repeats. All see five experiments of the default :class:`~mooc_da.Experiment`, and are
measured by :func:`measured` on what none has learnt from.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from . import stages
from .config import Experiment
from .filters import FilterDivergence
from .learning import rollout_loss, rollout_pairs, split_in_time
from .loop import PASSES
from .loop_attempts import (
    ATTEMPTS,
    CFG,
    NATURE,
    PHYSICAL,
    SUSPECTS,
    Made,
    first_network,
    going_round,
    seen,
    tuned,
    variance_of,
)
from .models import Step, lyapunov_exponents, one_thread, repeated
from .networks import HybridModel
from .observations import Pick, everywhere
from .scores import climate, forecast_errors, rmse, skill_horizon, spectrum
from .soap import SOAP

DATA = Path(__file__).with_name("loop_data")
SHORT = PASSES[3:6]  # passes in the study of prices: two of 8 steps, one of 16


# What is measured


@one_thread()
def measured(model: Step, variance: Tensor | float, cfg: Experiment = CFG) -> dict[str, list]:
    """All scores of S models on fresh data, one number (spectrum: a list) for each experiment.

    ``analysis``: RMSE in the filter of the course, over the test times; ``horizon``: MTU, from 500 true states;
    ``exponent``: the largest Lyapunov exponent, per MTU, over 16 runs of 40 MTU; ``mean``, ``std``, ``spectrum``:
    of 20 free runs of 50 MTU each; ``step``: RMSE of one step.
    """
    times, test, runs = stages.test_times(cfg), stages.test_truth(cfg), stages.forecast_truth(cfg)
    result = stages.assimilate(cfg, model, variance, times=times)[cfg.test_burn_in :]
    errors = forecast_errors(model, runs.expand(cfg.n_seeds, *runs.shape))
    with torch.no_grad():
        free = repeated(model, 200)(runs[: 20 * cfg.n_seeds, -1].unflatten(0, (cfg.n_seeds, 20)))
        mean, std = climate(model, free, 1000)
        samples = [free := repeated(model, 20)(free) for _ in range(20)]
    exponents = lyapunov_exponents(model, free[:, :16], 800, cfg.dt, 1)
    scores = {
        "analysis": rmse(result.analysis, test).mean(-1),
        "horizon": skill_horizon(errors, float(runs.std()) / 2, cfg.dt),
        "exponent": exponents[..., 0].mean(-1),
        "mean": mean,
        "std": std,
        "spectrum": spectrum(torch.cat(samples, -2)),
        "step": errors[..., 1],
    }
    scores = {name: value.tolist() for name, value in scores.items()}
    return scores | {"horizon": [value if value == value else None for value in scores["horizon"]]}  # None: never lost


# The loop, its ceilings, and who else knows the truth


def the_loop() -> Made:
    """The loop of the course: rollouts from smoothed states meet the observations, of 8 steps, at last of 16."""
    ended = stages.loop(CFG)
    for number, model_error_std in enumerate(ended.model_error_std):
        yield HybridModel(PHYSICAL, stages.correction(CFG, n_passes=number + 1)), variance_of(model_error_std)


def the_surrogate() -> Made:
    """What the loop ends with: of each experiment the network under which held-out observations are likeliest."""
    ended = stages.loop(CFG)
    best = ended.model_error_std.gather(0, ended.best().unsqueeze(0))[0]
    yield HybridModel(PHYSICAL, stages.surrogate(CFG)), variance_of(best)


def physical_alone() -> Made:
    """The physical model without any correction."""
    yield lambda x: PHYSICAL(x), CFG.model_error_variance


def perfect_model() -> Made:
    """The model that nature runs."""
    yield lambda x: NATURE(x), 0.0


def from_truth_as_in_notebook_2() -> Made:
    """The network trained on the truth, one step, 24 epochs of Adam: the ceiling of notebooks 2 and 3."""
    yield HybridModel(PHYSICAL, stages.correction(CFG, "truth")), CFG.ceiling_error_variance


def learnt_from_truth(optimizer: Callable, learning_rate: float, epochs: int, further: Sequence[tuple]) -> Made:
    """One network per experiment, trained on one step of the truth, then on rollouts of it."""
    network, truth = stages.untrained(CFG), stages.truth(CFG)[:, : CFG.n_assimilated]
    stages.train(CFG, network, *stages.pairs(CFG, "truth"), epochs=epochs, learning_rate=learning_rate,
                 optimizer=optimizer)  # fmt: skip
    for n_steps, n_epochs, rate in further:
        split = split_in_time(rollout_pairs(truth[:, CFG.burn_in :], n_steps), CFG.validation_fraction, CFG.gap)
        stages.train(CFG, network, *split, epochs=n_epochs, learning_rate=rate, optimizer=optimizer, rescale=False,
                     loss=rollout_loss(partial(HybridModel, PHYSICAL), n_steps))  # fmt: skip
    network.requires_grad_(False)
    yield tuned(HybridModel(PHYSICAL, network))


def from_truth_long_schedule() -> Made:
    """Trained on the truth with Adam for 150 epochs of one step, then 6 each over 4 and over 8 steps."""
    return learnt_from_truth(torch.optim.Adam, CFG.learning_rate, 150, [(4, 6, 2e-3), (8, 6, 1e-3)])


def from_truth_with_soap() -> Made:
    """Trained on the truth with SOAP for 40 epochs of one step, then 4 over 8 steps: the ceiling of this network."""
    return learnt_from_truth(SOAP, 1e-2, 40, [(8, 4, 2e-3)])


# The price of data


def every_fourth(k: int) -> Pick:
    """A quarter of the points, in turn."""
    return Pick(k % 4, 4)


def priced(**data) -> Made:
    """Notebooks 1 and 2 and three passes of the loop with other observations."""
    observations = seen(**data)
    return going_round(SHORT, network=first_network(observations), observations=observations)


def every_eighth(k: int) -> Pick:
    """An eighth of the points, in turn."""
    return Pick(k % 8, 8)


def every_twentieth(k: int) -> Pick:
    """A twentieth of the points, in turn: two of forty."""
    return Pick(k % 20, 20)


PRICES = {
    "all points": {"network": everywhere},
    "a quarter of the points": {"network": every_fourth},
    "an eighth of the points": {"network": every_eighth},
    "a twentieth of the points": {"network": every_twentieth},
    "noise 0.1": {"std": 0.1},
    "noise 0.4": {"std": 0.4},
    "1250 times": {"n_times": 1250},
    "2500 times": {"n_times": 2500},
    "the same data": {},
}
KNOWING = (the_loop, the_surrogate, physical_alone, perfect_model, from_truth_as_in_notebook_2,
           from_truth_long_schedule, from_truth_with_soap)  # fmt: skip


def named(make: Callable) -> str:
    """The name of an experiment: that of its function, in words."""
    return make.__name__.replace("_", " ")


EXPERIMENTS = {named(make): make for make in (*KNOWING, *ATTEMPTS, *SUSPECTS)}
EXPERIMENTS |= {name: partial(priced, **data) for name, data in PRICES.items()}


def path(name: str) -> Path:
    """The file of an experiment."""
    return DATA / f"{re.sub('[^a-z0-9]+', '_', name.lower())}.json"


def run(name: str) -> dict:
    """Run an experiment and measure every model it yields; ``seconds`` is what it took to make each.

    A filter that diverges ends it: that is a result, too, and is kept in ``diverged``.
    """
    make, rows, begin = EXPERIMENTS[name], [], time.process_time()
    how = inspect.getdoc(make.func if isinstance(make, partial) else make)
    made_by = f'python -m mooc_da.loop_study "{name}"'
    record = {"name": name, "how": how, "made by": made_by, "torch": torch.__version__, "passes": rows}
    try:
        for model, variance in make():
            seconds = time.process_time() - begin
            rows.append(
                {"seconds": seconds, "variance": torch.as_tensor(variance).tolist(), **measured(model, variance)}
            )
            print(name, len(rows), *(f"{score} {rows[-1][score][0]}" for score in ("analysis", "horizon")), flush=True)
            begin = time.process_time()
    except (FilterDivergence, FloatingPointError) as error:
        record["diverged"] = str(error)
        print(name, error, flush=True)
    return record


def results(name: str) -> dict:
    """What :func:`run` gave when it was last recorded."""
    return json.loads(path(name).read_text(encoding="utf-8"))


def scores(name: str, score: str) -> Tensor:
    """A score of all P passes of an experiment, as recorded: (P, S), NaN for a horizon beyond the longest forecast."""
    rows = [[torch.nan if value is None else value for value in row[score]] for row in results(name)["passes"]]
    return torch.tensor(rows, dtype=torch.float64)


def main(names: Sequence[str]) -> None:
    """Run the experiments of these names and write their files; list all if there are none."""
    if not names:
        for name, make in EXPERIMENTS.items():
            print(f"{name:32s} {make.keywords if isinstance(make, partial) else inspect.getdoc(make).splitlines()[0]}")
    if unknown := set(names) - set(EXPERIMENTS):
        raise SystemExit(f"No experiment {', '.join(sorted(unknown))}: run without names to see them all.")
    DATA.mkdir(exist_ok=True)
    for name in names:
        path(name).write_text(json.dumps(run(name), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
