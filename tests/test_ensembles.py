"""Ensemble algebra against dense linear algebra."""

import pytest
import torch
from torch.testing import assert_close

from mooc_da.ensembles import additive_noise, anomalies, inflate, modes, rotate, spread, sqrt_core

SHAPES = pytest.mark.parametrize(("n_members", "n_sites"), ((5, 12), (12, 5), (8, 8)))


def covariance(E):
    _, X = anomalies(E)
    return X.mT @ X / (E.shape[-2] - 1)


def test_anomalies_have_no_mean_and_add_up_to_the_ensemble(randn):
    E = randn(2, 6, 9)
    mean, X = anomalies(E)
    assert_close(X.sum(-2), torch.zeros(2, 9, dtype=torch.float64))
    assert_close(mean + X, E)


def test_spread_is_the_root_of_the_mean_variance(randn):
    E = randn(3, 6, 9)
    assert_close(spread(E), torch.stack([torch.cov(e.T).trace() / 9 for e in E]).sqrt())


@SHAPES
def test_modes_are_those_of_the_singular_value_decomposition(n_members, n_sites, randn):
    Y = randn(3, n_members, n_sites)
    U, s2 = modes(Y)
    assert U.shape == (3, n_members, min(n_members, n_sites))
    assert_close(s2.flip(-1), torch.linalg.svdvals(Y) ** 2)
    assert_close(U @ (U.mT @ Y), Y)
    assert_close(Y @ Y.mT, U @ torch.diag_embed(s2) @ U.mT)


def test_modes_of_a_matrix_of_low_rank_hold_no_noise(randn):
    Y = randn(9, 2) @ randn(2, 4)
    U, s2 = modes(Y)
    assert_close(U.mT @ U, torch.diag(torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)))
    assert_close(U @ (U.mT @ Y), Y)


def test_inflation_multiplies_the_spread_and_leaves_the_mean_alone(randn, unmodified):
    E = randn(4, 6, 9)
    factors = torch.tensor([1.0, 1.1, 0.5, 2.0], dtype=torch.float64)
    with unmodified(E):
        inflated = inflate(E, factors)
    assert_close(inflated.mean(-2), E.mean(-2))
    assert_close(spread(inflated), factors * spread(E))


@SHAPES
def test_sqrt_core_adds_the_model_error_exactly_in_the_space_of_the_ensemble(n_members, n_sites, randn, unmodified):
    E, std = randn(n_members, n_sites), 0.7
    _, X = anomalies(E)
    with unmodified(E):
        _, X_noisy = anomalies(sqrt_core(E, std))
    projector = torch.linalg.pinv(X, rtol=1e-10) @ X  # on the rows of X
    assert_close(X_noisy.mT @ X_noisy, X.mT @ X + (n_members - 1) * std**2 * projector)
    assert_close(sqrt_core(E, std).mean(-2), E.mean(-2))


def test_a_sampled_model_error_has_the_covariance_asked_for_and_no_mean(randn, generator):
    n_members, std = 20_000, 0.7
    E = torch.zeros(n_members, 4, dtype=torch.float64)
    noisy = additive_noise(E, std, generator)
    assert_close(noisy.mean(-2), E.mean(-2))
    assert_close(
        covariance(noisy), std**2 * torch.eye(4, dtype=torch.float64), atol=4 * std**2 * (2 / n_members) ** 0.5, rtol=0
    )


@SHAPES
def test_a_rotation_moves_members_but_keeps_mean_and_covariance(n_members, n_sites, randn, generator):
    E = randn(2, n_members, n_sites)
    rotated = rotate(E, generator)
    assert_close(rotated.mean(-2), E.mean(-2))
    assert_close(covariance(rotated), covariance(E))
    assert (rotated - E).abs().max() > 0.1


@pytest.mark.parametrize("operation", (inflate, sqrt_core))
def test_one_tuning_per_experiment_is_a_loop_over_experiments(operation, randn):
    E, tunings = randn(3, 6, 9), torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    assert_close(operation(E, tunings), torch.stack([operation(e, float(t)) for e, t in zip(E, tunings, strict=True)]))
