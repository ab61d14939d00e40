"""Exercises of notebook 6: what noise and repetition do to a fit, the cost of observations, and when to stop."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from ..config import seeded
from ..learning import rollout_loss, rollout_pairs
from ..loop import chosen
from ..models import trajectory
from ..observations import checkerboard, observe
from ._twins import CFG, NATURE, PHYSICAL
from .exercise import Exercises, call, close, number, require, tensor, two, unlike

ex = Exercises("6_closing_the_loop")


def draws(*shape: int, stream: str) -> Tensor:
    """Standard normal numbers, the same at every check."""
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(6, stream))


def measured_slope(n: int) -> float:
    """Of the least-squares line through n pairs of slope 1 whose input has as much noise as signal."""
    x, noisy_target = draws(n, stream="signal"), draws(n, stream="target")
    z, t = x + draws(n, stream="input"), x + noisy_target
    return float((z * t).mean() / z.square().mean())


@ex.exercise(
    "Noise in the input",
    hints=(
        "The slope is $\\overline{z t} / \\overline{z^2}$. Put in $z = x + \\varepsilon$ and $t = a x + \\eta$, and "
        "let the mean products of independent things go to zero.",
        "What is left above is $a\\, \\sigma_x^2$. What is left below, where $\\varepsilon$ meets itself?",
    ),
    solution="""
        def fitted_slope(a, signal, input_noise, target_noise):
            return a * signal**2 / (signal**2 + input_noise**2)
    """,
    explanation=r"""Noise of the target averages out, noise of the input does not: it makes the inputs wider than they
        are, and the line flatter. This is *regression dilution*. For a guess from noisy inputs the flat line is even
        the best one. But a model is run from its own states, and there it is too flat. The $\sigma_x$ that counts is
        that of the direction in question, and in the thin directions of an attractor it is small. In the pairs of
        notebook 2 the noise of the input is in the target, too, so that even this formula does not hold there.""",
)
def noise_in_the_input(fitted_slope) -> str:
    """The slope of a line through very many pairs, noise in both of its axes."""
    cases = [(1.0, 1.0, 0.5, 0.2), (-0.7, 2.0, 1.5, 3.0), (1.5, 0.3, 0.4, 0.1), (2.0, 1.2, 0.0, 0.7)]
    values = [number(call(fitted_slope, *case), "The slope") for case in cases]
    value = torch.tensor(values, dtype=torch.float64)
    a, s, e, h = torch.tensor(cases, dtype=torch.float64).T
    ss, ee, hh = s**2, e**2, h**2
    mistakes = {
        "Noise in the *input* does not average out: the spread of the inputs themselves has grown.": a,
        "Noise of the target is as often above as below the line: it blurs it, and does not turn it.": a
        * (ss / (ss + ee + hh)),
        "You flatten by the noise of the *target*. That one averages out; which one does not?": a * (ss / (ss + hh)),
        "Independent scatters add as *squares*, in the denominator of a slope too.": a * s / (s + e),
        "This factor is the correlation of noisy and true inputs. A slope has its square.": a * (ss / (ss + ee)).sqrt(),
        "The wrong way round: this is how the fitted slope would have to be *corrected*.": a * (1 + ee / ss),
        "That is what the slope has *lost*.": a * ee / (ss + ee),
        "This is the factor alone. The true slope is $a$.": ss / (ss + ee),
    }
    unlike(value, mistakes)
    told = "Without noise it should be $a$; with as much noise as signal in the input, $a / 2$."
    require(close(value, a * ss / (ss + ee)), told)
    few, many = (measured_slope(n) for n in (1000, 100_000))
    return (
        f"Tried with slope 1 and as much noise as signal: {few:.2f} from 1000 made-up pairs, {many:.2f} from 100 000. "
        "More data make the wrong slope more certain, and no better."
    )


@ex.exercise(
    "What repetition leaves",
    hints=(
        "One pass takes $s\\, r_n - b$ off: write down $r_{n+1}$. A `for` loop over the passes is a good answer.",
        "$r_{n+1} = r_n - (s\\, r_n - b)$. It stays as it is when the correction no longer grows: $s\\, r = b$.",
    ),
    solution="""
        def remaining(n, s, b):
            r = 1.0
            for _ in range(n):
                r = r - (s * r - b)
            return r

        def limit(s, b):
            return b / s
    """,
    explanation="""$r_n = b / s + (1 - s)^n (1 - b / s)$. A target that shows only a share of the error is no obstacle:
        with $b = 0$ repetition finds it all, sooner or later. What each pass brings *anew* is one, and it counts
        $1 / s$ times. Unless $s$ is small, the end is reached after a few passes. The way out is not more of them but a
        smaller $b$: better states to start from, and targets that lean on no model.""",
)
def what_repetition_leaves(remaining, limit) -> str:
    """Share of the error left after n passes, and after very many."""
    cases = [(1, 0.7, 0.14), (2, 0.7, 0.14), (3, 0.4, 0.1), (5, 0.25, 0.05), (4, 0.6, 0.0), (0, 0.6, 0.2)]
    value = torch.tensor([number(call(remaining, *c), "What remains") for c in cases], dtype=torch.float64)
    n, s, b = torch.tensor(cases, dtype=torch.float64).T
    q, end = 1 - s, b / s
    right = end + q**n * (1 - end)
    mistakes = {
        "You left $b$ out: each target lacks it.": q**n,
        "You took $b$ into account once. Each pass brings it anew.": torch.where(n > 0, q**n + b, 1.0),
        "Each pass brings $b$, and the passes after it take a share of that off again.": q**n + n * b,
        "The sign of $b$: the correction grows *less* by it, so more remains.": -end + q**n * (1 + end),
        "That is what the correction has *found*. What remains of 1?": 1 - right,
        "$s$ is the share that a pass finds. What is the share that it leaves?": s**n,
        "A pass finds a share of what is *still left*, not of the error at the beginning.": 1 - n * (s - b),
        "A pass finds a share of what is *still left*, and never too much.": (1 - n * (s - b)).clamp(0),
        "$b$ is as large in every pass, however little is left: it is no share of $r_n$.": (q + b) ** n,
        "This is one pass too many.": end + q ** (n + 1) * (1 - end),
        "This is what is left in the end. And after $n$ passes?": end,
    }
    unlike(value, mistakes)
    told = "Before the first pass all of the error is there, $r_0 = 1$; after it, $1 - s + b$. Is yours like that?"
    require(close(value, right), told)
    value = torch.tensor([number(call(limit, *c[1:]), "The limit") for c in cases], dtype=torch.float64)
    mistakes = {
        "Shrunken targets would be made up for in the end, but each pass brings $b$ anew.": 0.0 * b,
        "$b$ remains from the last pass alone. Something is left from those before it, too.": b,
        "Where is the correction in balance: for which $r$ is $s\\, r - b$ zero?": b * s,
        "Add up $b\\,(1 - s)^j$ over all passes: the sum of that series is not $b / (1 - s)$.": b / q,
        "That is what has been *found* in the end.": 1 - end,
    }
    unlike(value, mistakes)
    require(close(value, end), "For which $r$ does the correction no longer grow? Then nothing changes any more.")
    r = [call(remaining, k, 0.7, 0.14) for k in (1, 2, 3, 10)]
    told = "With $s$ = 0.7 and $b$ = 0.14 there remain {:.2f}, {:.2f} and {:.2f} after one, two and three passes, and "
    return (told + "{:.2f} after ten: it saturates early.").format(*map(float, r))


@ex.exercise(
    "The cost of missing the observations",
    hints=(
        "Zero times NaN is NaN. Take care of the unobserved places *before* you multiply by the precision.",
        "`torch.where(precision > 0, x - y, 0.0)` is the misfit, zero where nothing was seen. Square it afterwards.",
    ),
    solution="""
        def observation_cost(x, y, precision):
            misfit = torch.where(precision > 0, x - y, 0.0)
            return (precision * misfit**2).mean()
    """,
    explanation="""This is `rollout_loss` behind the rollout itself. (There NaN does not occur: `Observations.on_grid`
        puts zeros where nothing is seen.) No analysis takes part in it, and none of its habits. A place that is never
        compared is still forecast: the model must get it right for its neighbours to meet *their* observations.""",
)
def cost_of_observations(observation_cost) -> str:
    """The mean cost of rollouts (M, n, Nx) against observations on the grid."""
    with torch.no_grad():
        truth = trajectory(NATURE, NATURE.random_state((), 12, generator=seeded(6, "state")), 60)[40:]
        seen = observe(truth, checkerboard, CFG.obs_std, generator=seeded(6, "noise")).on_grid(12)
        inputs, targets, weights = rollout_pairs(truth + 0.05 * draws(*truth.shape, stream="starts"), 4, *seen)
        right = float(rollout_loss(lambda model: model, 4)(PHYSICAL, inputs, targets, weights))
        x = trajectory(PHYSICAL, inputs, 4)[:, 1:]
    y, p = (part.unflatten(-1, (4, 12)) for part in (targets, weights))
    for garbage in (0.0, 99.0, torch.nan):
        told = f"With {garbage:.0f} at the unobserved places of `y`: "
        seen = y.where(p > 0, torch.full_like(y, garbage))
        result = call(observation_cost, x, seen, p)
        nan = torch.as_tensor(result).isnan().any()
        require(not nan, told + "your cost is NaN: zero times NaN is NaN. Take those places out *first*.")
        value = number(result, "The cost")
        squares = (x - y).square()
        mistakes = {
            "the unobserved places count. Their precision is zero.": float((x - y).square().mean()),
            "this is the mean over the *observed* places. Divide by the number of all, as the package does.": float(
                (p * squares).sum() / (p > 0).sum()
            ),
            "without its precision an observation counts as if its error variance were 1.": float(
                squares[p > 0].sum() / p.numel()
            ),
            "the precision is already 1 / R: do not square it.": float((p.square() * squares).mean()),
            "that is a root. The cost is the mean square itself.": math.sqrt(right),
            "that is the sum. The *mean* is asked for.": right * p.numel(),
            "no one half here: `rollout_loss` has none.": right / 2,
            "a misfit counts with its *square*.": float((p * squares.sqrt()).mean()),
        }
        unlike(torch.tensor(value, dtype=torch.float64), mistakes, told=told)
        told += f"the cost is {value:.4g}, and that of `rollout_loss` is {right:.4g}. "
        require(abs(value / right - 1) < 1e-6, told + "Whatever stands where the precision is zero must not count.")
    x.requires_grad_(True)
    result = call(observation_cost, x, seen, p)
    constant = "The number is right, but without a gradient: return a tensor made of `x`, without `float` or `item`."
    require(isinstance(result, Tensor) and result.requires_grad, constant)
    (gradient,) = torch.autograd.grad(result, x)
    trap = "The number is right, its *gradient* is NaN: a square of NaN was computed and masked afterwards. Mask first."
    require(gradient.isfinite().all(), trap)
    require(not gradient[p == 0].any(), "The number is right, but its gradient pulls at unobserved places.")
    return (
        f"The same as `rollout_loss`, and the gradient is finite. The physical model costs {right:.2f} here. A perfect "
        "one with perfect starts would cost about 0.5: the noise of the observations, seen at half of the places."
    )


def kept_by_the_loop(likelihood: Tensor) -> tuple[Tensor, int]:
    """The pass kept for each experiment (S,), and the last pass made, by the rule of ``close_the_loop``."""
    best, kept = torch.full_like(likelihood[0], -torch.inf), {}
    for last, row in enumerate(likelihood):
        better = row > best
        kept = chosen(better, {"pass": torch.full((len(row), 1, 1), last)}, kept)
        best = torch.where(better, row, best)
        if not better.any():
            break
    return kept["pass"].flatten(), last


@ex.exercise(
    "When to stop, and what to keep",
    hints=(
        "Go through the rows as the loop does, with the best so far of each experiment: `better = row > best`.",
        "Two decisions: the loop stops for *all* if `not better.any()`; an experiment keeps its pass where `better`.",
    ),
    solution="""
        def keep(likelihood):
            best = likelihood[0]
            kept = torch.zeros(len(best), dtype=torch.long)
            for number, row in enumerate(likelihood[1:], 1):
                better = row > best
                if not better.any():
                    break
                kept[better] = number
                best = torch.maximum(best, row)
            return kept
    """,
    explanation="""This is what `close_the_loop` does with its networks. The likelihood of observations to which nothing
        was fitted needs no truth, so that the rule works in practice. It is measured over a finite time and
        therefore noisy: who keeps the best of many passes keeps a little luck, too. For a fair score take new data.""",
)
def when_to_stop(keep) -> str:
    """The pass that each experiment keeps, (S,), from held-out likelihoods (P, S)."""

    def judged(likelihood: list, mistakes: dict[str, list[list[int]]]) -> None:
        history = torch.tensor(likelihood, dtype=torch.float64)
        value = tensor(call(keep, history), history.shape[1:], "The answer of `keep`").tolist()
        told, right = f"For the history {likelihood} ", kept_by_the_loop(history)[0].tolist()
        for message, wrong in mistakes.items():
            require(value not in wrong, told + message)
        require(value == right, told + f"you keep {[round(v, 2) for v in value]}, and the loop keeps {right}.")

    mistakes = {
        "you give the largest likelihoods. In which passes were they reached?": [[3.5, 3.2]],
        "you give passes that do not exist. Count them from 0, like the rows.": [[3, 4]],
        "you stop an experiment that got worse once. As long as one gains all go on, and it gets better again.": [
            [2, 1]
        ],
        "you keep the same pass for all. Each experiment keeps the one that was *its* best.": [[3, 3]],
        "you keep the least likely passes.": [[0, 0]],
    }
    judged([[0, 0], [1.5, 2], [3.5, 1], [2.5, 3.2]], mistakes)
    unmade = "you keep a pass that is never made: pass 2 was better in no experiment, so the loop stopped there."
    judged([[0, 0], [1, 1], [0.5, 0.6], [5, 5]], {unmade: [[3, 3]]})
    average = "you stop too early. One experiment that still gains is enough to go on, whatever the others do."
    judged([[0, 0], [2, 2], [3, -2], [4, -2]], {average: [[2, 1], [1, 1]]})
    previous = "you go on too long. In pass 3 the first is better than in pass 2, but not than its *best* so far."
    judged([[0, 0], [4, 1], [2, 2], [3, 1.5], [9, 9]], {previous: [[4, 4]]})
    n_missed = 0
    for seed in range(40):
        n_passes, n_experiments = 1 + seed % 7, 1 + seed % 4
        gain = 1 - torch.exp(-torch.arange(n_passes, dtype=torch.float64) / 2)
        noise = torch.randn(n_passes, n_experiments, dtype=torch.float64, generator=seeded(seed, "history"))
        likelihood = (gain.unsqueeze(-1) + 0.2 * noise).round(decimals=4)
        judged(likelihood.tolist(), {})
        n_missed += int(kept_by_the_loop(likelihood)[1] < int(likelihood.argmax(0).max()))
    return (
        f"As the loop does, in 40 random histories. In {n_missed} of them a pass after the stop would have been "
        "better: that is what stopping costs, and nobody who stops can know."
    )


@ex.exercise(
    "A loop that leaks",
    hints=(
        "What will not be known in practice? And which observations does the network know already?",
        "`first = round(0.8 * len(y))`: train on `y[:first]`, and count the likelihood from `first` on. No `truth`.",
    ),
    solution="""
        def one_pass(y, truth, train, run, sigmas):
            first = round(0.8 * len(y))
            network = train(y[:first])
            told = [run(network, s, y).diagnostics["log_likelihood"][first:].mean() for s in sigmas]
            return network, sigmas[told.index(max(told))]
    """,
    explanation="""Two leaks. The truth chose a number that in practice nobody can choose with it; every score of this
        loop would be too good. And a network forecasts the observations that it has learnt from better than new ones:
        a filter tuned on them believes in a model better than it is, with too small a $\\sigma_q$. The held-out
        observations have then chosen something, too. Measure the result on data that have chosen nothing.""",
)
def leaking_loop(one_pass) -> str:
    """A pass that neither needs the truth nor tunes on what it has learnt from, tried on stand-ins."""
    K, first, sigmas = 100, 80, (0.3, 0.07, 0.04, 0.02, 0.01, 0.005)
    y = torch.arange(K, dtype=torch.float64).unsqueeze(-1).expand(-1, 2).contiguous()  # each tells its own time
    truth, networks = torch.zeros(K, 4, dtype=torch.float64), []

    def train(y: Tensor) -> SimpleNamespace:
        networks.append(SimpleNamespace(times=y[:, 0].clone()))
        return networks[-1]

    def run(network: SimpleNamespace, sigma: float, y: Tensor) -> SimpleNamespace:
        likeliest = torch.where(torch.isin(y[:, 0], network.times), math.log(0.01), math.log(0.03))
        error = (math.log(sigma / 0.02)) ** 2 + 0.1
        analysis = torch.full((len(y), 4), error, dtype=torch.float64)
        return SimpleNamespace(analysis=analysis, diagnostics={"log_likelihood": -((math.log(sigma) - likeliest) ** 2)})

    network, sigma = two(call(one_pass, y, truth, train, run, sigmas), "the network and sigma")
    require(networks, "Nothing was learnt: call `train`.")
    require(any(network is n for n in networks), "Return the network that `train` gave, and then sigma.")
    sigma, times = number(sigma, "sigma"), network.times
    nearest = min(sigmas, key=lambda s: abs(s - sigma))
    none = f"sigma = {sigma:g} is none of the candidates: return one of `sigmas`."
    require(abs(sigma / nearest - 1) < 1e-6, none)
    n_leaked = int((times >= first).sum())
    told = f"The network was trained on {len(times)} times, {n_leaked} of them among the last 20: nothing is held out. "
    require(not n_leaked or len(times) < K, told + "Train on the first four fifths.")
    told = f"{n_leaked} of the last 20 times are in the training. The *last* fifth is to be held out, the future."
    require(not n_leaked, told)
    few = f"The network was trained on {len(times)} of 100 times. Four fifths may be used."
    require(len(times) > 0.7 * K, few)
    mistakes = {
        0.02: "the truth has chosen it (its analyses are the best). In practice there is no truth to ask.",
        0.01: "it makes the observations likeliest that the network has *learnt* from. Count the held-out times only.",
        0.3: "with it the held-out observations are *least* likely.",
    }
    require(nearest not in mistakes, f"sigma = {nearest:g}: {mistakes.get(nearest)}")
    require(nearest == 0.04, f"sigma = {nearest:g}: the held-out observations are likelier with another.")
    return (
        "In this little theatre the truth would have chosen 0.02, the observations learnt from 0.01, and the held-out "
        "ones 0.04. Only the last choice can be made in practice, and is honest."
    )
