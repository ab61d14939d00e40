"""Builds ``cheat_sheet.pdf``, one page of A4, from ``notebooks/cheat_sheet.md`` and ``sheet.css``.

    python slides_pdf/sheet.py

Markdown: every second-level heading begins a box; the boxes fill three columns, those after a horizontal rule the
foot of the page. What the build needs: :mod:`printing`, and nbconvert, which comes with Jupyter.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
from pathlib import Path

import printing

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "notebooks" / "cheat_sheet.md"
STYLE = HERE / "sheet.css"
PDF = HERE / "cheat_sheet.pdf"
TITLE = "Data assimilation meets machine learning: cheat sheet"
BODY = """<header>
{title}
<p><a href="https://github.com/mooc-da/mooc-da">github.com/mooc-da/mooc-da</a> · text CC BY 4.0</p>
</header>
<main>{columns}</main>
<footer>{foot}</footer>"""
# Too much text makes another column or reaches below the page; a wide formula or line of code leaves its box.
LAYOUT_ERRORS = """() => {
  const wrong = [], page = document.body.getBoundingClientRect();
  const outline = e => e.textContent.trim().replace(/\\s+/g, ' ').slice(0, 60);
  for (const box of document.querySelectorAll('section, header')) {
    const room = box.getBoundingClientRect();
    if (room.right > page.right + 1 || room.bottom > page.bottom + 1) wrong.push('no room for: ' + outline(box));
    const wide = [...box.querySelectorAll('*')].find(e => e.getBoundingClientRect().right > room.right + 1);
    if (wide) wrong.push('too wide: ' + outline(wide) + ' in ' + outline(box));
  }
  const text = [...document.querySelectorAll('p, li, td, th, h1, h2, code, pre')];
  const smallest = Math.min(...text.map(e => parseFloat(getComputedStyle(e).fontSize))) * 0.75;
  if (smallest < 7.499) wrong.push('text of ' + smallest + ' pt, expected at least 7.5');
  return wrong;
}"""


def source_digest() -> str:
    """What the stamp of an up-to-date PDF says."""
    texts = (path.read_text(encoding="utf-8") for path in (SOURCE, STYLE))
    return printing.digest(*texts, inspect.getsource(sys.modules[__name__]))


def page(markdown: str, style: str, scripts: str) -> str:
    """The page to print; what stands between the title and the first box is for readers on the web."""
    from nbconvert.filters import markdown2html

    html = re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(markdown))
    columns, foot = re.split(r"<hr\s*/?>", html)
    title = re.search(r"<h1.*?</h1>", columns)[0]
    body = BODY.format(title=title, columns=boxes(columns), foot=boxes(foot))
    return printing.document(TITLE, style, scripts, body)


def boxes(html: str) -> str:
    """Every second-level heading with what follows it, in an element of its own."""
    return "".join(f"<section>{part}</section>" for part in re.split(r"(?=<h2)", html)[1:])


def build() -> None:
    """Print the sheet and write it with its stamp; raises PrintingError if it is not fit to print."""
    markdown, style = (path.read_text(encoding="utf-8") for path in (SOURCE, STYLE))
    html = page(markdown, f"{printing.font_faces()}\n{style}", printing.mathjax_scripts())
    with tempfile.TemporaryDirectory() as folder, printing.chromium() as browser:
        file = Path(folder) / "sheet.html"
        file.write_text(html, encoding="utf-8")
        pdf = printing.print_page(browser, file, checks=(LAYOUT_ERRORS,))
    if (n_pages := printing.page_count(pdf)) != 1:
        raise printing.PrintingError(f"The sheet has {n_pages} pages, expected one: shorten the text.")
    PDF.write_bytes(printing.stamped(pdf, source_digest()))
    print(f"{PDF.relative_to(HERE.parent)}: one page, {len(pdf) // 1024} kB")


if __name__ == "__main__":
    try:
        build()
    except printing.PrintingError as error:
        sys.exit(f"Not built:\n{error}")
