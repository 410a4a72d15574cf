"""A number in a sentence agrees with what a cell shows, or is cited."""

import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_files import ROOT, printed, shown_as_table, write
from prose_numbers import unsupported

CODE = [
    new_code_cell(
        "IMAGES = 20_000\nweights = {'soft': 0.9}\n%timeit 77.7\ncheck('the gain, points', gain, above=2.5)",
        outputs=[
            printed("✓ the gain, points: 3.84 (> 2.5)\nDistilled: -1.27 ± 0.31, of 296,672 parameters\n"),
            printed("✓ a null, points: 0.2 (> -5 and < 2.5)\n✓ the next, points: 6.91 (> 0.5)\n"),
        ],
    ),
    new_code_cell("table", outputs=[shown_as_table("<td>81.46</td>", "0.0567")]),
]


def complaints(prose, tmp_path, *more):
    notebook = new_notebook(cells=[*CODE, new_markdown_cell(prose), *more])
    return list(unsupported(notebook, write(notebook, tmp_path / "01_small.ipynb")))


@pytest.mark.parametrize(
    "prose",
    [
        "The student gains 3.8 points.",
        "It gains about 4 points, 3.84 to be exact.",
        "It loses 1.27 ± 0.3 points.",
        "The claim after one between two bounds: 6.9 points.",
        "It has 296,672 parameters and reaches 81.5%.",
        "One answer in eighteen is wrong: 5.67 %, or 6%.",
        "With weight 0.9, on 20,000 images, it gains 3.8 points.",
        "BERT keeps 96.9% of its score (Sanh et al. 2019, table 1).",
        "Hinton, Vinyals and Dean (2015, sec. 2.1) go up to a temperature of 20.5.",
        "It keeps 97.1% [of the score](https://arxiv.org/abs/1910.01108).",
        "As in equation (3.2), the gradient shrinks; section 2.1 says why, §4.3 how.",
        "At `T = 2.5`, or at $T = 0.5$:\n\n$$0.7\\,L_s + 0.3\\,L_h$$",
        "```python\nalpha = 0.7\n```",
        "## Half of it, 50%",
        "About 3 minutes, with 60,000 images and a kernel of 7×7.",
        "The bars are 95% intervals, or 95 % t-intervals.",
        "Twelve of the 12 networks, 100% of them.",
        "<details><summary>Hint</summary>\n\nIt gains 2.3 points.\n</details>",
    ],
)
def test_a_sentence_with_support_is_left_alone(prose, tmp_path):
    assert complaints(prose, tmp_path) == []


@pytest.mark.parametrize(
    "prose, number",
    [
        ("The student gains 2.3 points.", "2.3"),
        ("The student gains 2.5 points.", "2.5"),  # the bound of the claim
        ("The student gains 3.9 points.", "3.9"),  # rounded wrongly
        ("It reaches 82%.", "82"),
        ("It gains 5 points.", "5"),
        ("It is 77.7 times as fast.", "77.7"),
        ("It has 290,000 parameters.", "290,000"),
        ("- the first: 3.8 points\n- the second: 7.1 points", "7.1"),
        ("It gains 2.3 points.\n\nSee Hinton et al. 2015.", "2.3"),
        ("With `T = 2.3` it gains 2.3 points.", "2.3"),
        ("It gains 2.3 points, as [the next chapter](02_none.ipynb) says.", "2.3"),
        ("*How sure are we?* Give or take ± 0.7.", "0.7"),
    ],
)
def test_a_number_that_no_cell_shows_is_named(prose, number, tmp_path):
    (complaint,) = complaints(prose, tmp_path)
    assert complaint.startswith(f"cell 2: “{number}” is shown by no cell, nor cited: ")


def test_a_chapter_that_is_linked_supports_its_own_numbers(tmp_path):
    prose = "There it gained 7.1 points ([the chapter before](00_before.ipynb#top))."
    assert len(complaints(prose, tmp_path)) == 1
    write(
        new_notebook(cells=[new_code_cell("gain", outputs=[printed("7.06")])]), tmp_path / "00_before.ipynb"
    )
    assert complaints(prose, tmp_path) == []
    assert len(complaints(prose.split(" (")[0] + ".", tmp_path)) == 1


def test_references_hold_any_number(tmp_path):
    sources = [
        new_markdown_cell("## References\n\n- vol. 2.3, 45 %"),
        new_markdown_cell("- vol. 7, 8.9 points"),
    ]
    assert complaints("It gains 3.8 points.", tmp_path, *sources) == []


def test_the_command_names_notebook_and_sentence(tmp_path):
    spoiled = new_notebook(cells=[*CODE, new_markdown_cell("The student gains 2.3 points.")])
    path = write(spoiled, tmp_path / "01_small.ipynb")
    command = [sys.executable, ROOT / "tools" / "prose_numbers.py", path]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout.startswith("01_small.ipynb, cell 2: “2.3” is shown by no cell")
