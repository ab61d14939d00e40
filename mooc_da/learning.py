"""Learning the error of a model from states: pairs, losses and the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm, trange

from .cycle import cycle, detached
from .filters import Filter
from .models import Step, one_thread
from .networks import CorrectionCNN
from .observations import Observations

Pairs = tuple[Tensor, ...]  # inputs (..., K, Nx), targets (..., K, Nx) and, if they differ in worth, their precision
Loss = Callable[..., Tensor]  # (network, inputs, targets, precision if there is one) -> one number per network


def training_pairs(analysis: Tensor, step: Step) -> Pairs:
    r"""Inputs :math:`x^a_{k-1}` and targets :math:`x^a_k - \Phi(x^a_{k-1})`, both (..., K - 1, Nx).

    The targets are what the model lacked from one analysis to the next, plus the errors of both analyses.

    Parameters
    ----------
    analysis : (..., K, Nx) consecutive states, as far apart in time as one ``step``
    """
    if analysis.ndim < 2 or analysis.shape[-2] < 2:
        raise ValueError(f"analysis has shape {tuple(analysis.shape)}: expected (..., K, Nx) with at least two times.")
    inputs = analysis[..., :-1, :]
    with torch.no_grad():
        return inputs, analysis[..., 1:, :] - step(inputs)


def split_in_time(pairs: Pairs, validation_fraction: float, gap: int = 0) -> tuple[Pairs, Pairs]:
    """Training and validation pairs: the last ``validation_fraction`` in time, after ``gap`` unused pairs.

    Consecutive states are nearly the same, so a random split would validate on what was trained on.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction = {validation_fraction}: expected a number between 0 and 1.")
    if gap < 0:
        raise ValueError(f"gap = {gap}: a negative gap would let the two parts overlap.")
    n_pairs = pairs[0].shape[-2]
    first = round(n_pairs * (1 - validation_fraction))
    if first - gap < 1 or first >= n_pairs:
        raise ValueError(
            f"{n_pairs} pairs split at {first} with a gap of {gap} leave {max(first - gap, 0)} for training and "
            f"{n_pairs - first} for validation: use more data or a smaller gap."
        )
    training = tuple(p[..., : first - gap, :] for p in pairs)
    validation = tuple(p[..., first:, :] for p in pairs)
    return training, validation


def one_step_loss(network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error in units of the targets' variance, one number per network: one minus R^2."""
    errors = (network(inputs) - targets) / network.y_std.to(targets.dtype)
    return errors.square().mean((-2, -1))


def rollout_loss(hybrid: Callable[[nn.Module], Step], n_steps: int) -> Loss:
    r"""A loss over ``n_steps`` of the hybrid: mean squared distance to what followed, in units of its precision.

    .. math:: \frac{1}{n} \sum_{j=1}^{n} \overline{p_{k+j} \, (M^j(x_k) - t_{k+j})^2}

    Parameters
    ----------
    hybrid : makes a step of a network, e.g. ``lambda network: HybridModel(physical, network)``
    n_steps : length; targets and precision are (*batch, K, n_steps * Nx): see :func:`rollout_pairs`. Without a
        precision it is one
    """

    def loss(network: nn.Module, inputs: Tensor, targets: Tensor, precision: Tensor | None = None) -> Tensor:
        step, x, states = hybrid(network), inputs, []
        for _ in range(n_steps):
            x = step(x)
            states.append(x)
        squares = (torch.cat(states, -1) - targets).square()
        return (squares if precision is None else precision * squares).mean((-2, -1))

    return loss


def rollout_pairs(
    states: Tensor, n_steps: int, targets: Tensor | None = None, precision: Tensor | None = None
) -> Pairs:
    """Inputs (..., K - n, Nx) and what a run from each should meet on its way, (..., K - n, n Nx).

    Parameters
    ----------
    states : (..., K, Nx) consecutive states, as far apart in time as one step of the model
    targets : (..., K, Nx) what to meet at the same times: the states themselves by default, or observations
        (:meth:`mooc_da.Observations.on_grid`)
    precision : (..., K, Nx) what each target is worth: its inverse error variance, zero where there is none. If
        given, a third part of the pairs, as long as the targets
    """
    if not 1 <= n_steps < states.shape[-2]:
        raise ValueError(f"n_steps = {n_steps}: expected 1 … {states.shape[-2] - 1} for {states.shape[-2]} states.")
    followed = [states if targets is None else targets] + ([] if precision is None else [precision])
    if wrong := [tuple(f.shape) for f in followed if f.shape[-2:] != states.shape[-2:]]:
        raise ValueError(f"targets or precision have shape {wrong[0]}: expected the times and points of the states.")
    n_pairs = states.shape[-2] - n_steps
    rows = [[f[..., i : i + n_pairs, :] for i in range(1, n_steps + 1)] for f in followed]
    return states[..., :n_pairs, :], *(torch.cat(row, -1) for row in rows)


@dataclass(frozen=True)
class History:
    """Losses after every epoch, (n_epochs, *batch), and the epoch whose weights were kept, (*batch,)."""

    training: Tensor
    validation: Tensor
    best_epoch: Tensor

    @property
    def best_validation(self) -> Tensor:
        """(*batch,) the smallest validation loss of every network."""
        return self.validation.min(0).values


@one_thread()
def fit(
    network: CorrectionCNN,
    training: Pairs,
    validation: Pairs,
    *,
    epochs: int = 40,
    batch_size: int = 64,
    learning_rate: float = 8e-3,
    patience: int | None = None,
    loss: Loss = one_step_loss,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    rescale: bool = True,
    generator: torch.Generator | None = None,
    progress: str = "",
) -> History:
    """Train a network, or a batch of networks, in place, and leave each with its best validated weights.

    A one-cycle learning rate (Smith & Topin 2019), up to ``learning_rate`` in the first third, then down
    to nothing, gets to the same loss in a fraction of the epochs of a constant rate.

    Parameters
    ----------
    training, validation : pairs (*batch, K, Nx), see :func:`training_pairs` and :func:`split_in_time`
    epochs, batch_size, learning_rate : of the schedule
    patience : stop after this many epochs in which no network improved; None never does
    loss : of a network on inputs and targets, (*batch,)
    optimizer : Adam (Kingma & Ba 2015), or another of its signature, such as :class:`mooc_da.SOAP`
    rescale : take the network's scaling from the training pairs; False to go on with a trained one
    generator : for the order of the samples

    Raises
    ------
    ValueError
        if the pairs are empty, not finite or do not fit the network
    FloatingPointError
        if the loss becomes NaN; the network then holds its best weights so far
    """
    for name, number in {"epochs": epochs, "batch_size": batch_size}.items():
        if number < 1:
            raise ValueError(f"{name} = {number}: expected at least 1.")
    for name, (x, *targets) in {"training": training, "validation": validation}.items():
        for t in targets:
            check_pairs(name, x, t, network.form["batch"])
    if rescale:
        network.scale_to(*training[:2])
    dtype = network.x_mean.dtype
    training, validation = (tuple(p.to(dtype).contiguous() for p in pairs) for pairs in (training, validation))
    n_samples = training[0].shape[-2]
    n_batches = math.ceil(n_samples / batch_size)
    descent = optimizer(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        descent, learning_rate, total_steps=epochs * n_batches + 1, pct_start=0.3
    )
    batch, device = network.form["batch"], network.x_mean.device
    best_loss = torch.full(batch, torch.inf, device=device)
    best_epoch = torch.zeros(batch, dtype=torch.long, device=device)
    kept = [p.detach().clone() for p in network.parameters()]
    curves: list[tuple[Tensor, Tensor]] = []
    bar = trange(epochs, desc=progress, disable=not progress)
    for epoch in bar:
        total = 0.0
        network.train()
        for indices in torch.randperm(n_samples, generator=generator).split(batch_size):
            losses = loss(network, *(p[..., indices, :] for p in training))  # (*batch,)
            descent.zero_grad()
            losses.sum().backward()
            descent.step()
            schedule.step()
            total = total + losses.detach() * len(indices)
        network.eval()
        with torch.no_grad():
            validated = loss(network, *validation)
        curves.append((total / n_samples, validated))
        if not torch.isfinite(validated).all():
            break
        better = validated < best_loss
        best_loss = torch.where(better, validated, best_loss)
        best_epoch = torch.where(better, epoch, best_epoch)
        with torch.no_grad():
            for keep, p in zip(kept, network.parameters(), strict=True):
                keep.copy_(torch.where(better.reshape(*better.shape, 1, 1), p, keep))
        bar.set_postfix(validation=f"{validated.mean():.3f}")
        if patience is not None and epoch - int(best_epoch.max()) >= patience:
            break
    with torch.no_grad():
        for keep, p in zip(kept, network.parameters(), strict=True):
            p.copy_(keep)
    network.eval()
    if not torch.isfinite(curves[-1][1]).all():
        raise FloatingPointError(
            f"The loss became NaN in epoch {len(curves)} of {epochs}: "
            f"use a smaller learning_rate than {learning_rate}. The network holds its best weights so far."
        )
    return History(*(torch.stack(c) for c in zip(*curves, strict=True)), best_epoch)


def check_pairs(name: str, x: Tensor, t: Tensor, batch: tuple[int, ...]) -> None:
    """Raise ValueError unless the pairs are finite and of the shapes that a batch of networks learns from."""
    if x.ndim != len(batch) + 2 or x.shape[: len(batch)] != batch:
        raise ValueError(
            f"{name} inputs have shape {tuple(x.shape)}: expected {(*batch, 'K', 'Nx')} for these networks."
        )
    if x.shape[-2] == 0 or x.shape[-2] != t.shape[-2]:
        raise ValueError(
            f"{name} has {x.shape[-2]} inputs and {t.shape[-2]} targets: expected the same number, at least one."
        )
    if t.shape[:-1] != x.shape[:-1] or t.shape[-1] % x.shape[-1]:
        raise ValueError(f"{name} has inputs {tuple(x.shape)} and targets {tuple(t.shape)}: expected the same grid.")
    if not (torch.isfinite(x).all() and torch.isfinite(t).all()):
        raise ValueError(f"{name} contains NaN or infinite values: did the filter diverge? Cut those times out.")


class LikelihoodHistory(NamedTuple):
    """How learning through a filter went, block by block."""

    loss: Tensor  # (n_blocks,) minus the log-likelihood of an observation time, mean of the block
    parameters: Tensor  # (n_blocks, P) all parameters after the block, flattened


def fit_likelihood(
    parameters: Sequence[Tensor],
    method: Filter,
    step: Step,
    observations: Observations,
    start: Tensor,
    *,
    block: int = 10,
    epochs: int = 1,
    learning_rate: float = 0.05,
    generator: torch.Generator | None = None,
    progress: str = "",
) -> LikelihoodHistory:
    """Learn whatever is in the model or the filter from the likelihood that the filter gives the observations.

    The run is cut into blocks. Each is differentiated through its analyses and the forecasts between them, and
    followed by a step of Adam; the next goes on from the state there is (the truncated, auto-differentiable
    EnKF of Chen, Sanz-Alonso & Willett 2022, doi 10.1137/21M1434477). No truth and no analysis is needed as a
    target.

    Parameters
    ----------
    parameters : tensors with ``requires_grad``, which the step or the method uses: a forcing, an inflation,
        the weights of a network; they are changed in place
    method, step, observations, start, generator : as in :func:`mooc_da.cycle`
    block : observation times through which the gradients flow back; beyond the time in which errors double a
        few times they say little and grow without bound
    epochs : runs through all observations

    Raises
    ------
    ValueError
        if nothing can be learnt: no parameter with a gradient, a block too short or long, a method without likelihood
    FilterDivergence
        if the filter diverges on the way
    """
    parameters = list(parameters)
    if not parameters or not all(p.requires_grad for p in parameters):
        raise ValueError("parameters: expected tensors with requires_grad=True that step or method use.")
    if not 2 <= block <= len(observations):
        raise ValueError(f"block = {block}: expected 2 to {len(observations)}, the number of observation times.")
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    losses, values = [], []
    blocks = [(first, observations[first : first + block]) for first in range(0, len(observations) - 1, block)]
    for first, seen in tqdm(blocks * epochs, desc=progress, disable=not progress):
        if first == 0:
            state = start
        result = cycle(method, step, seen, state, generator=generator, differentiate=block)
        if "log_likelihood" not in result.diagnostics:
            raise ValueError(
                f"method: {type(method).__name__} gives no likelihood; use EnKF, DEnKF, ETKF or a Kalman filter."
            )
        loss = -result.diagnostics["log_likelihood"].nanmean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
        values.append(torch.cat([p.detach().flatten() for p in parameters]))
        state = detached(result.final)
        if (following := first + block) < len(observations):
            with torch.no_grad():
                for _ in range(observations.steps_before(following)):
                    state = method.forecast(state, step, generator)
    return LikelihoodHistory(torch.stack(losses), torch.stack(values))
