"""What machine a notebook runs on: platform, versions, device, how long it will take here, and what to mend.

:func:`report` ends the set-up cell of each notebook. It asks no network and never stops a notebook.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform as python
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PureWindowsPath

import torch

from .cache import cache_folder
from .models import Lorenz96
from .reader import say, shell

# Computing time of each notebook in seconds, with nothing cached, on the two cores where REFERENCE was measured.
SECONDS = {
    "0_intro": 15,
    "1_enkf": 40,
    "2_correction": 80,
    "3_hybrid": 120,
    "4_neural_operators": 120,
    "5_latent_space": 120,
    "6_closing_the_loop": 120,
    "7_bug_museum": 10,
    "8_challenge": 50,
}
REFERENCE = 100e-6  # seconds for a step of the model with the course's ensemble of 40 members
CALIBRATION = 0.1  # seconds that the measurement takes here


def report() -> None:
    """Say platform, versions, device, and the time a notebook will take here; warn of what is missing or untried."""
    lines = []
    for part in (versions, device, duration):
        with suppress(Exception):  # a report must not be the reason why a notebook stops
            lines.append(part())
    with suppress(Exception):
        lines += [f"⚠ {warning}" for warning in problems()]
    say("  \n".join(lines))


def platform() -> str:
    """``"Kaggle"``, ``"Colab"``, by what those two set in the environment, or ``"a computer of your own"``."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # first: its machines are built on Colab's
        return "Kaggle"
    return "Colab" if "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules else "a computer of your own"


def version(package: str) -> str:
    """The installed version of a package; "" if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions() -> str:
    """Platform and versions in one line."""
    names = ("mooc_da", "torch", "numpy", "matplotlib", "ipywidgets")
    found = [("Python", python.python_version()), *((name, version(name)) for name in names)]
    return f"**Run on {platform()}:** " + ", ".join(f"{name} {number}" for name, number in found if number) + "."


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device() -> str:
    """The processor, and a GPU if PyTorch sees one, in one line."""
    cpu = f"CPU with {cores()} core{'s' * (cores() > 1)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    note = f"; the GPU ({gpu}) is not needed: the arrays of the course are small" if gpu else ""
    return f"**Device:** {cpu}{note}."


def slowness() -> float:
    """Time that computing takes here, relative to where :data:`SECONDS` were measured: 2 is half as fast.

    The fastest of several measurements counts: what else the machine is doing just now says little about later.
    """
    model, states = Lorenz96(), torch.zeros(40, 40, dtype=torch.float64)
    fastest, end = math.inf, time.perf_counter() + CALIBRATION
    with torch.inference_mode():
        while (start := time.perf_counter()) < end:
            for _ in range(10):
                model(states)
            fastest = min(fastest, time.perf_counter() - start)
    return fastest / 10 / REFERENCE


def about(seconds: float) -> str:
    """A duration in words, rounded as it deserves."""
    if seconds < 95:
        step = 5 if seconds < 25 else 10
        return f"{max(step, step * round(seconds / step))} seconds"
    return f"{max(2, round(seconds / 60))} minutes"


def notebook() -> str | None:
    """Which notebook of the course is running, a key of :data:`SECONDS`; None where nothing tells.

    Jupyter's server names the file in the environment, VS Code in a variable of the notebook; Colab and Kaggle do not.
    """
    ipython = shell()
    path = os.environ.get("JPY_SESSION_NAME") or (ipython.user_ns.get("__vsc_ipynb_file__") if ipython else None) or ""
    name = PureWindowsPath(path).stem  # knows both separators
    return next((known for known in SECONDS if known in name), None)  # also a copy of it


def duration() -> str:
    """How long this notebook will compute here, in one line; relative to its own words where its name is not known."""
    factor, this = slowness(), notebook()
    if this:
        return f"**Computing** takes about {about(SECONDS[this] * factor)} there in all, less when run again."
    times = "as long" if factor < 1.5 else f"{factor:.0f} times as long"
    return f"**Computing** takes about {times} there as the notebook's first lines say, less when run again."


def problems() -> Iterator[str]:
    """What is missing, untried or not writable, each with what to do (Markdown)."""
    with suppress(ImportError, importlib.metadata.PackageNotFoundError):  # not installed, but run from its folder
        yield from untried()
    if not version("ipywidgets"):
        yield (
            "ipywidgets is missing: explorers show still figures, quizzes have no buttons. "
            "Run `%pip install ipywidgets`, then restart the kernel."
        )
    folder = cache_folder()
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        yield (
            f"The cache folder cannot be written ({error.strerror}): everything works, but is computed anew each time. "
            "Set the variable `MOOC_DA_CACHE` to a folder of yours before you start Jupyter."
        )


def untried() -> Iterator[str]:
    """Versions outside of those that the installed package names."""
    from packaging.requirements import Requirement  # comes with matplotlib

    classifiers = importlib.metadata.metadata("mooc_da").get_all("Classifier", [])
    tested = [
        name.rpartition(" ")[2] for name in classifiers if name.startswith("Programming Language :: Python :: 3.")
    ]
    if tested and ".".join(python.python_version_tuple()[:2]) not in tested:
        yield f"Python {python.python_version()} is untried: the course is tested with {', '.join(tested)}."
    for line in importlib.metadata.requires("mooc_da"):
        wanted = Requirement(line)
        found = version(wanted.name)
        needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if needed and found and not wanted.specifier.contains(found, prereleases=True):
            yield (
                f"{wanted.name} {found} is untried: if a cell fails, run "
                f'`%pip install "{wanted.name}{wanted.specifier}"`, then restart the kernel.'
            )
