"""Parameters learnt through a filter: by the gradient of the likelihood, and as part of the state."""

import pytest
import torch
from torch.testing import assert_close

from mooc_da.cycle import cycle
from mooc_da.filters import ETKF, EnKF
from mooc_da.learning import fit_likelihood
from mooc_da.models import Lorenz96, augmented, spin_up, trajectory
from mooc_da.networks import CorrectionCNN, HybridModel
from mooc_da.observations import Observations, checkerboard, everywhere, observe, of_state
from mooc_da.scores import rmse

FORCING = 8.0


@pytest.fixture
def twin(generator):
    """Observations of Lorenz-96 with F = 8 and 200 times, and a start (40, 40) around the truth."""
    model = Lorenz96(FORCING)
    truth = trajectory(model, spin_up(model, generator=generator), 199)
    start = truth[0] + torch.randn(40, 40, dtype=torch.float64, generator=generator)
    return truth, observe(truth, everywhere, 1.0, generator=generator), start


def parameter(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def test_the_likelihood_finds_the_forcing_and_an_inflation_that_is_needed(twin, generator):
    _, observations, start = twin
    forcing, inflation = parameter(7.0), parameter(1.2)
    history = fit_likelihood(
        (forcing, inflation),
        EnKF(40, inflation=inflation),
        Lorenz96(forcing),
        observations,
        start,
        block=10,
        epochs=3,
        generator=generator,
    )
    assert history.loss.shape == (60,)
    assert history.parameters.shape == (60, 2)
    assert torch.equal(history.parameters[-1], torch.stack((forcing, inflation)).detach())
    found = history.parameters[30:].mean(0)
    assert abs(float(found[0]) - FORCING) < 0.3
    assert 1.0 < float(found[1]) < 1.35  # 1.06 by hand; the likelihood of 200 times is flat

    def likelihood(F, factor):
        result = cycle(EnKF(40, inflation=factor), Lorenz96(F), observations, start, generator=generator)
        return float(result.diagnostics["log_likelihood"][50:].mean())

    assert likelihood(*found.tolist()) > likelihood(7.0, 1.2) + 0.2


def test_the_likelihood_teaches_a_network_to_correct_a_wrong_model(twin, generator):
    _, observations, start = twin
    wrong, method = Lorenz96(6.5), ETKF(40, inflation=1.1)
    network = CorrectionCNN(channels=(8,), widths=(5, 1), generators=(generator,)).eval()
    with torch.no_grad():
        network.y_std.mul_(0.05)
    hybrid = HybridModel(wrong, network)

    def likelihood(step):
        return float(cycle(method, step, observations, start).diagnostics["log_likelihood"][50:].mean())

    fit_likelihood(network.parameters(), method, hybrid, observations, start, block=5, epochs=3, learning_rate=0.02)
    assert likelihood(wrong) + 1.0 < likelihood(hybrid)


def test_a_forcing_behind_the_state_is_estimated_with_it(twin, generator):
    truth, observations, start = twin
    step = augmented(lambda F: Lorenz96(forcing=F), 1)
    guesses = 7.0 + torch.randn(40, 1, dtype=torch.float64, generator=generator)
    seen = Observations(observations.y, of_state(everywhere, 1), observations.R)
    result = cycle(EnKF(40, inflation=1.04), step, seen, torch.cat((start, guesses), -1), generator=generator)
    assert abs(float(result.analysis[150:, -1].mean()) - FORCING) < 0.15
    assert float(rmse(result.analysis[50:, :-1], truth[50:]).mean()) < 0.35


def test_an_augmented_step_leaves_the_parameters_alone_and_a_network_does_not_see_them(randn):
    x, F = randn(3, 40), randn(3, 2)
    z = augmented(lambda theta: Lorenz96(forcing=theta[..., :1] + theta[..., 1:]), 2)(torch.cat((x, F), -1))
    assert torch.equal(z[:, 40:], F)
    for i in range(3):
        assert_close(z[i, :40], Lorenz96(forcing=float(F[i].sum()))(x[i]))
    assert torch.equal(of_state(checkerboard, 2)(1)(z), z[:, 1:40:2])
    assert of_state(lambda k: None, 2)(0) is None


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"parameters": ()}, "parameters: expected tensors with requires_grad"),
        ({"parameters": (torch.zeros(()),)}, "parameters: expected tensors with requires_grad"),
        ({"block": 0}, "block = 0: expected 2 to 200"),
        ({"block": 201}, "block = 201: expected 2 to 200"),
    ),
)
def test_what_cannot_be_learnt_is_refused(change, message, twin):
    _, observations, start = twin
    forcing = parameter(7.0)
    arguments = {"parameters": (forcing,), "method": ETKF(40), "step": Lorenz96(forcing)}
    with pytest.raises(ValueError, match=message):
        fit_likelihood(**arguments | {"observations": observations, "start": start} | change)
