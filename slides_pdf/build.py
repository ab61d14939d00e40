"""Builds the PDF of every notebook's deck, and a handout of it with the speaker's notes.

    python slides_pdf/build.py [--check] [--draft] [--out FOLDER] [NAME ...]

NAME is that of a notebook without its ending, such as ``0_intro``; without names, all are built. The slides show what
the notebooks store; nothing is run. Nothing is written for a deck with an overflowing slide, a formula that is not
typeset, a character that the fonts lack, a picture without alt text, or anything from the network. ``--draft`` writes
it all the same, to look at it; ``--check`` writes nothing and says what is wrong. What the build needs:
:mod:`printing`, and nbconvert, which comes with Jupyter.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import deck as decks
import pages
import printing

HERE = Path(__file__).resolve().parent
KINDS = {"slides": "{}.pdf", "handout": "{}_handout.pdf"}
# Slides: content below or beside its room. Notes of the handout: beside it only, they may flow over pages.
LAYOUT_ERRORS = """() => {
  const wrong = [], outline = e => e.textContent.trim().replace(/\\s+/g, ' ').slice(0, 50);
  const boxes = e => {
    const range = document.createRange();
    range.selectNodeContents(e);
    const parts = [...e.querySelectorAll('*')].filter(part => !part.parentElement.closest('svg'));
    return [...range.getClientRects(), ...parts.map(part => part.getBoundingClientRect())];
  };
  const excess = (e, side) => Math.ceil(Math.max(...boxes(e).map(box => box[side])) - e.getBoundingClientRect()[side]);
  for (const slide of document.querySelectorAll('body > .slide')) {
    const content = slide.querySelector('.content'), say = text => wrong.push(slide.dataset.name + ': ' + text);
    if (!content.textContent.trim() && !content.querySelector('img, svg')) { say('empty'); continue; }
    if (excess(content, 'bottom') > 1) say(excess(content, 'bottom') + ' px too much at the bottom');
    if (excess(content, 'right') > 1) say(excess(content, 'right') + ' px too much at the right');
  }
  for (const notes of document.querySelectorAll('.notes'))
    if (notes.textContent.trim() && excess(notes, 'right') > 1)
      wrong.push(notes.parentElement.querySelector('.slide').dataset.name + ': its notes are ' + excess(notes, 'right')
        + ' px too wide near: ' + outline(notes));
  for (const picture of document.images) {
    const place = picture.closest('article, .slide').querySelector('.slide') || picture.closest('.slide');
    if (!picture.alt.trim()) wrong.push(place.dataset.name + ': a picture without alt text');
    if (!picture.naturalWidth) wrong.push(place.dataset.name + ': a picture that does not load');
  }
  return wrong;
}"""


def prints(browser, deck: decks.Deck) -> tuple[dict[str, bytes], list[str]]:
    """The PDFs of a deck by kind, and all that is wrong with them; with a stamp if nothing is."""
    pdfs, wrong = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            file = Path(folder) / f"{kind}.html"
            file.write_text(pages.page(deck, kind), encoding="utf-8")
            try:
                pdf = printing.print_page(browser, file, checks=(LAYOUT_ERRORS,))
                pdfs[kind] = printing.stamped(pdf, pages.source_digest(deck))
            except printing.PrintingError as error:
                wrong += [line for line in str(error).splitlines() if line not in wrong]
                pdfs[kind] = error.draft
    return pdfs, wrong


def build(names: list[str], out: Path | None, draft: bool = False) -> bool:
    """Build decks, say what was built and what is wrong, and write what is fine. True if everything is.

    Parameters
    ----------
    out : folder to write to, if anywhere
    draft : write what is wrong, too
    """
    known, all_fine = decks.notebooks(), True
    with printing.chromium() as browser:
        for name in names or known:
            try:
                if name not in known:
                    raise printing.PrintingError(f"no such notebook; there are {', '.join(known)}")
                pdfs, wrong = prints(browser, decks.read(known[name]))
            except printing.PrintingError as error:
                pdfs, wrong = {}, str(error).splitlines()
            if wrong:
                all_fine = False
                print(f"{name}: WRONG", *wrong, sep="\n  ", flush=True)
            for kind, pdf in pdfs.items():
                file = KINDS[kind].format(name)
                print(f"{file}: {printing.page_count(pdf)} pages, {len(pdf) // 1024} kB", flush=True)
                if out and (draft or not wrong):
                    out.mkdir(parents=True, exist_ok=True)
                    (out / file).write_bytes(pdf)
    return all_fine


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebook without its ending; all if none is given")
    parser.add_argument("--check", action="store_true", help="say what is wrong, write nothing")
    parser.add_argument("--draft", action="store_true", help="write what is wrong, too, to look at it")
    parser.add_argument("--out", type=Path, default=HERE, metavar="FOLDER", help="where the PDFs go")
    arguments = parser.parse_args()
    try:
        all_fine = build(arguments.names, None if arguments.check else arguments.out, arguments.draft)
    except printing.PrintingError as error:
        sys.exit(f"Not built: {error}")
    if not all_fine:
        sys.exit("Not all decks are fit to print; see above.")


if __name__ == "__main__":
    main()
