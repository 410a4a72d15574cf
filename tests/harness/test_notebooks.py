"""Stored notebooks keep the rules, and each rule is broken by a notebook made to break it."""

import pytest
from nbformat.v4 import new_markdown_cell, new_output
from notebook_files import CHAPTERS, printed, read, small_chapter, write
from notebook_rules import RULES, complaints, lines_of

FIGURE, SLIDER, EXACT, CLAIM, EXERCISE, STUB, PROSE = range(2, 9)  # cells of the small chapter


def test_the_course_has_notebooks():
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_keeps_the_rules(path):
    assert complaints(read(path), path) == []


def test_the_small_chapter_keeps_the_rules(tmp_path):
    path = write(small_chapter(), tmp_path / "01_small.ipynb")
    assert complaints(read(path), path) == []


def set_source(cell, source):
    return lambda notebook: notebook.cells[cell].update(source=source)


def set_outputs(cell, *outputs):
    return lambda notebook: notebook.cells[cell].update(outputs=list(outputs))


def set_prose(text):
    return set_source(PROSE, text)


def shown(**data):
    return new_output("display_data", data={kind.replace("_", "/"): value for kind, value in data.items()})


SPOILED = {
    "run twice": (lambda nb: nb.cells[CLAIM].update(execution_count=9), "execution counts"),
    "cleared": (lambda nb: nb.cells[CLAIM].update(execution_count=None, outputs=[]), "execution counts"),
    "error": (set_outputs(CLAIM, new_output("error", ename="NameError", evalue="x")), "an error: NameError"),
    "warning": (set_outputs(CLAIM, new_output("stream", name="stderr", text="old!")), "a warning: old!"),
    "progress": (set_outputs(CLAIM, printed("\r 40%|████    | 4/10")), "progress bar"),
    "large": (set_outputs(CLAIM, printed("x" * 401_000)), "more than 400"),
    "state": (lambda nb: nb.metadata.update(widgets={}), "widget state"),
    "widget": (
        set_outputs(
            SLIDER, new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})
        ),
        "holds a widget",
    ),
    "kernel": (lambda nb: nb.metadata.kernelspec.update(name="kd"), "the kernel is kd"),
    "version": (
        lambda nb: nb.metadata.update(language_info={"name": "python", "version": "3.9"}),
        "a Python version",
    ),
    "svg": (set_outputs(FIGURE, new_output("display_data", data={"image/svg+xml": "<svg/>"})), "no PNG"),
    "svg in html": (set_outputs(FIGURE, shown(text_html="<p><svg></svg></p>")), "no PNG"),
    "jpeg": (set_outputs(FIGURE, shown(image_jpeg="")), "no PNG"),
    "path printed": (set_outputs(CLAIM, printed("saved to /home/ada/x.pt")), "/home/ada/x.pt"),
    "path in a table": (set_outputs(CLAIM, shown(text_html="<td>/tmp/a</td>")), "/tmp/a"),
    "path in code": (set_source(EXACT, "open('/root/x')"), "/root/x"),
    "unfinished": (set_prose("TODO: what the figure shows."), "not finished: TODO"),
    "no check": (set_source(CLAIM, "print(4 > 2)"), "checks a claim"),
    "no exercise": (
        set_source(EXERCISE, "<details><summary>Solution</summary>\n\n4\n</details>"),
        "no exercise",
    ),
    "no solution": (set_source(EXERCISE, "### Exercise 1 · Halve it"), "no solution"),
    "no slider": (set_source(SLIDER, "draw(1)"), "makes a slider"),
    "slider untagged": (lambda nb: nb.cells[SLIDER].metadata.clear(), "makes a slider"),
    "long cells": (
        lambda nb: [cell.update(source=cell.source + "\nx = 1" * 9) for cell in nb.cells[2:6]],
        "median code cell has",
    ),
    "measured elsewhere": (set_prose("The student gains 2.3 points."), "“2.3” is shown by no cell"),
    "unknown tag": (lambda nb: nb.cells[CLAIM].metadata.update(tags=["hide"]), "cell 5 has the tag hide"),
    "folded on the site only": (
        lambda nb: nb.cells[CLAIM].metadata.update(tags=["hide-cell"]),
        "cell 5 is folded in one place only",
    ),
    "folded in Jupyter only": (
        lambda nb: nb.cells[CLAIM].metadata.update(jupyter={"source_hidden": True}),
        "cell 5 is folded in one place only",
    ),
    "directive": (set_prose("```{note}\nRead this.\n```"), "```{ shows as raw text"),
    "colon fence": (set_prose(":::{warning}\nHot.\n:::"), ":::{ shows as raw text"),
    "role": (set_prose("See {ref}`losses`."), "{ref}` shows as raw text"),
    "alert": (set_prose("> [!NOTE]\n> Read this."), "[!NOTE] shows as raw text"),
    "tight summary": (set_prose("<details><summary>Hint</summary>\nThink.\n</details>"), "no blank line"),
    "text beside summary": (
        set_prose("<details><summary>Hint</summary> Think.\n</details>"),
        "no blank line",
    ),
    "dead link": (set_prose("Go on with [the next](02_none.ipynb)."), "there is no 02_none.ipynb"),
    "relative image": (set_prose("![map](map.png)"), "does not open on Colab"),
    "name set again": (set_source(EXACT, "plt = 4"), "cell 4 sets plt again, which cell 2 reads"),
    "function written again": (set_source(STUB, "def check(): ..."), "cell 7 sets check again"),
    "set again by a loop": (set_source(EXACT, "for plt in 'ab': print(plt)"), "sets plt again"),
    "set again by an import": (set_source(EXACT, "import numpy as plt"), "sets plt again"),
    "read and set": (set_source(FIGURE, "plt = [plt]"), "cell 2 sets plt again, which cell 2 reads"),
    "added to": (set_source(FIGURE, "plt += 1"), "sets plt again"),
    "read in a function only": (
        lambda nb: [nb.cells[FIGURE].update(source="2"), nb.cells[EXACT].update(source="plt = 4")],
        "cell 4 sets plt again, which cell 3 reads",
    ),
}


@pytest.mark.parametrize("spoil, expected", SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_notebook_is_caught(spoil, expected, tmp_path):
    notebook = small_chapter()
    spoil(notebook)
    path = write(notebook, tmp_path / "01_small.ipynb")
    found = complaints(notebook, path)
    assert len(found) == 1, found
    assert expected in found[0]


def test_a_cell_without_id_is_caught(tmp_path):
    notebook = small_chapter()
    path = write(notebook, tmp_path / "01_small.ipynb")
    notebook.cells[0].pop("id")
    assert complaints(notebook, path) == ["cell 0 has no id"]


@pytest.mark.parametrize(
    "text",
    [
        "BERT keeps 96.9 % (Sanh et al. 2019, table 1).",
        "<details><summary>Solution</summary>\n\nIt gains 2.3 points.\n</details>",
        "[01](01_small.ipynb#top) and [elsewhere](https://example.org/05_none.ipynb)",
        "![alt](https://example.org/map.png)",
        "```python\nd = {1: 2}\n```\n\nA set {a, b} is no directive.",
    ],
)
def test_sound_prose_is_left_alone(text, tmp_path):
    notebook = small_chapter()
    notebook.cells.append(new_markdown_cell(text))
    path = write(notebook, tmp_path / "01_small.ipynb")
    assert complaints(notebook, path) == []


def test_a_claim_counts_as_one_line_however_it_is_wrapped():
    wrapped = "x = 1\n\ncheck(\n    'a gain, points',\n    x,\n    above=0,\n    rests_on='teacher',\n)"
    assert lines_of(wrapped) == 2
    assert lines_of("%pip install kd\nfit(\n    x,\n)") == 4


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\nif plt:\n    %pip install kd",
        "T = 8",
        "[plt for plt in 'ab']",
        "def two(plt):\n    draw = plt\n    return draw",
        "class Two:\n    plt = 2\n    print(plt)",
        "del plt, check",
        "plt = check = None  # to make room",
        "best = None\nfor best in 'ab':\n    print(best)",
        "half = len\nhalf('ab')",  # set by a later cell, before which nobody reads it
    ],
)
def test_sound_code_is_left_alone(source, tmp_path):
    notebook = small_chapter()
    notebook.cells[EXACT].source = source
    path = write(notebook, tmp_path / "01_small.ipynb")
    assert complaints(notebook, path) == []


def test_every_rule_is_broken_by_some_spoiled_notebook(tmp_path):
    """No rule stands here that nothing can break."""
    unbroken = {rule.__name__ for rule in RULES} - {"cells_have_ids"}
    for spoil, _ in SPOILED.values():
        notebook = small_chapter()
        spoil(notebook)
        path = write(notebook, tmp_path / "01_small.ipynb")
        unbroken -= {rule.__name__ for rule in RULES if list(rule(notebook, path))}
    assert unbroken == set()
