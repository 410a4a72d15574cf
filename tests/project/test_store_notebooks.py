"""`make notebooks` stores clean outputs, and leaves a notebook that fails as it was."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from draw_frames import MOST_FRAMES, SHARPNESS, moving
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_files import ROOT, read, write
from notebook_rules import complaints
from PIL import Image
from store_notebooks import code_of

SOUND = [
    "import sys\nimport matplotlib.pyplot as plt\nfrom kdutils.claim import check\n"
    "from kdutils.course.widgets import explore",
    "plt.plot( [1,2] );",
    "from tqdm import tqdm\nfor step in tqdm([1, 2]):\n    print(step)",
    "print(' 50%|█████     | 1/2 [00:00<00:00, 9it/s]', file=sys.stderr)",
    "def draw(T, kind):\n    plt.plot([T])\n    print(T, kind)\n"
    "explore(draw, T=[4, 2, 8], kind=['dots', 'rays'])",
    "check('one is one', 1, equals=1)",
    "import ipywidgets\ndef say(text):\n    pass\nipywidgets.interact(say, text='a');",
]


def store(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "store_notebooks.py", *arguments], capture_output=True, text=True
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
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    folder.mkdir()
    path = write(notebook, folder / "01_sound.ipynb")
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
    line, drawn = stored[0].splitlines()[-2:]  # all numbers in sentences are supported
    for what in ("01_sound.ipynb: ", "first figure ", "peak memory 0.", "file "):
        assert what in line
    assert re.fullmatch(r"  3 pictures of sliders, \d+ kB; all in all \d+ s, \d+ s of CPU", drawn)


def test_the_pictures_of_the_sliders_are_stored_too(stored):
    path = stored[1]
    folder = path.parent.parent / "docs" / "frames" / "01"
    exploration, box = json.loads((folder / "sliders.json").read_text())
    assert box is None, "a box for words has no pictures"
    assert exploration["sliders"] == [
        {"name": "T", "labels": ["2", "4", "8"], "start": 1},
        {"name": "kind", "labels": ["dots", "rays"], "start": 0},
    ]
    frames = exploration["frames"]
    assert len(frames) == 6 and frames[0] == frames[1], "the same picture is stored once"
    assert {file.name for file in folder.iterdir()} == {"sliders.json", *frames}
    assert exploration["texts"] == ["2 dots", "2 rays", "4 dots", "4 rays", "8 dots", "8 rays"]
    assert exploration["code"] == code_of(read(path).cells[4])
    for name in frames:
        width, height = Image.open(folder / name).size
        assert (
            abs(width / exploration["width"] - SHARPNESS)
            < 0.02
            > abs(width / exploration["width"] - height / exploration["height"])
        )


def test_the_pictures_alone_are_drawn_for_the_notebook_as_it_is(stored, tmp_path):
    path = tmp_path / "notebooks" / "01_sound.ipynb"
    path.parent.mkdir()
    shutil.copy(stored[1], path)
    old = tmp_path / "docs" / "frames" / "01"
    old.mkdir(parents=True)
    (old / "0123.webp").write_text("old")
    run = store("--only-frames", path)
    assert run.returncode == 0, run.stderr
    assert path.read_bytes() == stored[1].read_bytes()
    assert [file.name for file in old.parent.iterdir()] == ["01"]
    names = {file.name for file in (stored[1].parent.parent / "docs" / "frames" / "01").iterdir()}
    assert {file.name for file in old.iterdir()} == names


def test_as_many_sliders_move_as_their_pictures_are_few():
    stops = {"a": [1] * 9, "b": [1] * 7, "c": [1] * 2}
    assert moving(stops) == ["a", "b"] and MOST_FRAMES >= 9 * 7
    assert moving({"a": [1] * 2, "b": [1] * 3}) == ["a", "b"]
    assert moving({"a": [1] * 99, "b": [1] * 2}) == ["a"]


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
    "a slider's further stop": (
        "from kdutils.course.widgets import explore\n\nexplore(lambda T: 1 / T, T=[1, 0])",
        "ZeroDivisionError",
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
