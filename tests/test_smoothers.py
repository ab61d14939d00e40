"""Smoothers against the exact answer of linear problems and their costs written out; windows and their bookkeeping."""

from dataclasses import dataclass, replace

import pytest
import torch
from oracles import LinearProblem
from torch.testing import assert_close

from mooc_da.cycle import cycle, cycle_windows
from mooc_da.filters import ETKF, Ensemble, FilterDivergence
from mooc_da.kalman import KF
from mooc_da.models import Lorenz63, Lorenz96, repeated, spin_up, trajectory
from mooc_da.observations import Observations, checkerboard, everywhere, observe
from mooc_da.smoothers import EnKS, FourDEnVar, IEnKS
from mooc_da.variational import Estimate

MISSING = pytest.mark.parametrize("missing", (False, True), ids=("all there", "some missing"))
WINDOWS = pytest.mark.parametrize(("lag", "shift"), ((0, 1), (1, 1), (2, 1), (2, 2), (3, 2), (4, 4), (9, 1)))
IN_WINDOWS = pytest.mark.parametrize("method", (FourDEnVar, IEnKS))


def windows(n_times, lag, shift):
    """First and last observation time of each window, as the documentation says."""
    end, found = shift if lag else 0, []
    while not found or found[-1][1] < n_times - 1:
        end = min(end, n_times - 1)
        found.append((max(0, end - lag), end))
        end += shift
    return found


@MISSING
def test_the_ensemble_smoother_is_the_exact_smoother_and_its_filter_the_exact_filter(missing, randn):
    p = LinearProblem(randn, missing=missing)
    result = cycle(EnKS(9, lag=4), p.step, p.observations, p.start)
    mean, variance = p.given()
    assert_close(result.smoothed, mean)
    assert_close(result.smoothed_variance, variance)
    for k in range(5):
        mean, variance = p.given(k)
        assert_close(result.analysis[k], mean[k])
        assert_close(result.variance[k], variance[k])


@pytest.mark.parametrize("lag", (0, 1, 2, 3))
def test_a_lag_ends_what_later_observations_tell(lag, randn):
    p = LinearProblem(randn)
    result = cycle(EnKS(9, lag=lag), p.step, p.observations, p.start)
    for k in range(5):
        mean, variance = p.given(min(k + lag, 4))
        assert_close(result.smoothed[k], mean[k])
        assert_close(result.smoothed_variance[k], variance[k])


@pytest.fixture
def twin(generator):
    """Truth, observations and a start of Lorenz-96."""
    states = spin_up(Lorenz96(), (41,), generator=generator, n_steps=200)
    truth = trajectory(Lorenz96(), states[0], 29)
    return truth, observe(truth, checkerboard, 0.2, generator=generator), truth[0] + 0.1 * states[1:]


@pytest.mark.parametrize("rotation", (False, True))
def test_the_filter_in_the_ensemble_smoother_is_the_etkf_and_smoothing_helps(rotation, twin):
    truth, observations, start = twin
    tuning = {"size": 40, "inflation": 1.02, "model_error_std": 0.02, "rotation": rotation}
    ours, etkf = (
        cycle(method(**tuning), Lorenz96(), observations, start, generator=torch.Generator().manual_seed(1))
        for method in (EnKS, ETKF)
    )
    assert_close(ours.analysis, etkf.analysis, atol=1e-7, rtol=0)
    assert_close(ours.variance, etkf.variance, atol=1e-7, rtol=0)
    error = lambda states: (states - truth)[3:-5].square().mean()  # noqa: E731
    assert error(ours.smoothed) < error(ours.analysis)
    assert torch.equal(ours.smoothed[-1], ours.analysis[-1])


@IN_WINDOWS
@WINDOWS
@MISSING
def test_on_a_linear_model_a_row_knows_the_observations_up_to_the_end_of_its_window(method, lag, shift, missing, randn):
    p = LinearProblem(randn, missing=missing)
    result = cycle_windows(method(9, lag=lag, shift=shift), p.step, p.observations, p.start)
    for k in range(5):
        ends = [end for begin, end in windows(5, lag, shift) if begin <= k <= end]
        for states, variances, last in (
            (result.analysis, result.variance, ends[0]),
            (result.smoothed, result.smoothed_variance, ends[-1]),
        ):
            mean, variance = p.given(last)
            assert_close(states[k], mean[k])
            assert_close(variances[k], variance[k])


def test_side_by_side_windows_are_the_kalman_filter_at_their_ends(randn):
    p = LinearProblem(randn)
    kf = cycle(KF(), p.step, p.observations, p.start)
    result = cycle_windows(FourDEnVar(9, lag=2, shift=2), p.step, p.observations, p.start)
    for k in (2, 4):
        assert_close(result.analysis[k], kf.analysis[k])
        assert_close(result.variance[k], kf.variance[k])


@pytest.mark.parametrize("method", (FourDEnVar(15, 1.05, lag=0), IEnKS(15, 1.05, lag=0, iterations=1)))
@pytest.mark.parametrize("times", (None, range(0, 90, 3)), ids=("each step", "each third"))
@pytest.mark.parametrize("model_error_std", (0.0, 0.1))
def test_one_iteration_of_one_time_is_the_etkf(method, times, model_error_std, twin):
    _, observations, start = twin
    observations = replace(observations, times=times)
    ours = cycle_windows(replace(method, model_error_std=model_error_std), Lorenz96(), observations[:12], start)
    etkf = cycle(ETKF(15, 1.05, model_error_std=model_error_std), Lorenz96(), observations[:12], start)
    assert_close(ours.forecast, etkf.forecast, atol=1e-7, rtol=0)
    assert_close(ours.analysis, etkf.analysis, atol=1e-7, rtol=0)
    assert_close(ours.variance, etkf.variance, atol=1e-7, rtol=0)


def window_problem(randn):
    """A start, three times seen by an operator that is not linear, and the misfits of the states at the beginning."""
    model = repeated(Lorenz96(), 2)
    E = spin_up(model, states=randn(8) + 2, n_steps=100) + 0.3 * randn(6, 8)
    see, R = lambda x: x[..., ::2].abs() ** 1.5, torch.full((4,), 0.3, dtype=torch.float64)
    y = see(trajectory(model, E[0] + 0.3 * randn(8), 2)) + 0.3 * randn(3, 4)
    window = list(zip((0, 1, 1), Observations(y, lambda k: see, R), strict=True))
    misfits = lambda x: (y - see(trajectory(model, x, 2))) / R.sqrt()  # noqa: E731
    return model, E, window, misfits


def minimised(cost, n):
    w = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [w], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        value = cost(w)
        value.backward()
        return value

    search.step(closure)
    return w.detach()


def test_the_4denvar_is_at_the_minimum_of_its_cost(randn):
    model, E, window, misfits = window_problem(randn)
    x, X = E.mean(0), E - E.mean(0)
    seen = misfits(E)  # (6, 3, 4)
    delta, Y = seen.mean(0), seen.mean(0) - seen
    w = minimised(lambda w: 2.5 * w @ w + 0.5 * (delta - (w @ Y.flatten(1)).view(3, 4)).square().sum(), 6)
    method = FourDEnVar(6, lag=2)
    _, analysis, _ = method.assimilate(method.start(E), model, window)
    assert_close(analysis[0].E.mean(0), x + w @ X, atol=1e-6, rtol=0)
    states = trajectory(model, E, 2)  # (6, 3, 8): the same weights at all times
    for k in range(3):
        expected = states[:, k].mean(0) + w @ (states[:, k] - states[:, k].mean(0))
        assert_close(analysis[k].E.mean(0), expected, atol=1e-6, rtol=0)


def test_the_iterations_end_where_the_gradient_of_the_window_vanishes(randn):
    model, E, window, _ = window_problem(randn)
    method = IEnKS(6, lag=2, iterations=50, tolerance=1e-10)
    _, analysis, diagnostics = method.assimilate(method.start(E), model, window)
    assert diagnostics["iterations"] < 50
    x, X = E.mean(0), E - E.mean(0)
    E_a = analysis[0].E
    weights = (E_a - x) @ torch.linalg.pinv(X, rtol=1e-8)  # w + T of each member, (6, 6)
    w = weights.mean(0) - weights.mean()
    T = weights - weights.mean(0)
    seen = torch.cat(
        [(obs.y - obs.H(trajectory(model, E_a, 2)[:, k])) / obs.R.sqrt() for k, (_, obs) in enumerate(window)], 1
    )
    T_inverse = torch.linalg.pinv(T, rtol=1e-8)
    Y = T_inverse @ (seen.mean(0) - seen)
    gradient = 5 * w - Y @ seen.mean(0)  # of N |w|^2 / 2 + |delta(w)|^2 / 2, with the ensemble's derivative
    assert gradient.norm() < 1e-3 * (Y @ seen.mean(0)).norm()
    identity = torch.eye(6, dtype=torch.float64) - 1 / 6
    assert_close(5 * T_inverse.T @ T_inverse, identity @ (Y @ Y.T + 5 * identity) @ identity, atol=1e-4, rtol=1e-3)


def test_iterations_pay_where_the_model_is_strongly_nonlinear(generator):
    model, n = repeated(Lorenz63(), 25), 60
    states = spin_up(Lorenz63(), (12, 11), generator=generator, n_steps=800)
    truth = trajectory(model, states[:, 0], n)
    observations = observe(truth, everywhere, 2**0.5, generator=generator)
    run = lambda loop, method: loop(method, model, observations, states[:, 1:], generator=generator).analysis  # noqa: E731
    etkf = run(cycle, ETKF(10, 1.05, rotation=True))
    ienks = run(cycle_windows, IEnKS(10, 1.05, rotation=True, lag=1))
    error = lambda x: (x - truth)[:, 20:].square().mean((-1, -2)).sqrt()  # noqa: E731  (12,)
    gain = error(etkf) - error(ienks)
    assert gain.mean() > 2 * gain.std() / 12**0.5
    assert error(ienks).median() < 0.75


@dataclass(frozen=True)
class Recorder:
    """A window method that notes what it is given; its state counts the steps."""

    lag: int
    shift: int
    seen: list

    def start(self, sample, generator=None):
        return Estimate(sample.mean(-2), torch.ones_like(sample[..., 0, :]))

    def forecast(self, state, step, generator=None):
        return Estimate(step(state.x), state.variance)

    def assimilate(self, state, step, window, generator=None):
        states = [state]
        for n_steps, _ in window[1:]:
            states.append(self.forecast(states[-1], repeated(step, n_steps)))
        self.seen.append([None if obs is None else int(obs.y[0]) for _, obs in window])
        for (_, obs), at in zip(window, states, strict=True):
            assert obs is None or obs.y == at.x  # at its own time
        return states, states, {"first": state.x[0]}


@WINDOWS
@pytest.mark.parametrize("n_times", (1, 2, 3, 5, 6, 10))
@pytest.mark.parametrize("stride", (1, 3))
def test_each_observation_is_used_once_and_in_the_first_window_that_holds_it(lag, shift, n_times, stride):
    times = [4 + stride * k for k in range(n_times)]
    y = torch.tensor(times, dtype=torch.float64)[:, None]
    observations = Observations(y, everywhere, torch.ones(1, dtype=torch.float64), times)
    method = Recorder(lag, shift, [])
    result = cycle_windows(method, lambda x: x + 1, observations, torch.full((2, 1), 4.0, dtype=torch.float64))
    expected, used = [], -1
    for begin, end in windows(n_times, lag, shift):
        expected.append([None if k <= used else times[k] for k in range(begin, end + 1)])
        used = end
    assert method.seen == expected
    assert [t for window in method.seen for t in window if t is not None] == times
    for states in (result.forecast, result.analysis, result.smoothed):
        assert torch.equal(states, y)
    assert result.diagnostics["first"].shape == (n_times,)


@IN_WINDOWS
def test_a_batch_of_experiments_is_a_loop(method, twin, unmodified):
    _, observations, start = twin
    m = method(8, 1.02, lag=2, shift=1)
    y = torch.stack((observations.y, observations.y + 0.1))[:, :6]
    both, R = torch.stack((start, start.flip(0))), observations.R
    with unmodified(y, both):
        batch = cycle_windows(m, Lorenz96(), Observations(y, checkerboard, R), both)
    for s in range(2):
        alone = cycle_windows(m, Lorenz96(), Observations(y[s], checkerboard, R), both[s])
        assert_close(batch.smoothed[s], alone.smoothed, atol=1e-3 if method is IEnKS else 1e-7, rtol=0)  # its tolerance


@IN_WINDOWS
def test_a_window_without_observations_is_a_forecast(method, randn):
    p = LinearProblem(randn)
    p.y[2:] = torch.nan
    result = cycle_windows(method(9, lag=1, shift=1), p.step, Observations(p.y, lambda k: p.observe, p.R), p.start)
    assert_close(result.analysis[2:], trajectory(p.step, result.smoothed[1], 3)[1:])
    assert torch.equal(result.forecast[3], result.analysis[3])


@IN_WINDOWS
def test_a_model_that_blows_up_is_a_divergence_with_what_there_was(method, twin):
    _, observations, start = twin
    calls = iter(range(1000))
    breaking = lambda x: Lorenz96()(x) * (1.0 if next(calls) < 40 else torch.nan)  # noqa: E731
    with pytest.raises(FilterDivergence, match=r"diverged at time \d+ of 30") as caught:
        cycle_windows(method(15, lag=2), breaking, observations, start)
    partial = caught.value.partial
    assert 0 < len(partial) < 30
    assert_close(
        partial.analysis, cycle_windows(method(15, lag=2), Lorenz96(), observations, start).analysis[: len(partial)]
    )


@pytest.mark.parametrize(
    "call",
    (
        lambda: FourDEnVar(lag=-1),
        lambda: FourDEnVar(lag=2, shift=3),
        lambda: FourDEnVar(lag=2, shift=0),
        lambda: IEnKS(lag=0, shift=2),
    ),
)
def test_windows_that_leave_observations_out_are_refused(call):
    with pytest.raises(ValueError, match="expected lag >= 0 and 1 <= shift <= lag"):
        call()


def test_a_smoother_that_looks_ahead_is_refused():
    with pytest.raises(ValueError, match="lag = -1: expected lag >= 0, a number of observation times"):
        EnKS(lag=-1)


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match="iterations = 0"):
        IEnKS(iterations=0)


def test_the_smoothed_rows_of_a_slice_are_those_of_its_times(randn):
    p = LinearProblem(randn)
    result = cycle(EnKS(9, lag=2), p.step, p.observations, p.start)
    assert torch.equal(result[1:4].smoothed, result.smoothed[1:4])
    assert cycle(ETKF(9), p.step, p.observations, p.start).smoothed is None
    assert isinstance(result.final, Ensemble)
