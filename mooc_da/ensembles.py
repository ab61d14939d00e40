"""Ensemble algebra. Members are rows: E is (..., Ne, Nx), so that ``E[i]`` is a state."""

from __future__ import annotations

import torch
from torch import Tensor


def anomalies(E: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and anomalies: ``x (..., 1, Nx)`` and ``X = E - x (..., Ne, Nx)``."""
    mean = E.mean(-2, keepdim=True)
    return mean, E - mean


def spread(E: Tensor) -> Tensor:
    """Root of the ensemble variance averaged over the state, (...,): the error the ensemble expects."""
    return E.var(-2).mean(-1).sqrt()


def per_experiment(value: float | Tensor, E: Tensor) -> float | Tensor:
    """A tuning as a factor of ``E``: a number as it is, one per experiment of a batch as (..., 1, 1)."""
    return value.to(E)[..., None, None] if torch.is_tensor(value) else value


def inflate(E: Tensor, inflation: float | Tensor) -> Tensor:
    """Multiply the anomalies by ``inflation`` and leave the mean alone."""
    mean, X = anomalies(E)
    return mean + per_experiment(inflation, E) * X


def modes(Y: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors and squared singular values of ``Y = U diag(s) V^T``.

    From the eigen-decomposition of the smaller of ``Y Y^T`` and ``Y^T Y``, which for the small
    matrices of an ensemble costs a third of an SVD. Where ``Ny < Ne``, a direction without variance
    (to rounding) has a zero column in ``U``.

    Parameters
    ----------
    Y : (..., Ne, Ny)

    Returns
    -------
    U : (..., Ne, r) and s2 : (..., r) in ascending order, with r = min(Ne, Ny)
    """
    if Y.shape[-1] < Y.shape[-2]:
        s2, V = torch.linalg.eigh(Y.mT @ Y)
        return (Y @ V) * pseudo_inverse(s2).sqrt().unsqueeze(-2), s2
    s2, U = torch.linalg.eigh(Y @ Y.mT)
    return U, s2


def pseudo_inverse(s2: Tensor) -> Tensor:
    """``1 / s2``, and zero where s2 (..., r), in ascending order, is zero to rounding."""
    threshold = 100.0 * torch.finfo(s2.dtype).eps * s2[..., -1:]
    return (s2 > threshold) / s2.clamp(min=torch.finfo(s2.dtype).tiny)


def sqrt_core(E: Tensor, std: float | Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Add model error of covariance ``Q = std^2 I`` to the ensemble without drawing noise: SQRT-CORE.

    The anomalies become the symmetric square root that satisfies, in their own subspace
    (projector :math:`\Pi`), :math:`X'^T X' = X^T X + (N_e - 1)\,\Pi Q \Pi` (Raanes, Carrassi &
    Bertino 2015, doi 10.1175/MWR-D-14-00375.1). In the singular basis of X it is diagonal:
    each singular value grows from ``s`` to ``sqrt(s^2 + (Ne - 1) std^2)``. The mean stays.

    Parameters
    ----------
    E : (..., Ne, Nx)
    std : sigma_q; a number or one per experiment, (...,)
    generator : not used; the same signature as :func:`additive_noise`
    """
    _, X = anomalies(E)
    U, s2 = modes(X)
    noise = (E.shape[-2] - 1.0) * per_experiment(std, E) ** 2
    growth = (1.0 + noise * pseudo_inverse(s2).unsqueeze(-1)).sqrt()  # of the singular values, (..., r, 1)
    return E + U @ ((growth - 1.0) * (U.mT @ X))


def additive_noise(E: Tensor, std: float | Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Add model error of covariance ``std^2 I`` by drawing it: the stochastic alternative to SQRT-CORE.

    The draws are centred, so that the mean stays.
    """
    noise = torch.randn(E.shape, dtype=E.dtype, generator=generator).to(E.device)
    return E + per_experiment(std, E) * (noise - noise.mean(-2, keepdim=True))


def rotate(E: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Rotate the anomalies at random in ensemble space; mean and covariance stay.

    The rotation keeps the vector of ones (Sakov & Oke 2008, doi 10.1175/2007MWR2021.1): it mixes
    the members, whose distribution a symmetric square root leaves ever less Gaussian.
    """
    n_members = E.shape[-2]
    mean, X = anomalies(E)
    basis = torch.ones(n_members, n_members, dtype=E.dtype).triu(1)
    basis -= torch.diag(torch.arange(n_members, dtype=E.dtype))
    basis[:, 0] = 1.0
    basis = (basis / basis.norm(dim=0)).to(E.device)  # Helmert: column 0 is the vector of ones
    random = torch.randn(*E.shape[:-2], n_members - 1, n_members - 1, dtype=E.dtype, generator=generator).to(E.device)
    Q, triangle = torch.linalg.qr(random)
    Q = Q * triangle.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]  # uniform (Haar) on rotations
    return mean + basis[:, 1:] @ (Q @ (basis[:, 1:].mT @ X))
