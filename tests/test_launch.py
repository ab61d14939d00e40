"""Each notebook starts alone, in an empty folder, without mooc_da. tests/launch.py runs them all to the end."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from launch import ADVICE, MACHINES, ROOT, archive, borrow, has, launch, pip, wheel, without_network
from test_layout import NOTEBOOKS, cells

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="needs a clone and git"),
    pytest.mark.skipif(os.name == "nt", reason="links to the packages need more rights on Windows"),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment that has the packages of this one, but not mooc_da."""
    return borrow(tmp_path_factory.mktemp("borrowed") / "venv")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """GitHub's zip file, of this working tree."""
    return archive(tmp_path_factory.mktemp("zip"))


@pytest.fixture(scope="module")
def index(tmp_path_factory, python):
    """The package index answers; pip asks it for the build tools, too."""
    try:
        pip(python, "download", "--no-deps", "--retries=0", f"--dest={tmp_path_factory.mktemp('tools')}", "setuptools")
    except RuntimeError:
        pytest.skip("needs the package index")


@pytest.fixture(scope="module")
def attached(tmp_path_factory, python, source, index):
    """Kaggle's folder of attached files, with the wheel."""
    return wheel(python, source, tmp_path_factory.mktemp("kaggle"))


@pytest.fixture
def absent(python):
    """Before and after a test mooc_da is not installed there."""
    assert not has(python, "mooc_da")["mooc_da"]
    yield
    if has(python, "mooc_da")["mooc_da"]:
        pip(python, "uninstall", "-y", "mooc_da")


LIBRARIES = ("torch", "numpy", "matplotlib", "ipywidgets", "tqdm")


def test_every_notebook_starts_on_a_machine_like_colab_where_the_first_one_installs_the_package(
    python, source, index, absent
):
    before = has(python, *LIBRARIES)
    for path in NOTEBOOKS:
        outcome = launch(MACHINES["colab"], python, path.stem, source, setup=True)
        assert outcome.error == "", f"{path.stem}: {outcome.error}"
        assert "Run on Colab: Python" in outcome.said
        assert f"torch {before['torch']}" in outcome.said
        assert "Computing" in outcome.said
    assert has(python, "mooc_da")["mooc_da"]
    assert has(python, *LIBRARIES) == before


def test_on_kaggle_without_a_network_the_attached_wheel_is_installed(python, source, attached, absent):
    before = has(python, *LIBRARIES)
    outcome = launch(MACHINES["kaggle-wheel"], python, "1_enkf", source, attached, setup=True)
    assert outcome.error == ""
    assert "Run on Kaggle: Python" in outcome.said
    assert has(python, *LIBRARIES) == before


def test_on_kaggle_without_a_network_and_without_the_wheel_one_error_says_what_to_do(python, source, absent):
    outcome = launch(MACHINES["kaggle-offline"], python, "1_enkf", source, setup=True)
    assert outcome.error.startswith("ModuleNotFoundError: ")
    assert ADVICE in outcome.error
    assert re.search(r"download\nmooc_da-….whl from https://\S+\.github\.io/\S+ and add it under Input", outcome.error)
    assert re.search(r"https://github\.com/\S+#on-your-own-machine", outcome.error)
    assert outcome.setup < 60, "it should not try for minutes"  # about two seconds on an idle machine


def test_the_error_points_to_a_heading_of_readme():
    source = cells(NOTEBOOKS[0], "code")[0].source
    (anchor,) = re.findall(r"https://github\.com/[^#\s]+#([\w-]+)", source)
    headings = re.findall(r"^#+ (.+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_command_lists_the_machines_and_refuses_others():
    script = ROOT / "tests" / "launch.py"
    run = subprocess.run([sys.executable, script, "somewhere"], capture_output=True, text=True)
    assert run.returncode == 2
    assert all(name in run.stderr for name in MACHINES)


def test_a_command_without_a_network_reaches_nothing_where_the_system_permits_that():
    prefix = without_network()
    if not prefix:
        pytest.skip("no permission for a network namespace here")
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    run = subprocess.run([*prefix, sys.executable, "-c", code], capture_output=True, text=True)
    assert "Network is unreachable" in run.stderr
