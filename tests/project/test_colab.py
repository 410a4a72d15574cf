"""Colab's versions are within what the course allows, and `make colab` tells which notebook fails there."""

import os
import sys
from importlib.metadata import requires
from pathlib import Path

import colab
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import ROOT, write
from packaging.requirements import Requirement

LINES = (ROOT / "tools" / "colab.txt").read_text(encoding="utf-8").splitlines()
AT_COLAB = {r.name: r for r in (Requirement(line) for line in LINES if not line.startswith("#"))}
REQUIRED = [Requirement(line) for line in requires("kdutils")]
COURSE = [r for r in REQUIRED if r.marker is None or r.marker.evaluate({"extra": "course"})]


@pytest.mark.parametrize("needed", COURSE, ids=lambda needed: needed.name)
def test_colabs_version_is_one_that_the_course_allows(needed):
    for pin in AT_COLAB[needed.name].specifier:
        assert needed.specifier.contains(pin.version.removesuffix(".*"))


def test_the_oldest_versions_allowed_are_colabs():
    """Otherwise a reader's pip could choose versions that were never run."""
    for name in ("torch", "ipywidgets"):
        (lowest,) = next(r for r in COURSE if r.name == name).specifier
        assert AT_COLAB[name].specifier.contains(f"{lowest.version}.1")


NOTEBOOKS = {
    "sound": ["import os\n\nassert not os.listdir()", "print(2 + 2)"],
    "failing": ["1 / 0"],
    "failing outside the tag": ["1 / 0", "print(2 + 2)"],
    "warning": ["import warnings\n\nwarnings.warn('old way', stacklevel=1)"],
}


@pytest.fixture
def run_notebooks(tmp_path, monkeypatch, capsys):
    """Runs notebooks as `make colab` does, but with this Python and its packages."""
    monkeypatch.setattr(colab, "colab_python", lambda: Path(sys.executable))
    monkeypatch.setattr(colab, "install_wheel", lambda python, scratch: None)
    monkeypatch.setenv("JUPYTER_PATH", "")  # so that it comes back after the test
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

    def run(*names, options=()):
        paths = []
        for name in names:
            cells = [new_code_cell(source) for source in NOTEBOOKS[name]]
            cells[-1].metadata = {"tags": ["browser"]}
            paths.append(str(write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")))
        monkeypatch.setattr(sys, "argv", ["colab.py", *options, *paths])
        return colab.main(), capsys.readouterr().out

    return run


def test_a_notebook_that_fails_there_is_named(run_notebooks):
    status, printed = run_notebooks("failing", "warning", "sound")
    assert status == 1
    for told in (
        "failing.ipynb: fails:",
        "ZeroDivisionError",
        "warning.ipynb: fails:",
        "sound.ipynb: runs, ",
    ):
        assert told in printed


def test_sound_notebooks_pass_in_an_empty_folder(run_notebooks):
    status, printed = run_notebooks("sound")
    assert status == 0 and "sound.ipynb: runs, " in printed


def test_cells_with_a_tag_alone_are_run(run_notebooks):
    assert run_notebooks("failing outside the tag", options=["--tag", "browser"])[0] == 0
