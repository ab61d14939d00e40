"""Hybrids between their two parents, and an ensemble of variational analyses against the one of its mean."""

import pytest
import torch
from oracles import LinearProblem
from torch.testing import assert_close

from mooc_da.covariances import Dense, Diagonal, LowRank
from mooc_da.cycle import cycle_windows
from mooc_da.filters import ETKF
from mooc_da.hybrids import EnsembleVar4D, HybridVar
from mooc_da.variational import blue_update, var3d_update, var4d_update

MISSING = pytest.mark.parametrize("missing", (False, True), ids=("all there", "some missing"))


def covariance(p):
    return Dense(torch.from_numpy(p.P))


@pytest.mark.parametrize("inflation", (1.0, 1.2))
def test_a_hybrid_moves_from_3d_var_to_the_etkf_with_its_weight(inflation, randn):
    p = LinearProblem(randn)
    B, obs = Diagonal(0.5 + randn(4) ** 2), p.observations[0]
    etkf, _ = ETKF(9, inflation).analyse(ETKF(9).start(p.start), obs)
    static = Dense(B.variance.diag())
    for weight, expected in (
        (0.0, var3d_update(torch.from_numpy(p.x), B, obs, tolerance=1e-10).states[0]),
        (1.0, etkf.E.mean(0)),
        (
            0.3,
            blue_update(
                torch.from_numpy(p.x), Dense(0.7 * static.matrix + 0.3 * torch.from_numpy(p.P)), p.H, *obs[::2]
            ),
        ),
    ):
        method = HybridVar(9, inflation, covariance=B, weight=weight, tolerance=1e-10)
        state, _ = method.analyse(method.start(p.start), obs)
        assert_close(state.E.mean(0), expected)
        assert_close(state.E - state.E.mean(0), etkf.E - etkf.E.mean(0))  # the ETKF lays the members about it


@pytest.mark.parametrize("weight", (0.0, 0.5, 1.0))
def test_the_mean_of_an_ensemble_of_4d_vars_is_the_4d_var_of_the_mean(weight, randn, generator):
    p = LinearProblem(randn, n_members=30)
    B = Diagonal(0.5 + randn(4) ** 2)
    method = EnsembleVar4D(30, covariance=B, weight=weight, lag=4, shift=4, tolerance=1e-10)
    result = cycle_windows(method, p.step, p.observations, p.start, generator=generator)
    blend = Dense((1 - weight) * B.variance.diag() + weight * torch.from_numpy(p.P))
    window = [(int(k > 0), p.observations[k]) for k in range(5)]
    assert_close(result.analysis, var4d_update(torch.from_numpy(p.x), blend, p.step, window, tolerance=1e-10).states)


@MISSING
def test_the_spread_of_many_4d_vars_is_the_error_that_is_left(missing, randn, generator):
    n = 800
    p = LinearProblem(randn, n_members=n, missing=missing)
    method = EnsembleVar4D(n, covariance=covariance(p), weight=0.0, lag=4, shift=4)
    X = LowRank(p.start - p.start.mean(0))
    assert_close(method.covariance.variance, X.variance)
    object.__setattr__(method, "blended", lambda X: method.covariance)  # without the n directions of weight zero
    result = cycle_windows(method, p.step, p.observations, p.start, generator=generator)
    mean, variance = p.given()
    assert_close(result.analysis, mean, atol=1e-3, rtol=0)
    assert ((result.variance / variance - 1).abs() < 6 * (2 / n) ** 0.5).all()


ONES = Diagonal(torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: HybridVar(covariance=ONES, weight=1.5), "weight = 1.5"),
        (lambda: HybridVar(covariance=ONES, weight=-0.1), "weight = -0.1"),
        (lambda: HybridVar(covariance=ONES, weight=float("nan")), "weight = nan"),
        (lambda: EnsembleVar4D(covariance=ONES, lag=2, shift=0), "lag = 2, shift = 0"),
        (lambda: EnsembleVar4D(size=1, covariance=ONES), "size = 1"),
    ),
)
def test_weights_and_windows_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
