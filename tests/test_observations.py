"""Networks, their alignment with time, the statistics of the noise, and what is refused."""

import pytest
import torch
from torch.testing import assert_close

from mooc_da.observations import Observations, checkerboard, every, everywhere, observe

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
