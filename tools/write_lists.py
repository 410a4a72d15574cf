"""Writes what is listed of the chapters, from the notebooks: python tools/write_lists.py

EXERCISES.md, all exercises; and the table of chapters in README.md, between its two comments.
`make notebooks` runs this.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from replacing import replace

ROOT = Path(__file__).resolve().parent.parent
EXERCISES, README = ROOT / "EXERCISES.md", ROOT / "README.md"
EXERCISE = re.compile(r"^### (Exercise \d+ · .+?)\s+difficulty ([●○]+) · (.+)$", re.MULTILINE)
EXERCISES_HEADING = """# Exercises

In every chapter one exercise asks you to **predict** what will happen, one to **implement** a function, whose check names the usual slips, and one to **investigate** a question with an experiment of your own. Each has a hint and a solution, folded away. The dots say how hard it is.

| chapter | exercise | difficulty | time |
|---|---|---|---|
"""  # noqa: E501

CHAPTERS_START, CHAPTERS_END = (
    "<!-- chapters, written by tools/write_lists.py -->\n",
    "<!-- end of chapters -->",
)
CHAPTERS_HEADING = "\n| notebook | the question | minutes to run |\n|---|---|---|\n"
# The first chapter of each part of the course, and the part's name.
PARTS = {
    "01": "Knowledge",
    "04": "Training",
    "07": "Architecture",
    "10": "The toolbox",
    "13": "Beyond the core",
}
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
QUESTION = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
MINUTES = re.compile(r"(\S+) minutes? to run")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def chapters() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def prose(notebook: Path) -> list[str]:
    """The text of each Markdown cell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def exercises(notebook: Path) -> Iterator[tuple[str, ...]]:
    """Title, difficulty and time of each exercise of a notebook."""
    for text in prose(notebook):
        yield from EXERCISE.findall(text)


def exercise_list(notebooks: list[Path]) -> str:
    """EXERCISES.md."""
    rows = [
        f"| [{notebook.stem[:2]}](notebooks/{notebook.name}) | {' | '.join(exercise)} |\n"
        for notebook in notebooks
        for exercise in exercises(notebook)
    ]
    return EXERCISES_HEADING + "".join(rows)


def chapter_row(notebook: Path) -> str:
    """The table's line about a chapter.   Raises ValueError where its first cell lacks one of the three."""
    first = prose(notebook)[0]
    found = [pattern.search(first) for pattern in (TITLE, QUESTION, MINUTES)]
    if not all(found):
        raise ValueError(
            f"{notebook.name}: expected '# title', '**question**' and '… minutes to run' in the first cell"
        )
    title, question, minutes = (match[1] for match in found if match)
    digits = str(NUMBERS.index(minutes) + 1) if minutes in NUMBERS else minutes
    return f"| [{title}](notebooks/{notebook.name}) | {question} | {digits} |\n"


def part_of(notebook: Path) -> str:
    """The part of the course that a chapter belongs to; chapter 00 to none."""
    return next((name for first, name in reversed(PARTS.items()) if notebook.stem[:2] >= first), "")


def chapter_table(notebooks: list[Path]) -> str:
    """The chapters, each with its question and its minutes, below the name of its part."""
    rows, part = "", ""
    for notebook in notebooks:
        if part_of(notebook) != part:
            part = part_of(notebook)
            rows += f"| *{part}* | | |\n"
        rows += chapter_row(notebook)
    return CHAPTERS_HEADING + rows + "\n"


def with_chapters(readme: str, notebooks: list[Path]) -> str:
    """README.md with the table as the notebooks have it."""
    before, start, rest = readme.partition(CHAPTERS_START)
    _, end, after = rest.partition(CHAPTERS_END)
    if not start or not end:
        raise ValueError(f"README.md: expected the lines {CHAPTERS_START!r} and {CHAPTERS_END!r}")
    return before + start + chapter_table(notebooks) + end + after


if __name__ == "__main__":
    replace(EXERCISES, exercise_list(chapters()))
    replace(README, with_chapters(README.read_text(encoding="utf-8"), chapters()))
