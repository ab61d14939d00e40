"""The pages to read: nothing is left out, every link leads somewhere, docstrings stay legible. Sphinx is not needed."""

import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mooc_da

ROOT = Path(__file__).parents[1]
TEXTS = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("notebooks/**/[!.]*") if p.suffix in (".ipynb", ".md"))


def module(name):
    """A module of the site; its folder is no package, and ``content`` too plain a name for the path of all tests."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / ".github" / "site" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # a dataclass looks for its module there
    spec.loader.exec_module(loaded)
    return loaded


BLOB = "https://github.com/mooc-da/mooc-da/blob/main/"
content, docstrings = module("content"), module("docstrings")


# What is there


def test_every_notebook_and_text_is_in_the_table_of_contents_exactly_once():
    sources = content.sources()
    assert len(sources) == len(set(sources))
    made = {content.USING, "reference/index.rst"}
    assert set(sources) - made == {path for path in TEXTS if ".ipynb_checkpoints" not in path}


def test_the_reference_has_every_module_once_and_every_public_name():
    pages = dict(content.reference())
    shown = re.findall(r"^\.\. automodule:: mooc_da\.(\S+)", "\n".join(pages.values()), flags=re.MULTILINE)
    assert sorted(shown) == content.modules(), "each module has its place in the map in mooc_da/__init__.py"
    named = re.findall(r":py:obj:`~mooc_da\.\w+\.(\w+)`", pages["index.rst"])
    assert sorted(named) == sorted(mooc_da.__all__)


def test_the_reference_is_in_the_order_of_the_package_map():
    heads = re.findall(r"^(\w+) {2,}", mooc_da.__doc__, flags=re.MULTILINE)
    assert [group.name for group in content.package_map()] == heads
    toctree = dict(content.reference())["index.rst"].partition(".. toctree::")[2].split()[1:]
    assert toctree == heads


def test_what_builds_the_site_is_an_extra_that_nobody_else_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    site = {Requirement(line).name for line in project["optional-dependencies"]["site"]}
    assert {"sphinx", "myst-nb"} <= site
    pins = re.findall(r"^([A-Za-z][\w-]*)==", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert not site & set(pins)


# Links


@pytest.mark.parametrize("source", TEXTS)
def test_a_text_stays_on_the_site_and_loads_nothing_from_elsewhere(source):
    if source.endswith(".ipynb"):
        cells = json.loads(content.notebook(source))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = content.relinked((ROOT / source).read_text(encoding="utf-8"), source)
    assert not re.search(rf"\]\({re.escape(BLOB)}[^)]*\.(md|ipynb)", text)
    assert not re.search(r"!\[[^]]*\]\(https?:", text)
    assert source.endswith(".md") or text.count("{.badge}") == 2


def test_the_landing_page_is_the_head_of_the_readme():
    lead, rest = content.readme()
    assert lead.startswith("# ")
    assert "\n## " not in lead
    assert rest.startswith("## ")
    assert "](notebooks/0_intro.ipynb)" in lead
    assert not re.search(r"!\[[^]]*\]\(https?:", lead + rest)


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        ("https://doi.org/10.1002/qj.4116", "notebooks/1_enkf.ipynb", ("https://doi.org/10.1002/qj.4116", False)),
        (BLOB + "notebooks/glossary.md#bias", "notebooks/extras/8_challenge.ipynb", ("../glossary.md#bias", True)),
        ("#terms", "notebooks/glossary.md", ("#terms", False)),
        ("../slides_pdf/cheat_sheet.pdf", "notebooks/cheat_sheet.md", ("../slides_pdf/cheat_sheet.pdf", False)),
        ("../README.md#learning-alone", "notebooks/glossary.md", (f"../{content.USING}#learning-alone", True)),
        ("#learning-alone", "README.md", (f"{content.USING}#learning-alone", True)),
        ("mooc_da/filters.py", "README.md", (BLOB + "mooc_da/filters.py", False)),
        ("https://mooc-da.github.io/mooc-da/reference/", "README.md", ("reference/index.rst", True)),
    ],
)
def test_a_link_leads_to_a_page_a_file_or_the_repository(target, source, expected):
    assert content.linked(target, source) == expected


def test_a_link_to_nothing_is_refused():
    with pytest.raises(content.PageError, match=r"glossary\.md.*no_such_text"):
        content.linked("no_such_text.md", "notebooks/glossary.md")


# Docstrings


def rst(text):
    return "\n".join(docstrings.to_rst(text.splitlines(), {"EnKF": "filters"}))


def test_shapes_are_code_and_names_are_links():
    assert "``(..., Ne, Nx)``" in rst("An ensemble (..., Ne, Nx).")
    assert "``(*batch, K)``" in rst("Losses (*batch, K), one each.")
    assert "min(Ne, Ny)" in rst("Modes: min(Ne, Ny).")
    assert "`EnKF <mooc_da.filters.EnKF>`" in rst("See `EnKF`.")
    assert "`inflate <.inflate>`" in rst("See :func:`inflate`.")
    assert r"\|x\|" in rst("The norm |x|.")
    assert "*so*" in rst("Only *so*.")


def test_parameters_become_a_list_with_their_meanings():
    text = rst("Does it.\n\nParameters\n----------\nE : (..., Ne, Nx), the\n    ensemble\na, b : numbers")
    assert ":Parameters:\n    ``E``\n        ``(..., Ne, Nx)``, the ensemble\n    ``a``, ``b``\n        numbers" in text


def test_tables_and_indented_lines_keep_their_form():
    table = rst("| a | b |\n|---|---|\n| 1 | 2 |")
    assert table.startswith(".. list-table::")
    assert table.count("* - ") == 2
    assert ".. code-block:: text\n\n    x, X  mean" in rst("In all\n\n    x, X  mean\n    y     other")
    assert ".. code-block:: python" in rst("So:\n\n    from mooc_da import challenge")
    formula = "Chosen so:\n\n.. math:: a = b, \\\n    c"
    assert rst(formula).strip() == formula


def test_a_doi_is_a_link_even_with_signs_of_markup_in_it():
    old = "10.1175/1520-0493(1998)126<1719:ASITEK>2.0.CO;2"
    link = "<https://doi.org/10.1175/1520-0493(1998)126%3C1719%3AASITEK%3E2.0.CO%3B2>`__"
    assert f"`doi:{old} {link}:" in rst(f"Burgers et al. (1998), doi {old}: *so*.")
    assert "`doi:10.1002/qj.2236 <https://doi.org/10.1002/qj.2236>`__)." in rst("(2014, doi:10.1002/qj.2236).")
    assert "https://example.org/a_b." in rst("See https://example.org/a_b.")


# What is said to a reader of pages


@pytest.mark.parametrize("source", [path for path in TEXTS if path.endswith(".ipynb")])
def test_no_page_speaks_of_buttons_or_of_what_its_reader_has_solved(source):
    stored = json.loads((ROOT / source).read_text(encoding="utf-8"))["cells"]
    cells = json.loads(content.notebook(source))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert "*Check*" not in text
    assert ".summary()" not in text
    assert "Which exercises are solved?" not in text
    explorers = sum("widgets." in "".join(c["source"]) and "explorer" in c["metadata"].get("tags", []) for c in stored)
    assert text.count(content.LIVE) == explorers
    assert len(cells) >= len(stored) - 5, "only the summary, its heading and frames in several parts are gone"


def test_an_unknown_introduction_of_a_quiz_is_refused():
    with pytest.raises(content.PageError, match="a.ipynb: the introduction"):
        content.unfolding("Press *Check* now.", "a.ipynb")


def test_every_pdf_is_offered_once_on_the_landing_page():
    offered = [*re.findall(r'href="([^"]+)"', content.downloads()), "slides_pdf/cheat_sheet.pdf"]
    assert sorted(offered) == content.slides()
    assert "start reading" in content.readme()[0]
    assert "as web pages" not in content.readme()[0].partition("| notebook |")[0]


def test_a_finished_page_opens_its_figures_and_tells_what_is_long():
    page = content.finished(
        '<img alt="a" src="b.png" /><a href="c"><img src="d.svg"></a><td class="text-left">5</td>'
        f"<td>{'many words ' * 5}</td>"
        r'<span class="math notranslate">\(x_n\)</span>'
        r'<span class="math notranslate">\(\mathrm{d}x_n = (x_{n+1} - x_{n-2}) x_{n-1} - x_n + F + \eta\)</span>'
    )
    assert page.count('<a class="figure" href="b.png"') == page.count('class="figure"') == 1
    assert page.count(" prose") == 1
    assert page.count("math long") == 1
    assert page.index("math long") > page.index("(x_n")
