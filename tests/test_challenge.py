"""The challenge: its observations, its scores, what it refuses, and its board."""

import json
from dataclasses import replace

import pytest
import torch

from mooc_da import (
    CorrectionCNN,
    EnKFN,
    HybridModel,
    Observations,
    baselines,
    challenge,
    checkerboard,
    cycle,
    reader,
    stages,
)
from mooc_da.config import seeded

GIVEN, SEALED = challenge.EXPERIMENT, challenge.SEALED
physical, nature = stages.physical_model(GIVEN), stages.true_model(GIVEN)
SCORES = {name: [1.0, 1.1] for name in challenge.COLUMNS} | {"status": "stable", "variance": 0.1}


@pytest.fixture
def quick(monkeypatch):
    """Test sets a tenth of the size."""
    monkeypatch.setattr(challenge, "SEALED", replace(SEALED, n_seeds=2, n_truth=260, n_test=139, test_burn_in=120,
                                                     n_starts=50))  # fmt: skip
    monkeypatch.setattr(challenge, "N_TUNING", 90)
    monkeypatch.setattr(challenge, "FREE_STEPS", 200)


@pytest.fixture
def own_progress(monkeypatch, tmp_path):
    """A progress file without entries."""
    monkeypatch.setenv("MOOC_DA_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(reader, "_session", {})


# The observations


def test_the_file_holds_what_the_code_makes():
    stored, made = challenge.observations().y, baselines.observed()
    assert stored.shape == made.shape == (5000, 20)
    if not torch.allclose(stored[0], made[0], atol=1e-4):
        pytest.skip("this processor rounds otherwise, and chaos makes another truth of it")
    assert torch.equal(stored.float(), made.float())


def test_the_file_is_a_run_of_the_true_model_plus_the_noise_of_its_seed():
    noise = GIVEN.obs_std * torch.randn(
        GIVEN.n_truth, 20, dtype=torch.float64, generator=seeded(GIVEN.seed, "observations")
    )
    seen = (challenge.observations().y - noise[:5000])[:200]
    exact = Observations(seen, checkerboard, torch.full((20,), 1e-8, dtype=torch.float64))
    result = cycle(EnKFN(adaptive=False), nature, exact, stages.climatological_ensemble(GIVEN)[0])
    innovations = torch.stack([obs.y - obs.H(x) for obs, x in zip(exact, result.forecast, strict=True)])
    assert innovations[100:].square().mean().sqrt() < 1e-3


def test_the_file_is_small_and_its_experiment_used_nowhere_else():
    assert sum(path.stat().st_size for path in challenge.DATA.iterdir() if path.is_file()) < 1_000_000
    seeds = {GIVEN.seed, *range(SEALED.seed, SEALED.seed + SEALED.n_seeds)}
    assert not seeds & set(range(1000, 1000 + 10)) and len(seeds) == 1 + SEALED.n_seeds


def test_pairs_have_no_axis_of_experiments_and_come_from_the_states_given():
    states = stages.truth(GIVEN)[0, : GIVEN.n_assimilated]
    (inputs, targets), (fresh, _) = challenge.pairs(states)
    assert inputs.shape == targets.shape and inputs.shape[-1] == fresh.shape[-1] == 40
    assert torch.equal(inputs[0], states[GIVEN.burn_in])
    assert torch.allclose(targets[0], states[GIVEN.burn_in + 1] - physical(inputs[0]))


def test_a_perfect_model_is_told_so_by_the_innovations():
    variances = (0.3, 0.01)
    assert challenge.tune(nature, variances)[0] == 0.01
    best, likelihood = challenge.tune(physical, variances)
    assert best == 0.3 and likelihood.shape == (2,)


# Scores


def test_the_perfect_model_beats_the_physical_one_on_every_score_but_cost(quick):
    perfect, wrong = challenge.score(nature), challenge.score(physical)
    assert perfect["status"] == wrong["status"] == "stable"
    assert min(perfect["horizon"]) == SEALED.n_forecast * SEALED.dt > max(wrong["horizon"])
    assert max(perfect["analysis"]) < 0.5 * min(wrong["analysis"])
    for name in ("mean", "std"):
        bias, worse = (abs(sum(scores[name])) for scores in (perfect, wrong))
        assert bias < worse
    assert 0.5 < sorted(wrong["cost"])[2] < 2


def in_place(x):
    x += 1
    return x


REFUSED = {
    "another shape": (lambda x: x[..., :39], "expected the same shape"),
    "single precision": (lambda x: x.float(), r"convert what it gives"),
    "a network that takes single precision": (torch.nn.Linear(40, 40), "float32 network converts inside"),
    "a batch of networks": (HybridModel(physical, CorrectionCNN((1,))), "enter one"),
    "nothing": (lambda x: None, "returns NoneType"),
    "NaN": (lambda x: x * torch.nan, "NaN or infinite values after one step"),
    "randomness": (lambda x: physical(x) + 0.01 * torch.randn_like(x), "two answers to the same states"),
    "a mean over the batch": (lambda x: physical(x) - 0.1 * x.mean(), "depends on the other states"),
    "change in place": (in_place, "changes the state"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_refused_with_a_reason(case):
    model, reason = REFUSED[case]
    with pytest.raises(challenge.Refused, match=reason):
        challenge.score(model)


EXPLOSIVE = {
    "at once": lambda x: 1.3 * physical(x),
    "from rare states": lambda x: physical(x).where(x.abs() < 14, torch.nan),
}


@pytest.mark.parametrize("case", EXPLOSIVE)
def test_a_model_that_blows_up_is_scored_where_it_lives(quick, case):
    scores = challenge.score(EXPLOSIVE[case])
    assert scores["status"].startswith("unstable in ") and scores["status"].endswith("free runs")
    assert scores["mean"] == scores["std"] == []
    assert ("filter" in scores["status"]) == (scores["analysis"] == [])
    assert len(scores["horizon"]) == 5 and max(scores["horizon"]) < 2


def test_every_entry_of_the_course_is_a_better_step_than_the_physical_model(monkeypatch):
    less = replace(GIVEN, n_assimilated=500, burn_in=100, epochs=5)
    monkeypatch.setattr(challenge, "N_TUNING", 90)
    for module in (challenge, baselines):
        monkeypatch.setattr(module, "EXPERIMENT", less)
    states = stages.truth(GIVEN)[0, 4000::20]
    errors = {
        n: float((make()(states) - nature(states)).square().mean().sqrt()) for n, make in baselines.ENTRIES.items()
    }
    assert errors.pop("perfect model") == 0
    assert max(errors, key=errors.get) == "physical model", errors


# The board


def test_the_shipped_board_is_complete_and_of_these_experiments():
    made = json.loads((challenge.DATA / "entries.json").read_text(encoding="utf-8"))
    assert list(made["entries"]) == list(baselines.ENTRIES)
    for name, values in (("given", GIVEN), ("sealed", SEALED)):
        assert made[name] == json.loads(json.dumps(values.as_dict())), "run python -m mooc_da.baselines"
    for entry in made["entries"].values():
        assert entry["how"] and all(len(entry[column]) == 5 for column in challenge.COLUMNS)


def test_the_shipped_scores_have_the_order_of_what_the_models_know():
    shipped = challenge.shipped()
    mean = {name: {c: sum(entry[c]) / 5 for c in challenge.COLUMNS} for name, entry in shipped.items()}
    analysis, horizon = (
        [mean[n][c] for n in ("perfect model", "CNN from truth", "CNN, loop closed", "CNN", "physical model")]
        for c in ("analysis", "horizon")
    )
    assert analysis == sorted(analysis)
    assert horizon == sorted(horizon, reverse=True)
    assert mean["linear correction"]["analysis"] > mean["cubic ridge"]["analysis"]


def test_the_board_is_sorted_by_horizon_with_the_unstable_last(own_progress, capsys):
    reader.record("challenge", "far", SCORES | {"horizon": [4.0, 4.2]})
    reader.record("challenge", "wild", SCORES | {"horizon": [4.5], "mean": [], "std": [], "status": "unstable"})
    reader.record("challenge", "a|b", SCORES | {"analysis": []})
    reader.record("challenge", "of another version", {"horizon": [9.0]})
    names = list(challenge.entries())
    assert names[:2] == ["perfect model", "far"] and names[-1] == "wild"
    stable = [entry["horizon"] for entry in challenge.entries().values() if entry["status"] == "stable"]
    assert stable == sorted(stable, key=lambda h: -sum(h) / len(h))
    challenge.board()
    rows = capsys.readouterr().out.splitlines()
    assert "knows the truth" in rows[2] and rows[2].startswith("| –")
    assert "★ far" in rows[3] and rows[3].startswith("| 1") and "4.10 ± 0.14" in rows[3]
    assert "a\\|b" in "".join(rows) and rows[-3].rstrip(" |").endswith("unstable")


def test_an_entry_is_scored_kept_and_shown_and_replaced_with_a_notice(quick, own_progress, capsys):
    challenge.enter("mine", physical)
    first = capsys.readouterr().out
    assert "filter …" in first and "★ mine" in first and "replaced" not in first
    challenge.enter(" mine ", nature)
    assert "'mine' was there before" in capsys.readouterr().out
    assert list(reader.recall("challenge")) == ["mine"]
    assert min(reader.recall("challenge")["mine"]["horizon"]) == 5


def test_a_refused_model_leaves_no_entry_and_no_traceback(own_progress, capsys):
    challenge.enter("broken", lambda x: x[..., :3])
    assert "Refused:" in capsys.readouterr().out
    assert reader.recall("challenge") == {}


@pytest.mark.parametrize("name", ["physical model", "", "x" * 61, "two\nlines", 7], ids=repr)
def test_a_name_that_cannot_stand_on_the_board_is_refused(own_progress, capsys, name):
    challenge.enter(name, physical)
    assert "Refused:" in capsys.readouterr().out
    assert reader.recall("challenge") == {}


def test_the_board_works_where_no_progress_can_be_written(own_progress, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOOC_DA_PROGRESS", str(tmp_path / "file" / "progress.json"))
    monkeypatch.setattr(challenge, "score", lambda model, progress: SCORES)
    challenge.enter("mine", physical)
    said = capsys.readouterr().out
    assert "cannot be written" in said and "★ mine" in said
