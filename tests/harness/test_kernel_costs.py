"""What a notebook's kernel took stands above the summary, with and without workers."""

import os
import re
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import ROOT, write

BUSY = """
import time
held = bytearray(200_000_000)
while time.process_time() < 3:
    pass
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_seconds_and_memory_are_told(tmp_path, workers):
    notebook = write(new_notebook(cells=[new_code_cell(BUSY)]), tmp_path / "busy.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    plugins = ["-p", "kernel_costs", *workers, "--nbval-lax", "--nbval-current-env"]
    run = subprocess.run(
        [*command, *plugins, notebook.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "harness")},
    )
    assert run.returncode == 0, run.stdout
    seconds, megabytes = re.search(r"(\d+) s of CPU +(\d+) MB  busy.ipynb", run.stdout).groups()
    assert 3 <= int(seconds) <= 20 and 200 <= int(megabytes) <= 500
    assert re.match(r"=* ?1 passed", run.stdout.splitlines()[-1])  # the summary stands last


def test_the_notebooks_are_tested_with_it():
    assert "kernel_costs" in (ROOT / "conftest.py").read_text()
