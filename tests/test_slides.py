"""Decks: every notebook has a PDF and a handout that show its slides of today; the builder notices what is wrong."""

import importlib
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat import v4

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "slides_pdf"
TOOLS = ("build", "deck", "pages", "printing", "rehearse")
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(FOLDER)
    tool = SimpleNamespace(**{name: importlib.import_module(name) for name in TOOLS})
NOTEBOOKS = tool.deck.notebooks()
EACH_DECK = pytest.mark.parametrize("name", NOTEBOOKS)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="


def text(source, slide="slide"):
    return v4.new_markdown_cell(source, metadata={"slideshow": {"slide_type": slide}})


def code(source="1 + 1", *outputs, slide="-", count=1, tags=()):
    metadata = {"slideshow": {"slide_type": slide}, "tags": [*tags]}
    return v4.new_code_cell(source, metadata=metadata, execution_count=count, outputs=[*outputs])


def figure(alt="A line that rises."):
    return v4.new_output("display_data", {"image/png": PIXEL}, metadata={"image/png": {"alt": alt}})


def stream(words, name="stdout"):
    return v4.new_output("stream", name=name, text=words)


@pytest.fixture
def deck_of(tmp_path):
    """``deck_of(cell, …)``: the deck of a notebook with these cells."""

    def read(*cells):
        path = tmp_path / "n.ipynb"
        nbformat.write(v4.new_notebook(cells=[*cells]), path)
        return tool.deck.read(path)

    return read


# The PDFs


@EACH_DECK
def test_deck_and_handout_show_the_slides_of_today(name):
    deck = tool.deck.read(NOTEBOOKS[name])
    for kind, pattern in tool.build.KINDS.items():
        path = FOLDER / pattern.format(name)
        assert path.is_file(), f"build it: python slides_pdf/build.py {name}"
        pdf = path.read_bytes()
        assert tool.printing.stamp_of(pdf) == tool.pages.source_digest(deck), (
            f"build it again: python slides_pdf/build.py {name}"
        )
        assert len(pdf) < 1.5e6 and not tool.printing.pdf_errors(pdf)
        n_pages, n_steps = tool.printing.page_count(pdf), sum(len(slide.steps) for slide in deck.slides)
        assert n_pages == n_steps if kind == "slides" else len(deck.slides) / 2 <= n_pages <= 3 * len(deck.slides)


@EACH_DECK
def test_every_slide_has_a_title_and_every_cell_something_to_show(name):
    for slide in tool.deck.read(NOTEBOOKS[name]).slides:
        cells = [cell for step in slide.steps for cell in step]
        assert slide.title, cells[0].source
        assert not any(cell.is_empty for cell in (*cells, *slide.notes))


def test_no_pdf_is_left_of_a_notebook_that_is_gone():
    expected = {pattern.format(name) for name in NOTEBOOKS for pattern in tool.build.KINDS.values()}
    assert {path.name for path in FOLDER.glob("*.pdf")} <= expected | {"cheat_sheet.pdf"}


# What is in a deck


def test_steps_and_notes_belong_to_their_slide(deck_of):
    first, second = deck_of(
        text("# One"),
        text("why", "notes"),
        text("more", "-"),
        text("answer", "fragment"),
        text("left out", "skip"),
        text("## Two $x$ of `them`", "subslide"),
        text("because", "notes"),
    ).slides
    assert [[cell.source for cell in step] for step in first.steps] == [["# One", "more"], ["answer"]]
    assert [cell.source for cell in first.notes] == ["why"]
    assert (len(second.steps), second.title) == (1, "Two $x$ of them")


def test_code_is_hidden_beside_its_figure_and_where_a_tag_says_so(deck_of):
    cells = (
        code("draw()", figure()),
        code("print(1)", stream("1")),
        code("print(2)", stream("2"), tags=["remove-input"]),
    )
    (slide,) = deck_of(text("# Title"), *cells).slides
    assert [cell.source for cell in slide.steps[0][1:]] == ["", "print(1)", ""]


def test_progress_bars_and_widgets_are_not_shown_but_their_figure_is(deck_of):
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/plain": "IntSlider(value=0)"}
    outputs = stream("50%", "stderr"), v4.new_output("display_data", widget), figure(), stream("done")
    (slide,) = deck_of(text("# Title"), code("explore()", *outputs)).slides
    assert [output.medium for output in slide.steps[0][1].outputs] == ["image/png", "text/plain"]


def test_a_deck_is_outdated_by_what_it_shows_and_by_nothing_else(deck_of):
    def stamp(note="why", alt="A line that rises.", out="1", hidden="draw()", skipped="a", count=1):
        shown = text("# Title"), code(hidden, figure(alt), count=count), code("print(1)", stream(out))
        return tool.pages.source_digest(deck_of(*shown, text(note, "notes"), text(skipped, "skip")))

    assert stamp() == stamp(count=7) == stamp(skipped="b") == stamp(hidden="plot()")
    assert len({stamp(), stamp(note="how"), stamp(alt="It falls, of course."), stamp(out="2")}) == 4


def test_a_deck_is_outdated_by_its_style(deck_of, monkeypatch, tmp_path):
    deck = deck_of(text("# Title"))
    before = tool.pages.source_digest(deck)
    for name in tool.pages.STYLES["handout"]:
        shutil.copy(FOLDER / name, tmp_path)
    monkeypatch.setattr(tool.pages, "HERE", tmp_path)
    assert tool.pages.source_digest(deck) == before
    for name in tool.pages.STYLES["handout"]:
        (tmp_path / name).write_text("p { color: red; }")
        assert tool.pages.source_digest(deck) != before
        shutil.copy(FOLDER / name, tmp_path)
    monkeypatch.setattr(tool.printing, "MATHJAX_SETTINGS", "")
    assert tool.pages.source_digest(deck) != before


@pytest.mark.parametrize(
    "cells, problem",
    {
        "not executed": ((text("# A"), code(count=None)), "not executed"),
        "not executed though skipped": ((text("# A"), code(count=None, slide="skip")), "not executed"),
        "failed": ((text("# A"), code("1 / 0", v4.new_output("error", ename="ZeroDivisionError"))), "ZeroDivision"),
        "no alt": ((text("# A"), code("draw()", figure(alt=" "))), "without alt text"),
        "no slides": ((text("# A", "skip"), code(slide="skip")), "no slides"),
        "no slide type": ((text("# A"), v4.new_markdown_cell("text")), "slide type None"),
        "strange slide type": ((text("# A"), text("text", "page")), "slide type 'page'"),
        "before the first slide": ((text("lost", "-"), text("# A")), "before the first slide"),
        "empty text": ((text("# A"), text(" ", "-")), "shows nothing"),
        "nothing to see": ((text("# A"), code("x = 1", tags=["remove-input"])), "shows nothing"),
    }.values(),
)
def test_a_notebook_that_is_not_ready_is_refused(deck_of, cells, problem):
    with pytest.raises(tool.printing.PrintingError, match=problem):
        deck_of(*cells)


def test_all_that_is_wrong_with_a_notebook_is_told_at_once(deck_of):
    with pytest.raises(tool.printing.PrintingError) as error:
        deck_of(text("# A"), code(count=None), text("", "-"), code("draw()", figure(alt="")))
    assert len(str(error.value).splitlines()) == 3


# From cells to HTML


def test_folded_text_is_printed_unfolded():
    html = tool.pages.markdown_html("<details>\n<summary><b>Answer</b></summary>\n\n**C.** $a < b$\n\n</details>")
    assert not re.search("details|<summary", html)
    assert '<p class="summary"><b>Answer</b></p>' in html and "$a &lt; b$" in html
    assert html.count("<div") == html.count("</div>") == 1


def test_a_slide_is_printed_once_for_each_step_and_bookmarked_once(deck_of):
    deck = deck_of(text("# One\n\n[link](1_enkf.ipynb)"), text("two", "fragment"), text("## Last"))
    pages = tool.pages.stepwise(deck)
    assert len(pages) == 3
    assert ["two" in page for page in pages] == [False, True, False]
    assert "".join(pages).count("<h1") == "".join(pages).count('<div class="h1"') == 1
    assert all("1 / 2" in page for page in pages[:2]) and "2 / 2" in pages[2]


def test_the_handout_has_every_slide_complete_and_its_notes(deck_of):
    cells = text("# One"), text("two", "fragment"), text("for *you*", "notes"), text("# Last")
    first, last = tool.pages.annotated(deck_of(*cells))
    assert "two" in first and "<em>you</em>" in first and "Last" in last


def test_figures_keep_their_words_and_outputs_are_not_markup():
    Output, html = tool.deck.Output, tool.pages.output_html
    assert 'alt="&lt;1 &quot;day&quot;"' in html(Output("image/png", PIXEL, '<1 "day"'))
    assert "&lt;b&gt;" in html(Output("text/plain", "<b>"))
    assert "<b>" in html(Output("text/html", "<b>bold</b>"))
    assert "<strong>" in html(Output("text/markdown", "**bold**"))


# What a printed page is checked for


def test_a_foreign_font_and_a_link_to_a_file_are_noticed_in_the_pdf():
    good = b"/BaseFont /AAAAAA+Arimo-Bold /BaseFont /BAAAAA+DejaVuSansMono /URI (https://example.org)"
    assert tool.printing.pdf_errors(good) == []
    wrong = tool.printing.pdf_errors(good + b"/BaseFont /CAAAAA+LiberationSans /URI (file:///folder/1_enkf.ipynb)")
    assert len(wrong) == 2 and "LiberationSans" in wrong[0] and "1_enkf.ipynb" in wrong[1]


def test_text_in_a_font_of_the_system_is_noticed():
    (wrong,) = tool.printing.character_errors([["é", ["serif", "Arial"], 400, "normal", "a café"]])
    assert wrong == "no font for é (U+00E9) near: a café"


@pytest.fixture
def problems(tmp_path):
    """``problems(cell, …)``: what Chromium finds wrong with a deck of one slide for each text."""
    pytest.importorskip("playwright", reason="needs Playwright and Chromium")
    if not any(map(shutil.which, tool.printing.BROWSERS)):
        pytest.skip("needs Chromium")
    packages = (tool.printing.MATHJAX, *tool.printing.FONT_PACKAGES)
    if not all(tool.printing.package_folder(name, version).is_dir() for name, version, _ in packages):
        pytest.skip("needs MathJax and the fonts in the cache: python slides_pdf/build.py --check")

    def find(*slides):
        cells = [tool.deck.Cell(False, slide) for slide in slides]
        deck = tool.deck.Deck("n", tuple(tool.deck.Slide(((cell,),), (cell,)) for cell in cells))
        with tool.printing.chromium() as browser:
            return tool.build.prints(browser, deck)[1]

    return find


def test_a_sound_deck_has_no_problems(problems):
    assert problems("# Good → better ✓\n\n$$\\sum_k x_k$$ and `code ν`", "## Next\n\n" + "* line\n" * 9) == []


def test_every_fault_of_a_deck_is_told_with_the_slide_where_it_is(problems):
    faults = {
        "## High\n\n" + "* line\n" * 20: r"“High”: \d+ px too much at the bottom",
        "## Wide\n\n$$" + "x + " * 60 + "x$$": r"“Wide”: \d+ px too much at the right",
        "## Macro\n\n$\\nosuchmacro$": "formula: .*nosuchmacro",
        "## Dollar\n\ncosts $ 5": r"formula not typeset.*costs",
        "## Script\n\n漢": r"no font for 漢 \(U\+6F22\)",
        "## Web\n\n<img src='https://example.org/a.png' alt='a'>": "network: https://example.org/a.png",
        f"## Blind\n\n<img src='data:image/png;base64,{PIXEL}'>": "“Blind”: a picture without alt text",
        "## File\n\n[here](file:///folder)": "link to a file: file:///folder",
        "<!-- nothing -->": "slide 9, “without a title”: empty",
    }
    wrong = problems(*faults)
    for pattern in faults.values():
        assert any(re.search(pattern, problem) for problem in wrong), (pattern, wrong)


# The rehearsal


def test_every_deck_is_rehearsed_unless_some_are_named():
    assert [deck.stem for deck in tool.rehearse.decks([])] == [*NOTEBOOKS]
    assert tool.rehearse.decks(["4_neural_operators"]) == [Path("extras", "4_neural_operators.ipynb")]
    with pytest.raises(tool.printing.PrintingError, match="No deck is called 9_more; there are 0_intro"):
        tool.rehearse.decks(["9_more"])


def test_a_rehearsal_notes_errors_and_requests_but_not_what_no_slide_shows():
    listen, badge, cdn = {}, "https://example.org/badge.svg", "https://example.org/script.js"
    page = SimpleNamespace(route=lambda address, refuse: listen.update(network=refuse), on=listen.__setitem__)
    rehearsal = tool.rehearse.Rehearsal(Path("1_enkf.ipynb"))
    tool.rehearse.watch(page, rehearsal, f"[![Badge]({badge})]")
    for url in (badge, cdn):
        listen["network"](SimpleNamespace(request=SimpleNamespace(url=url), abort=lambda: None))
    for kind, text, url in (
        ("error", "Failed to load", badge),
        ("error", "Failed to load", "http://localhost:1/1_enkf.css"),
        ("warning", "slow", "http://localhost:1/main.js"),
        ("error", "x is undefined", "http://localhost:1/main.js"),
    ):
        listen["console"](SimpleNamespace(type=kind, text=text, location={"url": url}))
    assert rehearsal.problems == [
        f"1_enkf · network: {cdn}",
        "1_enkf · console: x is undefined (http://localhost:1/main.js)",
    ]
