"""Runs notebooks afresh and stores them with their outputs: python tools/store_notebooks.py notebooks/*.ipynb

For each notebook: its code is linted and formatted, then all cells run in a new kernel, then the outputs
are cleaned and the file is replaced. Formatting comes first, so that the outputs belong to the code that is
stored. A notebook that fails in any way (lint, an error in a cell or in a slider's callback, a warning
printed to stderr) leaves its file as it was, and the exit status is 1.

The pictures of its sliders are drawn in the same kernel, for the site, into docs/frames/NN. --only-frames
draws them for a notebook as it is stored, runs nothing behind its last slider, and writes nothing else.

Prints for each notebook: time of Run All, peak resident memory of the kernel and its child processes, time
until the first figure (both from the first cell's start), and the file's size; then the numbers in sentences
that the new outputs no longer support. And for the pictures: their number and size, and the time of the
whole run with them, in seconds and in seconds of CPU.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from PIL import Image
from prose_numbers import unsupported
from replacing import replace

ROOT = Path(__file__).resolve().parent.parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SLIDER_TEXT = "(a slider: run this notebook to move it)"
FOLDING_TAGS = {"hide-input", "hide-cell"}
DRAW_FRAMES = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {tools!r})
from draw_frames import draw_frames
from kdutils.course.widgets import explorations
told = {{"sliders": draw_frames(explorations, Path({folder!r})), "cpu": sum(os.times()[:4])}}
print(json.dumps(told))
"""
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class NotebookFailure(Exception):
    """Why a notebook is not stored."""


class MeasuredClient(NotebookClient):
    """An nbclient that notes when the first figure appears and how much memory and time the cells take.

    Code to be run `afterwards` in the same kernel is not measured; what it prints is `told`.
    """

    def __init__(self, nb: NotebookNode, afterwards: str = "pass", **options) -> None:
        super().__init__(
            nb, on_notebook_start=self._start_measuring, on_cell_start=self._notice_the_end, **options
        )
        self.last_cell = new_code_cell(afterwards)
        self.seconds_to_figure: float | None = None
        self.seconds: float | None = None
        self.peak_bytes = 0

    def run(self, environment: dict[str, str]) -> None:
        """Runs the notebook's cells, then what comes afterwards."""
        self.nb.cells.append(self.last_cell)
        try:
            self.execute(env=environment)
        finally:
            self.nb.cells.remove(self.last_cell)

    @property
    def told(self) -> str:
        return "".join(output.text for output in self.last_cell.outputs if output.get("name") == "stdout")

    def _start_measuring(self, notebook: NotebookNode) -> None:
        self.started = time.perf_counter()
        kernel = psutil.Process(self.km.provisioner.pid)
        threading.Thread(target=self._sample_memory, args=(kernel,), daemon=True).start()

    def _notice_the_end(self, cell: NotebookNode, cell_index: int) -> None:
        if cell is self.last_cell:
            self.seconds = time.perf_counter() - self.started

    def _sample_memory(self, kernel: psutil.Process) -> None:
        while kernel.is_running() and self.seconds is None:
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


def executed(notebook: NotebookNode, folder: Path, afterwards: str = "pass") -> MeasuredClient:
    """The client that has run all cells of the notebook, in a new kernel working in the folder.

    Code to be run `afterwards`, in the same kernel, leaves no trace in the notebook.
    """
    client = MeasuredClient(
        notebook, afterwards, timeout=1800, kernel_name="python3",
        resources={"metadata": {"path": str(folder)}}, record_timing=False, coalesce_streams=True,
    )  # fmt: skip
    try:
        client.run({**os.environ, "TQDM_DISABLE": "1"})
    except (CellExecutionError, DeadKernelError, TimeoutError) as error:
        raise NotebookFailure(str(error)) from None
    cells = [*notebook.cells, client.last_cell]
    found = complaints([output for cell in cells for output in cell.get("outputs", [])])
    found += [f"in a slider's callback: {what}" for what in complaints(client.callback_outputs())]
    if found:
        raise NotebookFailure("\n".join(found))
    return client


def frames_folder(path: Path) -> Path:
    """Where the pictures of a notebook's sliders lie: docs/frames/NN, beside the notebooks' folder."""
    return path.resolve().parent.parent / "docs" / "frames" / path.name[:2]


def code_of(cell: NotebookNode) -> str:
    """A few letters that change with the cell's code."""
    return hashlib.sha256(cell.source.encode()).hexdigest()[:16]


def has_slider(cell: NotebookNode) -> bool:
    """Whether the cell, just run or as it is stored, shows sliders."""
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    return any(WIDGET_VIEW in shown or shown.get("text/plain") == SLIDER_TEXT for shown in data)


def explores(cell: NotebookNode) -> bool:
    """Whether its sliders are those of `explore`, whose pictures can be drawn beforehand."""
    return has_slider(cell) and "explore(" in cell.source


def executed_with_frames(notebook: NotebookNode, path: Path) -> tuple[MeasuredClient, list[str]]:
    """Runs the notebook, draws the pictures of its sliders, and replaces those of its last run.

    Returns the client, and what was drawn.
    """
    folder, new = frames_folder(path), frames_folder(path).with_name(f".{path.name[:2]}.unfinished")
    try:
        code = DRAW_FRAMES.format(tools=str(ROOT / "tools"), folder=str(new))
        client = executed(notebook, path.resolve().parent, code)
        told: dict[str, Any] = json.loads(client.told)
        cells = [cell for cell in notebook.cells if has_slider(cell)]
        calls, drawn = sum(map(explores, cells)), iter(told["sliders"])
        if calls != len(told["sliders"]):
            raise NotebookFailure(
                f"{calls} cells with explore( show sliders, {len(told['sliders'])} were drawn"
            )
        shutil.rmtree(folder, ignore_errors=True)
        if not calls:
            return client, []
        # null for what is no slider of explore, such as a box for a sentence of one's own
        entries = [{**next(drawn), "code": code_of(cell)} if explores(cell) else None for cell in cells]
        index = json.dumps(entries, indent=1, ensure_ascii=False)
        replace(new / "sliders.json", f"{index}\n")
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    pictures = [file.stat().st_size for file in folder.glob("*.webp")]
    seconds = time.perf_counter() - client.started
    return client, [
        f"  {len(pictures)} pictures of sliders, {sum(pictures) / 1e3:.0f} kB; "
        f"all in all {seconds:.0f} s, {told['cpu']:.0f} s of CPU"
    ]


def store(path: Path) -> str:
    """Runs one notebook, replaces its file and its sliders' pictures, and says what was measured.

    Lines below it name the numbers in sentences that the new outputs do not support: the text is to follow.
    """
    notebook = cleared(nbformat.reads(formatted(path), as_version=4))
    client, drawn = executed_with_frames(notebook, path)

    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info.pop("version", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = without_what_only_runs(cell.outputs)
    replace(path, nbformat.writes(notebook) + "\n")

    figure = "none" if client.seconds_to_figure is None else f"{client.seconds_to_figure:.1f} s"
    measured = (
        f"{path.name}: {client.seconds:.0f} s, first figure {figure}, "
        f"peak memory {client.peak_bytes / 1e9:.2f} GB, file {path.stat().st_size / 1e3:.0f} kB"
    )
    return "\n".join([measured, *drawn, *(f"  {number}" for number in unsupported(notebook, path))])


def store_frames(path: Path) -> str:
    """Runs a notebook as it is stored, replaces the pictures of its sliders, and says what was drawn.

    What comes after its last slider is not run.
    """
    notebook = nbformat.read(path, as_version=4)
    last = max((number for number, cell in enumerate(notebook.cells) if explores(cell)), default=-1)
    del notebook.cells[last + 1 :]
    _, drawn = executed_with_frames(notebook, path)
    return "\n".join([path.name, *drawn])


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs notebooks afresh and stores them with their outputs.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--only-frames", action="store_true", help="replace the sliders' pictures alone")
    arguments = parser.parse_args()
    failed = False
    for path in arguments.notebooks:
        print(f"{path.name}: running", flush=True)
        try:
            print((store_frames if arguments.only_frames else store)(path), flush=True)
        except NotebookFailure as failure:
            failed = True
            print(f"{path.name} fails and is left as it was:\n{failure}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
