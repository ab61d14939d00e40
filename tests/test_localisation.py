"""The taper against its formula, and the LETKF against an ETKF at every point by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mooc_da.cycle import cycle
from mooc_da.filters import ETKF, etkf_update
from mooc_da.localisation import LETKF, coordinates, gaspari_cohn, letkf_update, neighbours
from mooc_da.models import Lorenz96, spin_up, trajectory
from mooc_da.observations import Observation, Pick, checkerboard, every, observe
from mooc_da.scores import rmse

RADII = pytest.mark.parametrize("radius", (0.7, 2.0, 5.0))


def gaspari_cohn_1999(z):
    """Their equation (4.10), with z = distance / c."""
    if z <= 1:
        return -(z**5) / 4 + z**4 / 2 + 5 * z**3 / 8 - 5 * z**2 / 3 + 1
    if z <= 2:
        return z**5 / 12 - z**4 / 2 + 5 * z**3 / 8 + 5 * z**2 / 3 - 5 * z + 4 - 2 / (3 * z)
    return 0.0


@RADII
def test_the_taper_is_the_function_of_gaspari_and_cohn(radius):
    c = (10 / 3) ** 0.5 * radius
    distance = torch.linspace(0, 2.5 * c, 1001, dtype=torch.float64)
    expected = torch.tensor([gaspari_cohn_1999(float(d) / c) for d in distance], dtype=torch.float64)
    taper = gaspari_cohn(distance, radius)
    assert_close(taper, expected, atol=1e-12, rtol=0)
    assert taper[0] == 1
    assert (taper.diff() <= 1e-12).all()
    assert (taper >= 0).all()
    assert (taper[distance >= 2 * c] == 0).all()
    assert (taper[distance < 1.9 * c] > 0).all()
    curvature = taper.diff(n=2) / (distance[1] / radius) ** 2
    assert curvature.abs().max() < 2  # continuous with its slope at 0, c and 2c
    assert (taper - torch.exp(-0.5 * (distance / radius) ** 2)).abs().max() < 0.06


@RADII
def test_the_taper_of_points_on_a_line_or_a_plane_is_a_correlation(radius):
    for grid in ((60,), (9, 9)):
        x = coordinates(grid, torch.device("cpu"))
        assert torch.linalg.eigvalsh(gaspari_cohn(torch.cdist(x, x), radius)).min() > -1e-10
    n = 60  # on a ring that is wider than its support
    apart = torch.arange(n, dtype=torch.float64)
    apart = (apart - apart[:, None]).abs()
    assert torch.linalg.eigvalsh(gaspari_cohn(torch.minimum(apart, n - apart), radius)).min() > -1e-10


@pytest.fixture
def problem(randn):
    """``problem(Nx, H)``: ensemble of 6 and an observation."""

    def draw(n_sites, H):
        E = randn(6, n_sites) + randn(n_sites)
        y = 2 * randn(H(E).shape[-1])
        return E, Observation(y, H, 0.2 + randn(len(y)) ** 2)

    return draw


def analysed(method, E, obs):
    return method.analyse(method.start(E), obs, torch.Generator().manual_seed(1))[0].E


@pytest.mark.parametrize("H", (Pick(), Pick(1, 3), Pick(0, 7)), ids=("everywhere", "every third", "two values"))
def test_without_a_radius_it_is_the_etkf(H, problem):
    E, obs = problem(12, H)
    assert_close(analysed(LETKF(6, 1.1, radius=float("inf")), E, obs), analysed(ETKF(6, 1.1), E, obs))
    assert_close(analysed(LETKF(6, radius=1e9), E, obs), analysed(ETKF(6), E, obs))


def point_by_point(E, obs, where, grid, radius):
    """At every point the ETKF of all its fields with tapered error variances; points without any stay."""
    P = int(np.prod(grid))
    E_a = E.clone()
    for i, point in enumerate(np.ndindex(*grid)):
        apart = np.abs(np.array(point) - where)
        distance = np.sqrt((np.minimum(apart, np.array(grid) - apart) ** 2).sum(-1))
        taper = np.array([gaspari_cohn_1999(d / ((10 / 3) ** 0.5 * radius)) for d in distance])
        near = torch.from_numpy(taper > 1e-14)
        if near.any():
            R = obs.R[near] / torch.from_numpy(taper)[near]
            E_a[:, i::P] = etkf_update(E[:, i::P], obs.H(E)[:, near], obs.y[near], R)[0]
    return E_a


@RADII
@pytest.mark.parametrize("H", (Pick(), Pick(1, 3)), ids=("everywhere", "every third"))
def test_each_point_has_the_etkf_of_its_neighbourhood(radius, H, problem):
    E, obs = problem(14, H)
    where = np.arange(14)[H.start :: H.stride, None]
    assert_close(analysed(LETKF(6, radius=radius), E, obs), point_by_point(E, obs, where, (14,), radius))


def test_several_fields_on_a_plane_have_the_etkf_of_their_neighbourhood(problem):
    grid, n = (4, 5), 20
    points = torch.tensor([0, 3, 7, 12, 18, 25, 31])  # some of the first field, some of the second
    where = np.array([divmod(int(p) % n, 5) for p in points])
    E, obs = problem(2 * n, lambda x: x[..., points])
    E_a = analysed(LETKF(6, radius=1.0, grid=grid), E, obs)
    assert_close(E_a, point_by_point(E, obs, where, grid, 1.0))
    positioned = LETKF(6, radius=1.0, grid=grid, positions=lambda H: torch.from_numpy(where).double())
    assert torch.equal(analysed(positioned, E, obs), E_a)


def test_an_observation_beyond_the_support_changes_nothing(problem):
    E, obs = problem(40, Pick(0, 4))
    radius = 2.0
    reach = 2 * (10 / 3) ** 0.5 * radius
    y = obs.y.clone()
    y[5] += 10  # at point 20
    before, after = (analysed(LETKF(6, radius=radius), E, obs._replace(y=value)) for value in (obs.y, y))
    moved = (before != after).any(0)
    distance = (torch.arange(40) - 20).abs()
    assert not moved[distance >= reach].any()
    assert moved[distance < reach - 1].all()
    nowhere = Observation(obs.y[:1], Pick(0, 40), obs.R[:1])
    assert_close(analysed(LETKF(6, radius=radius), E, nowhere)[:, 10:30], E[:, 10:30])


def test_it_turns_with_the_ring(problem):
    E, obs = problem(15, Pick(0, 3))
    method = LETKF(6, radius=2.0)
    turned = analysed(method, E.roll(3, -1), obs._replace(y=obs.y.roll(1), R=obs.R.roll(1)))
    assert_close(turned, analysed(method, E, obs).roll(3, -1))


@pytest.mark.parametrize("missing", (False, True))
def test_a_batch_of_experiments_is_a_loop_and_no_argument_changes(missing, randn, unmodified):
    E, y, R = randn(3, 6, 12), randn(3, 4), torch.full((3, 4), 0.5, dtype=torch.float64)
    if missing:
        R[1, 2] = torch.inf
    near = neighbours(Pick(0, 3), 12, (12,), 2.0, None, E.device)
    with unmodified(E, y, R):
        batch, statistics = letkf_update(E, E[..., ::3], y, R, near)
    for s in range(3):
        alone, expected = letkf_update(E[s], E[s, :, ::3], y[s], R[s], near)
        assert_close(batch[s], alone)
        assert_close(statistics["n_local"][s], expected["n_local"])


def test_a_missing_value_is_as_if_it_had_never_been_there(problem):
    E, obs = problem(12, Pick())
    gap = torch.arange(12) % 5 == 2
    missing = obs._replace(y=obs.y.masked_fill(gap, 0.0), R=obs.R.masked_fill(gap, torch.inf))
    without = Observation(obs.y[~gap], lambda x: x[..., ~gap], obs.R[~gap])
    method = LETKF(6, radius=1.5)
    assert_close(analysed(method, E, missing), analysed(method, E, without))


def test_only_what_is_near_is_kept():
    n, radius = 1000, 2.0
    near = neighbours(Pick(), n, (n,), radius, None, torch.device("cpu"))
    k = 2 * int(2 * (10 / 3) ** 0.5 * radius) + 1
    assert near.index.shape == near.taper.shape == (n, k)
    assert_close(near.taper.sum(-1), near.taper[0].sum().expand(n))
    plane = neighbours(Pick(0, 4), 25 * 40, (25, 40), radius, None, torch.device("cpu"))
    assert plane.index.shape[0] == n
    assert plane.index.shape[1] < 120


@pytest.mark.parametrize(
    "H",
    (
        lambda x: x[..., ::2] ** 2,
        lambda x: 2 * x[..., :3],
        lambda x: 2 * x[..., :1],
        lambda x: x[..., :2] ** 2,
        lambda x: x[..., ::2] + 0.5,
        lambda x: (x[..., 1:] + x[..., :-1]) / 2,
        lambda x: x.mean(-1, keepdim=True),
        lambda x: x.square().sum(-1, keepdim=True).sqrt(),
        torch.sin,
    ),
    ids=("squares", "twice", "the first twice", "two squares", "shifted", "between points", "mean", "norm", "sine"),
)
def test_an_operator_that_observes_who_knows_where_is_refused_until_told(H, problem):
    E, obs = problem(11, H)
    with pytest.raises(ValueError, match=r"LETKF: H does not pick points.*Give positions\(H\)"):
        analysed(LETKF(6), E, obs)
    where = torch.arange(len(obs.y), dtype=torch.float64)[:, None] + 0.5
    E_a = analysed(LETKF(6, radius=1.5, positions=lambda H: where), E, obs)
    assert_close(E_a, point_by_point(E, obs, where.numpy(), (11,), 1.5))


def test_a_few_members_that_drown_in_lorenz_96_track_it_with_localisation(generator):
    model = Lorenz96()
    states = spin_up(model, (11,), generator=generator, n_steps=300)
    truth = trajectory(model, states[0], 200)
    start = truth[0] + 0.1 * states[1:]
    observations = observe(truth, checkerboard, 0.2, generator=generator)
    local, plain = (
        rmse(cycle(method, model, observations, start, generator=generator).analysis, truth)[100:].mean()
        for method in (LETKF(10, 1.04, rotation=True, radius=4.0), ETKF(10, 1.04))
    )
    assert local < 0.2 < plain


@pytest.mark.parametrize(
    ("method", "message"),
    ((LETKF(6, radius=2.0, grid=(5,)), r"grid = \(5,\): a state of 12 numbers does not fill its 5 points"),),
)
def test_a_grid_that_does_not_fit_the_state_is_refused(method, message, problem):
    with pytest.raises(ValueError, match=message):
        analysed(method, *problem(12, Pick()))


@pytest.mark.parametrize("radius", (0.0, -1.0, float("nan")))
def test_a_radius_that_makes_no_sense_is_refused(radius):
    with pytest.raises(ValueError, match=f"radius = {radius}"):
        replace(LETKF(), radius=radius)


def test_networks_that_make_their_operators_anew_give_the_same(randn, generator):
    truth = randn(4, 12)
    start = randn(6, 12)
    observations = observe(truth, every(2), 0.5, generator=generator)
    anew = replace(observations, network=lambda k: lambda x: x[..., ::2])
    results = [cycle(LETKF(6, radius=2.0), torch.sin, o, start).analysis for o in (observations, anew)]
    assert torch.equal(*results)
