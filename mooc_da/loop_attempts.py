"""What notebook 6 tries, each as a function that yields the model it makes and its sigma_q^2 / dt.

Made and measured by :mod:`mooc_da.loop_study`. What an attempt does is its docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from . import stages
from .config import Experiment, seeded
from .cycle import CycleResult, cycle, cycle_windows
from .filters import ETKF
from .learning import fit_likelihood, rollout_loss, split_in_time, training_pairs
from .loop import BURN_IN, PASSES, Recipe, learn, likeliest
from .models import Step, augmented, one_thread
from .networks import CorrectionCNN, CubicRidge, HybridModel, TendencyHybrid
from .observations import Network, Observations, checkerboard, observe, of_state
from .smoothers import EnKS, IEnKS
from .soap import SOAP

CFG = Experiment()
PHYSICAL, NATURE = stages.physical_model(CFG), stages.true_model(CFG)
N_PASSES = 2  # of every attempt
Made = Iterator[tuple[Step, Tensor | float]]  # models (S, ..., Nx) and the sigma_q^2 / dt of each


# What they begin with


def seen(network: Network = checkerboard, std: float = CFG.obs_std, n_times: int = CFG.n_assimilated) -> Observations:
    """Observations of the truth of the five experiments: the course's by default."""
    if (network, std) == (checkerboard, CFG.obs_std):
        return stages.observations(CFG)[:n_times]
    streams = [seeded(CFG.seed + s, "observations of the study") for s in range(CFG.n_seeds)]
    truths = stages.truth(CFG)[:, :n_times]
    single = [observe(x, network, std, generator=g) for x, g in zip(truths, streams, strict=True)]
    return replace(single[0], y=torch.stack([o.y for o in single]))


def first_network(observations: Observations) -> CorrectionCNN:
    """Notebooks 1 and 2 with other observations: filter with the physical model, pairs, one network per experiment."""
    method = stages.enkf(CFG, CFG.model_error_variance)
    analysis = cycle(method, PHYSICAL, observations, stages.climatological_ensemble(CFG)).analysis
    pairs = training_pairs(analysis[:, min(CFG.burn_in, len(observations) // 5) :], PHYSICAL)
    network = stages.untrained(CFG)
    stages.train(CFG, network, *split_in_time(pairs, CFG.validation_fraction, CFG.gap))
    return network


def variance_of(model_error_std: Tensor) -> Tensor:
    """sigma_q of a step as the course tells it, sigma_q^2 / dt."""
    return model_error_std**2 / CFG.dt


def tuned(model: Step) -> tuple[Step, Tensor]:
    """A model with the sigma_q^2 / dt under which it finds the held-out observations likeliest."""
    tuning = likeliest(model, seen()[-300:], stages.climatological_ensemble(CFG))
    return model, variance_of(tuning.model_error_std)


def going_round(
    recipes: Sequence[Recipe],
    hybrid: Callable = HybridModel,
    network: nn.Module | None = None,
    observations: Observations | None = None,
) -> Made:
    """The loop with these recipes and nothing else: no early stop. Yields the last model."""
    network = stages.correction(CFG) if network is None else network.eval()
    observations, start = seen() if observations is None else observations, stages.climatological_ensemble(CFG)
    step_of, generator = partial(hybrid, PHYSICAL), seeded(CFG.seed, "loop")
    held_out = observations[-min(300, len(observations) // 5) :]
    for recipe in recipes:
        tuning = likeliest(step_of(network), held_out, start)
        result = cycle(EnKS(CFG.n_members, lag=recipe.lag, **tuning._asdict()), step_of(network), observations, start)
        learn(network, step_of, recipe, result, observations, generator=generator)
        network.requires_grad_(False)
    tuning = likeliest(step_of(network), held_out, start)
    yield step_of(network), variance_of(tuning.model_error_std)


# Attempts: all go twice round, from the networks of notebook 2


def twice(recipe: Recipe, hybrid: Callable = HybridModel, network: nn.Module | None = None) -> Made:
    """The model after two passes with one recipe."""
    return going_round((recipe,) * N_PASSES, hybrid, network)


INCREMENTS = Recipe(lag=0, n_steps=1, targets="states", epochs=8, batch_size=64, optimizer=torch.optim.Adam)


def plain_repetition() -> Made:
    """Filtered analyses, one step, Adam, as in notebook 2: what is learnt is the increment."""
    return twice(INCREMENTS)


def plain_repetition_to_the_end() -> Made:
    """As plain repetition, but as many passes as the loop has: seven."""
    return going_round((INCREMENTS,) * len(PASSES))


def smoothed_increments() -> Made:
    """Smoothed states as inputs and targets, one step."""
    return twice(Recipe(n_steps=1, targets="states", epochs=8, batch_size=64))


def weighted_increments() -> Made:
    """As before, every target weighted by the inverse variance that the smoother gives it."""
    return twice(Recipe(n_steps=1, targets="states", weighted=True, epochs=8, batch_size=64))


def smoothed_rollouts() -> Made:
    """Rollouts of 8 steps that meet the smoothed states on their way."""
    return twice(Recipe(targets="states"))


def from_filtered_states() -> Made:
    """Rollouts of 8 steps that meet the observations, from filtered analyses, which know none of them."""
    return twice(Recipe(lag=0))


def from_smoothed_states() -> Made:
    """Rollouts of 8 steps that meet the observations, from smoothed states, which know them: the course's choice."""
    return twice(Recipe())


def with_adam() -> Made:
    """As the course's choice, with Adam in the place of SOAP and as many gradient steps."""
    return twice(Recipe(optimizer=torch.optim.Adam))


def correction_of_the_tendency() -> Made:
    """As the course's choice, with the network inside the Runge-Kutta scheme."""
    return twice(Recipe(), TendencyHybrid)


def from_iterated_smoother() -> Made:
    """As the course's choice, once, from the IEnKS over windows of 8 times in the place of the EnKS."""
    network, observations, start = stages.correction(CFG), seen(), stages.climatological_ensemble(CFG)
    hybrid = partial(HybridModel, PHYSICAL)
    tuning = likeliest(hybrid(network), observations[-300:], start)
    method = IEnKS(CFG.n_members, lag=8, shift=8, iterations=4, tolerance=1e-2, **tuning._asdict())
    result = cycle_windows(method, hybrid(network), observations, start)
    learn(network, hybrid, Recipe(), result, observations, generator=seeded(CFG.seed, "loop"))
    yield tuned(hybrid(network.requires_grad_(False)))


def weights_and_states_together() -> Made:
    """4D-Var over the weights and the states at the beginning of windows of 16 times, all windows together.

    Background and its variance: the filter's analysis there. SOAP moves the weights, Adam the states.
    """
    network, observations, start = stages.correction(CFG), seen(), stages.climatological_ensemble(CFG)
    hybrid, generator = partial(HybridModel, PHYSICAL), seeded(CFG.seed, "loop")
    recipe = Recipe(lag=0, n_steps=16)
    for _ in range(N_PASSES):
        tuning = likeliest(hybrid(network.eval()), observations[-300:], start)
        result = cycle(ETKF(CFG.n_members, **tuning._asdict()), hybrid(network), observations, start)
        learn_jointly(network.requires_grad_(True), hybrid, filtered(result), observations[:4000], recipe, generator)
        network.requires_grad_(False)
    yield tuned(hybrid(network.eval()))


def filtered(result: CycleResult) -> CycleResult:
    """A run of a filter as if it came from a smoother of lag zero."""
    return replace(result, smoothed=result.analysis, smoothed_variance=result.variance)


@one_thread()
def learn_jointly(
    network: nn.Module,
    hybrid: Callable,
    result: CycleResult,
    observations: Observations,
    recipe: Recipe,
    generator: torch.Generator,
    epochs: int = 60,
    batch_size: int = 16,
) -> None:
    """Minimise over weights and initial states of windows side by side; the cost of each is that of 4D-Var."""
    n = recipe.n_steps
    pairs = recipe.pairs(result[BURN_IN : len(observations)], observations[BURN_IN:])
    x_b, targets, precision = (p[:, ::n].float() for p in pairs)
    variance = result.smoothed_variance[:, BURN_IN:][:, ::n][:, : x_b.shape[1]].float()
    x_0 = x_b.clone().requires_grad_(True)
    loss, n_windows = rollout_loss(hybrid, n), x_b.shape[1]
    n_batches = -(-n_windows // batch_size)
    weights, states = SOAP(network.parameters(), recipe.learning_rate), torch.optim.Adam([x_0], lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(weights, recipe.learning_rate, total_steps=epochs * n_batches + 1)
    for _ in range(epochs):
        for rows in torch.randperm(n_windows, generator=generator).split(batch_size):
            background = ((x_0[:, rows] - x_b[:, rows]).square() / variance[:, rows]).mean((-2, -1)) / n
            cost = background + loss(network, x_0[:, rows], targets[:, rows], precision[:, rows])
            weights.zero_grad()
            states.zero_grad()
            cost.sum().backward()
            weights.step()
            states.step()
            schedule.step()


def through_the_filter() -> Made:
    """Gradients of the innovations' likelihood through an ETKF, in blocks of 8 times; a pass is one run through."""
    network, observations, start = stages.correction(CFG), seen(), stages.climatological_ensemble(CFG)
    model = HybridModel(PHYSICAL, network)
    for _ in range(N_PASSES):
        method = ETKF(CFG.n_members, **likeliest(model, observations[-300:], start)._asdict())
        parameters = list(network.requires_grad_(True).parameters())
        fit_likelihood(parameters, method, model, observations[:4000], start, block=8, learning_rate=1e-3)
        network.requires_grad_(False)
    yield tuned(model)


def augmented_state() -> Made:
    """Online: 56 coefficients of a cubic polynomial in five neighbours, estimated with the state by an ETKF of 100."""
    size, scale = 100, 0.005  # the scale makes the filter's sigma_q small for the coefficients
    (inputs, targets), _ = stages.pairs(CFG)
    ridge = CubicRidge(inputs, targets, CFG.ridge, reach=2)
    n_coefficients = ridge.terms.shape[1]

    def model_of(theta: Tensor) -> Step:
        def correction(x: Tensor) -> Tensor:  # term by term: all at once would be 56 times the ensemble
            f = ridge.factors(x).unbind(-1)
            terms = zip(theta.unbind(-1), *ridge.terms.tolist(), strict=True)
            return scale * sum(c.unsqueeze(-1) * f[i] * f[j] * f[k] for c, i, j, k in terms)

        return HybridModel(PHYSICAL, correction)

    x = stages.sample(CFG, PHYSICAL, "ensemble", (size,))
    theta = 4.0 * torch.randn(CFG.n_seeds, size, n_coefficients, dtype=x.dtype, generator=seeded(CFG.seed, "theta"))
    online = replace(seen(), network=of_state(checkerboard, n_coefficients))
    method = ETKF(size, model_error_std=0.05, inflation=1.002)  # likeliest of a few over the first 1200 times
    result = cycle(method, augmented(model_of, n_coefficients), online, torch.cat((x, theta), -1))
    learnt = result.analysis[:, -1, CFG.n_sites :]  # (S, 56)

    def model(x: Tensor) -> Tensor:
        return model_of(learnt.reshape(CFG.n_seeds, *(1 for _ in x.shape[1:-1]), n_coefficients))(x)

    yield tuned(model)


def mean_of_networks() -> Made:
    """The mean of the networks of the last three passes of the loop: no further training."""
    n_passes = len(stages.loop(CFG).likelihood)
    networks = [stages.correction(CFG, n_passes=n) for n in range(n_passes - 2, n_passes + 1)]
    model = HybridModel(PHYSICAL, lambda x: sum(network(x) for network in networks) / len(networks))
    yield tuned(model)


# Suspects: what if the loop knew more?


def one_more_pass(states: Tensor, observations: Observations, epochs: int = PASSES[-1].epochs) -> Made:
    """The last recipe once more, from the surrogate, with other starts, other targets or more epochs."""
    network, hybrid, recipe = stages.surrogate(CFG), partial(HybridModel, PHYSICAL), replace(PASSES[-1], epochs=epochs)
    result = CycleResult(states, states, states, states, smoothed=states)
    learn(network, hybrid, recipe, result, observations, generator=seeded(CFG.seed, "loop"))
    yield tuned(hybrid(network.requires_grad_(False)))


def true_states() -> Tensor:
    """The truth of the assimilated times."""
    return stages.truth(CFG)[:, : CFG.n_assimilated]


def once_more() -> Made:
    """One more pass as it was: what the suspects are compared with."""
    return going_round((PASSES[-1],), network=stages.surrogate(CFG))


def once_more_and_longer() -> Made:
    """As once more, with four times the epochs."""
    return going_round((replace(PASSES[-1], epochs=4 * PASSES[-1].epochs),), network=stages.surrogate(CFG))


def from_true_starts() -> Made:
    """One more pass whose rollouts start from the truth; the observations are as noisy as ever."""
    return one_more_pass(true_states(), seen())


def to_perfect_observations() -> Made:
    """One more pass from true starts, to observations without noise, still of half the points."""
    return one_more_pass(true_states(), seen(std=1e-6))


def from_true_starts_and_longer() -> Made:
    """As from true starts, with four times the epochs."""
    return one_more_pass(true_states(), seen(), 4 * PASSES[-1].epochs)


def to_perfect_observations_and_longer() -> Made:
    """As to perfect observations, with four times the epochs."""
    return one_more_pass(true_states(), seen(std=1e-6), 4 * PASSES[-1].epochs)


ATTEMPTS = (plain_repetition, plain_repetition_to_the_end, smoothed_increments, weighted_increments,
            smoothed_rollouts, from_filtered_states, from_smoothed_states, with_adam, weights_and_states_together,
            through_the_filter, correction_of_the_tendency, from_iterated_smoother, augmented_state,
            mean_of_networks)  # fmt: skip
SUSPECTS = (once_more, once_more_and_longer, from_true_starts, from_true_starts_and_longer, to_perfect_observations,
            to_perfect_observations_and_longer)  # fmt: skip
