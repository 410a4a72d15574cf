"""A notebook passes although its kernel is slow to say that a cell has ended."""

import os
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import ROOT, write

# The thread that sends outputs sleeps for longer than nbval waits by itself; the cell does not wait for it.
SLOW = """
import sys, time
sys.stdout.flush_timeout = sys.stderr.flush_timeout = 0.1
get_ipython().kernel.iopub_thread.io_loop.add_callback(time.sleep, 7)
"""


@pytest.fixture
def notebook(tmp_path):
    return write(new_notebook(cells=[new_code_cell(SLOW)]), tmp_path / "slow.ipynb")


def run(notebook, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={notebook.parent}"]
    return subprocess.run(
        [*command, *options, "--nbval-lax", "--nbval-current-env", notebook.name],
        cwd=notebook.parent,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "harness")},
    )


def test_late_output_is_waited_for(notebook):
    patient = run(notebook, "-p", "patient_nbval")
    assert patient.returncode == 0, patient.stdout


def test_without_the_plugin_it_is_not(notebook):
    impatient = run(notebook)
    assert impatient.returncode == 1 and "Timeout of 5 seconds" in impatient.stdout, impatient.stdout


def test_the_notebooks_are_tested_with_it():
    assert "patient_nbval" in (ROOT / "conftest.py").read_text()
