"""The course's notebooks, and a chapter in miniature that the tests may spoil."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))

ONE_PIXEL_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="

SETUP = """\
import ipywidgets
import matplotlib.pyplot as plt

from kdutils.claim import check"""

SLIDER = """\
def draw(T):
    plt.plot([1, T])
    plt.show()


ipywidgets.interact(draw, T=(1, 8));"""

EXERCISE = """\
### Exercise 1 · Halve it

Write `half(x)`.

<details><summary>Hint</summary>

Half of 2.5 is 1.25.
</details>

<details><summary>Solution</summary>

```python
def half(x):
    return x / 2
```
</details>"""

PROSE = """\
At `T = 1.5`, or at $T = 0.5$, nothing is new: the sum is 4.0.

BERT keeps 96.9 % of its score (Sanh et al. 2019, table 1)."""


def code_cell(source: str, *outputs: NotebookNode, tags: tuple[str, ...] = ()) -> NotebookNode:
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} if tags else {})


def printed(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def shown_as_table(html: str, text: str) -> NotebookNode:
    return new_output("execute_result", data={"text/html": html, "text/plain": text})


def figure() -> NotebookNode:
    return new_output(
        "display_data", data={"image/png": ONE_PIXEL_PNG, "text/plain": "<Figure size 600x350>"}
    )


def small_chapter() -> NotebookNode:
    """A notebook, stored with its outputs, that keeps every rule of `notebook_rules` and runs as it is."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# 01 · A small chapter\n\nWhat does a temperature do?"),
            code_cell(SETUP, tags=("browser",)),
            code_cell("plt.plot([1, 2]);", figure()),
            code_cell(SLIDER, printed("(a slider: run this notebook to move it)"), tags=("browser",)),
            code_cell("print(2 + 2)", printed("4\n"), tags=("nbval-check-output",)),
            code_cell('check("four is more than two", 2 + 2, above=2.0)', printed("four is more than two ✓")),
            new_markdown_cell(EXERCISE),
            code_cell("def half(x):\n    return ..."),
            new_markdown_cell(PROSE),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def with_tag(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if has_tag(cell, tag)]


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> Path:
    """Writes the notebook; returns the path."""
    nbformat.write(notebook, path)
    return path
