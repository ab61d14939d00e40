"""Rehearses the decks where they are shown: in RISE, in a browser, with a kernel, by keyboard.

    python slides_pdf/rehearse.py [NOTEBOOK-STEM …] [--out DIR] [--size WIDTHxHEIGHT]

A copy of ``notebooks/`` is served on this machine. Each deck is opened, the show is started, all cells are run, and
Space leads through every slide and fragment. Where there is code its cell is run once more by keyboard; where there
is an explorer a slider is moved. Every stop is looked at and photographed (``DIR/<stem>/01.png`` …). Any problem is
listed, and makes the exit status 1. Needs what :mod:`printing` needs, nbclassic and rise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from deck import NOTEBOOKS, notebooks
from printing import PrintingError, chromium

LOCAL = re.compile(r"^(https?://(127\.0\.0\.1|localhost)[:/]|data:|blob:)")
MINUTE = 60_000  # milliseconds, as Playwright counts

# What is wrong with the slide that is shown. Sizes are those of a window of 1280×720; others scale with the window.
SLIDE_ERRORS = r"""() => {
  const slide = Reveal.getCurrentSlide(), wrong = [], edge = 8, unit = Math.min(innerWidth / 1280, innerHeight / 720);
  const outline = e => [...(e.alt || e.textContent || e.tagName).trim().replace(/\s+/g, ' ')].slice(0, 50).join('');
  const shown = [...slide.querySelectorAll('*')].filter(e =>
    e.checkVisibility({visibilityProperty: true, opacityProperty: true}) && !e.closest('.CodeMirror-measure'));
  const each = selector => shown.filter(e => e.matches(selector));
  const box = e => e.getBoundingClientRect();

  const blocks = each('p, li, td, th, h1, h2, h3, img, pre, summary, .input_area, .widget-box, .MathJax > nobr > span')
    .filter(e => !e.closest('.CodeMirror') && e.offsetHeight);
  const lowest = blocks.toSorted((a, b) => box(b).bottom - box(a).bottom)[0];
  const over = lowest ? Math.ceil(box(lowest).bottom - innerHeight + edge * unit) : 0;
  if (over > 0) wrong.push(`${over} px too tall, below: ${outline(lowest)}`);
  const room = e => Math.min(innerWidth, box(e.closest('.output_subarea') || slide).right + edge);
  const wide = blocks.find(e => box(e).right > room(e) ||
    (e.matches('pre, .input_area') && e.scrollWidth > e.clientWidth + 1));
  if (wide) wrong.push('too wide: ' + outline(wide));

  const setUp = e => $(e.closest('.cell')).data('cell').metadata.tags?.includes('setup'); // may scroll
  const raw = e => !e.closest('pre, code, script, .CodeMirror') &&
    [...e.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.includes('$'));
  const list = (what, elements) => wrong.push(...elements.map(e => `${what}: ${outline(e)}`));
  list('code too long', each('.input_area').filter(e => e.scrollHeight > e.clientHeight + 4 && !setUp(e)));
  list('formula', each('.MathJax_Error, .merror, .noError, .mtext[style*="red"]'));
  list('formula not typeset', shown.filter(raw));
  const strain = e => Math.abs(box(e).width - box(e.querySelector('.mrow')).width);
  list('formula set before the slide', each('.math').filter(e => strain(e) > 2 * edge * unit).slice(0, 1));
  list('picture missing', each('img').filter(e => !e.complete || !e.naturalWidth));
  list('notes on the slide', each('aside.notes'));
  list('error output', each('.output_error, .output_stderr'));

  const size = e => parseFloat(getComputedStyle(e).fontSize) / unit + 0.1;
  const small = (least, selector) => each(selector).filter(e => e.textContent.trim() && size(e) < least).slice(0, 1);
  list('text below 24 px', small(24, '.text_cell :is(p, li, td, th, summary)'));
  list('text below 18 px', small(18, '.CodeMirror-line > span, .output_area pre, .widget-label, .widget-html-content'));
  return wrong;
}"""
HEADING = """() => {
  const words = [...Reveal.getCurrentSlide().querySelectorAll('h1, h2, h3, strong')];
  return words.find(e => !e.closest('.reveal-skip, aside'))?.textContent.replace('¶', '').trim() || 'no heading';
}"""
AT_THE_END = "Reveal.isLastSlide() && !Reveal.availableFragments().next"
POSITION = "JSON.stringify([Reveal.getIndices(), $(Reveal.getCurrentSlide()).find('.fragment.visible').length])"
CELLS = "Jupyter.notebook.get_cells().filter(cell => cell.cell_type === 'code' && cell.get_text().trim())"
ALL_RUN = f"!Jupyter.notebook.kernel_busy && {CELLS}.every(cell => Number.isInteger(cell.input_prompt_number))"
TYPESET = "!MathJax.Hub.queue.pending && !MathJax.Hub.queue.running"
ERRORS = f"""{CELLS}.flatMap(cell => cell.output_area.outputs.filter(out => out.output_type === 'error')
  .map(out => `${{out.ename}}: ${{out.evalue}}`.slice(0, 120)))"""
# The cell that Ctrl-Enter would run, if the slide shows it; RISE selects the first one with code.
SELECTED = """() => {
  const cell = Jupyter.notebook.get_selected_cell(), place = cell?.element[0];
  if (cell?.cell_type !== 'code' || !place.checkVisibility() || !Reveal.getCurrentSlide().contains(place)) return null;
  return {index: Jupyter.notebook.find_cell_index(cell), count: cell.input_prompt_number,
    outputs: cell.output_area.outputs.length, setup: (cell.metadata.tags || []).includes('setup')};
}"""
FRESH = """({index, count, outputs}) => {
  const cell = Jupyter.notebook.get_cell(index), idle = !Jupyter.notebook.kernel_busy;
  return idle && cell.input_prompt_number > count && cell.output_area.outputs.length >= Math.min(outputs, 1);
}"""
HANDLE = "section.present section.present .cell:not(.reveal-skip) .noUi-handle"
FIGURE = "section.present section.present .cell:not(.reveal-skip) .widget-html img"


@dataclass
class Rehearsal:
    """What happened to a deck."""

    deck: Path  # relative to the notebooks
    problems: list[str] = field(default_factory=list)
    loads: int = 0  # of the page
    slides: int = 0
    photographs: int = 0
    cells: int = 0  # run by keyboard
    explorers: int = 0
    seconds: float = 0.0

    def note(self, where: str, problem: str) -> None:
        """Remember a problem, once."""
        if (line := f"{self.deck.stem} · {where}: {problem}") not in self.problems:
            self.problems.append(line)

    def __str__(self) -> str:
        done = f"{self.photographs} photographs, {self.cells} cells run, {self.explorers} explorers moved"
        return f"{self.deck.stem}: {self.slides} slides, {done}, {self.loads} loads, {self.seconds:.0f} s"


def decks(stems: list[str]) -> list[Path]:
    """The decks named, or else all there are; relative to the notebooks."""
    found = {name: path.relative_to(NOTEBOOKS) for name, path in notebooks().items()}
    if unknown := set(stems) - set(found):
        raise PrintingError(f"No deck is called {', '.join(sorted(unknown))}; there are {', '.join(found)}.")
    return [found[stem] for stem in stems or found]


@contextmanager
def served(notebooks: Path) -> Iterator[str]:
    """The address of a classic notebook server on a copy of a folder, with settings of its own; it always ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, room = Path(folder), Path(folder) / "notebooks"
        shutil.copytree(notebooks, room, ignore=shutil.ignore_patterns(".*"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        own |= {"IPYTHONDIR": str(home / "ipython"), "MOOC_DA_PROGRESS": str(home / "progress.json")}
        command = [sys.executable, "-m", "jupyter", "nbclassic", "--no-browser", "--allow-root", f"--port={port}"]
        command += ["--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", f"--ServerApp.root_dir={room}"]
        with (home / "server.log").open("w") as log:
            server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT)
        try:
            if not answers(address := f"http://127.0.0.1:{port}"):
                raise PrintingError(f"nbclassic does not start:\n{(home / 'server.log').read_text()[-2000:]}")
            yield address
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()


def answers(address: str) -> bool:
    """Whether the server answers within a minute."""
    for _ in range(120):
        with suppress(OSError), urllib.request.urlopen(f"{address}/api/status", timeout=2):
            return True
        time.sleep(0.5)
    return False


def watch(page, rehearsal: Rehearsal, unseen: str) -> None:
    """Note requests to the network, which are refused, and errors of scripts; but a missing badge, which no slide
    shows, a missing style sheet of the notebook's own, and fonts that MathJax tries are harmless."""
    known = (f"/{rehearsal.deck.stem}.css", "about:blank", "/MathJax/fonts/")

    def refuse(route) -> None:
        if route.request.url not in unseen:
            rehearsal.note("network", route.request.url)
        route.abort()

    def read(message) -> None:
        url = message.location.get("url", "")
        harmless = (url and url in unseen) or any(words in message.text + url for words in known)
        if message.type == "error" and not harmless:
            rehearsal.note("console", f"{message.text[:200]} ({url})")

    page.route(lambda url: not LOCAL.match(url), refuse)
    page.on("console", read)
    page.on("pageerror", lambda error: rehearsal.note("console", str(error)[:200]))


def start_show(page, url: str, rehearsal: Rehearsal) -> None:
    """Open a notebook and start RISE, by Alt-R unless it starts by itself.

    RISE may read its settings before the notebook with them has arrived; then the page is loaded again.
    """
    while rehearsal.loads < 6:
        rehearsal.loads += 1
        rehearsal.problems.clear()
        page.goto(url, timeout=MINUTE)
        page.wait_for_function("window.Jupyter?.notebook?.kernel?.is_connected()", timeout=MINUTE)
        page.wait_for_selector("#RISE", state="attached", timeout=MINUTE)
        page.wait_for_timeout(2000)
        settings = page.evaluate("Jupyter.notebook.metadata.rise")
        if not (by_itself := page.locator("body.rise-enabled").count() == 1):
            page.wait_for_function(TYPESET, timeout=MINUTE)
            page.evaluate("Jupyter.notebook.select(0); Jupyter.notebook.command_mode()")
            page.keyboard.press("Alt+r")
        page.wait_for_selector("body.rise-enabled .reveal section.present", timeout=MINUTE)
        page.wait_for_timeout(1500)
        if by_itself == settings["autolaunch"] and page.locator(f"body.theme-{settings['theme']}").count():
            return
    raise PrintingError("RISE has missed the notebook's settings six times")


def run_all(page) -> None:
    """Run all cells, as a teacher does before class, and go to the first slide."""
    page.evaluate("Jupyter.notebook.clear_all_output(); Jupyter.notebook.execute_all_cells()")
    page.wait_for_function(f"{ALL_RUN} && {TYPESET}", timeout=10 * MINUTE)
    page.keyboard.press("Home")


def run_cell(page, cell: dict) -> str | None:
    """Run the selected cell by keyboard; what is wrong, if no fresh output comes."""
    page.keyboard.press("Shift+Enter" if cell["setup"] else "Control+Enter")
    try:
        page.wait_for_function(FRESH, arg=cell, timeout=2 * MINUTE)
    except Exception as error:
        return f"its cell does not run by keyboard ({type(error).__name__})"
    page.wait_for_timeout(500)
    return None


def move_slider(page) -> str | None:
    """Move the first slider of the slide by keyboard; what is wrong, if the figure stays or the slide does not."""
    try:
        figure = page.wait_for_selector(FIGURE, timeout=MINUTE / 2).get_attribute("src")
        position = page.evaluate(POSITION)
        page.locator(HANDLE).first.focus()
        for key in 6 * ["ArrowUp"] + 12 * ["ArrowDown"]:  # at its end a slider moves one way only
            page.keyboard.press(key)
            page.wait_for_timeout(300)
            page.wait_for_function("!Jupyter.notebook.kernel_busy", timeout=MINUTE)
            if moved := page.locator(FIGURE).first.get_attribute("src") != figure:
                break
        page.evaluate("document.activeElement.blur()")
    except Exception as error:
        return f"its slider cannot be moved ({str(error).splitlines()[0][:100]})"
    if page.evaluate(POSITION) != position:
        return "moving the slider leaves the slide"
    return None if moved else "its figure does not change with the slider"


def go_on(page) -> None:
    """Space leads to the next fragment or slide."""
    before = page.evaluate(POSITION)
    page.keyboard.press("Space")
    page.wait_for_function(f"before => {POSITION} !== before", arg=before, timeout=MINUTE / 6)


def stop(page, rehearsal: Rehearsal, out: Path) -> None:
    """Run, move, look at and photograph what is shown."""
    page.wait_for_timeout(700)  # RISE selects a cell half a second after it has arrived
    problems = []
    if cell := page.evaluate(SELECTED):
        problems.append(run_cell(page, cell))
        rehearsal.cells += 1
    if page.locator(HANDLE).count():
        problems.append(move_slider(page))
        rehearsal.explorers += 1
    for problem in filter(None, problems + page.evaluate(SLIDE_ERRORS)):
        rehearsal.note(page.evaluate(HEADING), problem)
    rehearsal.photographs += 1
    page.screenshot(path=out / f"{rehearsal.photographs:02d}.png")


def go_through(page, url: str, rehearsal: Rehearsal, out: Path) -> None:
    """The whole show."""
    start_show(page, url, rehearsal)
    run_all(page)
    rehearsal.slides = page.evaluate("Reveal.getTotalSlides()")
    stop(page, rehearsal, out)
    while not page.evaluate(AT_THE_END):
        go_on(page)
        stop(page, rehearsal, out)
    for error in page.evaluate(ERRORS):
        rehearsal.note("a cell", error)
    if not rehearsal.cells:
        rehearsal.note("deck", "no live cell")
    page.evaluate("Jupyter.notebook.session.delete()")
    page.wait_for_timeout(1000)


def rehearse(browser, address: str, deck: Path, out: Path, size: tuple[int, int]) -> Rehearsal:
    """Go through a deck in a window of its own; what stops it is a problem, too."""
    rehearsal, began = Rehearsal(deck), time.time()
    cells = json.loads((NOTEBOOKS / deck).read_text(encoding="utf-8"))["cells"]
    skipped = [cell for cell in cells if cell["metadata"].get("slideshow", {}).get("slide_type") == "skip"]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    watch(page, rehearsal, "".join("".join(cell["source"]) for cell in skipped))
    try:
        go_through(page, f"{address}/nbclassic/notebooks/{deck.as_posix()}", rehearsal, out)
    except Exception as error:
        rehearsal.note(f"stopped after {rehearsal.photographs} photographs", str(error).splitlines()[0])
    page.close()
    rehearsal.seconds = time.time() - began
    return rehearsal


def main() -> None:
    """Rehearse the decks asked for; exit status 1, with a list, if anything is wrong."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("stems", nargs="*", metavar="NOTEBOOK-STEM", help="for example 1_enkf; without, every deck")
    ask.add_argument("--out", type=Path, default="results/rehearsal", help="folder of the photographs")
    ask.add_argument("--size", default="1280x720", help="of the window")
    told, problems = ask.parse_args(), 0
    chosen, size = decks(told.stems), tuple(map(int, told.size.split("x")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the server ends as well
    with served(NOTEBOOKS) as address, chromium() as browser:
        for deck in chosen:
            rehearsal = rehearse(browser, address, deck, told.out / deck.stem, size)
            print(rehearsal, *rehearsal.problems, sep="\n", flush=True)
            problems += len(rehearsal.problems)
    sys.exit(f"{problems} problems" if problems else 0)


if __name__ == "__main__":
    try:
        main()
    except PrintingError as error:
        sys.exit(f"Not rehearsed: {error}")
