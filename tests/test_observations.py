"""Networks, their alignment with time, the statistics of the noise, what is missing, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from mooc_da.cycle import cycle
from mooc_da.filters import ETKF
from mooc_da.observations import Observations, Pick, checkerboard, every, everywhere, observe, of_state, picked

TIMES, SITES = 9, 12
LABELS = 100.0 * torch.arange(TIMES, dtype=torch.float64)[:, None] + torch.arange(SITES)  # truth[k, n] = 100 k + n


@pytest.mark.parametrize(
    ("network", "seen"),
    (
        (everywhere, {0: range(12), 1: range(12)}),
        (every(3), {0: (0, 3, 6, 9), 1: (0, 3, 6, 9)}),
        (every(4, start=1), {0: (1, 5, 9), 1: (1, 5, 9)}),
        (checkerboard, {0: range(0, 12, 2), 1: range(1, 12, 2), 6: range(0, 12, 2)}),
    ),
)
def test_a_network_picks_its_points(network, seen):
    for k, points in seen.items():
        assert network(k)(torch.arange(SITES)).tolist() == list(points)


def test_rows_stay_aligned_with_time_in_slices_of_slices(generator):
    observations = observe(LABELS, checkerboard, 1e-6, generator=generator)
    for part, first in ((observations, 0), (observations[3:], 3), (observations[3:8][2:], 5), (observations[-4:], 5)):
        for k in range(len(part)):
            y, H, R = part[k]
            assert_close(y, LABELS[first + k, (first + k) % 2 :: 2], atol=1e-4, rtol=0)
            assert_close(H(LABELS[first + k]), y, atol=1e-4, rtol=0)
            assert R.shape == y.shape
    assert torch.equal(observations[-1].y, observations[TIMES - 1].y)
    assert len(observations[3:8]) == 5


def test_the_noise_is_white_and_has_the_variance_that_R_holds(generator):
    n = 4000
    observations = observe(torch.zeros(n, 4, dtype=torch.float64), everywhere, 0.2, generator=generator)
    error = observations.y
    assert_close(observations.R, torch.full((4,), 0.04, dtype=torch.float64))
    assert (error.mean(0).abs() < 4 * 0.2 / n**0.5).all()
    assert ((error.var(0) / 0.04 - 1).abs() < 4 * (2 / n) ** 0.5).all()
    correlations = torch.corrcoef(torch.cat((error[1:], error[:-1]), -1).T).triu(1)
    assert (correlations.abs() < 4.5 / n**0.5).all()


def test_any_callable_is_an_operator(randn, generator):
    truth = randn(5, SITES)
    observations = observe(truth, lambda k: lambda x: x[..., :3] ** 2, 1e-6, generator=generator)
    assert_close(observations[2].y, truth[2, :3] ** 2, atol=1e-4, rtol=0)


def test_a_batch_of_truths_gives_a_batch_of_observations(randn, generator):
    truth = randn(2, 3, TIMES, SITES)
    observations = observe(truth, checkerboard, 1e-6, generator=generator)
    assert observations.y.shape == (2, 3, TIMES, SITES // 2)
    assert len(observations) == TIMES
    assert_close(observations[3].y, truth[..., 3, 1::2], atol=1e-4, rtol=0)


def test_observing_leaves_the_truth_alone(randn, generator, unmodified):
    truth = randn(TIMES, SITES)
    with unmodified(truth):
        observe(truth, everywhere, 0.2, generator=generator)


Y, R = torch.zeros(4, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)


def with_bad_value(value, at=(2, 1)):
    y = Y.clone()
    y[at] = value
    return y


@pytest.mark.parametrize(
    ("y", "variances", "message"),
    (
        (Y[0], R, r"y has shape \(3,\).*expected \(\.\.\., K, Ny\)"),
        (Y, R[:2], r"R has shape \(2,\).*expected \(3,\)"),
        (Y, torch.eye(3), r"R has shape \(3, 3\).*diagonal"),
        (Y, 0 * R, "R: error variances must be positive"),
        (Y, -R, "R: error variances must be positive"),
        (Y, R * torch.nan, "R: error variances must be positive and finite"),
        (with_bad_value(torch.inf), R, "y: 1 values are infinite, the first at time 2"),
        (torch.stack((Y, with_bad_value(-torch.inf))), R, "the first at time 2"),
    ),
)
def test_observations_that_cannot_be_used_are_refused(y, variances, message):
    with pytest.raises(ValueError, match=message):
        Observations(y, everywhere, variances)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    (
        (lambda: every(0), ValueError, "stride = 0"),
        (lambda: every(2, -1), ValueError, "start = -1"),
        (lambda: observe(LABELS, everywhere, 0.0, generator=None), ValueError, "std = 0.0"),
        (lambda: observe(LABELS, everywhere, float("nan"), generator=None), ValueError, "std = nan"),
        (lambda: observe(LABELS[:, :11], checkerboard, 0.1, generator=None), ValueError, r"observes \[5, 6\] values"),
        (lambda: Observations(Y, everywhere, R)[::2], ValueError, "without a stride"),
        (lambda: Observations(Y, everywhere, R)[4], IndexError, "time 4 of 4"),
    ),
)
def test_impossible_networks_and_times_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_network_for_the_state_does_not_see_the_parameters_behind_it(randn):
    z = randn(5, SITES + 2)
    network = of_state(lambda k: None if k == 3 else checkerboard(k), 2)
    for k in (0, 1):
        assert torch.equal(network(k)(z), checkerboard(k)(z[:, :-2]))
    assert network(3) is None


TIMED = [0, 3, 4, 7]


def test_rows_of_observations_at_some_times_belong_to_these_times(generator):
    observations = observe(LABELS, checkerboard, 1e-6, generator=generator, times=TIMED)
    assert observations.y.shape == (4, SITES // 2)
    for part, first in ((observations, 0), (observations[1:], 1), (observations[1:][1:3], 2)):
        for k in range(len(part)):
            at = TIMED[first + k]
            assert_close(part[k].y, LABELS[at, at % 2 :: 2], atol=1e-4, rtol=0)
            assert torch.equal(part[k].H(LABELS[at]), LABELS[at, at % 2 :: 2])
        steps = [part.steps_before(k) for k in range(len(part))]
        assert steps == [0, *(b - a for a, b in zip(TIMED[first:], TIMED[first + 1 :], strict=False))][: len(part)]
    assert torch.equal(observations[-1].y, observations[3].y)


def test_what_is_missing_is_nan_in_y_and_of_infinite_variance_to_a_filter(generator):
    network = lambda k: None if k == 2 else everywhere(k)  # noqa: E731
    observations = observe(LABELS, network, 0.1, generator=generator)
    assert observations.y[2].isnan().all()
    assert observations[2] is None
    y = observations.y.clone()
    y[4, 1], y[5] = torch.nan, torch.nan
    gappy = replace(observations, y=y)
    assert gappy[5] is None
    assert gappy[4].R.isinf().nonzero().tolist() == [[1]]
    assert torch.isfinite(gappy[4].y).all()
    assert gappy[3].R.shape == (SITES,)
    batch = replace(observations, y=torch.stack((observations.y, y)))
    assert batch[4].R.shape == (2, SITES)
    assert batch[4].R.isinf().nonzero().tolist() == [[1, 1]]
    assert batch[5].R.isinf().any(-1).tolist() == [False, True]


@pytest.mark.parametrize("times", ((0, 1, 2), (0, 1, 1, 2), (3, 2, 1, 0), (-1, 0, 1, 2), (0, 1.5, 2, 3)), ids=str)
def test_times_that_do_not_number_the_rows_in_order_are_refused(times):
    with pytest.raises(ValueError, match="times: expected 4 whole numbers of steps, increasing from 0"):
        Observations(Y, everywhere, R, times)


@pytest.mark.parametrize("times", ((0, TIMES), (-1, 2), (3, 50)), ids=str)
def test_times_outside_of_the_truth_are_refused(times, generator):
    with pytest.raises(ValueError, match=r"is outside of the truth, which has the times 0 to 8"):
        observe(LABELS, everywhere, 0.1, generator=generator, times=times)


def test_observations_of_nothing_at_all_are_refused(randn):
    with pytest.raises(ValueError, match="all values are missing, nothing to assimilate"):
        cycle(ETKF(5), torch.sin, Observations(Y * torch.nan, everywhere, R), randn(5, 3))
    with pytest.raises(ValueError, match="observes"):
        observe(LABELS, lambda k: None, 0.1, generator=None)


# On the grid of the state


@pytest.mark.parametrize(
    ("H", "points"),
    (
        (Pick(), range(SITES)),
        (Pick(1, 3), (1, 4, 7, 10)),
        (lambda x: x[..., [5, 2, 11]], (5, 2, 11)),
        (lambda x: x.flip(-1), range(SITES)[::-1]),
        (lambda x: x[..., :1], (0,)),
    ),
    ids=("all", "every third", "in any order", "backwards", "the first"),
)
def test_an_operator_that_picks_points_tells_which(H, points):
    assert picked(H, SITES).tolist() == list(points)


@pytest.mark.parametrize(
    "H",
    (
        lambda x: 2 * x[..., :1],
        lambda x: x[..., :1] ** 2,
        lambda x: x[..., :2] ** 2,
        lambda x: -x,
        lambda x: x + 1,
        lambda x: x.mean(-1, keepdim=True),
        lambda x: x[..., :3] * torch.nan,
        torch.tanh,
    ),
    ids=("twice the first", "square of the first", "squares", "minus", "plus", "mean", "NaN", "tanh"),
)
def test_an_operator_that_does_more_than_pick_is_refused(H):
    with pytest.raises(ValueError, match="H does not pick points"):
        picked(H, SITES)


@pytest.mark.parametrize("network", (checkerboard, everywhere, every(4, 1)), ids=("board", "everywhere", "every 4th"))
@pytest.mark.parametrize("first", (0, 3))
def test_values_on_the_grid_stand_at_their_points_and_times(network, first, generator):
    truth = torch.stack((LABELS, -LABELS))
    values, precision = observe(truth, network, 0.01, generator=generator)[first:].on_grid(SITES)
    assert values.shape == precision.shape == (2, TIMES - first, SITES)
    for row, k in enumerate(range(first, TIMES)):
        seen = torch.zeros(SITES, dtype=torch.bool).index_fill(0, network(k)(torch.arange(SITES)), True)
        assert_close(values[:, row, seen], truth[:, k, seen], atol=0.1, rtol=0)
        assert_close(precision[:, row, seen], torch.full_like(truth[:, k, seen], 1e4))
        assert (values[:, row, ~seen] == 0).all() and (precision[:, row, ~seen] == 0).all()


def test_each_point_has_the_precision_of_its_own_value():
    seen = Observations(torch.ones(2, 3, dtype=torch.float64), every(4), torch.tensor([1.0, 4.0, 0.5]).double())
    _, precision = seen.on_grid(SITES)
    assert precision[1, ::4].tolist() == [1.0, 0.25, 2.0]


def test_what_is_missing_has_no_precision_on_the_grid(generator):
    truth = torch.stack((LABELS, -LABELS))
    seen = observe(truth, lambda k: None if k == 6 else checkerboard(k), 1e-3, generator=generator)
    y = seen.y.clone()
    y[0, 2, 1] = torch.nan  # one value of one experiment, at point 2
    y[:, 4] = torch.nan  # all at one time
    y[1, 5] = torch.nan  # all of one experiment
    values, precision = replace(seen, y=y).on_grid(SITES)
    expected = torch.zeros_like(values)
    for k in range(TIMES):
        expected[:, k, k % 2 :: 2] = 1e6
    expected[0, 2, 2] = expected[:, 4] = expected[:, 6] = expected[1, 5] = 0.0
    assert_close(precision, expected)
    assert torch.isfinite(values).all()
    assert_close(values, truth * (expected > 0), atol=0.01, rtol=0)


def test_an_operator_that_mixes_points_has_no_place_on_the_grid(randn, generator):
    seen = observe(randn(3, SITES), lambda k: lambda x: x[..., 1:] - x[..., :-1], 0.1, generator=generator)
    with pytest.raises(ValueError, match="does not pick points"):
        seen.on_grid(SITES)


def test_a_point_observed_twice_or_a_grid_that_is_too_small_is_refused(randn):
    twice = Observations(randn(4, 2), lambda k: lambda x: x[..., [3, 3]], torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="time 0: a point is observed twice"):
        twice.on_grid(SITES)
    with pytest.raises(ValueError, match="does not take a state of 3 points"):
        twice.on_grid(3)
