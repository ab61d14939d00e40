r"""Few numbers for many: EOFs, and an autoencoder, maps and training loop that start from them.

An empirical orthogonal function (EOF) is an eigenvector of the covariance of a sample of fields. All
networks here work on the coefficients of the leading EOFs, and each is a *linear map plus a perceptron
that is zero at first*: training starts from the best linear answer and learns what that lacks.

    c = EOFs(x)                     (..., Nx) -> (..., n)      linear, loses next to nothing
    z = encoder(c)                  (..., n)  -> (..., Nz)     first the leading coefficients, then what training makes
    x ~ field(decoder(z))           (..., Nz) -> (..., Nx)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .models import one_thread


@dataclass(frozen=True)
class EOFs:
    """Mean, leading orthonormal patterns and their standard deviations: see :func:`eofs`."""

    mean: Tensor  # (Nx,)
    patterns: Tensor  # (n, Nx)
    std: Tensor  # (n,) of the coefficients, in the units of the field times the root of Nx

    def coefficients(self, x: Tensor) -> Tensor:
        """(..., Nx) -> (..., n)."""
        return (x - self.mean) @ self.patterns.mT

    def field(self, c: Tensor) -> Tensor:
        """(..., n) -> (..., Nx), the inverse where the field is a sum of these patterns; fewer coefficients will do."""
        return self.mean + c @ self.patterns[: c.shape[-1]]


def eofs(states: Tensor, n: int) -> EOFs:
    """The ``n`` leading EOFs of a sample (M, Nx), by the eigenvectors of its Gram matrix or covariance.

    No ``n`` patterns explain more of the sample's variance; a nonlinear map may.
    """
    if states.ndim != 2 or not 1 <= n < min(states.shape):
        raise ValueError(f"n = {n} of states {tuple(states.shape)}: expected (M, Nx) with 1 <= n < min(M, Nx).")
    mean = states.mean(0)
    X = states - mean
    if len(X) > X.shape[1]:
        values, vectors = torch.linalg.eigh(X.mT @ X)
        patterns = vectors.mT.flip(0)[:n]
    else:
        values, vectors = torch.linalg.eigh(X @ X.mT)
        patterns = nn.functional.normalize(vectors.mT.flip(0)[:n] @ X)
    return EOFs(mean, patterns, (values.flip(0)[:n].clamp(min=0.0) / (len(X) - 1)).sqrt())


class LinearPlus(nn.Module):
    r"""A linear map plus a perceptron of two hidden layers, which is zero until it is trained, (..., n) -> (..., m).

    .. math:: y = b + W c + s_y\, N(c / s_c)

    Parameters
    ----------
    weight, bias : W (m, n) and b (m,), kept as they are; see :func:`regression`
    scale_in, scale_out : s_c (n,) and s_y (m,), what is a large input and a large output
    hidden : width of the perceptron
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        scale_in: Tensor,
        scale_out: Tensor,
        hidden: int = 128,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"weight": weight, "bias": bias, "scale_in": scale_in, "scale_out": scale_out}.items():
            self.register_buffer(name, value.clone())
        m, n = weight.shape
        sizes = (n, hidden, hidden, m)
        self.layers = nn.ModuleList(nn.Linear(i, o, dtype=weight.dtype) for i, o in itertools.pairwise(sizes))
        with torch.no_grad():
            for layer, i in zip(self.layers, (n, hidden, None), strict=True):
                bound = 1 / math.sqrt(i) if i else 0.0
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()

    def forward(self, c: Tensor) -> Tensor:
        x = c.to(self.weight.dtype) / self.scale_in
        for layer in self.layers[:-1]:
            x = nn.functional.silu(layer(x))
        y = nn.functional.linear(c.to(self.weight.dtype), self.weight, self.bias) + self.scale_out * self.layers[-1](x)
        return y.to(c.dtype)


def regression(c: Tensor, y: Tensor, ridge: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Least squares ``y ~ b + W c`` for samples (M, n) and (M, m): W (m, n) and b (m,).

    Parameters
    ----------
    ridge : penalty of W, relative to the largest variance of c; keeps it finite where c hardly varies
    """
    C, Y = c - c.mean(0), y - y.mean(0)
    gram = C.mT @ C
    penalty = ridge * gram.diagonal().max() * torch.eye(c.shape[-1], dtype=c.dtype, device=c.device)
    W = torch.linalg.solve(gram + penalty, C.mT @ Y).mT
    return W, y.mean(0) - W @ c.mean(0)


def linear_plus(c: Tensor, y: Tensor, hidden: int = 128, *, generator: torch.Generator | None = None) -> LinearPlus:
    """An untrained :class:`LinearPlus` around the regression of y (M, m) on c (M, n)."""
    return LinearPlus(*regression(c, y), floored(c.std(0)), floored(y.std(0)), hidden, generator=generator)


def autoencoder(
    basis: EOFs, size: int, hidden: int = 128, *, generator: torch.Generator | None = None
) -> nn.Sequential:
    """Encoder and decoder on the coefficients of the basis, untrained: truncation to the leading ``size`` EOFs.

    The latent variables are the leading coefficients in units of their standard deviations, until
    training moves them. Returns a Sequential of two :class:`LinearPlus`, (..., n) -> (..., size) -> (..., n).
    """
    n = len(basis.std)
    if not 1 <= size <= n:
        raise ValueError(f"size = {size}: expected 1 … {n} latent variables for {n} EOFs.")
    keep = torch.eye(size, n, dtype=basis.std.dtype, device=basis.std.device)
    scale, one = floored(basis.std), torch.ones_like(basis.std[:size])
    encoder = LinearPlus(keep / basis.std[:size, None], 0 * one, scale, one, hidden, generator=generator)
    decoder = LinearPlus((keep * basis.std[:size, None]).mT, 0 * scale, one, scale, hidden, generator=generator)
    return nn.Sequential(encoder, decoder)


def floored(std: Tensor) -> Tensor:
    """Scales no smaller than a thirtieth of the largest, so that a network does not chase what hardly varies."""
    return std.clamp(min=float(std.max()) / 30.0)


class Losses(NamedTuple):
    """Squared error over the variance of the targets by epoch, (n_epochs,) each."""

    training: Tensor
    validation: Tensor


@torch.enable_grad()
@one_thread()
def train(
    network: nn.Module,
    training: Sequence[Tensor],
    validation: Sequence[Tensor],
    *,
    epochs: int = 40,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
) -> Losses:
    """Fit a network in place to pairs ``(inputs (M, n), targets (M, m))`` by AdamW with a one-cycle learning rate.

    All targets count in the same units, so that for coefficients of EOFs the loss is the error of the
    field. Leaves the network in evaluation mode, its weights constants in the precision of the inputs.

    Raises
    ------
    FloatingPointError
        if the loss becomes NaN
    """
    (inputs, targets), (x_val, t_val) = training, validation
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(f"training: {len(inputs)} inputs and {len(targets)} targets; expected as many, at least one.")
    dtype = inputs.dtype
    network.float()  # in single precision, for speed
    inputs, targets, x_val, t_val = (a.float() for a in (inputs, targets, x_val, t_val))
    unit = (targets - targets.mean(0)).square().sum(-1).mean()
    n_batches = math.ceil(len(inputs) / batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * n_batches + 1)
    curves = []
    for epoch in range(epochs):
        total = 0.0
        network.train()
        for indices in torch.randperm(len(inputs), generator=generator).split(batch_size):
            loss = (network(inputs[indices]) - targets[indices]).square().sum(-1).mean() / unit
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(indices) / len(inputs)
        network.eval()
        with torch.no_grad():
            validated = float((network(x_val) - t_val).square().sum(-1).mean() / unit)
        if not math.isfinite(total + validated):
            raise FloatingPointError(f"The loss became NaN in epoch {epoch + 1}: use a smaller learning_rate.")
        curves.append((total, validated))
    network.to(dtype).requires_grad_(False)
    return Losses(*torch.tensor(curves).T)
