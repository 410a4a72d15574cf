"""The gate can fail: a spoiled stored value, or a claim that does not hold, makes nbval exit with 1."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

from notebook_files import CHAPTERS, ROOT, code_cells, has_tag, read, small_chapter, write

EXACT = "nbval-check-output"


def nbval(path: Path) -> subprocess.CompletedProcess:
    """pytest over one notebook, with the options of `make test`."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={path.parent}"]
    options = ["-p", "patient_nbval", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600"]
    return subprocess.run(
        [*command, *options, path.name], cwd=path.parent, capture_output=True, text=True,
        env={**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT / "tests" / "harness")},
    )  # fmt: skip


def spoil_first_number(notebook):
    """Changes the first digit that the last cell's stored output shows."""
    for output in code_cells(notebook)[-1].outputs:
        holder, key = (output, "text") if "text" in output else (output.get("data", {}), "text/plain")
        if re.search(r"\d", holder.get(key, "")):
            holder[key] = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), holder[key], count=1)
            return
    raise AssertionError("the stored output shows no digit that could be spoiled")


def up_to_first_exact_output(notebook):
    """The notebook's cells up to the first one whose output must reproduce exactly."""
    short = copy.deepcopy(notebook)
    last = next(index for index, cell in enumerate(short.cells) if has_tag(cell, EXACT))
    short.cells = short.cells[: last + 1]
    return short


def test_a_sound_notebook_passes(tmp_path):
    run = nbval(write(small_chapter(), tmp_path / "small.ipynb"))
    assert run.returncode == 0, run.stdout


def test_a_spoiled_value_fails(tmp_path):
    notebook = up_to_first_exact_output(small_chapter())
    spoil_first_number(notebook)
    run = nbval(write(notebook, tmp_path / "small.ipynb"))
    assert run.returncode == 1, run.stdout
    assert "1 failed" in run.stdout


def test_a_claim_that_does_not_hold_fails(tmp_path):
    notebook = small_chapter()
    (claim,) = [cell for cell in code_cells(notebook) if cell.source.startswith("check(")]
    claim.source = claim.source.replace("above=2.0", "above=20.0")
    run = nbval(write(notebook, tmp_path / "small.ipynb"))
    assert run.returncode == 1, run.stdout
    assert "1 failed" in run.stdout


def test_an_error_in_a_slider_fails(tmp_path):
    notebook = small_chapter()
    (slider,) = [cell for cell in code_cells(notebook) if "interact(" in cell.source]
    slider.source = slider.source.replace("[1, T]", "[1, T], 0, 0, 0")
    run = nbval(write(notebook, tmp_path / "small.ipynb"))
    assert run.returncode == 1, run.stdout


def trains_nothing(notebook):
    return not any(re.search(r"\b(fit|predict)\(", cell.source) for cell in code_cells(notebook))


def test_a_spoiled_value_in_a_chapter_fails(tmp_path):
    """In the first one that trains nothing before its first exact output, so that this takes seconds."""
    beginnings = ((path, up_to_first_exact_output(read(path))) for path in CHAPTERS)
    path, notebook = next((path, begun) for path, begun in beginnings if trains_nothing(begun))
    spoil_first_number(notebook)
    run = nbval(write(notebook, tmp_path / path.name))
    assert run.returncode == 1, run.stdout
    assert "1 failed" in run.stdout
