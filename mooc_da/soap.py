"""SOAP: Adam in the basis in which a layer's gradients do not mix; sees through a loss in far fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class SOAP(torch.optim.Optimizer):
    r"""Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv:2409.11321).

    The gradients G of a matrix of weights are correlated, among its rows and among its columns. With
    running means of both correlations, and their eigenvectors,

    .. math:: L \leftarrow \beta L + (1 - \beta) G G^T = Q_L \Lambda_L Q_L^T, \qquad
              R \leftarrow \beta R + (1 - \beta) G^T G = Q_R \Lambda_R Q_R^T,

    the rotated gradient :math:`Q_L^T G Q_R` has nearly independent entries, and Adam, which scales each entry
    by its own size, does there what it was made for: the step is :math:`Q_L \,\mathrm{Adam}(Q_L^T G Q_R)\, Q_R^T`.

    The eigenvectors are renewed now and then by one step of the power method and QR. Costs a few small products
    of matrices; pays where curvature differs much between directions, as in fits to high accuracy.

    Parameters
    ----------
    parameters : matrices (..., n, m); leading axes are networks side by side, each with a basis of its own
    lr : learning rate, as of Adam
    beta : memory of all running means
    renewal : steps from one renewal of the basis to the next

    Raises
    ------
    ValueError
        if a parameter has fewer than two axes: it would have no rows and columns; if a number is out of range
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 4e-3, *, beta: float = 0.95, renewal: int = 10
    ) -> None:
        if not (lr >= 0 and 0 <= beta < 1 and renewal >= 1):
            raise ValueError(
                f"lr = {lr}, beta = {beta}, renewal = {renewal}: expected lr >= 0, 0 <= beta < 1 <= renewal."
            )
        super().__init__(parameters, {"lr": lr, "betas": (beta, beta), "renewal": renewal})

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.ndim < 2:
                raise ValueError(f"A parameter has shape {tuple(p.shape)}: SOAP takes matrices, (..., n, m).")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:  # the first gradient gives the basis, and moves nothing
                    self.state[p] = first(p.grad)
                else:
                    p.add_(moved(self.state[p], p.grad, *group["betas"], group["renewal"]), alpha=-group["lr"])
        return loss


def first(G: Tensor) -> dict:
    """What is remembered of the gradients (..., n, m) of a matrix, after the first."""
    L, R = G @ G.mT, G.mT @ G
    # where a gradient is not finite, any basis will do: the weights tell, as after a step of Adam
    QL, QR = (torch.linalg.eigh(C.nan_to_num(0.0, 0.0, 0.0)).eigenvectors for C in (L, R))
    return {"QL": QL, "QR": QR} | {
        "L": L,
        "R": R,
        "mean": torch.zeros_like(G),
        "square": torch.zeros_like(G),
        "steps": 0,
    }


def moved(state: dict, G: Tensor, beta1: float, beta2: float, renewal: int) -> Tensor:
    """The step of Adam in the rotated basis, rotated back, (..., n, m); what is remembered takes the gradient in."""
    QL, QR = state["QL"], state["QR"]
    state["steps"] += 1
    state["mean"].lerp_(G, 1 - beta1)
    state["square"].lerp_((QL.mT @ G @ QR).square(), 1 - beta2)
    mean = QL.mT @ state["mean"] @ QR / (1 - beta1 ** state["steps"])
    square = state["square"] / (1 - beta2 ** state["steps"])
    step = QL @ (mean / (square.sqrt() + 1e-8)) @ QR.mT
    state["L"].lerp_(G @ G.mT, 1 - beta2)
    state["R"].lerp_(G.mT @ G, 1 - beta2)
    if state["steps"] % renewal == 0:
        state["QL"], order = renewed(state["L"], QL)
        state["square"] = state["square"].gather(-2, order.unsqueeze(-1).expand_as(G))
        state["QR"], order = renewed(state["R"], QR)
        state["square"] = state["square"].gather(-1, order.unsqueeze(-2).expand_as(G))
    return step


def renewed(C: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors of C nearer to the true ones than Q, all (..., n, n), largest first; and the order they had in Q."""
    order = (Q.mT @ C @ Q).diagonal(dim1=-2, dim2=-1).argsort(-1, descending=True)
    ordered = Q.gather(-1, order.unsqueeze(-2).expand_as(Q))
    return torch.linalg.qr(C @ ordered).Q, order
