"""`make notebooks` stores clean outputs, and leaves a notebook that fails as it was."""

import os
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_files import ROOT, read, write
from notebook_rules import complaints

SOUND = [
    "import sys\nimport ipywidgets\nimport matplotlib.pyplot as plt\nfrom kdutils.claim import check",
    "plt.plot( [1,2] );",
    "from tqdm import tqdm\nfor step in tqdm([1, 2]):\n    print(step)",
    "print(' 50%|█████     | 1/2 [00:00<00:00, 9it/s]', file=sys.stderr)",
    "def draw(T):\n    plt.plot([T])\n    plt.show()\nipywidgets.interact(draw, T=(1, 8));",
    "check('one is one', 1, equals=1)",
]


def store(*paths):
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "store_notebooks.py", *paths], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """What the command printed for a sound notebook, and the file it stored."""
    notebook = new_notebook(cells=[new_code_cell(source) for source in SOUND])
    notebook.cells[1].metadata = {"tags": ["hide-input"]}
    notebook.cells[4].metadata = {"tags": ["browser"], "execution": {"iopub.status.busy": "noon"}}
    notebook.metadata["widgets"] = {"state": {}}
    solution = "### Exercise 1 · Think\n\n<details><summary>Solution</summary>\n\nYes.\n</details>"
    notebook.cells.append(new_markdown_cell(solution))
    path = write(notebook, tmp_path_factory.mktemp("notebooks") / "01_sound.ipynb")
    run = store(path)
    assert run.returncode == 0, run.stderr
    return run.stdout, path


def test_the_stored_notebook_keeps_the_rules(stored):
    path = stored[1]
    assert complaints(read(path), path) == []


def test_the_code_is_formatted_and_its_unused_imports_are_gone(stored):
    cells = read(stored[1]).cells
    assert cells[1].source == "plt.plot([1, 2]);"
    assert 'print(" 50%' in cells[3].source


def test_outputs_hold_the_figure_and_no_progress_bar(stored):
    cells = read(stored[1]).cells
    assert "image/png" in cells[1].outputs[0].data
    assert [output.text for output in cells[2].outputs] == ["1\n2\n"]
    assert cells[3].outputs == []


def test_a_sentence_stands_where_the_slider_was(stored):
    (output,) = read(stored[1]).cells[4].outputs
    assert output.data == {"text/plain": "(a slider: run this notebook to move it)"}


def test_metadata_is_what_any_reader_needs(stored):
    notebook = read(stored[1])
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.language_info
    assert notebook.cells[4].metadata == {"tags": ["browser"]}


def test_a_cell_that_the_site_folds_is_folded_in_jupyter(stored):
    assert read(stored[1]).cells[1].metadata == {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}


def test_the_measurements_are_printed(stored):
    line = stored[0].splitlines()[-1]  # all numbers in sentences are supported
    for what in ("01_sound.ipynb: ", "first figure ", "peak memory 0.", "file "):
        assert what in line


def test_numbers_that_the_new_outputs_do_not_support_are_named(tmp_path):
    cells = [new_code_cell("print(2.5)"), new_markdown_cell("It gains 2.5 points, then 3.5 points.")]
    run = store(write(new_notebook(cells=cells), tmp_path / "01_small.ipynb"))
    assert run.returncode == 0
    assert run.stdout.splitlines()[-1].startswith("  cell 1: “3.5” is shown by no cell")


FAILING = {
    "an error": ("1 / 0", "ZeroDivisionError"),
    "a warning": ("import warnings\n\nwarnings.warn('old way', stacklevel=1)", "old way"),
    "a callback": (
        "import ipywidgets\n\nipywidgets.interact(lambda T: T / 0, T=(1, 8));",
        "a slider's callback",
    ),
    "an undefined name": ("print(undefined)", "Undefined name `undefined`"),
    "a dead kernel": ("import os\n\nos._exit(1)", "Kernel died"),
}


@pytest.mark.parametrize("source, reason", FAILING.values(), ids=FAILING.keys())
def test_a_failing_notebook_is_left_as_it_was(source, reason, tmp_path):
    path = write(new_notebook(cells=[new_code_cell(source)]), tmp_path / "failing.ipynb")
    before = path.read_bytes()
    run = store(path)
    assert run.returncode == 1
    assert "failing.ipynb fails and is left as it was" in run.stderr
    assert reason in run.stderr
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["failing.ipynb"]
