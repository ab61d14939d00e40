"""A notebook as a deck: its slides, what each of them shows, and a digest of that.

Slide types as in RISE: ``slide`` and ``subslide`` begin a slide, ``-`` continues it, ``fragment`` is a further step of
it, ``notes`` are the speaker's, ``skip`` is left out. Needs nbformat only.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from printing import PrintingError

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
TYPES = {"slide", "subslide", "fragment", "notes", "skip", "-"}
PICTURES = ("image/svg+xml", "image/png")
MEDIA = (*PICTURES, "text/html", "text/markdown", "text/latex", "text/plain")  # the first one present is shown
WIDGET = "application/vnd.jupyter.widget-view+json"  # its static figure is an output of its own


@dataclass(frozen=True)
class Output:
    """One output of a cell: its medium, its content, and the text that stands for a picture."""

    medium: str
    content: str
    alt: str = ""


@dataclass(frozen=True)
class Cell:
    """What a cell shows: its text, or its code unless that is hidden, and its outputs."""

    is_code: bool
    source: str
    outputs: tuple[Output, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.source.strip() and not any(output.content.strip() for output in self.outputs)


@dataclass(frozen=True)
class Slide:
    """A slide: the cells that each of its steps adds, and the speaker's notes."""

    steps: tuple[tuple[Cell, ...], ...]
    notes: tuple[Cell, ...]

    @property
    def title(self) -> str:
        """Its first heading, else the bold words it begins with or the words for its figure; as plain text."""
        cells = [cell for step in self.steps for cell in step]
        text = "\n".join(cell.source for cell in cells if not cell.is_code)
        words = re.search(r"^#+ +(.*)", text, flags=re.MULTILINE) or re.match(r"\s*\*\*(.*?)\*\*", text)
        figures = (output.alt for cell in cells for output in cell.outputs if output.medium in PICTURES)
        return re.sub(r"[*_`]", "", words[1]).strip() if words else next(figures, "")


@dataclass(frozen=True)
class Deck:
    """The slides of a notebook, called by the notebook's file name without its ending."""

    name: str
    slides: tuple[Slide, ...]

    def content(self) -> str:
        """All that the deck and its handout show; not what is skipped, hidden, counted or numbered."""
        return json.dumps(asdict(self), sort_keys=True)


def notebooks() -> dict[str, Path]:
    """All notebooks of the course by name."""
    paths = (path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def read(path: Path) -> Deck:
    """The deck of an executed notebook.

    Raises
    ------
    PrintingError
        listing cells that are not executed, failed, have no slide type or show nothing, if there are any
    """
    notebook = nbformat.read(path, as_version=4)
    in_deck = [cell for cell in notebook.cells if slide_type(cell) != "skip" and "setup" not in tags(cell)]
    if not {"slide", "subslide"} & {slide_type(cell) for cell in in_deck}:
        raise PrintingError("no slides: give the cells slide types (View › Cell Toolbar › Slideshow)")
    wrong = [problem for cell in notebook.cells for problem in execution_problems(cell)]
    wrong += [problem for cell in in_deck for problem in slide_problems(cell)]
    if slide_type(in_deck[0]) not in ("slide", "subslide"):
        wrong.append(f"{named(in_deck[0])}: stands before the first slide")
    if wrong:
        raise PrintingError("\n".join(wrong))
    return Deck(path.stem, tuple(slides(in_deck)))


def slides(cells: list) -> list[Slide]:
    """The cells of a deck, which begins with a slide, as slides."""
    steps: list[list[list[Cell]]] = []
    notes: list[list[Cell]] = []
    for cell in cells:
        kind = slide_type(cell)
        if kind in ("slide", "subslide"):
            steps.append([[]])
            notes.append([])
        elif kind == "fragment":
            steps[-1].append([])
        (notes[-1] if kind == "notes" else steps[-1][-1]).append(shown(cell))
    return [Slide(tuple(map(tuple, s)), tuple(n)) for s, n in zip(steps, notes, strict=True)]


def shown(cell) -> Cell:
    """What a notebook's cell shows; code that draws a figure is hidden."""
    if cell.cell_type != "code":
        return Cell(False, cell.source)
    outputs = tuple(output for stored in cell.outputs for output in readable(stored))
    draws = any(output.medium in PICTURES for output in outputs)
    return Cell(True, "" if draws or "remove-input" in tags(cell) else cell.source, outputs)


def readable(stored) -> list[Output]:
    """What an output shows, if anything: neither progress bars, which go to stderr, nor widgets without a kernel."""
    if stored.output_type == "stream":
        return [Output("text/plain", stored.text)] if stored.name == "stdout" else []
    data = stored.get("data", {})
    medium = next((medium for medium in MEDIA if medium in data), None)
    if medium is None or (WIDGET in data and medium not in PICTURES):
        return []
    content = "".join(data[medium].split()) if medium == "image/png" else data[medium]
    return [Output(medium, content, stored.metadata.get(medium, {}).get("alt", ""))]


def execution_problems(cell) -> list[str]:
    """What keeps the outputs of a cell, in the deck or not, from being trusted."""
    if cell.cell_type != "code" or not cell.source.strip():
        return []
    if cell.execution_count is None:
        return [f"{named(cell)}: not executed"]
    return [f"{named(cell)}: stopped by {o.ename}" for o in cell.outputs if o.output_type == "error"]


def slide_problems(cell) -> list[str]:
    """What is wrong with a cell of the deck, whatever the slide looks like."""
    wrong = []
    if slide_type(cell) not in TYPES:
        wrong.append(f"{named(cell)}: slide type {slide_type(cell)!r}, expected one of {', '.join(sorted(TYPES))}")
    look = shown(cell)
    if look.is_empty:
        wrong.append(f"{named(cell)}: shows nothing; its slide type should be skip")
    pictures = [output for output in look.outputs if output.medium in PICTURES]
    return wrong + [f"{named(cell)}: a figure without alt text" for output in pictures if not output.alt.strip()]


def slide_type(cell) -> str | None:
    return cell.metadata.get("slideshow", {}).get("slide_type")


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def named(cell) -> str:
    """Words by which an author finds a cell."""
    first_line = cell.source.strip().partition("\n")[0][:50]
    return f"cell {cell.get('id', '?')} ({first_line})"
