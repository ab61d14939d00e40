"""Lints: imports go one way, modules stay small, notebooks keep to their template, requirements agree."""

import ast
import graphlib
import inspect
import itertools
import json
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

import mooc_da

ROOT = Path(__file__).parents[1]

# The package

LAYERS = (
    {"config", "cache", "models", "shallow_water", "observations", "ensembles"},
    {"filters", "finite_size", "localisation", "kalman", "particles"},
    {"covariances", "minimisation", "variational", "smoothers", "hybrids"},
    {"cycle", "networks"},
    {"scores", "learning", "latent", "soap"},
    {"loop"},
    {"stages"},
    {"reader", "machine", "plots", "diagrams", "maps", "loop_plots"},
    {"exercises", "quiz", "widgets", "explorers", "hybrid_explorers", "challenge", "baselines", "loop_attempts"}
    | {"loop_study", "model_card"},
    {"__init__", "__main__"},
)
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
PACKAGE = ROOT / "mooc_da"
MODULES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}
PARTS = sorted(
    p.stem for p in (PACKAGE / "exercises").glob("[!_]*.py") if p.stem != "exercise"
)  # one for each notebook
EACH_MODULE = pytest.mark.parametrize("name", MODULES)


def layer(name):
    return LAYER[name.split(".")[0]]


def imports(name):
    """Names of all modules that a module imports, also inside functions; those of the package begin with a dot."""
    folder = name.split(".")[:-1]
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.replace("mooc_da.", ".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".")
            if not node.level and path[0] != "mooc_da":
                yield node.module
                continue
            above = folder[: len(folder) + 1 - node.level] if node.level else []
            path = [*above, *(part for part in path if part not in ("", "mooc_da"))]
            for alias in node.names:  # a module, a name in one, or a public name
                known = (".".join([*path, alias.name]), ".".join(path), "__init__")
                yield "." + next(module for module in known if module in MODULES)


@EACH_MODULE
def test_imports_go_one_way(name):
    assert name.split(".")[0] in LAYER, f"{name} has no layer: add it to LAYERS, or put its content where it belongs"
    for imported in imports(name):
        if imported.startswith("."):
            assert layer(imported[1:]) <= layer(name), f"{name} imports {imported}, which is above it"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: {i[1:] for i in imports(name) if i.startswith(".")} for name in MODULES if name != "__init__"}
    tuple(graphlib.TopologicalSorter(graph).static_order())


@EACH_MODULE
def test_numerical_modules_draw_nothing(name):
    if layer(name) < LAYER["plots"]:
        assert not {i.split(".")[0] for i in imports(name)} & {"matplotlib", "ipywidgets", "IPython"}


@EACH_MODULE
def test_a_module_is_short_and_everything_public_is_explained(name):
    source = MODULES[name].read_text()
    assert len(source.splitlines()) <= (450 if name.startswith("exercises.") else 330)  # an exercise is mostly text
    tree = ast.parse(source)
    assert ast.get_docstring(tree), f"{name} has no docstring"
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    assert [n.name for n in public if not ast.get_docstring(n)] == []


def test_there_is_no_drawer_for_odds_and_ends():
    assert not {"utils", "helpers", "misc", "common"} & set(MODULES)


def test_public_names_exist_and_are_explained():
    assert len(mooc_da.__all__) == len(set(mooc_da.__all__)) >= 20
    for name in mooc_da.__all__:
        assert inspect.getdoc(getattr(mooc_da, name)), name


def test_importing_the_package_does_not_import_what_draws():
    code = "import sys, mooc_da; print(*{'matplotlib', 'ipywidgets', 'IPython'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


# Requirements


def requirements(lines):
    """Name -> requirement, without the package itself."""
    parsed = [Requirement(line) for line in lines]
    return {r.name.lower(): r for r in parsed if r.name not in ("mooc_da", "mooc-da")}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = requirements(PROJECT["dependencies"])
RANGES = CORE | requirements(line for extra in PROJECT["optional-dependencies"].values() for line in extra)
PINS = requirements(re.findall(r"^[A-Za-z].*", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE))


def test_requirements_are_exact_and_within_the_ranges_of_the_project():
    assert set(CORE) <= set(PINS) <= set(RANGES)
    for name, pin in PINS.items():
        (specifier,) = pin.specifier
        assert specifier.operator == "==", pin
        assert RANGES[name].specifier.contains(specifier.version), f"{pin} is outside of {RANGES[name]}"


def test_the_conda_environment_holds_the_pins_of_requirements():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pins = dict([*re.split("=+", line), ""][:2] for line in dependencies if isinstance(line, str))
    pins["torch"] = pins.pop("pytorch", pins.get("torch"))  # its name in conda-forge
    python = pins.pop("python")
    del pins["pip"]
    assert pins == {name: next(iter(pin.specifier)).version for name, pin in PINS.items()}
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)


def test_the_citation_names_the_version_of_the_package():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == mooc_da.__version__


# Notebooks

NOTEBOOKS = sorted((ROOT / "notebooks").glob("**/[!.]*.ipynb"))
MAIN = ("0_intro", "1_enkf", "2_correction", "3_hybrid")
EACH_NOTEBOOK = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells(path, kind):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind]


def lines(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


def prose(path):
    """Markdown without blocks of code."""
    return re.sub(r"```.*?```", "", "\n\n".join(c.source for c in cells(path, "markdown")), flags=re.DOTALL)


BESIDE = {"exercise", "explorer", "quiz"}  # tags of the cells that a reader may skip


def is_read(cell, path):
    """Whether a cell counts to those to read: not a heading with its question, not the teacher's notes."""
    is_heading = cell.source.startswith("#") and cell.cell_type == "markdown" and len(cell.source.split()) <= 45
    is_note = path.stem == "0_intro" and cell.metadata.slideshow.slide_type == "notes"
    return not (BESIDE & set(cell.metadata.get("tags", ())) or is_heading or is_note)


def test_the_four_notebooks_of_the_course_are_there():
    assert {path.stem for path in NOTEBOOKS if path.parent.name == "notebooks"} == set(MAIN)


@EACH_NOTEBOOK
def test_a_notebook_is_valid_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    assert "widgets" not in notebook.metadata, "clear the widget state before saving"


@EACH_NOTEBOOK
def test_cells_are_short_and_prose_outweighs_code(path):
    code = [c for c in cells(path, "code") if lines(c)]
    sizes = [len(lines(c)) for c in code]
    assert statistics.median(sizes) <= 6
    assert max(sizes) <= 25
    assert len(prose(path).split()) >= sum(len(c.source.split()) for c in code)
    if path.stem in MAIN:
        n_cells = sum(is_read(cell, path) for cell in nbformat.read(path, as_version=4).cells)
        assert (20 if path.stem == "0_intro" else 25) <= n_cells <= 50


@EACH_NOTEBOOK
def test_headings_nest_without_gaps(path):
    levels = [len(marks) for marks in re.findall(r"^(#+) ", prose(path), flags=re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), levels


@EACH_NOTEBOOK
def test_a_notebook_was_run_from_top_to_bottom_without_a_warning(path):
    code = [c for c in cells(path, "code") if lines(c)]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    for output in (o for c in code for o in c.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


@EACH_NOTEBOOK
def test_a_notebook_runs_on_any_machine(path):
    for cell in cells(path, "code"):
        assert not re.search(r"(?m)sys\.path|os\.system|^\s*!|^\s*%%?(cd|bash|sh|system)\b", cell.source), cell.source
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/png", None)
    assert not re.search(r"(?<![\w.:/])/(work|root|home|tmp|Users)/", json.dumps(notebook))


@EACH_NOTEBOOK
def test_no_picture_of_the_prose_is_a_file_beside_it(path):
    sources = re.findall(r"!\[[^]]*\]\(([^)]*)|<img[^>]*src=[\"']([^\"']*)", prose(path))
    assert all("".join(s).startswith(("https:", "http:", "data:", "attachment:")) for s in sources), sources


@EACH_NOTEBOOK
def test_every_stored_figure_tells_its_message_in_words_and_no_widget_is_stored(path):
    outputs = [o for c in cells(path, "code") for o in c.outputs if o.output_type in ("display_data", "execute_result")]
    for output in outputs:
        assert "application/vnd.jupyter.widget-view+json" not in output.data, (
            "a widget without its kernel shows nothing"
        )
        if "image/png" in output.data:
            assert len(output.metadata["image/png"]["alt"].split()) >= 5
            assert output.data["text/plain"] == output.metadata["image/png"]["alt"]


@EACH_NOTEBOOK
def test_nbval_has_something_to_compare(path):
    tagged = [c for c in cells(path, "code") if "nbval-check-output" in c.metadata.get("tags", ())]
    assert tagged
    for cell in tagged:
        text = "".join(o.get("text", "") or str(o.get("data", {}).get("text/plain", "")) for o in cell.outputs)
        assert text.strip(), f"no output committed for {cell.source}"


def test_the_setup_cell_is_the_same_everywhere_and_comes_first():
    first = [cells(path, "code")[0] for path in NOTEBOOKS]
    assert all(cell.metadata.tags == ["setup"] for cell in first)
    assert len({cell.source for cell in first}) == 1
    assert len(first[0].source.splitlines()) <= 25
