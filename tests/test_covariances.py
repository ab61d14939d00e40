"""Covariances as square roots against their matrices, estimates against answers that are known."""

import math

import pytest
import torch
from oracles import LinearProblem
from torch.testing import assert_close

from mooc_da.covariances import (
    Blend,
    Dense,
    Diagonal,
    Homogeneous,
    LowRank,
    chi2_consistency,
    climatological,
    departures,
    desroziers,
    nmc,
    scaled,
)
from mooc_da.cycle import cycle
from mooc_da.filters import ETKF
from mooc_da.kalman import KF
from mooc_da.localisation import coordinates
from mooc_da.models import trajectory
from mooc_da.observations import Observations, every, everywhere, observe


def matrix(B):
    """The covariance that the square root stands for, (Nx, Nx)."""
    S = B.sqrt(torch.eye(B.rank, dtype=torch.float64))  # (rank, Nx)
    return S.mT @ S


def positive(randn, n):
    root = randn(n, n)
    return root @ root.T + 0.1 * torch.eye(n)


def gaussian(grid, length):
    """``exp(-d^2 / 2 l^2)`` of all pairs of points of a periodic grid."""
    x = coordinates(grid, torch.device("cpu"))
    apart = (x - x[:, None]).abs()
    return torch.exp(-0.5 * torch.minimum(apart, x.new_tensor(grid) - apart).square().sum(-1) / length**2)


@pytest.fixture(params=("Diagonal", "Dense", "LowRank", "Homogeneous", "two fields", "Blend", "scaled"))
def known(request, randn):
    """A covariance and its matrix."""
    B, X = positive(randn, 12), randn(5, 12)
    std = torch.tensor([2.0, 0.5], dtype=torch.float64)
    variance = randn(12) ** 2
    low_rank = X.T @ X / 4
    ring = 4 * gaussian((12,), 1.0)
    fields = torch.block_diag(4 * gaussian((2, 3), 0.6), 0.25 * gaussian((2, 3), 0.6))
    return {
        "Diagonal": (Diagonal(variance), variance.diag()),
        "Dense": (Dense(B), B),
        "LowRank": (LowRank(X), low_rank),
        "Homogeneous": (Homogeneous(std[:1], 1.0, (12,)), ring),
        "two fields": (Homogeneous(std, 0.6, (2, 3)), fields),
        "Blend": (Blend((Dense(B), LowRank(X), Diagonal(variance)), (0.5, 2.0, 0.0)), 0.5 * B + 2 * low_rank),
        "scaled": (scaled(Dense(B), 0.3), 0.3 * B),
    }[request.param]


def test_the_square_root_has_the_covariance_and_the_variance_claimed(known, randn):
    B, expected = known
    assert_close(matrix(B), expected, atol=1e-6, rtol=0)
    assert_close(B.variance, expected.diag())
    n = 20_000
    draws = B.sqrt(randn(n, B.rank))
    scale = expected.diag().sqrt()
    assert_close(draws.T @ draws / n, expected, atol=5 * (2 / n) ** 0.5 * float(scale.max()) ** 2, rtol=0)


def test_the_square_root_takes_one_vector_or_many_and_changes_none(known, randn, unmodified):
    B, _ = known
    v = randn(3, 2, B.rank)
    with unmodified(v):
        draws = B.sqrt(v)
    assert draws.shape == (3, 2, 12)
    assert_close(draws[1, 1], B.sqrt(v[1, 1:])[0])


def test_covariances_of_a_batch_of_experiments_are_separate(randn):
    X, v = randn(3, 5, 6), randn(3, 4, 5)
    matrices = X.mT @ X / 4 + torch.eye(6)
    w = randn(3, 4, 6)
    for s in range(3):
        assert_close(LowRank(X).sqrt(v)[s], LowRank(X[s]).sqrt(v[s]))
        assert_close(Dense(matrices).sqrt(w)[s], Dense(matrices[s]).sqrt(w[s]))
        assert_close(LowRank(X).variance[s], LowRank(X[s]).variance)
    blend = Blend((Diagonal(torch.ones(6, dtype=torch.float64)), LowRank(X)), (0.5, 0.5))
    assert blend.sqrt(randn(3, 4, 11)).shape == (3, 4, 6)
    assert blend.variance.shape == (3, 6)


@pytest.mark.parametrize(("grid", "length"), (((40,), 0.5), ((40,), 3.0), ((24, 20), 1.7), ((9, 11), 1.3)))
def test_a_homogeneous_correlation_is_the_gaussian_of_the_distance(grid, length):
    B = matrix(Homogeneous(torch.ones(1, dtype=torch.float64), length, grid))
    assert_close(B, gaussian(grid, length), atol=1e-5, rtol=0)  # what is clamped of the spectrum


def test_a_homogeneous_covariance_knows_no_place_and_no_direction(randn):
    B = matrix(Homogeneous(torch.full((1,), 1.7, dtype=torch.float64), 2.0, (24, 24))).view(24, 24, 24, 24)
    assert_close(B[3, 5], B[0, 0].roll((3, 5), (0, 1)))
    assert_close(B[0, 0], B[0, 0].T)
    assert float(B[0, 0, 3, 4]) == pytest.approx(float(B[0, 0, 5, 0]), rel=1e-4)  # both at a distance of 5
    assert float(B[0, 0, 3, 4]) == pytest.approx(1.7**2 * math.exp(-25 / 8), rel=1e-3)


def test_a_correlation_as_long_as_the_domain_keeps_its_variance():
    B = Homogeneous(torch.ones(1, dtype=torch.float64), 30.0, (40,))
    assert_close(matrix(B).diag(), torch.ones(40, dtype=torch.float64))
    assert torch.linalg.eigvalsh(matrix(B)).min() > -1e-12


@pytest.mark.parametrize("n_samples", (5, 400), ids=("few", "many"))
def test_the_climatological_covariance_is_that_of_the_states(n_samples, randn):
    states = 3 + randn(n_samples, 8) @ randn(8, 8)
    B = climatological(states)
    assert_close(matrix(B), torch.cov(states.T))
    assert B.rank == min(n_samples, 8)


def test_differences_of_forecasts_of_a_linear_model_have_the_covariance_they_must(randn):
    n, short, long = 4000, 2, 3
    M, root = torch.linalg.qr(randn(4, 4))[0] * 0.9, randn(4, 4)
    states = [randn(4)]
    for noise in randn(n, 4):  # analyses that each differ from the forecast by root @ noise
        states.append(M @ states[-1] + root @ noise)
    B = nmc(lambda x: x @ M.T, torch.stack(states), short, long)
    expected = 0.5 * (M @ M @ root) @ (M @ M @ root).T  # of M^short times one such difference, halved
    assert_close(matrix(B), expected, atol=6 * (2 / n) ** 0.5 * float(expected.diag().max()), rtol=0)


def test_forecasts_from_a_run_of_the_model_itself_do_not_differ(randn):
    M = torch.linalg.qr(randn(4, 4))[0]
    run = trajectory(lambda x: x @ M.T, randn(4), 6)
    assert_close(nmc(lambda x: x @ M.T, run, 1, 3).variance, torch.zeros(4, dtype=torch.float64))


@pytest.fixture
def consistent(randn, generator):
    """A linear model with all its covariances right: observations, a start, the arguments of a filter."""
    n, n_times, std, R = 4, 1000, 0.5, 0.8
    M = torch.linalg.qr(randn(n, n))[0] * 0.95
    truth = [randn(n)]
    for noise in randn(n_times - 1, n):
        truth.append(M @ truth[-1] + std * noise)
    observations = observe(torch.stack(truth), every(2), R**0.5, generator=generator)
    return lambda x: x @ M.T, observations, randn(30, n), std, R


@pytest.mark.parametrize("method", (KF, lambda **tuning: ETKF(30, **tuning)), ids=("KF", "ETKF"))
def test_departures_of_a_consistent_filter_tell_its_covariances(method, consistent):
    step, observations, start, std, R = consistent
    result = cycle(method(model_error_std=std), step, observations, start)[100:]
    part = observations[100:]
    R_estimate, P_estimate = desroziers(result.forecast, result.analysis, part)
    P = result.forecast_variance[-1, ::2]
    tolerance = 5 * (2 / len(part)) ** 0.5 * (P + R)
    assert ((R_estimate - R).abs() < tolerance).all()
    assert ((P_estimate - P).abs() < tolerance).all()
    assert_close(R_estimate + P_estimate, departures(result.forecast, part).square().mean(0))
    chi2, error = chi2_consistency(result.diagnostics["chi2"], 2)
    assert abs(float(chi2) - 1) < 4 * error
    assert error == pytest.approx((2 / (2 * len(part))) ** 0.5)


@pytest.mark.parametrize(("model_error_std", "sign"), ((0.2, 1), (1.0, -1)), ids=("too sure", "too careful"))
def test_chi2_tells_a_filter_that_is_too_sure_from_one_too_careful(model_error_std, sign, consistent):
    step, observations, start, *_ = consistent
    result = cycle(KF(model_error_std=model_error_std), step, observations, start)[100:]
    chi2, error = chi2_consistency(result.diagnostics["chi2"], 2)
    assert sign * (float(chi2) - 1) > 10 * error


def test_departures_are_nothing_where_nothing_is_observed(randn):
    p = LinearProblem(randn, missing=True)
    states = randn(5, 4)
    observations = Observations(p.y, lambda k: None if k == 4 else p.observe, p.R)
    d = departures(states, observations)
    assert_close(d[:4], (p.y - p.observe(states))[:4], equal_nan=True)
    assert d[4].isnan().all()
    result = cycle(KF(), p.step, observations, p.start)
    for estimate in desroziers(result.forecast, result.analysis, observations):
        assert torch.isfinite(estimate).all()


NOT_SYMMETRIC = torch.tensor([[1.0, 0.5], [0.2, 1.0]])
INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
ONE = Diagonal(torch.ones(2))


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: Dense(NOT_SYMMETRIC), r"B is not symmetric \(by 0.3\)"),
        (lambda: Dense(INDEFINITE), r"B is not positive definite \(smallest eigenvalue -1\)"),
        (lambda: Dense(torch.ones(2, 3)), r"B has shape \(2, 3\): expected a square matrix"),
        (lambda: Dense(INDEFINITE * math.nan), "B contains NaN"),
        (lambda: Diagonal(torch.tensor([1.0, -0.1])), "variance: expected finite numbers, zero or positive"),
        (lambda: Diagonal(torch.tensor([1.0, math.nan])), "variance: expected finite numbers"),
        (lambda: LowRank(torch.ones(1, 4)), r"X \(1, 4\).*at least 2 states"),
        (lambda: LowRank(torch.full((3, 4), math.inf)), "expected finite anomalies"),
        (lambda: Homogeneous(torch.tensor(1.0), 2.0, (8,)), "one standard deviation.*for each field"),
        (lambda: Homogeneous(torch.tensor([-1.0]), 2.0, (8,)), "std: expected"),
        (lambda: Homogeneous(torch.ones(1), 0.0, (8,)), "length = 0.0"),
        (lambda: Homogeneous(torch.ones(1), math.nan, (8,)), "length = nan"),
        (lambda: Blend((ONE, ONE), (0.5,)), r"weights = \(0.5,\)"),
        (lambda: Blend((ONE, ONE), (1.5, -0.5)), r"weights = \(1.5, -0.5\)"),
        (lambda: Blend((ONE, ONE), (math.nan, 0.5)), r"weights = \(nan, 0.5\)"),
        (lambda: Blend((), ()), r"weights = \(\)"),
        (lambda: scaled(ONE, -1.0), r"weights = \(-1.0,\)"),
        (lambda: nmc(torch.sin, torch.zeros(9, 2), 3, 3), "short = 3, long = 3: expected 0 < short < long < 9"),
        (lambda: nmc(torch.sin, torch.zeros(9, 2), 0, 3), "short = 0"),
        (lambda: nmc(torch.sin, torch.zeros(9, 2), 3, 9), "long = 9"),
    ),
)
def test_what_is_no_covariance_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_departures_of_other_times_are_refused(randn):
    p = LinearProblem(randn)
    with pytest.raises(ValueError, match="5 states for 3 observations"):
        departures(randn(5, 4), Observations(p.y[:3], everywhere, p.R))
