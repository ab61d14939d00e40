"""The diagrams of the story: their files are up to date and say in words what they show; text stays in its box."""

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from mooc_da import diagrams, plots

FIGURES = Path(__file__).parents[1] / "notebooks" / "figures"
EACH = pytest.mark.parametrize("name", diagrams.STORY)


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context(plots.RC):
        yield
    plt.close("all")


@EACH
def test_the_files_were_made_from_the_code_as_it_is(name):
    svg = ElementTree.parse(FIGURES / f"{name}.svg").getroot()
    texts = [element.text for element in svg.iter() if element.text]
    assert diagrams.source_digest() in texts, "out of date: python -m mooc_da.diagrams notebooks/figures"
    assert diagrams.ALT[name] in texts
    with Image.open(FIGURES / f"{name}.png") as png:
        assert (png.text["Source"], png.text["Description"]) == (diagrams.source_digest(), diagrams.ALT[name])


def test_readme_says_in_words_what_its_picture_of_the_loop_shows():
    readme = (FIGURES.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"![{diagrams.ALT['loop']}](notebooks/figures/loop.svg)" in readme


def test_saving_writes_the_same_drawings_again(tmp_path):
    diagrams.save(tmp_path)
    first = {name: (tmp_path / f"{name}.svg").read_bytes() for name in diagrams.STORY}
    diagrams.save(tmp_path)
    for name, svg in first.items():
        assert (tmp_path / f"{name}.svg").read_bytes() == svg
        assert not re.search(rb"<text|https?://(?!www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)", svg)


@EACH
def test_every_text_keeps_inside_of_the_drawing_and_every_label_inside_of_its_box(name):
    ax = diagrams.STORY[name]()
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    page = ax.figure.bbox
    boxes = [p.get_window_extent() for p in ax.patches if isinstance(p, FancyBboxPatch)]
    for text in (t for t in ax.texts if t.get_text()):
        room = text.get_window_extent(canvas.get_renderer())
        assert page.x0 <= room.x0 and room.x1 <= page.x1 and page.y0 <= room.y0 and room.y1 <= page.y1, text
        for box in boxes:
            if box.overlaps(room):
                assert box.x0 < room.x0 and room.x1 < box.x1 and box.y0 < room.y0 and room.y1 < box.y1, text


@pytest.mark.parametrize("here", ("truth", "enkf", "learning", "hybrid"))
def test_the_loop_highlights_where_the_reader_is(here):
    bold = {t.get_text() for t in diagrams.loop(here).texts if t.get_fontweight() == "bold"}
    plain = {t.get_text() for t in diagrams.loop().texts if t.get_fontweight() == "bold"}
    assert bold and not plain


def test_an_unknown_pictogram_is_refused():
    with pytest.raises(ValueError, match="pictogram"):
        diagrams.pictogram(plots.axes_or_new(None), (0, 0), "camel")
