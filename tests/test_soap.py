"""SOAP: the published algorithm step by step, its symmetries, and what it is for."""

import copy
import io
import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mooc_da.learning import fit, one_step_loss
from mooc_da.networks import CorrectionCNN
from mooc_da.soap import SOAP


def walked(optimizer, gradients, start=None):
    """Where an optimiser goes along given gradients (T, ..., n, m): the weights after every step, (T, ..., n, m)."""
    p = torch.nn.Parameter(torch.zeros_like(gradients[0]) if start is None else start.clone())
    descent, path = optimizer([p]), []
    for g in gradients:
        p.grad = g.clone()
        descent.step()
        path.append(p.detach().clone())
    return torch.stack(path)


def soap(**options):
    return partial(SOAP, **{"lr": 0.1} | options)


def orthogonal(matrix):
    return torch.linalg.qr(matrix).Q


# The algorithm


def as_published(gradients, lr, beta, renewal):
    """Algorithm 3 of Vyas et al. (2024) in NumPy for one matrix; columns are put in order one by one.

    The first eigenvectors are those of torch, since a null space has no basis of its own.
    """
    first, *others = gradients
    L, R = first @ first.T, first.T @ first
    bases = [torch.linalg.eigh(torch.from_numpy(C)).eigenvectors.numpy() for C in (L, R)]
    W, M, V = (np.zeros_like(first) for _ in range(3))
    path = [W]
    for t, G in enumerate(others, start=1):
        QL, QR = bases
        M = beta * M + (1 - beta) * G
        V = beta * V + (1 - beta) * (QL.T @ G @ QR) ** 2
        adam = (QL.T @ M @ QR) / (1 - beta**t) / (np.sqrt(V / (1 - beta**t)) + 1e-8)
        W = W - lr * QL @ adam @ QR.T
        L, R = beta * L + (1 - beta) * G @ G.T, beta * R + (1 - beta) * G.T @ G
        if t % renewal == 0:
            for axis, C in enumerate((L, R)):
                Q = bases[axis]
                order = sorted(range(len(C)), key=lambda i, Q=Q, C=C: -Q[:, i] @ C @ Q[:, i])
                V = np.take(V, order, axis)
                bases[axis] = np.linalg.qr(C @ Q[:, order])[0]
        path.append(W)
    return np.stack(path)


@pytest.mark.parametrize(
    ("shape", "renewal"),  # where a null space of several dimensions is renewed, rounding decides
    [*itertools.product(((4, 4), (3, 5), (5, 3)), (1, 3, 100)), ((5, 1), 4), ((5, 1), 100)],
    ids=str,
)
def test_every_step_is_that_of_the_published_algorithm(shape, renewal, randn):
    gradients = randn(8, *shape) * torch.logspace(0, -2, shape[1], dtype=torch.float64)
    path = walked(soap(renewal=renewal, beta=0.9), gradients)
    expected = as_published(list(gradients.numpy()), 0.1, 0.9, renewal)
    assert_close(path.numpy(), expected, atol=1e-6, rtol=1e-6)


def test_where_gradients_do_not_mix_it_is_adam(randn):
    gradients = torch.diag_embed(randn(25, 5))
    path = walked(soap(beta=0.9, renewal=3), gradients)
    adam = walked(partial(torch.optim.Adam, lr=0.1, betas=(0.9, 0.9)), gradients[1:])
    assert_close(path[1:], adam)


def test_the_first_gradient_gives_the_basis_and_moves_nothing(randn):
    path = walked(soap(), randn(2, 3, 4))
    assert torch.equal(path[0], torch.zeros(3, 4, dtype=torch.float64))
    assert (path[1] != 0).all()


def test_turning_the_problem_turns_the_steps_which_adam_does_not_know(randn):
    gradients, U, V = randn(12, 4, 4), orthogonal(randn(4, 4)), orthogonal(randn(4, 4))
    turned = U @ gradients @ V
    assert_close(walked(soap(renewal=4), turned), U @ walked(soap(renewal=4), gradients) @ V, atol=1e-7, rtol=1e-5)

    adam = partial(torch.optim.Adam, lr=0.1)
    assert not torch.allclose(walked(adam, turned), U @ walked(adam, gradients) @ V, atol=0.05)


def test_steps_do_not_depend_on_the_unit_of_the_loss(randn):
    gradients = randn(12, 3, 3)
    assert_close(walked(soap(), 1e3 * gradients), walked(soap(), gradients), atol=1e-6, rtol=1e-5)


def test_a_batch_of_networks_is_each_network_alone(randn):
    gradients = randn(25, 2, 3, 4, 4)
    batch = walked(soap(), gradients)
    for i in range(2):
        for j in range(3):
            assert_close(batch[:, i, j], walked(soap(), gradients[:, i, j]), atol=1e-8, rtol=1e-6)


# What it is for


def descended(optimizer, A, B, target, n_steps=300):
    """The loss of ``A W B = target`` after a one-cycle schedule."""
    W = torch.nn.Parameter(torch.zeros_like(target))
    descent = optimizer([W])
    schedule = torch.optim.lr_scheduler.OneCycleLR(descent, descent.param_groups[0]["lr"], total_steps=n_steps + 1)
    for _ in range(n_steps):
        loss = (A @ W @ B - target).square().sum()
        descent.zero_grad()
        loss.backward()
        descent.step()
        schedule.step()
    return loss.item()


def test_a_turned_ill_conditioned_least_squares_is_solved_in_far_fewer_steps_than_adam_needs(randn):
    scale = torch.logspace(0, -1.5, 6, dtype=torch.float64)
    A, B = (orthogonal(randn(6, 6)) @ (scale[:, None] * orthogonal(randn(6, 6))) for _ in range(2))
    target = A @ randn(6, 6) @ B
    soap, adam = (
        min(descended(partial(make, lr=lr), A, B, target) for lr in (0.03, 0.1, 0.3))
        for make in (SOAP, torch.optim.Adam)
    )
    assert soap < 0.1 * adam


def test_it_trains_the_networks_of_the_course(randn):
    x = randn(2, 300, 8)
    pairs = x, 0.3 * (x.roll(1, -1) - x).tanh()
    part = tuple(p[:, :200] for p in pairs), tuple(p[:, 200:] for p in pairs)
    networks = [CorrectionCNN((2,), channels=(4,), widths=(3, 1)) for _ in range(2)]
    losses = [
        fit(
            network, *part, epochs=30, batch_size=20, optimizer=make, generator=torch.Generator().manual_seed(1)
        ).best_validation
        for network, make in zip(networks, (SOAP, torch.optim.Adam), strict=True)
    ]
    assert (losses[0] < 0.5 * losses[1]).all()


# As an optimiser of torch


def test_it_goes_on_from_its_saved_state_as_if_it_had_never_stopped(randn):
    gradients, start = randn(26, 3, 4), randn(3, 4)
    through = walked(soap(), gradients, start)
    p = torch.nn.Parameter(start.clone())
    descent = SOAP([p], lr=0.1)
    for k, g in enumerate(gradients):
        if k == 13:
            file = io.BytesIO()
            torch.save(descent.state_dict(), file)
            file.seek(0)
            p = torch.nn.Parameter(p.detach().clone())
            descent = SOAP([p], lr=1.0)
            descent.load_state_dict(torch.load(file, weights_only=True))
        p.grad = g.clone()
        descent.step()
    assert torch.equal(p, through[-1])


def test_a_schedule_moves_the_rate_and_the_memory_of_the_gradients(randn):
    p = torch.nn.Parameter(randn(3, 3))
    descent = SOAP([p], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(descent, 0.1, total_steps=11)
    rates = []
    for _ in range(10):
        p.grad = randn(3, 3)
        descent.step()
        schedule.step()
        rates.append(descent.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates[-1] < 1e-4
    assert descent.param_groups[0]["betas"][1] == 0.95


def test_a_closure_gives_the_loss_and_the_gradient(randn):
    p = torch.nn.Parameter(randn(3, 3))
    descent = SOAP([p], lr=0.1)

    def closure():
        descent.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    losses = [descent.step(closure).item() for _ in range(6)]
    assert losses[0] == losses[1]  # the first step is none
    assert losses[1] > losses[2] > losses[-1]


def test_a_parameter_without_a_gradient_stays(randn):
    still, moving = (torch.nn.Parameter(randn(3, 3)) for _ in range(2))
    descent, before = SOAP([still, moving], lr=0.1), copy.deepcopy((still, moving))
    for _ in range(2):
        moving.grad = randn(3, 3)
        descent.step()
    assert torch.equal(still, before[0])
    assert not torch.equal(moving, before[1])


@pytest.mark.parametrize("shape", ((), (3,)), ids=str)
def test_what_has_no_rows_and_columns_is_refused(shape):
    with pytest.raises(ValueError, match="SOAP takes matrices"):
        SOAP([torch.nn.Parameter(torch.zeros(3, 3)), torch.nn.Parameter(torch.zeros(shape))])


# Gradients that are no good


@pytest.mark.parametrize("n_zero", (1, 15, 30))
def test_gradients_of_zero_move_nothing_and_do_no_harm(n_zero, randn):
    gradients = randn(30, 2, 3, 4)
    gradients[:n_zero, 0] = 0.0
    path = walked(soap(), gradients)
    assert torch.isfinite(path).all()
    assert (path[:n_zero, 0] == 0).all()
    assert_close(path[:, 1], walked(soap(), gradients[:, 1]), atol=1e-8, rtol=1e-6)


def test_gradients_of_one_direction_alone_do_no_harm(randn):
    path = walked(soap(renewal=2), randn(30, 1, 1) * (randn(4, 1) @ randn(1, 5)))
    assert torch.isfinite(path).all()


@pytest.mark.parametrize("bad", (float("nan"), float("inf")))
def test_a_loss_that_is_not_finite_from_the_first_batch_on_is_reported_as_with_adam(bad, randn):
    pairs = randn(40, 8), randn(40, 8)
    network = CorrectionCNN(channels=(4,), widths=(3, 1))
    with pytest.raises(FloatingPointError, match="loss became NaN in epoch 1"):
        fit(network, pairs, pairs, epochs=2, optimizer=SOAP, loss=lambda *args: one_step_loss(*args) * bad)
    assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize("wrong", ({"renewal": 0}, {"beta": 1.0}, {"lr": -1.0}))
def test_numbers_out_of_range_are_refused(wrong, randn):
    with pytest.raises(ValueError, match="expected lr >= 0"):
        SOAP([randn(2, 3).requires_grad_()], **wrong)


def test_a_vector_is_refused_also_when_it_is_added_later(randn):
    optimizer = SOAP([randn(2, 3).requires_grad_()])
    with pytest.raises(ValueError, match="takes matrices"):
        optimizer.add_param_group({"params": [randn(3).requires_grad_()]})
