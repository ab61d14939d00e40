"""A deck as pages to print: slides of 1280 by 720 pixels, or a handout of slides with the speaker's notes."""

from __future__ import annotations

import html
import inspect
import re
import sys
from pathlib import Path

import printing
from deck import Cell, Deck, Output, Slide

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / ".ci"))

import repository  # noqa: E402

STYLES = {"slides": ("slides.css",), "handout": ("slides.css", "handout.css")}
SLIDE = """<section class="slide" data-name="{name}">
<div class="content">
{content}
</div>
<p class="number">{number}</p>
</section>
"""
HANDOUT = """<article>
<div class="picture">{slide}</div>
<aside class="notes">{notes}</aside>
</article>
"""


def source_digest(deck: Deck) -> str:
    """What the stamps of up-to-date PDFs of a deck say."""
    styles = ((HERE / name).read_text(encoding="utf-8") for name in STYLES["handout"])
    return printing.digest(deck.content(), *styles, base(), inspect.getsource(sys.modules[__name__]))


def base() -> str:
    """The address that the notebooks' relative links start from."""
    return f"{repository.address(repository.repository())}/blob/main/notebooks/"


def page(deck: Deck, kind: str) -> str:
    """The page to print: ``"slides"``, one for every step of a slide, or ``"handout"``."""
    from pygments.formatters import HtmlFormatter

    style = "\n".join((HERE / name).read_text(encoding="utf-8") for name in STYLES[kind])
    title = deck.slides[0].title or deck.name
    return printing.document(
        title + (": handout" if kind == "handout" else ""),
        f"{printing.font_faces()}\n{HtmlFormatter(style='default').get_style_defs('.highlight')}\n{style}",
        f'<base href="{base()}">\n{printing.mathjax_scripts()}',
        "".join({"slides": stepwise, "handout": annotated}[kind](deck)),
    )


def stepwise(deck: Deck) -> list[str]:
    """Every slide as often as it has steps, each time with one more; the bookmarks lead to its first page."""
    stages = []
    for number, slide in enumerate(deck.slides, start=1):
        first, *more = (slide_html(slide, number, deck, n + 1) for n in range(len(slide.steps)))
        stages += [first, *map(without_headings, more)]
    return stages


def annotated(deck: Deck) -> list[str]:
    """Every slide complete, with its notes."""
    return [
        HANDOUT.format(
            slide=slide_html(slide, number, deck, len(slide.steps)),
            notes="\n".join(cell_html(cell) for cell in slide.notes),
        )
        for number, slide in enumerate(deck.slides, start=1)
    ]


def slide_html(slide: Slide, number: int, deck: Deck, n_steps: int) -> str:
    """A slide with its first steps."""
    content = "\n".join(cell_html(cell) for step in slide.steps[:n_steps] for cell in step)
    name = f"slide {number}, “{slide.title or 'without a title'}”"
    return SLIDE.format(name=html.escape(name), content=content, number=f"{number} / {len(deck.slides)}")


def without_headings(content: str) -> str:
    """The same look without a heading's meaning."""
    return re.sub(r"<h(\d)(.*?)</h\1>", r'<div class="h\1"\2</div>', content, flags=re.DOTALL)


def cell_html(cell: Cell) -> str:
    """A cell as HTML: text, or code and outputs."""
    if not cell.is_code:
        return f'<div class="text">{markdown_html(cell.source)}</div>'
    from nbconvert.filters import Highlight2HTML

    code = Highlight2HTML()(cell.source) if cell.source.strip() else ""
    return "\n".join([code, *map(output_html, cell.outputs)])


def markdown_html(text: str) -> str:
    """Markdown as HTML, folded parts unfolded."""
    from nbconvert.filters import markdown2html

    content = re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(text))
    content = re.sub(r"<summary>(.*?)( \(click\))?</summary>", r'<p class="summary">\1</p>', content, flags=re.DOTALL)
    return re.sub(r"<(/?)details\b[^>]*>", lambda tag: "</div>" if tag[1] else '<div class="unfolded">', content)


def output_html(output: Output) -> str:
    """An output as HTML; text keeps its colours."""
    from nbconvert.filters import ansi2html

    alt = html.escape(output.alt, quote=True)
    if output.medium == "image/png":
        return f'<div class="figure"><img src="data:image/png;base64,{output.content}" alt="{alt}"></div>'
    if output.medium == "image/svg+xml":
        return f'<div class="figure" role="img" aria-label="{alt}">{output.content}</div>'
    if output.medium == "text/plain":
        return f'<pre class="output">{ansi2html(output.content)}</pre>'
    content = output.content if output.medium == "text/html" else markdown_html(output.content)
    return f'<div class="text output">{content}</div>'
