"""The study of notebook 6: its experiments by name, what it measures, and the files it leaves."""

import inspect
import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from mooc_da import loop_attempts, loop_study, stages
from mooc_da.cycle import CycleResult
from mooc_da.filters import FilterDivergence
from mooc_da.loop import Recipe
from mooc_da.loop_study import EXPERIMENTS, PRICES, main, measured, path, results
from mooc_da.models import spin_up, trajectory
from mooc_da.networks import CorrectionCNN, HybridModel
from mooc_da.observations import checkerboard, observe
from mooc_da.scores import forecast_errors

SCORES = {"analysis", "horizon", "exponent", "mean", "std", "spectrum", "step"}
RECORDED = sorted(p for p in loop_study.DATA.glob("*.json") if p.stem != "model_card")
N = loop_study.CFG.n_seeds


def of(make):
    return make.func if isinstance(make, partial) else make


# The experiments


def test_every_experiment_has_a_name_words_and_a_file_of_its_own():
    made = {*loop_study.KNOWING, *loop_study.ATTEMPTS, *loop_study.SUSPECTS}
    assert len(EXPERIMENTS) == len(made) + len(PRICES)
    assert len({path(name) for name in EXPERIMENTS}) == len(EXPERIMENTS)
    for name, make in EXPERIMENTS.items():
        assert path(name).stem.replace("_", " ") == name.replace(".", " ")
        words = inspect.getdoc(of(make))
        assert words and words.endswith(".") and "\n\n\n" not in words
        assert not inspect.signature(make).parameters.keys() - {"network", "std", "n_times"} - {"data"}


def test_no_attempt_or_price_is_made_with_the_truth():
    for make in (*loop_study.ATTEMPTS, loop_study.priced, loop_attempts.going_round, loop_attempts.first_network):
        assert "truth" not in inspect.getsource(make), make.__name__
        assert "NATURE" not in inspect.getsource(make), make.__name__


@pytest.mark.parametrize("name", PRICES)
def test_the_price_of_data_is_asked_with_data_there_is(name):
    seen = loop_attempts.seen(**PRICES[name])
    assert seen.y.shape[:2] == (N, PRICES[name].get("n_times", loop_study.CFG.n_assimilated))
    assert len(seen) <= stages.test_times(loop_study.CFG).start
    assert_close(seen.R.sqrt(), torch.full_like(seen.R, PRICES[name].get("std", 0.2)))
    period = {"a quarter of the points": 4, "an eighth of the points": 8, "a twentieth of the points": 20}.get(name)
    if period:
        assert seen.y.shape[-1] == 40 // period
        assert set().union(*(set(seen[k].H(torch.arange(40)).tolist()) for k in range(period))) == set(range(40))


def test_observations_of_the_study_are_the_course_s_by_default():
    course, cfg = stages.observations(loop_study.CFG), loop_study.CFG
    assert torch.equal(loop_attempts.seen().y, course.y[:, : cfg.n_assimilated])
    assert loop_attempts.seen().network is checkerboard
    error = loop_attempts.seen(std=0.4).y[:, ::2] - stages.truth(cfg)[:, : cfg.n_assimilated : 2, ::2]
    assert error.std() == pytest.approx(0.4, rel=0.02)


def test_weights_and_states_together_teach_the_network(seed, monkeypatch):
    monkeypatch.setattr(loop_attempts, "BURN_IN", 20)
    draws, physical = torch.Generator().manual_seed(seed), loop_study.PHYSICAL
    nature = replace(physical, forcing=10.0)  # what is to be learnt: 0.1 at every step
    first = nature.random_state((1,), 12, generator=draws)
    truth = trajectory(nature, spin_up(nature, states=first, n_steps=200), 299)
    near = truth + 0.1 * torch.randn(truth.shape, dtype=truth.dtype, generator=draws)
    result = CycleResult(*4 * (near,), smoothed=near, smoothed_variance=torch.full_like(near, 0.01))
    seen = observe(truth, checkerboard, 0.05, generator=draws)
    network = CorrectionCNN((1,), (6,), (3, 1))
    network.scale_to(near, near / 36)
    network.layers[-1].weight.data.zero_()

    def missed():
        with torch.no_grad():
            return (physical(truth) + network(truth) - nature(truth)).square().mean().sqrt()

    before, recipe = missed(), Recipe(lag=0, n_steps=8, learning_rate=2e-2)
    loop_attempts.learn_jointly(network, partial(HybridModel, physical), result, seen, recipe, draws, epochs=24)
    assert missed() < 0.5 * before
    assert torch.equal(result.smoothed, near)


# What is measured


@pytest.fixture(scope="module")
def cfg():
    """Two experiments with twelve points."""
    return replace(
        loop_study.CFG, n_sites=12, n_seeds=2, n_truth=1_000, n_assimilated=300, burn_in=100, n_test=300,
        test_burn_in=100, n_starts=40, n_forecast=60, n_members=15,
    )  # fmt: skip


@pytest.mark.slow
def test_the_perfect_model_has_the_best_scores_and_another_has_not(cfg, monkeypatch, tmp_path):
    monkeypatch.setenv("MOOC_DA_CACHE", str(tmp_path))
    nature, physical = (make(cfg) for make in (stages.true_model, stages.physical_model))
    perfect = measured(lambda x: nature(x), 0.0, cfg)
    wrong = measured(lambda x: physical(x), torch.full((2,), 0.3).double(), cfg)
    assert perfect.keys() == wrong.keys() == SCORES
    assert all(len(value) == 2 for scores in (perfect, wrong) for value in scores.values())
    assert perfect["step"] == [0.0, 0.0]
    assert perfect["horizon"] == [None, None]
    assert json.loads(json.dumps(perfect)) == perfect
    for s in range(2):
        assert perfect["analysis"][s] < wrong["analysis"][s] < 0.4
        assert 0.2 < wrong["horizon"][s] < 3
        assert 0 < perfect["exponent"][s] < 3
        assert len(perfect["spectrum"][s]) == 7
    truth = stages.truth(cfg)
    assert_close(torch.tensor(perfect["mean"]).double(), truth.mean((1, 2)), atol=0.15, rtol=0)
    assert_close(torch.tensor(perfect["std"]).double(), truth.std((1, 2)), atol=0.25, rtol=0)


def test_a_model_that_blows_up_is_reported(cfg, monkeypatch, tmp_path):
    monkeypatch.setenv("MOOC_DA_CACHE", str(tmp_path))
    with pytest.raises((FloatingPointError, RuntimeError), match="diverged|blew up"):
        measured(lambda x: 10 * x, 0.1, cfg)


# The files


@pytest.fixture
def study(monkeypatch, tmp_path):
    """A study of one experiment, of two models, with scores that cost nothing; in a folder of its own."""

    def nothing_at_all():
        """Nothing, twice."""
        yield None, 0.5
        yield None, torch.tensor([0.1, 0.2])

    monkeypatch.setattr(loop_study, "DATA", tmp_path / "data")
    monkeypatch.setattr(loop_study, "EXPERIMENTS", {"nothing at all": nothing_at_all})
    monkeypatch.setattr(loop_study, "measured", lambda model, variance: {"analysis": [0.1], "horizon": [None]})
    return tmp_path / "data"


def test_an_experiment_is_run_and_its_file_repeats_what_it_is(study, capsys):
    main(["nothing at all"])
    assert [file.name for file in study.iterdir()] == ["nothing_at_all.json"]
    kept = results("nothing at all")
    assert (kept["name"], kept["how"]) == ("nothing at all", "Nothing, twice.")
    assert kept["made by"] == 'python -m mooc_da.loop_study "nothing at all"'
    assert [row["variance"] for row in kept["passes"]] == [0.5, pytest.approx([0.1, 0.2])]
    assert all(row["seconds"] >= 0 and row["horizon"] == [None] for row in kept["passes"])
    assert "nothing at all 2" in capsys.readouterr().out


def test_without_names_all_are_listed_and_unknown_ones_are_refused(study, capsys):
    main([])
    assert "Nothing, twice." in capsys.readouterr().out
    with pytest.raises(SystemExit, match="No experiment magic: run without names"):
        main(["nothing at all", "magic"])
    assert not list(study.glob("*.json"))


def test_that_an_experiment_diverges_is_recorded_and_the_next_is_run(study):
    def lost():
        """Lost."""
        yield None, 0.5
        raise FilterDivergence("at time 3 of 9")

    loop_study.EXPERIMENTS["lost"] = lost
    main(["lost", "nothing at all"])
    assert results("lost")["diverged"] == "at time 3 of 9"
    assert len(results("lost")["passes"]) == 1
    assert "diverged" not in results("nothing at all")


def test_the_real_ones_are_listed_too(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(loop_study, "DATA", tmp_path / "data")
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXPERIMENTS)
    assert all(line.startswith(name) for line, name in zip(lines, EXPERIMENTS, strict=True))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_recorded_as_it_is(name):
    kept = results(name)
    assert kept["name"] == name
    assert kept["how"] == inspect.getdoc(of(EXPERIMENTS[name]))
    assert kept["made by"] == f'python -m mooc_da.loop_study "{name}"'
    assert kept["passes"] or kept["diverged"]
    for row in kept["passes"]:
        assert row.keys() == SCORES | {"seconds", "variance"}
        assert row["seconds"] >= 0
        assert all(v >= 0 for v in torch.tensor(row["variance"]).view(-1).tolist())
        assert all(len(row[score]) == N for score in SCORES)
        for score in SCORES - {"horizon", "spectrum"}:
            assert all(map(math.isfinite, row[score]))
        assert all(value is None or 0 < value < 5 for value in row["horizon"])
        assert all(len(s) == 21 and min(s) >= 0 for s in row["spectrum"])


def test_there_is_no_file_of_an_experiment_that_is_gone():
    assert {file.name for file in RECORDED} <= {path(name).name for name in EXPERIMENTS}


def test_what_is_recorded_of_models_without_a_network_is_what_is_measured_now():
    runs = stages.forecast_truth(loop_study.CFG)
    now = forecast_errors(loop_study.PHYSICAL, runs)[1].item()
    assert results("physical alone")["passes"][0]["step"] == pytest.approx([now] * N, rel=1e-3)
    (perfect,), (physical,) = (results(name)["passes"] for name in ("perfect model", "physical alone"))
    assert perfect["step"] == [0.0] * N
    assert all(p < w for p, w in zip(perfect["analysis"], physical["analysis"], strict=True))


def test_the_file_of_the_loop_holds_its_passes():
    ended, kept = stages.loop(loop_study.CFG), results("the loop")["passes"]
    assert len(kept) == len(ended.likelihood)
    for row, std in zip(kept, ended.model_error_std, strict=True):
        assert row["variance"] == pytest.approx(loop_attempts.variance_of(std).tolist())
    (surrogate,) = results("the surrogate")["passes"]
    for s, best in enumerate(ended.best().tolist()):
        for score in ("analysis", "step", "variance"):
            assert surrogate[score][s] == pytest.approx(kept[best][score][s], rel=1e-3)
