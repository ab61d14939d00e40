"""The card says what was measured, and the measurements are what the course promises."""

import json
from pathlib import Path

import pytest
import torch

from mooc_da import model_card
from mooc_da.loop_study import scores

FACTS = json.loads(model_card.FACTS.read_text(encoding="utf-8"))


def test_the_card_in_the_notebooks_folder_is_the_one_that_the_numbers_make():
    card = Path(__file__).parents[1] / model_card.CARD
    assert card.read_text(encoding="utf-8") == model_card.card(), "run python -m mooc_da.model_card"


def test_a_card_of_other_numbers_is_another_card():
    worse = json.loads(json.dumps(FACTS))
    worse["long run"]["stayed"][0] = 7
    assert "7 to 100 stay" in model_card.written(worse)


def test_the_surrogate_is_as_good_as_the_course_says():
    last = {name: scores("the surrogate", name)[-1] for name in ("analysis", "horizon", "exponent", "std")}
    assert all(len(values) == 5 for values in last.values())
    assert last["analysis"].mean() <= 0.080
    assert last["horizon"].mean() >= 2.4
    assert abs(last["exponent"].mean() / 1.214 - 1) < 0.10
    assert abs(last["std"].mean() / scores("perfect model", "std")[-1].mean() - 1) < 0.015


def test_every_network_lives_a_thousand_mtu_from_every_start():
    long = FACTS["long run"]
    assert (long["starts"], long["length"]) == (100, 1000)
    assert long["stayed"] == [100] * 5
    assert max(long["largest"]) < 30  # nature's states stay below about 20


def test_the_filter_with_the_surrogate_knows_its_error():
    told = {name: torch.tensor(values) for name, values in FACTS["calibration"].items()}
    assert (told["spread"] / told["error"]).sub(1).abs().max() < 0.25
    assert told["chi2"].sub(1).abs().max() < 0.2


@pytest.mark.parametrize("name", FACTS["failures"])
def test_a_case_of_failure_tells_both_models_for_every_experiment(name):
    assert {key: len(values) for key, values in FACTS["failures"][name].items()} == {"physical": 5, "surrogate": 5}


def test_the_loop_overtakes_training_on_the_truth_as_in_notebook_2_and_stays_below_the_ceiling():
    for score, sign in (("analysis", -1), ("horizon", 1)):
        loop, notebook_2, ceiling = (
            sign * scores(name, score)[-1].mean()
            for name in ("the surrogate", "from truth as in notebook 2", "from truth with soap")
        )
        assert notebook_2 < loop < ceiling
