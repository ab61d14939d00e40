"""Progress is kept in a file that survives anything, and forgotten on demand; texts are shown where the reader is."""

import json

import pytest

from mooc_da import reader


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """A progress file of its own for every test."""
    path = tmp_path / "folder" / "progress.json"
    monkeypatch.setenv("MOOC_DA_PROGRESS", str(path))
    monkeypatch.setattr(reader, "_session", {})
    return path


def test_what_is_recorded_is_recalled_in_another_session(monkeypatch):
    assert reader.recall("quiz") == {}
    assert reader.record("quiz", "1_enkf", {"score": 3, "of": 5})
    reader.record("exercises", "a", "correct")
    monkeypatch.setattr(reader, "_session", {})
    assert reader.recall("quiz") == {"1_enkf": {"score": 3, "of": 5}}
    assert reader.recall("exercises") == {"a": "correct"}


def test_one_kind_or_all_can_be_forgotten(file):
    reader.record("quiz", "1_enkf", 1)
    reader.record("exercises", "a", "correct")
    reader.forget("quiz")
    assert (reader.recall("quiz"), reader.recall("exercises")) == ({}, {"a": "correct"})
    reader.forget()
    assert (reader.recall("exercises"), json.loads(file.read_text())) == ({}, {})


@pytest.mark.parametrize("content", ["{", "[1]", '{"quiz": 3}', "\x00"])
def test_a_damaged_file_is_set_aside_and_not_lost(file, content):
    file.parent.mkdir()
    file.write_text(content)
    assert reader.recall("quiz") == {}
    assert reader.record("quiz", "a", 1)
    assert reader.recall("quiz") == {"a": 1}
    assert file.with_suffix(".damaged.json").read_text() == content


def test_without_a_folder_to_write_to_progress_lasts_for_the_session(file, monkeypatch):
    file.parent.write_text("a file where the folder should be")
    assert not reader.record("quiz", "a", 1)
    assert reader.recall("quiz") == {"a": 1}
    monkeypatch.setenv("MOOC_DA_PROGRESS", "none")
    assert reader.progress_file() is None
    assert not reader.record("quiz", "b", 2)
    assert reader.recall("quiz") == {"a": 1, "b": 2}


def test_nothing_but_the_file_is_left_in_its_folder(file):
    reader.record("quiz", "a", 1)
    reader.record("quiz", "b", 2)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_outside_of_a_notebook_text_is_plain(capsys):
    reader.say("**Bold** and *slanted*, `f(**x_)`, $x_n^* = 2 * 3$, `s**2`.\n```python\na = 2 ** b\n```\n* item")
    told = "Bold and slanted, f(**x_), $x_n^* = 2 * 3$, s**2.\na = 2 ** b\n\n* item\n"
    assert capsys.readouterr().out == told
