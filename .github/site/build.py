"""Builds the site: the stored notebooks, texts and reference of the package, to be read in a browser.

    python .github/site/build.py                   build it in build/site/html
    python .github/site/build.py --check           and look at every page in Chromium, at desk and phone width
    python .github/site/build.py --check --photos DIR          and keep pictures of what was seen

Needs ``pip install -e ".[site]"``, npm the first time (it fetches MathJax, see ``slides_pdf/printing.py``) and, for
the check, Chromium. Offline after that. No notebook is executed; a warning is an error.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "site"  # git ignores it
sys.path[:0] = [str(HERE), str(ROOT / "slides_pdf")]

import content  # noqa: E402
import printing  # noqa: E402


def lay_out(source: Path, wheel: str) -> None:
    """Write what Sphinx reads: a tree like that of the repository."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "notebooks" / "figures", source / "notebooks" / "figures")
    lead, rest = content.readme()
    write(source / "index.md", index(lead, wheel))
    write(source / content.USING, f"# Using the course\n\n{rest}")
    for path in content.sources():
        if path.endswith(".ipynb"):
            write(source / path, content.notebook(path))
        elif (ROOT / path).exists():
            write(source / path, content.relinked((ROOT / path).read_text(encoding="utf-8"), path))
    for name, text in content.reference():
        write(source / "reference" / name, text)
    static = source / "_static"
    static.mkdir()
    shutil.copy(HERE / "site.css", static)
    shutil.copy(printing.npm_package(*printing.MATHJAX) / "es5" / "tex-svg-full.js", static)


def index(lead: str, wheel: str) -> str:
    """The landing page."""
    toctrees = [
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *map(content.entry, sources), "```"])
        for caption, sources in content.contents().items()
    ]
    filled = {
        "lead": lead,
        "decks": content.downloads(),
        "cheat_sheet": content.file_link("slides_pdf/cheat_sheet.pdf", "cheat sheet"),
        "wheel": f'<a href="{wheel}">{wheel}</a>',
        "repository": content.REPOSITORY,
        "repository_name": content.REPOSITORY.removeprefix("https://"),
        "toctrees": "\n\n".join(toctrees),
    }
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: filled[match[1]], (HERE / "index.md").read_text(encoding="utf-8"))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def build_wheel(folder: Path) -> str:
    """The package as a wheel in a folder, built from a copy that leaves nothing in the repository; its name."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, scratch)
        shutil.copytree(ROOT / "mooc_da", Path(scratch) / "mooc_da", ignore=shutil.ignore_patterns("__pycache__"))
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*pip, "--wheel-dir", folder, scratch], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel.name


def build() -> Path:
    """Build the site from nothing; the folder with its pages.

    Raises
    ------
    PageError, PrintingError, CalledProcessError
        if a text, MathJax or the wheel cannot be had, or if Sphinx warns
    """
    html, source = BUILD / "html", BUILD / "source"
    shutil.rmtree(BUILD, ignore_errors=True)
    wheel = build_wheel(BUILD / "wheel")
    lay_out(source, wheel)
    static = f"html_static_path={source / '_static'}"
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", HERE, "-D", static]
    subprocess.run([*sphinx, "-d", BUILD / "doctrees", source, html], check=True)
    shutil.copy(BUILD / "wheel" / wheel, html)
    (html / "slides_pdf").mkdir()
    for path in content.slides():
        shutil.copy(ROOT / path, html / path)
    return html


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="look at every page in Chromium")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="where to keep pictures of the pages")
    options = parser.parse_args()
    begin = time.monotonic()
    try:
        html = build()
        size = sum(path.stat().st_size for path in html.rglob("*") if path.is_file())
        print(f"{html.relative_to(ROOT)}: {size / 1e6:.1f} MB in {time.monotonic() - begin:.0f} s")
        if options.check:
            import checks

            n_pages = checks.check(html, options.photos)
            print(f"{n_pages} pages looked at, {time.monotonic() - begin:.0f} s in all")
    except (content.PageError, printing.PrintingError) as error:
        sys.exit(f"Not built:\n{error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"Not built: {Path(error.cmd[2]).name} failed, see above")


if __name__ == "__main__":
    main()
