"""Filters against the Kalman filter, dense textbook formulas and the costs that they minimise, all written out here."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mooc_da.ensembles import additive_noise, innovation_modes, spread, sqrt_core
from mooc_da.filters import ETKF, DEnKF, EnKF, Ensemble, denkf_update, enkf_update, etkf_update
from mooc_da.finite_size import EnKFN, enkf_n_update, finite_size_zeta
from mooc_da.observations import Observation, Pick

SIZES = pytest.mark.parametrize(("n_members", "n_values"), ((9, 4), (5, 9), (9, 9)), ids=("Ne>Ny", "Ne<Ny", "Ne=Ny"))
FILTERS = pytest.mark.parametrize(
    "method",
    (EnKF(6), DEnKF(6), ETKF(6), EnKFN(6), EnKFN(6, adaptive=False)),
    ids=("EnKF", "DEnKF", "ETKF", "EnKFN", "EnKFN plain"),
)


@pytest.fixture
def problem(randn):
    """``problem(Ne, Ny)``: ensemble, observed ensemble, values, variances and the linear operator (Ny, Nx)."""

    def draw(n_members, n_values, n_sites=7):
        E, H = 1.5 * randn(n_members, n_sites) + randn(n_sites), randn(n_values, n_sites)
        return E, E @ H.T, 2 * randn(n_values), 0.2 + randn(n_values) ** 2, H

    return draw


def kalman(x, P, y, H, R):
    """Analysis mean and covariance of the Kalman filter."""
    K = P @ H.T @ np.linalg.inv(H @ P @ H.T + np.diag(R))
    return x + K @ (y - H @ x), P - K @ H @ P


def symmetric_power(A, power):
    values, vectors = np.linalg.eigh(A)
    return vectors @ np.diag(values**power) @ vectors.T


def normalised(E, HE, y, R):
    """x, X, Y (Ne, Ny), delta as NumPy arrays, in units of the observation errors."""
    E, HE, y, R = (np.asarray(a) for a in (E, HE, y, R))
    return E.mean(0), E - E.mean(0), (HE - HE.mean(0)) / np.sqrt(R), (y - HE.mean(0)) / np.sqrt(R)


@SIZES
def test_the_etkf_is_the_kalman_filter_on_a_linear_problem(n_members, n_values, problem):
    E, HE, y, R, H = problem(n_members, n_values)
    mean, covariance = kalman(E.mean(0).numpy(), np.cov(E.T), y.numpy(), H.numpy(), R.numpy())
    E_a, _ = etkf_update(E, HE, y, R)
    assert_close(E_a.mean(0), torch.from_numpy(mean))
    assert_close(torch.cov(E_a.T), torch.from_numpy(covariance))


@SIZES
def test_the_etkf_is_the_formula_of_hunt_et_al_member_by_member(n_members, n_values, problem):
    E, HE, y, R, _ = problem(n_members, n_values)
    x, X, Y, delta = normalised(E, HE, y, R)
    P = np.linalg.inv(Y @ Y.T + (n_members - 1) * np.eye(n_members))
    weights = P @ Y @ delta + symmetric_power((n_members - 1) * P, 0.5)
    assert_close(etkf_update(E, HE, y, R)[0], torch.from_numpy(x + weights @ X))


@SIZES
def test_the_deterministic_enkf_gives_the_anomalies_half_the_gain(n_members, n_values, problem):
    E, HE, y, R, H = problem(n_members, n_values)
    x, P, H, R_matrix = E.mean(0).numpy(), np.cov(E.T), H.numpy(), np.diag(R)
    K = P @ H.T @ np.linalg.inv(H @ P @ H.T + R_matrix)
    X = E.numpy() - x
    expected = x + K @ (y.numpy() - H @ x) + X - 0.5 * X @ H.T @ K.T
    assert_close(denkf_update(E, HE, y, R)[0], torch.from_numpy(expected))


def test_where_the_gain_is_small_the_deterministic_enkf_has_the_covariance_of_the_kalman_filter(problem):
    E, HE, y, R, _ = problem(9, 4)
    departures = []
    for factor in (1e5, 1e6):
        ours, etkf = (torch.cov(update(E, HE, y, factor * R)[0].T) for update in (denkf_update, etkf_update))
        assert torch.linalg.eigvalsh(ours - etkf).min() > -1e-10  # never too narrow
        departures.append((ours - etkf).norm())
    assert float(departures[0] / departures[1]) == pytest.approx(100, rel=0.1)  # like the square of the gain


def test_the_stochastic_enkf_is_the_kalman_filter_for_many_members(problem, generator):
    n_members = 20_000
    E, HE, y, R, H = problem(n_members, 4)
    mean, covariance = kalman(E.mean(0).numpy(), np.cov(E.T), y.numpy(), H.numpy(), R.numpy())
    E_a, _ = enkf_update(E, HE, y, R, generator=generator)
    assert_close(E_a.mean(0), torch.from_numpy(mean))  # exact, since the draws are centred
    tolerance = 5 * (2 / n_members) ** 0.5 * np.trace(np.cov(E.T)) / 7
    assert_close(torch.cov(E_a.T), torch.from_numpy(covariance), atol=tolerance, rtol=0)


@SIZES
def test_zeta_minimises_the_dual_cost_written_out(n_members, n_values, problem):
    E, HE, y, R, _ = problem(n_members, n_values)
    *_, Y, delta = normalised(E, HE, y, R)

    def cost(zeta):
        first = delta @ np.linalg.solve(np.eye(n_values) + Y.T @ Y / zeta, delta)
        return first + (1 + 1 / n_members) * zeta + (n_members + 1) * np.log(n_members / zeta) - n_members

    m = innovation_modes(E, HE, y, R)
    zeta = float(finite_size_zeta(m.s2, m.g, n_members))
    grid = np.geomspace(1e-3 * n_members, n_members - 1, 2000)
    costs = [cost(z) for z in grid]
    assert cost(zeta) < min(costs) + 1e-3
    assert zeta == pytest.approx(grid[np.argmin(costs)], rel=0.02)


@SIZES
def test_the_enkf_n_is_at_the_minimum_of_its_primal_cost_with_its_hessian(n_members, n_values, problem):
    E, HE, y, R, _ = problem(n_members, n_values)
    x, X, Y, delta = (torch.from_numpy(a) for a in normalised(E, HE, y, R))

    def cost(w):  # Bocquet & Sakov 2012: the prior of the weights has a fat tail
        return 0.5 * (delta - w @ Y).square().sum() + (n_members + 1) / 2 * torch.log(1 + 1 / n_members + w @ w)

    E_a, diagnostics = enkf_n_update(E, HE, y, R)
    zeta = diagnostics["zeta"]
    w = torch.linalg.solve(Y @ Y.T + zeta * torch.eye(n_members), Y @ delta)
    if zeta < 0.99 * (n_members - 1):  # at the bound the gradient need not vanish
        assert torch.func.grad(cost)(w).norm() < 0.01 * zeta * w.norm()
    hessian = Y @ Y.T + zeta * torch.eye(n_members) - 2 * zeta**2 / (n_members + 1) * torch.outer(w, w)
    if zeta < 0.99 * (n_members - 1):
        assert_close(hessian, torch.func.hessian(cost)(w), atol=0.02 * float(zeta), rtol=0)
    transform = symmetric_power(hessian.numpy() / (n_members - 1), -0.5)
    assert_close(E_a, x + (w + torch.from_numpy(transform)) @ X)


def test_an_enkf_n_certain_that_its_prior_is_right_is_the_plain_one(problem):
    E, HE, y, R, H = problem(9, 4)
    obs = Observation(y, lambda x: x @ H.T, R)
    certain = EnKFN(9, nu=1e12)
    adaptive, _ = certain.analyse(certain.start(E), obs)
    plain = EnKFN(9, adaptive=False)
    state, diagnostics = plain.analyse(plain.start(E), obs)
    assert_close(adaptive.E, state.E)
    assert_close(state.E, enkf_n_update(E, HE, y, R)[0])
    assert "beta" not in diagnostics


def test_beta_follows_its_equation_and_inflates_the_prior(problem):
    E, HE, y, R, H = problem(9, 4)
    obs = Observation(y + 20, lambda x: x @ H.T, R)  # far off: the prior must be too narrow
    nu = 10.0
    method = EnKFN(9, nu=nu)
    state, diagnostics = method.analyse(method.start(E), obs)
    x, X, Y, delta = normalised(E, HE, obs.y, R)
    estimate = (delta @ delta - 4) * 8 / np.trace(Y @ Y.T)
    beta = (nu * 1.0 + estimate) / (nu + 1)
    factor = beta * (nu + 1) / (nu - 1)
    assert float(state.beta) == pytest.approx(beta)
    assert state.nu == nu + 1
    assert float(diagnostics["beta"]) == pytest.approx(factor)
    assert factor > 1
    inflated, HE_inflated = (a.mean(0) + factor**0.5 * (a - a.mean(0)) for a in (E, HE))
    assert_close(state.E, enkf_n_update(inflated, HE_inflated, obs.y, R)[0])


def test_the_variant_of_2023_lets_beta_choose_zeta_but_not_the_update(problem):
    E, HE, y, R, H = problem(9, 4)
    obs = Observation(y + 20, lambda x: x @ H.T, R)
    ours, variant = EnKFN(9, nu=10.0), EnKFN(9, nu=10.0, beta_in_update=False)
    state, diagnostics = variant.analyse(variant.start(E), obs)
    zeta = float(ours.analyse(ours.start(E), obs)[1]["zeta"])
    assert float(diagnostics["zeta"]) == pytest.approx(zeta)
    x, X, Y, delta = normalised(E, HE, obs.y, R)
    w = np.linalg.solve(Y @ Y.T + zeta * np.eye(9), Y @ delta)
    assert_close(state.E.mean(0), torch.from_numpy(x + w @ X))


def test_a_bounded_certainty_lets_beta_forget(problem):
    E, *_, R, H = problem(9, 4)
    method = EnKFN(9, nu=5.0, nu_max=7.0)
    state = method.start(E)
    for _ in range(4):
        state, _ = method.analyse(state, Observation(E.mean(0) @ H.T, lambda x: x @ H.T, R))
    assert state.nu == 7.0


@pytest.mark.parametrize("method", (EnKF, DEnKF, ETKF, EnKFN))
def test_inflation_widens_the_analysis_about_the_same_mean(method, problem):
    E, _, y, R, H = problem(9, 4)
    obs = Observation(y, lambda x: x @ H.T, R)
    plain, wide = method(9), method(9, inflation=1.3)
    (a, _), (b, _) = (m.analyse(m.start(E), obs, torch.Generator().manual_seed(1)) for m in (plain, wide))
    assert_close(b.E.mean(0), a.E.mean(0))
    assert_close(spread(b.E), 1.3 * spread(a.E))


def test_a_rotated_etkf_keeps_mean_and_covariance(problem, generator):
    E, HE, y, R, H = problem(9, 4)
    method = ETKF(9, rotation=True)
    state, _ = method.analyse(method.start(E), Observation(y, lambda x: x @ H.T, R), generator)
    expected, _ = etkf_update(E, HE, y, R)
    assert_close(state.E.mean(0), expected.mean(0))
    assert_close(torch.cov(state.E.T), torch.cov(expected.T))


@SIZES
@pytest.mark.parametrize("update", (enkf_update, denkf_update, etkf_update, enkf_n_update))
def test_innovation_statistics_are_those_of_the_dense_gaussian(update, n_members, n_values, problem):
    E, HE, y, R, _ = problem(n_members, n_values)
    S = torch.cov(HE.T) + torch.diag(R)
    _, statistics = update(E, HE, y, R)
    gaussian = torch.distributions.MultivariateNormal(HE.mean(0), S)
    assert_close(statistics["log_likelihood"], gaussian.log_prob(y))
    d = y - HE.mean(0)
    assert_close(statistics["chi2"], d @ torch.linalg.solve(S, d) / n_values)


def test_innovations_that_the_spread_explains_have_chi2_one(problem, randn):
    n, n_values = 4000, 4
    E, HE, _, R, _ = problem(9, n_values)
    S = torch.cov(HE.T) + torch.diag(R)
    y = HE.mean(0) + randn(n, n_values) @ torch.linalg.cholesky(S).T
    _, statistics = etkf_update(E.expand(n, 9, 7), HE.expand(n, 9, n_values), y, R)
    assert abs(float(statistics["chi2"].mean()) - 1) < 4 * (2 / (n * n_values)) ** 0.5


@pytest.mark.parametrize("model_error", (sqrt_core, additive_noise))
def test_a_forecast_is_the_step_and_then_model_error(model_error, randn):
    E = randn(6, 7)
    method = ETKF(6, model_error_std=0.3, model_error=model_error)
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert_close(method.forecast(Ensemble(E), torch.sin, draws[0]).E, model_error(torch.sin(E), 0.3, draws[1]))
    assert torch.equal(ETKF(6).forecast(Ensemble(E), torch.sin).E, torch.sin(E))


@FILTERS
def test_a_batch_of_experiments_is_a_loop_and_no_argument_changes(method, randn, unmodified):
    E, y, R = randn(3, 6, 8), randn(3, 4), torch.full((4,), 0.5, dtype=torch.float64)
    H = Pick(0, 2)

    def analyse(E, y):
        state, diagnostics = method.analyse(method.start(E), Observation(y, H, R), torch.Generator().manual_seed(1))
        drawn = isinstance(method, EnKF)  # draws differ along a batch, but being centred they leave the mean alone
        return state.E.mean(-2) if drawn else state.E, diagnostics

    with unmodified(E, y, R):
        batch, diagnostics = analyse(E, y)
    for s in range(3):
        alone, alone_diagnostics = analyse(E[s], y[s])
        assert_close(batch[s], alone)
        for name, value in alone_diagnostics.items():
            assert_close(diagnostics[name][s], value)


@FILTERS
def test_tunings_of_a_batch_are_separate_experiments(method, randn):
    E, obs = randn(2, 6, 8), Observation(randn(2, 8), Pick(), torch.ones(8, dtype=torch.float64))
    tuned = replace(method, inflation=torch.tensor([1.0, 1.4]), model_error_std=torch.tensor([0.0, 0.5]))
    state = tuned.forecast(tuned.start(E), lambda x: x)
    state, _ = tuned.analyse(state, obs, torch.Generator().manual_seed(1))
    for s, (inflation, std) in enumerate(((1.0, 0.0), (1.4, 0.5))):
        one = replace(method, inflation=inflation, model_error_std=std)
        alone = one.forecast(one.start(E[s]), lambda x: x)
        alone, _ = one.analyse(alone, obs._replace(y=obs.y[s]), torch.Generator().manual_seed(1))
        assert_close(state.E[s].mean(-2), alone.E.mean(-2), rtol=1e-6, atol=1e-6)  # tunings in single precision


@pytest.mark.parametrize("method", (EnKF, ETKF, EnKFN))
@pytest.mark.parametrize(
    "tuning",
    (
        {"size": 1},
        {"size": 0},
        {"inflation": 0.0},
        {"inflation": -1.0},
        {"inflation": float("nan")},
        {"model_error_std": -0.1},
    ),
    ids=str,
)
def test_a_tuning_that_makes_no_sense_is_refused_by_name(method, tuning):
    (name, value), *_ = tuning.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        method(**tuning)


def test_a_certainty_too_small_for_its_mean_to_exist_is_refused():
    with pytest.raises(ValueError, match="nu = 1"):
        EnKFN(nu=1.0)


@FILTERS
@pytest.mark.parametrize("shape", ((8,), (5, 8)), ids=("one state", "too few"))
def test_a_start_with_too_few_members_is_refused(method, shape):
    with pytest.raises(ValueError, match=r"start has shape.*at least size = 6"):
        method.start(torch.zeros(shape))
