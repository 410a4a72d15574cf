"""Writes EXERCISES.md, the list of all exercises, from the notebooks: python tools/list_exercises.py"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from replacing import replace

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "EXERCISES.md"
EXERCISE = re.compile(r"^### (Exercise \d+ · .+?)\s+difficulty ([●○]+) · (.+)$", re.MULTILINE)
HEADING = """# Exercises

In every chapter one exercise asks you to **predict** what will happen, one to **implement** a function, whose check names the usual slips, and one to **investigate** a question with an experiment of your own. Each has a hint and a solution, folded away. The dots say how hard it is.

| chapter | exercise | difficulty | time |
|---|---|---|---|
"""  # noqa: E501


def exercises(notebook: Path) -> Iterator[tuple[str, ...]]:
    """Title, difficulty and time of each exercise of a notebook."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            yield from EXERCISE.findall("".join(cell["source"]))


def as_markdown(notebooks: list[Path]) -> str:
    rows = [
        f"| [{notebook.stem[:2]}](notebooks/{notebook.name}) | {' | '.join(exercise)} |\n"
        for notebook in notebooks
        for exercise in exercises(notebook)
    ]
    return HEADING + "".join(rows)


def chapters() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


if __name__ == "__main__":
    replace(LIST, as_markdown(chapters()))
