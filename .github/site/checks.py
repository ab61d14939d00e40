"""Looks at every page of the built site in Chromium, at desk and phone width, and raises what no reader should see."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import printing

WIDTHS = {"desk": 1400, "phone": 390}
LOADED = """async () => {
  document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; });
  if (document.querySelector('.math')) await MathJax.startup.promise;
  await document.fonts.ready;
}"""
FOLDS = "open => document.querySelectorAll('.content details').forEach(e => { e.open = open; })"
LAYOUT_ERRORS = """() => {
  const wrong = [], outline = e => (e.alt || e.textContent).trim().replace(/\\s+/g, ' ').slice(0, 80);
  const width = document.documentElement.clientWidth;
  const edge = e => {  // how far to the right one can see what is in it; a page as a whole is not to scroll
    if (!e || e.matches('.content')) return width;
    const overflow = getComputedStyle(e).overflowX;
    if (['auto', 'scroll'].includes(overflow)) return Infinity;
    return overflow === 'hidden' ? Math.min(width, e.getBoundingClientRect().right) : edge(e.parentElement);
  };
  if (document.documentElement.scrollWidth > width) wrong.push('the page is wider than the window');
  const cut = new Set();
  for (const e of document.querySelectorAll('.content *')) {
    const box = e.getBoundingClientRect();
    if (box.width && box.right > edge(e.parentElement) + 1 && !e.closest('svg, mjx-assistive-mml')) {
      cut.add(e);
      if (!cut.has(e.parentElement)) wrong.push('cut at the right: ' + e.tagName + ' ' + outline(e));
    }
  }
  for (const e of document.querySelectorAll('.cell_input pre'))
    if (e.scrollWidth > e.clientWidth + 1) wrong.push('code wider than its box: ' + outline(e));
  for (const e of document.querySelectorAll('.content td code'))
    if (e.getClientRects().length > 1 && !/[\\s-]/.test(e.textContent)) wrong.push('broken name: ' + outline(e));
  for (const image of document.querySelectorAll('.content img')) {
    if (!image.naturalWidth) wrong.push('figure not loaded: ' + outline(image));
    if (outline(image).split(' ').length < 5) wrong.push('figure without words: ' + image.src);
  }
  for (const e of document.querySelectorAll('.math'))
    if (!e.querySelector('mjx-container')) wrong.push('formula not typeset: ' + outline(e));
  const titles = document.querySelectorAll('.content h1').length;
  if (document.querySelector('.content section') && titles !== 1) wrong.push(titles + ' titles');
  return wrong;
}"""


class Anchors(HTMLParser):
    """The addresses that a page leads to or loads, and the names of its places."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.places = set(), {""}
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        for key, value in attributes:
            if key in ("href", "src") and value:
                self.links.add(value)
            elif key in ("id", "name") and value:
                self.places.add(value)


def broken_links(html: Path) -> list[str]:
    """Links from page to page, to files and to places in pages that are not there."""
    anchors = {page: Anchors(page) for page in sorted(html.rglob("*.html"))}
    wrong = []
    for page, found in anchors.items():
        for link in sorted(found.links):
            if re.match(r"[a-z]+:", link):
                continue
            address, place = urldefrag(re.sub(r"\?[^#]*", "", link))
            target = (page.parent / unquote(address)).resolve() if address else page
            if not target.is_file():
                wrong.append(f"{page.relative_to(html)}: {link} leads to nothing")
            elif target in anchors and unquote(place) not in anchors[target].places:
                wrong.append(f"{page.relative_to(html)}: no such place: {link}")
    return wrong


def check(html: Path, photos: Path | None = None) -> int:
    """Visit every page at every width; the number of pages.

    Parameters
    ----------
    photos : folder for pictures of all pages; none are taken without

    Raises
    ------
    PrintingError
        lists all that is wrong: links, formulas, figures, layout, messages of the console, requests to the network
    """
    wrong = broken_links(html)
    visited = sorted(html.rglob("*.html"))
    with printing.chromium() as browser:
        for path in visited:
            name = path.relative_to(html).with_suffix("").as_posix()
            wrong += [f"{name}: {problem}" for problem in seen(browser, path, photos and photos / name)]
    if wrong:
        raise printing.PrintingError("\n".join(wrong))
    return len(visited)


def seen(browser, path: Path, photo: Path | None) -> list[str]:
    """What is wrong with a page; its pictures get the name of the photo and of the width."""
    page, wrong = browser.new_page(), []
    page.set_default_timeout(120_000)  # a page of a whole notebook, on a busy machine

    def refuse(route) -> None:
        wrong.append(f"network: {route.request.url}")
        route.abort()

    page.route(re.compile(r"^(?!file:|data:|blob:)"), refuse)
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("requestfailed", lambda request: wrong.append(f"not loaded: {request.url}"))
    page.goto(path.as_uri())
    page.evaluate(LOADED)
    for name, width in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(FOLDS, True)  # what is folded must be as good as what is seen at once
        wrong += [f"{problem} ({name})" for problem in page.evaluate(LAYOUT_ERRORS)]
        if photo:
            page.evaluate(FOLDS, False)
            photo.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=f"{photo}_{name}.png", full_page=True)
    page.evaluate("() => document.querySelectorAll('dt.sig').forEach(e => e.remove())")  # a default may be "$x_n$"
    wrong += page.evaluate(printing.MATH_ERRORS)
    page.close()
    return wrong
