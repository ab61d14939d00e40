"""Configuration, random streams, windows and the cache."""

import itertools
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mooc_da import cache, stages
from mooc_da.config import Experiment, seeded
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


# The cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache: no file, nothing in memory."""
    monkeypatch.setattr(cache, "memory", {})
    monkeypatch.setenv("MOOC_DA_CACHE", str(tmp_path / "new" / "cache"))
    return tmp_path / "new" / "cache"


def counted(value=1.0):
    """A computation, and the list of its calls."""
    calls = []

    def compute():
        calls.append(value)
        return {"x": torch.full((3,), value)}

    return compute, calls


def test_every_stage_comes_back_from_its_file_as_it_was(folder, small):
    def everything():
        result = stages.analysis(small)
        return [stages.truth(small), stages.observations(small).y, result.analysis, result.diagnostics["zeta"]]

    computed = everything()
    cache.memory.clear()  # as a new process does
    assert all(map(torch.equal, everything(), computed))


@pytest.mark.parametrize("forget", (False, True), ids=("from memory", "from file"))
def test_a_stage_is_computed_once_for_each_configuration(forget, folder):
    compute, calls = counted()
    for cfg in (Experiment(), Experiment(), replace(Experiment(), seed=1)):
        assert torch.equal(cache.cached("stage", cfg, compute)["x"], torch.ones(3))
        if forget:
            cache.memory.clear()  # as a new process does
    assert len(calls) == 2
    cache.cached("another stage", Experiment(), compute)
    assert len(calls) == 3
    assert len(list(folder.glob("*.pt"))) == 3
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(
    "damage", (lambda b: b[:-50], lambda b: b"", lambda b: b"not a file of torch"), ids=("truncated", "empty", "text")
)
def test_a_damaged_file_is_recomputed_with_a_warning_and_repaired(damage, folder):
    compute, calls = counted()
    cache.cached("stage", Experiment(), compute)
    (file,) = folder.glob("*.pt")
    file.write_bytes(damage(file.read_bytes()))
    cache.memory.clear()
    with pytest.warns(UserWarning, match="is damaged.*recomputing"):
        assert torch.equal(cache.cached("stage", Experiment(), compute)["x"], torch.ones(3))
    cache.memory.clear()
    assert torch.equal(cache.cached("stage", Experiment(), compute)["x"], torch.ones(3))
    assert len(calls) == 2


def test_a_file_of_another_configuration_under_this_name_is_recomputed(folder, small):
    other = replace(small, seed=1)
    right = stages.truth(small)
    stages.truth(other)
    (folder / cache.file_name("truth", other)).replace(folder / cache.file_name("truth", small))
    cache.memory.clear()
    with pytest.warns(UserWarning, match="recomputing"):
        assert torch.equal(stages.truth(small), right)


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("MOOC_DA_CACHE", str(blocker / "cache"))
    monkeypatch.setattr(cache, "memory", {})
    compute, calls = counted()
    with pytest.warns(UserWarning, match="cannot be written.*MOOC_DA_CACHE"):
        assert torch.equal(cache.cached("stage", Experiment(), compute)["x"], torch.ones(3))
    assert len(calls) == 1


def test_the_cache_is_in_the_home_folder_or_nowhere_if_asked(monkeypatch, folder):
    monkeypatch.delenv("MOOC_DA_CACHE")
    assert cache.cache_folder() == Path.home() / ".cache" / "mooc_da"
    monkeypatch.setenv("MOOC_DA_CACHE", "none")
    compute, _ = counted()
    assert torch.equal(cache.cached("stage", Experiment(), compute)["x"], torch.ones(3))
    assert not folder.exists()


@pytest.mark.slow
def test_a_second_pass_through_the_loop_goes_on_from_the_first(small):
    first, second = stages.correction(small), stages.correction(small, n_passes=2)
    x = stages.test_truth(small)
    assert torch.equal(first.x_mean, second.x_mean)  # the scaling stays
    change = (first(x) - second(x)).square().mean().sqrt()
    assert 0 < change < 0.5 * first(x).square().mean().sqrt()
    assert not any(p.requires_grad for p in second.parameters())


@pytest.mark.parametrize("wrong", [{"n_passes": 0}, {"source": "truth", "n_passes": 2}])
def test_passes_are_counted_from_one_and_need_analyses(small, wrong):
    with pytest.raises(ValueError, match="n_passes"):
        stages.correction(small, **wrong)


@pytest.mark.slow
def test_shipping_trains_all_networks_anew_and_stores_them_where_they_are_found(folder, small, monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "SHIPPED", tmp_path / "trained")
    stages.ship(small)
    shipped = {path.stem.rsplit("-", 1)[0] for path in (tmp_path / "trained").glob("*.pt")}
    passes = {f"correction-analysis-pass-{n}" for n in (2, 3)}
    assert shipped == {"correction-analysis", "correction-truth"} | passes
    monkeypatch.setenv("MOOC_DA_CACHE", str(folder))
    monkeypatch.setattr(cache, "memory", {})
    monkeypatch.setattr(stages, "train", None)  # nothing is trained again
    stages.correction(small, n_passes=3)
