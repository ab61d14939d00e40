"""Exercises of notebook 3: the hybrid, its skill, its climate and its chaos, and its way back into the filter."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config import seeded
from ..models import repeated, rk4, trajectory
from ..networks import CubicRidge, HybridModel
from ..scores import forecast_errors, skill_horizon
from ._hybrids import chaos, few_networks, from_noisy_starts, gains, horizon, states, true_runs
from ._hybrids import innovations_over_expected as innovations
from ._twins import CFG, NATURE, PHYSICAL
from .exercise import Exercises, call, choose, close, number, require, tensor, unlike

ex = Exercises("3_hybrid")


@ex.exercise(
    "A step of the hybrid, by hand",
    hints=(
        "The network was trained with the state *before* the step as its input. Which state must it see here?",
        "One line: the model's step from `x`, plus the correction at the same `x`.",
    ),
    solution="""
        def hybrid_step(x, model, correction):
            return model(x) + correction(x)
    """,
    explanation="""This is all that `HybridModel` does. The pairs of notebook 2 were ($x^a_{k-1}$, what the step from
        there lacked), so input and use agree, and the time step is already inside the target. A hybrid with a zero
        correction that is not the physical model *to the last bit* has a bug somewhere: the cheapest test there is.""",
)
def step_of_hybrid(hybrid_step) -> str:
    """The next state of physics plus correction, for states (..., Nx)."""
    x = PHYSICAL.random_state((3,), generator=seeded(3, "states"))

    def correction(z: Tensor) -> Tensor:
        return 0.1 * z.roll(1, -1).tanh()

    value = tensor(call(hybrid_step, x, PHYSICAL, correction), x.shape, "The next state")
    after, before = PHYSICAL(x), PHYSICAL(x + correction(x))
    mistakes = {
        "This is the physical model alone.": after,
        "You gave the network the *new* state. It was trained on the one before.": after + correction(after),
        "You corrected the state *before* the step. The network knows what the step lacks.": before,
        "The correction is already that of a whole step. No `dt` here.": after + CFG.dt * correction(x),
        "This is the state plus the correction: where is the model's step?": x + correction(x),
        "The sign: the correction is what the step *lacks*, so it is added.": after - correction(x),
    }
    unlike(value, mistakes)
    require(close(value, after + correction(x)), "Add the correction at $x_k$ to the step from $x_k$, no more.")
    alone = torch.as_tensor(call(hybrid_step, x, PHYSICAL, torch.zeros_like))
    single = "Your step returns single precision (float32): of 16 digits 7 are left. Keep the precision of `model(x)`."
    require(alone.dtype == x.dtype, single)
    rounded = "With a zero correction it is the physical model only up to rounding: use `model(x)` as it is."
    require(torch.equal(alone, after), rounded)
    return "With a zero correction it is the physical model to the last bit; the network sees what it was trained on."


@ex.exercise(
    "Where a forecast error saturates",
    hints=(
        "With the climate's mean $m$ write the error as $(\\bar b - m) - (a - m)$, square it, and take the mean.",
        "Independent scatters add as squares. The truth's is $s^2$. What is left of it in a mean of $n$ states?",
    ),
    solution="""
        def saturation(n):
            return (1 + 1 / n) ** 0.5
    """,
    explanation=r"""$\overline{(\bar b - a)^2} = \overline{(\bar b - m)^2} + \overline{(a - m)^2} = s^2 / n + s^2$. One
        lost forecast errs by $\sqrt 2\, s$, for it scatters as widely as the truth. The mean of a large ensemble tends
        to $m$ and errs by $s$ only. So past an error of $s$ a single forecast is worse than knowing the climate, and
        an ensemble mean is not: it says less and less.""",
)
def saturation_level(saturation) -> str:
    """RMSE, in standard deviations, of the mean of n lost forecasts."""
    x = true_runs()
    for n in (4, 25, 1):
        value, right, told = number(call(saturation, n)), (1 + 1 / n) ** 0.5, f"For n = {n}: "
        mistakes = {
            "that is one forecast. The mean of several scatters less.": 2**0.5,
            "averaging the forecasts does not average the truth. Its scatter stays whole.": (2 / n) ** 0.5,
            "the truth scatters, too.": n**-0.5,
            "that is the limit of a very large ensemble.": 1.0,
            "that is the mean *square*. Take its root.": 1 + 1 / n,
            "independent scatters add as *squares*.": 1 + n**-0.5,
            "a mean of $n$ independent states has the variance $s^2 / n$, not $n s^2$.": (1 + n) ** 0.5,
            "the variances of independent states add, also in a difference.": (1 - 1 / n) ** 0.5,
            "in units of $s$, please: leave the standard deviation out.": float(x.std()) * right,
        }
        for message, wrong in mistakes.items():
            if abs(wrong - right) > 0.01:
                unlike(value, {message: wrong}, 0.01, told)
        require(abs(value - right) < 0.01, told + f"not {value:.3f}. Add the mean squares of the two scatters.")
    lost = [torch.stack([x[:, -1].roll(k, 0) for k in range(1, n + 1)]).mean(0) for n in (1, 4, 25)]
    errors = [f"{(b - x[:, -1]).square().mean().sqrt() / x.std():.2f}" for b in lost]
    told = "Tried on states of the true runs: one misses another by {} $s$, a mean of 4 by {}, a mean of 25 by {}."
    return told.format(*errors)


@ex.exercise(
    "The skill horizon, by hand",
    hints=(
        "`(errors > threshold).nonzero()` lists the leads above the threshold; the first one is $k$. It may be empty.",
        "From $(k - 1, e_{k-1})$ to $(k, e_k)$: the threshold $e$ is met at $k - 1 + (e - e_{k-1}) / (e_k - e_{k-1})$.",
    ),
    solution="""
        def my_horizon(errors, threshold, dt):
            above = (errors > threshold).nonzero()
            if len(above) == 0:
                return torch.nan
            k = int(above[0])
            part = (threshold - errors[k - 1]) / (errors[k] - errors[k - 1])
            return (k - 1 + part) * dt
    """,
    explanation="""`skill_horizon` does the same for a batch of curves. Without interpolation the answer jumps in steps
        of 0.05 MTU, as much as the networks differ. A forecast that never fails within the run has *no* known horizon:
        NaN says so, while the last lead would be counted as if it had been measured.""",
)
def horizon_by_hand(my_horizon) -> str:
    """The lead, MTU, at which a curve of errors (T + 1,) first passes a threshold."""

    def steps(errors: Tensor, threshold: float) -> float:
        return number(call(my_horizon, errors, threshold, CFG.dt), "The horizon") / CFG.dt

    ramp = 0.3 * torch.arange(11, dtype=torch.float64)  # passes 1 after 3 1/3 steps
    value = steps(ramp, 1.0)
    mistakes = {
        "That is in steps. A lead in MTU is the number of steps times `dt`.": 10 / 3 / CFG.dt,
        "Zero is the first lead *below* the threshold. Look for the first one above it.": 0.0,
        "Your weights are the wrong way round: the horizon lies nearer to the lead whose error is nearer.": 11 / 3,
    }
    unlike(value, mistakes)
    for whole in (3, 4, 3 / CFG.dt, 4 / CFG.dt):
        unlike(value, {"A whole number of steps. Where *between* two leads does the line pass the threshold?": whole})
    require(abs(value - 10 / 3) < 1e-6, f"Errors 0, 0.3, 0.6, … pass 1 after 3 1/3 steps, not {value:.3f}.")
    bumpy = torch.tensor([0.0, 0.5, 1.4, 0.8, 0.9, 1.6], dtype=torch.float64)
    require(abs(steps(bumpy, 1.0) - 14 / 9) < 1e-6, "A curve may pass, dip and pass again. The *first* time counts.")
    hump = torch.tensor([0.0, 0.4, 1.2, 1.5, 1.1, 0.7, 0.3], dtype=torch.float64)
    back = "A curve may end below the threshold. It has passed it all the same, and the *first* time counts."
    require(abs(float(call(my_horizon, hump, 1.0, CFG.dt)) / CFG.dt - 1.75) < 1e-6, back)
    for seed in range(20):
        curve = torch.rand(30, dtype=torch.float64, generator=seeded(seed, "curve"))
        curve = curve.cumsum(0) / 4 if seed < 3 else 2 * curve * (torch.arange(30) > seed)  # rising, or up and down
        distance = float(call(my_horizon, curve, 1.0, CFG.dt)) - float(skill_horizon(curve, 1.0, CFG.dt))
        told = f"For a curve that {'rises unevenly' if seed < 3 else 'goes up and down'} it is not right yet."
        require(abs(distance) < 1e-6, told + " Does your method need a rising curve, or even steps?")
    never = my_horizon(ramp.clone(), 9.0, CFG.dt)
    told = "This curve never passes its threshold, and "
    require(never is not None, told + "your function ends without a `return` there: return `torch.nan`.")
    never = torch.as_tensor(never)
    require(never.isnan().all(), told + f"you say {never.flatten()[0]:.2f}: return `torch.nan`.")
    return "The same as `skill_horizon`, for smooth, bumpy and unfinished curves."


@ex.exercise(
    "How much of the advantage survives",
    hints=(
        "For each noise you need four horizons: of both models, from the truth and from noisy starts.",
        "(hybrid - physical, from noisy starts) / (hybrid - physical, from the truth), with means over the networks.",
    ),
    solution="""
        def advantage(noise):
            true_runs = stages.forecast_truth(cfg)[:300, :46].expand(2, -1, -1, -1)  # enough, and quick
            exact = true_runs[..., 0, :]
            noisy = exact + noise * torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
            steps = (physical, HybridModel(physical, stages.correction(cfg).select(slice(0, 2))))
            curves = [forecast_errors(step, true_runs, starts=noisy) for step in steps]
            t50 = [skill_horizon(curve, float(true_runs.std()) / 2, cfg.dt).mean() for curve in curves]
            return float(t50[1] - t50[0])

        exact, small, large = (advantage(noise) for noise in (0, 0.2, 1))
        survives_02, survives_1 = small / exact, large / exact
    """,
    explanation="""An error of the start grows in both models; chaos sees to that. The better model makes less error of
        its own. With good starts this is worth a lot, with poor ones nearly nothing. A forecast needs both, good
        starts and a good model. In the filter (section 6) the hybrid improves the starts, too.""",
)
def surviving_advantage(survives_02, survives_1) -> str:
    """Share of the gain in horizon that is left from starts with noise of 0.2 and of 1."""
    h = from_noisy_starts()
    for noise, answer, tolerance in ((0.2, survives_02, 0.07), (1.0, survives_1, 0.04)):
        share, told, (physical, hybrid) = number(answer, "The share"), f"Starts with noise {noise}: ", h[noise]
        right = (hybrid - physical) / (h[0.0][1] - h[0.0][0])
        if abs(share - right) > tolerance:
            require(abs(share) <= 2, told + "give a share, a number between 0 and 1.")
            mistakes = {
                "that is the share that is *lost*.": 1 - right,
                "that is a ratio of the hybrid's horizons. Its advantage is hybrid minus physical.": hybrid / h[0.0][1],
                "compare *differences* of horizons, not their ratios.": hybrid / physical * h[0.0][0] / h[0.0][1],
                "that is in MTU. Which share is it of the advantage from the truth?": hybrid - physical,
            }
            unlike(share, mistakes, 0.025, told)
        require(abs(share - right) < tolerance, told + f"not {share:.2f}. Both advantages are hybrid minus physical.")
    told = "Starts as good as an analysis leave most of it, {1:.2f} against {0:.2f} MTU in this quick check. "
    return told.format(*h[0.2]) + "Five times as poor, both fail early: {1:.2f} and {0:.2f} MTU.".format(*h[1.0])


@ex.exercise(
    "A clock that runs slow",
    hints=(
        "Which states does this model visit, how often, and when?",
        "Multiplying the whole tendency by 0.95 moves along the same curves in state space, only more slowly.",
    ),
    solution='clock = "C"',
    explanation="""It follows nature's own orbits, only slowly. Statistics of the climate count which states occur, not
        when. So a model can have the right climate and forecast poorly; the hybrid forecasts well and has a wrong one.
        (The Lyapunov exponent here is 5 % too small, less than experiments differ in the next section.)""",
)
def slow_clock(clock) -> str:
    """Which score sees that a model's time runs 5 % too slowly."""

    def slow(x: Tensor) -> Tensor:
        return rk4(lambda z: 0.95 * NATURE.tendency(z), x, CFG.dt)

    truth = true_runs()[:100, :61]
    later = repeated(slow, 20)(truth)
    before, after = (f"mean {x.mean():.2f}, standard deviation {x.std():.2f}" for x in (truth, later))
    feedback = {
        "A": f"The same states, equally often. True states: {before}; 20 steps of this model later: {after}.",
        "B": "The spectrum is a mean over states, taken one by one. The same states have the same spectrum.",
        "C": f"It lags behind nature: a horizon of {horizon(slow, truth):.1f} MTU. Mean, std, spectrum are nature's.",
        "D": "It has the right states, at the wrong times. A forecast is compared with nature at its own time.",
    }
    return choose(clock, "C", feedback)


@ex.exercise(
    "The Lyapunov exponent from two runs",
    hints=(
        "Perturb `x0` by about $10^{-6}$, step both runs, and add up the logarithms of the factors of separation.",
        "After each step `y = x + (y - x) * d0 / d` with `d = (y - x).norm(dim=-1, keepdim=True)`; divide by *time*.",
    ),
    solution="""
        def growth_rate(step, x0, n_steps, dt):
            x, y = x0, x0 + 1e-6 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
            d0, log_growth = (y - x).norm(dim=-1, keepdim=True), 0.0
            for _ in range(n_steps):
                x, y = step(x), step(y)
                d = (y - x).norm(dim=-1, keepdim=True)
                log_growth = log_growth + (d / d0).log()
                y = x + (y - x) * d0 / d
            return float(log_growth.mean()) / (n_steps * dt)
    """,
    explanation="""This needs nothing but the model's step, no derivative, so it works for any model that can run. The
        difference must stay small, so it is brought back again and again, and what it lost is kept in the sum of logs.
        Without that, it grows to the size of the attractor within some ten MTU and then stops.""",
)
def growth_of_differences(growth_rate) -> str:
    """Largest exponent per MTU, averaged over the runs x0 (..., Nx)."""
    rates, ones = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.ones(2, 5, dtype=torch.float64)
    value = number(call(growth_rate, lambda x: (rates * CFG.dt).exp() * x, ones, 100, CFG.dt), "The growth rate")
    told = "Two linear models, in which differences grow like $e^{0 t}$ and $e^{t}$, have a mean rate of 0.5 per MTU. "
    unlike(value, {"Yours is per *step*: divide by the time in MTU.": 0.5 * CFG.dt}, 0.003, told)
    unlike(value, {"Yours is that of the whole run: divide by its length in MTU.": 2.5}, 0.05, told)
    require(not abs(value) < 0.01, told + "Yours depends on the first distance: take the logarithm of the *factor*.")
    require(not 0.8 < value < 1.01, told + "Take the logarithm in each run *first*, then the mean over the runs.")
    require(value < 1.01, told + "You measure how far the runs separate. An exponent is the rate of a *logarithm*.")
    require(abs(value - 0.5) < 0.005, told + f"Yours is {value:.3g}: the mean of $\\ln(d_{{k+1}} / d_k)$, per time?")
    x0, exponent = chaos()
    value = number(call(growth_rate, PHYSICAL, x0, 300, CFG.dt))
    told = f"For the physical model you find {value:.2f}, and the exact linearised step {exponent:.2f} per MTU"
    require(value > 0.88 * exponent, told + ": the difference is not small. Bring it back to size after each step.")
    require(value < 1.12 * exponent, told + ": did rounding spoil a difference that is too tiny?")
    return told + ", along the same four runs of 15 MTU. No derivative was needed."


@ex.exercise(
    "The correction of another step",
    hints=(
        "The correction is what the model misses *in* 0.05 MTU. How much does it miss in half of that time?",
        "A systematic error grows in proportion to the time: multiply by `new_dt / old_dt`, inside a function of `x`.",
    ),
    solution="""
        def rescaled(correction, old_dt, new_dt):
            return lambda x: correction(x) * (new_dt / old_dt)
    """,
    explanation=r"""A tendency error $g$ adds up to $g\, \Delta t$ in a step, to first order. Noise is different: its
        *variance* is proportional to the time, so $\sigma_q$ scales with $\sqrt{\Delta t}$; hence the course gives
        $\sigma_q^2 / \Delta t$. The first order is good for shorter steps, rougher for longer ones.""",
)
def another_step(rescaled) -> str:
    """A correction of the old step made into one of the new step."""
    network, truth = few_networks(), true_runs()[:50, :21].expand(2, -1, -1, -1)
    x = truth[:, :3, 0]
    for ratio in (0.5, 0.4, 2.0):
        function = call(rescaled, network, CFG.dt, ratio * CFG.dt)
        value, told = tensor(call(function, x), x.shape, "The new correction"), f"For `new_dt` = {ratio:g} `old_dt`: "
        if ratio == 0.4:
            rounded = told + "the number of new steps in an old one is not whole. Do not round it."
            for n_steps in (2, 3):
                unlike(value, {rounded: network(x) / n_steps})
        mistakes = {
            "nothing has changed. But a shorter step comes more often, and a longer one more rarely.": 1,
            "it is the wrong way round: a longer step misses more.": 1 / ratio,
            "the square root is the rule for random errors. This one is the same each time.": ratio**0.5,
            "this is a tendency, per MTU. What is missing is its time step.": 1 / CFG.dt,
        }
        unlike(value, {message: factor * network(x) for message, factor in mistakes.items()}, told=told)
        require(close(value, ratio * network(x)), told + f"the factor should be {ratio:g}.")
    half = replace(PHYSICAL, dt=CFG.dt / 2)
    old, new = (repeated(HybridModel(half, c), 2) for c in (network, rescaled(network, CFG.dt, half.dt)))
    rmse = [f"{forecast_errors(m, truth)[:, -1].mean():.2f}" for m in (PHYSICAL, old, new)]
    return "RMSE at 1 MTU: physical model {}, hybrid with half steps {} without rescaling and {} with it.".format(*rmse)


@ex.exercise(
    "What the innovations say about the hybrid",
    hints=(
        'With 300 `times`, `diagnostics["chi2"]` has the shape (1, 300). Leave out the first 100 of them.',
        "Below 1 the filter expects larger innovations than it gets. Which part of what it expects can be chosen?",
    ),
    solution="""
        from dataclasses import replace

        hybrid_of_one = HybridModel(physical, stages.correction(cfg).select(slice(0, 1)))
        last = slice(cfg.n_assimilated - 300, cfg.n_assimilated)
        with_old = stages.assimilate(replace(cfg, n_seeds=1), hybrid_of_one, 0.3, times=last)
        consistency = float(with_old.diagnostics["chi2"][..., 100:].mean())
        change = "A"
    """,
    explanation="""The variance that the filter expects contains $\\sigma_q^2$. With the *old* model's error in it, the
        filter spreads too widely and trusts the hybrid's forecasts too little. The innovations show this without any
        look at the truth, as did the likelihood above. The adaptive inflation cannot help: it only inflates.""",
)
def innovations_of_hybrid(consistency, change) -> str:
    """chi2 of the hybrid with the old model error, and what to do about it."""
    chi2 = innovations()
    old, new, early = float(chi2[0][100:].mean()), float(chi2[1][100:].mean()), float(chi2[0].mean())
    value = number(consistency, "The consistency")
    mistakes = {
        "The first 100 times are in it, in which the filter forgets its start: leave them out.": early,
        "A filter with a *tenth* of the model error gives this. Is it the hybrid, with 0.3?": new,
        "This is a ratio of standard deviations; `chi2` compares squares.": old**0.5,
    }
    unlike(value, mistakes, 0.03)
    told = f"Not {value:.2f}. Run the hybrid with 0.3 over the times of the text, which end with the *assimilated* ones"
    require(abs(value - old) < 0.01, told + " (not with the last of all), and leave out the first 100 of them.")
    feedback = {
        "A": f"The ratio is {old:.2f} with 0.3, and {new:.2f} with 0.03: "
        "the innovations ask for less model error, and nobody looked at the truth.",
        "B": "A ratio below 1 says that the filter expects *larger* innovations than come. More would make it worse.",
        "C": "The adaptive inflation only inflates; it is at 1 already. What else widens the forecast ensemble?",
        "D": "The truth is not at hand in practice. What do the innovations say by themselves?",
    }
    return choose(change, "A", feedback)


@ex.exercise(
    "A second pass that makes it worse",
    hints=(
        "What does a network learn from what the *hybrid* lacks, and to which model is it added then?",
        "Either both lines use the physical model, or both use the hybrid. Which one do you want to carry along?",
    ),
    solution="""
        def second_pass(states, model, old, learn):
            inputs, targets = training_pairs(states, model)
            return HybridModel(model, learn(inputs, targets))
    """,
    explanation="""Pairs made with the hybrid hold only the *remainder* of the error. Added to the physical model alone,
        it replaces the first correction instead of completing it. The loop needs the hybrid for better analyses, and
        the physical model for the pairs. Whatever makes the pairs must be what the correction is added to.""",
)
def second_pass_repaired(second_pass) -> str:
    """The hybrid after a second pass, learnt from states (K, Nx)."""
    wrong = replace(PHYSICAL, forcing=CFG.forcing - 1)  # not the model of the notebook
    x, fresh = trajectory(NATURE, states(1, "pass")[0], 250), states(50, "fresh")
    error, seen = NATURE(fresh) - wrong(fresh), []

    def timid(z: Tensor) -> Tensor:
        return 0.7 * (NATURE(z) - wrong(z))

    def learn(inputs: Tensor, targets: Tensor) -> CubicRidge:
        seen.append(targets)
        return CubicRidge(inputs, targets)

    model = call(second_pass, x, wrong, timid, learn)
    correction = tensor(call(model, fresh), fresh.shape, "The next state") - wrong(fresh)
    slope = float((correction * error).sum() / error.square().sum())
    told = f"The first correction was 0.70 of the true error; with your second pass it is {slope:.2f} of it. "
    require(seen, told + "Nothing was learnt from the new states: call `learn`.")
    lacked = x[1:] - PHYSICAL(x[:-1])
    elsewhere = "Your pairs are made with the notebook's `physical`. Use the argument `model`: here it is another one."
    unlike(tensor(seen[-1], lacked.shape, "The targets given to `learn`"), {elsewhere: lacked})
    mistakes = {
        "This is the remainder alone: the first correction has got lost.": 0.3,
        "What the first pass had learnt is in there twice.": 1.7,
        "That is the first correction: is what you return made of what you learnt?": 0.7,
    }
    unlike(slope, mistakes, 0.1, told)
    require(abs(slope - 1) < 0.1, told + "Make the pairs with the same model to which you add what is learnt.")
    if seen[-1].square().mean() < 0.5 * (x[1:] - wrong(x[:-1])).square().mean():
        return told + "The remainder on top of the *hybrid* is right, too, but each pass adds a network to carry."
    return told + "Pairs and hybrid use the same physical model, and one network holds all that it lacks."


@ex.exercise(
    "A climate it has never seen",
    hints=(
        "`repeated(step, 200)(runs[:200, -1])` gives the starts, with the new nature as the `step`.",
        "Expand a `trajectory` of 50 steps to `(cfg.n_seeds, 200, 51, 40)`; then as before, with half the *new* std.",
    ),
    solution="""
        from dataclasses import replace

        stronger, updated = replace(nature, forcing=10.5), replace(physical, forcing=10.0)
        new_starts = repeated(stronger, 200)(stages.forecast_truth(cfg)[:200, -1])
        new_runs = trajectory(stronger, new_starts, 50).expand(cfg.n_seeds, -1, -1, -1)
        new_models = (updated, HybridModel(updated, stages.correction(cfg)))
        curves = [forecast_errors(step, new_runs) for step in new_models]
        new_threshold = float(new_runs.std()) / 2
        t50 = [skill_horizon(curve, new_threshold, cfg.dt).mean() for curve in curves]
        gain = float(t50[1] / t50[0])
    """,
    explanation="""The two equations differ as they did before. New are the states: large values are more frequent than
        in the data that the network has learnt from. The change of forcing is carried by the physical half; a network
        in place of the whole model would not know of it. A gain is measured in one climate, and belongs to it.""",
)
def other_climate(new_threshold, gain) -> str:
    """Half of the new std, and the horizon of the hybrid over that of the physical model, both forcings raised by 2."""
    threshold, value, known = number(new_threshold, "new_threshold"), number(gain, "gain"), gains()
    mistakes = {
        "That is *half* of the standard deviation of the old climate. Take it from the new runs.": known.old_threshold,
        "That is the standard deviation. The threshold is half of it.": 2 * known.new_threshold,
    }
    unlike(threshold, mistakes, 0.03)
    told = f"The threshold is not {threshold:.2f}: half of the standard deviation of the new true runs is asked for. "
    told += "Have their starts lived with the new forcing for 200 steps first?"
    require(abs(threshold - known.new_threshold) < 0.03, told)
    mistakes = {
        "Upside down: divide the hybrid's horizon by that of the physical model.": 1 / known.right,
        "The physical model's forcing should rise, too. Only the network knows of no change.": known.old_physical,
    }
    unlike(value, mistakes, 0.08)
    require(
        value < known.right + 0.08, "Too near to that of the *old* climate. Are your forecasts scored on the new runs?"
    )
    told = f"Not {value:.2f}. Check the starts (`runs[:200, -1]`, then 200 steps of the new nature) and both models."
    require(abs(value - known.right) < 0.08, told)
    told = f"Still better, but less so: {known.right:.1f} times the horizon; in its own climate "
    return told + f"it was {known.old_climate:.1f} times."
