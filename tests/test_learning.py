"""Pairs, networks, the ridge and the training loop: exact where theory is exact, honest where it is statistical."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mooc_da import stages
from mooc_da.learning import fit, one_step_loss, rollout_loss, rollout_pairs, split_in_time, training_pairs
from mooc_da.models import Lorenz96, spin_up, trajectory
from mooc_da.networks import CorrectionCNN, CubicRidge, HybridModel, TendencyHybrid
from mooc_da.observations import checkerboard, observe
from mooc_da.soap import SOAP

MODEL = Lorenz96()
TINY = {"channels": (4,), "widths": (3, 1)}


def tiny(*seeds):
    """A batch of tiny networks, or a single one for no seeds."""
    generators = [torch.Generator().manual_seed(s) for s in seeds or (0,)]
    return CorrectionCNN((len(seeds),) if seeds else (), **TINY, generators=generators)


@pytest.fixture
def data(randn):
    """Training and validation pairs of a smooth local function, with noise."""
    x = randn(300, 8)
    y = 0.3 * (x.roll(1, -1) - x).tanh() + 0.02 * randn(300, 8)
    return (x[:200], y[:200]), (x[220:], y[220:])


# Pairs and their split


def test_the_targets_of_a_perfect_model_are_zero(generator):
    states = trajectory(MODEL, spin_up(MODEL, (2,), generator=generator, n_steps=50), 20)
    inputs, targets = training_pairs(states, MODEL)
    assert torch.equal(inputs, states[:, :-1])
    assert torch.equal(targets, torch.zeros_like(inputs))


def test_a_constant_model_error_is_the_target_at_every_time(generator):
    states = trajectory(lambda x: MODEL(x) + 0.25, spin_up(MODEL, generator=generator, n_steps=50), 20)
    assert_close(training_pairs(states, MODEL)[1], torch.full((20, 40), 0.25, dtype=torch.float64))


def test_a_split_is_contiguous_disjoint_and_leaves_the_gap():
    times = torch.arange(100.0)[:, None].expand(100, 3)
    training, validation = split_in_time((times, -times), 0.2, gap=7)
    assert training[0][:, 0].tolist() == list(range(73))
    assert validation[0][:, 0].tolist() == list(range(80, 100))
    for inputs, targets in (training, validation):
        assert torch.equal(targets, -inputs)


@pytest.mark.parametrize(
    ("n_pairs", "fraction", "gap", "message"),
    (
        (10, 0.0, 0, "validation_fraction = 0.0"),
        (10, 1.0, 0, "validation_fraction = 1.0"),
        (10, 0.2, -1, "gap = -1.*overlap"),
        (10, 0.2, 8, "10 pairs split at 8 with a gap of 8 leave 0 for training"),
        (10, 0.01, 0, "0 for validation: use more data"),
        (0, 0.2, 0, "0 pairs"),
    ),
)
def test_a_split_without_both_parts_is_refused(n_pairs, fraction, gap, message):
    with pytest.raises(ValueError, match=message):
        split_in_time((torch.zeros(n_pairs, 3), torch.zeros(n_pairs, 3)), fraction, gap)


@pytest.mark.parametrize("shape", ((40,), (1, 40)))
def test_pairs_need_two_times(shape):
    with pytest.raises(ValueError, match="at least two times"):
        training_pairs(torch.zeros(shape), MODEL)


# The network


def test_the_network_of_the_course_has_4781_parameters():
    assert sum(p.numel() for p in CorrectionCNN().parameters()) == 4781


def test_the_network_is_a_periodic_convolution_as_torch_computes_it(randn):
    network = CorrectionCNN().eval()
    x = randn(5, 40)
    z = x.float().unsqueeze(1)
    for layer, width in zip(network.layers, network.form["widths"], strict=True):
        n_out, n_in = layer.bias.shape[0], layer.weight.shape[1] // width
        kernel = layer.weight.view(n_out, width, n_in).mT
        z = torch.conv1d(nn.functional.pad(z, (width // 2, width // 2), mode="circular"), kernel, layer.bias[:, 0])
        z = z if layer is network.layers[-1] else z.tanh()
    assert_close(network(x), z.squeeze(1).double(), atol=1e-5, rtol=0)


def test_a_shifted_state_gets_the_shifted_correction(randn):
    network, x = CorrectionCNN(), randn(3, 40)
    assert_close(network(x.roll(5, -1)), network(x).roll(5, -1), atol=1e-5, rtol=0)


def test_a_correction_sees_five_points_to_either_side(randn):
    sensitivity = torch.func.jacrev(CorrectionCNN().double())(randn(40))[20]
    assert sensitivity.nonzero().squeeze().tolist() == list(range(15, 26))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("shape", ((40,), (7, 40), (2, 3, 40)))
def test_states_of_any_shape_and_precision_come_back_as_they_went_in(dtype, shape):
    y = CorrectionCNN()(torch.ones(shape, dtype=dtype))
    assert y.shape == shape
    assert y.dtype == dtype


def test_a_batch_of_networks_is_each_network_alone(randn):
    batch, x = tiny(1, 2, 3), randn(3, 5, 8)
    for s in range(3):
        assert_close(batch(x)[s], tiny(s + 1)(x[s : s + 1])[0])
    with pytest.raises(ValueError, match=r"x has shape \(2, 8\).*expected \(3, '...', 'Nx'\)"):
        batch(x[0, :2])


def test_corrections_follow_the_units_of_the_training_data(randn):
    network, x = tiny(), randn(50, 8)
    network.scale_to(x, 0.1 * x)
    plain = network(x)
    network.scale_to(100 * x + 7, 3 * x)
    assert_close(network(100 * x + 7), 30 * plain, atol=1e-4, rtol=1e-4)


def test_a_saved_network_is_the_same_after_loading(tmp_path, randn):
    network, x = tiny(1, 2), randn(2, 5, 8)
    network.scale_to(x, x)
    network.save(tmp_path / "network.pt")
    loaded = CorrectionCNN.load(tmp_path / "network.pt")
    assert not loaded.training
    assert loaded.form == network.form
    assert torch.equal(loaded(x), network(x))


@pytest.mark.parametrize("content", ("text", "tensor", "another architecture", "incomplete"))
def test_a_file_that_holds_no_such_network_is_refused_by_name(content, tmp_path):
    path = tmp_path / "network.pt"
    network = tiny()
    match content:
        case "text":
            path.write_text("not a network")
        case "tensor":
            torch.save(torch.zeros(3), path)
        case "another architecture":
            torch.save({"form": CorrectionCNN().form, "state": network.state_dict()}, path)
        case "incomplete":
            torch.save({"form": network.form}, path)
    with pytest.raises(ValueError, match="(?s)network.pt does not hold a CorrectionCNN.*anew"):
        CorrectionCNN.load(path)
    with pytest.raises(FileNotFoundError):
        CorrectionCNN.load(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"widths": (7, 5, 1)}, "3 hidden layers need 4 kernel widths, not 3"),
        ({"widths": (6, 5, 1, 1)}, "width = 6.*odd"),
        ({"batch": (2,), "generators": [torch.Generator()]}, "1 generators for 2 networks"),
    ),
)
def test_an_impossible_architecture_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CorrectionCNN(**options)


# The ridge


def test_the_ridge_recovers_a_cubic_translation_invariant_function(randn):
    def cubic(x):
        left, right = x.roll(2, -1), x.roll(-1, -1)
        return 0.3 + x - 0.5 * left * right + 0.1 * x**2 * left

    x, new = randn(2, 60, 12), randn(2, 20, 12)
    ridge = CubicRidge(x, cubic(x), ridge=1e-12)
    assert ridge.coefficients.shape == (2, 120)
    assert_close(ridge(new), cubic(new), atol=1e-6, rtol=0)
    assert_close(ridge(new[:, 0]), cubic(new[:, 0]), atol=1e-6, rtol=0)


def test_the_ridge_is_the_penalised_least_squares_of_numpy(randn):
    x, t, penalty = randn(60, 12), randn(60, 12), 0.01
    ridge = CubicRidge(x, t, penalty, reach=1)
    phi = ridge.features(x).flatten(0, 1).numpy()
    n, n_features = phi.shape
    assert n_features == 20
    stacked = np.vstack((phi, np.sqrt(penalty * n) * np.eye(n_features)))
    coefficients, *_ = np.linalg.lstsq(stacked, np.append(t.flatten().numpy(), np.zeros(n_features)))
    assert_close(ridge(x).flatten(), torch.from_numpy(phi @ coefficients))


def test_the_ridge_needs_a_penalty(randn):
    with pytest.raises(ValueError, match="ridge = 0.0"):
        CubicRidge(randn(5, 8), randn(5, 8), ridge=0.0)


# Hybrids


def test_hybrids_with_a_zero_correction_are_the_physical_model(randn):
    x = randn(3, 40)
    for hybrid in (HybridModel(MODEL, torch.zeros_like), TendencyHybrid(MODEL, torch.zeros_like)):
        assert torch.equal(hybrid(x), MODEL(x))
        assert not hybrid.training


def test_a_hybrid_with_the_true_error_is_the_true_model(randn, small):
    x, physical, truth = randn(3, 40), stages.physical_model(small), stages.true_model(small)
    assert_close(HybridModel(physical, lambda z: truth(z) - physical(z))(x), truth(x))
    tendency_error = lambda z: physical.dt * (truth.tendency(z) - physical.tendency(z))  # noqa: E731
    assert_close(TendencyHybrid(physical, tendency_error)(x), truth(x))
    halves = TendencyHybrid(physical, tendency_error, dt=small.dt / 2)
    assert_close(halves(x), replace(truth, dt=small.dt / 2)(x))


# Training


def test_training_lowers_the_loss_and_keeps_the_best_weights(data):
    network = tiny(1, 2)
    training, validation = (tuple(p.expand(2, *p.shape) for p in part) for part in data)
    network.scale_to(*training)
    before = one_step_loss(network, *validation)
    history = fit(
        network, training, validation, epochs=12, learning_rate=0.05, generator=torch.Generator().manual_seed(1)
    )
    assert history.training.shape == history.validation.shape == (12, 2)
    assert (history.best_validation < 0.5 * before).all()
    assert not network.training
    after = one_step_loss(network, *validation)
    assert_close(after.float(), history.best_validation, atol=1e-5, rtol=1e-4)
    assert_close(history.validation[history.best_epoch, range(2)], history.best_validation)


def test_networks_trained_in_a_batch_are_those_trained_alone(data):
    training, validation = (tuple(torch.stack((p, 2 * p)) for p in part) for part in data)
    options = {"epochs": 3, "learning_rate": 0.02}
    batch = fit(tiny(1, 2), training, validation, generator=torch.Generator().manual_seed(1), **options)
    for s in range(2):
        one = [tuple(p[s : s + 1] for p in part) for part in (training, validation)]
        alone = fit(tiny(s + 1), *one, generator=torch.Generator().manual_seed(1), **options)
        assert_close(batch.validation[:, s], alone.validation[:, 0], atol=1e-4, rtol=1e-3)


def test_training_leaves_its_data_alone_and_is_reproducible(data, unmodified):
    with unmodified(*data[0], *data[1]):
        first, again = (fit(tiny(), *data, epochs=2, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.validation, again.validation)


def test_training_stops_early_when_nothing_improves(data):
    noise = (data[1][0], torch.randn(80, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    history = fit(tiny(), data[0], noise, epochs=60, learning_rate=0.1, patience=3, rescale=True)
    assert len(history.validation) == int(history.best_epoch) + 4 < 60


def test_a_loss_that_becomes_nan_is_reported_and_the_best_weights_survive(data):
    network = tiny()
    with pytest.raises(FloatingPointError, match="loss became NaN in epoch 3 of 5.*smaller learning_rate"):
        fit(network, *data, epochs=5, batch_size=200, loss=break_after(4))
    assert all(torch.isfinite(p).all() for p in network.parameters())


def break_after(n_calls):
    """The one-step loss, which turns into NaN after some calls."""
    calls = iter(range(1000))
    return lambda *args: one_step_loss(*args) * (float("nan") if next(calls) >= n_calls else 1.0)


X = torch.zeros(10, 8, dtype=torch.float64)


@pytest.mark.parametrize(
    ("training", "validation", "message"),
    (
        ((X[:0], X[:0]), (X, X), "training has 0 inputs and 0 targets"),
        ((X, X[:9]), (X, X), "training has 10 inputs and 9 targets"),
        ((X, X), (X[:0], X[:0]), "validation has 0 inputs"),
        ((X, X * torch.nan), (X, X), "training contains NaN or infinite.*diverge"),
        ((X, X), (X / 0, X), "validation contains NaN"),
        ((X, X[:, :4]), (X, X), "training"),
        ((X.expand(2, 10, 8), X.expand(2, 10, 8)), (X.expand(2, 10, 8), X.expand(2, 10, 8)), "training"),
    ),
    ids=("empty", "unequal", "no validation", "NaN", "NaN in validation", "other grid", "batch for one network"),
)
def test_pairs_that_cannot_be_learnt_from_are_refused(training, validation, message):
    with pytest.raises(ValueError, match=message):
        fit(tiny(), training, validation, epochs=1)


def test_the_rollout_loss_of_one_step_is_the_mean_squared_distance(randn):
    states, network = randn(2, 6, 8), tiny(1, 2)
    inputs, targets = rollout_pairs(states, 1)
    loss = rollout_loss(lambda n: HybridModel(MODEL, n), 1)(network, inputs, targets)
    assert_close(loss, (MODEL(inputs) + network(inputs) - states[:, 1:]).square().mean((-2, -1)))


def test_the_rollout_loss_follows_the_trajectory(generator):
    states = trajectory(MODEL, spin_up(MODEL, generator=generator, n_steps=50), 9)
    inputs, targets = rollout_pairs(states, 3)
    assert inputs.shape == (7, 40)
    assert torch.equal(targets[2].view(3, 40), states[3:6])
    assert rollout_loss(lambda n: MODEL, 3)(tiny(), inputs, targets) == 0
    with pytest.raises(ValueError, match="n_steps = 10: expected 1 … 9 for 10 states"):
        rollout_pairs(states, 10)


def test_row_i_of_a_rollout_meets_targets_and_precisions_of_the_times_that_follow_i(randn):
    times = torch.arange(9.0, dtype=torch.float64).view(9, 1)
    states, targets, precision = (100 * c + 10 * times + torch.arange(4) for c in range(3))
    inputs, met, worth = rollout_pairs(states, 3, targets, precision)
    assert torch.equal(inputs, states[:6])
    for i in range(6):
        assert torch.equal(met[i].view(3, 4), targets[i + 1 : i + 4])
        assert torch.equal(worth[i].view(3, 4), precision[i + 1 : i + 4])
    assert len(rollout_pairs(states, 3, targets)) == 2
    _, themselves, worth = rollout_pairs(states, 3, precision=precision)
    assert torch.equal(themselves[2].view(3, 4), states[3:6])
    assert torch.equal(worth[2].view(3, 4), precision[3:6])


@pytest.mark.parametrize(
    "wrong",
    ({"targets": torch.zeros(8, 4)}, {"targets": torch.zeros(9, 2)}, {"precision": torch.zeros(9, 5)}),
    ids=("times", "points", "precision"),
)
def test_targets_of_other_times_or_points_than_the_states_are_refused(wrong, randn):
    with pytest.raises(ValueError, match="expected the times and points of the states"):
        rollout_pairs(randn(9, 4), 3, **wrong)
    with pytest.raises(ValueError, match="n_steps = 0: expected 1 … 8"):
        rollout_pairs(randn(9, 4), 0)


def test_the_rollout_loss_is_its_equation_and_does_not_see_what_has_no_precision(randn):
    states, targets, network = randn(2, 7, 8), randn(2, 7, 8), tiny(1, 2).double()
    precision = randn(2, 7, 8).square() * (randn(2, 7, 8) > 0)
    step = HybridModel(MODEL, network)
    expected = np.zeros(2)
    with torch.no_grad():
        for k in range(4):
            x = states[:, k]
            for j in (1, 2, 3):
                x = step(x)
                missed = precision[:, k + j] * (x - targets[:, k + j]) ** 2
                expected += missed.mean(-1).numpy() / 3 / 4
    loss = rollout_loss(lambda n: HybridModel(MODEL, n), 3)
    assert_close(loss(network, *rollout_pairs(states, 3, targets, precision)).detach().numpy(), expected)
    unseen = torch.where(precision > 0, targets, 1e6)
    assert_close(loss(network, *rollout_pairs(states, 3, unseen, precision)).detach().numpy(), expected)
    plain, ones = (loss(network, *rollout_pairs(states, 3, targets, p)) for p in (None, torch.ones_like(targets)))
    assert_close(plain, ones)


def test_networks_learn_from_half_of_the_points_what_all_of_them_do(generator):
    nature = replace(MODEL, forcing=9.0)
    states = trajectory(nature, spin_up(nature, generator=generator, n_steps=50), 200)
    seen = observe(states, checkerboard, 1e-3, generator=generator)
    part = rollout_pairs(states, 3, *seen.on_grid(40))
    network, loss = tiny(), rollout_loss(lambda n: HybridModel(MODEL, n), 3)
    network.scale_to(*training_pairs(states, MODEL))
    network.y_std.fill_(0.05)
    options = {"epochs": 20, "batch_size": 16, "optimizer": SOAP, "generator": generator}
    fit(network, part, part, loss=loss, rescale=False, **options)
    inputs, error = training_pairs(states, MODEL)
    with torch.no_grad():
        assert (network(inputs) - error).square().mean() < 0.05 * error.square().mean()


@pytest.mark.parametrize("bad", (torch.nan, torch.inf))
def test_a_precision_that_is_not_finite_is_refused(bad):
    pairs = rollout_pairs(torch.zeros(10, 8), 2, precision=torch.full((10, 8), bad))
    with pytest.raises(ValueError, match="training contains NaN or infinite"):
        fit(tiny(), pairs, pairs, loss=rollout_loss(lambda n: MODEL, 2), rescale=False)


def test_a_rollout_loss_trains(generator):
    wrong = replace(MODEL, forcing=6.0)
    states = trajectory(MODEL, spin_up(MODEL, generator=generator, n_steps=50), 200)
    part = rollout_pairs(states, 2)
    network, loss = tiny(), rollout_loss(lambda n: HybridModel(wrong, n), 2)
    network.scale_to(*training_pairs(states, wrong))
    network.y_std.fill_(0.1)
    history = fit(network, part, part, epochs=10, learning_rate=0.05, loss=loss, rescale=False, generator=generator)
    assert history.best_validation < 0.2 * history.validation[0]


def test_learning_from_the_truth_comes_closer_to_the_true_error_than_learning_from_the_analysis(small):
    states = stages.test_truth(small)
    error = training_pairs(states, stages.physical_model(small))[1]  # of the physical model, exactly
    rms = {"none": error.square().mean((1, 2)).sqrt()}  # of each seed
    for source in ("analysis", "truth"):
        network = stages.correction(small, source)
        with torch.no_grad():
            rms[source] = (network(states[:, :-1]) - error).square().mean((1, 2)).sqrt()
    assert (rms["truth"] < 0.8 * rms["analysis"]).all()
    assert (rms["analysis"] < 0.9 * rms["none"]).all()


def test_truth_and_analysis_give_pairs_at_the_same_times(small):
    for from_analysis, from_truth in zip(stages.pairs(small), stages.pairs(small, "truth"), strict=True):
        assert from_analysis[0].shape == from_truth[0].shape
        assert (from_analysis[0] - from_truth[0]).square().mean().sqrt() < 0.5  # as close as an analysis
    with pytest.raises(ValueError, match="source = 'obs': expected 'analysis' or 'truth'"):
        stages.pairs(small, "obs")
