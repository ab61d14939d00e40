"""Closing the loop: what each pass is told and learns, what it never sees, and which network it ends with."""

import inspect
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch.testing import assert_close

from mooc_da import loop
from mooc_da.config import seeded
from mooc_da.cycle import CycleResult, cycle
from mooc_da.filters import ETKF, FilterDivergence
from mooc_da.learning import training_pairs
from mooc_da.loop import Recipe, Tuning, chosen, close_the_loop, learn, likeliest, likelihoods
from mooc_da.models import Lorenz96, spin_up, trajectory
from mooc_da.networks import CorrectionCNN, HybridModel
from mooc_da.observations import checkerboard, everywhere, observe

SITES, MEMBERS, TIMES, HELD_OUT = 8, 10, 200, 160  # ... the first that is held out
PHYSICAL, NATURE = Lorenz96(), Lorenz96(forcing=10.0)  # what is to be learnt: about 0.1 at every step
HYBRID = partial(HybridModel, PHYSICAL)
QUICK = Recipe(epochs=2, batch_size=16, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few times and few candidates."""
    for name, value in {"N_TUNING": 40, "N_FORGET": 15, "BURN_IN": 20}.items():
        monkeypatch.setattr(loop, name, value)
    monkeypatch.setattr(loop, "SIGMAS", (0.1, 0.03))


@cache
def experiment(seed, n_times, network, sigma):
    """Truth, observations and a start, with random numbers of their own."""
    first, *sample = (
        spin_up(model, states=model.random_state(shape, SITES, generator=seeded(seed, "states")), n_steps=200)
        for model, shape in ((NATURE, ()), (PHYSICAL, (MEMBERS,)))
    )
    truth = trajectory(NATURE, first, n_times - 1)
    if sigma:
        noise = sigma * torch.randn(truth.shape, dtype=truth.dtype, generator=seeded(seed, "model error"))
        for k in range(1, n_times):
            truth[k] = NATURE(truth[k - 1]) + noise[k]
    return truth, observe(truth, network, 0.2, generator=seeded(seed, "observations")), *sample


def problem(*seeds, n_times=TIMES, network=checkerboard, sigma=0.0):
    """Truth (S, K, Nx), its observations and a start for S experiments."""
    truths, seen, starts = zip(*(experiment(seed, n_times, network, sigma) for seed in seeds), strict=True)
    return torch.stack(truths), replace(seen[0], y=torch.stack([s.y for s in seen])), torch.stack(starts)


def untrained(*seeds, batch=True):
    """A small network per seed that corrects nothing yet, scaled as for these states."""
    network = CorrectionCNN(
        (len(seeds),) if batch else (), (6,), (3, 1), generators=[seeded(seed, "weights") for seed in seeds]
    )
    network.x_mean.fill_(2.3)
    network.x_std.fill_(3.6)
    network.y_std.fill_(0.1)
    with torch.no_grad():
        network.layers[-1].weight.zero_()
    return network.requires_grad_(False)


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def run(network, observations, start, *recipes, seed=1, **options):
    """All passes, and the weights at each."""
    generator = torch.Generator().manual_seed(seed)
    going = close_the_loop(network, HYBRID, observations, start, recipes, generator=generator, **options)
    return tuple(zip(*((done, weights(network)) for done in going), strict=True))


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


# A recipe


@pytest.mark.parametrize(
    ("wrong", "message"),
    (
        ({"targets": "truth"}, "targets = 'truth': expected 'observations' or 'states'"),
        ({"lag": -1}, "lag = -1"),
        ({"n_steps": 0}, "n_steps = 0"),
        ({"epochs": 0}, "epochs = 0.*expected positive"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
    ),
)
def test_a_recipe_that_cannot_be_followed_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)
    with pytest.raises(ValueError, match=message):
        replace(Recipe(), **wrong)


def labelled(n_times=12):
    """States 100 k + n, with variances, as if of a smoother, and their nearly perfect observations."""
    states = 100.0 * torch.arange(n_times, dtype=torch.float64)[:, None] + torch.arange(SITES)
    variance = 1.0 + states
    seen = observe(states, checkerboard, 1e-3, generator=torch.Generator().manual_seed(1))
    result = CycleResult(*4 * (-states,), smoothed=states + 0.25, smoothed_variance=variance)
    return states, variance, result, seen


def test_rollouts_start_from_smoothed_states_and_meet_observations_of_the_same_times():
    states, _, result, seen = labelled()
    inputs, targets, precision = Recipe(n_steps=3).pairs(result, seen)
    assert torch.equal(inputs, states[:9] + 0.25)
    for i in range(9):
        for j in range(3):
            k = i + j + 1
            t, p = (part[i].view(3, SITES)[j] for part in (targets, precision))
            assert_close(t[k % 2 :: 2], states[k, k % 2 :: 2], atol=1e-2, rtol=0)
            assert_close(p[k % 2 :: 2], torch.full((SITES // 2,), 1e6, dtype=torch.float64))
            assert (p[1 - k % 2 :: 2] == 0).all()


@pytest.mark.parametrize("weighted", (False, True))
def test_rollouts_may_meet_states_instead_which_count_by_their_variance_if_asked(weighted):
    states, variance, result, seen = labelled()
    inputs, targets, *precision = Recipe(n_steps=2, targets="states", weighted=weighted).pairs(result, seen)
    assert torch.equal(inputs, states[:10] + 0.25)
    assert torch.equal(targets, torch.cat((states[1:11], states[2:12]), -1) + 0.25)
    assert len(precision) == weighted
    if weighted:
        assert_close(precision[0], 1 / torch.cat((variance[1:11], variance[2:12]), -1))


# What the filter is told


@pytest.mark.parametrize("sigma", (0.3, 0.03))
def test_the_likeliest_model_error_is_the_one_there_is(sigma, seed, monkeypatch):
    monkeypatch.setattr(loop, "SIGMAS", (1.0, 0.3, 0.1, 0.03, 0.01))
    monkeypatch.setattr(loop, "INFLATIONS", (1.0,))
    _, seen, start = problem(seed, n_times=300, network=everywhere, sigma=sigma)
    tuning = likeliest(NATURE, seen, start)
    assert tuning.model_error_std.shape == tuning.inflation.shape == (1,)
    assert tuning.model_error_std.item() == sigma


def test_it_is_the_candidate_whose_own_run_has_the_largest_likelihood(monkeypatch):
    monkeypatch.setattr(loop, "SIGMAS", (0.3, 0.1, 0.05))
    monkeypatch.setattr(loop, "INFLATIONS", (1.0, 1.1))
    _, seen, start = problem(1, 2, n_times=80)
    likelihoods = {
        (sigma, inflation): cycle(ETKF(MEMBERS, inflation, sigma), PHYSICAL, seen, start)
        .diagnostics["log_likelihood"][:, 15:]
        .mean(-1)
        for sigma in (0.3, 0.1, 0.05)
        for inflation in (1.0, 1.1)
    }
    tuning = likeliest(PHYSICAL, seen, start)
    for s in range(2):
        best = max(likelihoods, key=lambda told: likelihoods[told][s])
        assert (tuning.model_error_std[s], tuning.inflation[s]) == best


def test_an_experiment_is_told_the_same_alone_and_in_a_batch():
    (_, first, start1), (_, second, start2) = problem(1, sigma=0.2, n_times=100), problem(2, n_times=100)
    both = replace(first, y=torch.cat((first.y, second.y)))
    together = likeliest(NATURE, both, torch.cat((start1, start2)))
    alone = [likeliest(NATURE, seen, start) for seen, start in ((first, start1), (second, start2))]
    single = likeliest(NATURE, replace(first, y=first.y[0]), start1[0])
    assert together.model_error_std.tolist() == [0.1, 0.03]
    for part in range(2):
        assert torch.equal(together[part], torch.cat([told[part] for told in alone]))
        assert single[part].shape == () and single[part] == together[part][0]


def test_times_at_which_nothing_is_seen_do_not_hide_the_rest():
    _, seen, start = problem(1, 2, n_times=100)
    y = seen.y.clone()
    y[:, 40:45] = torch.nan
    assert torch.equal(*(likeliest(NATURE, s, start).model_error_std for s in (seen, replace(seen, y=y))))


def test_a_candidate_under_which_the_filter_diverges_is_left_out(monkeypatch):
    _, seen, start = problem(1, 2, n_times=80)
    monkeypatch.setattr(loop, "INFLATIONS", (1.0,))
    monkeypatch.setattr(loop, "SIGMAS", (0.3, 0.1))
    expected = likeliest(PHYSICAL, seen, start)
    monkeypatch.setattr(loop, "SIGMAS", (1e200, 0.3, 0.1))
    assert torch.equal(likeliest(PHYSICAL, seen, start).model_error_std, expected.model_error_std)


def test_an_experiment_that_diverges_does_not_decide_for_another():
    _, seen, start = problem(1, 2, n_times=80)
    sane = likelihoods(PHYSICAL, seen, start, torch.tensor([[0.3, 1.0], [0.1, 1.0]]).double())

    def blows_up(x):  # the model of the second experiment, once the filter has moved it: it sees 1e3 too much
        return torch.where(x.abs() > 100, torch.inf, PHYSICAL(x))

    y = seen.y.clone()
    y[1, 60:] += 1e3
    spoilt = replace(seen, y=y)
    found = likelihoods(blows_up, spoilt, start, torch.tensor([[0.3, 1.0], [0.1, 1.0]]).double())
    assert_close(found[0], sane[0])
    assert torch.isneginf(found[1]).all()
    with pytest.raises(FilterDivergence, match="in 1 of 2 experiments"):
        likeliest(blows_up, spoilt, start)


def test_what_tells_no_tuning_from_another_is_refused():
    _, seen, start = problem(1, 2, n_times=80)
    y = seen.y.clone()
    y[1, loop.N_FORGET :] = torch.nan
    with pytest.raises(ValueError, match="no tuning is likelier"):
        likeliest(PHYSICAL, replace(seen, y=y), start)


def test_a_filter_that_always_diverges_is_reported(monkeypatch):
    _, seen, start = problem(1, n_times=40)
    monkeypatch.setattr(loop, "SIGMAS", (1e200, 1e201))
    with pytest.raises(FilterDivergence, match="every sigma_q.*too poor"):
        likeliest(PHYSICAL, seen, start)


# Which network it ends with


def test_of_each_network_the_better_weights_are_chosen(randn):
    new, old = {"w": randn(3, 4, 5)}, {"w": randn(3, 4, 5)}
    of_both = chosen(torch.tensor([True, False, True]), new, old)["w"]
    assert torch.equal(of_both, torch.stack((new["w"][0], old["w"][1], new["w"][2])))
    assert torch.equal(chosen(torch.tensor(True), {"w": new["w"][0]}, {"w": old["w"][0]})["w"], new["w"][0])
    first = chosen(torch.tensor([False, True, False]), new, {})["w"]
    assert torch.equal(first, new["w"])
    new["w"].zero_()
    assert first.abs().min() > 0  # further training of the network does not change it


@pytest.fixture
def told(monkeypatch):
    """``told(rows)``: pass p 'learns' the corrections of row p, (S,), the same everywhere; gives the calls."""

    def instead(rows):
        calls = []

        def learn(network, *args, **kwargs):
            calls.append(args)
            network.layers[-1].bias.copy_(10 * torch.tensor(rows[len(calls) - 1]).view(-1, 1, 1))

        monkeypatch.setattr(loop, "learn", learn)
        return calls

    return instead


def test_each_experiment_ends_with_its_best_pass_and_the_loop_stops_when_none_is_better(told):
    _, seen, start = problem(1, 2)
    calls = told([(0.1, 0.05), (0.05, 0.1), (0.0, 0.0), (0.1, 0.1)])  # 0.1 is what lacks
    network = untrained(1, 2)
    passes, stages = run(network, seen, start, *4 * [QUICK])
    assert [done.number for done in passes] == [0, 1, 2, 3]
    assert len(calls) == 3  # the fourth is not tried
    likelihood = torch.stack([done.likelihood for done in passes])
    assert likelihood.argmax(0).tolist() == [1, 2]
    for s, best in enumerate((1, 2)):
        for name, value in network.state_dict().items():
            assert torch.equal(value[s], stages[best][name][s])
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_there_is_a_pass_more_than_recipes_and_each_assimilates_with_what_it_is_told(told):
    _, seen, start = problem(1)
    told([(0.03,), (0.06,), (0.1,)])
    network = untrained(1)
    recipes = [replace(QUICK, lag=lag) for lag in (2, 0, 4)]
    passes, _ = run(network, seen, start, *recipes)
    assert [done.number for done in passes] == [0, 1, 2, 3]
    last = passes[-1]
    assert last.result.smoothed.shape == (1, TIMES, SITES)
    method = ETKF(MEMBERS, last.tuning.inflation, last.tuning.model_error_std)
    likelihood = cycle(method, HYBRID(network), seen, start).diagnostics["log_likelihood"]
    assert_close(last.likelihood, likelihood[:, HELD_OUT:].mean(-1))


def test_without_recipes_it_only_assimilates():
    _, seen, start = problem(1)
    network = untrained(1)
    before = weights(network)
    (done,), _ = run(network, seen, start)
    assert done.number == 0
    assert equal(network.state_dict(), before)


def test_a_pass_that_learns_nothing_is_the_last():
    _, seen, start = problem(1, 2)
    network = untrained(1, 2)
    before = weights(network)
    passes, _ = run(network, seen, start, *3 * [replace(QUICK, learning_rate=1e-30, epochs=1)])
    assert len(passes) == 2
    assert equal(network.state_dict(), before)


def test_networks_that_are_spoilt_by_a_training_are_not_kept():
    _, seen, start = problem(1)
    network = untrained(1)
    passes, stages = run(network, seen, start, replace(QUICK, epochs=4), replace(QUICK, learning_rate=1.0))
    assert passes[0].likelihood < passes[1].likelihood > passes[2].likelihood
    assert equal(network.state_dict(), stages[1])


def test_a_training_that_blows_up_is_reported():
    _, seen, start = problem(1)
    with pytest.raises(FloatingPointError, match="smaller learning_rate"):
        run(untrained(1), seen, start, replace(QUICK, learning_rate=10.0, optimizer=torch.optim.SGD))


# What it learns


def of_step(network, truth):
    """RMSE of one step of the hybrid, (S,)."""
    inputs, error = training_pairs(truth, PHYSICAL)
    with torch.no_grad():
        return (network(inputs) - error).square().mean((-2, -1)).sqrt()


@pytest.mark.slow
def test_pass_after_pass_the_observations_get_likelier_and_the_model_better():
    truth, seen, start = problem(1, 2, n_times=400)
    network = untrained(1, 2)
    errors = [of_step(network, truth)]
    passes, stages = run(network, seen, start, *2 * [replace(QUICK, epochs=4)])
    for state in stages[1:]:
        network.load_state_dict(state)
        errors.append(of_step(network, truth))
    likelihood = torch.stack([done.likelihood for done in passes])
    assert (likelihood[1] > likelihood[0] + 0.05).all()
    assert (errors[0] > 0.09).all() and (errors[1] < 0.06).all() and (errors[-1] < 0.05).all()
    assert (passes[-1].tuning.model_error_std <= passes[0].tuning.model_error_std).all()


@pytest.mark.parametrize(
    "recipe", (QUICK, Recipe(lag=6, n_steps=1, targets="states"), Recipe(lag=12, n_steps=2)), ids=("loop", "6", "12")
)
def test_held_out_observations_touch_no_gradient(recipe, monkeypatch):
    monkeypatch.setattr(loop, "likeliest", lambda *args: Tuning(torch.tensor([0.05]), torch.tensor([1.02])))
    _, seen, start = problem(1)
    learnt = []
    for first in (TIMES, HELD_OUT):  # of the times at which something else is seen
        y = seen.y.clone()
        y[:, first:] += 0.3
        network = untrained(1)
        _, stages = run(network, replace(seen, y=y), start, replace(recipe, epochs=1))
        learnt.append(stages[1])
    assert equal(learnt[0], learnt[1])
    assert not equal(learnt[0], untrained(1).state_dict())


def test_observations_that_are_not_held_out_are_learnt_from(monkeypatch):
    monkeypatch.setattr(loop, "likeliest", lambda *args: Tuning(torch.tensor([0.05]), torch.tensor([1.02])))
    _, seen, start = problem(1)
    y = seen.y.clone()
    y[:, 100] += 0.3
    learnt = [run(untrained(1), s, start, replace(QUICK, epochs=1)) for s in (seen, replace(seen, y=y))]
    (_, first), (_, second) = learnt
    assert not equal(first[1], second[1])


def test_nobody_can_hand_it_the_truth():
    for function in (close_the_loop, learn, likeliest):
        assert not [name for name in inspect.signature(function).parameters if "truth" in name or "nature" in name]


def test_a_single_network_without_a_batch_is_a_batch_of_one():
    _, seen, start = problem(1)
    one, single = untrained(1), untrained(1, batch=False)
    passes, of_one = run(one, seen, start, QUICK)
    passes_single, of_single = run(single, replace(seen, y=seen.y[0]), start[0], QUICK)
    assert passes_single[-1].likelihood.shape == ()
    assert_close(passes[-1].likelihood[0], passes_single[-1].likelihood, atol=1e-3, rtol=0)
    for name, value in of_single[-1].items():
        assert_close(value, of_one[-1][name][0], atol=1e-3, rtol=1e-3)
    assert equal(single.state_dict(), of_single[-1])


def test_experiments_of_a_batch_do_not_know_of_each_other():
    truth, seen, start = problem(1, 2)
    network = untrained(1, 2)
    passes, together = run(network, seen, start, QUICK)
    for s in range(2):
        alone = untrained(s + 1)
        passes_alone, states = run(alone, replace(seen, y=seen.y[s : s + 1]), start[s : s + 1], QUICK)
        assert_close(passes[-1].likelihood[s], passes_alone[-1].likelihood[0], atol=1e-3, rtol=0)
        for name, value in states[-1].items():
            assert_close(value[0], together[-1][name][s], atol=1e-3, rtol=1e-3)


def test_all_experiments_may_begin_with_the_same_ensemble():
    _, seen, start = problem(1, 2)
    same, repeated = (run(untrained(1, 2), seen, s, QUICK)[0] for s in (start[0], start[:1].expand(2, -1, -1)))
    assert torch.equal(same[-1].likelihood, repeated[-1].likelihood)


def test_the_order_of_the_batches_comes_from_the_generator():
    _, seen, start = problem(1)
    first, again, other = (run(untrained(1), seen, start, QUICK, seed=seed)[1][1] for seed in (1, 1, 2))
    assert equal(first, again)
    assert not equal(first, other)


def test_data_and_start_are_left_alone(unmodified):
    _, seen, start = problem(1)
    with unmodified(seen.y, seen.R, start):
        run(untrained(1), seen, start, QUICK)


def test_gaps_in_the_observations_are_no_obstacle():
    _, seen, start = problem(1, 2)
    y = seen.y.clone()
    y[:, 100:105] = torch.nan  # learnt from
    y[:, 190:193] = torch.nan  # held out
    y[0, ::3, 1] = torch.nan  # here and there, in one experiment
    passes, stages = run(untrained(1, 2), replace(seen, y=y), start, QUICK)
    assert all(torch.isfinite(done.likelihood).all() for done in passes)
    assert (passes[1].likelihood > passes[0].likelihood).all()
    assert all(torch.isfinite(value).all() for value in stages[-1].values())


# What it cannot do


@pytest.mark.parametrize(("n_times", "held_out"), ((70, 0.2), (200, 0.0), (200, 0.95), (200, 0.05), (200, 1.5)))
def test_too_few_observations_to_learn_or_to_judge_from_are_refused(n_times, held_out):
    _, seen, start = problem(1, n_times=n_times)
    with pytest.raises(ValueError, match=f"{n_times} observation times.*too few to hold out"):
        next(close_the_loop(untrained(1), HYBRID, seen, start, held_out=held_out))


def test_observations_at_some_of_the_steps_are_refused():
    truth, _, start = problem(1)
    seen = observe(truth, checkerboard, 0.2, generator=seeded(1, "y"), times=range(0, TIMES, 2))
    with pytest.raises(ValueError, match="at every step of the model"):
        next(close_the_loop(untrained(1), HYBRID, seen, start, held_out=0.3))


def test_observations_that_pick_no_points_cannot_be_met_but_states_can():
    truth, _, start = problem(1)
    seen = observe(truth, lambda k: lambda x: x[..., ::2] + x[..., 1::2], 0.2, generator=seeded(1, "y"))
    with pytest.raises(ValueError, match="does not pick points"):
        run(untrained(1), seen, start, QUICK)
    passes, _ = run(untrained(1), seen, start, replace(QUICK, targets="states"))
    assert len(passes) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    (
        (lambda seen, start: (seen, start * torch.nan), "start: the ensemble contains NaN"),
        (lambda seen, start: (replace(seen, y=seen.y * torch.nan), start), "all values are missing"),
        (lambda seen, start: (seen, start.float()), "torch.float32"),
        (lambda seen, start: (seen, start[..., :6]), "belong to grids|expected"),
        (lambda seen, start: (replace(seen, y=seen.y.expand(3, -1, -1)), start.expand(3, -1, -1)), "Networks"),
        (lambda seen, start: (seen, start.expand(3, -1, -1)), "one ensemble for each"),
    ),
    ids=("NaN in the start", "nothing seen", "precision", "grid", "experiments", "starts"),
)
def test_what_does_not_fit_is_refused_before_anything_is_learnt(wrong, message):
    _, seen, start = problem(1)
    network = untrained(1)
    before = weights(network)
    with pytest.raises(ValueError, match=message):
        run(network, *wrong(seen, start), QUICK)
    assert equal(network.state_dict(), before)


def test_rollouts_longer_than_the_data_are_refused():
    _, seen, start = problem(1)
    with pytest.raises(ValueError, match="n_steps = 500"):
        run(untrained(1), seen, start, replace(QUICK, n_steps=500))
