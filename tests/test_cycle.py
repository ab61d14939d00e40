"""The loop: alignment in time, agreement with the Kalman filter, clean failure."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mooc_da.cycle import CycleResult, cycle
from mooc_da.filters import ETKF, EnKF, FilterDivergence
from mooc_da.finite_size import EnKFN
from mooc_da.kalman import ExtendedKF
from mooc_da.localisation import LETKF
from mooc_da.models import Lorenz96, spin_up, trajectory
from mooc_da.networks import CorrectionCNN, HybridModel
from mooc_da.observations import Observations, checkerboard, every, everywhere, observe
from mooc_da.particles import ParticleFilter
from mooc_da.smoothers import EnKS

MODEL = Lorenz96()
METHODS = pytest.mark.parametrize(
    "method", (ETKF(12, inflation=1.05), EnKFN(12), EnKFN(12, adaptive=False)), ids=("ETKF", "EnKFN", "EnKFN plain")
)


@pytest.fixture
def twin(generator):
    """Truth (2, 30, 40), observations and a start (2, 12, 40) of two experiments."""
    states = spin_up(MODEL, (2, 13), generator=generator, n_steps=200)
    truth = trajectory(MODEL, states[:, 0], 29)
    return truth, observe(truth, checkerboard, 0.2, generator=generator), truth[:, :1] + 0.1 * states[:, 1:]


def test_on_a_linear_model_the_cycle_is_the_kalman_filter_with_its_model_error(randn, generator):
    n_sites, n_times, std = 5, 12, 0.3  # more members than sites: SQRT-CORE adds all of Q
    M, H = np.linalg.qr(randn(n_sites, n_sites).numpy())[0] * 1.02, np.eye(n_sites)[::2]
    start = randn(9, n_sites)
    step = lambda x: x @ torch.from_numpy(M).T  # noqa: E731
    observations = observe(trajectory(step, randn(n_sites), n_times - 1), every(2), 0.5, generator=generator)
    result = cycle(ETKF(9, model_error_std=std), step, observations, start)
    x, P = start.mean(0).numpy(), np.cov(start.T)
    for k in range(n_times):
        if k:
            x, P = M @ x, M @ P @ M.T + std**2 * np.eye(n_sites)
        assert_close(result.forecast[k], torch.from_numpy(x))
        assert_close(result.forecast_variance[k], torch.from_numpy(np.diag(P).copy()))
        K = P @ H.T @ np.linalg.inv(H @ P @ H.T + 0.25 * np.eye(len(H)))
        x, P = x + K @ (observations[k].y.numpy() - H @ x), P - K @ H @ P
        assert_close(result.analysis[k], torch.from_numpy(x))
        assert_close(result.variance[k], torch.from_numpy(np.diag(P).copy()))


@METHODS
def test_row_k_belongs_to_time_k(method, twin):
    truth, observations, start = twin
    result = cycle(method, MODEL, observations, start, keep_ensembles=True)
    assert len(result) == 30
    assert torch.equal(result.forecast[:, 0], start.mean(-2))
    assert torch.equal(result.ensembles[:, 0], start)
    exact = cycle(method, MODEL, Observations(truth, everywhere, torch.full((40,), 1e-8, dtype=torch.float64)), start)
    misfit = [(exact.analysis[:, 10:20] - truth[:, 10 + lag : 20 + lag]).square().mean() for lag in (-1, 0, 1)]
    assert misfit[1] < 0.5 * min(misfit[0], misfit[2])


def test_the_result_is_consistent_with_its_ensembles(twin):
    _, observations, start = twin
    result = cycle(EnKFN(12), MODEL, observations, start, keep_ensembles=True)
    assert_close(result.forecast, result.ensembles.mean(-2))
    assert_close(result.forecast_variance, result.ensembles.var(-2))
    assert_close(result.forecast_spread, result.ensembles.var(-2).mean(-1).sqrt())
    assert torch.equal(result.increments, result.analysis - result.forecast)
    assert set(result.diagnostics) == {"chi2", "log_likelihood", "zeta", "beta"}
    assert all(v.shape == (2, 30) for v in result.diagnostics.values())
    assert cycle(EnKFN(12), MODEL, observations, start).ensembles is None


def test_a_slice_of_a_result_is_the_result_of_those_times(twin):
    _, observations, start = twin
    result = cycle(EnKFN(12), MODEL, observations, start, keep_ensembles=True)
    part = result[5:9]
    assert isinstance(part, CycleResult)
    assert len(part) == 4
    assert torch.equal(part.analysis, result.analysis[:, 5:9])
    assert torch.equal(part.spread, result.spread[:, 5:9])
    assert torch.equal(part.ensembles, result.ensembles[:, 5:9])
    assert torch.equal(part.diagnostics["zeta"], result.diagnostics["zeta"][:, 5:9])
    with pytest.raises(TypeError, match="slice of times"):
        result[3]


@METHODS
def test_a_hybrid_with_a_zero_correction_is_the_physical_model_bit_for_bit(method, twin):
    _, observations, start = twin
    network = CorrectionCNN().eval()
    torch.nn.init.zeros_(network.layers[-1].weight)
    physical, hybrid = (cycle(method, step, observations, start) for step in (MODEL, HybridModel(MODEL, network)))
    assert torch.equal(hybrid.analysis, physical.analysis)
    assert torch.equal(hybrid.variance, physical.variance)


@METHODS
def test_a_batch_of_experiments_is_a_loop(method, twin, unmodified):
    _, observations, start = twin
    with unmodified(observations.y, start):
        batch = cycle(method, MODEL, observations, start)
    for s in range(2):
        alone = cycle(method, MODEL, Observations(observations.y[s], checkerboard, observations.R), start[s])
        assert_close(batch.analysis[s], alone.analysis, atol=1e-5, rtol=0)  # chaos: rounding grows
        assert_close(batch.diagnostics["chi2"][s], alone.diagnostics["chi2"], atol=1e-4, rtol=0)


def test_one_run_of_observations_serves_a_batch_of_tunings(twin):
    _, observations, start = twin
    y, E = observations.y[0], start[0]
    inflations = (1.0, 1.1, 1.2)
    batch = cycle(
        ETKF(12, inflation=torch.tensor(inflations, dtype=torch.float64)),
        MODEL,
        Observations(y, checkerboard, observations.R),
        E.expand(3, 12, 40),
    )
    for s, inflation in enumerate(inflations):
        alone = cycle(ETKF(12, inflation=inflation), MODEL, Observations(y, checkerboard, observations.R), E)
        assert_close(batch.analysis[s], alone.analysis, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "method",
    (
        EnKF(12),
        ETKF(12, 1.05, model_error_std=0.1, rotation=True),
        EnKFN(12),
        LETKF(12, rotation=True),
        EnKS(12, lag=3),
        ParticleFilter(12, bandwidth=1.0),
        ExtendedKF(1.02),
    ),
    ids=lambda m: type(m).__name__,
)
def test_from_its_final_state_a_run_goes_on_exactly(method, twin):
    _, observations, start = twin
    whole = cycle(method, MODEL, observations[:9], start, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    part = cycle(method, MODEL, observations[:5], start, generator=generator)
    state = part.final
    assert torch.equal(state.moments()[0], part.analysis[:, -1])
    for k in range(5, 9):
        state = method.forecast(state, MODEL, generator)
        assert torch.equal(state.moments()[0], whole.forecast[:, k])
        state, _ = method.analyse(state, observations[k], generator)
        assert torch.equal(state.moments()[0], whole.analysis[:, k])
        assert torch.equal(state.moments()[1], whole.variance[:, k])


def test_an_ensemble_run_goes_on_by_a_new_cycle_from_its_next_forecast(twin):
    _, observations, start = twin
    whole = cycle(ETKF(12, 1.05), MODEL, observations, start)
    part = cycle(ETKF(12, 1.05), MODEL, observations[:10], start)
    rest = cycle(ETKF(12, 1.05), MODEL, observations[10:], MODEL(part.final.E))
    assert torch.equal(rest.analysis, whole.analysis[:, 10:])


@pytest.mark.parametrize("method", (EnKF(12), ETKF(12, rotation=True)), ids=("EnKF", "ETKF"))
def test_the_same_generator_gives_the_same_run_and_another_does_not(method, twin):
    _, observations, start = twin
    first, again, other = (
        cycle(method, MODEL, observations, start, generator=torch.Generator().manual_seed(s)).analysis
        for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_number_of_threads_and_the_gradient_mode_survive_also_an_error(twin):
    _, observations, start = twin
    torch.set_num_threads(2)
    try:
        seen = []
        cycle(
            ETKF(12),
            lambda x: (seen.append((torch.get_num_threads(), torch.is_grad_enabled())), MODEL(x))[1],
            observations,
            start,
        )
        assert set(seen) == {(1, False)}
        assert torch.get_num_threads() == 2
        with pytest.raises(FilterDivergence):
            cycle(ETKF(12), lambda x: 1e200 * x, observations, start)
        assert torch.get_num_threads() == 2
        assert torch.is_grad_enabled()
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("value", (math.nan, math.inf, 1e300))
@METHODS
def test_a_diverging_filter_says_when_and_hands_over_what_it_had(method, value, twin):
    _, observations, start = twin
    calls = iter(range(100))
    breaking = lambda x: MODEL(x) if next(calls) < 8 else MODEL(x) * value  # noqa: E731  the first call is a check of shapes
    with pytest.raises(FilterDivergence, match=r"diverged at time 8 of 30.*[Ii]ncrease inflation.*partial") as caught:
        cycle(method, breaking, observations, start)
    assert torch.equal(caught.value.partial.analysis, cycle(method, MODEL, observations, start).analysis[:, :8])


def fitting(**changes):
    """Arguments of a cycle that fit each other, with changes."""
    return {
        "method": ETKF(5),
        "step": MODEL,
        "observations": Observations(
            torch.zeros(3, 20, dtype=torch.float64), checkerboard, torch.ones(20, dtype=torch.float64)
        ),
        "start": spin_up(MODEL, (5,), generator=torch.Generator().manual_seed(1), n_steps=10),
    } | changes


START, OBSERVATIONS = fitting()["start"], fitting()["observations"]
TWO = Observations(OBSERVATIONS.y.expand(2, 3, 20), checkerboard, OBSERVATIONS.R)


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"observations": OBSERVATIONS[3:]}, "observations: there are none"),
        ({"start": START[:4]}, r"start has shape \(4, 40\).*at least size = 5"),
        ({"start": START[0]}, r"start has shape \(40,\)"),
        ({"start": START.float()}, r"start is torch.float32 but the observations are torch.float64.*\.to\("),
        ({"start": START * math.nan}, "start.*NaN or infinite"),
        ({"start": START[:, :30]}, "30 points gives 15 values, but 20 are observed"),
        (
            {"start": START.expand(3, 5, 40), "observations": TWO},
            r"start has experiments \(3,\) but the observations \(2,\)",
        ),
        ({"step": lambda x: x[..., :20]}, r"step maps a state of shape \(1, 40\) to \(1, 20\)"),
        ({"step": HybridModel(MODEL, CorrectionCNN())}, r"training mode: call step.eval\(\)"),
    ),
)
def test_parts_that_do_not_fit_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        cycle(**fitting(**changes))


@pytest.mark.parametrize(
    "changes",
    (
        {"observations": TWO},  # one start for two experiments
        {"method": ETKF(5, inflation=torch.tensor([1.0, 1.1]))},  # two tunings for one start
        {"method": ETKF(5, inflation=torch.ones(3)), "start": START.expand(2, 5, 40)},  # three tunings for two starts
        {"step": lambda x: MODEL(x).float()},
    ),
    ids=("two observations, one start", "two tunings, one start", "three tunings, two starts", "step changes dtype"),
)
def test_what_broadcasts_only_halfway_works_or_is_refused_clearly(changes):
    try:
        result = cycle(**fitting(**changes))
    except ValueError as error:
        assert "expected" in str(error) or "convert" in str(error)
    else:
        assert result.forecast.shape == result.analysis.shape
