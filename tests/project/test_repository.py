"""The repository's address is the same in every text, and one command sets it everywhere."""

import json
import re
import runpy
import shutil
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell
from notebook_files import ROOT, read, small_chapter, write
from set_repository import declared_repository, linked_repositories, set_repository, site_address, texts

OWN_TEXTS = (".md", ".cff", ".toml", ".py", ".ipynb", ".yml", ".txt", ".sh")

README = """\
[![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{0}/blob/main/a.ipynb)
[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{0}/main?urlpath=lab/tree/notebooks/a.ipynb)
Clone it: `git clone https://github.com/{0}.git` or `pip install "git+https://github.com/{0}@main"`.
See <https://github.com/{0}>, [issues](https://github.com/{0}/issues), not https://github.com/pytorch/pytorch.
Read it at <{1}>, not at <https://pytorch.github.io/pytorch/>.
"""


def readme(repository: str) -> str:
    return README.format(repository, site_address(repository))


@pytest.mark.parametrize("path", texts(ROOT), ids=lambda path: path.name)
def test_every_link_leads_to_the_declared_repository(path):
    assert linked_repositories(path.read_text(encoding="utf-8")) <= {declared_repository(ROOT)}


def test_no_text_with_a_link_to_the_repository_is_left_out():
    """The tests, which make links up, and the places that are no part of the repository are not asked."""
    others = {ROOT / "tests", ROOT / "docs" / "_build"}
    files = [
        path for top in ROOT.iterdir() if not top.name.startswith(".") for path in (top, *top.rglob("*"))
    ]
    linking = [
        path
        for path in [*files, *(ROOT / ".github").rglob("*"), *(ROOT / ".ci").rglob("*")]
        if path.is_file()
        and path.suffix in OWN_TEXTS
        and not others & set(path.parents)
        and linked_repositories(path.read_text(encoding="utf-8"))
    ]
    assert {ROOT / "kdutils" / "course" / "data.py", ROOT / "README.md"} <= set(linking) <= set(texts(ROOT))


@pytest.fixture
def checkout(tmp_path):
    """A small copy of the project: README with every kind of link, a notebook, pyproject.toml, citation."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    name = declared_repository(ROOT)
    (tmp_path / "README.md").write_text(readme(name))
    notebook = small_chapter()
    notebook.cells.insert(
        0, new_code_cell(f'%pip install -q "git+https://github.com/{name}"', execution_count=1)
    )
    (tmp_path / "notebooks").mkdir()
    write(notebook, tmp_path / "notebooks" / "a.ipynb")
    return tmp_path


def test_all_links_are_set_and_no_other(checkout):
    changed = set_repository(checkout, "ada/distil-it")
    assert len(changed) == 4
    assert declared_repository(checkout) == "ada/distil-it"
    assert (checkout / "README.md").read_text() == readme("ada/distil-it")
    assert "https://github.com/ada/distil-it" in (checkout / "CITATION.cff").read_text()
    assert (
        read(checkout / "notebooks" / "a.ipynb")
        .cells[0]
        .source.endswith('"git+https://github.com/ada/distil-it"')
    )
    json.loads((checkout / "notebooks" / "a.ipynb").read_text())


def test_the_site_follows(checkout):
    (checkout / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", checkout / "docs")
    set_repository(checkout, "Ada/distil-it")
    settings = runpy.run_path(str(checkout / "docs" / "conf.py"))
    assert settings["html_theme_options"]["repository_url"] == "https://github.com/Ada/distil-it"
    assert settings["html_baseurl"] == "https://ada.github.io/distil-it/"


def test_setting_it_twice_changes_nothing(checkout):
    set_repository(checkout, "ada/distil-it")
    assert set_repository(checkout, "ada/distil-it") == []


def test_a_stale_link_is_seen_and_repaired(checkout):
    path = checkout / "README.md"
    path.write_text(readme("someone/else"))
    assert linked_repositories(path.read_text()) == {"someone/else"}
    set_repository(checkout, "ada/distil-it")
    assert linked_repositories(path.read_text()) == {"ada/distil-it"}


@pytest.mark.parametrize("wrong", ["distil-it", "https://github.com/ada/distil-it", "ada/distil it", "ada/"])
def test_anything_but_owner_and_repo_is_refused(wrong):
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "set_repository.py", wrong], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr == f"repository: expected OWNER/REPO, got {wrong!r}\n"


def folders_in_git() -> set[str]:
    """The folders at the top of the repository, those left out that begin with a dot."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.split("/")[0] for line in tracked.splitlines() if "/" in line and not line.startswith(".")}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone")
def test_the_readmes_tree_is_that_of_the_repository():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is where")[2].split("```")[1]
    named = re.findall(r"^(\w+)/", tree, re.MULTILINE)
    assert set(named) == folders_in_git()
    top = ""
    for indent, name in re.findall(r"^( *)(\w+)/ +\S", tree, re.MULTILINE):
        top = top if indent else name
        assert (ROOT / top / (name if indent else "")).is_dir(), name
