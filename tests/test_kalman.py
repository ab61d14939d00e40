"""Filters that carry a covariance: against the textbook, the joint density, finite differences and exact moments."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from oracles import LinearProblem
from torch.testing import assert_close

from mooc_da.cycle import cycle
from mooc_da.filters import ETKF, FilterDivergence
from mooc_da.kalman import KF, ExtendedKF, Gaussian, UnscentedKF, jacobian, kf_update, sigma_points
from mooc_da.models import Lorenz96, spin_up, trajectory
from mooc_da.networks import CorrectionCNN, HybridModel
from mooc_da.observations import Observation, Pick, every, everywhere, observe

FILTERS = pytest.mark.parametrize("method", (KF, ExtendedKF, UnscentedKF, partial(UnscentedKF, kappa=1.5)))


@FILTERS
@pytest.mark.parametrize("missing", (False, True))
def test_on_a_linear_model_all_are_the_textbook_kalman_filter(method, missing, randn):
    p = LinearProblem(randn, std=0.3, missing=missing)
    result = cycle(method(inflation=1.1, model_error_std=0.3), p.step, p.observations, p.start)
    x, P, M = p.x, p.P, p.M.numpy()
    for k, y in enumerate(p.y.numpy()):
        if k:
            x, P = M @ x, 1.1**2 * M @ P @ M.T + 0.3**2 * np.eye(4)
        assert_close(result.forecast[k], torch.from_numpy(x))
        assert_close(result.forecast_variance[k], torch.from_numpy(np.diag(P).copy()))
        there = ~np.isnan(y)
        H, R = p.H.numpy()[there], np.diag(p.R.numpy()[there])
        K = P @ H.T @ np.linalg.inv(H @ P @ H.T + R)
        x, P = x + K @ (y[there] - H @ x), (np.eye(4) - K @ H) @ P
        assert_close(result.analysis[k], torch.from_numpy(x))
        assert_close(result.variance[k], torch.from_numpy(np.diag(P).copy()))


@FILTERS
@pytest.mark.parametrize("missing", (False, True))
def test_the_log_likelihoods_add_up_to_the_joint_density_of_all_values(method, missing, randn):
    p = LinearProblem(randn, std=0.3, missing=missing)
    result = cycle(method(model_error_std=0.3), p.step, p.observations, p.start)
    assert_close(result.diagnostics["log_likelihood"].nansum(), p.log_likelihood())
    assert result.diagnostics["log_likelihood"].isnan().sum() == missing


def test_chi2_is_the_squared_innovation_per_value(randn):
    p = LinearProblem(randn)
    statistics = KF().analyse(KF().start(p.start), p.observations[0])[1]
    d, S = p.y[0] - p.observe(p.start.mean(0)), p.H @ torch.from_numpy(p.P) @ p.H.T + p.R.diag()
    assert_close(statistics["chi2"], d @ torch.linalg.solve(S, d) / 2)


def network():
    return HybridModel(Lorenz96(), CorrectionCNN((), (3,), (3, 3)).double()).eval()


@pytest.mark.parametrize("f", (Lorenz96(), lambda x: x[..., ::2] ** 3, network()), ids=("Lorenz96", "H", "hybrid"))
def test_the_jacobian_is_that_of_finite_differences(f, randn):
    x, h = 3 * randn(2, 8), 1e-6 if not isinstance(f, HybridModel) else 1e-2  # the network inside is float32
    value, J = jacobian(f, x)
    assert_close(value, f(x), atol=1e-5, rtol=1e-5)
    for s in range(2):
        columns = [(f(x[s] + h * e) - f(x[s] - h * e)) / (2 * h) for e in torch.eye(8, dtype=torch.float64)]
        assert_close(J[s], torch.stack(columns, -1).detach(), atol=1e-7 if h < 1e-3 else 3e-4, rtol=1e-6)


def test_the_extended_filter_carries_the_covariance_by_the_tangent_of_the_model(randn):
    x, P = spin_up(Lorenz96(), states=randn(6) + 2, n_steps=200), 0.01 * torch.eye(6, dtype=torch.float64)
    forecast = ExtendedKF().forecast(Gaussian(x, P), Lorenz96())
    J = torch.autograd.functional.jacobian(Lorenz96(), x)
    assert_close(forecast.x, Lorenz96()(x))
    assert_close(forecast.P, J @ P @ J.T)
    E = x + 1e-4 * randn(5000, 6)  # small departures follow the tangent
    tolerance = 5 * (2 / 5000) ** 0.5 * 1e-8 * (J @ J.T).diagonal().max().item()
    assert_close(torch.cov(Lorenz96()(E).T), 1e-8 * J @ J.T, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kappa", (0.0, 2.0))
def test_the_unscented_mean_of_a_quadratic_function_is_exact(kappa, randn):
    A, b, x, root = randn(3, 4, 4), randn(3, 4), randn(4), randn(4, 4)
    P = root @ root.T
    quadratic = lambda x: torch.einsum("...i,aij,...j->...a", x, A, x) + x @ b.T  # noqa: E731
    points, weights = sigma_points(Gaussian(x, P), kappa)
    exact = quadratic(x) + torch.einsum("aij,ij->a", A, P)
    assert_close(weights @ quadratic(points), exact)
    assert_close(weights @ points, x)
    X = points - x
    assert_close(X.T @ (weights[:, None] * X), P)
    square = lambda x: torch.cat((x[..., :1] ** 2, x[..., 1:]), -1)  # noqa: E731
    assert_close(UnscentedKF(kappa=kappa).forecast(Gaussian(x, P), square).x[0], x[0] ** 2 + P[0, 0])


def test_observing_a_square_moves_the_unscented_mean_by_its_sigma_points(randn):
    x, P, y = randn(1), torch.full((1, 1), 0.5, dtype=torch.float64), 2 + randn(1)
    R = torch.full((1,), 0.2, dtype=torch.float64)
    state, _ = UnscentedKF().analyse(Gaussian(x, P), Observation(y, torch.square, R))
    a, s = float(x), 0.5**0.5  # two points a - s, a + s of weight one half
    mean, covariance, variance = a**2 + s**2, 2 * a * s**2, (2 * a * s) ** 2
    gain = covariance / (variance + 0.2)
    assert float(state.x) == pytest.approx(a + gain * (float(y) - mean))
    assert float(state.P) == pytest.approx(0.5 - gain * covariance)


@pytest.mark.parametrize("method", (ExtendedKF(1.02, 0.02), UnscentedKF(1.02, 0.02)))
def test_on_lorenz_96_they_track_the_truth_as_well_as_a_large_ensemble(method, generator):
    model = Lorenz96()
    states = spin_up(model, states=model.random_state((41,), 10, generator=generator), n_steps=300)
    truth = trajectory(model, states[0], 150)
    observations = observe(truth, every(2), 0.2, generator=generator)
    start = truth[0] + 0.1 * (states[1:] - states.mean(0))  # where the model is nearly linear over a step
    error = lambda r: (r.analysis - truth)[50:].square().mean().sqrt()  # noqa: E731
    ours, ensemble = (cycle(m, model, observations, start) for m in (method, ETKF(40, 1.02, 0.02)))
    assert error(ours) < 1.3 * error(ensemble)


@FILTERS
def test_a_batch_of_experiments_is_a_loop_and_no_argument_changes(method, randn, unmodified):
    p = LinearProblem(randn)
    start, y = randn(3, 6, 4), randn(3, 2)
    m = method(1.1, 0.2)
    with unmodified(start, y, p.R):
        state, statistics = m.analyse(m.forecast(m.start(start), p.step), Observation(y, p.observe, p.R))
    for s in range(3):
        alone, expected = m.analyse(m.forecast(m.start(start[s]), p.step), Observation(y[s], p.observe, p.R))
        assert_close(state.x[s], alone.x)
        assert_close(state.P[s], alone.P)
        assert_close(statistics["log_likelihood"][s], expected["log_likelihood"])


def test_an_update_keeps_the_covariance_symmetric_and_positive(randn):
    x, root, H = randn(6), randn(6, 6), randn(3, 6)
    _, P, _ = kf_update(x, root @ root.T, H @ x, H, randn(3), torch.full((3,), 1e-8, dtype=torch.float64))
    assert torch.equal(P, P.T)
    assert torch.linalg.eigvalsh(P).min() > -1e-9


@pytest.mark.parametrize(
    "f",
    (Lorenz96(), torch.square, lambda x: x**3, torch.abs, torch.relu),  # the last two are linear on each side of zero
    ids=("Lorenz96", "square", "cube", "abs", "relu"),
)
def test_the_kalman_filter_refuses_what_is_not_linear(f, randn):
    p = LinearProblem(randn)
    with pytest.raises(ValueError, match="KF: step is not linear.*ExtendedKF"):
        cycle(KF(), f, p.observations, p.start)
    if not isinstance(f, Lorenz96):
        observations = observe(randn(3, 4), everywhere, 1.0, generator=torch.Generator().manual_seed(1))
        with pytest.raises(ValueError, match="KF: H is not linear"):
            KF().analyse(KF().start(p.start), observations[0]._replace(H=f))


def test_the_kalman_filter_takes_what_is_linear_and_a_constant(randn):
    p = LinearProblem(randn)
    shifted = cycle(KF(), lambda x: p.step(x) + 3, p.observations, p.start)
    assert_close(shifted.analysis, cycle(ExtendedKF(), lambda x: p.step(x) + 3, p.observations, p.start).analysis)


@pytest.mark.parametrize("method", (ExtendedKF(), UnscentedKF()))
def test_a_model_that_blows_up_is_a_divergence_with_what_there_was(method, randn):
    p = LinearProblem(randn)
    now = [0]  # the time that was observed last
    network = lambda k: (now.append(k), p.observe)[1]  # noqa: E731
    breaking = lambda x: p.step(x) * (torch.inf if now[-1] == 2 else 1.0)  # noqa: E731
    with pytest.raises(FilterDivergence, match="time 3 of 5") as caught:
        cycle(method, breaking, replace(p.observations, network=network), p.start)
    assert len(caught.value.partial) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: KF(inflation=0.0), "inflation = 0.0"),
        (lambda: ExtendedKF(inflation=float("nan")), "inflation = nan"),
        (lambda: UnscentedKF(model_error_std=-1.0), "model_error_std = -1.0"),
        (lambda: UnscentedKF(kappa=-0.1), "kappa = -0.1"),
        (lambda: KF().start(torch.zeros(4)), r"start has shape \(4,\)"),
        (lambda: KF().start(torch.zeros(1, 4)), "at least 2 states"),
    ),
)
def test_what_makes_no_sense_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_values_are_as_if_they_had_never_been_there(randn):
    E, y, R = 2 * randn(9, 6), randn(6), torch.full((6,), 0.5, dtype=torch.float64)
    gaps = torch.tensor([False, True, False, True, True, False])
    missing = Observation(y.masked_fill(gaps, 0.0), Pick(), R.masked_fill(gaps, torch.inf))
    without = Observation(y[~gaps], lambda x: x[..., ~gaps], R[~gaps])
    for method in (KF(), UnscentedKF()):
        (a, a_stats), (b, b_stats) = (method.analyse(method.start(E), obs) for obs in (missing, without))
        assert_close((a.x, a.P), (b.x, b.P))
        assert_close(a_stats, b_stats)
