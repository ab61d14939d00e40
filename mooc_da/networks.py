"""Networks that correct a model, the polynomial they must beat, and the hybrids they make.

A network may be a *batch* of networks, one per experiment: ``batch=(S,)`` gives weights a leading
axis S, and ``network(x)`` takes x (S, ..., Nx). All are then trained in the same calls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .models import Step, rk4


class PeriodicConv(nn.Module):
    r"""Convolution on a ring, (..., C_in, M, Nx) -> (..., C_out, M, Nx): the same small stencil at every point.

    .. math:: y_n = b + \sum_{j=-r}^{r} W_j z_{n+j}, \qquad n \text{ modulo } N_x

    Parameters
    ----------
    batch : () or (S,), for S convolutions side by side
    width : 2 r + 1, odd
    """

    def __init__(self, batch: tuple[int, ...], n_in: int, n_out: int, width: int) -> None:
        super().__init__()
        if width % 2 == 0:
            raise ValueError(f"width = {width}: a stencil around a point has an odd width.")
        self.n_in, self.width = n_in, width
        self.weight = nn.Parameter(torch.zeros(*batch, n_out, width * n_in))  # [W_-r, ..., W_r]
        self.bias = nn.Parameter(torch.zeros(*batch, n_out, 1))

    def forward(self, z: Tensor) -> Tensor:
        n_sites, reach = z.shape[-1], self.width // 2
        ring = torch.cat((z[..., -reach:], z, z[..., :reach]), -1) if reach else z
        if self.n_in == 1 or not reach:  # few numbers: one product with all neighbours at once
            shifted = torch.cat([ring[..., j : j + n_sites] for j in range(self.width)], -3)
            return (self.weight @ shifted.flatten(-2) + self.bias).unflatten(-1, (-1, n_sites))
        W = self.weight.unflatten(-1, (self.width, -1)).transpose(-3, -2)  # (..., 2 r + 1, C_out, C_in)
        products = (W.flatten(-3, -2) @ ring.flatten(-2)).unflatten(-1, ring.shape[-2:])
        y = self.bias.unsqueeze(-1)
        for j, product in enumerate(products.unflatten(-3, (self.width, -1)).unbind(-4)):
            y = y + product[..., j : j + n_sites]
        return y


class CorrectionCNN(nn.Module):
    """A periodic CNN that maps a state to the error of the model's next step, (..., Nx) -> (..., Nx).

    Translation equivariant like the models it corrects, ``tanh`` between the layers, ``float32`` inside
    whatever the state is, and scaled inside: states and corrections go in and out in their own units.

    Parameters
    ----------
    batch : () for one network, (S,) for S networks in one
    channels, widths : of the hidden layers, of all kernels; the default has 4781 parameters
    generators : one random generator per network, for the first weights (Glorot & Bengio 2010, uniform)
    """

    def __init__(
        self,
        batch: tuple[int, ...] = (),
        channels: Sequence[int] = (40, 20, 20),
        widths: Sequence[int] = (7, 5, 1, 1),
        *,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        super().__init__()
        if len(widths) != len(channels) + 1:
            raise ValueError(
                f"{len(channels)} hidden layers need {len(channels) + 1} kernel widths, not {len(widths)}."
            )
        if generators and len(generators) != math.prod(batch):
            raise ValueError(f"{len(generators)} generators for {math.prod(batch)} networks: expected one each.")
        self.form = {"batch": tuple(batch), "channels": tuple(channels), "widths": tuple(widths)}
        sizes = (1, *channels, 1)
        self.layers = nn.ModuleList(
            PeriodicConv(tuple(batch), *pair, w) for *pair, w in zip(sizes, sizes[1:], widths, strict=False)
        )
        for name in ("x_mean", "x_std", "y_std"):
            self.register_buffer(name, torch.zeros(*batch, 1, 1) if name == "x_mean" else torch.ones(*batch, 1, 1))
        self.draw_weights(generators or [torch.Generator().manual_seed(s) for s in range(math.prod(batch))])

    @torch.no_grad()
    def draw_weights(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the first weights of every network from its own generator."""
        for layer in self.layers:
            n_out, n_in = layer.weight.shape[-2:]
            bound = (6 / (n_in + n_out * layer.width)) ** 0.5
            draws = [(2 * torch.rand(n_out, n_in, generator=g) - 1) * bound for g in generators]
            layer.weight.copy_(torch.stack(draws).view_as(layer.weight))

    @torch.no_grad()
    def scale_to(self, inputs: Tensor, targets: Tensor) -> None:
        """Take mean and standard deviations from training data (*batch, K, Nx), over times and points."""
        dims = (-2, -1)
        self.x_mean.copy_(inputs.mean(dims, keepdim=True))
        self.x_std.copy_(inputs.std(dims, keepdim=True))
        self.y_std.copy_(targets.std(dims, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        batch = self.form["batch"]
        if x.shape[: len(batch)] != batch:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: these are {batch} networks, expected {(*batch, '...', 'Nx')}."
            )
        states = x.to(self.x_mean.dtype).reshape(*batch, -1, x.shape[-1])  # (*batch, M, Nx)
        y = [self.corrections(block) for block in states.split(128, -2)]  # small enough for the processor's cache
        return (torch.cat(y, -2) if len(y) > 1 else y[0]).reshape(x.shape).to(x.dtype)

    def corrections(self, states: Tensor) -> Tensor:
        """The network itself, (*batch, M, Nx) -> (*batch, M, Nx)."""
        z = ((states - self.x_mean) / self.x_std).unsqueeze(-3)  # (*batch, 1, M, Nx)
        for layer in self.layers[:-1]:
            z = layer(z).tanh()
        return self.layers[-1](z).squeeze(-3) * self.y_std

    def select(self, networks: slice) -> CorrectionCNN:
        """Some of a batch of networks, as a batch of their own."""
        state = {name: value[networks] for name, value in self.state_dict().items()}
        chosen = CorrectionCNN((len(state["x_mean"]),), self.form["channels"], self.form["widths"]).to(
            self.x_mean.device
        )
        chosen.load_state_dict(state)
        return chosen.train(self.training)

    def save(self, path: str | Path) -> None:
        """Write form, weights and scaling to one file of tensors and plain values."""
        torch.save({"form": self.form, "state": self.state_dict()}, path)

    @classmethod
    def load(cls, path: str | Path) -> CorrectionCNN:
        """Read what :meth:`save` wrote. Raises ValueError if the file holds something else."""
        try:
            saved = torch.load(path, weights_only=True)
            network = cls(**saved["form"])
            network.load_state_dict(saved["state"])
        except FileNotFoundError:
            raise
        except Exception as error:  # torch raises half a dozen kinds for a file that is not what it should be
            raise ValueError(
                f"{path} does not hold a CorrectionCNN ({type(error).__name__}: {error}). Train and save it anew."
            ) from error
        return network.eval()


class CubicRidge(nn.Module):
    """The baseline beside the network: all monomials up to degree three in seven neighbours, by ridge regression.

    Translation equivariant: the same 120 coefficients at every point. Solved in closed form from
    ``(Phi^T Phi + ridge n I) c = Phi^T t`` with Phi the monomials of standardised states.

    Parameters
    ----------
    inputs, targets : (*batch, K, Nx) training pairs; leading axes give one regression each
    ridge : penalty per sample
    reach : neighbours to either side
    """

    def __init__(self, inputs: Tensor, targets: Tensor, ridge: float = 1e-3, reach: int = 3) -> None:
        super().__init__()
        if inputs.shape != targets.shape or inputs.dtype != targets.dtype:
            raise ValueError(
                f"inputs {tuple(inputs.shape)} {inputs.dtype} and targets {tuple(targets.shape)} {targets.dtype}: "
                "expected the same shape and dtype."
            )
        if not (torch.isfinite(inputs).all() and torch.isfinite(targets).all()):
            raise ValueError("inputs, targets: NaN or infinite values; did the filter diverge? Cut those times out.")
        if not ridge > 0:
            raise ValueError(f"ridge = {ridge}: expected a positive penalty, without it the fit may be singular.")
        self.reach = reach
        terms = list(itertools.combinations_with_replacement(range(2 * reach + 2), 3))
        self.register_buffer("terms", torch.tensor(terms).T)  # (3, F); index 0 stands for the factor 1
        self.register_buffer("mean", inputs.mean((-2, -1), keepdim=True))
        self.register_buffer("std", inputs.std((-2, -1), keepdim=True))
        gram = moment = 0.0
        for x, t in zip(inputs.split(100, -2), targets.split(100, -2), strict=True):
            phi = self.features(x)  # (*batch, k, Nx, F)
            gram = gram + phi.flatten(-3, -2).mT @ phi.flatten(-3, -2)
            moment = moment + phi.flatten(-3, -2).mT @ t.flatten(-2).unsqueeze(-1)
        gram = gram + ridge * inputs.shape[-2] * inputs.shape[-1] * torch.eye(
            len(terms), dtype=gram.dtype, device=gram.device
        )
        self.register_buffer("coefficients", torch.linalg.solve(gram, moment).squeeze(-1))  # (*batch, F)

    def features(self, x: Tensor) -> Tensor:
        """The monomials at every point: (*batch, ..., Nx) -> (*batch, ..., Nx, F)."""
        factors = self.factors(x)
        i, j, k = self.terms
        return factors[..., i] * factors[..., j] * factors[..., k]

    def factors(self, x: Tensor) -> Tensor:
        """What they are products of, one and the standardised neighbours: (*batch, ..., Nx, 2 reach + 2)."""
        z = (x - self.expanded(self.mean, x)) / self.expanded(self.std, x)
        shifts = [z.roll(-j, -1) for j in range(-self.reach, self.reach + 1)]
        return torch.stack((torch.ones_like(z), *shifts), -1)

    @staticmethod
    def expanded(scale: Tensor, x: Tensor) -> Tensor:
        """(*batch, 1, 1) -> with as many axes of one as x has after its batch."""
        batch = scale.shape[:-2]
        return scale.reshape(*batch, *(1 for _ in x.shape[len(batch) :]))

    def forward(self, x: Tensor) -> Tensor:
        batch = self.coefficients.shape[:-1]
        flat = x.reshape(*batch, -1, x.shape[-1])
        return (self.features(flat).flatten(-3, -2) @ self.coefficients.unsqueeze(-1)).reshape(x.shape)


class HybridModel(nn.Module):
    """Physical model plus correction of its step: ``x -> physical(x) + correction(x)``. Itself a Step."""

    def __init__(self, physical: Step, correction: Step) -> None:
        super().__init__()
        self.physical, self.correction = physical, correction
        self.train(getattr(correction, "training", False))

    def forward(self, x: Tensor) -> Tensor:
        return self.physical(x) + self.correction(x)


class TendencyHybrid(nn.Module):
    """The correction inside the integration: RK4 of ``physical.tendency(x) + correction(x) / physical.dt``.

    Four evaluations of the network a step; carries over to another ``dt``, which a correction of the step does not.
    """

    def __init__(self, physical, correction: Step, dt: float | None = None) -> None:
        super().__init__()
        self.physical, self.correction, self.dt = physical, correction, dt or physical.dt
        self.train(getattr(correction, "training", False))

    def forward(self, x: Tensor) -> Tensor:
        return rk4(lambda z: self.physical.tendency(z) + self.correction(z) / self.physical.dt, x, self.dt)
