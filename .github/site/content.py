"""What the site consists of, and how the texts of the repository become its pages.

Needs neither Sphinx nor :mod:`mooc_da`: the notebooks are read as they are stored, the package map from its source.
"""

from __future__ import annotations

import ast
import html
import itertools
import json
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))

import repository  # noqa: E402

NAME = repository.repository()
REPOSITORY = repository.address(NAME)
BLOB = f"{REPOSITORY}/blob/main/"
SITE = f"https://{repository.site(NAME)}/"
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


def decks() -> list[str]:
    """Slides that come with a handout, by the names of their notebooks."""
    stems = {Path(path).stem for path in slides()}
    return sorted(stem for stem in stems if f"{stem}_handout" in stems)


def downloads() -> str:
    """The table of the decks."""
    lines = ["| notebook | to show | to read |", "|:--|:--|:--|"]
    for stem in decks():
        (source,) = (path for path in sources() if Path(path).stem == stem)
        files = file_link(f"slides_pdf/{stem}.pdf", "slides"), file_link(f"slides_pdf/{stem}_handout.pdf", "handout")
        lines.append(f"| [`{stem}`]({source}) | {files[0]} | {files[1]} |")
    return "\n".join(lines)


def file_link(path: str, text: str) -> str:
    """A link to a file of the repository that the site holds, with its size."""
    return f'<a href="{path}">{text}</a> ({(ROOT / path).stat().st_size / 1e6:.1f}&nbsp;MB)'


def entry(source: str) -> str:
    """A line of a table of contents: pages of prose whose title has a subtitle get a short one."""
    if not source.endswith(".md"):
        return source
    path = ROOT / source
    if path.exists() and ":" not in path.read_text(encoding="utf-8").partition("\n")[0]:
        return source
    return f"{Path(source).stem.replace('_', ' ').capitalize()} <{source}>"


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
LIVE = "*Live in Colab, on Kaggle or on your laptop; here a picture.*"
QUIZ = (
    "Choose a letter and press *Check* (with the keyboard: Tab, then Space); every answer gets its reason. "
    "The first try counts.",
    "Choose a letter, then unfold the answer; every letter gets its reason.",
)
SUMMARY = re.compile(r"\s*(ex|exercises)\.summary\(\)\s*")  # of what its reader has solved
TITLE = re.compile(r"\*\*((?:Exercise|Explore)\b.*?)\.?\*\*\s*", re.DOTALL)
TITLE_ABOVE = re.compile(r"(#+ (?:Exercise|Explore)\b.*)\n+")


def notebook(source: str) -> str:
    """A notebook with its stored results, dressed for the site; the cells keep their order and their code.

    What speaks of buttons and of the reader's own results is left out or said for a page.
    """
    content = json.loads((ROOT / source).read_text(encoding="utf-8"))
    cells: list[dict] = []
    for cell in content["cells"]:
        if cell["cell_type"] == "code" and SUMMARY.fullmatch("".join(cell["source"])):
            cells.pop()  # the words that introduce it
            continue
        tags = cell["metadata"].setdefault("tags", [])
        if cell["cell_type"] == "code":
            cells.append(cell)
            if "setup" in tags:
                tags.append("hide-input")
            describe(cell, source)
            continue
        cell["source"] = relinked("".join(cell["source"]), source)
        if "quiz" in tags:
            cell["source"] = unfolding(cell["source"], source)
        if BESIDE & set(tags):
            frame = cells[-1] if cells and cells[-1]["cell_type"] == "markdown" else {"source": ""}
            if frame["source"].endswith(FRAME) and not is_titled(cell["source"]):  # one exercise in several cells
                frame["source"] = f"{frame['source'].removesuffix(FRAME)}\n{cell['source']}\n{FRAME}"
                continue
            cell["source"] = framed(cell["source"], LIVE if "explorer" in tags else "")
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


def unfolding(text: str, source: str) -> str:
    """The introduction of a quiz, for answers that unfold in the place of buttons."""
    if text.count(QUIZ[0]) != text.count("*Check*"):
        raise PageError(f"{source}: the introduction of the quiz is not the one that content.QUIZ replaces")
    return text.replace(*QUIZ)


def is_titled(text: str) -> bool:
    return bool(TITLE.match(text) or TITLE_ABOVE.match(text))


def framed(text: str, remark: str = "") -> str:
    """An exercise or explorer, which begins with its title, in bold or as a heading, in a frame; a heading is above."""
    if match := TITLE.match(text):
        before, opening = "", f"{FRAME}{{admonition}} {match[1]}\n:class: exercise"
    elif match := TITLE_ABOVE.match(text):
        before, opening = f"{match[1]}\n\n", f"{FRAME}{{container}} admonition exercise"
    else:
        return text
    body = f"{remark}\n\n{text[match.end() :]}".lstrip()
    return f"{before}{opening}\n\n{body}\n{FRAME}"


# README

READ = "| **read** | [start reading](notebooks/0_intro.ipynb); each page leads to the next |"  # the reader is here


def readme() -> tuple[str, str]:
    """The part of README above its first second-level heading, and the rest."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text, n_rows = re.subn(r"(?m)^\| \*\*read\*\* \|.*$", READ, text)
    if n_rows != 1:
        raise PageError("README.md: no row of the first table, or more than one, begins with | **read** |")
    lead, heading, rest = text.partition("\n## ")
    return relinked(lead, "README.md"), relinked((heading + rest).lstrip(), "README.md")


# Pages as Sphinx has made them

PICTURE = re.compile(r'(?P<link><a [^>]*>\s*)?<img [^>]*?src="(?P<source>[^"]+)"[^>]*>')
FORMULA = re.compile(r'<span class="math(?P<more>[^"]*)">(?P<tex>.*?)</span>(?P<after>[.,;:)]*)', re.DOTALL)
CELL = re.compile(r"<td(?: class=\"(?P<class>[^\"]*)\")?>(?P<inside>.*?)</td>", re.DOTALL)


def finished(body: str) -> str:
    """A page on which figures open in full size, and the style sheet can tell long formulas and cells of prose."""

    def enlarged(match: re.Match) -> str:
        if match["link"]:
            return match[0]
        return f'<a class="figure" href="{match["source"]}" title="Open the figure in full size">{match[0]}</a>'

    def measured(match: re.Match) -> str:
        if n_signs(html.unescape(match["tex"])) > 24:
            return match[0].replace("math", "math long", 1)
        return f'<span class="together">{match[0]}</span>' if match["after"] else match[0]

    def told(match: re.Match) -> str:
        if len(" ".join(re.sub(r"<[^>]*>", "", match["inside"]).split())) <= 40:
            return match[0]
        return f'<td class="{match["class"] or ""} prose">{match["inside"]}</td>'

    return CELL.sub(told, FORMULA.sub(measured, PICTURE.sub(enlarged, body)))


def n_signs(tex: str) -> int:
    """About how many signs wide a formula is."""
    tex = re.sub(r"\\(?:math\w+|operatorname|left|right|begin|end|[,;!()])", "", tex)
    return len(re.sub(r"\\[a-zA-Z]+|[\s{}_^]", lambda sign: "x" if sign[0][0] == "\\" else "", tex))


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
