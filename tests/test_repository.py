"""Links, badges and set-up cells name one repository, and one command names another."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_layout import EACH_NOTEBOOK, NOTEBOOKS, ROOT, cells

spec = importlib.util.spec_from_file_location("repository", ROOT / ".ci" / "repository.py")
repository = importlib.util.module_from_spec(spec)
spec.loader.exec_module(repository)

HERE = repository.repository()
ELSEWHERE = "/".join(("Jane-Doe", "da.course"))  # in one piece it would be a name that is taken
FOREIGN = {"marcbocquet/2022-mooc-ecmwf-bocquet-brajard", "nansencenter/DAPPER"}  # what the course builds on
BADGE = re.compile(r"\[!\[Open in [^\s]*\]\([^)]*\)\]\([^)]*\)|\[!\[[^]]*\]\([^)]*\)\]\([^)]*(?:colab|kaggle)[^)]*\)")

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="needs a clone and git")


def expected(path):
    return [*repository.badges(path.relative_to(ROOT).as_posix(), HERE)]


@EACH_NOTEBOOK
def test_a_notebook_has_its_own_badges_once(path):
    prose = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    assert BADGE.findall(prose) == expected(path)


def test_readme_has_the_badges_of_every_notebook_in_its_row():
    rows = [row for row in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if BADGE.search(row)]
    for path in NOTEBOOKS:
        (row,) = (row for row in rows if f"]({path.relative_to(ROOT).as_posix()})" in row)
        assert BADGE.findall(row) == expected(path)
    assert len(rows) == len(NOTEBOOKS)


def test_no_file_names_a_stray_repository():
    text = "\n".join(map(repository.text, {*repository.files()} - {Path(__file__)}))
    named = re.findall(r"(?:github\.com|/github)/([\w.-]+/[\w.-]*\w)", text)
    assert {name.removesuffix(".git") for name in named} == {HERE} | FOREIGN
    assert {*re.findall(r"[\w-]+\.github\.io/[\w.-]*\w", text)} == {repository.site(HERE)}


@pytest.fixture
def copy(tmp_path):
    """The files of the repository in a repository of their own."""
    for path in repository.files():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in repository.files(root)}


def test_after_renaming_nothing_has_the_old_name_and_renaming_back_gives_the_same_files(copy):
    before = contents(copy)
    changed = {path.relative_to(copy).as_posix() for path in repository.rename(ELSEWHERE, copy)}
    after = contents(copy)
    assert repository.repository(copy) == ELSEWHERE
    assert changed == {name for name in before if before[name] != after[name]}
    assert {"README.md", "CITATION.cff", "pyproject.toml", "slides_pdf/sheet.py"} <= changed
    assert {path.relative_to(ROOT).as_posix() for path in NOTEBOOKS} <= changed
    old = re.compile(f"{re.escape(HERE)}|{re.escape(repository.site(HERE))}")
    assert [path for path in repository.files(copy) if old.search(repository.text(path))] == []
    for name in FOREIGN:
        assert sum(name.encode() in c for c in after.values()) == sum(name.encode() in c for c in before.values()) > 0
    for path in NOTEBOOKS:
        json.loads(after[path.relative_to(ROOT).as_posix()])

    assert repository.rename(ELSEWHERE, copy) == []
    repository.rename(HERE, copy)
    assert contents(copy) == before


def test_what_cannot_be_a_repository_is_refused(copy):
    before = contents(copy)
    for name in ("course", "a/b/c", "-a/b", "a/b c", "a/b.git", "a/a.github.io", "https://github.com/a/b"):
        with pytest.raises(ValueError, match="not the OWNER/NAME"):
            repository.rename(name, copy)
    assert contents(copy) == before


def test_a_name_that_means_something_else_is_refused(copy):
    with pytest.raises(ValueError, match=r"something else in .*README\.md"):
        repository.rename("nansencenter/DAPPER", copy)


def test_only_the_whole_name_is_renamed():
    old, found = "a/b", repository.mentions("a/b")
    line = "github.com/a/b a/b.git (a/b) a/b. a.github.io/b/x | aa/b a/bb a/b-c a/b.c x.a.github.io/b a.github.io/bb"
    kept, others = line.split("|")
    assert len(found.findall(kept)) == 5, old
    assert found.search(others) is None


def test_the_command_prints_the_name_and_the_badges(capsys):
    assert repository.main([]) == 0
    assert capsys.readouterr().out == HERE + "\n"
    notebook = Path("notebooks", "1_enkf.ipynb")
    assert repository.main(["--badges", notebook.as_posix()]) == 0
    assert capsys.readouterr().out.splitlines() == expected(ROOT / notebook)
