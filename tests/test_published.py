"""Time-mean analysis RMSE of the filters with a perfect model, against the values published in DAPPER's module files.

Eight experiments of 4000 cycles in one batched call. Tolerances: the values are printed to two digits, and means
over 4000 cycles differ from seed to seed by a hundredth (Lorenz-96) or two (Lorenz-63). The median of the seeds is
compared: with 24 members and an inflation of 1.013, a run may lose the truth for good after thousands of cycles.
"""

import pytest
import torch

from mooc_da.cycle import cycle
from mooc_da.filters import ETKF, EnKF
from mooc_da.finite_size import EnKFN
from mooc_da.models import Lorenz63, Lorenz96, repeated, spin_up, trajectory
from mooc_da.observations import everywhere, observe
from mooc_da.scores import rmse

pytestmark = pytest.mark.slow

SEEDS, BURN_IN, CYCLES = 8, 400, 4000


def twin_experiment(model, steps_between, obs_std, seed):
    """The step between observations, the truth and its observations, all for ``SEEDS`` experiments."""
    generator = torch.Generator().manual_seed(seed)
    step = repeated(model, steps_between)
    truth = trajectory(step, spin_up(model, (SEEDS,), generator=generator), BURN_IN + CYCLES - 1)
    return model, step, truth, observe(truth, everywhere, obs_std, generator=generator)


@pytest.fixture(scope="module")
def lorenz96():
    return twin_experiment(Lorenz96(), 1, 1.0, seed=1)


@pytest.fixture(scope="module")
def lorenz63():
    return twin_experiment(Lorenz63(), 25, 2**0.5, seed=2)


def score(method, model, step, truth, observations):
    """Median over the experiments of the time-mean RMSE of a filter started around the truth."""
    generator = torch.Generator().manual_seed(3)
    start = truth[:, :1] + torch.randn(SEEDS, method.size, truth.shape[-1], dtype=truth.dtype, generator=generator)
    result = cycle(method, step, observations, start, generator=generator)
    values = rmse(result.analysis, truth)[:, BURN_IN:].mean(-1)
    print(*(f"{v:.3f}" for v in values), f"median {values.median():.3f}")
    return float(values.median())


@pytest.mark.parametrize(
    ("method", "lowest", "highest"),
    (
        (ETKF(24, inflation=1.013, rotation=True), 0.18, 0.18),
        (EnKF(40, inflation=1.06), 0.22, 0.22),
        (EnKF(28, inflation=1.08), 0.24, 0.24),
        (EnKFN(24, adaptive=False), 0.18, 0.21),
    ),
    ids=("ETKF 24", "EnKF 40", "EnKF 28", "EnKF-N 24"),
)
def test_lorenz96_scores_as_published(method, lowest, highest, lorenz96):
    value = score(method, *lorenz96)
    assert lowest - 0.02 < value < highest + 0.02


@pytest.mark.parametrize(
    ("method", "published"),
    (
        (ETKF(10, inflation=1.02, rotation=True), 0.60),
        (EnKF(100, inflation=1.01), 0.56),
        (EnKFN(10, adaptive=False, rotation=True), 0.54),
    ),
    ids=("ETKF 10", "EnKF 100", "EnKF-N 10"),
)
def test_lorenz63_scores_as_published(method, published, lorenz63):
    value = score(method, *lorenz63)
    assert abs(value - published) < 0.05
