"""Exercises of notebook 0: the joint cost of states and parameters, its terms, its two steps, and the models."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from ..config import seeded
from ..models import CubicLorenz96
from .exercise import Exercises, call, choose, close, number, require, tensor, two

ex = Exercises("0_intro")


def near(a: float, b: float) -> bool:
    """Equal up to rounding, in single precision too."""
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5)


@ex.exercise(
    "Two guesses, one number",
    hints=(
        "Set the derivative of $J$ to zero: each guess pulls with its distance divided by its variance.",
        "The minimum is a weighted mean; the weights are $1/B$ and $1/R$, divided by their sum.",
    ),
    solution="""
        def best(x_b, B, y, R):
            return (x_b / B + y / R) / (1 / B + 1 / R)
    """,
    explanation="""
        $J' = (x - x_b) / B + (x - y) / R = 0$ gives a mean with the *inverse variances* as weights. Written
        $x_b + K\\,(y - x_b)$ with $K = B / (B + R)$, it is the Kalman filter in one dimension.
    """,
)
def best_of_two(best) -> str:
    """The minimiser of a scalar background and observation cost."""
    for x_b, B, y, R in ((2.0, 4.0, 5.0, 1.0), (-1.0, 0.25, 3.0, 9.0)):
        value = number(call(best, x_b, B, y, R), "The minimiser")
        for weight_b, weight_y, message in (
            (1.0, 1.0, "This is the plain mean: it forgets that one of the two guesses is better."),
            (B, R, "The weights stand on the wrong sides: a guess with a *large* variance deserves a small weight."),
            (B**-0.5, R**-0.5, "$B$ and $R$ are variances already: the weights are $1/B$ and $1/R$, without a root."),
            (B**-2, R**-2, "$B$ and $R$ are variances already: the weights are $1/B$ and $1/R$, without a square."),
        ):
            require(not near(value, (weight_b * x_b + weight_y * y) / (weight_b + weight_y)), message)
        require(not near(value, x_b / B + y / R), "Divide by the sum of the weights: a mean of 1 and 1 is 1.")
        slope = (value - x_b) / B + (value - y) / R
        require(abs(slope) < 1e-6, f"At your minimum $J$ still has the slope {slope:.2g}: set the derivative to zero.")
    return "The better guess pulls harder, in the ratio of the inverse variances. A filter does this at every time."


@ex.exercise(
    "A model that knows nothing",
    hints=(
        "What does the weight $Q^{-1}$ become? Which of the three terms is left for the times $k \\ge 1$?",
        "Without $J_q$ nothing ties one time to the next. Which states does $J_o$ see, and which does it not?",
    ),
    solution='no_model = "C"',
    explanation="""
        $Q^{-1} \\to 0$: the model-error term vanishes and with it all that connects the times. $J_o$ pins what is
        observed, $J_b$ the start; the gaps at later times cost nothing, whatever stands in them.
    """,
)
def useless_model(no_model) -> str:
    """What minimises the cost of a trajectory for Q to infinity."""
    return choose(
        no_model,
        "C",
        {
            "A": "that is the other limit, $Q \\to 0$, with a background that is trusted: the model is never wrong.",
            "B": "$J_b$ contains $x_0$ only. What could pull the states of later times towards $x_b$?",
            "C": "The model carries information into the gaps, and $Q$ says how far to trust it.",
            "D": "the term becomes zero, not infinite: its weight is the *inverse* of $Q$.",
        },
    )


class Problem(NamedTuple):
    """A small joint problem; B, Q and R are variances."""

    y: Tensor  # (K + 1, Ny)
    x_b: Tensor  # (Nx,)
    M: Callable[[Tensor, Tensor], Tensor]
    H: Callable[[int, Tensor], Tensor]
    L: Callable[[Tensor], Tensor]
    B: float = 0.7
    Q: float = 0.3
    R: float = 0.05


DOUBLE = torch.float64
BY_HAND = Problem(  # the example in the text: the four terms are 1, 0.1, 2.25 and 0.25
    torch.zeros(2, 2, dtype=DOUBLE), torch.zeros(2, dtype=DOUBLE),
    lambda theta, x: theta * x, lambda k, x: x, lambda theta: theta**2, B=1.0, Q=1.0, R=50.0,
)  # fmt: skip


def small_problem() -> tuple[Problem, list[tuple[Tensor, Tensor]]]:
    """A problem and two places (theta, x) at which to compare costs; its functions take arrays too."""
    generator = seeded(0, "joint cost")

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=DOUBLE, generator=generator)

    problem = Problem(
        y=draw(5, 3),
        x_b=draw(6),
        M=lambda theta, x: float(theta[0]) * x[..., [-1, 0, 1, 2, 3, 4]] + float(theta[1]) * x**2,
        H=lambda k, x: x[..., k % 2 :: 2],
        L=lambda theta: 0.1 * (theta**2).sum(),
    )
    return problem, [(draw(2), draw(5, 6)) for _ in range(2)]


def minus_log_densities(p: Problem, theta: Tensor, x: Tensor) -> Tensor:
    """Background, observation, model error, penalty; then variants of the second (two) and the third: (7,)."""

    def surprise(error: Tensor, variance: float) -> Tensor:
        return -Normal(0.0, variance**0.5).log_prob(error).sum()

    seen = [surprise(y - p.H(k, x[k]), p.R) for k, y in enumerate(p.y)]
    too_early = [surprise(y - p.H(k, x[k - 1]), p.R) for k, y in enumerate(p.y)]  # x[-1] for the first
    steps = surprise(x[1:] - p.M(theta, x[:-1]), p.Q)
    parts = (surprise(x[0] - p.x_b, p.B), sum(seen), steps, p.L(theta))
    closed = surprise(x - p.M(theta, x.roll(1, 0)), p.Q)
    return torch.stack([*parts, sum(too_early), sum(seen[1:]), closed])


@ex.exercise(
    "The joint cost, in code",
    hints=(
        "Write the four terms in four lines and add them. `x[1:]` and `x[:-1]` are the states at $k$ and at $k-1$.",
        "The background term is `0.5 * ((x[0] - x_b) ** 2).sum() / B`; the two others follow its pattern.",
    ),
    solution="""
        def cost(theta, x, y, x_b, M, H, L, B, Q, R):
            background = 0.5 * ((x[0] - x_b) ** 2).sum() / B
            observed = sum(0.5 * ((y[k] - H(k, x[k])) ** 2).sum() / R for k in range(len(x)))
            model_error = 0.5 * ((x[1:] - M(theta, x[:-1])) ** 2).sum() / Q
            return background + observed + model_error + L(theta)
    """,
    explanation="""
        Every term is minus the logarithm of a density, so all have a plus sign, and each square is divided by the
        variance of its own error: $B$ of the first guess, $R$ of the instruments, $Q$ of a step of the model.
    """,
)
def joint_cost(cost) -> str:
    """J(theta, x), compared with the logarithms of Gaussian densities; a constant does not matter."""
    problem, places = small_problem()
    told = [number(call(cost, theta, x, *problem), "The cost") for theta, x in places]
    value = told[0] - told[1]
    b, o, q, penalty, early, later, closed = (
        minus_log_densities(problem, *places[0]) - minus_log_densities(problem, *places[1])
    ).tolist()
    right = b + o + q + penalty
    B, Q, R = problem[-3:]
    named = {"background term": b, "observation term": o, "model-error term": q, "penalty": penalty}
    for name, term in named.items():
        require(not near(value, right - term), f"The {name} is missing.")
        require(not near(value, right - 2 * term), f"The {name} has a minus sign: it would reward a large error.")
    for wrong, message in (
        (right - o - q + o * R / Q + q * Q / R, "$Q$ and $R$ are swapped: $R$ is for what is read off an instrument."),
        (right - o + early, "The observation of time $k$ sees the state of the *same* time: `H(k, x[k])`."),
        (right - o + later, "The first observations are missing: the sum of $J_o$ begins at $k = 0$."),
        (right - q + closed, "At $k = 0$, `x[k - 1]` (or `roll`) is the *last* state: $J_q$ starts at $k = 1$."),
        (2 * (b + o + q) + penalty, "The factors ½ are missing; beside the penalty they matter."),
        (b * B**0.5 + o * R**0.5 + q * Q**0.5 + penalty, "$B$, $Q$ and $R$ are variances: no root."),
        (b / B + o / R + q / Q + penalty, "$B$, $Q$ and $R$ are variances: divide by them once, no squares."),
        (b * B**2 + o * R**2 + q * Q**2 + penalty, "Divide by the variances: a small error gives a *large* weight."),
    ):
        require(not near(value, wrong), message)
    x = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=DOUBLE)
    by_hand = number(call(cost, 0.5, x, *BY_HAND), "The cost of the example")
    told = f"On the example of the text it is {by_hand:.4g}, not 1 + 0.1 + 2.25 + 0.25 = 3.6. Which term differs?"
    require(near(by_hand, 3.6), told)
    require(
        near(value, right), "Right on the example of the text, wrong for more times and parameters, or another $H$."
    )
    return "It differs from minus the logarithm of the Gaussian densities by a constant only, which moves no minimum."


@ex.exercise(
    "One round: first the state, then the parameter",
    hints=(
        "Each step is the minimum of a parabola: $\\partial J / \\partial x = 0$, then "
        "$\\partial J / \\partial \\theta = 0$.",
        "The DA step is a weighted mean of $y$ and $\\theta a$, with weights $1/R$ and $1/Q$. "
        "The ML step takes this $x$, not $y$: $\\theta\\,(a^2/Q + 1/P) = a\\,x / Q$.",
    ),
    solution="""
        def one_round(theta, y, a, R, Q, P):
            x = (y / R + theta * a / Q) / (1 / R + 1 / Q)
            theta = (a * x / Q) / (a**2 / Q + 1 / P)
            return x, theta
    """,
    explanation="""
        The DA step mixes the observation with the forecast of the model as it is; the ML step fits the model to the
        analysis, with the penalty as a brake. Each goes down in its own direction, so $J$ cannot grow.
    """,
)
def alternating_steps(one_round) -> str:
    """One round of coordinate descent for a scalar state and parameter."""
    theta, y, a, R, Q, P = 0.2, 3.0, 2.0, 0.5, 1.5, 4.0
    x, new = two(call(one_round, theta, y, a, R, Q, P), "`x` and `theta`")
    x, new = number(x, "x"), number(new, "theta")

    def mean(u: float, v: float) -> float:
        return (y * u + theta * a * v) / (u + v)

    require(not near(x, y), "Your DA step takes the observation as it is: the model-error term pulls on $x$ too.")
    require(not near(x, mean(Q**-1, R**-1)), "In the DA step the weights are swapped: $y$ has the weight $1/R$.")
    require(
        near(x, mean(R**-1, Q**-1)),
        "First the DA step, with the *old* $\\theta$: is $\\partial J / \\partial x = 0$? Return `x, theta`.",
    )
    require(not near(new, x / a), "The penalty is missing in your ML step.")
    brake = a**2 / Q + 1 / P
    require(
        not near(new, a * y / Q / brake), "Your ML step fits $y$: it is the *analysis* $x$ that the model has to hit."
    )
    require(
        not near(new, a * x / R / (a**2 / R + 1 / P)), "$R$ plays no part in the ML step: $y$ and $x$ are both fixed."
    )
    require(near(new, a * x / Q / brake), "In the ML step, is $\\partial J / \\partial \\theta = 0$ at the new $x$?")
    costs = []
    for _ in range(60):
        x, theta = one_round(theta, y, a, R, Q, P)
        costs.append(0.5 * ((y - x) ** 2 / R + (x - theta * a) ** 2 / Q + theta**2 / P))
    lowest = 0.5 * y**2 / (R + Q + a**2 * P)
    falling = all(b <= a * (1 + 1e-9) for a, b in pairwise(costs))
    require(falling and costs[-1] < 1.01 * lowest, "One round is right, but 60 of them do not lead to the minimum.")
    rounds = 1 + next(n for n, c in enumerate(costs) if c < 1.01 * lowest)
    return f"After {rounds} rounds $J$ is within 1 % of its minimum over both unknowns, and it never grew on the way."


@ex.exercise(
    "What is left when the penalty wins",
    hints=(
        "All weights go to zero, and so does what the network adds. Look at the two formulas of $M_\\theta$.",
        "Put $\\mathrm{NN}_\\theta(x) = 0$ into both. Which of the two still makes a forecast?",
    ),
    solution='penalised = "D"',
    explanation="""
        A penalty is a prior: it says what to believe without data. Shrinking a hybrid leads back to the physics;
        shrinking a whole model leads to no model. So a hybrid fails more gently when the data are few.
    """,
)
def strong_penalty(penalised) -> str:
    """The limit of a strong weight decay, whole model and hybrid."""
    return choose(
        penalised,
        "D",
        {
            "A": "where would a whole model have $\\Phi$ from? It does not contain it.",
            "B": "that would be $x_k = x_{k-1}$. Neither formula contains the old state as it is (many models add "
            "it, for this very reason).",
            "C": "the mean would need a weight too: a constant. All of them are shrunk to zero.",
            "D": "The hybrid falls back on the physical model, the whole model on zero.",
        },
    )


@ex.exercise(
    "A cubic term that keeps the energy",
    hints=(
        "Of the two products in the braces, one telescopes around the ring.",
        "The second product alone is enough: $x_n$ times it is $f_{n+1} - f_n$ for some $f$, and around a ring that "
        "sums to zero.",
    ),
    solution="""
        def keeping(x):
            m2, m1, p1, p2 = (x.roll(shift, -1) for shift in (2, 1, -1, -2))
            return -m1 * p1 * (p2 - m2)
    """,
    explanation="""
        $x_{n-1} x_n x_{n+1} x_{n+2}$ and $x_{n-2} x_{n-1} x_n x_{n+1}$ are the same numbers, shifted by one place, so
        their sums cancel. Many other terms do as well; the one of the true model does not.
    """,
)
def energy_keeping_term(keeping) -> str:
    """Any cubic term, the same at every point, that conserves the energy of every state."""
    x = CubicLorenz96().random_state((20,), generator=seeded(0, "energy of an answer"))
    value = tensor(call(keeping, x), x.shape, "The term")
    alone = tensor(call(keeping, x[0]), x[0].shape, "For one state, the term")
    require(close(alone, value[0]), "One state alone gets another term than among many: give `roll` its axis, −1.")
    size = (x * value).abs().sum(-1)
    require(size.min() > 0, "A term that is zero keeps the energy, but does nothing. Find one that acts.")
    require(
        close(tensor(keeping(2 * x), x.shape), 8 * value),
        "This is not cubic: with twice the state, every product of three is eight times as large.",
    )
    require(
        close(tensor(keeping(x.roll(3, -1)), x.shape), value.roll(3, -1)),
        "The term should be the same at every point: turn the ring, and the result turns with it.",
    )
    moved = x.clone()
    moved[:, 20] += 1
    change = (tensor(keeping(moved), x.shape) - value).abs().amax(0)
    far = (torch.arange(len(change)) - 20).abs() > 5
    require((change[far] <= 1e-5 * change.max()).all(), "Yours uses points far away: at most five from $n$ are near.")
    gain = (x * value).sum(-1)
    full = CubicLorenz96(forcing=0.0, friction=0.0, cubic=1.0).tendency(x)
    cubic = full - CubicLorenz96(forcing=0.0, friction=0.0, cubic=0.0).tendency(x)
    require(
        not close(value, cubic), "These are both products of the true model: the first one does not keep the energy."
    )
    require(
        (gain.abs() < 1e-5 * size).all(),  # single precision is welcome
        f"Of 20 random states it changes the energy of {int((gain.abs() >= 1e-5 * size).sum())}. "
        "Multiply by $x_n$ and look for two sums that are the same, shifted around the ring.",
    )
    return "For 20 random states it adds and removes no energy, to rounding. Of a printed claim, ask for such a test."
