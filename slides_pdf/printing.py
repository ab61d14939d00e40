"""From a web page to a PDF: npm packages kept for offline use, Chromium, and a stamp that tells an outdated PDF.

Needs npm (the first time only), ``pip install playwright`` and Chromium: the one of the system, or the one that
``playwright install chromium`` fetches. Reading a stamp needs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
MATHJAX_SETTINGS = """window.MathJax = {
  tex: {inlineMath: [['$', '$']], packages: {'[-]': ['noundefined', 'noerrors']}},
  svg: {fontCache: 'local'},
  startup: {pageReady: () => MathJax.startup.defaultPageReady().then(() => { window.mathIsReady = true; })},
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


class PrintingError(RuntimeError):
    """A page that must not be printed as it is; the message lists all that is wrong."""


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
    folder = CACHE / f"{name.replace('/', '-')}-{version}"
    if folder.is_dir():
        return folder
    if not shutil.which("npm"):
        raise PrintingError(f"npm is missing; it fetches {name} once. Install Node.js (https://nodejs.org).")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        command = ["npm", "pack", "--silent", f"{name}@{version}"]
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


def mathjax_scripts() -> str:
    """The elements of a page's head that typeset its formulas; then ``window.mathIsReady`` is true."""
    script = npm_package(*MATHJAX) / "es5" / "tex-svg-full.js"
    return f'<script>{MATHJAX_SETTINGS}</script>\n<script src="{script.as_uri()}"></script>'


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


def print_page(browser, html: Path, *, ready: str, checks: tuple[str, ...], query: str = "") -> bytes:
    """Print a local page to a PDF in the size that its style sheet asks for; it may load local files only.

    Parameters
    ----------
    browser : of :func:`chromium`
    ready : JavaScript expression that becomes true when the page may be printed
    checks : JavaScript functions, each returning a list of what is wrong
    query : of the address, for example ``"?print-pdf"``

    Raises
    ------
    PrintingError
        if the page asks for anything from the network, or if a check finds something
    """
    page = browser.new_page()
    asked: list[str] = []

    def refuse(route) -> None:
        asked.append(f"network: {route.request.url}")
        route.abort()

    page.route(re.compile(r"^(?!file:|data:|blob:)"), refuse)
    page.emulate_media(media="print")
    page.goto(html.as_uri() + query)
    page.wait_for_function(ready, timeout=60_000)
    wrong = asked + [problem for check in checks for problem in page.evaluate(check)]
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    page.close()
    if wrong:
        raise PrintingError("\n".join(wrong))
    return pdf


def page_count(pdf: bytes) -> int:
    """Number of pages of a PDF whose objects are not compressed, such as Chromium's."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def digest(*sources: str) -> str:
    """What changes when one of the sources does."""
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def stamped(pdf: bytes, sources: str) -> bytes:
    """The PDF with the :func:`digest` of its sources in a comment, where no offset changes."""
    head, end = pdf[: (at := pdf.rindex(b"startxref"))], pdf[at:]
    return head + STAMP + sources.encode() + b"\n" + end


def stamp_of(pdf: bytes) -> str | None:
    """The digest in a PDF that was :func:`stamped`; None without one."""
    found = re.findall(re.escape(STAMP) + rb"([0-9a-f]{64})\n", pdf)
    return found[-1].decode() if found else None
