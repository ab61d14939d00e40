"""The cache: what is computed once, kept, found again, and done without."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mooc_da import cache, stages
from mooc_da.config import Experiment


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache: no file, nothing in memory."""
    monkeypatch.setattr(cache, "memory", {})
    monkeypatch.setenv("MOOC_DA_CACHE", str(tmp_path / "new" / "cache"))
    return tmp_path / "new" / "cache"


def counted(value=1.0):
    """A computation, and the list of its calls."""
    calls = []

    def compute():
        calls.append(value)
        return {"x": torch.full((3,), value)}

    return compute, calls


def test_every_stage_comes_back_from_its_file_as_it_was(folder, small):
    def everything():
        result = stages.analysis(small)
        return [stages.truth(small), stages.observations(small).y, result.analysis, result.diagnostics["zeta"]]

    computed = everything()
    cache.memory.clear()  # as a new process does
    assert all(map(torch.equal, everything(), computed))


@pytest.mark.parametrize("forget", (False, True), ids=("from memory", "from file"))
def test_a_stage_is_computed_once_for_each_configuration(forget, folder):
    compute, calls = counted()
    for cfg in (Experiment(), Experiment(), replace(Experiment(), seed=1)):
        assert torch.equal(cache.cached("stage", cfg, compute)["x"], torch.ones(3))
        if forget:
            cache.memory.clear()  # as a new process does
    assert len(calls) == 2
    cache.cached("another stage", Experiment(), compute)
    assert len(calls) == 3
    assert len(list(folder.glob("*.pt"))) == 3
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(
    "damage", (lambda b: b[:-50], lambda b: b"", lambda b: b"not a file of torch"), ids=("truncated", "empty", "text")
)
def test_a_damaged_file_is_recomputed_with_a_warning_and_repaired(damage, folder):
    compute, calls = counted()
    cache.cached("stage", Experiment(), compute)
    (file,) = folder.glob("*.pt")
    file.write_bytes(damage(file.read_bytes()))
    cache.memory.clear()
    with pytest.warns(UserWarning, match="is damaged.*recomputing"):
        assert torch.equal(cache.cached("stage", Experiment(), compute)["x"], torch.ones(3))
    cache.memory.clear()
    assert torch.equal(cache.cached("stage", Experiment(), compute)["x"], torch.ones(3))
    assert len(calls) == 2


def test_a_file_of_another_configuration_under_this_name_is_recomputed(folder, small):
    other = replace(small, seed=1)
    right = stages.truth(small)
    stages.truth(other)
    (folder / cache.file_name("truth", other)).replace(folder / cache.file_name("truth", small))
    cache.memory.clear()
    with pytest.warns(UserWarning, match="recomputing"):
        assert torch.equal(stages.truth(small), right)


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("MOOC_DA_CACHE", str(blocker / "cache"))
    monkeypatch.setattr(cache, "memory", {})
    compute, calls = counted()
    with pytest.warns(UserWarning, match="cannot be written.*MOOC_DA_CACHE"):
        assert torch.equal(cache.cached("stage", Experiment(), compute)["x"], torch.ones(3))
    assert len(calls) == 1


def test_the_cache_is_in_the_home_folder_or_nowhere_if_asked(monkeypatch, folder):
    monkeypatch.delenv("MOOC_DA_CACHE")
    assert cache.cache_folder() == Path.home() / ".cache" / "mooc_da"
    monkeypatch.setenv("MOOC_DA_CACHE", "none")
    compute, _ = counted()
    assert torch.equal(cache.cached("stage", Experiment(), compute)["x"], torch.ones(3))
    assert not folder.exists()
