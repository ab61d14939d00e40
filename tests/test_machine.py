"""A notebook says where it runs and how long it will take, warns of what it lacks, and never fails over that."""

import importlib.metadata
import re
import sys
import types
from email.message import Message

import nbformat
import pytest
import torch
from test_layout import CORE, NOTEBOOKS, PROJECT

from mooc_da import machine

METADATA = Message()
for classifier in PROJECT["classifiers"]:
    METADATA["Classifier"] = classifier
KAGGLE, COLAB = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, {"COLAB_RELEASE_TAG": "release-colab"}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """A machine that lacks nothing, with the metadata of this source tree, and that tells nothing about itself."""
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    installed = dict(
        mooc_da="0.1.0", numpy="2.4.6", torch="2.13.0", matplotlib="3.11.2", ipywidgets="8.1.9", tqdm="4.70.1"
    )
    monkeypatch.setattr(machine, "version", lambda name: installed.get(name, ""))
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: METADATA)
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: [*map(str, CORE.values()), 'rise<6; extra == "course"']
    )
    set_python(monkeypatch, "3.12.4")
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)
    return installed


def set_python(monkeypatch, version):
    monkeypatch.setattr(machine.python, "python_version", lambda: version)
    monkeypatch.setattr(machine.python, "python_version_tuple", lambda: tuple(version.split(".")))


@pytest.fixture
def said(capsys):
    """The lines that a report prints."""

    def lines():
        capsys.readouterr()
        machine.report()
        return [line.strip() for line in capsys.readouterr().out.strip().splitlines()]

    return lines


@pytest.mark.parametrize(
    ("variables", "name"),
    [({}, "a computer of your own"), (COLAB, "Colab"), (KAGGLE, "Kaggle"), (COLAB | KAGGLE, "Kaggle")],
)
def test_a_platform_is_known_by_its_variables(variables, name, monkeypatch, said):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert machine.platform() == name
    assert said()[0].startswith(f"Run on {name}: Python 3.12.4, mooc_da 0.1.0, torch 2.13.0, numpy 2.4.6")


def test_colab_is_also_known_by_its_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert machine.platform() == "Colab"


def test_a_report_is_three_short_lines_where_nothing_is_missing(said):
    assert len(said()) == 3
    assert all(len(line) < 260 for line in said())


@pytest.mark.parametrize(("cores", "words"), [(1, "CPU with 1 core."), (8, "CPU with 8 cores.")])
def test_the_cores_are_counted(cores, words, monkeypatch, said):
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert said()[1] == f"Device: {words}"


def test_a_gpu_is_named_and_said_not_to_be_needed(monkeypatch, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert re.search(r"cores?; the GPU \(Tesla T4\) is not needed", said()[1])


@pytest.mark.parametrize(
    "path", ["1_enkf.ipynb", "/x/notebooks/1_enkf.ipynb", r"C:\x\1_enkf.ipynb", "1_enkf-Copy1.ipynb"]
)
def test_jupyter_tells_which_notebook_this_is(path, monkeypatch, said):
    monkeypatch.setenv("JPY_SESSION_NAME", path)
    assert said()[2] == "Computing takes about 40 seconds there in all, less when run again."
    monkeypatch.setattr(machine, "slowness", lambda: 3.2)
    assert "about 2 minutes" in said()[2]


def test_vs_code_tells_which_notebook_this_is(monkeypatch):
    monkeypatch.setattr(
        machine, "shell", lambda: types.SimpleNamespace(user_ns={"__vsc_ipynb_file__": "/x/0_intro.ipynb"})
    )
    assert machine.notebook() == "0_intro"


@pytest.mark.parametrize("name", ["", "console-1", "/x/Untitled.ipynb"])
@pytest.mark.parametrize(("factor", "words"), [(0.5, "as long"), (1.4, "as long"), (2.2, "2 times as long")])
def test_where_nothing_tells_the_time_is_relative_to_what_the_notebook_says(name, factor, words, monkeypatch, said):
    monkeypatch.setenv("JPY_SESSION_NAME", name)
    monkeypatch.setattr(machine, "slowness", lambda: factor)
    assert said()[2].startswith(f"Computing takes about {words} there as the notebook's first lines say")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *[(0.1, "5 seconds"), (13, "15 seconds"), (24, "25 seconds"), (33, "30 seconds"), (88, "90 seconds")],
        *[(96, "2 minutes"), (170, "3 minutes"), (1000, "17 minutes")],
    ],
)
def test_durations_are_rounded_as_they_deserve(seconds, words):
    assert machine.about(seconds) == words


WORDS = {"two": 2, "three": 3, "ten": 10, "fifteen": 15, "twenty": 20}


def test_the_times_are_those_that_the_notebooks_announce():
    assert {path.stem for path in NOTEBOOKS} == set(machine.SECONDS)
    for path in NOTEBOOKS:
        prose = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
        announced = re.findall(r"(?:computing|code runs in) about (\w+) (second|minute)s?\b", prose)
        assert len(announced) == 1, f"{path.stem} says {len(announced)} times how long it computes"
        ((number, unit),) = announced
        seconds = (WORDS.get(number) or int(number)) * (60 if unit == "minute" else 1)
        assert seconds == machine.SECONDS[path.stem], path.stem


def test_the_speed_is_that_of_steps_of_the_model(monkeypatch):
    monkeypatch.undo()
    ticks = iter(range(10**6))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: 1e-3 * next(ticks))
    assert machine.slowness() == pytest.approx(
        1e-4 / machine.REFERENCE, rel=0.02
    )  # ten steps in each tick of a millisecond
    assert next(ticks) * 1e-3 < 0.2, "measuring should not be noticed"


def test_the_measured_speed_is_a_sensible_number(monkeypatch):
    monkeypatch.undo()
    assert 0.02 < machine.slowness() < 100


# Warnings


@pytest.mark.parametrize(
    ("package", "number", "words"),
    [
        ("torch", "2.1.0", 'torch 2.1.0 is untried: if a cell fails, run %pip install "torch'),
        ("torch", "3.0", "torch 3.0 is untried"),
        ("numpy", "1.26.4", "numpy 1.26.4 is untried"),
        ("ipywidgets", "7.6.5", "ipywidgets 7.6.5 is untried"),
        ("ipywidgets", "", "ipywidgets is missing: explorers show still figures"),
    ],
)
def test_a_version_outside_of_the_ranges_is_warned_of(package, number, words, here, said):
    here[package] = number
    (warning,) = said()[3:]
    assert words in warning
    assert "%pip install" in warning
    assert "restart the kernel" in warning


@pytest.mark.parametrize(
    ("package", "number"), [("torch", "2.13.0+cpu"), ("torch", "2.11.0a0+git"), ("ipywidgets", "7.7.1")]
)
def test_builds_of_a_supported_version_are_not_warned_of(package, number, here, said):
    here[package] = number
    assert len(said()) == 3


@pytest.mark.parametrize("version", ("3.10.2", "3.14.0"))
def test_an_untried_python_is_warned_of(version, monkeypatch, said):
    set_python(monkeypatch, version)
    (warning,) = said()[3:]
    assert warning.endswith(f"Python {version} is untried: the course is tested with 3.11, 3.12, 3.13.")


def test_a_cache_folder_that_cannot_be_written_is_warned_of(monkeypatch, tmp_path, said):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOOC_DA_CACHE", str(tmp_path / "file" / "cache"))
    (warning,) = said()[3:]
    assert "cache folder cannot be written" in warning
    assert "MOOC_DA_CACHE" in warning
    assert str(tmp_path) not in warning, "a stored notebook shows no folders of a machine"
    monkeypatch.setenv("MOOC_DA_CACHE", "none")
    assert len(said()) == 3


def test_a_package_that_is_not_installed_but_only_in_the_folder_is_reported_without_ranges(monkeypatch, said):
    def not_found(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", not_found)
    assert len(said()) == 3


@pytest.mark.parametrize(
    "part", ["versions", "device", "duration", "problems", "platform", "cores", "slowness", "notebook"]
)
def test_a_report_never_stops_a_notebook(part, monkeypatch, said):
    def fails():
        raise OSError(f"no {part} on this machine")

    monkeypatch.setattr(machine, part, fails)
    assert len(said()) >= 2


def test_a_report_asks_no_network(monkeypatch, said):
    asked = []
    monkeypatch.setattr("socket.socket.connect", lambda *address: asked.append(address))
    monkeypatch.setattr("socket.getaddrinfo", lambda *address: asked.append(address))
    said()
    assert not asked
