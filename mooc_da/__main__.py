"""``python -m mooc_da``: the whole course in one command.

Runs truth, observations, EnKF, learning and hybrid from scratch, prints every figure of merit beside
its target, and leaves ``results.json`` and one summary figure in the folder ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from . import (
    Experiment,
    HybridModel,
    __version__,
    forecast_errors,
    over_seeds,
    rmse,
    skill_horizon,
    stages,
)

# What each result should be near, with the spread over seeds where known; see README.
TARGETS = {
    "analysis_rmse": ("EnKF with the physical model: analysis RMSE", "0.199 ± 0.003"),
    "spread": ("  its spread", "0.205"),
    "zeta": ("  mean zeta of the EnKF-N", "28.7"),
    "forecast_rmse": ("  one-step forecast RMSE", "0.260"),
    "val_mse": ("network from analyses: validation MSE / variance", "0.817"),
    "rmse_vs_true_error": ("  RMSE against the true model error", "0.056"),
    "t50_physical": ("skill horizon (MTU): physical model", "0.80"),
    "t50_hybrid": ("  hybrid learnt from analyses", "1.74 ± 0.05"),
    "t50_hybrid_truth": ("  hybrid learnt from the truth (ceiling)", "2.32 ± 0.08"),
    "hybrid_analysis_rmse": ("EnKF with the hybrid: analysis RMSE", "0.138 ± 0.002"),
    "hybrid_truth_analysis_rmse": (
        "EnKF with the hybrid from the truth (ceiling)",
        "0.083 ± 0.001",
    ),
    "perfect_analysis_rmse": ("EnKF with the perfect model (floor)", "0.0335 ± 0.0003"),
}
CANDIDATES = (
    0.3,
    0.1,
    0.03,
    0.01,
    0.003,
    0.001,
    0.0,
)  # of sigma_q^2 / dt, for the innovations to choose from


def run(cfg: Experiment, device: str) -> tuple[dict, dict, dict]:
    """The story: results by name (n_seeds,), seconds by stage, and the curves of the figure."""
    results, seconds = {}, {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        seconds[stage] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    physical, nature = stages.physical_model(cfg), stages.true_model(cfg)
    with timed("truth and observations"):
        truth = stages.truth(cfg).to(device)
        stages.observations(cfg)
        runs = stages.forecast_truth(cfg).to(device)
    with timed("EnKF with the physical model"):
        used = slice(cfg.burn_in, cfg.n_assimilated)
        result = stages.analysis(cfg, device=device, progress="EnKF")[used]
        results["analysis_rmse"] = rmse(result.analysis, truth[:, used]).mean(-1)
        results["forecast_rmse"] = rmse(result.forecast, truth[:, used]).mean(-1)
        results["spread"] = result.spread.mean(-1)
        results["zeta"] = result.diagnostics["zeta"].mean(-1)
    with timed("learning from analyses"):
        network = stages.correction(cfg, device=device, progress="network from analyses")
        states, targets = stages.pairs(cfg, device=device)[1]
        results["val_mse"] = (network(states) - targets).square().mean((-2, -1)) / targets.square().mean((-2, -1))
        states, model_error = stages.pairs(cfg, "truth", device=device)[1]
        results["rmse_vs_true_error"] = (network(states) - model_error).square().mean((-2, -1)).sqrt()
    with timed("learning from the truth"):
        ceiling = stages.correction(cfg, "truth", device=device, progress="network from the truth")
    hybrids = {
        "hybrid": HybridModel(physical, network),
        "hybrid from truth": HybridModel(physical, ceiling),
    }
    with timed("forecasts"):
        repeated_runs = runs.expand(cfg.n_seeds, *runs.shape)
        curves = {"physical": forecast_errors(physical, runs)[None]}
        curves |= {name: forecast_errors(step, repeated_runs) for name, step in hybrids.items()}
        threshold = 0.5 * float(truth.std())
        for name, key in (
            ("physical", "t50_physical"),
            ("hybrid", "t50_hybrid"),
            ("hybrid from truth", "t50_hybrid_truth"),
        ):
            results[key] = skill_horizon(curves[name], threshold, cfg.dt)
    chosen = {}
    with timed("EnKF with hybrid and perfect models"):
        times, test = stages.test_times(cfg), stages.test_truth(cfg).to(device)
        n_times = min(600, cfg.n_assimilated)
        for name, step in {"hybrid": hybrids["hybrid"], "hybrid_truth": hybrids["hybrid from truth"]}.items():
            one = HybridModel(physical, step.correction.select(slice(0, 1)))
            chosen[name], _ = stages.tune_model_error(cfg, one, CANDIDATES, n_times=n_times, n_seeds=1, device=device)
            result = stages.assimilate(cfg, step, chosen[name], times=times, device=device, progress=f"EnKF, {name}")
            results[f"{name}_analysis_rmse"] = rmse(result.analysis[:, cfg.test_burn_in :], test).mean(-1)
        result = stages.assimilate(cfg, nature, 0.0, times=times, device=device, progress="EnKF, perfect model")
        results["perfect_analysis_rmse"] = rmse(result.analysis[:, cfg.test_burn_in :], test).mean(-1)
    results, curves = ({name: values.cpu() for name, values in some.items()} for some in (results, curves))
    return results, seconds, {"skill": curves, "threshold": threshold, "chosen": chosen}


def report(results: dict, chosen: dict) -> str:
    """The results beside their targets, one line each."""
    width = max(len(text) for text, _ in TARGETS.values())
    lines = [f"{'':{width}}   {'measured':>15}   target"]
    lines += [
        f"{text:{width}}   {over_seeds(results[key])!s:>15}   {target}" for key, (text, target) in TARGETS.items()
    ]
    choices = ", ".join(f"{name.replace('_', ' from ')} {value:g}" for name, value in chosen.items())
    return "\n".join([*lines, "", f"sigma_q^2 / dt chosen by the likelihood of the observations: {choices}"])


def save(cfg: Experiment, results: dict, seconds: dict, extras: dict, device: str, out: Path) -> None:
    """Write results.json and summary.png."""
    import matplotlib
    import numpy

    matplotlib.use("Agg")
    from . import plots

    plots.set_style()

    estimates = {key: {"mean": e.mean, "std": e.std if len(values) > 1 else None, "values": values.tolist()}
                 for key, values in results.items() for e in [over_seeds(values)]}  # fmt: skip
    versions = {"mooc_da": __version__, "python": platform.python_version(), "torch": torch.__version__,
                "numpy": numpy.__version__, "matplotlib": matplotlib.__version__}  # fmt: skip
    document = estimates | {
        "chosen_variances": extras["chosen"], "seeds": cfg.n_seeds, "device": device, "versions": versions,
        "seconds": seconds, "experiment": cfg.as_dict(),
    }  # fmt: skip
    (out / "results.json").write_text(json.dumps(document, indent=2) + "\n")
    plots.summary(extras["skill"], results, cfg.dt, extras["threshold"]).savefig(out / "summary.png", dpi=150)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(prog="python -m mooc_da", description="The whole course in one command.")
    parser.add_argument("--fast", action="store_true", help="a small run, about ten times quicker and rougher")
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="independent experiments, run in one batch (default 1)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default; quickest for these small arrays) or cuda")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        help="folder for results.json and summary.png (default results)",
    )
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: expected at least 1")
    try:
        device = torch.device(options.device)
    except RuntimeError:
        parser.error(f"--device {options.device}: PyTorch knows no such device; use cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(
            f"--device {options.device}: PyTorch finds no CUDA device here; leave the option out to run on the CPU"
        )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "results.json").touch()
    except OSError as error:
        parser.error(f"--out {options.out}: cannot be written ({error.strerror}); choose another folder")
    os.environ["MOOC_DA_CACHE"] = "none"  # everything is computed here and now
    cfg = replace(Experiment().fast() if options.fast else Experiment(), n_seeds=options.seeds)
    results, seconds, extras = run(cfg, options.device)
    print(report(results, extras["chosen"]))
    save(cfg, results, seconds, extras, options.device, options.out)
    total = {kind: sum(s[kind] for s in seconds.values()) for kind in ("wall", "cpu")}
    print(
        f"{total['wall']:.0f} s ({total['cpu']:.0f} s of CPU). "
        f"Wrote {options.out / 'results.json'} and {options.out / 'summary.png'}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
