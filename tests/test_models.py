"""Models against index-by-index formulas, conservation laws and published statistics of their attractors."""

import pytest
import torch
from torch.testing import assert_close

from mooc_da.models import (
    CubicLorenz96,
    Lorenz63,
    Lorenz96,
    jacobian,
    lyapunov_exponents,
    repeated,
    spin_up,
    tangent_linear,
    trajectory,
)
from mooc_da.scores import climate, kaplan_yorke_dimension

MODELS = pytest.mark.parametrize("model", (Lorenz63(), Lorenz96(), CubicLorenz96()), ids=lambda m: type(m).__name__)
RINGS = pytest.mark.parametrize("model", (Lorenz96(), CubicLorenz96()), ids=lambda m: type(m).__name__)


def within_sampling_error(runs, expected, *, rounding):
    """Does the mean of independent runs agree with a value known to ``rounding``? Demands that the runs can tell."""
    error = float(runs.std() / len(runs) ** 0.5)
    assert error < 0.03 * max(abs(expected), 1.0), f"too few runs to judge: standard error {error:.3f}"
    return abs(float(runs.mean()) - expected) < 4 * error + rounding


@MODELS
def test_halving_the_step_divides_the_error_of_rk4_by_sixteen(model, generator):
    x = spin_up(model, (20,), generator=generator)

    def end(n_steps):
        return repeated(type(model)(dt=0.16 / n_steps), n_steps)(x)

    coarse, fine = ((end(n) - end(512)).abs().mean() for n in (8, 16))
    assert 13 < coarse / fine < 19


def test_advection_alone_conserves_the_sum_of_squares(randn):
    x = randn(5, 40)
    advection = Lorenz96(forcing=0.0).tendency(x) + x
    assert_close((x * advection).sum(-1), torch.zeros(5, dtype=torch.float64))


def test_the_cubic_tendency_is_the_printed_formula_index_by_index(randn):
    n_sites, nu, friction, forcing = 7, 0.3, 1.1, 8.5
    state = randn(n_sites)
    x = state.tolist()

    def at(i):
        return x[i % n_sites]

    expected = [
        (at(n + 1) - at(n - 2)) * at(n - 1)
        + nu * (at(n - 2) * at(n) * (at(n + 1) - at(n - 3)) - at(n - 1) * at(n + 1) * (at(n + 2) - at(n - 2)))
        - friction * at(n)
        + forcing
        for n in range(n_sites)
    ]
    assert_close(
        CubicLorenz96(forcing, cubic=nu, friction=friction).tendency(state), torch.tensor(expected, dtype=torch.float64)
    )


def test_the_true_model_without_its_additions_is_lorenz96(randn):
    x = randn(3, 40)
    assert_close(CubicLorenz96(8.0, cubic=0.0, friction=1.0)(x), Lorenz96(8.0)(x))


def test_lorenz63_rests_at_its_fixed_points():
    model = Lorenz63()
    c = (model.beta * (model.rho - 1)) ** 0.5
    points = torch.tensor([[0, 0, 0], [c, c, model.rho - 1], [-c, -c, model.rho - 1]], dtype=torch.float64)
    assert_close(model(points), points, atol=1e-12, rtol=0)


@RINGS
@pytest.mark.parametrize("shift", (1, 7, -3))
def test_a_shifted_state_gives_the_shifted_next_state(model, shift, randn):
    x = randn(2, 40)
    assert_close(model(x.roll(shift, -1)), model(x).roll(shift, -1))


@MODELS
def test_a_batch_is_a_loop_over_its_states_and_no_argument_changes(model, generator, unmodified):
    x = model.random_state((2, 3), generator=generator)
    with unmodified(x):
        batch = trajectory(model, x, 5)
    assert_close(batch, torch.stack([torch.stack([trajectory(model, s, 5) for s in row]) for row in x]))
    assert torch.equal(batch[..., 0, :], x)


def test_every_experiment_may_have_its_own_forcing(randn):
    x, forcings = randn(2, 3, 40), (7.0, 8.0)
    batch = Lorenz96(torch.tensor(forcings, dtype=torch.float64).view(2, 1, 1))(x)
    assert_close(batch, torch.stack([Lorenz96(f)(s) for f, s in zip(forcings, x, strict=True)]))


@MODELS
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_a_step_keeps_the_dtype_of_its_state(model, dtype):
    x = model.random_state((2,), generator=torch.Generator().manual_seed(1)).to(dtype)
    assert model(x).dtype == dtype


def test_the_flow_of_lorenz96_contracts_volumes_at_the_rate_of_its_friction(randn):
    J = torch.func.jacrev(Lorenz96().tendency)(randn(40))
    assert_close(J.trace(), torch.tensor(-40.0, dtype=torch.float64))


def test_lyapunov_exponents_of_lorenz96_are_the_known_ones():
    model = Lorenz96()
    x = spin_up(model, (8,), generator=torch.Generator().manual_seed(1))
    exponents = lyapunov_exponents(model, x, 800, model.dt)
    assert exponents.shape == (8, 40)
    assert within_sampling_error(exponents[:, 0], 1.69, rounding=0.01)
    assert within_sampling_error(kaplan_yorke_dimension(exponents), 27.1, rounding=0.05)
    assert within_sampling_error(exponents.clamp(min=0).sum(-1), 10.2, rounding=0.05)  # entropy
    assert_close(exponents.sum(-1), torch.full((8,), -40.0, dtype=torch.float64), atol=0.05, rtol=0)
    assert (exponents.mean(0) > 0.01).sum() == 13


def test_lyapunov_exponents_of_lorenz63_are_the_known_ones():
    model = Lorenz63()
    x = spin_up(model, (256,), generator=torch.Generator().manual_seed(1))
    exponents = lyapunov_exponents(model, x, 800, model.dt, n_discarded=300)
    assert within_sampling_error(exponents[:, 0], 0.906, rounding=0.001)
    assert_close(exponents.sum(-1), torch.full((256,), -13.667, dtype=torch.float64), atol=0.005, rtol=0)


def test_the_first_exponents_alone_are_part_of_the_full_spectrum():
    model = CubicLorenz96()
    x = spin_up(model, generator=torch.Generator().manual_seed(1), n_steps=200)
    first, full = (lyapunov_exponents(model, x, 100, model.dt, n, n_discarded=0) for n in (3, None))
    assert first.shape == (3,)
    assert ((first[:, None] - full).abs().min(-1).values < 1e-6).all()


@pytest.mark.parametrize(("model", "mean", "std"), ((Lorenz96(), 2.34, 3.64), (CubicLorenz96(), 2.12, 3.54)))
def test_the_climate_of_both_models_is_the_published_one(model, mean, std):
    runs = spin_up(model, (100, 1), generator=torch.Generator().manual_seed(1), n_steps=400)
    measured = climate(model, runs, 1000)
    assert within_sampling_error(measured.mean, mean, rounding=0.005)
    assert within_sampling_error(measured.std, std, rounding=0.005)


def test_a_model_that_blows_up_says_at_which_step():
    with pytest.raises(FloatingPointError, match="step 4 of 6.*smaller dt"):
        trajectory(lambda x: 1e100 * x, torch.ones(3, dtype=torch.float64), 6)


def test_spun_up_states_are_independent_of_each_other(generator):
    x = spin_up(Lorenz96(), (30,), generator=generator)
    correlation = torch.corrcoef(x - x.mean())
    off_diagonal = correlation[~torch.eye(30, dtype=torch.bool)]
    assert off_diagonal.abs().mean() < 0.3  # 40 correlated points leave about 0.15 by chance


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: repeated(Lorenz96(), 0), "n = 0"),
        (lambda: lyapunov_exponents(Lorenz96(), torch.zeros(40), 5, 0.05, 41), "n_exponents = 41"),
    ),
)
def test_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("gradients", (True, False))
def test_what_does_not_depend_on_the_state_has_no_derivative_by_it(gradients, randn):
    x, mean = randn(2, 3), randn(3).requires_grad_()
    for f in (lambda x: mean.expand_as(x), lambda x: mean.detach().expand_as(x)):
        with torch.set_grad_enabled(gradients):
            (value, J), (_, tangent) = jacobian(f, x), tangent_linear(f, x, x)
        assert torch.equal(value, mean.expand_as(x))
        assert value.requires_grad == (gradients and f(x).requires_grad)
        assert J.shape == (2, 3, 3)
        assert not J.any()
        assert not tangent.any()
