"""The minimisation: gradients of costs written out, its end at the bottom, and what it says if it stops short."""

import pytest
import torch
from torch.testing import assert_close

from mooc_da import minimisation
from mooc_da.covariances import Dense, Diagonal
from mooc_da.cycle import cycle_windows
from mooc_da.minimisation import conjugate_gradients, linearised
from mooc_da.models import Lorenz63, Lorenz96, repeated, spin_up, trajectory
from mooc_da.observations import Observation, Observations, Pick, everywhere
from mooc_da.variational import Var4D, trajectory_residual, var3d_update, var4d_update

STD = pytest.mark.parametrize("std", (0.0, 0.4), ids=("strong", "weak"))


@pytest.fixture(params=(512**2, 0), ids=("matrix", "conjugate gradients"))
def solver(request, monkeypatch):
    """Both ways of a Newton step."""
    monkeypatch.setattr(minimisation, "LARGEST_MATRIX", request.param)
    return request.param


def model_error(std, n=4):
    return Diagonal(torch.full((n,), std**2, dtype=torch.float64)) if std else None


def nonlinear_window(randn, n_times=4):
    """Background, model and window of Lorenz-96, seen in part, and its cost as a function of all states."""
    model = repeated(Lorenz96(), 1)
    truth = trajectory(repeated(model, 2), spin_up(model, states=randn(8) + 2, n_steps=200), n_times - 1)
    x_b, R = truth[0] + 0.5 * randn(8), torch.full((4,), 0.09, dtype=torch.float64)
    y = truth[:, ::2] + 0.3 * randn(n_times, 4)
    window = list(zip((0, 2, 2, 2), Observations(y, lambda k: Pick(0, 2), R), strict=False))

    def cost(x_0, q=None):
        x, J = x_0, 0.5 * ((x_0 - x_b) ** 2 / 0.25).sum()
        for k in range(n_times):
            if k:
                x = model(model(x)) + (0.1 * q[k - 1] if q is not None else 0.0)
            J = J + 0.5 * ((y[k] - x[::2]) ** 2 / 0.09).sum()
        return J if q is None else J + 0.5 * q.square().sum()

    return x_b, Diagonal(torch.full((8,), 0.25, dtype=torch.float64)), model, window, cost


@STD
def test_the_gradient_of_a_nonlinear_window_is_that_of_its_cost_written_out(std, randn, solver):
    x_b, B, model, window, cost = nonlinear_window(randn)
    Q = model_error(0.1 if std else 0.0, 8)
    v = 0.5 * randn(8 + (24 if std else 0))
    with torch.no_grad():
        here = linearised(trajectory_residual(x_b, B, model, window, Q), v, minimisation.LARGEST_MATRIX > 0)
    written_out = lambda v: cost(x_b + 0.5 * v[:8], v[8:].view(3, 8) if std else None)  # noqa: E731
    assert_close(here.cost, written_out(v))
    assert_close(here.gradient, torch.func.grad(written_out)(v))
    e = 1e-6 * randn(len(v))
    assert float(here.gradient @ e) == pytest.approx(float(written_out(v + e / 2) - written_out(v - e / 2)), rel=1e-4)
    assert (here.G is None) == (solver == 0)


@STD
def test_a_nonlinear_window_ends_at_the_bottom(std, randn, solver):
    x_b, B, model, window, cost = nonlinear_window(randn)
    found = var4d_update(x_b, B, model, window, Q=model_error(0.1 if std else 0.0, 8), tolerance=1e-7)
    assert found.converged
    x, q = found.states, None
    if std:
        q = torch.stack([x[k] - model(model(x[k - 1])) for k in (1, 2, 3)]) / 0.1
    assert_close(found.cost[-1], cost(x[0], q), rtol=1e-6, atol=1e-6)
    gradient = torch.func.grad(cost)(x[0], q)
    assert gradient.norm() < 1e-5 * torch.func.grad(cost)(x_b, torch.zeros_like(q) if std else None).norm()
    assert found.cost[-1] < found.cost[0]


@pytest.mark.parametrize("misfit", (0.5, 1.0))
def test_observed_by_a_network_far_from_its_tangent_the_analysis_converges_by_itself(misfit, network, randn):
    H, x_b, root = network(4, 3), randn(4), randn(4, 4)
    B, R = root @ root.T + 0.1 * torch.eye(4), torch.full((3,), 0.2, dtype=torch.float64)
    assert var3d_update(x_b, Dense(B), Observation(H(x_b) + misfit * randn(3), H, R), iterations=60).converged


def test_a_minimisation_that_stops_short_warns_and_says_so_in_its_diagnostics(randn):
    x_b, B, model, window, _ = nonlinear_window(randn)
    with pytest.warns(RuntimeWarning, match=r"stopped after 1 iterations with 1 of 1 short of the tolerance"):
        found = var4d_update(x_b, B, model, window, iterations=1)
    assert not found.converged
    observations = Observations(torch.stack([obs.y for _, obs in window]), lambda k: Pick(0, 2), window[0][1].R)
    with pytest.warns(RuntimeWarning, match="stopped after 1"):
        result = cycle_windows(Var4D(B, lag=3, shift=3, iterations=1), model, observations, x_b.expand(2, 8))
    assert (result.diagnostics["converged"] == 0).all()
    assert (result.diagnostics["iterations"] == 1).all()


@pytest.mark.filterwarnings("ignore:The minimisation stopped")
def test_in_a_window_too_long_for_the_model_the_cost_still_never_rises(randn, solver):
    model = repeated(Lorenz63(), 15)
    truth = trajectory(model, spin_up(Lorenz63(), states=randn(3) + 1, n_steps=1000), 5)
    window = list(zip((0, *[1] * 5), Observations(truth, everywhere, torch.ones(3, dtype=torch.float64)), strict=True))
    found = var4d_update(truth[0] + 3 * randn(3), Diagonal(torch.full((3,), 9.0).double()), model, window, iterations=8)
    assert (found.cost.diff() <= 1e-10 * found.cost[:-1]).all()
    assert found.cost[-1] < found.cost[0]


def test_conjugate_gradients_solve_a_batch_of_systems(randn):
    root, b = randn(3, 7, 7), randn(3, 7)
    A = root @ root.mT + torch.eye(7)
    b[1] = 0
    x = conjugate_gradients(lambda p: (A @ p.unsqueeze(-1)).squeeze(-1), b, tolerance=1e-12)
    assert_close(x, torch.linalg.solve(A, b))
