"""Every number of the course, each with its unit and its reason."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, replace

import torch


@dataclass(frozen=True)
class Experiment:
    """The twin experiment of the course; ``Experiment()`` is the one all figures belong to.

    Times are counted in steps of ``dt``; one MTU (model time unit) is ``1 / dt`` steps.
    Instances are immutable: change a number with ``dataclasses.replace`` or :meth:`fast`.
    """

    # True model and physical (wrong) model
    n_sites: int = 40  # points on the ring, as in Lorenz & Emanuel (1998)
    dt: float = 0.05  # MTU; about six hours by the error-growth analogy of Lorenz
    forcing: float = 8.0  # F of the physical model: fully chaotic
    true_forcing: float = 8.5  # F of the true model: the physical one forces too weakly ...
    true_friction: float = 1.01  # lambda: ... damps a little too little ...
    true_cubic: float = 0.025  # nu: ... and lacks a whole process

    # What is seen
    obs_std: float = 0.2  # about 6 % of the climatological standard deviation

    # Windows, in steps: | burn-in | analysis used | ... gap ... | test burn-in | test |
    n_truth: int = 12_000  # 600 MTU of truth in each experiment
    n_assimilated: int = 5_000  # times whose observations may be learnt from
    burn_in: int = 1_000  # first analyses, used neither for scores nor for training
    test_burn_in: int = 200  # of a filter restarted before the test; it has forgotten its start by then
    n_test: int = 700  # last times of the truth, scored and never learnt from

    # Filter
    n_members: int = 40  # more than the 13 unstable directions: no localisation needed
    model_error_variance: float = 0.3  # sigma_q^2 = 0.3 dt for the physical model (tuned)
    ceiling_error_variance: float = 0.003  # ... for the hybrid learnt from the truth (chosen by the innovations)

    # Learning
    validation_fraction: float = 0.2  # the last fifth in time ...
    gap: int = 20  # ... after 20 steps (1 MTU) that belong to neither side
    channels: tuple[int, ...] = (40, 20, 20)  # of the hidden layers
    widths: tuple[int, ...] = (7, 5, 1, 1)  # of the kernels: sees 5 points to either side
    epochs: int = 24
    batch_size: int = 64
    learning_rate: float = 8e-3  # peak of the one-cycle schedule
    ridge: float = 1e-3  # penalty of the cubic ridge, relative to unit-variance features

    # Forecasts
    n_starts: int = 500  # independent states of the true model
    n_forecast: int = 100  # steps: 5 MTU, where every forecast is nearly lost

    # Randomness
    seed: int = 1000
    n_seeds: int = 5  # independent experiments, run as one batch

    def __post_init__(self) -> None:
        for name in (
            "n_sites",
            "n_members",
            "n_seeds",
            "n_starts",
            "n_forecast",
            "epochs",
            "batch_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1.")
        for name in ("dt", "obs_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected a positive number.")
        for name in ("model_error_variance", "ceiling_error_variance"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} = {getattr(self, name)}: expected a finite variance, zero or positive.")
        if self.n_members < 2:
            raise ValueError(f"n_members = {self.n_members}: an ensemble needs at least 2 members to have a spread.")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction = {self.validation_fraction}: expected a number between 0 and 1.")
        if not 0 <= self.burn_in < self.n_assimilated:
            raise ValueError(
                f"burn_in = {self.burn_in} leaves nothing of n_assimilated = {self.n_assimilated}: "
                "shorten the burn-in or assimilate longer."
            )
        if self.n_assimilated + self.gap + self.test_burn_in + self.n_test > self.n_truth:
            raise ValueError(
                f"n_truth = {self.n_truth} is too short for n_assimilated + gap + test_burn_in + n_test = "
                f"{self.n_assimilated + self.gap + self.test_burn_in + self.n_test}: "
                "the test would overlap the training data."
            )

    def fast(self) -> Experiment:
        """A small version (fewer times, seeds, epochs) for a quick look; its scores are rougher."""
        return replace(
            self,
            n_truth=3_000,
            n_assimilated=1_500,
            burn_in=300,
            n_test=500,
            epochs=10,
            n_starts=100,
            n_seeds=2,
        )

    def error_std(self, variance: float | torch.Tensor) -> float | torch.Tensor:
        """sigma_q per step for a model-error variance given in units of ``dt``."""
        return (variance * self.dt) ** 0.5

    def as_dict(self) -> dict:
        """All numbers by name, as plain Python values."""
        return asdict(self)


def seeded(seed: int, stream: str) -> torch.Generator:
    """A random generator of its own for each (seed, name of the stream).

    Streams are independent of each other, so that drawing more numbers in one place
    (an extra plot, a larger ensemble) never changes the data in another.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {stream}".encode()))  # torch uses 32 bits
