"""Values that are missing, times without any and irregular times, through all the methods."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from mooc_da.covariances import Diagonal
from mooc_da.cycle import cycle, cycle_windows
from mooc_da.filters import ETKF, DEnKF, EnKF
from mooc_da.finite_size import EnKFN
from mooc_da.hybrids import EnsembleVar4D, HybridVar
from mooc_da.kalman import ExtendedKF, UnscentedKF
from mooc_da.localisation import LETKF
from mooc_da.models import Lorenz96, spin_up, trajectory
from mooc_da.observations import Observations, checkerboard, every, everywhere, observe
from mooc_da.particles import ParticleFilter
from mooc_da.smoothers import EnKS, FourDEnVar, IEnKS
from mooc_da.variational import Var3D, Var4D

B = Diagonal(torch.full((8,), 0.3, dtype=torch.float64))
FILTERS = {
    "EnKF": EnKF(6),  # its draws differ, but being centred they leave the first mean alone
    "DEnKF": DEnKF(6, 1.05),
    "ETKF": ETKF(6, 1.05),
    "ETKF few": ETKF(3),
    "EnKFN": EnKFN(6),
    "EnKFN plain": EnKFN(6, adaptive=False),
    "LETKF": LETKF(6, radius=1.5),
    "EnKS": EnKS(6, lag=9),
    "ExtendedKF": ExtendedKF(model_error_std=0.1),
    "UnscentedKF": UnscentedKF(model_error_std=0.1),
    "ParticleFilter": ParticleFilter(20, bandwidth=1.0),
    "Var3D": Var3D(B),
    "HybridVar": HybridVar(6, covariance=B),
}
WINDOWS = {
    "FourDEnVar": FourDEnVar(6, lag=2),
    "IEnKS": IEnKS(6, lag=1),
    "Var4D": Var4D(B, lag=2, shift=2),
    "EnsembleVar4D": EnsembleVar4D(6, covariance=B, lag=0),
}
ALL = pytest.mark.parametrize("method", (FILTERS | WINDOWS).values(), ids=FILTERS | WINDOWS)


def run(method, observations, start):
    loop = cycle_windows if method in WINDOWS.values() else cycle
    return loop(method, Lorenz96(), observations, start, generator=torch.Generator().manual_seed(1))


def assert_same(ours, expected):
    for name in ("forecast", "forecast_variance", "analysis", "variance", "smoothed", "smoothed_variance"):
        assert_close(getattr(ours, name), getattr(expected, name), atol=1e-7, rtol=0)
    for name in {"chi2", "log_likelihood", "zeta", "beta", "cost"} & ours.diagnostics.keys():
        assert_close(ours.diagnostics[name], expected.diagnostics[name], atol=1e-6, rtol=0, equal_nan=True)


@pytest.fixture
def twin(generator):
    """Truth of Lorenz-96 with eight sites, and a start."""
    states = spin_up(Lorenz96(), states=Lorenz96().random_state((21,), 8, generator=generator), n_steps=100)
    truth = trajectory(Lorenz96(), states[0], 9)
    return truth, truth[0] + 0.1 * states[1:]


@ALL
def test_values_that_are_missing_are_as_if_nobody_had_observed_them(method, twin, generator):
    truth, start = twin
    observations = observe(truth[:5], everywhere, 0.3, generator=generator)
    seen = [torch.arange(8).add(k) % 3 != 1 for k in range(5)]
    seen = [s if s.sum() == 5 else s & (s.cumsum(0) <= 5) for s in seen]  # five of eight, others each time
    gappy = replace(observations, y=observations.y.masked_fill(~torch.stack(seen), torch.nan))
    y = torch.stack([observations.y[k, seen[k]] for k in range(5)])
    without = Observations(y, lambda k: lambda x: x[..., seen[k]], observations.R[:5])
    if isinstance(method, EnKF | EnsembleVar4D):  # draws for other values are other draws
        ours, expected = (run(method, o[:1], start) for o in (gappy, without))
        assert_close(ours.analysis, expected.analysis, atol=1e-7, rtol=0)
    else:
        assert_same(run(method, gappy, start), run(method, without, start))


@ALL
def test_at_a_time_when_nothing_is_observed_there_is_only_the_forecast(method, twin, generator):
    truth, start = twin
    observations = observe(truth[:6], everywhere, 0.3, generator=generator)
    nobody = replace(observations, network=lambda k: None if k in (2, 5) else everywhere(k))
    y = observations.y.clone()
    y[2] = y[5] = torch.nan
    ours, nan = run(method, nobody, start), run(method, replace(observations, y=y), start)
    assert_same(ours, nan)
    assert torch.equal(ours.analysis, nan.analysis)
    if method in FILTERS.values():
        for k in (2, 5):
            assert torch.equal(ours.analysis[k], ours.forecast[k])
            assert torch.equal(ours.variance[k], ours.forecast_variance[k])
            assert all(value[k].isnan() for value in ours.diagnostics.values())
        assert not any(value[[0, 1, 3, 4]].isnan().any() for value in ours.diagnostics.values())


@ALL
def test_in_a_batch_what_one_experiment_misses_another_may_see(method, twin, generator):
    truth, start = twin
    y = observe(truth[:4], everywhere, 0.3, generator=generator).y.repeat(2, 1, 1)
    y[1, 1, 3:6] = y[1, 2] = torch.nan  # some values at one time, and all of the next
    observations = Observations(y, everywhere, torch.full((8,), 0.09, dtype=torch.float64))
    if getattr(method, "inflation", 1.0) != 1:
        method = replace(method, inflation=1.0)  # it is for analyses, also in a batch where one sees nothing
    batch = run(method, observations, start)
    assert torch.isfinite(batch.analysis).all()
    if isinstance(method, ParticleFilter | EnsembleVar4D):
        return  # draws differ along a batch
    n = 1 if isinstance(method, EnKF) else 3 if isinstance(method, EnKFN) else 4  # nu of EnKFN counts for all
    tolerance = 0.05 if isinstance(method, IEnKS | Var3D | Var4D | HybridVar) else 1e-7  # iterate until all are done
    for s in range(2):
        alone = run(method, replace(observations, y=y[s]), start)
        assert_close(batch.analysis[s, :n], alone.analysis[:n], atol=tolerance, rtol=0)


@pytest.mark.parametrize("method", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("model_error_std", (0.0, 0.1))
def test_irregular_times_are_a_run_on_every_step_with_nothing_in_between(method, model_error_std, twin, generator):
    truth, start = twin
    times = [0, 3, 4, 9]
    if hasattr(method, "model_error_std"):
        method = replace(method, model_error_std=model_error_std)
    observations = observe(truth, checkerboard, 0.3, generator=generator, times=times)
    y = torch.full((10, 4), torch.nan, dtype=torch.float64)
    y[times] = observations.y
    ours = cycle(method, Lorenz96(), observations, start, generator=torch.Generator().manual_seed(1))
    every_step = Observations(y, lambda k: checkerboard(k) if k in times else None, observations.R)
    long = cycle(method, Lorenz96(), every_step, start, generator=torch.Generator().manual_seed(1))
    for name in ("forecast", "forecast_variance", "analysis", "variance"):
        assert_close(getattr(ours, name), getattr(long, name)[times], atol=1e-7, rtol=0)
    if ours.smoothed is not None:
        assert_close(ours.smoothed, long.smoothed[times], atol=1e-7, rtol=0)


@pytest.mark.parametrize("method", (ETKF(8), DEnKF(8), EnKFN(8), EnKS(8, lag=2)), ids=lambda m: type(m).__name__)
def test_an_experiment_that_sees_nothing_at_a_time_keeps_its_ensemble_with_few_observations(method, twin, generator):
    truth, _ = twin
    start = torch.randn(12, 8, dtype=torch.float64, generator=generator)
    y = observe(truth[:3], every(4), 0.3, generator=generator).y.repeat(2, 1, 1)  # Ny = 2 < Ne
    y[1, 1] = torch.nan
    result = run(method, Observations(y, every(4), torch.full((2,), 0.09, dtype=torch.float64)), start)
    assert_close(result.analysis[1, 1], result.forecast[1, 1])
    assert result.diagnostics["log_likelihood"][1, 1].isnan()
    assert torch.isfinite(result.diagnostics["log_likelihood"][0]).all()
