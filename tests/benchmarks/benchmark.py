"""Costs of the package as ratios that hold on any machine: ``python tests/benchmarks/benchmark.py``.

What is compared is timed interleaved, in one run, on one thread, and the medians are divided, so that a busy
machine slows both sides alike. Absolute times are printed too; they belong to the machine they were taken on.
Not a test: nothing here fails.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

os.environ["MOOC_DA_CACHE"] = "none"

import numpy as np
import torch

import mooc_da as da
from mooc_da import covariances, stages

REPEATS = 41
ROWS: list[tuple[float, float]] = []  # measured and target


def medians(*functions: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Median seconds of each function, called in turn: f, g, f, g, …"""
    times = [[] for _ in functions]
    for k in range(repeats + 3):
        for function, record in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if k >= 3:  # the first calls warm up
                record.append(time.perf_counter() - start)
    return [statistics.median(record) for record in times]


def many(function: Callable[[], object], n: int) -> Callable[[], None]:
    """``n`` calls as one, for what is too short for the clock."""

    def calls() -> None:
        for _ in range(n):
            function()

    return calls


def row(what: str, value: float, target: float, unit: str, detail: str = "") -> None:
    ROWS.append((value, target))
    verdict = "ok" if value <= target else "NOT MET"
    print(f"{what:58} {value:9.2f} ≤ {target:<7g} {unit:4} {verdict:8} {detail}", flush=True)


@contextmanager
def recorded_eigenproblems() -> Iterator[list[torch.Tensor]]:
    """The matrices handed to ``eigh`` inside the block, in order."""
    original, matrices = torch.linalg.eigh, []
    torch.linalg.eigh = lambda A: (matrices.append(A.clone()), original(A))[1]
    try:
        yield matrices
    finally:
        torch.linalg.eigh = original


def cycle_against_its_kernels(cfg: da.Experiment) -> None:
    """One cycle of the course's filter over its three eigenproblems and its model step, on the cycle's own matrices."""
    n_cycles = 100
    model, method = stages.physical_model(cfg), stages.enkf(cfg, cfg.model_error_variance)
    seen = stages.observations(cfg)[:400]
    seen = replace(seen, y=seen.y[0])
    start = stages.climatological_ensemble(cfg)[0]
    warm = method.start(start)
    with torch.no_grad():
        for k in range(300):
            warm, _ = method.analyse(method.forecast(warm, model) if k else warm, seen[k])

        def cycles() -> None:
            state = warm
            for k in range(n_cycles):
                state, _ = method.analyse(method.forecast(state, model), seen[300 + k])

        with recorded_eigenproblems() as matrices:
            cycles()
        sizes = [A.shape[-1] for A in matrices[:3]]
        assert len(matrices) == 3 * n_cycles, "a cycle no longer has three eigenproblems: adapt the benchmark"

        def kernels() -> None:
            E = warm.E
            for k in range(n_cycles):
                model(E)
                for A in matrices[3 * k : 3 * k + 3]:
                    torch.linalg.eigh(A)

        whole, parts = medians(cycles, kernels)
    detail = f"{1e6 * whole / n_cycles:.0f} µs / {1e6 * parts / n_cycles:.0f} µs per cycle, eigh of sizes {sizes}"
    row("EnKF-N + SQRT-CORE cycle / its eigh and model step", whole / parts, 2.2, "×", detail)


def batch_against_single(cfg: da.Experiment) -> None:
    """Eight experiments in one call over one."""
    model, method = stages.physical_model(cfg), stages.enkf(cfg, cfg.model_error_variance)
    seen, start = stages.observations(cfg)[:100], stages.climatological_ensemble(cfg)
    first = replace(seen, y=seen.y[0])
    one, eight = medians(
        lambda: da.cycle(method, model, first, start[0]), lambda: da.cycle(method, model, seen, start), repeats=21
    )
    detail = f"{1e3 * eight:.0f} ms / {1e3 * one:.0f} ms for 100 cycles"
    row("eight experiments in one call / one", eight / one, 5, "×", detail)


def lorenz96_in_numpy(x: np.ndarray, dt: float = 0.05, forcing: float = 8.0) -> np.ndarray:
    """The step as most packages write it: RK4 of a tendency with np.roll."""

    def tendency(x: np.ndarray) -> np.ndarray:
        return (np.roll(x, -1, -1) - np.roll(x, 2, -1)) * np.roll(x, 1, -1) - x + forcing

    k1 = tendency(x)
    k2 = tendency(x + dt / 2 * k1)
    k3 = tendency(x + dt / 2 * k2)
    k4 = tendency(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def model_step() -> None:
    """A step of Lorenz-96 for one ensemble and for a thousand members."""
    model = da.Lorenz96()
    for n_members, target, n in ((40, 70, 200), (1000, 450, 50)):
        x = torch.randn(n_members, 40, dtype=torch.float64)
        ours, numpys = medians(many(lambda x=x: model(x), n), many(lambda x=x: lorenz96_in_numpy(x.numpy()), n))
        detail = f"NumPy with np.roll {1e6 * numpys / n:.0f} µs: ratio {ours / numpys:.2f}"
        row(f"RK4 step of Lorenz-96, {n_members} × 40", 1e6 * ours / n, target, "µs", detail)


def hybrid_step() -> None:
    """A step of the hybrid over one of the physical model, 40 members."""
    model = da.Lorenz96()
    hybrid = da.HybridModel(model, da.CorrectionCNN().eval())
    x = torch.randn(40, 40, dtype=torch.float64)
    with torch.no_grad():
        physical, with_network = medians(many(lambda: model(x), 100), many(lambda: hybrid(x), 100))
    detail = f"{1e4 * with_network:.0f} µs / {1e4 * physical:.0f} µs"
    row("hybrid step / physical step, 40 members", with_network / physical, 8, "×", detail)


def training(cfg: da.Experiment) -> None:
    """CPU seconds of the course's training of one network, and the validation loss it buys, over five seeds.

    A single seed cannot tell: the variance of the last fifth of an analysis differs from seed to seed.
    """
    pairs = stages.pairs(cfg)
    one = replace(cfg, n_seeds=1)
    start = time.process_time()
    stages.train(one, stages.untrained(one), *(tuple(p[:1] for p in part) for part in pairs))
    row("training of one network, CPU", time.process_time() - start, 12, "s", f"{cfg.epochs} epochs")
    losses = stages.train(cfg, stages.untrained(cfg), *pairs).best_validation
    error = float(losses.std()) / len(losses) ** 0.5
    detail = f"0.817 and two standard errors of {error:.3f}"
    row(
        f"  its validation loss, mean of {len(losses)} seeds",
        float(losses.mean()),
        round(0.817 + 2 * error, 3),
        "",
        detail,
    )


def loop_training() -> None:
    """A gradient step of the loop: rollouts of 8 steps from 32 states, with SOAP and with Adam."""
    physical = da.Lorenz96()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 1, 32, 40, generator=generator).unbind(0)
    y = y.repeat(1, 1, 8)
    loss = da.rollout_loss(lambda network: da.HybridModel(physical, network), 8)

    def stepping(optimizer: type) -> Callable[[], None]:
        network = da.CorrectionCNN((1,))
        descent = optimizer(network.parameters(), lr=1e-4)

        def step() -> None:
            descent.zero_grad()
            loss(network, x, y).sum().backward()
            descent.step()

        return step

    soap, adam = medians(stepping(da.SOAP), stepping(torch.optim.Adam))
    row(
        "gradient step of the loop with SOAP / with Adam",
        soap / adam,
        1.3,
        "×",
        f"{1e3 * soap:.1f} and {1e3 * adam:.1f} ms",
    )


def perfect_model_twin(step: da.models.Step, model, std: float, batch: tuple[int, ...], n_times: int):
    """Truth, observations of every point, a start around the truth and the climate's covariance."""
    generator = torch.Generator().manual_seed(1)
    truth = da.trajectory(step, da.spin_up(model, batch, generator=generator), n_times - 1)
    seen = da.observe(truth, da.everywhere, std, generator=generator)
    start = truth[..., :1, :] + torch.randn(*batch, 100, truth.shape[-1], dtype=truth.dtype, generator=generator)
    climate = da.trajectory(step, da.spin_up(model, (20,), generator=generator), 400).flatten(0, 1)
    return truth, seen, start, covariances.climatological(climate)


def methods() -> None:
    """Milliseconds per observation time and the RMSE of the methods, single experiments unless said."""
    generator = torch.Generator().manual_seed(2)

    def per_time(what: str, target: float, loop, method, step, twin, n_experiments: int = 1) -> None:
        truth, seen, start, _ = twin
        loop(method, step, seen[:20] if seen.y.ndim == 2 else seen[:5], start, generator=generator)  # warm up
        results, seconds = [], []
        for _ in range(3):
            begin = time.perf_counter()
            results.append(loop(method, step, seen, start, generator=generator))
            seconds.append(time.perf_counter() - begin)
        both = torch.stack((results[0].analysis, results[0].smoothed)) if results[0].smoothed is not None else None
        error = da.rmse(results[0].analysis, truth)[..., len(seen) // 5 :].mean()
        detail = f"RMSE {error:.3f}" + (
            f", mean over the window {da.rmse(both, truth).mean(-1).mean():.3f}" if both is not None else ""
        )
        row(what, 1e3 * statistics.median(seconds) / len(seen) / n_experiments, target, "ms", detail)

    model = da.Lorenz96()
    twin = perfect_model_twin(model, model, 1.0, (), 500)
    B = twin[3]
    per_time("ETKF, Lorenz-96, Ne = 40", 0.25, da.cycle, da.ETKF(40, inflation=1.01), model, twin)
    per_time("stochastic EnKF, Ne = 40", 0.2, da.cycle, da.EnKF(40, inflation=1.06), model, twin)
    batch = perfect_model_twin(model, model, 1.0, (64,), 100)
    per_time("  of a batch of 64, per experiment", 0.1, da.cycle, da.EnKF(40, inflation=1.06), model, batch, 64)
    per_time("LETKF, Ne = 7", 1.5, da.cycle, da.LETKF(7, inflation=1.04, rotation=True), model, twin)
    per_time("3D-Var", 3.0, da.cycle, da.Var3D(covariances.scaled(B, 0.02)), model, twin)
    var4d = da.Var4D(covariances.scaled(B, 0.005), lag=10, shift=10, tolerance=1e-3)
    per_time("4D-Var, windows of ten", 6.0, da.cycle_windows, var4d, model, twin)
    lorenz63 = da.Lorenz63()
    step = da.repeated(lorenz63, 25)
    twin = perfect_model_twin(step, lorenz63, 2**0.5, (), 200)
    B = analysis_error_covariance(step, twin)
    var4d = da.Var4D(B, lag=2, shift=2, tolerance=1e-2)
    per_time("4D-Var, Lorenz-63, two observations 25 steps apart", 40.0, da.cycle_windows, var4d, step, twin)
    enkf_example()


def analysis_error_covariance(step: da.models.Step, twin) -> covariances.Diagonal:
    """Twice the mean variances of the analyses of an ETKF, a background covariance for 4D-Var."""
    _, seen, start, _ = twin
    analysis = da.cycle(da.ETKF(20, inflation=1.02), step, seen, start)
    return covariances.Diagonal(2.0 * analysis.variance[len(seen) // 5 :].mean(0))


def enkf_example() -> None:
    """Lorenz-63 as in the EnKF example of TorchDA: Euler steps of 0.001 up to T = 25, 50 members, every 500 steps."""
    model = da.Lorenz63(rho=35.0, dt=1e-3)
    euler = lambda x: torch.add(x, model.tendency(x), alpha=model.dt)  # noqa: E731
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        truth = da.trajectory(euler, da.spin_up(da.Lorenz63(rho=35.0), generator=generator), 25_000)
    seen = da.observe(truth, da.everywhere, 2.0, generator=generator, times=range(500, 25_001, 500))
    start = truth[500] + 2.0 * torch.randn(50, 3, dtype=truth.dtype, generator=generator)
    begin = time.perf_counter()
    result = da.cycle(da.EnKF(50, inflation=1.02), euler, seen, start, generator=generator)
    error = da.rmse(result.analysis, truth[500::500])[5:].mean()
    row("EnKF, Lorenz-63, 25 000 Euler steps, 50 members", time.perf_counter() - begin, 1.5, "s", f"RMSE {error:.3f}")


def import_time() -> None:
    """What ``import mooc_da`` adds to ``import torch``, in fresh processes."""
    code = "import time, torch; t = time.perf_counter(); import mooc_da; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    times = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    detail = f"five processes: {min(times):.2f} … {max(times):.2f} s"
    row("import mooc_da after import torch", statistics.median(times), 0.3, "s", detail)


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    cfg = replace(da.Experiment(), n_seeds=8, n_truth=1500, n_assimilated=500, burn_in=100, n_test=500)
    model_step()
    hybrid_step()
    cycle_against_its_kernels(cfg)
    batch_against_single(cfg)
    methods()
    import_time()
    training(da.Experiment())
    loop_training()
    met = sum(value <= target for value, target in ROWS)
    print(f"\n{met} of {len(ROWS)} targets met")


if __name__ == "__main__":
    main()
