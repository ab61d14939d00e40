"""What the challenge comes with: its observations, and the entries of the course to be beaten.

``python -m mooc_da.baselines`` makes and scores everything anew, in some minutes, and writes it to the folder
``challenge_data``. Every entry is a function: what it does is its docstring, which the file repeats.
"""

from __future__ import annotations

import inspect
import json
from functools import partial

import torch
from torch import Tensor

from . import challenge, stages
from .config import seeded
from .learning import Pairs
from .loop import close_the_loop
from .models import Lorenz96, Step
from .networks import CorrectionCNN, CubicRidge, HybridModel
from .observations import checkerboard, observe
from .soap import SOAP

EXPERIMENT = challenge.EXPERIMENT


def observed() -> Tensor:
    """The observations as the code makes them from the hidden truth, (5000, 20)."""
    noise = seeded(EXPERIMENT.seed, "observations")
    seen = observe(stages.truth(EXPERIMENT)[0], checkerboard, EXPERIMENT.obs_std, generator=noise)
    return seen.y[: EXPERIMENT.n_assimilated]


def physical() -> Step:
    """The wrong model as it is."""
    return challenge.physical_model()


def physical_with_fitted_forcing() -> Step:
    """The wrong model with the F, in steps of 0.05, under which the filter finds the given observations likeliest."""
    forcing = torch.arange(7.0, 10.01, 0.05, dtype=torch.float64)
    candidates = Lorenz96(forcing=forcing[:, None, None], dt=EXPERIMENT.dt)
    _, likelihood = challenge.tune(candidates, (EXPERIMENT.model_error_variance,) * len(forcing))
    return Lorenz96(forcing=round(float(forcing[likelihood.argmax()]), 2), dt=EXPERIMENT.dt)


def linear_correction() -> Step:
    """Physical model plus a constant and seven weights for the neighbours of a point, by ridge regression."""
    (inputs, targets), _ = challenge.pairs()

    def neighbours(x: Tensor) -> Tensor:
        return torch.stack((torch.ones_like(x), *(x.roll(j, -1) for j in range(-3, 4))), -1)

    features = neighbours(inputs).flatten(0, -2)
    gram = features.mT @ features / len(features) + EXPERIMENT.ridge * torch.eye(8, dtype=features.dtype)
    weights = torch.linalg.solve(gram, features.mT @ targets.flatten() / len(features))
    return HybridModel(physical(), lambda x: neighbours(x) @ weights)


def cubic_ridge() -> Step:
    """Physical model plus all 120 monomials up to degree three in seven neighbours, by ridge regression."""
    training, _ = challenge.pairs()
    return HybridModel(physical(), CubicRidge(*training, ridge=EXPERIMENT.ridge))


def trained(training: Pairs, validation: Pairs, **options) -> CorrectionCNN:
    """The network of notebook 2, trained as there but for the options of :func:`mooc_da.fit` that are given."""
    weights = seeded(EXPERIMENT.seed, "weights")
    network = CorrectionCNN((), EXPERIMENT.channels, EXPERIMENT.widths, generators=[weights])
    stages.train(EXPERIMENT, network, training, validation, **options)
    return network.requires_grad_(False)


def cnn() -> Step:
    """Physical model plus the network of notebook 2, trained on the analysis: the hybrid of the course."""
    return HybridModel(physical(), trained(*challenge.pairs()))


def closed_loop() -> Step:
    """The hybrid at the end of the loop (notebook 6): rollouts from smoothed states that meet the observations."""
    model, start = cnn(), stages.climatological_ensemble(EXPERIMENT)[0]
    hybrid = partial(HybridModel, model.physical)
    for _ in close_the_loop(model.correction, hybrid, challenge.observations(), start):
        pass  # the network is trained in place
    return model


def cnn_from_truth() -> Step:
    """The same network, trained long and with SOAP on the hidden truth of the given times: the ceiling of its form."""
    pairs = challenge.pairs(stages.truth(EXPERIMENT)[0, : EXPERIMENT.n_assimilated])
    return HybridModel(physical(), trained(*pairs, epochs=40, learning_rate=1e-2, optimizer=SOAP))


def perfect_model() -> Step:
    """The model that nature runs: nothing can be better but by chance."""
    return stages.true_model(EXPERIMENT)


ENTRIES = {
    "physical model": physical,
    "physical model, F fitted": physical_with_fitted_forcing,
    "linear correction": linear_correction,
    "cubic ridge": cubic_ridge,
    "CNN": cnn,
    "CNN, loop closed": closed_loop,
    "CNN from truth": cnn_from_truth,
    "perfect model": perfect_model,
}
REFERENCES = {"CNN from truth", "perfect model"}  # they know what nobody may know


def ship() -> None:
    """Make and write the observations, then make, score and write every entry."""
    torch.save(observed().float(), challenge.DATA / "observations.pt")
    entries = {}
    for name, make in ENTRIES.items():
        entries[name] = challenge.score(make(), progress=name)
        entries[name] |= {"how": inspect.getdoc(make), "reference": name in REFERENCES}
    made = {"made by": "python -m mooc_da.baselines", "torch": torch.__version__}
    made |= {"given": EXPERIMENT.as_dict(), "sealed": challenge.SEALED.as_dict(), "entries": entries}
    text = json.dumps(made, indent=1, ensure_ascii=False)
    (challenge.DATA / "entries.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    ship()
