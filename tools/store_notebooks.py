"""Runs notebooks afresh and stores them with their outputs: python tools/store_notebooks.py notebooks/*.ipynb

For each notebook: its code is linted and formatted, then all cells run in a new kernel, then the outputs
are cleaned and the file is replaced. Formatting comes first, so that the outputs belong to the code that is
stored. A notebook that fails in any way (lint, an error in a cell or in a slider's callback, a warning
printed to stderr) leaves its file as it was, and the exit status is 1.

Prints for each notebook: time of Run All, peak resident memory of the kernel and its child processes, time
until the first figure (both from the first cell's start), and the file's size; then the numbers in sentences
that the new outputs no longer support.
"""

import argparse
import base64
import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image
from prose_numbers import unsupported
from replacing import replace

ROOT = Path(__file__).resolve().parent.parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SLIDER_TEXT = "(a slider: run this notebook to move it)"
FOLDING_TAGS = {"hide-input", "hide-cell"}
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class NotebookFailure(Exception):
    """Why a notebook is not stored."""


class MeasuredClient(NotebookClient):
    """An nbclient that notes when the first figure appears and how much memory the kernel takes."""

    def __init__(self, nb: NotebookNode, **options) -> None:
        super().__init__(nb, on_notebook_start=self._start_measuring, **options)
        self.seconds_to_figure: float | None = None
        self.peak_bytes = 0

    def _start_measuring(self, notebook: NotebookNode) -> None:
        self.started = time.perf_counter()
        kernel = psutil.Process(self.km.provisioner.pid)
        threading.Thread(target=self._sample_memory, args=(kernel,), daemon=True).start()

    def _sample_memory(self, kernel: psutil.Process) -> None:
        while kernel.is_running():
            self.peak_bytes = max(self.peak_bytes, resident_bytes(kernel))
            time.sleep(0.1)

    def output(self, outs, msg, display_id, cell_index):
        if self.seconds_to_figure is None and "image/png" in msg["content"].get("data", {}):
            self.seconds_to_figure = time.perf_counter() - self.started
        return super().output(outs, msg, display_id, cell_index)

    def callback_outputs(self) -> list[NotebookNode]:
        """What the callbacks of sliders printed or raised; it goes to widgets, not to the cells' outputs."""
        return [output for widget in self.comm_objects.values() for output in widget.outputs]


def resident_bytes(root: psutil.Process) -> int:
    """Resident memory of a process and its children; pages of files and shared memory are counted once."""
    private, shared = 0, 0
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            memory = process.memory_info()
        except psutil.Error:
            continue
        file_pages = getattr(memory, "shared", 0)  # known on Linux only
        private += memory.rss - file_pages
        shared = max(shared, file_pages)
    return private + shared


def formatted(path: Path) -> str:
    """The notebook's text with its code cells linted, repaired where ruff can, and formatted."""
    text = path.read_text(encoding="utf-8")
    # Formatted first, so that a line which can be broken is not called too long.
    for command in (["format", "--quiet"], ["check", "--fix", "--quiet"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, f"--config={ROOT / 'pyproject.toml'}"]
        run = subprocess.run(
            [*ruff, f"--stdin-filename={path}", "-"],
            input=text, capture_output=True, encoding="utf-8", cwd=ROOT,
        )  # fmt: skip
        if run.returncode != 0:
            raise NotebookFailure(f"ruff {command[0]} found in {path.name}:\n{run.stderr or run.stdout}")
        text = run.stdout
    return text


def cleared(notebook: NotebookNode) -> NotebookNode:
    """The notebook without outputs, with nothing in its metadata but the kernel and the cells' tags.

    A cell whose tag folds it on the site is folded in Jupyter, too.
    """
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNELSPEC))
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        if FOLDING_TAGS & set(tags or []):
            cell.metadata.jupyter = NotebookNode(source_hidden=True)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def is_progress_bar(text: str) -> bool:
    lines = [line for line in re.split(r"[\r\n]", text) if line.strip()]
    return all("%|" in line or "it/s" in line or "s/it" in line for line in lines)


def without_what_only_runs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs without progress bars, and with a sentence where a live widget stood."""
    kept = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr" and is_progress_bar(output.text):
            continue
        if WIDGET_VIEW in output.get("data", {}):
            del output.data[WIDGET_VIEW]
            output.data["text/plain"] = SLIDER_TEXT
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = with_a_palette(output.data["image/png"])
        kept.append(output)
    return kept


def with_a_palette(png: str) -> str:
    """The same PNG, in base64, with at most 256 colors: half the size, no difference that one can see."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(256)
    stored = io.BytesIO()
    picture.save(stored, format="png", optimize=True)
    return base64.b64encode(stored.getvalue()).decode()


def complaints(outputs: list[NotebookNode]) -> list[str]:
    """What must not stand in a stored notebook: tracebacks, and warnings on stderr."""
    found = []
    for output in outputs:
        if output.output_type == "error":
            found.append("\n".join(output.traceback) or output.ename)
        elif output.output_type == "stream" and output.name == "stderr" and not is_progress_bar(output.text):
            found.append(f"printed to stderr: {output.text}")
    return found


def executed(notebook: NotebookNode, folder: Path) -> MeasuredClient:
    """The client that has run all cells of the notebook, in a new kernel working in the folder."""
    client = MeasuredClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
        record_timing=False, coalesce_streams=True,
    )  # fmt: skip
    try:
        client.execute(env={**os.environ, "TQDM_DISABLE": "1"})
    except (CellExecutionError, DeadKernelError, TimeoutError) as error:
        raise NotebookFailure(str(error)) from None
    found = complaints([output for cell in notebook.cells for output in cell.get("outputs", [])])
    found += [f"in a slider's callback: {what}" for what in complaints(client.callback_outputs())]
    if found:
        raise NotebookFailure("\n".join(found))
    return client


def store(path: Path) -> str:
    """Runs one notebook, replaces its file, and returns a line with what was measured.

    Lines below it name the numbers in sentences that the new outputs do not support: the text is to follow.
    """
    notebook = cleared(nbformat.reads(formatted(path), as_version=4))
    client = executed(notebook, path.resolve().parent)
    seconds = time.perf_counter() - client.started

    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info.pop("version", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = without_what_only_runs(cell.outputs)
    replace(path, nbformat.writes(notebook) + "\n")

    figure = client.seconds_to_figure
    measured = (
        f"{path.name}: {seconds:.0f} s, first figure {'none' if figure is None else f'{figure:.1f} s'}, "
        f"peak memory {client.peak_bytes / 1e9:.2f} GB, file {path.stat().st_size / 1e3:.0f} kB"
    )
    return "\n".join([measured, *(f"  {number}" for number in unsupported(notebook, path))])


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs notebooks afresh and stores them with their outputs.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    failed = False
    for path in parser.parse_args().notebooks:
        print(f"{path.name}: running", flush=True)
        try:
            print(store(path), flush=True)
        except NotebookFailure as failure:
            failed = True
            print(f"{path.name} fails and is left as it was:\n{failure}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
