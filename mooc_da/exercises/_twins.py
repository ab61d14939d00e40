"""Small twin experiments, with which judges try what a reader has measured."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .. import stages
from ..config import Experiment, seeded
from ..cycle import cycle
from ..filters import EnsembleFilter, FilterDivergence
from ..models import spin_up, trajectory
from ..observations import Observations, checkerboard, observe
from ..scores import rmse

CFG = Experiment()
PHYSICAL, NATURE = stages.physical_model(CFG), stages.true_model(CFG)


@cache
def twins(n_experiments: int = 3, n_times: int = 240) -> tuple[Tensor, Observations, Tensor]:
    """Truth (S, 1, K, Nx), observations with the same axes, start (S, 1, Ne, Nx); the axis of one is for tunings."""
    start = spin_up(NATURE, (n_experiments, 1), generator=seeded(0, "truth of an exercise"))
    with torch.no_grad():
        truth = trajectory(NATURE, start, n_times - 1)
    observations = observe(truth, checkerboard, CFG.obs_std, generator=seeded(0, "noise of an exercise"))
    E = spin_up(PHYSICAL, (n_experiments, 1, CFG.n_members), generator=seeded(0, "ensemble of an exercise"))
    return truth, observations, E


def late_error(method: EnsembleFilter) -> Tensor:
    """Mean RMSE in the late half of the experiments, (tunings,); infinite if the filter left the finite numbers."""
    truth, observations, E = twins()
    try:
        result = cycle(method, PHYSICAL, observations, E)
    except FilterDivergence:
        return torch.tensor([torch.inf])
    return rmse(result.analysis, truth)[..., len(observations) // 2 :].mean((0, -1))
