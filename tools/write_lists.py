"""Writes what is listed of the chapters, from the notebooks: python tools/write_lists.py

EXERCISES.md, all exercises; the table of chapters in README.md, between its two comments; and the README's
picture, which is a figure of chapter 00. `make notebooks` runs this.
"""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

from draw_card import PICTURE, draw_card
from replacing import replace

ROOT = Path(__file__).resolve().parent.parent
EXERCISES, README = ROOT / "EXERCISES.md", ROOT / "README.md"
WORDS_ABOVE_THE_PICTURE = "a gray line joins those of one seed"
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
CHAPTERS_HEADING = "\n| notebook | the question | minutes to run | to read |\n|---|---|---|---|\n"
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
TIMES = re.compile(r"(\S+) minutes? to run.*?,\s+(\S+)(?: (hour))?\s+to read", re.DOTALL)
NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
}  # fmt: skip


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


def times(text: str) -> tuple[int, int] | None:
    """The minutes to run and to read that a chapter's first cell names; None where it names none."""
    if not (found := TIMES.search(text)):
        return None
    run, read, hour = found.groups()
    return minutes(run), 60 if hour else minutes(read)


def minutes(word: str) -> int:
    return NUMBERS.get(word) or int(word)


def chapter_row(notebook: Path) -> str:
    """The table's line about a chapter.   Raises ValueError where its first cell lacks one of the three."""
    first = prose(notebook)[0]
    title, question, needed = TITLE.search(first), QUESTION.search(first), times(first)
    if not title or not question or not needed:
        raise ValueError(
            f"{notebook.name}: expected '# title', '**question**' and '… minutes to run …, … to read' "
            "in the first cell"
        )
    return f"| [{title[1]}](notebooks/{notebook.name}) | {question[1]} | {needed[0]} | {needed[1]} |\n"


def part_of(notebook: Path) -> str:
    """The part of the course that a chapter belongs to; chapter 00 to none."""
    return next((name for first, name in reversed(PARTS.items()) if notebook.stem[:2] >= first), "")


def chapter_table(notebooks: list[Path]) -> str:
    """The chapters, each with its question and its minutes, below the name of its part."""
    rows, part = "", ""
    for notebook in notebooks:
        if part_of(notebook) != part:
            part = part_of(notebook)
            rows += f"| *{part}* | | | |\n"
        rows += chapter_row(notebook)
    return CHAPTERS_HEADING + rows + "\n"


def with_chapters(readme: str, notebooks: list[Path]) -> str:
    """README.md with the table as the notebooks have it."""
    before, start, rest = readme.partition(CHAPTERS_START)
    _, end, after = rest.partition(CHAPTERS_END)
    if not start or not end:
        raise ValueError(f"README.md: expected the lines {CHAPTERS_START!r} and {CHAPTERS_END!r}")
    return before + start + chapter_table(notebooks) + end + after


def picture(notebook: Path) -> bytes:
    """The first figure below the words, as PNG.   Raises ValueError where there is none."""
    below = False
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        below = below or WORDS_ABOVE_THE_PICTURE in "".join(cell["source"])
        for output in cell.get("outputs", []) if below else []:
            if png := output.get("data", {}).get("image/png"):
                return base64.b64decode("".join(png))
    raise ValueError(f"{notebook.name}: expected a figure below “{WORDS_ABOVE_THE_PICTURE}”")


if __name__ == "__main__":
    if PICTURE.read_bytes() != (new := picture(chapters()[0])):
        replace(PICTURE, new)
        draw_card()
    replace(EXERCISES, exercise_list(chapters()))
    replace(README, with_chapters(README.read_text(encoding="utf-8"), chapters()))
