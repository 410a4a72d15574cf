"""Lint, format and types of everything in the repository, and how light `import kdutils` is."""

import subprocess
import sys

import pytest
from notebook_files import ROOT

HEAVY = {
    "IPython",
    "ipywidgets",
    "matplotlib",
    "onnxruntime",
    "pandas",
    "scipy",
    "torchvision",
    "transformers",
}


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_clean(command):
    run = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_importing_kdutils_is_light():
    script = "import sys, kdutils; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "kdutils" in loaded
    assert loaded & HEAVY == set()
