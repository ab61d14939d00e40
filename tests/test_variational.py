"""Methods that minimise a cost: against the exact answer of linear problems, and the costs written out."""

from functools import partial

import pytest
import torch
from oracles import LinearProblem
from torch.testing import assert_close

from mooc_da import minimisation
from mooc_da.covariances import Dense, Diagonal
from mooc_da.cycle import cycle, cycle_windows
from mooc_da.filters import ETKF, FilterDivergence
from mooc_da.hybrids import HybridVar
from mooc_da.kalman import KF, ExtendedKF
from mooc_da.minimisation import MinimisationDivergence
from mooc_da.models import trajectory
from mooc_da.observations import Observation, Observations, Pick, everywhere, observe
from mooc_da.variational import Var3D, Var4D, blue_update, var3d_update, var4d_update

MISSING = pytest.mark.parametrize("missing", (False, True), ids=("all there", "some missing"))
STD = pytest.mark.parametrize("std", (0.0, 0.4), ids=("strong", "weak"))


@pytest.fixture(params=(512, 0), ids=("matrix", "conjugate gradients"))
def solver(request, monkeypatch):
    """Both ways of a Newton step."""
    monkeypatch.setattr(minimisation, "LARGEST_MATRIX", request.param)
    return request.param


def covariance(p):
    return Dense(torch.from_numpy(p.P))


def model_error(std, n=4):
    return Diagonal(torch.full((n,), std**2, dtype=torch.float64)) if std else None


def test_3d_var_is_the_best_linear_unbiased_estimate_and_the_kalman_filter(randn, solver):
    p = LinearProblem(randn)
    x_b, B, obs = torch.from_numpy(p.x), covariance(p), p.observations[0]
    found = var3d_update(x_b, B, obs, tolerance=1e-9)
    kf, _ = KF().analyse(KF().start(p.start), obs)
    assert_close(found.states[0], kf.x, atol=1e-6, rtol=0)
    assert_close(blue_update(x_b, B, p.H, obs.y, obs.R), kf.x)
    if solver:
        assert_close(found.variance[0], kf.P.diag())
        assert found.cost.shape == (2,)  # one iteration
    else:
        assert found.variance.isnan().all()
    d, S = obs.y - p.H @ x_b, p.H @ torch.from_numpy(p.P) @ p.H.T + obs.R.diag()
    assert_close(found.cost[-1], 0.5 * d @ torch.linalg.solve(S, d))  # a known value of the minimum


@STD
@MISSING
def test_4d_var_over_one_window_is_the_exact_smoother(std, missing, randn, solver):
    p = LinearProblem(randn, std=std, missing=missing)
    method = Var4D(covariance(p), lag=4, shift=4, model_error=model_error(std), tolerance=1e-9)
    result = cycle_windows(method, p.step, p.observations, p.start)
    mean, variance = p.given()
    assert_close(result.analysis, mean, atol=1e-6, rtol=0)
    if solver:
        assert_close(result.variance, variance)
    assert_close(result.forecast, trajectory(p.step, torch.from_numpy(p.x), 4))
    assert result.diagnostics["converged"].all()


def test_windows_of_4d_var_start_from_the_last_state_that_the_one_before_analysed(randn):
    p = LinearProblem(randn)
    B = covariance(p)
    result = cycle_windows(Var4D(B, lag=2, shift=2), p.step, p.observations, p.start)
    first = var4d_update(torch.from_numpy(p.x), B, p.step, [(k > 0, p.observations[k]) for k in range(3)])
    window = [(0, None), (1, p.observations[3]), (1, p.observations[4])]
    second = var4d_update(first.states[2], B, p.step, window)
    assert_close(result.analysis, torch.cat((first.states, second.states[1:])))
    assert_close(result.smoothed, torch.cat((first.states[:2], second.states)))


def test_without_model_error_the_weak_constraint_becomes_the_strong_one_in_proportion(randn):
    p = LinearProblem(randn)
    window = [(int(k > 0), p.observations[k]) for k in range(5)]
    fit = partial(var4d_update, torch.from_numpy(p.x), covariance(p), p.step, window, tolerance=1e-11)
    strong = fit().states
    departures = [(fit(Q=model_error(std)).states - strong).norm() for std in (1e-2, 1e-3)]
    assert float(departures[0] / departures[1]) == pytest.approx(100, rel=0.02)  # like Q
    assert departures[1] < 1e-4


def test_observed_by_a_network_the_analysis_is_at_the_bottom_of_the_cost_written_out(network, randn, solver):
    H, x_b, root = network(4, 3), randn(4), randn(4, 4)
    B, y, R = root @ root.T + 0.1 * torch.eye(4), H(x_b) + 0.5 * randn(3), 0.5 + randn(3) ** 2
    found = var3d_update(x_b, Dense(B), Observation(y, H, R), tolerance=1e-6, iterations=100)

    def cost(x):
        return 0.5 * (x - x_b) @ torch.linalg.solve(B, x - x_b) + 0.5 * ((y - H(x)) ** 2 / R).sum()

    x_a = found.states[0]
    assert torch.func.grad(cost)(x_a).norm() < 1e-4 * torch.func.grad(cost)(x_b + root @ randn(4)).norm()
    assert_close(found.cost[-1], cost(x_a))
    assert_close(found.cost[0], cost(x_b))
    assert all(cost(x_a + 1e-2 * root @ direction) > cost(x_a) for direction in randn(20, 4))
    assert (found.cost.diff() <= 1e-12).all()
    if solver:  # the Hessian of Gauss and Newton
        J = torch.func.jacrev(H)(x_a)
        assert_close(found.variance[0], torch.linalg.inv(torch.linalg.inv(B) + J.T @ (J / R[:, None])).diag())


@STD
def test_a_batch_of_experiments_is_a_loop_and_no_argument_changes(std, randn, solver, unmodified):
    p = LinearProblem(randn)
    y, x_b = torch.stack((p.y, p.y.flip(0))), torch.stack((p.start[0], p.start[1]))
    step = lambda x: p.step(x) + 0.1 * torch.sin(x)  # noqa: E731
    fit = partial(var4d_update, B=covariance(p), step=step, Q=model_error(std), tolerance=1e-8, iterations=60)
    window = lambda y: [(int(k > 0), Observation(y[..., k, :], p.observe, p.R)) for k in range(5)]  # noqa: E731
    with unmodified(y, x_b):
        batch = fit(x_b, window=window(y))
    for s in range(2):
        alone = fit(x_b[s], window=window(y[s]))
        assert_close(batch.states[s], alone.states, atol=1e-6, rtol=0)
        if solver:
            assert_close(batch.variance[s], alone.variance, atol=1e-6, rtol=0)


def test_a_model_that_blows_up_is_a_divergence_with_what_there_was(randn):
    p = LinearProblem(randn)
    B, window = covariance(p), [(int(k > 0), p.observations[k]) for k in range(3)]
    with pytest.raises(MinimisationDivergence, match="cost of the first guess is not finite") as caught:
        var4d_update(torch.from_numpy(p.x), B, lambda x: x * torch.inf, window)
    assert torch.equal(caught.value.partial.states[0], torch.from_numpy(p.x))
    calls = iter(range(1000))
    breaking = lambda x: p.step(x) * (1.0 if next(calls) < 12 else torch.nan)  # noqa: E731
    for loop, method in ((cycle_windows, Var4D(B, lag=1)), (cycle, Var3D(B))):
        with pytest.raises(FilterDivergence, match=r"diverged at time \d+ of 40") as diverged:
            loop(method, breaking, Observations(p.y.repeat(8, 1), lambda k: p.observe, p.R), p.start)
        expected = loop(method, p.step, Observations(p.y.repeat(8, 1), lambda k: p.observe, p.R), p.start)
        n = len(diverged.value.partial)
        assert n > 0
        assert_close(diverged.value.partial.analysis, expected.analysis[:n])
        calls = iter(range(1000))


OBS = Observation(torch.zeros(4, dtype=torch.float64), Pick(), torch.ones(4, dtype=torch.float64))
B4, B6 = (Diagonal(torch.ones(n, dtype=torch.float64)) for n in (4, 6))


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: var4d_update(OBS.y, B4, torch.sin, []), "window: it has no times"),
        (lambda: var4d_update(OBS.y, B4, torch.sin, [(1, OBS)]), r"window: steps \[1\]: expected 0 at the beginning"),
        (lambda: var4d_update(OBS.y, B4, torch.sin, [(0, OBS), (0, OBS)]), r"window: steps \[0, 0\]"),
        (lambda: var3d_update(OBS.y[:3], B4, OBS), "B is of 4 variables and .* but x_b of 3"),
        (lambda: Var4D(B4, lag=1, shift=2), "lag = 1, shift = 2"),
        (lambda: Var4D(B4, lag=-1), "lag = -1"),
    ),
)
def test_windows_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "method", (Var3D(B6), ETKF(5), ExtendedKF(), HybridVar(5, covariance=B6)), ids=lambda m: type(m).__name__
)
def test_an_operator_in_training_mode_or_of_another_dtype_is_refused(method, network, randn):
    H, start, R = network(4, 3)[2:].eval(), randn(5, 6), torch.ones(3, dtype=torch.float64)  # its last layer
    run = lambda H: cycle(method, torch.sin, Observations(randn(2, 3), lambda k: H, R), start)  # noqa: E731
    assert torch.isfinite(run(H).analysis).all()
    with pytest.raises(ValueError, match=r"H is a network in training mode: call H.eval\(\)"):
        run(H.train())
    H.eval()
    with pytest.raises(ValueError, match="float32"):
        run(lambda x: H(x).float())
    with pytest.raises(ValueError, match="float32"):
        run(H.float())  # a float32 network casts at its own border, or is refused with advice


@pytest.mark.parametrize("lag", (1, 4))
def test_the_next_window_begins_with_the_model_errors_that_this_one_found(lag, randn, generator):
    n, n_times, std = 6, 201, 0.5
    M = torch.linalg.qr(randn(n, n))[0]
    truth = [randn(n)]
    for noise in randn(n_times - 1, n):
        truth.append(M @ truth[-1] + std * noise)
    truth = torch.stack(truth)
    observations = observe(truth, everywhere, 0.5, generator=generator)
    B, Q = (Diagonal(torch.full((n,), variance, dtype=torch.float64)) for variance in (0.15, std**2))
    errors = []
    for model_error in (None, Q):
        method = Var4D(B, lag=lag, shift=lag, model_error=model_error)
        result = cycle_windows(method, lambda x: x @ M.mT, observations, truth[:1] + randn(5, n))
        errors.append(float((result.forecast - truth)[20:].square().mean().sqrt()))
    assert errors[1] < 0.98 * errors[0]
    with pytest.raises(ValueError, match="expected shift = lag"):
        Var4D(B, lag=2, shift=1, model_error=Q)


@pytest.mark.parametrize(
    ("method", "cut"), [(Var3D, "H"), (Var4D, "H"), (ExtendedKF, "H"), (Var4D, "model"), (ExtendedKF, "model")]
)
def test_a_function_cut_from_the_graph_is_refused_where_its_derivative_is_needed(randn, method, cut):
    def H(x):
        return (x.detach() if cut == "H" else x)[..., ::2]

    def step(x):
        return (x.detach() if cut == "model" else x) * 0.9

    B = Diagonal(torch.ones(4, dtype=torch.float64))
    observations = Observations(torch.zeros(3, 2, dtype=torch.float64), lambda k: H, torch.ones(2, dtype=torch.float64))
    run = cycle_windows if method is Var4D else cycle
    with pytest.raises(ValueError, match="derivative is cut off"):
        run(ExtendedKF() if method is ExtendedKF else method(B), step, observations, randn(6, 4))


def test_a_constant_operator_is_no_mistake(randn):
    obs = Observation(torch.ones(2).double(), lambda x: torch.zeros_like(x[..., :2]), torch.ones(2).double())
    x_b = randn(4)
    assert_close(var3d_update(x_b, Diagonal(torch.ones(4).double()), obs).states[0], x_b)
