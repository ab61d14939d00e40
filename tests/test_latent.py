"""EOFs against a singular value decomposition; networks that start as the linear answer and learn what it lacks."""

import pytest
import torch
from torch.testing import assert_close

from mooc_da.latent import LinearPlus, autoencoder, eofs, linear_plus, regression, train


@pytest.fixture
def curved(generator):
    """Fields of 40 points on a curve: a bump that moves, one parameter each, (600, 40)."""
    place = 12 + 16 * torch.rand(600, 1, dtype=torch.float64, generator=generator)
    return (-((torch.arange(40) - place) ** 2) / 18).exp()


@pytest.mark.parametrize("shape", ((200, 12), (12, 200)))
def test_eofs_are_the_leading_singular_vectors_of_the_anomalies(shape, randn):
    states = randn(*shape) @ torch.diag(torch.linspace(3, 0.1, shape[1], dtype=torch.float64))
    basis = eofs(states, 5)
    _, s, Vt = torch.linalg.svd(states - states.mean(0), full_matrices=False)
    assert_close((basis.patterns @ Vt[:5].mT).abs(), torch.eye(5, dtype=torch.float64), atol=1e-6, rtol=0)
    assert_close(basis.std, s[:5] / (len(states) - 1) ** 0.5)
    assert_close(basis.coefficients(states).std(0), basis.std)


def test_field_undoes_coefficients_within_the_span(randn):
    basis = eofs(randn(50, 20), 6)
    c = randn(3, 4, 6)
    assert_close(basis.coefficients(basis.field(c)), c)
    assert_close(basis.field(c[..., :2]), basis.field(torch.nn.functional.pad(c[..., :2], (0, 4))))


def test_an_untrained_autoencoder_is_the_truncation_to_its_leading_eofs(curved, generator):
    basis = eofs(curved, 20)
    c = basis.coefficients(curved)
    encoder, decoder = autoencoder(basis, 5, generator=generator)
    assert_close(encoder(c), c[:, :5] / basis.std[:5])
    assert_close(basis.field(decoder(encoder(c))), basis.field(c[:, :5]))


def test_an_untrained_map_is_the_regression(randn, generator):
    c, y = randn(300, 4), randn(300, 3)
    W, b = regression(c, y, ridge=1e-12)
    expected = torch.linalg.lstsq(torch.cat((c, torch.ones(300, 1, dtype=torch.float64)), -1), y).solution
    assert_close(torch.cat((W, b[:, None]), -1), expected.mT)
    assert_close(linear_plus(c, y, generator=generator)(c), c @ regression(c, y)[0].mT + regression(c, y)[1])


def test_training_beats_the_eofs_on_a_curved_family_it_has_not_seen(curved, generator):
    basis = eofs(curved[:500], 20)
    c = basis.coefficients(curved)
    both = autoencoder(basis, 3, hidden=48, generator=generator)
    losses = train(both, (c[:500], c[:500]), (c[500:], c[500:]), epochs=60, batch_size=32, generator=generator)
    truncated = (c[500:, 3:].square().sum(-1).mean() / (c - c.mean(0))[:500].square().sum(-1).mean()).float()
    assert losses.validation[-1] < 0.1 * truncated
    assert both(c).dtype == c.dtype
    assert not any(p.requires_grad for p in both.parameters())


def test_training_works_where_gradients_are_off_and_is_reproducible(curved):
    basis = eofs(curved, 10)
    c = basis.coefficients(curved)

    def trained():
        g = torch.Generator().manual_seed(3)
        network = linear_plus(c[:, :3], c[:, 3:], 16, generator=g)
        return train(network, (c[:, :3], c[:, 3:]), (c[:, :3], c[:, 3:]), epochs=3, generator=g)

    with torch.no_grad():
        first, second = trained(), trained()
    assert torch.equal(first.validation, second.validation)
    assert first.training[-1] < first.training[0]


def test_a_batch_of_vectors_keeps_its_axes_and_its_dtype(randn, generator):
    network = LinearPlus(randn(3, 5).float(), torch.zeros(3), torch.ones(5), torch.ones(3), generator=generator)
    c = randn(2, 7, 5)
    assert network(c).shape == (2, 7, 3)
    assert network(c).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: eofs(torch.ones(5, 8), 5), "n = 5"),
        (lambda: eofs(torch.ones(8), 1), r"expected \(M, Nx\)"),
        (lambda: autoencoder(eofs(torch.randn(9, 8), 4), 5), "size = 5: expected 1 … 4"),
        (lambda: train(torch.nn.Linear(2, 2), (torch.ones(3, 2), torch.ones(4, 2)), (0, 0)), "3 inputs and 4 targets"),
    ),
)
def test_impossible_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
