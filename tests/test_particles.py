"""The particle filter: Bayes' rule by hand, resampling, and the Kalman filter in the limit of many particles."""

import math

import numpy as np
import pytest
import torch
from oracles import LinearProblem
from torch.testing import assert_close

from mooc_da.cycle import cycle
from mooc_da.filters import FilterDivergence
from mooc_da.observations import Observation, Observations, Pick, everywhere
from mooc_da.particles import ParticleFilter, Particles, bayes_update, effective_size, systematic_resampling


@pytest.fixture
def weighted(randn):
    """``weighted(...)``: log weights that add up to one."""
    return lambda *shape: torch.log_softmax(2 * randn(*shape), -1)


def test_the_weights_are_those_of_bayes_rule_by_hand(randn, weighted, unmodified):
    log_w, HE, y, R = weighted(6), randn(6, 3), randn(3), 0.2 + randn(3) ** 2
    with unmodified(log_w, HE, y, R):
        posterior, log_evidence = bayes_update(log_w, HE, y, R)
    w, HE, y, R = (a.numpy() for a in (log_w.exp(), HE, y, R))
    density = np.exp(-0.5 * ((y - HE) ** 2 / R).sum(-1)) / np.sqrt(np.prod(2 * np.pi * R))  # (6,)
    evidence = (w * density).sum()
    assert_close(posterior.exp(), torch.from_numpy(w * density / evidence))
    assert float(log_evidence) == pytest.approx(np.log(evidence))


def test_likelihoods_too_small_for_a_number_still_compare_the_particles(randn, weighted):
    log_w, HE, R = weighted(6), randn(6, 3), torch.ones(3, dtype=torch.float64)
    y = torch.full((3,), 1e3, dtype=torch.float64)  # exp(-1.5e6) is zero
    posterior, log_evidence = bayes_update(log_w, HE, y, R)
    assert_close(posterior.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    i = int((log_w + (HE * y).sum(-1) - 0.5 * (HE**2).sum(-1)).argmax())
    assert int(posterior.argmax()) == i
    assert math.isfinite(log_evidence)
    assert log_evidence < -1e6


def test_missing_values_are_as_if_they_had_never_been_there(randn, weighted):
    log_w, HE, y, R = weighted(6), randn(6, 3), randn(3), 0.2 + randn(3) ** 2
    gap = torch.tensor([False, True, False])
    missing = bayes_update(log_w, HE, y.masked_fill(gap, 0.0), R.masked_fill(gap, torch.inf))
    assert_close(missing, bayes_update(log_w, HE[:, ~gap], y[~gap], R[~gap]))


def test_a_particle_off_the_finite_numbers_loses_its_weight_and_all_together_are_an_error(randn, weighted):
    log_w, HE, y, R = weighted(6), randn(6, 3), randn(3), torch.ones(3, dtype=torch.float64)
    HE[2, 0], HE[4, 1] = torch.nan, torch.inf
    posterior, _ = bayes_update(log_w, HE, y, R)
    assert (posterior.exp() == 0).tolist() == [False, False, True, False, True, False]
    assert_close(posterior.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    with pytest.raises(FloatingPointError, match="zero weight"):
        bayes_update(log_w, HE * torch.inf, y, R)


def test_a_particle_is_kept_its_share_of_times_rounded_up_or_down(weighted, generator):
    log_w = weighted(200, 50)
    index = systematic_resampling(log_w, generator)
    counts = torch.nn.functional.one_hot(index, 50).sum(-2)
    share = 50 * log_w.exp()
    assert ((counts - share).abs() < 1).all()
    assert index.shape == (200, 50)


def test_resampling_is_right_on_average(weighted, generator):
    n, log_w = 20_000, weighted(7)
    counts = torch.nn.functional.one_hot(systematic_resampling(log_w.expand(n, 7), generator), 7).sum(-2).double()
    assert ((counts.mean(0) - 7 * log_w.exp()).abs() < 4.5 * 0.5 / n**0.5).all()  # a count of two values: std <= 1/2


def test_the_effective_size_counts_the_particles_that_share_the_weight():
    equal = torch.full((8,), -math.log(8), dtype=torch.float64)
    half = torch.where(torch.arange(8) < 4, -math.log(4), -math.inf).double()
    one = torch.where(torch.arange(8) < 1, 0.0, -math.inf).double()
    assert_close(effective_size(torch.stack((equal, half, one))), torch.tensor([8.0, 4.0, 1.0], dtype=torch.float64))


def test_the_moments_are_those_of_the_weights(randn, weighted):
    E, log_w = randn(6, 3), weighted(6)
    mean, variance = Particles(E, log_w).moments()
    w = log_w.exp().numpy()
    assert_close(mean, torch.from_numpy(np.average(E, 0, w)))
    assert_close(variance, torch.from_numpy(np.average((E - mean) ** 2, 0, w)))


@pytest.mark.parametrize("missing", (False, True))
def test_with_many_particles_it_is_the_kalman_filter(missing, randn, generator):
    size, std = 40_000, 0.4
    p = LinearProblem(randn, std=std, n_sites=2, n_values=1, missing=missing)
    start = torch.from_numpy(p.x) + randn(size, 2) @ torch.linalg.cholesky(torch.from_numpy(p.P)).T
    result = cycle(ParticleFilter(size, model_error_std=std), p.step, p.observations[:4], start, generator=generator)
    for k in range(4):
        mean, variance = (moment[k] for moment in p.given(k))
        n = result.diagnostics["effective_size"][: k + 1].nan_to_num(size).min()  # what the samples are worth
        assert ((result.analysis[k] - mean).abs() < 6 * (variance / n).sqrt() * (k + 1) ** 0.5).all()
        assert ((result.variance[k] / variance - 1).abs() < 6 * (2 / n) ** 0.5 * (k + 1) ** 0.5).all()
    p.y[4] = torch.nan
    n = result.diagnostics["effective_size"].nan_to_num(size).min()
    assert abs(result.diagnostics["log_likelihood"].nansum() - p.log_likelihood()) < 6 * (4 * 4 / n) ** 0.5


def test_it_resamples_where_few_are_left_and_only_there(randn, generator):
    E = randn(2, 100, 1)
    y = torch.tensor([[0.0], [6.0]], dtype=torch.float64)  # the second is far out
    method = ParticleFilter(100, resample_below=0.5)
    obs = Observation(y, Pick(), torch.full((1,), 2.0, dtype=torch.float64))
    weighted, diagnostics = method.analyse(method.start(E), obs, generator)
    assert torch.equal(weighted.E, E)  # the analysis is taken before, without the noise of resampling
    state = method.forecast(weighted, lambda x: x, generator)
    assert diagnostics["effective_size"][0] > 50 > diagnostics["effective_size"][1]
    assert torch.equal(state.E[0], E[0])
    assert state.log_weights[0].unique().numel() > 1
    assert_close(state.log_weights[1].exp(), torch.full((100,), 0.01, dtype=torch.float64))
    assert set(state.E[1].flatten().tolist()) < set(E[1].flatten().tolist())


def test_regularisation_moves_copies_by_the_weighted_covariance(randn, weighted, generator):
    size, bandwidth = 20_000, 0.7
    method = ParticleFilter(size, bandwidth=bandwidth)
    E = randn(size, 2) @ randn(2, 2)
    state = Particles(E, torch.log_softmax(0.25 * weighted(size), -1))
    noise = method.jitter(state, generator)
    w = state.log_weights.exp().numpy()
    expected = (bandwidth * size ** (-1 / 6)) ** 2 * np.cov(E.T, aweights=w, ddof=0)
    tolerance = 5 * (2 / size) ** 0.5 * np.trace(expected)
    assert_close(torch.cov(noise.T), torch.from_numpy(expected), atol=tolerance, rtol=0)
    far = Observation(torch.full((2,), 2.0, dtype=torch.float64), Pick(), torch.full((2,), 0.05, dtype=torch.float64))
    copies, moved = (
        m.forecast(m.analyse(m.start(E), far)[0], lambda x: x, torch.Generator().manual_seed(1)).E
        for m in (ParticleFilter(size), method)
    )
    assert len(copies.unique(dim=0)) < size / 2
    assert len(moved.unique(dim=0)) == size


def test_model_error_is_drawn_for_every_particle_and_not_centred(generator):
    state = ParticleFilter(5000).start(torch.zeros(5000, 3, dtype=torch.float64))
    E = ParticleFilter(5000, model_error_std=0.3).forecast(state, lambda x: x, generator).E
    assert_close(torch.cov(E.T), 0.09 * torch.eye(3, dtype=torch.float64), atol=5 * 0.09 * (2 / 5000) ** 0.5, rtol=0)
    assert 0 < E.mean(0).abs().max() < 5 * 0.3 / 5000**0.5


def test_a_batch_of_experiments_is_a_loop(randn):
    E, y = randn(3, 50, 2), randn(3, 2)
    method = ParticleFilter(50, resample_below=1e-9)  # what it draws would differ along a batch
    R = torch.full((2,), 0.5, dtype=torch.float64)
    state, diagnostics = method.analyse(method.start(E), Observation(y, Pick(), R))
    for s in range(3):
        alone, expected = method.analyse(method.start(E[s]), Observation(y[s], Pick(), R))
        assert_close(state.log_weights[s], alone.log_weights)
        assert_close({n: v[s] for n, v in diagnostics.items()}, expected)


@pytest.mark.parametrize("resample_below", (0.5, 1.0))
def test_one_particle_that_blows_up_does_not_end_the_run(resample_below, randn, generator):
    start = randn(50, 2)
    observations = Observations(torch.zeros(3, 2, dtype=torch.float64), everywhere, torch.full((2,), 9.0).double())
    blow_up = lambda x: torch.where(x == start[7], torch.inf, x) if x.ndim > 1 else x  # noqa: E731
    result = cycle(ParticleFilter(50, resample_below=resample_below), blow_up, observations, start, generator=generator)
    assert torch.isfinite(result.analysis).all()


def test_no_weight_left_is_a_divergence_with_what_there_was(randn, generator):
    observations = Observations(randn(5, 2), everywhere, torch.ones(2, dtype=torch.float64))
    calls = iter(range(10))
    breaking = lambda x: x * (1.0 if next(calls) < 3 else torch.nan)  # noqa: E731  the first is a check of shapes
    with pytest.raises(FilterDivergence, match="time 3 of 5.*zero weight") as caught:
        cycle(ParticleFilter(50), breaking, observations, randn(50, 2), generator=generator)
    assert len(caught.value.partial) == 3


@pytest.mark.parametrize(
    ("tuning", "message"),
    (
        ({"size": 1}, "size = 1"),
        ({"resample_below": 0.0}, "resample_below = 0.0"),
        ({"resample_below": 1.5}, "resample_below = 1.5"),
        ({"bandwidth": -0.1}, "bandwidth = -0.1"),
        ({"bandwidth": math.nan}, "bandwidth = nan"),
        ({"model_error_std": -1.0}, "model_error_std = -1.0"),
        ({"inflation": 1.1}, "no inflation"),
        ({"rotation": True}, "no rotation"),
    ),
    ids=str,
)
def test_a_tuning_that_makes_no_sense_is_refused_by_name(tuning, message):
    with pytest.raises(ValueError, match=message):
        ParticleFilter(**tuning)
