"""The shallow-water model against an oracle in NumPy, wave theory, balance and conservation laws."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mooc_da.models import repeated, spin_up, trajectory
from mooc_da.shallow_water import ShallowWater

SMALL = ShallowWater(n=12, length=6.0, gravity=1.3, coriolis=0.7, depth=1.2, viscosity=0.02, dt=0.05)


@pytest.fixture
def noise(randn):
    """``noise(model, 3)`` draws rough states: every field white noise."""
    return lambda model, *shape: model.flatten(
        model.depth * (1 + 0.1 * randn(*shape, model.n, model.n)),
        0.2 * randn(*shape, model.n, model.n),
        0.2 * randn(*shape, model.n, model.n),
    )


def oracle(model, h, u, v):
    """The tendency point by point, with indices written out: h[j][i], j to the north, i to the east."""
    n, d, nu = model.n, model.dx, model.viscosity

    def at(field, j, i):
        return field[j % n, i % n]

    def flux_x(j, i):
        return (at(h, j, i) + at(h, j, i + 1)) / 2 * at(u, j, i)

    def flux_y(j, i):
        return (at(h, j, i) + at(h, j + 1, i)) / 2 * at(v, j, i)

    def potential_vorticity(j, i):
        zeta = (at(v, j, i + 1) - at(v, j, i)) / d - (at(u, j + 1, i) - at(u, j, i)) / d
        corner = (at(h, j, i) + at(h, j, i + 1) + at(h, j + 1, i) + at(h, j + 1, i + 1)) / 4
        return (model.coriolis + zeta) / corner

    def bernoulli(j, i):
        kinetic = (at(u, j, i) ** 2 + at(u, j, i - 1) ** 2 + at(v, j, i) ** 2 + at(v, j - 1, i) ** 2) / 4
        return model.gravity * at(h, j, i) + kinetic

    def diffusion(field, j, i):
        neighbours = at(field, j + 1, i) + at(field, j - 1, i) + at(field, j, i + 1) + at(field, j, i - 1)
        return nu * (neighbours - 4 * at(field, j, i)) / d**2

    dh, du, dv = np.zeros((3, n, n))
    for j in range(n):
        for i in range(n):
            dh[j, i] = -(flux_x(j, i) - flux_x(j, i - 1) + flux_y(j, i) - flux_y(j - 1, i)) / d
            turning = [potential_vorticity(k, i) * (flux_y(k, i) + flux_y(k, i + 1)) / 2 for k in (j, j - 1)]
            du[j, i] = sum(turning) / 2 - (bernoulli(j, i + 1) - bernoulli(j, i)) / d + diffusion(u, j, i)
            turning = [potential_vorticity(j, k) * (flux_x(j, k) + flux_x(j + 1, k)) / 2 for k in (i, i - 1)]
            dv[j, i] = -sum(turning) / 2 - (bernoulli(j + 1, i) - bernoulli(j, i)) / d + diffusion(v, j, i)
    return dh, du, dv


def test_the_tendency_is_the_printed_scheme_point_by_point(noise):
    x = noise(SMALL)
    expected = oracle(SMALL, *(field.numpy() for field in SMALL.fields(x)))
    assert_close(SMALL.tendency(x), torch.from_numpy(np.stack(expected)).flatten())


def test_mass_is_conserved_to_rounding_however_rough_the_flow(noise):
    x = noise(SMALL, 4)
    assert_close(SMALL.mass(repeated(SMALL, 200)(x)), SMALL.mass(x), rtol=1e-13, atol=0)


def test_the_scheme_itself_conserves_energy_to_rounding(noise):
    model = replace(SMALL, viscosity=0.0)
    x = noise(model, 4)
    energy, rate = torch.func.jvp(model.energy, (x,), (model.tendency(x),))
    _, with_viscosity = torch.func.jvp(SMALL.energy, (x,), (SMALL.tendency(x),))
    assert (rate / energy).abs().max() < 1e-13
    assert (with_viscosity / energy < -1e-3).all()


def test_what_time_stepping_does_to_energy_vanishes_like_the_fifth_power_of_the_step(noise):
    x = noise(SMALL)

    def drift(n_steps):
        model = replace(SMALL, viscosity=0.0, dt=2.0 / n_steps)
        return float((model.energy(repeated(model, n_steps)(x)) / model.energy(x) - 1).abs())

    assert drift(40) < 1e-3
    assert 12 < drift(40) / drift(80) < 40


def plane_wave(model, k, l, t):
    """A weak Poincaré wave of the continuous equations at time t, every field at its own place of the cell."""
    omega = math.sqrt(model.coriolis**2 + model.gravity * model.depth * (k**2 + l**2))
    centres = (torch.arange(model.n, dtype=torch.float64) + 0.5) * model.dx
    scale = 1e-6 / (model.depth * (k**2 + l**2))

    def phase(dx, dy):
        return k * (centres + dx) + l * (centres + dy)[:, None] - omega * t

    east, north = phase(model.dx / 2, 0.0), phase(0.0, model.dx / 2)
    return model.flatten(
        model.depth + 1e-6 * phase(0.0, 0.0).cos(),
        scale * (k * omega * east.cos() - l * model.coriolis * east.sin()),
        scale * (l * omega * north.cos() + k * model.coriolis * north.sin()),
    )


@pytest.mark.parametrize(("waves_x", "waves_y"), ((1, 0), (0, 2), (2, 1)))
@pytest.mark.parametrize("coriolis", (0.0, 1.0))
def test_weak_waves_travel_at_the_speed_of_theory(waves_x, waves_y, coriolis):
    def error(n):
        model = ShallowWater(n=n, coriolis=coriolis, viscosity=0.0)
        k, l = (2 * math.pi * w / model.length for w in (waves_x, waves_y))
        theory = plane_wave(model, k, l, 100 * model.dt)
        error = repeated(model, 100)(plane_wave(model, k, l, 0.0)) - theory
        return float(error.norm() / (theory - theory.unflatten(-1, (3, -1)).mean(-1).repeat_interleave(n * n)).norm())

    assert error(64) < 0.06  # the grid slows waves a little ...
    assert error(32) / error(64) == pytest.approx(4, rel=0.1)  # ... in the second order of its width


def test_weak_geostrophic_flow_is_steady(generator):
    model = ShallowWater(n=32, viscosity=0.0, dt=0.2)

    def change(height):
        x = model.random_state((2,), height=height, generator=generator.manual_seed(1))
        return float((repeated(model, 50)(x) - x).abs().max() / height)

    assert change(1e-7) < 1e-6
    assert change(1e-4) / change(1e-5) == pytest.approx(10, rel=0.1)  # what changes it is the nonlinear terms


def test_random_states_are_balanced_vortices(generator):
    model = ShallowWater(n=32, dt=0.2)
    x = model.random_state((3, 2), generator=generator)
    h, u, v = model.fields(x)
    divergence = (u - u.roll(1, -1) + v - v.roll(1, -2)) / model.dx
    assert x.shape == (3, 2, 3 * 32 * 32)
    assert divergence.abs().max() < 1e-13
    assert 0 < h.min() < h.max() < 3
    assert u.abs().max() > 0.01
    assert torch.corrcoef(model.vorticity(x).flatten(-2)[0])[0, 1].abs() < 0.9  # not the same state twice


def test_without_rotation_random_states_are_at_rest_and_send_out_waves(generator):
    model = ShallowWater(n=32, coriolis=0.0, dt=0.2)
    x = model.random_state((), generator=generator)
    assert (model.fields(x)[1] == 0).all()
    assert model.fields(repeated(model, 10)(x))[1].abs().max() > 0.01


def test_a_batch_is_a_loop_over_its_states_and_no_argument_changes(noise, unmodified):
    x = noise(SMALL, 2, 3)
    with unmodified(x):
        batch = trajectory(SMALL, x, 5)
    assert_close(batch, torch.stack([torch.stack([trajectory(SMALL, s, 5) for s in row]) for row in x]))


def test_shifting_a_state_shifts_what_it_becomes(noise):
    x = noise(SMALL)

    def shifted(state):
        return SMALL.flatten(*(field.roll((2, -5), (-2, -1)) for field in SMALL.fields(state)))

    assert_close(SMALL(shifted(x)), shifted(SMALL(x)))


def test_fields_and_flatten_undo_each_other(noise):
    x = noise(SMALL, 2)
    assert torch.equal(SMALL.flatten(*SMALL.fields(x)), x)
    assert torch.equal(x[..., : SMALL.n**2], SMALL.fields(x)[0].flatten(-2))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_a_step_keeps_the_dtype_of_its_state(dtype, noise):
    assert SMALL(noise(SMALL).to(dtype)).dtype == dtype


def test_derivatives_by_autograd_and_by_jvp_are_those_of_differences(noise):
    model = replace(SMALL, n=5, length=2.5)
    x, direction = noise(model).requires_grad_(), noise(model)
    assert torch.autograd.gradcheck(model, x)
    _, tangent = torch.func.jvp(model, (x.detach(),), (direction,))
    difference = (model(x + 1e-6 * direction) - model(x - 1e-6 * direction)).detach() / 2e-6
    assert_close(tangent, difference, rtol=1e-6, atol=1e-8)


def test_the_default_model_runs_two_thousand_steps_with_strong_vortices():
    model = ShallowWater(n=32, dt=0.2)
    x = model.random_state((4,), height=0.5, generator=torch.Generator().manual_seed(1))
    end = spin_up(model, states=x, n_steps=2000)
    assert torch.isfinite(end).all()
    assert model.fields(end)[0].min() > 0.3
    assert (0.5 * model.energy(x) < model.energy(end)).all()
    assert (model.energy(end) < model.energy(x)).all()
    assert model.vorticity(end).abs().amax() < model.vorticity(x).abs().amax()  # smooth still: nothing at grid scale


@pytest.mark.slow
def test_the_default_grid_is_as_stable():
    model = ShallowWater()
    x = model.random_state((2,), height=0.5, generator=torch.Generator().manual_seed(2))
    end = spin_up(model, states=x, n_steps=2000)
    assert torch.isfinite(end).all()
    assert (model.energy(end) < model.energy(x)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: ShallowWater(n=2), "n = 2"),
        (lambda: ShallowWater(length=-1.0), "length = -1.0: expected a positive number"),
        (lambda: ShallowWater(viscosity=float("nan")), "viscosity = nan: expected a positive number or zero"),
        (lambda: ShallowWater(coriolis=-1.0), "coriolis"),
        (lambda: ShallowWater(dt=0.5), "dt = 0.5.*use dt <= "),
        (lambda: SMALL(torch.ones(2, 40)), r"expected \(..., 432\)"),
        (lambda: SMALL.fields(torch.ones(3, 12, 12)), r"expected \(..., 432\)"),
        (lambda: SMALL.flatten(*torch.ones(3, 12, 11)), r"h has shape \(12, 11\)"),
        (lambda: SMALL.random_state((), 0, generator=torch.Generator()), "n_vortices = 0"),
        (lambda: SMALL.random_state((), height=1.5, generator=torch.Generator()), "height = 1.5"),
        (lambda: SMALL.random_state((), radius=0.0, generator=torch.Generator()), "radius = 0.0"),
    ),
)
def test_impossible_numbers_and_shapes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
