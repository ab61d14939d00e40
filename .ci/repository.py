"""Where the course is published: printed, or changed everywhere.

    python .ci/repository.py               prints OWNER/NAME, which pyproject.toml holds
    python .ci/repository.py OWNER/NAME    changes it in every text file of the repository: links, badges, set-up cells
    python .ci/repository.py --badges notebooks/1_enkf.ipynb

Changing back gives the files as they were. PDFs are built from the files: it says which to build again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?/[A-Za-z0-9_.-]*[A-Za-z0-9_-]")


def repository(root: Path = ROOT) -> str:
    """OWNER/NAME on GitHub, from pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removeprefix(address(""))


def address(name: str) -> str:
    """Where the files of OWNER/NAME are."""
    return f"https://github.com/{name}"


def site(name: str) -> str:
    """Where GitHub publishes the pages of OWNER/NAME, without https://."""
    owner, project = name.split("/")
    return f"{owner.lower()}.github.io/{project}"


def badges(notebook: str, name: str) -> tuple[str, str]:
    """Markdown that opens a notebook (its path in the repository) of OWNER/NAME on Colab and on Kaggle."""
    file = f"{name}/blob/main/{notebook}"
    return (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github/{file})",
        "[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
        f"(https://kaggle.com/kernels/welcome?src={address(file)})",
    )


def files(root: Path = ROOT) -> list[Path]:
    """All files of the repository, also those that are not committed yet, but not what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / path for path in sorted(filter(None, listed.split("\0"))) if (root / path).is_file()]


def text(path: Path) -> str:
    """What a text file says, line ends as they are; "" for a picture, a PDF, an array."""
    content = path.read_bytes()
    try:
        return "" if b"\0" in content else content.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def mentions(name: str) -> re.Pattern:
    """OWNER/NAME and the address of its pages, but not longer names with that end or beginning."""
    return re.compile(
        rf"(?<![\w.-])(?:(?P<site>{re.escape(site(name))})|{re.escape(name)})(?![\w-]|\.(?!git\b)\w)", re.ASCII
    )


def rename(new: str, root: Path = ROOT) -> list[Path]:
    """Publish as another OWNER/NAME; returns the files that changed.

    Raises
    ------
    ValueError
        if the name cannot be one of GitHub's, or is mentioned already and so could not be told apart afterwards
    """
    old = repository(root)
    if not NAME.fullmatch(new) or new.endswith((".git", ".github.io")):
        raise ValueError(f"{new} is not the OWNER/NAME of a GitHub repository with pages of its own")
    if new == old:
        return []
    contents = {path: text(path) for path in files(root)}
    taken = [str(path.relative_to(root)) for path, content in contents.items() if mentions(new).search(content)]
    if taken:
        raise ValueError(f"{new} is the name of something else in {', '.join(taken)}")
    changed = []
    for path, content in contents.items():
        renamed = mentions(old).sub(lambda found: site(new) if found["site"] else new, content)
        if renamed != content:
            path.write_bytes(renamed.encode("utf-8"))
            changed.append(path)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", nargs="?", metavar="OWNER/NAME", help="publish there from now on")
    parser.add_argument("--badges", metavar="NOTEBOOK", help="print the badges of this notebook")
    options = parser.parse_args(arguments)
    if options.badges:
        print(*badges(options.badges, repository()), sep="\n")
    elif options.new is None:
        print(repository())
    else:
        try:
            changed = rename(options.new)
        except ValueError as error:
            parser.error(str(error))
        print(*(path.relative_to(ROOT) for path in changed), f"{len(changed)} files changed.", sep="\n")
        if changed:
            print("Now build the PDFs again: python slides_pdf/build.py && python slides_pdf/sheet.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
