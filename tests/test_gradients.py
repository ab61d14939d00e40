"""Gradients of the likelihood through the cycle, for the model and the tuning, against finite differences."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from mooc_da.cycle import cycle
from mooc_da.filters import ETKF, DEnKF, EnKF
from mooc_da.finite_size import EnKFN
from mooc_da.kalman import ExtendedKF, UnscentedKF
from mooc_da.localisation import LETKF
from mooc_da.models import Lorenz96, spin_up, trajectory
from mooc_da.observations import Observations, every, observe
from mooc_da.smoothers import EnKS

METHODS = {
    "EnKF": EnKF(6, model_error_std=0.1),
    "DEnKF": DEnKF(6, model_error_std=0.1),
    "ETKF": ETKF(6, model_error_std=0.1),
    "ETKF few": ETKF(4, model_error_std=0.1),  # fewer members than values
    "EnKFN": EnKFN(6, adaptive=False),
    "EnKFN adaptive": EnKFN(6),
    "EnKS": EnKS(6, lag=2),
    "LETKF": LETKF(6, radius=1.0),
    "UnscentedKF": UnscentedKF(model_error_std=0.1),
    "ExtendedKF": ExtendedKF(model_error_std=0.1),
}
ALL = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
F, INFLATION = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (7.5, 1.1))


@pytest.fixture
def twin(generator):
    """Observations of Lorenz-96 with eight sites and a start."""
    states = spin_up(Lorenz96(), states=Lorenz96().random_state((9,), 8, generator=generator), n_steps=100)
    truth = trajectory(Lorenz96(), states[0], 5)
    return observe(truth, every(2), 0.3, generator=generator), truth[0] + 0.5 * torch.randn(
        9, 8, dtype=torch.float64, generator=generator
    )


def objective(method, observations, start, differentiate=99):
    """``(forcing, inflation) -> `` the log-likelihood, or where there is none the misfit of the analysis."""

    def value(forcing, inflation):
        result = cycle(
            replace(method, inflation=inflation),
            Lorenz96(forcing=forcing),
            observations,
            start,
            generator=torch.Generator().manual_seed(1),
            differentiate=differentiate,
        )
        if "log_likelihood" in result.diagnostics:
            return result.diagnostics["log_likelihood"].nansum()
        return (result.analysis[:, ::2] - observations.y)[~observations.y.isnan()].square().sum()

    return value


@ALL
def test_the_gradient_is_that_of_finite_differences(method, twin):
    assert torch.autograd.gradcheck(objective(method, *twin), (F, INFLATION), eps=1e-6, atol=1e-5, rtol=1e-4)


@ALL
def test_the_gradient_stays_right_where_values_are_missing(method, twin):
    observations, start = twin
    y = observations.y.clone()
    y[1, :3] = y[2] = y[4, 1] = torch.nan
    observations = Observations(y, observations.network, observations.R)
    assert torch.autograd.gradcheck(
        objective(method, observations, start), (F, INFLATION), eps=1e-6, atol=1e-5, rtol=1e-4
    )


@ALL
def test_cutting_the_run_changes_the_gradient_and_not_the_value(method, twin):
    value = {n: objective(method, *twin, differentiate=n)(F, INFLATION) for n in (0, 2, 3, 6, 99)}
    gradient = {n: torch.autograd.grad(v, (F, INFLATION)) for n, v in value.items() if n}
    assert not value[0].requires_grad
    for n in (0, 2, 3, 6):
        assert_close(value[n].detach(), value[99].detach(), atol=1e-12, rtol=1e-12)
    assert_close(gradient[6], gradient[99])
    for n in (2, 3):
        assert (gradient[n][0] - gradient[99][0]).abs() > 1e-6 * gradient[99][0].abs()
    assert (gradient[2][0] - gradient[3][0]).abs() > 0


def test_one_time_is_enough_to_feel_the_model(twin):
    observations, start = twin
    found = torch.autograd.grad(objective(ETKF(6), *twin, differentiate=1)(F, INFLATION), F)[0]
    expected, state = 0.0, ETKF(6).start(start)  # each time the gradient of one step from a given analysis
    for k, obs in enumerate(observations[i] for i in range(6)):
        if k:
            state = ETKF(6).forecast(replace(state, E=state.E.detach()), Lorenz96(forcing=F))
        state, statistics = replace(ETKF(6), inflation=INFLATION).analyse(state, obs)
        if k:
            expected = expected + torch.autograd.grad(statistics["log_likelihood"], F, retain_graph=True)[0]
    assert_close(found, expected)


def test_the_gradient_of_the_likelihood_leads_to_the_true_forcing(generator):
    states = spin_up(Lorenz96(), states=Lorenz96().random_state((21,), 8, generator=generator), n_steps=200)
    truth = trajectory(Lorenz96(8.0), states[0], 60)
    observations = observe(truth, every(2), 0.3, generator=generator)
    start = truth[0] + 0.3 * (states[1:] - states.mean(0))
    score = objective(ETKF(20, model_error_std=0.05), observations, start, differentiate=10)
    low, high = 6.5, 9.2
    for _ in range(6):  # uphill, by halves
        middle = (low + high) / 2
        forcing = torch.tensor(middle, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(score(forcing, torch.ones(()).double()), forcing)
        low, high = (middle, high) if slope > 0 else (low, middle)
    assert abs(low - 8.0) < 0.4


def test_a_network_in_the_model_learns_through_the_cycle(twin, randn):
    observations, start = twin
    weight = (0.01 * randn(8, 8)).requires_grad_()
    step = lambda x: Lorenz96()(x) + torch.tanh(x @ weight)  # noqa: E731
    score = lambda n: cycle(ETKF(6), step, observations, start, differentiate=n).diagnostics["log_likelihood"].sum()  # noqa: E731
    (gradient,) = torch.autograd.grad(score(99), weight)
    direction = 1e-6 * randn(8, 8)
    before, after = (cycle(ETKF(6), lambda x, w=w: Lorenz96()(x) + torch.tanh(x @ w), observations, start).diagnostics[
        "log_likelihood"].sum() for w in (weight.detach() - direction, weight.detach() + direction))  # fmt: skip
    assert float((gradient * direction).sum()) == pytest.approx(float(after - before) / 2, rel=1e-3, abs=1e-9)
