"""Scores against closed forms, brute force and examples by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from mooc_da.models import Lorenz96, spin_up, trajectory
from mooc_da.scores import (
    climate,
    crps,
    forecast_errors,
    kaplan_yorke_dimension,
    over_seeds,
    rank_histogram,
    rmse,
    skill_horizon,
    spectrum,
)

MODEL = Lorenz96()


def test_rmse_by_hand(unmodified):
    estimate, truth = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [1.0, 1.0]])
    with unmodified(estimate, truth):
        assert rmse(estimate, truth).tolist() == pytest.approx([math.sqrt(12.5), 0.0])
    assert rmse(estimate.expand(3, 2, 2), truth).shape == (3, 2)
    with pytest.raises(ValueError, match=r"estimate \(2, 2\) and truth \(1, 2\)"):
        rmse(estimate, truth[:1])


def test_over_seeds_is_mean_and_standard_deviation():
    estimate = over_seeds(torch.tensor([1.0, 2.0, 3.0]))
    assert estimate == (2.0, 1.0)
    assert str(estimate) == "2.00 ± 1.00"
    assert str(over_seeds(torch.tensor([0.1995, 0.2005]))) == "0.200 ± 0.001"
    single = over_seeds(torch.tensor([4.0]))
    assert single.mean == 4.0
    assert math.isnan(single.std)


def test_crps_is_the_brute_force_sum_over_pairs(randn):
    E, truth = randn(2, 6, 3), randn(2, 3)
    distances = (E[:, :, None] - E[:, None]).abs().sum((1, 2)) / (6 * 5)
    expected = (E - truth[:, None]).abs().mean(1) - 0.5 * distances
    assert_close(crps(E, truth), expected.mean(-1))


@pytest.mark.parametrize("z", (0.0, 1.0, -2.5))
def test_crps_of_a_large_ensemble_is_the_closed_form_of_the_gaussian(z, randn):
    n_members, sigma = 50_000, 0.7
    normal = torch.distributions.Normal(0.0, 1.0)
    point = torch.tensor(z)
    expected = sigma * (z * (2 * normal.cdf(point) - 1) + 2 * normal.log_prob(point).exp() - 1 / math.pi**0.5)
    E = 1.0 + sigma * randn(n_members, 1)
    assert abs(crps(E, torch.tensor([1.0 + sigma * z])) - expected) < 5 * sigma / n_members**0.5


def test_the_rank_histogram_of_a_reliable_ensemble_is_flat(randn):
    n_members, n = 9, 20_000
    histogram = rank_histogram(randn(n // 4, n_members, 4), randn(n // 4, 4))
    assert histogram.shape == (n_members + 1,)
    expected = n / (n_members + 1)
    chi2 = ((n * histogram - expected) ** 2 / expected).sum()
    assert chi2 < n_members + 4 * (2 * n_members) ** 0.5
    assert histogram.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("width", "shape"), ((0.5, "U"), (2.0, "dome")))
def test_the_rank_histogram_shows_a_wrong_spread(width, shape, randn):
    histogram = rank_histogram(width * randn(2000, 9, 4), randn(2000, 4))
    ends, middle = histogram[[0, -1]].mean(), histogram[4:6].mean()
    assert ends > 1.5 * middle if shape == "U" else middle > 1.5 * ends


def test_the_rank_histogram_counts_the_members_below_the_truth():
    E = torch.tensor([[1.0], [2.0], [3.0]])
    assert rank_histogram(E, torch.tensor([2.5])).tolist() == [0, 0, 1, 0]


def test_a_perfect_model_makes_no_forecast_error(generator):
    truth = trajectory(MODEL, spin_up(MODEL, (3,), generator=generator, n_steps=50), 12)
    assert torch.equal(forecast_errors(MODEL, truth), torch.zeros(13, dtype=torch.float64))
    errors = forecast_errors(MODEL, truth, 5, starts=truth[:, 0] + 0.5)
    assert errors.shape == (6,)
    assert errors[0] == pytest.approx(0.5)


def test_forecast_errors_are_a_root_mean_square_over_runs_and_points(randn):
    truth = randn(2, 4, 6, 8)
    errors = forecast_errors(lambda x: x, truth)
    assert_close(errors[:, 3], (truth[:, :, 0] - truth[:, :, 3]).square().mean((1, 2)).sqrt())
    with pytest.raises(ValueError, match="n_steps = 6: the truth has 6 times"):
        forecast_errors(lambda x: x, truth, 6)


@pytest.mark.parametrize(
    ("errors", "lead"),
    (
        ([0.0, 1.0, 3.0, 5.0], 0.75),
        ([0.0, 1.0, 1.5], math.nan),
        ([3.0, 4.0], 0.0),
        ([0.0, 4.0, 1.0, 4.0], 0.25),
        ([0.0, 1.0, math.inf], 0.5),
    ),
    ids=("between two leads", "never", "from the start", "the first time", "the forecast blows up"),
)
def test_the_skill_horizon_is_interpolated(errors, lead):
    horizon = skill_horizon(torch.tensor(errors, dtype=torch.float64), threshold=2.0, dt=0.5)
    if errors[-1] == math.inf:
        assert 0.5 <= horizon <= 1.0
    else:
        assert float(horizon) == pytest.approx(lead, nan_ok=True)


def test_the_skill_horizon_takes_a_batch():
    errors = torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert_close(skill_horizon(errors, 2.0, 1.0), torch.tensor([0.5, torch.nan]), equal_nan=True)


def test_the_climate_is_that_of_all_states(generator):
    x = spin_up(MODEL, (2, 5), generator=generator, n_steps=50)
    states = trajectory(MODEL, x, 30)[:, :, 1:].flatten(1)
    measured = climate(MODEL, x, 30)
    assert_close(measured.mean, states.mean(-1))
    assert_close(measured.std, states.std(-1, correction=0))
    with pytest.raises(FloatingPointError, match="blew up within 30 steps"):
        climate(lambda z: 1e100 * z, x, 30)


def test_the_power_of_all_wavenumbers_is_the_mean_square(randn):
    states = randn(2, 30, 40)
    power = spectrum(states)
    assert power.shape == (2, 21)
    assert_close(power[:, 0] + 2 * power[:, 1:-1].sum(-1) + power[:, -1], states.square().mean((-2, -1)))


def test_a_pure_wave_has_one_wavenumber():
    n = torch.arange(40, dtype=torch.float64)
    power = spectrum(torch.cos(2 * math.pi * 3 * n / 40)[None])
    assert power.argmax() == 3
    assert power[3] == pytest.approx(0.25)
    assert power.sum() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("exponents", "dimension"),
    (([0.9, 0.0, -14.5], 2 + 0.9 / 14.5), ([1.0, -0.5, -2.0], 2.25), ([-1.0, -2.0], 0.0), ([0.5, -1.0], 1.5)),
)
def test_kaplan_yorke_by_hand(exponents, dimension):
    assert float(kaplan_yorke_dimension(torch.tensor(exponents, dtype=torch.float64))) == pytest.approx(dimension)
