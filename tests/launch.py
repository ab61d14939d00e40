"""Does every notebook work alone on a fresh machine? Imitates Colab, Kaggle and a laptop, with and without a network.

    python tests/launch.py all                                 every notebook in every environment: about an hour
    python tests/launch.py colab kaggle-offline                in these
    python tests/launch.py colab --notebook 1_enkf --setup     only as far as the imports

Each notebook is copied alone into an empty folder and executed there by a fresh virtual environment. mooc_da gets
there by the set-up cell itself. Two things are replaced in the copy: GitHub's zip file by one of this working tree
(with the layout of GitHub's), where there is a network, and Kaggle's folder of attached files by a local one.

With a network, the package index is asked for the build tools, as on Colab. "Offline" is a network namespace of Linux
that has only a loopback; where that is not permitted, proxies that do not answer (the output says which). torch is
the version of requirements.txt, since other builds for Linux fetch gigabytes; where PIP_EXTRA_INDEX_URL names
PyTorch's CPU index, "newest" takes the newest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / ".ci"))

import repository  # noqa: E402

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").rglob("[!.]*.ipynb"))}
ZIP = re.compile(r"https://github\.com/[^/\s]+/[^/\s]+/archive/refs/heads/main\.zip")
ATTACHED = "/kaggle/input/"
RUNNER = ("ipykernel", "nbclient")
ADVICE = "switch Internet on"  # in the one error that a reader without a network gets


@dataclass(frozen=True)
class Machine:
    """What is imitated.

    Parameters
    ----------
    packages : what is there before the notebook is opened, besides torch; "course": what README's command installs
    variables : of the environment, by which the platform is known
    network, wheel : whether there is a network; whether the course's wheel is attached
    """

    packages: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()
    network: bool = True
    wheel: bool = False

    @property
    def can_install(self) -> bool:
        """Whether the set-up cell can end well."""
        return self.network or self.wheel or self.packages == COURSE


PLATFORM = ("numpy", "matplotlib", "ipython==7.34.*", "ipywidgets==7.7.*", "tqdm")
NEWEST = ("numpy", "matplotlib", "ipywidgets", "tqdm")
COURSE = ("course",)
FOLDERS = {PLATFORM: "platform", NEWEST: "newest", COURSE: "course"}  # of their environments
KAGGLE = (("KAGGLE_KERNEL_RUN_TYPE", "Interactive"), ("COLAB_RELEASE_TAG", "release-of-the-base-image"))
MACHINES = {
    "colab": Machine(PLATFORM, (("COLAB_RELEASE_TAG", "release-colab"),)),
    "kaggle": Machine(PLATFORM, KAGGLE),
    "kaggle-wheel": Machine(PLATFORM, KAGGLE, network=False, wheel=True),
    "kaggle-offline": Machine(PLATFORM, KAGGLE, network=False),
    "laptop-offline": Machine(COURSE, network=False),
    "newest": Machine(NEWEST),
}


@dataclass(frozen=True)
class Outcome:
    """What happened to a notebook; ``error`` is "" if it ran, ``setup`` and ``seconds`` are times."""

    error: str
    setup: float
    seconds: float
    said: str  # by the set-up cell


# The package as a reader gets it


def archive(folder: Path) -> Path:
    """This working tree as GitHub packs it: one folder, named after repository and branch."""
    target = folder / "main.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in repository.files():
            packed.write(path, "course-main" / path.relative_to(repository.ROOT))
    return target


def wheel(python: Path, source: Path, folder: Path) -> Path:
    """The folder with the wheel that README and the site offer, as it lies among Kaggle's attached files."""
    target = folder / "input" / "datasets" / "reader" / "course"
    pip(python, "wheel", "--no-deps", "-w", str(target), str(source))
    return folder / "input"


# Machines


def pip(python: Path, *arguments: str) -> None:
    """pip in one of the environments; what it says is shown if it fails."""
    command = [str(python), "-m", "pip", *arguments, "-q", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def build(folder: Path, packages: tuple[str, ...], source: Path) -> Path:
    """The Python of a virtual environment with these packages; one that is there already is used again.

    Parameters
    ----------
    packages : as in :class:`Machine`
    source : of :func:`archive`; a laptop has it unpacked
    """
    clone = folder.with_name("clone")
    if packages == COURSE:
        shutil.rmtree(clone, ignore_errors=True)
        shutil.unpack_archive(source, clone)
        (clone,) = clone.iterdir()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        pins = ROOT / "requirements.txt"
        torch = next(line for line in pins.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
        if packages == NEWEST and "download.pytorch.org" in os.environ.get("PIP_EXTRA_INDEX_URL", ""):
            torch = "torch"
        if packages == COURSE:
            pip(python, "install", "-r", str(pins), "-e", str(clone))
        else:
            pip(python, "install", torch, *packages, *RUNNER)
        (folder / "complete").touch()
    return python


def borrow(folder: Path) -> Path:
    """The Python of an environment with links to the packages of the one that runs this, except mooc_da: seconds."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    ours, theirs = (
        Path(subprocess.run([p, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
        for p in (python, sys.executable)
    )
    for entry in theirs.iterdir():
        if "mooc_da" not in entry.name and not (ours / entry.name).exists() and entry.name != "__pycache__":
            (ours / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    specs = Path(sys.prefix) / "share" / "jupyter" / "kernels"
    if specs.is_dir():
        shutil.copytree(specs, folder / "share" / "jupyter" / "kernels")
    return python


def has(python: Path, *packages: str) -> dict[str, str]:
    """Installed versions, "" where there is none."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "there = {d.name.replace('-', '_'): d.version for d in m.distributions()}\n"
        "print(json.dumps({name: there.get(name, '') for name in sys.argv[1:]}))"
    )
    command = [str(python), "-P", "-c", code, *packages]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def without_network() -> tuple[str, ...]:
    """A prefix for commands that takes the network away; () where the system does not permit that."""
    prefix = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return prefix


def surroundings(machine: Machine, home: Path, *, closed: bool) -> dict[str, str]:
    """Environment variables: the platform's, an empty home, and how pip finds its index.

    ``closed`` stands in for a missing network by proxies that do not answer.
    """
    kept = ("PATH", "LANG", "TMPDIR", "SYSTEMROOT", "OMP_NUM_THREADS", "SSL_CERT_FILE")
    index = [name for name in os.environ if machine.network and name.upper().startswith(("PIP_", "HTTP", "NO_PROXY"))]
    variables = {name: os.environ[name] for name in (*kept, *index) if name in os.environ}
    if not machine.network:
        variables["PIP_CONFIG_FILE"] = os.devnull  # it may name folders of packages
    if closed:
        variables |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"PIP_NO_INDEX": "1"}
    return variables | {"HOME": str(home), "USERPROFILE": str(home)} | dict(machine.variables)


# One notebook


def launch(
    machine: Machine, python: Path, name: str, source: Path, attached: Path | None = None, *, setup: bool = False
) -> Outcome:
    """Execute a notebook alone in an empty folder, as far as its imports or to the end.

    Parameters
    ----------
    python : of the environment that imitates the machine, without mooc_da
    source, attached : of :func:`archive` and, for a machine that has it, of :func:`wheel`
    """
    with tempfile.TemporaryDirectory(prefix="launch-") as scratch:
        folder, home = Path(scratch, "alone"), Path(scratch, "home")
        folder.mkdir()
        home.mkdir()
        text = NOTEBOOKS[name].read_text(encoding="utf-8")
        nothing = Path(scratch, "nothing-attached")
        text, n_sources = ZIP.subn(lambda address: source.as_uri() if machine.network else address[0], text)
        text, n_folders = re.subn(ATTACHED, f"{attached if machine.wheel else nothing}/", text)
        if (n_sources, n_folders) != (1, 1):
            raise RuntimeError(f"{name}: expected one address of the zip file and one of Kaggle's folder")
        copy = folder / f"{name}.ipynb"
        copy.write_text(text, encoding="utf-8")
        command = [str(python), "-P", str(Path(__file__).resolve()), "--inside", str(copy), *["--setup"] * setup]
        prefix = () if machine.network else without_network()
        variables = surroundings(machine, home, closed=not machine.network and not prefix)
        done = subprocess.run([*prefix, *command], cwd=folder, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def inside(path: Path, *, setup: bool) -> None:
    """Execute the notebook with the Python that runs this, and print the outcome as JSON."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    if setup:
        notebook.cells = notebook.cells[: code[1] + 1]
    first = notebook.cells[code[0]]
    error, start = "", time.perf_counter()
    try:
        NotebookClient(notebook, timeout=1800, kernel_name="python3").execute(cwd=str(path.parent))
    except CellExecutionError as failed:
        error = f"{failed.ename}: {failed.evalue}"
    seconds = time.perf_counter() - start
    said = "".join(str(o.get("text", "") or o.get("data", {}).get("text/plain", "")) for o in first.outputs)
    print(json.dumps({"error": error, "setup": took(first), "seconds": seconds, "said": said}))


def took(cell) -> float:
    """Seconds between the start of a cell and its end, as the kernel reports them."""
    from datetime import datetime

    stamps = cell.metadata["execution"]
    start, end = (datetime.fromisoformat(stamps[f"iopub.{name}"]) for name in ("status.busy", "status.idle"))
    return (end - start).total_seconds()


def verdict(machine: Machine, outcome: Outcome, before: dict[str, str], after: dict[str, str]) -> str:
    """What is wrong, "" if nothing is: the notebook runs, or its one error says what to do; torch and numpy stay."""
    if before != after:
        return f"changed {before} to {after}"
    if machine.can_install:
        return outcome.error
    return "" if ADVICE in outcome.error else f"no advice without a network, but: {outcome.error or 'no error'}"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machines", nargs="*", metavar="MACHINE", help=f"all, or some of: {', '.join(MACHINES)}")
    parser.add_argument("--notebook", action="append", choices=NOTEBOOKS, help="only this one; may be repeated")
    parser.add_argument("--setup", action="store_true", help="only as far as the imports")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the environments here, and use them again")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.inside, setup=options.setup)
        return 0
    chosen = [*MACHINES] if options.machines == ["all"] else options.machines
    if not chosen or set(chosen) - set(MACHINES):
        parser.error(f"name all, or some of: {', '.join(MACHINES)}")

    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        source = archive(Path(scratch))
        kept = (options.keep or Path(scratch)).resolve()
        print(f"No network: {'a namespace without one' if without_network() else 'proxies that do not answer'}.")
        print("| machine | notebook | outcome | set-up cell (s) | in all (s) |\n|---|---|---|---|---|", flush=True)
        for name in chosen:
            machine = MACHINES[name]
            python = build(kept / FOLDERS[machine.packages], machine.packages, source)
            attached = wheel(python, source, Path(scratch)) if machine.wheel else None
            for notebook in options.notebook or NOTEBOOKS:
                if machine.packages != COURSE and has(python, "mooc_da")["mooc_da"]:
                    pip(python, "uninstall", "-y", "mooc_da")
                before = has(python, "torch", "numpy")
                outcome = launch(machine, python, notebook, source, attached, setup=options.setup)
                problem = verdict(machine, outcome, before, has(python, "torch", "numpy"))
                wrong += bool(problem)
                result = f"**failed**: {problem}" if problem else "runs" if machine.can_install else "says what to do"
                result = " ".join(result.replace("|", "\\|").split())
                print(f"| {name} | {notebook} | {result} | {outcome.setup:.1f} | {outcome.seconds:.0f} |", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
