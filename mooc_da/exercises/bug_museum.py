"""Exercises of notebook 7: five bugs that leave no trace, and the tests that find them.

Each exhibit is a ``suspect_…`` function with a bug. The reader writes a test of such functions; a judge runs it
on right implementations, on the suspect and on another bug of the kind.
"""

from __future__ import annotations

import inspect
import math
import textwrap
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from .. import reader
from ..ensembles import inflate
from ..models import Lorenz96
from .exercise import Exercises, NotAttempted, NotYet, require

ex = Exercises("7_bug_museum")


def show_code(function: Callable) -> None:
    """Show the source of a function."""
    reader.say(f"```python\n{textwrap.dedent(inspect.getsource(function)).strip()}\n```")


def passes(test: Callable, implementation: Callable) -> bool | None:
    """Whether a reader's test lets an implementation pass; None if it returns nothing.

    Raises
    ------
    NotYet
        if the test returns anything else than one truth value
    """
    try:
        says = test(implementation)
    except AssertionError:
        return False
    if says is None or says is ...:
        return None
    shape = getattr(says, "shape", None)  # of a tensor, an array or a NumPy truth value
    one = isinstance(says, Real) or (shape is not None and math.prod(shape) == 1)
    what = f"{type(says).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
    require(
        one,
        f"Your test should return one `True` or `False`, but returns something else ({what}): is an `.all()` missing? "
        "`torch.allclose` compares tensors.",
    )
    return bool(says)


def examine(test: Callable, right: list[Callable], bugs: dict[Callable, str]) -> int:
    """Run a reader's test on right implementations and on bugs; returns on how many it was run.

    Raises
    ------
    NotYet
        if the test rejects something right or lets a bug pass, with the message of that bug
    """
    require(callable(test), "Your answer should be a function, without brackets.")
    verdicts = [[passes(test, f) for _ in range(3)] for f in right]
    of_bugs = {message: passes(test, f) for f, message in bugs.items()}
    silent = all(v is None for vs in verdicts for v in vs)
    if silent and all(v is None for v in of_bugs.values()):
        if not getattr(getattr(test, "__code__", None), "co_names", ()):
            raise NotAttempted
        raise NotYet(
            "Your test says nothing, neither of the right implementation nor of the bug: is a `return` missing?"
        )
    require(
        all(len({v is False for v in vs}) == 1 for vs in verdicts),
        "Your test says yes to a right implementation at one time and no at another: fix its random numbers by a seed.",
    )
    accepted = [vs[0] is not False for vs in verdicts]
    require(
        any(accepted) or not all(v is False for v in of_bugs.values()),
        "Your test says no to everything. If it compares by `==`: a tensor never equals a list, and rounding spoils "
        "the equality of numbers. `torch.allclose` compares tensors.",
    )
    require(
        accepted[0], "Your test rejects the right implementation too. Is what you ask for true, also after rounding?"
    )
    require(
        all(accepted),
        "Your test rejects another right implementation, which does the same in different words. Ask for what the "
        "result must be, up to rounding, not for how it is written.",
    )
    for message, verdict in of_bugs.items():
        require(verdict is False, message)
    return len(right) + len(bugs)


# 1 · Training and test times, (n_times, n_test, gap) -> two index tensors


def suspect_split(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    """Times to learn from, and n_test times to test on, with at least gap times between them."""
    times = torch.arange(n_times)
    training = times[: -n_test - gap]
    test = times[:-n_test]
    return training, test


def good_split(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    """Times to learn from, and n_test times to test on, with at least gap times between them."""
    times = torch.arange(n_times)
    return times[: n_times - n_test - gap], times[n_times - n_test :]


def _early_split(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    times = torch.arange(n_times)
    return times[n_test + gap :], times[:n_test]


def _random_split(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    times = torch.randperm(n_times, generator=torch.Generator().manual_seed(0))
    return times[n_test:], times[:n_test]


def _touching_split(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    times = torch.arange(n_times)
    return times[:-n_test], times[-n_test:]


def _shifted_split(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    times = torch.arange(n_times)
    return times[: n_times - n_test - gap], times[n_times - n_test - gap - 1 : -gap - 1]


def _short_split(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    times = torch.arange(n_times)
    return times[: n_times - n_test - gap + 1], times[n_times - n_test :]


def _split_with_fewer(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    return good_split(n_times, n_test - 1 or 2, gap)  # an empty part would break tests


def _split_with_more(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    return good_split(n_times, n_test + 1, gap)


def _split_beyond_the_end(n_times: int, n_test: int, gap: int) -> tuple[Tensor, Tensor]:
    return good_split(n_times + gap, n_test, gap)


@ex.exercise(
    "A test for a split",
    hints=(
        "What must hold for every pair of a training time and a test time? Call `split` with numbers of your own.",
        "`(training[:, None] - test[None, :]).abs()` holds the distances of all pairs. What is the least one allowed, "
        "if 74 and 80 have five times between them? And how many test times are there, in which range?",
    ),
    solution="""
        def test_split(split):
            training, test = split(100, 20, 5)
            distance = (training[:, None] - test[None, :]).abs().min()
            times = torch.cat((training, test))
            inside = times.min() >= 0 and times.max() < 100
            return len(test) == 20 and inside and distance > 5  # 74 and 80 have 5 times between them
    """,
    explanation="""Number and range are quickly asked for, and one property holds the rest: *between any training time
        and any test time lie at least `gap` times*, so their distance is greater than `gap`. It forbids the overlap,
        the neighbours of a random split, and a gap that is forgotten or too short, wherever the test times lie.""",
)
def catch_split(test_split) -> str:
    """A test of splits."""
    bugs = {
        suspect_split: "It passes the exhibit: look at the times themselves. Is one of them in both parts?",
        _shifted_split: "It passes a split whose two parts have one time in common.",
        _random_split: "It passes a random split: disjoint, but nearly every test time has its neighbours in training.",
        _touching_split: "It passes a split without the gap that was asked for.",
        _short_split: "It passes a split whose gap is one time too short. With `gap = 5`, training that ends at 75 and "
        "a test that begins at 80 have only four times between them: the distance must be greater than `gap`.",
        _split_with_fewer: "It passes a split with fewer test times than `n_test`: count them.",
        _split_with_more: "It passes a split with more test times than `n_test`: ask for the exact number.",
        _split_beyond_the_end: "It passes a split whose test times go beyond the last time, `n_times - 1`.",
    }
    n = examine(test_split, [good_split, _early_split], bugs)
    return (
        f"All {n} implementations judged rightly. Your test does not care where the test times lie, only how far away."
    )


# 2 · Correlation of a prediction with a target


def suspect_correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """Correlation of a prediction with the target."""
    unexplained = (target - prediction).square().sum()
    total = (target - target.mean()).square().sum()
    return (1 - unexplained / total).clamp(min=0).sqrt()


def good_correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """Correlation of a prediction with the target."""
    p, t = prediction - prediction.mean(), target - target.mean()
    return (p * t).sum() / (p.square().sum() * t.square().sum()).sqrt()


def _library_correlation(prediction: Tensor, target: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack((prediction, target)))[0, 1]


def _explained(prediction: Tensor, target: Tensor) -> Tensor:
    return 1 - (target - prediction).square().sum() / (target - target.mean()).square().sum()


def _uncentred(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction * target).sum() / (prediction.square().sum() * target.square().sum()).sqrt()


def _unsigned(prediction: Tensor, target: Tensor) -> Tensor:
    return good_correlation(prediction, target).abs()


@ex.exercise(
    "A test for a correlation",
    hints=(
        "What may you do to a prediction without changing its correlation with the target? What changes its sign?",
        "Twice the prediction plus three has the same correlation; minus the prediction has the opposite one.",
    ),
    solution="""
        def test_correlation(correlation):
            noise, t = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
            p = t + noise
            c = correlation(p, t)
            return torch.isclose(correlation(2 * p + 3, t), c, atol=1e-5) and torch.isclose(correlation(-p, t), -c)
    """,
    explanation="""A correlation is blind to unit and offset: $r(a p + b, t) = r(p, t)$ for $a > 0$, and it changes its
        sign with $p$. $R^2$ and its root fail at once, because they *do* care for the size of the prediction.""",
)
def catch_correlation(test_correlation) -> str:
    """A test of correlations of one-dimensional tensors."""
    bugs = {
        suspect_correlation: "It passes the exhibit, right near 0 and 1. Try a good prediction of a wrong size.",
        _explained: "It passes $R^2$ without the root. Try a prediction that is twice too large.",
        _uncentred: "It passes a formula in which the means were forgotten. Add a constant to the prediction.",
        _unsigned: "It passes a correlation that has lost its sign.",
    }
    n = examine(test_correlation, [good_correlation, _library_correlation], bugs)
    return f"All {n} implementations judged rightly: what a number does *not* depend on says best what it is."


# 3 · One step of a scalar Kalman filter with the model x_k = x_{k-1} + model error


def suspect_update(x, P, y, Q, R):
    """Forecast with model error of variance Q, analysis of y with error variance R."""
    P = P + R
    K = P / (P + Q)
    return x + K * (y - x), (1 - K) * P


def good_update(x, P, y, Q, R):
    """Forecast with model error of variance Q, analysis of y with error variance R."""
    P = P + Q
    K = P / (P + R)
    return x + K * (y - x), (1 - K) * P


def _weighted_update(x, P, y, Q, R):
    total = P + Q + R
    return (R / total) * x + ((P + Q) / total) * y, (P + Q) * (R / total)


def _update_without_model_error(x, P, y, Q, R):
    return good_update(x, P, y, 0.0, R)


def _update_with_std(x, P, y, Q, R):
    return good_update(x, P, y, Q, R**2)


@ex.exercise(
    "A test for Q and R",
    hints=(
        "Which analysis do you expect of a perfect observation, $R = 0$? Which with a very poor model, $Q$ very large?",
        "The limits leave room for one more mistake: check one ordinary case by hand, with three different variances.",
    ),
    solution="""
        def test_update(update):
            trusts_y = abs(update(1.0, 1.0, 5.0, 0.5, 1e-9)[0] - 5.0) < 1e-6
            trusts_x = abs(update(1.0, 1.0, 5.0, 0.5, 1e9)[0] - 1.0) < 1e-6
            by_hand = abs(update(0.0, 1.0, 4.0, 1.0, 6.0)[0] - 1.0) < 1e-6  # K = 2 / 8
            return trusts_y and trusts_x and by_hand
    """,
    explanation="""Limits tell Q from R: a perfect observation is believed, a useless one is ignored. A case with
        $P = Q = R$ tells nothing, since everything may be swapped there. For values in between take numbers that are
        all different, and work out one case by hand.""",
)
def catch_swap(test_update) -> str:
    """A test of the scalar filter step (x, P, y, Q, R) -> (x_a, P_a)."""
    bugs = {
        suspect_update: "It passes the exhibit. With $Q = R$ a swap cannot be seen; make one of them tiny.",
        _update_without_model_error: "It passes an update that forgets $Q$. What should a very poor model do?",
        _update_with_std: "It passes an update that takes $R$ for a standard deviation and squares it. Limits do not "
        "see that: work out one ordinary case by hand, with $R$ neither 0 nor 1.",
    }
    n = examine(test_update, [good_update, _weighted_update], bugs)
    return f"All {n} implementations judged rightly. Extremes for the roles of Q and R, one case by hand for the rest."


# 4 · Multiplicative inflation, (Ne, Nx) -> (Ne, Nx)


def suspect_inflate(E: Tensor, factor: float) -> Tensor:
    """Multiply the anomalies of all members by a factor."""
    mean = E.mean(0)
    for member in E:
        member = mean + factor * (member - mean)
    return E


def _blended_inflate(E: Tensor, factor: float) -> Tensor:
    return factor * E + (1 - factor) * E.mean(-2, keepdim=True)


def _inflate_everything(E: Tensor, factor: float) -> Tensor:
    return factor * E


def _inflate_variance(E: Tensor, factor: float) -> Tensor:
    return inflate(E, factor**0.5)


def _inflate_and_shift(E: Tensor, factor: float) -> Tensor:
    return E[:1] + factor * (E - E[:1])


@ex.exercise(
    "A test for an inflation",
    hints=(
        "Inflation should change one thing and leave another as it is. Which are they?",
        "Compare `E.std(0)` before and after, and `E.mean(0)` too, for an ensemble whose mean is not zero.",
    ),
    solution="""
        def test_inflate(inflation):
            E = 3 + torch.randn(10, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            new = inflation(E, 1.5)
            return torch.allclose(new.std(0), 1.5 * E.std(0)) and torch.allclose(new.mean(0), E.mean(0))
    """,
    explanation="""Two properties belong to every knob: turning it *does* what it promises (the spread is multiplied by
        the factor), and does *nothing else* (the mean stays). The first alone finds an inflation without effect.""",
)
def catch_inflation(test_inflate) -> str:
    """A test of inflations (E, factor) -> E."""
    bugs = {
        suspect_inflate: "It passes the exhibit, which returns the ensemble as it was: ask for the new spread.",
        _inflate_variance: "It passes an inflation of the variance: the spread grows, but not by the factor.",
        _inflate_everything: "It passes `factor * E`, which moves the mean too. Take members that are not around zero.",
        _inflate_and_shift: "It passes an inflation about the first member: right spread, but the mean has moved.",
    }
    n = examine(test_inflate, [inflate, _blended_inflate], bugs)
    return f"All {n} implementations judged rightly: the effect that is promised, and no other."


# 5 · The tendency of Lorenz-96, (..., Nx) -> (..., Nx), F = 8


def suspect_tendency(x: Tensor) -> Tensor:
    """dx_n/dt = (x_{n+1} - x_{n-2}) x_{n-1} - x_n + 8."""
    plus1, minus1, minus2 = x.roll(1, -1), x.roll(-1, -1), x.roll(-2, -1)
    return (plus1 - minus2) * minus1 - x + 8


good_tendency = Lorenz96().tendency


def _looped_tendency(x: Tensor) -> Tensor:
    n_sites = x.shape[-1]
    terms = [(x[..., (n + 1) % n_sites] - x[..., n - 2]) * x[..., n - 1] - x[..., n] + 8 for n in range(n_sites)]
    return torch.stack(terms, -1)


def _misindexed_tendency(x: Tensor) -> Tensor:
    return (x.roll(-1, -1) - x.roll(1, -1)) * x.roll(2, -1) - x + 8


def _tendency_without_friction(x: Tensor) -> Tensor:
    return good_tendency(x) + x


@ex.exercise(
    "A test for an equation",
    hints=(
        "Energy, a fixed point, rotations of the ring: the mirror image passes all of that. What remains?",
        "Write the equation once more, as a slow loop over $n$ with `x[(n + 1) % N]`, and compare at a random state.",
    ),
    solution="""
        def test_tendency(tendency):
            x = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            slowly = [(x[(n + 1) % 12] - x[n - 2]) * x[n - 1] - x[n] + 8 for n in range(12)]
            return torch.allclose(tendency(x), torch.stack(slowly))
    """,
    explanation="""The best test of a formula is the same formula in other words, at a state without symmetry: a slow
        loop in which each index stands as it is printed. Conservation of energy finds the wrong index, but not the
        mirror image, which has all symmetries and all statistics of the original.""",
)
def catch_mirror(test_tendency) -> str:
    """A test of tendencies of a state (Nx,) or states (..., Nx)."""
    bugs = {
        suspect_tendency: "It passes the exhibit, the mirror image. Energy, fixed point, rotations and climate are the "
        "same for both: use something that knows left from right.",
        _misindexed_tendency: "It passes a tendency in which $n-1$ and $n-2$ have changed places.",
        _tendency_without_friction: "It passes a tendency without the friction $-x_n$: test the other terms too.",
    }
    n = examine(test_tendency, [good_tendency, _looped_tendency], bugs)
    return f"All {n} implementations judged rightly, by something that knows left from right."
