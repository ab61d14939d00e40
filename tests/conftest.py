"""What all tests share: one CPU thread, a cache folder of their own, draws for three seeds, a small experiment.

A test that asks for ``seed``, ``generator`` or ``randn`` runs for every seed. ``pytest -m "not slow"`` leaves
out what takes minutes.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mooc_da.config import Experiment


def pytest_configure(config: pytest.Config) -> None:
    # torch.func.jvp warns of torch itself
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.*is deprecated:DeprecationWarning")


@pytest.fixture(scope="session", autouse=True)
def quiet_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread for the small matrices, and no test touches the cache or the progress of the user."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOOC_DA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MOOC_DA_PROGRESS", str(tmp_path_factory.mktemp("reader") / "progress.json"))
        yield


@pytest.fixture(params=(1, 2, 3), ids="seed{}".format)
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def randn(generator: torch.Generator) -> Callable[..., Tensor]:
    """``randn(3, 4)`` draws standard normal numbers in double precision."""
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.fixture
def network(randn: Callable[..., Tensor]) -> Callable[[int, int], torch.nn.Module]:
    """``network(Nx, Ny)``: a small network as an operator."""

    def draw(n_sites, n_values):
        layers = torch.nn.Sequential(
            torch.nn.Linear(n_sites, 6), torch.nn.Tanh(), torch.nn.Linear(6, n_values)
        ).double()
        for parameter in layers.parameters():
            parameter.data = 0.7 * randn(*parameter.shape)
        return layers.requires_grad_(False).eval()

    return draw


@pytest.fixture
def unmodified() -> Callable[..., AbstractContextManager[None]]:
    """``with unmodified(x, y):`` fails if the block changes one of the tensors."""

    @contextmanager
    def guard(*tensors: Tensor) -> Iterator[None]:
        copies = [t.clone() for t in tensors]
        yield
        assert all(torch.equal(t, copy) for t, copy in zip(tensors, copies, strict=True))

    return guard


@pytest.fixture(scope="session")
def small() -> Experiment:
    """The experiment of the course in two or three seconds."""
    return replace(
        Experiment().fast(),
        n_truth=1_500,
        n_assimilated=1_000,
        burn_in=200,
        n_test=300,
        test_burn_in=100,
        epochs=15,
        n_starts=20,
        n_forecast=40,
    )
