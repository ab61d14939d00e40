"""What the site consists of, and how the texts of the repository become its pages.

Needs neither Sphinx nor :mod:`mooc_da`: the notebooks are read as they are stored, the package map from its source.
"""

from __future__ import annotations

import ast
import itertools
import json
import posixpath
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
BLOB = f"{REPOSITORY}/blob/main/"
SITE = "https://{}.github.io/{}/".format(*REPOSITORY.split("/")[-2:])
USING = "using_the_course.md"
CODE_OR_LINK = re.compile(r"```.*?```|`[^`\n]*`|(?P<image>!?)\[(?P<text>[^][]*)\]\((?P<target>[^()\s]+)\)", re.DOTALL)
BADGE = re.compile(r"\[!\[(?P<text>[^]]+)\]\([^)]*badge[^)]*\)\]|\[!\[(?P<open>Open in [^]]+)\]\([^)]*\)\]")


class PageError(RuntimeError):
    """A text that cannot become a page; the message says where and why."""


def paths(pattern: str) -> list[str]:
    """Files of the repository, relative to it, in the order of their names."""
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if path.name[0] != ".")


def contents() -> dict[str, list[str]]:
    """The table of contents: caption -> sources of the pages, as paths in the repository or as made here."""
    return {
        "The course": paths("notebooks/*.ipynb"),
        "Optional": paths("notebooks/extras/*.ipynb"),
        "At hand": [*paths("notebooks/*.md"), USING],
        "The package": ["reference/index.rst"],
    }


def sources() -> list[str]:
    """The table of contents without its captions."""
    return list(itertools.chain(*contents().values()))


def slides() -> list[str]:
    """The PDFs to download."""
    return paths("slides_pdf/*.pdf")


def entry(source: str) -> str:
    """A line of a table of contents: pages of prose get a short title."""
    return f"{Path(source).stem.replace('_', ' ').capitalize()} <{source}>" if source.endswith(".md") else source


# Links


def linked(target: str, source: str) -> tuple[str, bool]:
    """Where a link of a source leads on the site, and whether that is a page of it (or else a file or an address).

    Absolute links to files of this repository, as notebooks need them on Colab, and to the site become relative ones.

    Raises
    ------
    PageError
        if it leads to a file that is not there
    """
    folder = posixpath.dirname(source)
    path, hash_, anchor = target.partition("#")
    if path.startswith(SITE) and not path.endswith(".whl"):
        path = path[len(SITE) :]
        path = re.sub("/$", "/index.rst", path) if path else sources()[0]  # who asks for the site is on it: go on
    elif path.startswith(BLOB):
        path = path[len(BLOB) :]
    elif re.match(r"[a-z]+:", path) or (not path and source != "README.md"):
        return target, False
    else:
        path = posixpath.normpath(posixpath.join(folder, path or source))
    if path == "README.md":  # its head is the landing page, its sections are another
        path = USING if anchor else "index.md"
    elif path == "slides_pdf":
        path, hash_, anchor = "index.md", "#", "to-download"
    is_page = path == "index.md" or path in sources()
    if not is_page and not (ROOT / path).exists():
        raise PageError(f"{source}: the link {target} leads to no file of the repository")
    if not is_page and path not in slides():
        return f"{BLOB}{path}{hash_}{anchor}", False
    return posixpath.relpath(path, folder or ".") + hash_ + anchor, is_page


def relinked(markdown: str, source: str) -> str:
    """A text with its links as they are on the site, and its badges as words: a page loads nothing from elsewhere."""

    def replaced(match: re.Match) -> str:
        if match["target"] is None or match["image"]:
            return match[0]
        target, is_page = linked(match["target"], source)
        if is_page or target.startswith("#") or re.match(r"[a-z]+:", target):
            return f"[{match['text']}]({target})"
        return f'<a href="{target}">{match["text"]}</a>'

    badges = re.compile(rf"(?:{BADGE.pattern})\(([^)]*)\)")
    markdown = badges.sub(lambda m: f"[{m['text'] or m['open']}]({m[3]}){{.badge}}", markdown)
    return CODE_OR_LINK.sub(replaced, markdown)


# Notebooks

BESIDE = {"exercise", "explorer"}  # tags of the cells that get a frame
FRAME = "::::"
TITLE = re.compile(r"\*\*((?:Exercise|Explore)\b.*?)\.?\*\*\s*", re.DOTALL)


def notebook(source: str) -> str:
    """A notebook with its stored results, dressed for the site; the cells keep their order and their code."""
    content = json.loads((ROOT / source).read_text(encoding="utf-8"))
    cells: list[dict] = []
    for cell in content["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        if cell["cell_type"] == "code":
            cells.append(cell)
            if "setup" in tags:
                tags.append("hide-input")
            describe(cell, source)
            continue
        cell["source"] = relinked("".join(cell["source"]), source)
        if BESIDE & set(tags):
            frame = cells[-1] if cells and cells[-1]["cell_type"] == "markdown" else {"source": ""}
            if frame["source"].endswith(FRAME) and not TITLE.match(cell["source"]):  # one exercise in several cells
                frame["source"] = f"{frame['source'].removesuffix(FRAME)}\n{cell['source']}\n{FRAME}"
                continue
            cell["source"] = framed(cell["source"])
        cells.append(cell)
    return json.dumps(content | {"cells": cells})


def describe(cell: dict, source: str) -> None:
    """Give the figure of a cell the words that are stored with it."""
    figures = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
    if len(figures) > 1:
        raise PageError(f"{source}, cell {cell['id']}: two figures in a cell; each needs its own words")
    for figure in figures:
        alt = figure.get("metadata", {}).get("image/png", {}).get("alt", "")
        cell["metadata"]["mystnb"] = {"image": {"alt": alt}}


def framed(text: str) -> str:
    """An exercise or explorer, which begins with its title in bold, in a frame."""
    if not (match := TITLE.match(text)):
        return text
    return f"{FRAME}{{admonition}} {match[1]}\n:class: exercise\n\n{text[match.end() :]}\n{FRAME}"


# README


def readme() -> tuple[str, str]:
    """The part of README above its first second-level heading, and the rest."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lead, heading, rest = text.partition("\n## ")
    return relinked(lead, "README.md"), relinked((heading + rest).lstrip(), "README.md")


# The package


@dataclass(frozen=True)
class Group:
    """A line of the package map, and the modules it tells of."""

    name: str
    text: str
    modules: list[str]

    @property
    def title(self) -> str:
        return self.name.capitalize()


def modules() -> list[str]:
    """Public modules of the package, without its name: ``filters``, ``exercises.enkf``."""
    package = ROOT / "mooc_da"
    names = {".".join(p.relative_to(package).with_suffix("").parts) for p in package.rglob("*.py")}
    return sorted(name.removesuffix(".__init__") for name in names if not re.search(r"(^|\.)_(?!_init__)|^__", name))


def package_map() -> list[Group]:
    """The groups of modules in the order of the map in ``mooc_da/__init__.py``.

    A module stands where it is the head of a line, else where it is first mentioned; one of a sub-package with it.
    """
    docstring = ast.get_docstring(ast.parse((ROOT / "mooc_da" / "__init__.py").read_text(encoding="utf-8"))) or ""
    lines = re.findall(r"^(\w+) {2,}(.*(?:\n {3,}.*)*)", docstring, flags=re.MULTILINE)
    texts = {head: " ".join(text.split()) for head, text in lines}
    home = {head: head for head in texts}
    for module in modules():
        top = module.partition(".")[0]
        mentions = (head for head, text in texts.items() if re.search(rf"\b{top}\b", text))
        if top not in home and (head := next(mentions, None)):
            home[top] = head
    return [
        Group(head, text, sorted((m for m in modules() if home.get(m.partition(".")[0]) == head), key=rank(head, text)))
        for head, text in texts.items()
    ]


def rank(head: str, text: str):
    """The order within a group: its head first, the others as they are mentioned."""
    return lambda module: (module != head, match.start() if (match := re.search(rf"\b{module}\b", text)) else len(text))


def public_names() -> dict[str, str]:
    """Name in ``mooc_da.__all__`` -> module that it comes from."""
    tree = ast.parse((ROOT / "mooc_da" / "__init__.py").read_text(encoding="utf-8"))
    origin = {a.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    listed = next(n for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__")
    return {name: origin[name] for name in ast.literal_eval(listed.value)}


def reference() -> Iterator[tuple[str, str]]:
    """File name and text of every page of the reference, in reStructuredText."""
    names = public_names()
    overview = []
    for group in package_map():
        given = [f":py:obj:`~mooc_da.{m}.{n}`" for n, m in names.items() if m in group.modules]
        overview.append(f":doc:`{group.title} <{group.name}>`\n    {group.text}\n\n    {', '.join(given)}\n")
        parts = [heading(group.title, "="), f"{group.text}.\n"]
        for module in group.modules:
            parts += [heading(f"``mooc_da.{module}``", "-"), f".. automodule:: mooc_da.{module}"]
            # The exercises of the notebooks are to be solved there, not listed here.
            parts.append("" if re.match(r"exercises\.(?!exercise$)", module) else "   :members:\n")
        yield f"{group.name}.rst", "\n".join(parts)
    toctree = "\n".join(f"   {group.name}" for group in package_map())
    yield (
        "index.rst",
        f"{heading('Reference', '=')}\n"
        "The package ``mooc_da`` by subject. What is named below comes by ``from mooc_da import …``; the rest of a "
        "module by ``from mooc_da import stages``, for example.\n\n"
        f"{chr(10).join(overview)}\n.. toctree::\n   :hidden:\n\n{toctree}\n",
    )


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"
