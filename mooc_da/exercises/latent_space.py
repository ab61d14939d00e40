"""Exercises of notebook 5: truncation, the cost and the covariance in a latent space, and what its ceiling means."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import seeded
from ..latent import eofs
from .exercise import Exercises, call, choose, close, number, require, tensor, unlike

ex = Exercises("5_latent_space")


def bumps(place: Tensor) -> Tensor:
    """One bump on a ring of 48 points at each place (...,), in radians: (..., 48), a family with one parameter."""
    angle = torch.arange(48, dtype=torch.float64) * (2 * math.pi / 48)
    return torch.exp(4 * (torch.cos(angle - place.unsqueeze(-1)) - 1))


def places(n: int, name: str) -> Tensor:
    """Random places (n,) on the ring."""
    return 2 * math.pi * torch.rand(n, dtype=torch.float64, generator=seeded(5, name))


@ex.exercise(
    "What a truncation costs",
    hints=(
        "The singular values $s_i$ of the centred sample hold its variance: $\\sum_i s_i^2$ is the sum of all squared "
        "departures from the mean. Which part of it do $n$ patterns lack?",
        "`s = torch.linalg.svdvals(states - states.mean(0))`; then `s[n:]**2` against `s**2`, and the root.",
    ),
    solution="""
        def truncation(states, n):
            s2 = torch.linalg.svdvals(states - states.mean(0)) ** 2
            return (s2[n:].sum() / s2.sum()).sqrt()
    """,
    explanation="""
        EOFs are orthogonal, so the lost variance *is* the squared error: no field has to be put together. That holds
        for the sample from which they were made; for other states the error is a little larger, so take it from
        validation runs, as the notebook does. (Its errors are relative to the whole wind, with the mean.)
    """,
)
def truncation_error(truncation) -> str:
    """Relative error of a sample (M, Nx) made of its n leading EOFs."""
    states = bumps(places(80, "sample")) + 0.5
    s = torch.linalg.svdvals(states - states.mean(0))
    raw = torch.linalg.svdvals(states)
    for n in (3, 5, 1):
        value = number(call(truncation, states, n), "The error")
        share = float((s[n:] ** 2).sum() / (s**2).sum())
        for wrong, words in {
            math.sqrt(1 - share): "This is what the patterns *keep*; the error is what they lack.",
            1 - share: "This is the share of the variance that is kept. What is lost, and what is its root?",
            share: "This is a share of the variance, a square; take the root to get an error.",
            float(s[n:].sum() / s.sum()): "Variances are the *squares* of the singular values.",
            math.sqrt(s[n:].sum() / s.sum()): "Variances are the *squares* of the singular values.",
            math.sqrt(
                (raw[n:] ** 2).sum() / (raw**2).sum()
            ): "Take the mean off first; it is no departure to be explained.",
            math.sqrt((s[n + 1 :] ** 2).sum() / (s**2).sum()): f"This is the error with {n + 1} patterns for n = {n}.",
        }.items():
            require(abs(value - wrong) > 1e-6, words)
        basis = eofs(states, n)
        left = states - basis.field(basis.coefficients(states))
        measured = float(left.norm() / (states - states.mean(0)).norm())
        require(
            abs(value - measured) < 1e-6,
            f"With {n} EOFs of a test sample you get {value:.3f}, and fields made of them are off by {measured:.3f}.",
        )
    return (
        "The same as if every field had been put together. The test sample is one bump at different places, one "
        f"parameter, and a single EOF misses {measured:.0%} of it: flat spaces are bad at shifts."
    )


@ex.exercise(
    "Background errors in the latent space",
    hints=(
        "What is the error of a forecast, seen in the latent space: the difference of two codes, or the code of a "
        "difference?",
        "`e = encode(forecast) - encode(true)` has a pair in each row; `torch.cov` wants a variable in each row.",
    ),
    solution="""
        def latent_covariance(encode, forecast, true):
            e = encode(forecast) - encode(true)
            e = e - e.mean(0)
            return e.mT @ e / (len(e) - 1)
    """,
    explanation="""
        The difference of two vortex pairs is no vortex pair; the encoder has never seen such a field, and its answer
        means nothing. With EOFs both ways agree, so they forgive the mistake. In the notebook it makes
        the latent analyses from 64 points worse by about a sixth. (The notebook leaves the mean in its differences: by
        construction its forecasts have hardly any.)
    """,
)
def latent_background(latent_covariance) -> str:
    """The covariance (Nz, Nz) of the differences of codes of 12 pairs of fields."""
    place = places(12, "pairs")
    true, forecast = (
        bumps(place),
        bumps(place + 0.2 + 0.1 * torch.randn(12, dtype=torch.float64, generator=seeded(5, "errors"))),
    )
    W = torch.randn(48, 3, dtype=torch.float64, generator=seeded(5, "weights"))

    def encode(u: Tensor) -> Tensor:
        return torch.tanh(u @ W / 3 + 0.5)

    value = tensor(call(latent_covariance, encode, forecast, true), (3, 3), "The covariance")
    e, c = encode(forecast) - encode(true), encode(forecast - true)
    right = torch.cov(e.mT)
    difference = "You encode the *difference* of two winds, which is no wind of this family. Encode each"
    with_mean = "The mean error is still in it: a covariance is about the mean"
    among = "This is how forecasts differ from each other. How do they differ from the truth?"
    mistakes = {
        f"{difference}.": torch.cov(c.mT),
        f"{difference}, then take the mean off.": c.mT @ c / 11,
        f"{with_mean}.": e.mT @ e / 11,
        f"{with_mean}, with $M - 1$ below.": e.mT @ e / 12,
        "Divide by $M - 1$: the mean has been taken from the same sample.": right * 11 / 12,
        among: torch.cov(encode(forecast).mT),
    }
    unlike(value, mistakes)
    require(
        close(value, right), "For each pair the difference of the codes, then the covariance of those over the pairs."
    )
    far = float((torch.cov(c.mT) - right).norm() / right.norm())
    return (
        "The errors that latent states have. The code of the difference would have given another covariance, here "
        f"off by {far:.0%} of its size."
    )


@ex.exercise(
    "3D-Var in the latent space",
    hints=(
        "Both terms are as in the full space. Only the state is now $z$: in which space is the background, and what "
        "does the instrument look at?",
        "`d = z - z_b`, weighted with `torch.linalg.solve(B_z, d)`; and the misfit `y - H(decode(z))`.",
    ),
    solution="""
        def latent_cost(z, z_b, B_z, y, R, H, decode):
            d = z - z_b
            misfit = y - H(decode(z))
            return 0.5 * d @ torch.linalg.solve(B_z, d) + 0.5 * (misfit**2 / R).sum()
    """,
    explanation="""
        The decoder becomes a part of the observation operator, and the rest stays: the observation is never encoded,
        so any place and any kind of it will do. With a *linear* decoder $W$ this is 3D-Var in the full space with
        $B = W B_z W^T$, a covariance of low rank around a truncated background. With a curved one, the analysis moves
        along the curve.
    """,
)
def latent_3dvar(latent_cost) -> str:
    """J(z) for one latent state (Nz,), with variances R (Ny,)."""
    W, C, A, z, z_b, y = (
        torch.randn(*shape, dtype=torch.float64, generator=seeded(5, f"cost {i}"))
        for i, shape in enumerate(((3, 24), (24, 6), (3, 3), (3,), (3,), (6,)))
    )
    B_z, R = A @ A.mT + torch.eye(3, dtype=torch.float64), torch.linspace(0.5, 2.0, 6, dtype=torch.float64)

    def decode(z: Tensor) -> Tensor:
        require(z.shape[-1] == 3, f"`decode` is given {z.shape[-1]} numbers and expects a latent state, here of 3.")
        return torch.tanh(z @ W)

    def H(u: Tensor) -> Tensor:
        require(u.shape[-1] == 24, f"`H` is given {u.shape[-1]} numbers; it looks at a wind, here of 24. Decode first.")
        return u @ C

    value = number(call(latent_cost, z, z_b, B_z, y, R, H, decode), "The cost")
    d, misfit2 = z - z_b, (y - H(decode(z))) ** 2
    background, observed = float(0.5 * d @ torch.linalg.solve(B_z, d)), float(0.5 * (misfit2 / R).sum())
    for wrong, words in {
        observed: "The background term is missing.",
        background: "The observation term is missing.",
        float(0.5 * d @ B_z @ d) + observed: "The background term needs the *inverse* of $B_z$.",
        float(0.5 * d @ d)
        + observed: "The background term forgets $B_z$: latent variables have errors of different size.",
        background + float(0.5 * (misfit2 / R**2).sum()): "$R$ holds variances: divide the square by $R$ once.",
        background + float(0.5 * (misfit2 / R).mean()): "Each observation counts: a sum over them, not a mean.",
        background + float(0.5 * ((y - H(decode(z - z_b))) ** 2 / R).sum()): "Decode $z$ itself, not the departure: "
        "a network is not linear.",
        2 * (background + observed): "Both terms have a factor of one half.",
    }.items():
        require(abs(value - wrong) > 1e-6 * wrong, words)
    right = background + observed
    require(abs(value - right) < 1e-6 * right, "Compare with $J(z)$ in the text, term by term.")
    return (
        "Nothing but composition: with $H$ after the decoder, any method of the course works on $z$. Here the "
        "minimisation has 3 unknowns in the place of 24; in the notebook it has 16 in the place of 2048."
    )


@ex.exercise(
    "Twenty times the noise",
    hints=(
        "Look up in section 4 how large the error of *network after decoder* is by itself, beside 0.1 % and 2 %.",
        "Noise is new at each of the 1024 points, and 16 numbers are fitted to all of them. Is the error of the "
        "operator new at each point, too?",
    ),
    solution='why = "B"',
    explanation="""
        Errors that are independent at 1024 points hardly touch a fit of 16 numbers: even 10 % of noise would change
        little. The error of the operator, about 2.3 %, is alike at neighbouring points and does not average out. With
        a perfect operator the same analysis reaches the ceiling of the autoencoder at both noises. The regression's row
        does not change either, for the same reason. To pay for a better instrument would be a waste here.
    """,
)
def twenty_times_the_noise(why) -> str:
    """Why the latent analysis of depths seen everywhere does not feel the noise."""
    return choose(
        why,
        "B",
        {
            "A": "The autoencoder never meets the observations: they stay as they are, and are compared with what the "
            "operator makes of the decoded state.",
            "B": "The operator is off by about 2.3 %, alike at neighbouring points: that does not average out. "
            "Noise does, over 1024 points, be it 0.1 % or 2 %.",
            "C": "The error falls from about 0.14 to 0.02, so the analysis listens very well.",
            "D": "The ceiling is about 0.010, and the error is twice as large: something else holds it up.",
        },
    )


@ex.exercise(
    "Errors add in squares",
    hints=(
        "Orthogonal errors are the two short sides of a right triangle, and the error of the analysis is the long one.",
        "$0.020^2 = 0.010^2 + a^2$; the share is $0.010^2 / 0.020^2$.",
    ),
    solution="""
        without_autoencoder = (0.020**2 - 0.010**2) ** 0.5
        share = 0.010**2 / 0.020**2
    """,
    explanation="""
        An autoencoder with half of the error of the analysis makes a quarter of its square, and to perfect it would
        only gain about an eighth. The largest part deserves the next hour of work, far more than its size suggests.
        The rule needs orthogonal parts: here the encoder finds nearly the best that the decoder can show, and what is
        lacking points away from where that can move.
    """,
)
def errors_add(without_autoencoder, share) -> str:
    """What is left of 0.020 when an orthogonal part of 0.010 goes."""
    left, share = number(without_autoencoder, "without_autoencoder"), number(share, "share")
    right = math.sqrt(0.02**2 - 0.01**2)
    for wrong, words in {
        0.01: "orthogonal errors do not subtract like lengths on a line; their squares do.",
        math.sqrt(0.02**2 + 0.01**2): "the part goes away, so the rest is smaller than 0.020.",
        right**2: "this is a square; take the root.",
    }.items():
        require(abs(left - wrong) > 1e-4, f"`without_autoencoder`: {words}")
    require(abs(left - right) < 2e-4, "`without_autoencoder`: which side of a right triangle is it?")
    require(abs(share - 0.5) > 0.01, "`share`: half of the error, but of the *squared* error?")
    require(abs(share - 0.75) > 0.01, "`share`: this is the share of all the rest.")
    require(abs(share - 0.25) < 0.01, "`share`: the square of the one over the square of the other.")
    return (
        f"A perfect autoencoder would bring the error from 0.020 to {right:.4f}, a perfect rest to "
        "0.010, though the two seem to matter alike."
    )


@ex.exercise(
    "What the decoder cannot show",
    hints=(
        "Without observations, $z_a = z_b$. What should the analysis be then, and what is `decode(z_b)`?",
        "The decoder may give the *increment*: `decode(z_a) - decode(encode(u_b))`.",
    ),
    solution="""
        def added_back(u_b, z_a, encode, decode):
            return u_b + decode(z_a) - decode(encode(u_b))
    """,
    explanation="""
        The background has details that no $z$ can hold, and they are not all wrong. An increment keeps them. In the
        notebook the latent analyses become better by about a tenth, at no cost, and the ceiling falls from about 0.010
        to 0.005: try `error(winds[title, name] + wind(x_b) - decode(encode(wind(x_b))))`. It helps where the lost
        details of forecast and truth are alike. In a cycle the background must be kept in the full space for it.
    """,
)
def keep_the_details(added_back) -> str:
    """A wind from the latent analysis that keeps what the decoder cannot show of the background."""
    basis = eofs(bumps(places(200, "sample")), 4)
    place = places(40, "cases")
    u_t, u_b = bumps(place), bumps(place + 0.1)

    def encode(u: Tensor) -> Tensor:
        return torch.asinh(basis.coefficients(u))

    def decode(z: Tensor) -> Tensor:
        return basis.field(torch.sinh(z))

    z_a, z_b = encode(u_t), encode(u_b)
    value = tensor(call(added_back, u_b, z_a, encode, decode), tuple(u_b.shape), "The analysis")
    right, increment = u_b + decode(z_a) - decode(z_b), decode(z_a) - decode(z_b)
    lost = float((decode(z_b) - u_b).norm() / u_b.norm())
    mistakes = {
        f"This is the decoded analysis. Without observations it changes the background by {lost:.0%}.": decode(z_a),
        "This adds a whole field to a whole field; add what the analysis has *changed*.": u_b + decode(z_a),
        "A decoder is not linear, `decode(z_a - z_b)` is no increment: decode both, subtract.": u_b + decode(z_a - z_b),
        "The increment has the wrong sign: it leads from the background to the analysis.": u_b - increment,
        "The background has the wrong sign.": 2 * decode(z_a) - u_b,
    }
    unlike(value, mistakes)
    require(close(value, right), "Add the decoded change, from the code of the background to $z_a$, to the background.")
    errors = [float((u - u_t).norm() / u_t.norm()) for u in (u_b, decode(z_a), right)]
    return (
        "Without observations nothing changes now. For bumps with a latent space of 4 numbers and a perfect $z_a$, the "
        f"errors are: background {errors[0]:.3f}, decoded {errors[1]:.3f}, added back {errors[2]:.3f}."
    )
