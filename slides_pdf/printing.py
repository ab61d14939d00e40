"""From a web page to a PDF: npm packages kept for offline use, Chromium, and a stamp that tells an outdated PDF.

Needs npm (the first time only), ``pip install playwright``, fontTools, which comes with matplotlib, and Chromium: the
one of the system, or the one that ``playwright install chromium`` fetches. Reading a stamp needs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import inspect
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

CACHE = Path(__file__).with_name(".cache")  # git ignores it
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
STAMP = b"%% sources sha256 "

# MathJax draws formulas as vectors. A macro that it does not know is an error here, not a word in red.
MATHJAX = (
    "mathjax",
    "3.2.2",
    "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
)
# Text: Arimo has the widths of Arial; DejaVu fills in symbols and sets code.
ARIMO = (
    "@fontsource/arimo",
    "5.3.0",
    "nhxZ2sTVZYX8DJBgLuyX360B5vE4mxqpmjlKTRfucIqfcWRVx9vOYzWBc1IgEX0ist48VMC10PRKbFyH+4QFvQ==",
)
DEJAVU = (
    "dejavu-fonts-ttf",
    "2.37.3",
    "f1hd7jJbeQa1VWcw+K2KrTXS50zTMaHpVC4XIKJpNcDeYR5ajMtj/iLlQDYNvLOKamUB3ARVVCf79lNwNVztSQ==",
)
FONT_PACKAGES = (ARIMO, DEJAVU)
FACES = {  # family, weight, style: files
    ("Arimo", 400, "normal"): (ARIMO, "files/arimo-latin-400-normal.woff"),
    ("Arimo", 400, "italic"): (ARIMO, "files/arimo-latin-400-italic.woff"),
    ("Arimo", 700, "normal"): (ARIMO, "files/arimo-latin-700-normal.woff"),
    ("Arimo", 700, "italic"): (ARIMO, "files/arimo-latin-700-italic.woff"),
    ("DejaVu Sans", 400, "normal"): (DEJAVU, "ttf/DejaVuSans.ttf"),
    ("DejaVu Sans", 400, "italic"): (DEJAVU, "ttf/DejaVuSans-Oblique.ttf"),
    ("DejaVu Sans", 700, "normal"): (DEJAVU, "ttf/DejaVuSans-Bold.ttf"),
    ("DejaVu Sans", 700, "italic"): (DEJAVU, "ttf/DejaVuSans-BoldOblique.ttf"),
    ("DejaVu Sans Mono", 400, "normal"): (DEJAVU, "ttf/DejaVuSansMono.ttf"),
    ("DejaVu Sans Mono", 400, "italic"): (DEJAVU, "ttf/DejaVuSansMono-Oblique.ttf"),
    ("DejaVu Sans Mono", 700, "normal"): (DEJAVU, "ttf/DejaVuSansMono-Bold.ttf"),
    ("DejaVu Sans Mono", 700, "italic"): (DEJAVU, "ttf/DejaVuSansMono-BoldOblique.ttf"),
}
MATHJAX_SETTINGS = """window.MathJax = {
  tex: {inlineMath: [['$', '$']], packages: {'[-]': ['noundefined', 'noerrors']}},
  svg: {fontCache: 'local'},
  options: {menuOptions: {settings: {assistiveMml: false}}},
  startup: {pageReady: async () => {
    await Promise.all([...document.fonts].map(font => font.load()));  // formulas take their size from the text
    await MathJax.startup.defaultPageReady();
    for (const formula of MathJax.startup.document.math)  // what a screen reader says
      formula.typesetRoot?.querySelector('svg')?.setAttribute('aria-label', formula.math);
    window.mathIsReady = true;
  }},
};"""
MATH_ERRORS = """() => {
  const near = e => ' near: ' + e.closest('p, td, li, section, body').textContent.trim().slice(0, 80);
  const wrong = [...document.querySelectorAll('[data-mml-node="merror"]')].map(e =>
    'formula: ' + e.getAttribute('data-mjx-error') + near(e));
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walk.nextNode(); text; text = walk.nextNode())
    if (text.data.includes('$') && !text.parentElement.closest('code, pre, script, style'))
      wrong.push('formula not typeset (braces, dollars?)' + near(text.parentElement));
  return wrong;
}"""

# Every visible character once in each of its fonts, with the text around it.
SPELL_OUT = """() => {
  const seen = new Map(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walk.nextNode(); text; text = walk.nextNode()) {
    if (text.parentElement.closest('script, style')) continue;
    const style = getComputedStyle(text.parentElement);
    const families = style.fontFamily.split(',').map(family => family.trim().replaceAll('"', ''));
    const font = [families, style.fontWeight < 600 ? 400 : 700, style.fontStyle];
    for (const character of text.data)
      if (!/[\\s\\p{Cf}]/u.test(character) && !seen.has(character + font))
        seen.set(character + font, [character, ...font, text.data.trim().slice(0, 60)]);
  }
  return [...seen.values()];
}"""


class PrintingError(RuntimeError):
    """A page that must not be printed as it is; the message lists all that is wrong, ``draft`` may hold the page."""

    draft: bytes | None = None


def package_folder(name: str, version: str) -> Path:
    """Where the cache keeps an npm package."""
    return CACHE / f"{name.lstrip('@').replace('/', '-')}-{version}"


def npm_package(name: str, version: str, sha512: str) -> Path:
    """The folder of an npm package, from the cache or else by ``npm pack``; its checksum is verified.

    Parameters
    ----------
    sha512 : of the package, in base64, as the registry prints it

    Raises
    ------
    PrintingError
        if npm is missing or cannot fetch the package, or if it is not the one expected
    """
    folder = package_folder(name, version)
    if folder.is_dir():
        return folder
    if not (npm := shutil.which("npm")):
        raise PrintingError(f"npm is missing; it fetches {name} once. Install Node.js (https://nodejs.org).")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        command = [npm, "pack", "--silent", f"{name}@{version}"]
        fetched = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        tarballs = [*Path(scratch).glob("*.tgz")]
        if fetched.returncode or not tarballs:
            raise PrintingError(f"{' '.join(command)} failed: {fetched.stderr.strip()}")
        if base64.b64encode(hashlib.sha512(tarballs[0].read_bytes()).digest()).decode() != sha512:
            raise PrintingError(f"{name}@{version} has another checksum than expected: it is not used.")
        with tarfile.open(tarballs[0]) as archive:
            archive.extractall(scratch, filter="data")
        (Path(scratch) / "package").rename(folder)
    return folder


def document(title: str, style: str, head: str, body: str) -> str:
    """A web page.

    Parameters
    ----------
    head : further elements of the head, such as :func:`mathjax_scripts`
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{html.escape(title)}</title>
{head}
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def mathjax_scripts() -> str:
    """The elements of a page's head that typeset its formulas; then ``window.mathIsReady`` is true."""
    script = npm_package(*MATHJAX) / "es5" / "tex-svg-full.js"
    return f'<script>{MATHJAX_SETTINGS}</script>\n<script src="{script.as_uri()}"></script>'


def font_faces() -> str:
    """Style sheet with the fonts that a page may use, from the cache."""
    rule = "@font-face {{ font-family: '{}'; font-weight: {}; font-style: {}; src: url('{}'); }}"
    files = ((npm_package(*package) / file).as_uri() for package, file in FACES.values())
    return "\n".join(rule.format(*face, file) for face, file in zip(FACES, files, strict=True))


@contextmanager
def chromium() -> Iterator:
    """A running Chromium, as a Playwright browser.

    Raises
    ------
    PrintingError
        if Playwright or Chromium is missing; says how to install it
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError as error:
        raise PrintingError("Playwright is missing: pip install playwright") from error
    installed = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=installed, args=FLAGS)
        except Error as error:
            raise PrintingError(
                f"Chromium does not start ({str(error).splitlines()[0]}): install it with the package manager of the "
                "system, or by: playwright install chromium"
            ) from error
        yield browser
        browser.close()


def print_page(browser, path: Path, checks: tuple[str, ...]) -> bytes:
    """Print a local page to a tagged PDF with bookmarks, in the size that its style sheet asks for.

    Parameters
    ----------
    browser : of :func:`chromium`
    path : of a page with :func:`mathjax_scripts` and :func:`font_faces`; it may load local files only
    checks : JavaScript functions, each returning a list of what is wrong

    Raises
    ------
    PrintingError
        if the page asks for anything from the network, links to a file of this machine, shows a formula that is not
        typeset or a character that its fonts lack, or if a check finds something
    """
    page = browser.new_page()
    asked: list[str] = []

    def refuse(route) -> None:
        asked.append(f"network: {route.request.url}")
        route.abort()

    page.route(re.compile(r"^(?!file:|data:|blob:)"), refuse)
    page.emulate_media(media="print")
    page.goto(path.as_uri())
    page.wait_for_function("window.mathIsReady", timeout=60_000)
    wrong = asked + [problem for check in (MATH_ERRORS, *checks) for problem in page.evaluate(check)]
    pdf = page.pdf(prefer_css_page_size=True, print_background=True, tagged=True, outline=True)
    wrong += character_errors(page.evaluate(SPELL_OUT)) + pdf_errors(pdf)
    page.close()
    if wrong:
        error = PrintingError("\n".join(wrong))
        error.draft = pdf
        raise error
    return pdf


def character_errors(spelled: list) -> list[str]:
    """What of :data:`SPELL_OUT` is in none of its fonts: another machine would draw it otherwise, or not at all."""
    return [
        f"no font for {character} (U+{ord(character):04X}) near: {near}"
        for character, families, weight, style, near in spelled
        if not any(ord(character) in characters((family, weight, style)) for family in families)
    ]


@cache
def characters(face: tuple[str, int, str]) -> frozenset[int]:
    """Code points that a face has; none if it is not one of :data:`FACES`."""
    from fontTools.ttLib import TTFont  # comes with matplotlib

    if face not in FACES:
        return frozenset()
    package, file = FACES[face]
    with TTFont(npm_package(*package) / file) as font:
        return frozenset(font.getBestCmap())


def pdf_errors(pdf: bytes) -> list[str]:
    """Fonts that a PDF should not have, and links to files of this machine."""
    expected = {family.replace(" ", "") for family, _, _ in FACES}
    fonts = {name.decode() for name in re.findall(rb"/BaseFont\s*/(?:[A-Z]{6}\+)?([^\s/<>\[\]()]+)", pdf)}
    wrong = [f"unexpected font: {name}" for name in sorted(fonts) if name.partition("-")[0] not in expected]
    return wrong + [f"link to a file: {link.decode()}" for link in sorted(set(re.findall(rb"\((file:[^)]*)\)", pdf)))]


def page_count(pdf: bytes) -> int:
    """Number of pages of a PDF whose objects are not compressed, such as Chromium's."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def digest(*sources: str) -> str:
    """What changes when one of the sources does, or what all pages have in common."""
    common = (inspect.getsource(document), MATHJAX_SETTINGS, repr((MATHJAX, FACES)))
    return hashlib.sha256("\0".join(sources + common).encode()).hexdigest()


def stamped(pdf: bytes, sources: str) -> bytes:
    """The PDF with the :func:`digest` of its sources in a comment, where no offset changes."""
    head, end = pdf[: (at := pdf.rindex(b"startxref"))], pdf[at:]
    return head + STAMP + sources.encode() + b"\n" + end


def stamp_of(pdf: bytes) -> str | None:
    """The digest in a PDF that was :func:`stamped`; None without one."""
    found = re.findall(re.escape(STAMP) + rb"([0-9a-f]{64})\n", pdf)
    return found[-1].decode() if found else None
