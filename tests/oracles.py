"""A linear Gaussian problem with its exact answer, by dense algebra in NumPy: what all methods must agree with."""

import numpy as np
import torch
from torch import Tensor

from mooc_da.observations import Observations


class LinearProblem:
    """``x_k = M x_{k-1} + q``, ``q ~ N(0, std^2 I)``, seen as ``y_k = H x_k + N(0, R)``, from the moments of a sample.

    The answer is that of the joint Gaussian of all states, conditioned on all values at once: nothing is done
    in turn, so that it is also the answer of a smoother.
    """

    def __init__(self, randn, *, std=0.0, n_sites=4, n_values=2, n_times=5, n_members=9, missing=False):
        self.M = torch.linalg.qr(randn(n_sites, n_sites))[0] * 1.05
        self.H, self.R = randn(n_values, n_sites), 0.3 + 0.3 * randn(n_values) ** 2
        self.start, self.y = 1.0 + randn(n_members, n_sites), 2.0 * randn(n_times, n_values)
        if missing:  # a value, another one, and a whole time
            self.y[1, 0] = self.y[3, -1] = torch.nan
            self.y[2] = torch.nan
        self.observations = Observations(self.y, lambda k: self.observe, self.R)
        self.x, self.P = self.start.mean(0).numpy(), np.cov(self.start.T)
        self.Q = std**2 * np.eye(n_sites)

    def step(self, x: Tensor) -> Tensor:
        return x @ self.M.T

    def observe(self, x: Tensor) -> Tensor:
        return x @ self.H.T

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (K Nx,) and covariance of all states, one after the other."""
        M, n, K = self.M.numpy(), len(self.x), len(self.y)
        mean, C = [self.x], np.zeros((K, n, K, n))
        C[0, :, 0] = self.P
        for k in range(1, K):
            mean.append(M @ mean[-1])
            for j in range(k):
                C[j, :, k] = C[j, :, k - 1] @ M.T
                C[k, :, j] = C[j, :, k].T
            C[k, :, k] = M @ C[k - 1, :, k] + self.Q
        return np.concatenate(mean), C.reshape(K * n, K * n)

    def seen(self, last: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values up to the time ``last`` that are not missing, their operator on all states and their variances."""
        K = len(self.y)
        there = ~np.isnan(self.y.numpy())
        there[K if last is None else last + 1 :] = False
        A, there = np.kron(np.eye(K), self.H.numpy()), there.ravel()
        return self.y.numpy().ravel()[there], A[there], np.tile(self.R.numpy(), K)[there]

    def given(self, last: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance (K, Nx) of the states at all times given the values up to the time ``last``."""
        (m, C), (y, A, R) = self.prior(), self.seen(last)
        K = C @ A.T @ np.linalg.inv(A @ C @ A.T + np.diag(R))
        mean, variance = m + K @ (y - A @ m), np.diag(C - K @ A @ C)
        return tuple(torch.from_numpy(a.reshape(len(self.y), -1).copy()) for a in (mean, variance))

    def log_likelihood(self) -> Tensor:
        """Of all values together."""
        (m, C), (y, A, R) = self.prior(), self.seen()
        joint = torch.distributions.MultivariateNormal(
            *(torch.from_numpy(a) for a in (A @ m, A @ C @ A.T + np.diag(R)))
        )
        return joint.log_prob(torch.from_numpy(y))
