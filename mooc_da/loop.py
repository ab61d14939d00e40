"""Closing the loop: assimilate, learn from what comes out, assimilate with what was learnt, and so on.

Nothing here knows the truth. What to learn from, how large the model's error is, which network to keep
and when to stop is told by observations, the last of which are held out for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .cycle import CycleResult, cycle
from .filters import ETKF, FilterDivergence
from .learning import Pairs, fit, rollout_loss, rollout_pairs, split_in_time
from .models import Step
from .networks import CorrectionCNN
from .observations import Observations
from .smoothers import EnKS
from .soap import SOAP

SIGMAS = (0.12, 0.07, 0.04, 0.02, 0.01, 0.005)  # sigma_q of a step to choose from
INFLATIONS = (1.0, 1.02)  # factors to choose from
N_TUNING, N_FORGET, BURN_IN = 300, 100, 200  # times to choose on, of which the first do not count; first of a run


class Tuning(NamedTuple):
    """What the filter is told, one of each for every experiment."""

    model_error_std: Tensor
    inflation: Tensor


@dataclass(frozen=True)
class Recipe:
    """How one pass through the loop learns; the default is what paid best of what notebook 6 compares.

    Parameters
    ----------
    lag : of the smoother whose states the rollouts start from, in observation times; 0 for the filter's analyses
    n_steps : of the rollouts
    targets : what they should meet, "observations" or "states"
    weighted : whether a state as a target counts by its inverse variance; an observation always does
    epochs, batch_size, learning_rate, optimizer : of :func:`mooc_da.fit`
    """

    lag: int = 8
    n_steps: int = 8
    targets: str = "observations"
    weighted: bool = False
    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 4e-3
    optimizer: Callable[..., torch.optim.Optimizer] = SOAP

    def __post_init__(self) -> None:
        if self.targets not in ("observations", "states"):
            raise ValueError(f"targets = {self.targets!r}: expected 'observations' or 'states'.")
        if self.lag < 0 or self.n_steps < 1:
            raise ValueError(f"lag = {self.lag}, n_steps = {self.n_steps}: expected lag >= 0 and n_steps >= 1.")
        if self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(
                f"epochs = {self.epochs}, batch_size = {self.batch_size}, learning_rate = {self.learning_rate}: "
                "expected positive numbers."
            )

    def pairs(self, result: CycleResult, observations: Observations) -> Pairs:
        """What to learn from, made of a run of the smoother and the observations of the same times."""
        if self.targets == "observations":
            return rollout_pairs(result.smoothed, self.n_steps, *observations.on_grid(result.smoothed.shape[-1]))
        precision = 1.0 / result.smoothed_variance if self.weighted else None
        return rollout_pairs(result.smoothed, self.n_steps, precision=precision)


PASSES = (Recipe(),) * 5 + (Recipe(lag=16, n_steps=16, batch_size=16),) * 2  # longer runs tell finer errors


class Pass(NamedTuple):
    """Where the loop stands when it has assimilated, and before it learns again."""

    number: int  # times it has learnt here
    tuning: Tuning
    likelihood: Tensor  # (*batch,) log-likelihood of a held-out observation time, given those before it
    result: CycleResult  # of the smoother, with the hybrid there is


def close_the_loop(
    network: CorrectionCNN,
    hybrid: Callable[[nn.Module], Step],
    observations: Observations,
    start: Tensor,
    passes: Sequence[Recipe] = PASSES,
    *,
    held_out: float = 0.2,
    generator: torch.Generator | None = None,
    progress: str = "",
) -> Iterator[Pass]:
    """Go round the loop: each pass assimilates with the hybrid there is, and trains its network on.

    Yields before every training and after the last, so that ``for done in close_the_loop(...)`` sees the
    networks of all passes. At the end each experiment has the network under which its held-out observations
    were likeliest, also if a pass fails on the way. Stops early when a pass has made them likelier in no experiment.

    Parameters
    ----------
    network : one, or (S,) networks, trained in place; the first ones come from an analysis with the physical model
    hybrid : makes a step of the network, e.g. ``lambda network: HybridModel(physical, network)``
    observations : (K, Ny) for one network, (S, K, Ny) for S
    start : (Ne, Nx) or (S, Ne, Nx), an ensemble to begin every run of the filter with
    passes : a recipe for each
    held_out : share of the observations, the last, that nothing is fitted to here; they choose sigma_q, inflation,
        the weights within a training, and the pass to stop at

    Raises
    ------
    ValueError
        if shapes do not fit, there are too few times, or times without a step of the model between them
    FilterDivergence
        if the filter of an experiment diverges, whatever it is told; ends the loop of all of them
    """
    first = round(len(observations) * (1 - held_out))
    n_tuning = min(N_TUNING, len(observations) - first)
    check_data(network, observations, start, passes, first)
    best, kept = torch.full(network.form["batch"], -torch.inf, dtype=start.dtype, device=start.device), {}
    try:
        for number, recipe in enumerate((*passes, None)):
            step = hybrid(network.eval())
            tuning = likeliest(step, observations[len(observations) - n_tuning :], start)
            smoother = EnKS(start.shape[-2], lag=recipe.lag if recipe else 0, **tuning._asdict())
            result = cycle(smoother, step, observations, start, progress=progress and f"{progress}, pass {number}")
            likelihood = result.diagnostics["log_likelihood"][..., first:].nanmean(-1)  # NaN where all is missing
            better = likelihood > best
            kept = chosen(better, network.state_dict(), kept)
            best = torch.where(better, likelihood, best)
            yield Pass(number, tuning, likelihood, result)
            if recipe is None or not better.any():
                break
            learn(network, hybrid, recipe, result, observations, held_out=held_out, generator=generator)
    finally:  # also where a pass diverges, or nobody asks for the next
        if kept:
            network.load_state_dict(kept)
        network.eval().requires_grad_(False)


def check_data(
    network: CorrectionCNN, observations: Observations, start: Tensor, passes: Sequence[Recipe], first: int
) -> None:
    """Raise ValueError unless the loop can go round with these data, those from time ``first`` held out."""
    n_held_out = len(observations) - first
    if n_held_out <= N_FORGET or first <= BURN_IN:
        raise ValueError(
            f"{len(observations)} observation times, {n_held_out} held out: too few to hold out more than {N_FORGET} "
            f"and to learn from more than {BURN_IN}."
        )
    for recipe in passes:
        if min(first - BURN_IN, n_held_out) <= max(recipe.n_steps, recipe.lag):
            raise ValueError(
                f"n_steps = {recipe.n_steps}, lag = {recipe.lag}: too long for {len(observations)} observation times."
            )
    batch = tuple(network.form["batch"])
    if observations.y.shape[:-2] != batch or start.shape[:-2] not in ((), batch):
        raise ValueError(
            f"Networks {batch}, observations {tuple(observations.y.shape)}, start {tuple(start.shape)}: expected the "
            "observations of one experiment for each network, and one ensemble for each or one for all."
        )
    if any(observations.steps_before(k) != 1 for k in range(1, len(observations))):
        raise ValueError("observations: expected a time at every step of the model, with NaN where nothing is seen.")


def learn(
    network: CorrectionCNN,
    hybrid: Callable[[nn.Module], Step],
    recipe: Recipe,
    result: CycleResult,
    observations: Observations,
    *,
    held_out: float = 0.2,
    generator: torch.Generator | None = None,
) -> None:
    """Train the network on, in place, from one run of a smoother; arguments as of :func:`close_the_loop`."""
    pairs = recipe.pairs(result[BURN_IN:], observations[BURN_IN:])
    validation_fraction = held_out * len(observations) / pairs[0].shape[-2]
    fit(
        network.requires_grad_(True),
        *split_in_time(pairs, validation_fraction, max(recipe.n_steps, recipe.lag)),
        loss=rollout_loss(hybrid, recipe.n_steps),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        optimizer=recipe.optimizer,
        rescale=False,
        generator=generator,
    )
    network.eval()


def chosen(better: Tensor, new: dict[str, Tensor], old: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each network the new weights (*batch, n, m) where they are better, (*batch,), else the old ones."""
    return {
        name: torch.where(better.reshape(*better.shape, 1, 1), value, old.get(name, value)).clone()
        for name, value in new.items()
    }


def likeliest(step: Step, observations: Observations, start: Tensor) -> Tuning:
    """The sigma_q and the inflation under which the ETKF finds the observations likeliest, for each experiment.

    Raises
    ------
    FilterDivergence
        if the filter of an experiment diverges under all candidates
    ValueError
        if there is nothing to tell them apart: an experiment that sees nothing after the first N_FORGET times
    """
    candidates = torch.tensor(list(itertools.product(SIGMAS, INFLATIONS)), dtype=start.dtype, device=start.device)
    found = likelihoods(step, observations, start, candidates)
    if torch.isnan(found).any():
        raise ValueError(
            f"{len(observations)} observation times, the first {N_FORGET} of which do not count: in the others an "
            "experiment has seen nothing, so that no tuning is likelier than another."
        )
    if (lost := torch.isneginf(found).all(-1)).any():
        raise FilterDivergence(
            f"The filter diverged with every sigma_q in {SIGMAS} and inflation in {INFLATIONS}, in "
            f"{int(lost.sum())} of {lost.numel()} experiments: the model is too poor for so few observations. Learn "
            "the first network from more of them."
        )
    best = found.argmax(-1)
    return Tuning(*(values[best] for values in candidates.unbind(-1)))


def likelihoods(step: Step, observations: Observations, start: Tensor, candidates: Tensor) -> Tensor:
    """Mean log-likelihood of an observation time under each candidate (C, 2): (..., C).

    All candidates run side by side, as a batch of filters; only if one of them diverges, each alone, and if that
    diverges, each experiment alone; -inf where it is the experiment's own filter.
    """
    with suppress(FilterDivergence):
        return counted(step, observations, start, candidates)
    if len(candidates) > 1:
        return torch.cat([likelihoods(step, observations, start, c) for c in candidates.split(1)], -1)
    batch = torch.broadcast_shapes(start.shape[:-2], observations.y.shape[:-2])
    y, start = (x.expand(*batch, *x.shape[-2:]) for x in (observations.y, start))
    found = start.new_full((*batch, 1), -torch.inf)
    for s in itertools.product(*map(range, batch)):
        only = torch.full_like(y, torch.nan)  # the others see nothing, from the same start
        only[s] = y[s]
        with suppress(FilterDivergence):
            found[s] = counted(step, replace(observations, y=only), start[s].expand_as(start), candidates)[s]
    return found


def counted(step: Step, observations: Observations, start: Tensor, candidates: Tensor) -> Tensor:
    """As :func:`likelihoods`, as long as no filter diverges."""
    several = replace(observations, y=observations.y.unsqueeze(-3))  # (..., 1, K, Ny)
    sigma, inflation = candidates.unbind(-1)
    filter_ = ETKF(start.shape[-2], model_error_std=sigma, inflation=inflation)
    result = cycle(filter_, step, several, start.unsqueeze(-3))
    return result.diagnostics["log_likelihood"][..., N_FORGET:].nanmean(-1)
