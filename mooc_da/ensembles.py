"""Ensemble algebra. Members are rows: E is (..., Ne, Nx), so that ``E[i]`` is a state."""

from __future__ import annotations

import math
from typing import NamedTuple

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


class GramEigh(torch.autograd.Function):
    """``torch.linalg.eigh`` of a Gram matrix, with a derivative also where eigenvalues coincide at zero.

    The general derivative divides by the differences of the eigenvalues. Within the null space of a Gram
    matrix it is not needed: a small change of the factor moves nothing there to first order.
    """

    @staticmethod
    def forward(ctx, A: Tensor) -> tuple[Tensor, Tensor]:
        s, U = torch.linalg.eigh(A)
        ctx.save_for_backward(s, U)
        return s, U

    @staticmethod
    def backward(ctx, grad_s: Tensor, grad_U: Tensor) -> Tensor:
        s, U = ctx.saved_tensors
        gap = s.unsqueeze(-2) - s.unsqueeze(-1)
        apart = gap.abs() > 1e-12 * s[..., -1:, None].abs()
        inverse_gap = torch.where(apart, 1.0 / torch.where(apart, gap, 1.0), 0.0)
        grad = U @ (inverse_gap * (U.mT @ grad_U) + torch.diag_embed(grad_s)) @ U.mT
        return 0.5 * (grad + grad.mT)


def eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of symmetric A (..., n, n); see :class:`GramEigh`."""
    return GramEigh.apply(A) if A.requires_grad else torch.linalg.eigh(A)


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
        s2, V = eigh(Y.mT @ Y)
        smallest = torch.finfo(Y.dtype).eps * s2[..., -1:]  # Y @ V is zero below, whatever it is divided by
        floor = torch.where(s2[..., -1:] > 0, torch.maximum(s2, smallest), 1.0)
        return (Y @ V) * floor.rsqrt().unsqueeze(-2), s2
    s2, U = eigh(Y @ Y.mT)
    return U, s2


def pseudo_inverse(s2: Tensor) -> Tensor:
    """``1 / s2``, and zero where s2 (..., r), in ascending order, is zero to rounding."""
    threshold = 100.0 * torch.finfo(s2.dtype).eps * s2[..., -1:]
    return (s2 > threshold) / s2.clamp(min=torch.finfo(s2.dtype).tiny)


class InnovationModes(NamedTuple):
    """Ensemble and innovation in the basis in which an analysis is diagonal (symbols: :mod:`mooc_da.filters`)."""

    x: Tensor  # (..., 1, Nx)
    X: Tensor  # (..., Ne, Nx)
    U: Tensor  # (..., Ne, r)
    s2: Tensor  # (..., r)
    g: Tensor  # (..., r)
    delta2: Tensor  # (...,) squared length of delta


def innovation_modes(E: Tensor, HE: Tensor, y: Tensor, R: Tensor) -> InnovationModes:
    """Normalise the observed anomalies and the innovation by R^(-1/2) and decompose them."""
    check_observed(E, HE, y, R)
    x, X = anomalies(E)
    hx, Y = anomalies(HE)
    scale = R.rsqrt()  # zero where a value is missing: it then has no weight
    Y = Y * scale.unsqueeze(-2)  # (..., Ne, Ny)
    delta = (y - hx.squeeze(-2)) * scale  # (..., Ny)
    U, s2 = modes(Y)
    g = (U.mT @ (Y @ delta.unsqueeze(-1))).squeeze(-1)
    return InnovationModes(x, X, U, s2, g, torch.linalg.vecdot(delta, delta))


def check_observed(E: Tensor, HE: Tensor, y: Tensor, R: Tensor) -> None:
    """Raise ValueError unless ensemble, observed ensemble, observations and variances fit each other."""
    if E.ndim < 2 or E.shape[-2] < 2:
        raise ValueError(f"E has shape {tuple(E.shape)}: expected (..., Ne, Nx) with at least 2 members.")
    if HE.shape[:-1] != E.shape[:-1] or not HE.shape[-1] == y.shape[-1] == R.shape[-1]:
        raise ValueError(
            f"E {tuple(E.shape)}, HE {tuple(HE.shape)}, y {tuple(y.shape)} and R {tuple(R.shape)} do not fit: "
            "expected (..., Ne, Nx), (..., Ne, Ny), (..., Ny) and (Ny,)."
        )
    if not E.dtype == HE.dtype == y.dtype == R.dtype:
        raise ValueError(f"E is {E.dtype}, HE {HE.dtype}, y {y.dtype}, R {R.dtype}: convert all to torch.float64.")


def observed_values(R: Tensor) -> tuple[Tensor, Tensor]:
    """Number of values that are not missing and the sum of their log variances, each (...,)."""
    seen = torch.isfinite(R)
    return seen.sum(-1, dtype=R.dtype), torch.where(seen, R, 1.0).log().sum(-1)


def innovation_statistics(m: InnovationModes, R: Tensor) -> dict[str, Tensor]:
    r"""How likely the innovation is under the forecast ensemble, :math:`d \sim N(0, HPH^T + R)`.

    Returns
    -------
    ``chi2`` : :math:`d^T (HPH^T + R)^{-1} d / N_y`, one on average if the spread is right;
    ``log_likelihood`` : of the observations given the past; its sum over time compares tunings.
    """
    N = m.X.shape[-2] - 1.0
    total = m.s2 + N  # HPH^T + R has the eigenvalues total / N on the modes and 1 elsewhere, in units of R
    chi2 = m.delta2 - torch.linalg.vecdot(m.g, m.g / total)
    return likelihood(chi2, total.log().sum(-1) - m.s2.shape[-1] * math.log(N), R)


def likelihood(chi2: Tensor, log_det: Tensor, R: Tensor) -> dict[str, Tensor]:
    """``chi2`` per value and ``log_likelihood``, from the sum of squares and the log determinant in units of R."""
    n_values, log_R = observed_values(R)
    log_likelihood = -0.5 * (chi2 + log_det + log_R + n_values * math.log(2 * math.pi))
    return {"chi2": chi2 / n_values, "log_likelihood": torch.where(n_values > 0, log_likelihood, math.nan)}


def with_variance_factor(m: InnovationModes, factor: Tensor) -> InnovationModes:
    """The same after multiplying the variance of the ensemble by ``factor (...,)``."""
    root = factor.sqrt().unsqueeze(-1)
    return m._replace(X=root.unsqueeze(-1) * m.X, s2=factor.unsqueeze(-1) * m.s2, g=root * m.g)


def transformed(m: InnovationModes, w: Tensor, T: Tensor, rest: Tensor | float = 0.0) -> Tensor:
    """``x + (U w)^T X + (rest I + U T U^T) X``: an analysis given in the basis U.

    Parameters
    ----------
    w : (..., r) weights; T : (..., r, r); rest : (..., 1, 1), what happens to the directions outside U
    """
    Z = m.U.mT @ m.X  # (..., r, Nx)
    return m.x + rest * m.X + (m.U @ T + w.unsqueeze(-2)) @ Z


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
