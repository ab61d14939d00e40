"""Exercises of notebook 2: training pairs, honest validation, a network on a ring, what a low R² is worth."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from .. import stages
from ..config import Experiment, seeded
from ..models import CubicLorenz96, Lorenz96, trajectory
from ..networks import CubicRidge
from .exercise import Exercises, NotYet, call, choose, close, number, require, tensor, two, unlike

ex = Exercises("2_correction")


def draws(*shape: int, stream: str = "exercise") -> Tensor:
    """Standard normal numbers, the same at every check."""
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(2, stream))


def rms(error: Tensor) -> float:
    """Root of the mean square."""
    return float(error.square().mean().sqrt())


@ex.exercise(
    "Training pairs by hand",
    hints=(
        "$K$ analyses make $K - 1$ pairs: the last analysis is no input, the first one belongs to no target.",
        "Time is the second last axis: all but the last are `analysis[..., :-1, :]`, all but the first `[..., 1:, :]`.",
    ),
    solution="""
        def make_pairs(analysis, step):
            before, after = analysis[..., :-1, :], analysis[..., 1:, :]
            return before, after - step(before)
    """,
    explanation="""The model starts from the input, and the target is what it lacks on arrival. A target at a wrong time
        has the right shape and a plausible size, and a network will learn *something* from it: only a case with a
        known answer shows the mistake. This is `training_pairs` of the package without its checks.""",
)
def pairs_by_hand(make_pairs) -> str:
    """Inputs and targets from an analysis (..., K, Nx) and a step."""
    step, notebook = Lorenz96(forcing=7.0), Lorenz96()
    start = step.random_state((2,), 12, generator=seeded(2, "states"))
    batch = trajectory(CubicLorenz96(), start, 5) + 0.1 * draws(2, 6, 12)
    for analysis in (batch[0], batch):
        a, b = analysis[..., :-1, :], analysis[..., 1:, :]
        inputs, targets = two(call(make_pairs, analysis, step), "the inputs and the targets")
        shape = getattr(inputs, "shape", None)
        require(shape != analysis.shape, "The last analysis is no input: nothing follows it.")
        cut = "You cut off a point, not a time. Time is the second last axis, for one experiment and for a batch"
        require(shape != analysis[..., :-1].shape, cut + ": write `analysis[..., :-1, :]`.")
        inputs, targets = tensor(inputs, a.shape, "The input"), tensor(targets, a.shape, "The target")
        require(not close(inputs, b), "Your inputs are the *later* analyses: the model starts from the earlier ones.")
        require(close(inputs, a), "The inputs should be the analyses themselves, all but the last.")
        misconceptions = {
            "Input and target stand at the same time: where does the model *arrive*, one step later?": a - step(a),
            "Your target is the next state. Subtract what the model makes of the input.": b,
            "That is how the state changed. Subtract the step of the model, not the input.": b - a,
            "You stepped the later analysis. The model starts from the earlier one.": b - step(b),
            "The sign: added to the model, the target should give the *analysis*.": step(a) - b,
            "The notebook's `physical` lacks this. Use the argument `step`: here it is another one.": b - notebook(a),
        }
        unlike(targets, misconceptions)
        require(close(targets, b - step(a)), "A target is the later analysis minus one step from its input.")
    return "The model's step plus your target is the next analysis, for one experiment and for a batch of them."


@ex.exercise(
    "The best guess from one target",
    hints=(
        "Minimise the mean of $(e - c\\,t)^2$ over $c$: set the derivative to zero.",
        "The slope in the figure, $\\overline{te} / \\overline{ee}$, predicts $t$ from $e$. Here $t$ is given.",
    ),
    solution="""
        def factor(error, target):
            return (error * target).sum() / target.square().sum()
    """,
    explanation="""There are two regression lines through one cloud. Targets from errors: slope about 0.7. Errors from
        targets: about 0.2, because most of a target is noise, and a good guess does not trust it. Even the best guess
        from one target is poor. The network does better: it sees the *state*, and many targets of similar states.""",
)
def guess_from_target(factor) -> str:
    """The c with which c * target is nearest to the error."""
    error = 0.1 * draws(8, 500) + 0.05
    target = 0.7 * error + 0.17 * draws(8, 500, stream="noise")
    te, ee, tt = (float(v.mean()) for v in (target * error, error * error, target * target))
    c, best, slope = number(call(factor, error, target), "The factor"), te / tt, te / ee
    centred = (te - float(target.mean() * error.mean())) / float(target.var(correction=0))
    misconceptions = {
        "That is the slope in the figure: it predicts a target from an error. Turn the question round.": slope,
        "Dividing by the slope undoes the shrinking, and enlarges the noise. Be more cautious.": 1 / slope,
        "A correlation knows nothing of the sizes of error and target.": te / (ee * tt) ** 0.5,
        "The ratio of the two sizes trusts the targets as if they had no noise.": (ee / tt) ** 0.5,
        "You subtracted the means. The guess is $c$ times the target, without a constant.": centred,
    }
    unlike(torch.tensor(c, dtype=torch.float64), misconceptions)
    left, least, stretched = (rms(error - k * target) for k in (c, best, 1 / slope))
    require(abs(c / best - 1) < 1e-4, f"On made-up data your guess errs by {left:.4f}, the best one by {least:.4f}.")
    return (
        f"On made-up data whose slope is {slope:.2f}, this guess errs by {least:.3f}, no guess at all by "
        f"{rms(error):.3f}, and the target divided by the slope by {stretched:.3f}: worse than nothing."
    )


@ex.exercise(
    "R² from a correlation",
    hints=(
        "Expand the square in $R^2 = 1 - \\overline{(p - t)^2} / \\overline{t^2}$; $\\overline{p^2} = \\sigma_p^2$.",
        "$\\overline{pt} = r\\,\\sigma_p \\sigma_t$. Divide everything by $\\sigma_t^2$, and only $r$ and $s$ remain.",
    ),
    solution="""
        def r2_from(r, s):
            return 2 * r * s - s**2
    """,
    explanation="""$R^2 = 2rs - s^2 = r^2 - (s - r)^2$. A correlation only asks whether prediction and target go up and
        down together; $R^2$ also asks for the right size. It is largest at $s = r$, where it is $r^2$: only there its
        root is a correlation. Beyond $s = 2r$ it is negative, however good the correlation.""",
)
def r2_from_correlation(r2_from) -> str:
    """R² of a prediction of mean zero, from its correlation with the target and its relative size."""
    r = torch.tensor([0.365, 0.9, -0.3, 1.0, 0.0, 0.6], dtype=torch.float64)
    s = torch.tensor([0.53, 0.4, 0.5, 2.0, 1.0, 0.6], dtype=torch.float64)
    values = [number(call(r2_from, *pair), "$R^2$") for pair in zip(r, s, strict=True)]
    value = torch.tensor(values, dtype=torch.float64)
    misconceptions = {
        "$r^2$ holds for a prediction of the best size only. What if it is twice as large?": r**2,
        "The mean square of the prediction itself is missing, $s^2$.": 2 * r * s,
        "The mixed term of the square comes twice.": r * s - s**2,
        "Where is $r$? That would be a perfect prediction of a wrong size.": 1 - (1 - s) ** 2,
        "That is the share which is *not* explained.": 1 - 2 * r * s + s**2,
    }
    unlike(value, misconceptions)
    require(close(value, 2 * r * s - s**2), "With $r = s = 1$ it should be 1, and with $r = 0$ it should be $-s^2$.")
    return (
        "For the exact error of the model ($r = 0.365$, $s = 0.103 / 0.195$) it gives 0.107. The notebook printed a "
        "little more because of the means. Twice too large, $s = 2$, even a prediction with $r = 1$ has $R^2 = 0$."
    )


@functools.cache
def small_truth() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """True states and the model's errors of a short experiment, (2, K, Nx): to fit, and to test."""
    return stages.pairs(Experiment().fast(), "truth")


def memoriser_r2(training: Tensor, validation: Tensor) -> float:
    """R² of looking up the nearest training state, on true errors of the model."""
    states, errors = (torch.cat(parts, 1)[0] for parts in zip(*small_truth(), strict=True))
    found = torch.cdist(states[validation], states[training]).argmin(-1)
    misses = errors[training][found] - errors[validation]
    return float(1 - misses.square().mean() / errors[validation].square().mean())


def indices(part, n: int, asked: str) -> Tensor:
    """The times that a part of n times holds, given as indices, a set of them, a range, a slice or a mask."""
    if isinstance(part, slice):
        return torch.arange(n)[part]
    part = torch.as_tensor(sorted(part) if isinstance(part, set | frozenset) else part)
    listed = "Return all indices of each part, as `torch.arange(start, end)` does, not only its start and end."
    require(part.ndim == 1 and len(part) != 2, listed)
    inside = part.dtype == torch.bool or not len(part) or (part.min() >= -n and part.max() < n)
    require(inside, f"{asked} has an index beyond the last time, which is {n - 1}.")
    return torch.arange(n)[part]


@ex.exercise(
    "An honest split",
    hints=(
        "Three blocks in time: training, gap, validation. Where does the validation begin? Go back by the gap.",
        "`first = n - round(fraction * n)` begins the validation; training ends before `first - gap`.",
    ),
    solution="""
        def split(n, fraction, gap):
            first = n - round(fraction * n)
            return torch.arange(first - gap), torch.arange(first, n)
    """,
    explanation="""Neighbours in time are nearly the same state. A random split puts a neighbour of almost every
        validation state into the training set, and then validation measures memory. Validating on the *end* is also
        what the model will be used for: on times that come after all it has seen.""",
)
def honest_split(split) -> str:
    """Indices of training and validation times."""
    n_states = sum(states.shape[1] for states, _ in small_truth())
    for n, fraction, gap in ((100, 0.2, 5), (37, 0.3, 1), (n_states, 0.2, 20)):
        asked = f"`split({n}, {fraction}, {gap})`"
        parts = two(call(split, n, fraction, gap), "the training and the validation times")
        training, validation = (indices(part, n, asked) for part in parts)
        require(len(training) and len(validation), "One of the two parts is empty.")
        if any((part.sort().values.diff() > 1).any() for part in (training, validation)):
            shuffled = torch.randperm(n_states, generator=seeded(2, "split")).split(n_states - n_states // 5)
            raise NotYet(
                "Picked at random or with holes: almost every validation time has a neighbour in the training set. "
                f"Looking up the nearest state scores $R^2$ = {memoriser_r2(*shuffled):.2f} and has learnt nothing."
            )
        n_shared = int(torch.isin(training, validation).sum())
        require(not n_shared, f"{asked} shares {n_shared} times between training and validation.")
        require(training.min() < validation.min(), "You validate on the past. Take the *last* times.")
        unused, n_wanted = int(validation.min() - training.max()) - 1, round(fraction * n)
        require(unused, "There is no gap: the last training state is one step from the first validation state.")
        require(unused == gap, f"{asked} leaves {unused} times between the two parts, and {gap} are asked for.")
        told = f"{asked} validates on {len(validation)} times, not on {n_wanted}. "
        rounded = "Take `round(fraction * n)`, the *nearest* whole number: `int` and `//` cut off."
        require(abs(len(validation) - n_wanted) != 1, told + rounded)
        require(len(validation) == n_wanted, told + "The *training* gives up the gap.")
        require(len(training) == n - n_wanted - gap, f"{asked} does not use all times outside of the gap.")
    return (
        "A test of it: guess the model's error by looking up the nearest training state. After your split this scores "
        f"$R^2$ = {memoriser_r2(training, validation):.2f}, worse than no correction, as it should: memory is no law."
    )


@ex.exercise(
    "The seam in the ring",
    hints=(
        "Behind the last point comes the first. `torch.cat` can put the last two points before the first, and so on.",
        "A zero-padded layer of width 7 is wrong at 3 points on either side. One of width 5 carries that 2 points on.",
    ),
    solution="""
        def repaired(x, w):
            ring = torch.cat((x[..., -2:], x, x[..., :2]), -1)
            return sum(w[j] * ring[..., j : j + x.shape[-1]] for j in range(5))

        n_wrong = 2 * (7 // 2 + 5 // 2 + 0 + 0)
    """,
    explanation="""Zero padding tells the network that the world ends at the first point. Nothing crashes, and the
        loss hardly shows it, because three quarters of the points are untouched. Equivariance shows it at once:
        rotating the input must rotate the output.""",
)
def seam(repaired, n_wrong) -> str:
    """A stencil on a ring (..., Nx) with weights (5,), and how many outputs of the CNN zero padding spoils."""
    x, w = draws(3, 12), draws(5, stream="weights")
    value = tensor(call(repaired, x, w), x.shape, "The output of `repaired`")
    cut = {mode: nn.functional.pad(x, (2, 2), mode) for mode in ("constant", "reflect", "replicate")}
    cut = {mode: sum(w[j] * padded[..., j : j + 12] for j in range(5)) for mode, padded in cut.items()}
    right, mirrored = (sum(w[j + 2] * x.roll(-sign * j, -1) for j in range(-2, 3)) for sign in (1, -1))
    misconceptions = {
        "This still pads with zeros: the seam is where it was.": cut["constant"],
        "Reflected at its ends the ring still has ends. What is to the left of the first point?": cut["reflect"],
        "With repeated ends the ring still has ends. What is left of the first point?": cut["replicate"],
        "The seam is gone, but the stencil is mirrored: `roll(-1, -1)` brings $x_{n+1}$ to place $n$.": mirrored,
    }
    unlike(value, misconceptions)
    require(close(value, right), "Not yet the stencil on a ring: rotate the input, and the output should rotate.")
    n_wrong = number(n_wrong, "n_wrong")
    for wrong, why in {
        5: "5 points on *each* side of the seam.",
        4: "4 is for one layer of width 5, as above. The network has a layer of width 7 before it.",
        6: "6 is for the first layer alone. The second layer carries the damage further.",
        11: "11 inputs influence one output. The question is which outputs see past the seam.",
    }.items():
        require(n_wrong != wrong, why)
    require(n_wrong == 10, "A layer of width 7 reaches 3 points to either side. Add up the layers, count both sides.")
    return "Right: 5 points to either side of the seam, 10 of 40. All others cannot tell that the ring was cut."


@ex.exercise(
    "Reading learning curves",
    hints=(
        "Which of the two losses tells how the network does on states it was not trained on?",
        "What is the score of no correction, in these units? The training loss keeps falling: can the network learn?",
    ),
    solution="""
        keep = 40
        harmful = 100
        cure = "C"
    """,
    explanation="""Keep the weights with the smallest *validation* loss. In these units 1 is the score of no correction,
        so a loss above 1 is a correction that does harm. A falling training loss beside a rising validation loss is
        overfitting: 50 times are too few for 4781 parameters. With the whole analysis the two curves stay together.""",
)
def learning_curves(keep, harmful, cure) -> str:
    """The epoch to keep, the first epoch in the table with a correction that does harm, and the letter of a cure."""
    keep, harmful = number(keep, "keep"), number(harmful, "harmful")
    require(keep != 200, "Epoch 200 has the smallest *training* loss: there the network knows its 50 times by heart.")
    require(keep == 40, "Look for the smallest validation loss, and give the number of its epoch.")
    require(harmful != 60, "At epoch 60 the validation loss *rises*, but the network is still better than nothing.")
    require(harmful == 100, "No correction at all scores 1 in these units. When does the network get worse than that?")
    feedback = {
        "A": "More epochs: the validation loss has been rising for 160 epochs.",
        "B": "A larger network learns 50 times by heart still faster.",
        "C": "With more times the network can no longer know them by heart, and must find what they have in common. "
        "Here they cost nothing: the analysis has thousands more.",
        "D": "That hides the symptom: the validation set is the thermometer, not the illness.",
    }
    return choose(cure, "C", feedback)


@ex.exercise(
    "What beats the exact error",
    hints=(
        "Which function of the state predicts the *targets* best? It need not be the error of the model.",
        "The cubic ridge, with 120 coefficients and nothing selected on the validation set, beats the exact error too.",
    ),
    solution='answer_beaten = "C"',
    explanation="""If the errors of the analyses were pure noise, the mean of the targets at a given state would be the
        model's error. But the wrong model has pushed the analysis in the same direction for many steps, and each target
        also repairs a part of that. A network learns it all.""",
)
def why_beaten(answer_beaten) -> str:
    """The letter of the reason why a network explains more of the targets than the exact error."""
    feedback = {
        "A": "Choosing the best epoch on the validation set gains next to nothing here. The ridge chooses nothing.",
        "B": "The place matters little: the exact error at the analyses, `nature(inputs) - physical(inputs)`, explains "
        "about 12 % of the targets as well.",
        "C": "The exact error best predicts the *error*. The best prediction of the *targets* is their mean at a given "
        "state, and a part of the errors of the analysis depends on the state: the habits of the filter.",
        "D": "The noise of the observations is drawn afresh at each time. No function of the state predicts it.",
    }
    return choose(answer_beaten, "C", feedback)


@ex.exercise(
    "What a low $R^2$ is worth",
    hints=(
        "What are the other 82 %? Could any correction of a model predict them?",
        "Compare the two columns of the table in the line of the network: what does each of them measure?",
    ),
    solution='answer_low = "B"',
    explanation="""$R^2$ divides by the mean square of the targets, and most of that is noise. Averaging over many
        targets removes it from the correction, and a forecast with that correction is never scored on it.""",
)
def low_r2(answer_low) -> str:
    """The letter of the right view of R² = 0.18 on increments."""
    feedback = {
        "A": "82 % of the *targets* is left, not of the model's error: that is nearly halved, says the other column.",
        "B": "The rest is mostly noise of the analyses, which enters the targets but no forecast. Of the true error "
        "the same network removes nearly half, about 70 % of its mean square.",
        "C": "The root is a correlation only for a prediction of the best size, and then still one with noisy targets.",
        "D": "The noise is the limit in this column: the network from the truth is far better, and scores even less.",
    }
    return choose(answer_low, "B", feedback)


@functools.cache
def ridge_rmse(noise: float, stream: str = "") -> float:
    """RMSE against the true error of a ridge fitted to true errors plus white noise."""
    (states, errors), (new_states, new_errors) = small_truth()
    fit = CubicRidge(states, errors + noise * draws(*errors.shape, stream=stream), ridge=Experiment().ridge)
    return rms(fit(new_states) - new_errors)


@ex.exercise(
    "Noise or bias",
    hints=(
        "White noise is `torch.randn(old_errors.shape, dtype=old_errors.dtype)` times its standard deviation.",
        "Fit `CubicRidge(old_states, old_errors + noise, ridge=cfg.ridge)`. Score it at the new states.",
    ),
    solution="""
        (old_states, old_errors), (new_states, new_errors) = stages.pairs(cfg.fast(), "truth")
        white = torch.randn(old_errors.shape, generator=torch.Generator().manual_seed(1), dtype=old_errors.dtype)
        noisy_ridge = CubicRidge(old_states, old_errors + 0.185 * white, ridge=cfg.ridge)
        rmse_white = (noisy_ridge(new_states) - new_errors).square().mean().sqrt()
    """,
    explanation="""White noise averages out in a fit of 120 coefficients to 75 000 examples. Errors of analyses that
        depend on the state do not: they are bias. So better analyses help, and not more of them.""",
)
def white_noise(rmse_white) -> str:
    """RMSE against the true error of the ridge from errors with white noise."""
    value = number(rmse_white, "rmse_white")
    clean, mean = ridge_rmse(0.0), (ridge_rmse(0.185, "a") + ridge_rmse(0.185, "b")) / 2
    require(value > 0, "An RMSE is the *root* of a mean square: it is not negative.")
    require(value < 0.1, "That is not the RMSE against the *true* errors: do not score against noisy ones.")
    require(value > mean / 4, "That is the mean square; take its root.")
    require(value < 1.3 * mean, "The ridge *from analyses* errs so much. Fit true errors plus white noise.")
    more = (
        f"{value:.4f}: in the short experiment a fit errs more even without noise, {clean:.4f}. Is yours a longer one?"
    )
    require(value > 0.985 * clean, more + " Take the line given, with `cfg.fast()`, so that it can be checked.")
    told = f"{value:.4f} is what a fit without any noise has. "
    require(abs(value - clean) > 1e-5, told + "Add noise to the targets.")
    told = f"{value:.4f} is hardly more than without noise, {clean:.4f}. "
    require(value > (clean + mean) / 2, told + "Is 0.185 the *standard deviation* of your noise, not its variance?")
    return (
        f"{value:.3f}, hardly more than without noise ({clean:.3f}), and about half of the error of the ridge from "
        "analyses. Independent noise of the same size does next to no harm: bias is what limits learning from analyses."
    )
