"""Configuration, random streams, windows, and the stages up to the loop."""

import itertools
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch.testing import assert_close

from mooc_da import cache, stages
from mooc_da.config import Experiment, seeded
from mooc_da.loop import Pass, Recipe, Tuning
from mooc_da.models import Lorenz96

# The experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"n_members": 0}, "n_members = 0"),
        ({"n_seeds": 0}, "n_seeds = 0"),
        ({"epochs": 0}, "epochs = 0"),
        ({"dt": -0.05}, "dt = -0.05"),
        ({"obs_std": 0.0}, "obs_std = 0.0"),
        ({"dt": math.nan}, "dt = nan"),
        ({"model_error_variance": -0.1}, "model_error_variance = -0.1.*variance"),
        ({"burn_in": 5000}, "burn_in = 5000 leaves nothing.*shorten"),
        ({"burn_in": -1}, "burn_in = -1"),
        ({"n_truth": 5900}, "n_truth = 5900 is too short.*overlap"),
    ),
)
def test_an_experiment_that_cannot_be_run_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        Experiment(**changes)


def test_an_experiment_is_immutable_and_its_fast_version_is_smaller():
    with pytest.raises(FrozenInstanceError):
        Experiment().dt = 0.1
    assert Experiment().fast().n_truth < Experiment().n_truth
    assert Experiment().fast().obs_std == Experiment().obs_std


def test_the_windows_of_training_validation_and_test_are_disjoint_and_in_order(small):
    for cfg in (Experiment(), Experiment().fast(), small):
        labels = torch.arange(cfg.burn_in, cfg.n_assimilated - 1)[:, None]
        training, validation = (
            part[0][:, 0] for part in stages.split_in_time((labels, labels), cfg.validation_fraction, cfg.gap)
        )
        test = stages.test_times(cfg)
        assert cfg.burn_in == training[0]
        assert training[-1] + cfg.gap < validation[0]
        assert validation[-1] + 1 + cfg.gap < test.start  # the last target is one later
        assert test.stop == cfg.n_truth
        assert test.stop - test.start == cfg.n_test + cfg.test_burn_in


def test_the_test_truth_is_the_end_of_the_truth(small):
    assert torch.equal(stages.test_truth(small), stages.truth(small)[:, -small.n_test :])


# Random streams


def test_streams_of_different_names_or_seeds_are_independent():
    names = ("truth", "observations", "ensemble", "weights", "batches", "forecasts")
    draws = torch.stack(
        [torch.randn(1000, generator=seeded(s, name)) for name, s in itertools.product(names, (314, 315, 0))]
    )
    correlations = torch.corrcoef(draws).triu(1)
    assert correlations.abs().max() < 5 / 1000**0.5
    assert torch.equal(torch.randn(1000, generator=seeded(314, "truth")), draws[0])


# Stages


def test_an_experiment_is_the_same_alone_and_in_a_batch(small):
    alone = replace(small, n_seeds=1)
    assert torch.equal(stages.truth(small)[:1], stages.truth(alone))
    assert torch.equal(stages.observations(small).y[:1], stages.observations(alone).y)
    assert_close(stages.analysis(small).analysis[:1, :100], stages.analysis(alone).analysis[:, :100], atol=1e-5, rtol=0)
    assert stages.untrained(small).layers[0].weight[0].equal(stages.untrained(alone).layers[0].weight[0])


def test_experiments_of_a_batch_differ(small):
    truth = stages.truth(small)
    assert truth.shape == (small.n_seeds, small.n_truth, small.n_sites)
    assert (truth[0] - truth[1]).square().mean().sqrt() > 3


def test_the_analysis_is_closer_to_the_truth_than_the_forecast_and_far_closer_than_climate(small):
    result, truth = stages.analysis(small), stages.truth(small)[:, : small.n_assimilated]
    analysis, forecast = (
        (x - truth)[:, small.burn_in :].square().mean().sqrt() for x in (result.analysis, result.forecast)
    )
    assert 0.15 < analysis < forecast < 0.4
    assert len(result) == small.n_assimilated


def test_forecasts_are_scored_on_true_runs_of_their_own(small):
    runs = stages.forecast_truth(small)
    assert runs.shape == (small.n_starts, small.n_forecast + 1, small.n_sites)
    assert_close(runs[:, 1], stages.true_model(small)(runs[:, 0]))
    distances = torch.cdist(runs[:, 0], stages.truth(small).flatten(0, 1)).min()
    assert distances > 1  # nothing of it was seen in training


def test_the_physical_model_is_lorenz96_and_the_true_one_differs(small):
    x = torch.ones(40, dtype=torch.float64)
    assert_close(stages.physical_model(small)(x), Lorenz96()(x))
    assert not torch.allclose(stages.true_model(small)(x), Lorenz96()(x))


# The loop


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache: no file, nothing in memory."""
    monkeypatch.setattr(cache, "memory", {})
    monkeypatch.setenv("MOOC_DA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def passes(monkeypatch, folder):
    """A loop of two short passes, in place of the seven of the course, and a cache without others."""
    recipes = (Recipe(epochs=2),) * 2
    monkeypatch.setattr(stages, "PASSES", recipes)
    return recipes


@pytest.fixture
def tiny(small):
    """A smaller experiment still: twelve points."""
    return replace(small, n_sites=12, n_members=15, channels=(6,), widths=(3, 1), epochs=4, n_assimilated=700)


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_the_loop_goes_on_from_the_correction_and_leaves_every_pass(passes, tiny):
    before = weights(stages.correction(tiny))
    ended = stages.loop(tiny)
    assert ended.likelihood.shape == ended.model_error_std.shape == ended.inflation.shape == (3, tiny.n_seeds)
    assert same({name: values[0] for name, values in ended.weights.items()}, before)
    assert same(weights(stages.correction(tiny)), before)  # also in memory
    for n in (1, 2, 3):
        network = stages.correction(tiny, n_passes=n)
        assert same(weights(network), {name: values[n - 1] for name, values in ended.weights.items()})
        assert not network.training and not any(p.requires_grad for p in network.parameters())
    later = stages.correction(tiny, n_passes=3)
    assert torch.equal(later.x_mean, before["x_mean"])  # the scaling stays
    assert not torch.equal(later.layers[0].weight, before["layers.0.weight"])
    assert (ended.likelihood[1:].amax(0) > ended.likelihood[0]).all()


def test_what_becomes_of_a_network_is_not_kept(folder, tiny):
    network = stages.correction(tiny)  # just computed
    before = weights(network)
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    assert same(weights(stages.correction(tiny)), before)


@pytest.mark.slow
def test_the_surrogate_is_of_each_experiment_the_pass_with_the_likeliest_held_out_observations(passes, tiny, folder):
    ended = stages.loop(tiny)
    better = ended._replace(likelihood=torch.tensor([[0.0, 3.0], [2.0, 1.0], [1.0, 2.0]]))
    assert better.best().tolist() == [1, 0]
    cache.memory[cache.file_name("loop", tiny), "cpu"]["likelihood"] = better.likelihood
    surrogate = stages.surrogate(tiny)
    for s, best in enumerate((1, 0)):
        for name, value in surrogate.state_dict().items():
            assert torch.equal(value[s], ended.weights[name][best, s])
    assert not surrogate.training and not any(p.requires_grad for p in surrogate.parameters())
    with torch.no_grad():
        for p in surrogate.parameters():
            p.zero_()
    assert stages.surrogate(tiny).layers[0].weight.abs().sum() > 0  # what is kept is not the network handed out


@pytest.mark.slow
def test_the_loop_comes_back_from_its_file_and_says_where_it_stopped(passes, tiny, monkeypatch):
    def stopping(network, hybrid, seen, start, recipes, **options):
        assert recipes == passes and len(seen) == tiny.n_assimilated
        assert start.shape == (tiny.n_seeds, tiny.n_members, tiny.n_sites)
        for number in range(2):  # as if the first pass had been no better
            told = Tuning(torch.full((2,), 0.1 / (number + 1)), torch.ones(2))
            yield Pass(number, told, torch.tensor([0.0, -1.0]) - number, None)

    monkeypatch.setattr(stages, "close_the_loop", stopping)
    first = stages.loop(tiny)
    cache.memory.clear()  # as a new process does
    monkeypatch.setattr(stages, "close_the_loop", None)
    again = stages.loop(tiny)
    assert same(first.weights, again.weights)
    assert all(torch.equal(a, b) for a, b in zip(first[1:], again[1:], strict=True))
    assert first.best().tolist() == [0, 0]
    with pytest.raises(ValueError, match="n_passes = 3: the loop stopped after 2"):
        stages.correction(tiny, n_passes=3)


@pytest.mark.parametrize(
    "wrong", ({"n_passes": 0}, {"n_passes": 4}, {"n_passes": -1}, {"source": "truth", "n_passes": 2}), ids=str
)
def test_passes_are_counted_from_one_and_need_analyses(wrong, passes, small):
    expected = "1 to 1 where the source is the truth" if "source" in wrong else "1 to 3"
    with pytest.raises(ValueError, match=f"n_passes = {wrong['n_passes']}: expected {expected}"):
        stages.correction(small, **wrong)


def test_too_few_observations_for_a_loop_are_refused(small, folder):
    few = replace(small, n_sites=12, channels=(6,), widths=(3, 1), epochs=1, n_assimilated=400)
    with pytest.raises(ValueError, match="400 observation times.*too few"):
        stages.loop(few)


@pytest.mark.slow
def test_shipping_trains_all_networks_anew_and_stores_them_where_they_are_found(
    passes, folder, tiny, monkeypatch, tmp_path
):
    monkeypatch.setattr(cache, "SHIPPED", tmp_path / "trained")
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "correction-old.pt").write_text("of before")
    stages.ship(tiny)
    shipped = {path.stem.rsplit("-", 1)[0] for path in (tmp_path / "trained").iterdir()}
    assert shipped == {"correction-analysis", "correction-truth", "loop"}
    last = weights(stages.correction(tiny, n_passes=3))
    monkeypatch.setenv("MOOC_DA_CACHE", str(folder))
    cache.memory.clear()
    monkeypatch.setattr(stages, "train", None)  # nothing is trained again
    monkeypatch.setattr(stages, "close_the_loop", None)
    assert same(weights(stages.correction(tiny, n_passes=3)), last)
    stages.correction(tiny, "truth")
    stages.surrogate(tiny)


def test_what_is_shipped_is_of_the_default_experiment():
    cfg = Experiment()
    names = {cache.file_name(stage, cfg) for stage in ("correction-analysis", "correction-truth", "loop")}
    assert {path.name for path in cache.SHIPPED.glob("*.pt")} == names
    ended, first = stages.loop(cfg), stages.correction(cfg)
    assert same({name: values[0] for name, values in ended.weights.items()}, weights(first))
    assert 2 <= len(ended.likelihood) <= len(stages.PASSES) + 1
    assert (ended.likelihood.amax(0) > ended.likelihood[0] + 1).all()
