"""Exercises of notebook 4: a learnt operator and its R, methods with and without derivatives, Q, particles, 4D-Var."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from ..config import seeded
from ..covariances import Dense
from ..filters import etkf_update
from ..observations import Observation
from ..particles import bayes_update, effective_size
from ..variational import var3d_update
from .exercise import Exercises, call, choose, close, number, require, tensor, two, unlike

ex = Exercises("4_neural_operators")


def instrument(state: Tensor) -> Tensor:
    """The three channels of the notebook."""
    x, y, z = state.unbind(-1)
    return torch.stack((8 * torch.tanh(x / 8), y * z / 30, z - x * y / 20), -1)


@ex.exercise(
    "Errors that come back",
    hints=(
        "Write a reading as $H(x) + 2 + \\varepsilon_i$ and take the mean of 16. Which parts become smaller?",
        "The error of the mean has a variance of $2^2 + 1/16$. The filter takes 16 readings for independent, "
        "each with an error variance $R$, and divides $R$ by 16.",
    ),
    solution="""
        actual = (2.0**2 + 1.0 / 16) ** 0.5
        believed = (5.0 / 16) ** 0.5
    """,
    explanation="""
        An $R$ from validation counts the operator's error with the right size, but a filter takes whatever is in $R$
        for noise: new at each time, gone in the mean. The error of an operator depends on the state, and a state that
        stays, or returns, brings it back. So an $R$ that is right for one reading makes a filter too sure after many.
        A better operator cures that; fewer observations, or an $R$ larger than the misfit says, only help.
    """,
)
def errors_that_come_back(actual, believed) -> str:
    """RMS error of the mean of 16 readings, and what R promises."""
    actual, believed = number(actual, "actual"), number(believed, "believed")
    right, told = math.sqrt(4 + 1 / 16), math.sqrt(5 / 16)
    for wrong, words in {
        told: "this treats the operator's error as noise. It is the same in all 16 readings.",
        0.25: "this is the noise alone; the operator is wrong by 2 besides.",
        math.sqrt(5): "this is the error of one reading. The noise is less in a mean of 16.",
        2.25: "independent errors add in variance, not in standard deviation.",
        right**2: "this is a variance; take the root.",
        2.0: "nearly. A sixteenth of the noise's variance is left beside the 2.",
    }.items():
        require(abs(actual - wrong) > 0.006, f"`actual`: {words}")
    require(abs(actual - right) < 0.006, "`actual`: which part of the error is the same in every reading?")
    for wrong, words in {
        told**2: "this is a variance; take the root.",
        math.sqrt(5): "this is what $R$ says of one reading, not of the mean of 16.",
        0.25: "the filter is told $R = 5$, not the variance 1 of the noise alone.",
        right: "what the filter believes is another number than what is true.",
    }.items():
        require(abs(believed - wrong) > 0.006, f"`believed`: {words}")
    require(abs(believed - told) < 0.006, "`believed`: of 16 independent errors of variance $R$, what has the mean?")
    readings = 2 + torch.randn(2000, 16, dtype=torch.float64, generator=seeded(4, "exercise"))
    measured = float(readings.mean(1).square().mean().sqrt())
    return (
        f"2000 such means, drawn just now, have an RMS error of {measured:.2f}; the filter believes in {told:.2f}. "
        "Noise fades in a mean, and the error of an operator does not."
    )


@ex.exercise(
    "A black box for H",
    hints=(
        "Which methods need to know how $H(x)$ changes when $x$ changes a little? Which only compare the observed "
        "members $H(x_i)$ with $y$ and with each other?",
        "`etkf_update(E, HE, y, R)` takes numbers that $H$ has given, and never sees $H$ itself. The cost of 3D-Var "
        "is minimised with the derivative of $H$.",
    ),
    solution='who = "C"',
    explanation="""
        Ensemble methods replace the derivative of $H$ by the covariance between members and *observed* members. So for
        them a learnt $H$ is as easy as any: a function to call. A method that differentiates needs an $H$ made of
        differentiable operations (the hybrid ETKF-3D-Var too). This is one more reason for a network: it imitates a
        program that has no derivative, and brings one. Take care with whatever cuts PyTorch's graph, like `.detach()`
        or a detour through NumPy. The package refuses such an $H$ where it needs the derivative; in code of your own
        nothing may complain, and the gradient is just zero.
    """,
)
def black_box(who) -> str:
    """Which methods can use an H without a derivative; the claim is measured."""
    right = choose(
        who,
        "C",
        {
            "A": "All of them call $H$, but some need its derivative too, and a program that PyTorch cannot look into "
            "has none to give.",
            "B": "These are the very ones that need the derivative: the EKF for its gain, the variational methods to "
            "find their minimum.",
            "C": "They use $H$ as a function that turns states into observations, and nothing else.",
            "D": "A derivative is not needed by all: what does `etkf_update(E, HE, y, R)` know about $H$?",
        },
    )
    x_b = torch.tensor([2.0, 3.0, 20.0], dtype=torch.float64)
    E = x_b + torch.randn(20, 3, dtype=torch.float64, generator=seeded(4, "exercise"))
    y, R, B = instrument(x_b + 1), torch.ones(3, dtype=torch.float64), Dense(torch.eye(3, dtype=torch.float64))

    def box(state: Tensor) -> Tensor:
        return instrument(state.detach())

    with_formula, with_box = (float((etkf_update(E, H(E), y, R)[0] - E).mean(0).norm()) for H in (instrument, box))
    try:
        var3d_update(x_b, B, Observation(y, box, R))
    except ValueError as refusal:
        return (
            f"{right} Tried just now: the mean's increment of the ETKF is {with_formula:.2f} with the formula and "
            f"{with_box:.2f} with the box. 3D-Var refuses the box: {refusal}"
        )
    raise RuntimeError("3D-Var accepted an operator without a derivative")


@ex.exercise(
    "An analysis through a channel that saturates",
    hints=(
        "There is one unknown. To try ten thousand values of $x$ and take the best is a fair method here.",
        "`x = x_b + B**0.5 * torch.linspace(-6, 6, 20001)`, then the cost for all of them, then `x[J.argmin()]`.",
    ),
    solution="""
        def best_x(x_b, B, y, R):
            x = x_b + B**0.5 * torch.linspace(-6, 6, 20001, dtype=torch.float64)
            J = (x - x_b) ** 2 / (2 * B) + (y - 8 * torch.tanh(x / 8)) ** 2 / (2 * R)
            return float(x[J.argmin()])
    """,
    explanation="""
        The Kalman formula with the tangent at the background is one step of a minimisation. Where $H$ bends, one step
        is not enough: on the flat end of the tanh the tangent promises little change, so the step may be too short, or
        much too long where the observation is trusted. 3D-Var goes on until the gradient of the cost is zero; 4D-Var
        and the IEnKS iterate, too. The EKF takes this one step.
    """,
)
def saturated_channel(best_x) -> str:
    """The minimum of 3D-Var for one number and H(x) = 8 tanh(x / 8)."""
    furthest = 0.0
    for x_b, B, y, R in ((12.0, 9.0, 5.0, 1.0), (-10.0, 16.0, -3.0, 0.25), (4.0, 4.0, 6.0, 1.0)):
        value = number(call(best_x, x_b, B, y, R), "The analysis")
        x = x_b + B**0.5 * torch.linspace(-6, 6, 60001, dtype=torch.float64)
        right, swapped, unweighted = (
            float(x[((x - x_b) ** 2 / b + (y - 8 * torch.tanh(x / 8)) ** 2 / r).argmin()])
            for b, r in ((B, R), (R, B), (1.0, 1.0))
        )
        slope = 1 - math.tanh(x_b / 8) ** 2
        one_step = x_b + B * slope / (slope**2 * B + R) * (y - 8 * math.tanh(x_b / 8))
        where = f"For `best_x({x_b:g}, {B:g}, {y:g}, {R:g})` you"
        for wrong, words in {
            x_b
            + B / (B + R) * (y - x_b): "take the weighted mean, as if the channel saw $x$. It sees $8 \\tanh(x/8)$.",
            one_step: "take one step with the tangent at the background, as the EKF does. Go on from there, or search.",
            8 * math.atanh(y / 8): "invert the observation and forget the background.",
            swapped: "give $B$ the place of $R$.",
            unweighted: "count both terms alike: divide each by its variance.",
        }.items():
            require(abs(value - wrong) > 0.003 or abs(right - wrong) < 0.03, f"{where} {words}")
        require(abs(value - right) < 0.03, f"{where} get {value:.2f}. Draw $J(x)$: a lower cost is elsewhere.")
        furthest = max(furthest, abs(one_step - right) / B**0.5)
    return (
        "The minimum of the cost, in three cases. One step with the tangent at the background, which is what the EKF "
        f"takes, would have missed it by up to {furthest:.1f} standard deviations of the background."
    )


@ex.exercise(
    "A filter that stops listening",
    hints=(
        "Two lines in a loop: $K = P / (P + R)$, then $P \\leftarrow (1 - K) P + q^2$. Start with $P = 1$.",
        "Without model error the gains are 1/2, 1/3, … With it, run a thousand times; 0.16 is a standard deviation.",
    ),
    solution="""
        def gains(q, n=1000):
            P, K = 1.0, []
            for _ in range(n):
                K.append(P / (P + 1.0))
                P = (1 - K[-1]) * P + q**2
            return K

        deaf_after = 1 + [K < 0.03 for K in gains(0.0)].index(True)
        settled_gain = gains(0.16)[-1]
    """,
    explanation="""
        Here a filter that believes its model perfect ends as the plain mean of all observations of the past, and deaf.
        That is right for a perfect model; for any other, the error grows and the filter does not hear of it. With $Q$
        the past is forgotten at the right pace. In Lorenz-63 the direction in which errors grow keeps it awake; in
        the others it may fall asleep. 3D-Var has a fixed $B$ and always listens, so it hardly noticed the network. The
        most certain methods, particles and IEnKS, did.
    """,
)
def stops_listening(deaf_after, settled_gain) -> str:
    """Gains of a scalar Kalman filter without and with model error."""
    deaf_after, settled_gain = number(deaf_after, "deaf_after"), number(settled_gain, "settled_gain")
    first = next(k for k in itertools.count(1) if 1 / (k + 1) < 0.03)
    require(
        deaf_after not in (first - 1, first + 1),
        "`deaf_after`: off by one. The first observation has number 1 and the gain 1/2.",
    )
    require(deaf_after == first, "`deaf_after`: with $q = 0$ the gains are 1/2, 1/3, … Which is below 0.03?")
    require(
        settled_gain > 0.002,
        "`settled_gain`: this gain dies out. After each analysis, add $q^2$ to $P$.",
    )
    P, P_std = ((Q + math.sqrt(Q * Q + 4 * Q)) / 2 for Q in (0.16**2, 0.16))  # the forecast's, P = (1 - K) P + Q
    gain = P / (P + 1)
    for wrong, words in {
        P_std / (P_std + 1): "0.16 is a standard deviation; square it before you add it to $P$.",
        P: "this is the variance $P$ of the forecast; the gain is $P / (P + R)$.",
        (P - 0.16**2)
        / (P - 0.16**2 + 1): "the gain is made of the variance of the *forecast*, with the model error in it.",
    }.items():
        require(abs(settled_gain - wrong) > 0.002, f"`settled_gain`: {words}")
    require(abs(settled_gain - gain) < 0.002, "`settled_gain`: run both lines with $q = 0.16$ until nothing changes.")
    return (
        f"Without Q each new observation has less of a say, number {first} already less than 3 %. A "
        f"model error of 0.16, small beside the noise of 1, keeps the gain at {gain:.0%} forever."
    )


@ex.exercise(
    "Weights that do not underflow",
    hints=(
        "The log-likelihood of a member is $-\\frac12 \\sum_j (y_j - H(x)_j)^2 / R_j$. Weights are its exponentials, "
        "divided by their sum. What is `exp(-2000)` on a computer?",
        "A constant added to all log-likelihoods cancels. `torch.softmax` subtracts the largest one by itself; the "
        "effective size is $1 / \\sum_i w_i^2$.",
    ),
    solution="""
        def weigh(HE, y, R):
            log_likelihood = -0.5 * ((y - HE) ** 2 / R).sum(-1)
            w = torch.softmax(log_likelihood, -1)
            return w, 1 / (w**2).sum()
    """,
    explanation="""
        All members far from an observation: at this very moment a filter must not fail. In logarithms nothing
        underflows. The effective size then falls to nearly one: a single member is left to speak. Note what it cannot
        say: a thousand copies of one state have equal weights, and an effective size of a thousand.
    """,
)
def particle_weights(weigh) -> str:
    """Normalised weights (Ne,) and the effective size, from HE (Ne, Ny), y (Ny,), R (Ny,)."""
    HE = 2 * torch.randn(200, 3, dtype=torch.float64, generator=seeded(4, "exercise"))
    y, R = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64), torch.tensor([1.0, 4.0, 0.5], dtype=torch.float64)
    value = two(call(weigh, HE, y, R), "the weights and the effective size")
    w = tensor(value[0], (200,), "The weights")
    require((w > 0).all(), "Weights are positive. Are these still the logarithms?")
    require(abs(w.sum() - 1) < 1e-6, f"The weights sum to {float(w.sum()):.3g}; they are probabilities.")
    misfit2 = (y - HE) ** 2
    mistakes = {
        "$R$ holds variances: divide the square by $R$ once.": torch.softmax(-0.5 * (misfit2 / R**2).sum(-1), -1),
        "The one half of the Gaussian's exponent is missing.": torch.softmax(-(misfit2 / R).sum(-1), -1),
    }
    unlike(w, mistakes)
    prior = torch.full((200,), -math.log(200), dtype=torch.float64)
    log_w = bayes_update(prior, HE, y, R)[0]
    require(
        close(w, log_w.exp()),
        "Compare with $w_i \\propto \\exp(-\\frac12 \\sum_j (y_j - H(x_i)_j)^2 / R_j)$, summed over channels.",
    )
    size = number(value[1], "The effective size")
    require(
        abs(size * w.max() - 1) > 1e-6, "This is one over the *largest* weight; take one over the sum of the squares."
    )
    require(
        abs(size - effective_size(log_w)) < 1e-4 * size,
        "The effective size is $1 / \\sum_i w_i^2$, with normalised weights.",
    )
    w = torch.as_tensor(call(weigh, HE, y + 80, R)[0])
    require(
        w.isfinite().all() and abs(w.sum() - 1) < 1e-6,
        "All is well near the observation. Far from all members, each likelihood is below the smallest number of the "
        "computer, and so is their sum. Subtract the largest log-likelihood before you take exponentials.",
    )
    far = effective_size(bayes_update(prior, HE, y + 80, R)[0])
    return (
        f"The same as the package's, also where every likelihood underflows. Of 200 members {size:.0f} share the "
        f"weight near the observation, and {float(far):.1f} far from it."
    )


BUGS = {
    "cut": "the chain of derivatives through the model is cut, so later observations do not speak to the start",
    "mean": "the misfits are averaged over the channels, and the cost has their sum",
    "free": "nothing holds the start to its background",
}


def window_cost(x_0: Tensor, x_b: Tensor, B: Tensor, step, H, ys, R: Tensor, bugs: tuple[str, ...] = ()) -> Tensor:
    """The cost of 4D-Var, with bugs by name."""
    d = x_0 - x_b
    J = torch.zeros((), dtype=x_0.dtype) if "free" in bugs else 0.5 * d @ torch.linalg.solve(B, d)
    x = x_0
    for y in ys:
        misfit2 = (y - H(x)) ** 2 / R
        J = J + 0.5 * (misfit2.mean() if "mean" in bugs else misfit2.sum())
        x = step(x.detach() if "cut" in bugs else x)
    return J


@ex.exercise(
    "Three bugs in a gradient",
    hints=(
        "Compare the code with the cost, term by term. Then ask of each line: does the gradient get through it?",
        "`.detach()` stops every derivative; `.mean()` divides by the number of channels; and where is $B$?",
    ),
    solution="""
        def gradient(x_0, x_b, B, step, H, ys, R):
            x_0 = x_0.clone().requires_grad_()
            J = 0.5 * (x_0 - x_b) @ torch.linalg.solve(B, x_0 - x_b)
            x = x_0
            for y in ys:
                J = J + 0.5 * ((y - H(x)) ** 2 / R).sum()
                x = step(x)
            return torch.autograd.grad(J, x_0)[0]
    """,
    explanation="""
        What used to be years of work, the adjoint of a model, is one call where the model is made of differentiable
        operations, as a network is. The price is that nothing warns you: with `.detach()` the code runs and returns a
        vector of the right shape, the gradient of something else. So test a gradient once with finite differences:
        $(J(x_0 + h e) - J(x_0 - h e)) / 2h$ against $e \\cdot \\nabla J$.
    """,
)
def window_gradient(gradient) -> str:
    """The gradient of the cost of 4D-Var at x_0, through a network as the model."""
    draw = seeded(4, "exercise")
    W, V, A, x_0, x_b, ys = (
        torch.randn(*shape, dtype=torch.float64, generator=draw)
        for shape in ((3, 8), (8, 3), (3, 3), (3,), (3,), (4, 3))
    )
    B, R = A @ A.mT + torch.eye(3, dtype=torch.float64), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)

    def step(x: Tensor) -> Tensor:  # a small network
        return x + torch.tanh(x @ W / 3) @ V / 3

    g = tensor(call(gradient, x_0, x_b, B, step, instrument, ys, R), (3,), "The gradient")

    def derivative(*bugs: str) -> Tensor:
        with torch.enable_grad():
            x = x_0.clone().requires_grad_()
            return torch.autograd.grad(window_cost(x, x_b, B, step, instrument, ys, R, bugs), x)[0]

    right = derivative()
    for n in (3, 2, 1):
        for bugs in itertools.combinations(BUGS, n):
            found = f"{3 - n} of 3 bugs found. " if n < 3 else ""
            require(not close(g, derivative(*bugs)), f"{found}Still there: {'; '.join(BUGS[b] for b in bugs)}.")
    d = x_0 - x_b
    mistakes = {
        "The sign: the gradient points uphill.": -right,
        "Twice the gradient: each term of the cost has a factor of one half.": 2 * right,
        "The background term needs the *inverse* of $B$.": right - torch.linalg.solve(B, d) + B @ d,
    }
    unlike(g, mistakes)
    require(
        close(g, right),
        "Write down the cost term by term, with sums and $B^{-1}$; then differentiate.",
    )
    e = torch.tensor([1e-5, 0.0, 0.0], dtype=torch.float64)
    up, down = (window_cost(x_0 + sign * e, x_b, B, step, instrument, ys, R) for sign in (1, -1))
    return (
        "The gradient of the whole window in one backward sweep: its first component is "
        f"{float(g[0]):.6f}, and finite differences give {float((up - down) / 2e-5):.6f}."
    )
