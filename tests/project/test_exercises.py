"""Exercises of every chapter: the printed solution passes, the stub is not attempted.

The slips that a check names are tested chapter by chapter, in tests/chapters.
"""

import importlib

import pytest
from notebook_code import exercises, solution, stub, verdict
from notebook_files import CHAPTERS
from write_lists import EXERCISES as LIST
from write_lists import README, exercise_list, with_chapters

EXERCISES = [(path, *exercise) for path in CHAPTERS for exercise in exercises(path)]
ARGUMENTS, IDS = ("path", "number", "judge", "name"), [f"{row[0].stem}-{row[1]}" for row in EXERCISES]
every_exercise = pytest.mark.parametrize(ARGUMENTS, EXERCISES, ids=IDS)

# Solutions that train for several seconds.
TRAIN = {
    "missing_control",
    "how_far",
    "own_budget",
    "poisoned",
    "own_trait",
    "repaired",
    "own_problem",
    "own_cut",
}
every_solution = pytest.mark.parametrize(
    ARGUMENTS,
    [pytest.param(*row, marks=[pytest.mark.slow] * (row[2] in TRAIN)) for row in EXERCISES],
    ids=IDS,
)


def judge_of(path, name):
    return getattr(importlib.import_module(f"kdutils.course.exercises.chapter{path.stem[:2]}"), name)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_two_to_four_exercises_that_are_checked(path):
    numbers = [number for number, _, _ in exercises(path)]
    assert 2 <= len(numbers) <= 4 and numbers == [*range(1, 1 + len(numbers))]


@every_solution
def test_printed_solution_passes(capsys, path, number, judge, name):
    assert verdict(capsys, judge_of(path, judge), solution(path, number)[name]).startswith("✓ passed")


@every_exercise
def test_stub_is_not_attempted(capsys, path, number, judge, name):
    assert "not attempted" in verdict(capsys, judge_of(path, judge), stub(path, number)[name])


def test_the_list_of_exercises_is_that_of_the_notebooks():
    assert LIST.read_text(encoding="utf-8") == exercise_list(CHAPTERS), "python tools/write_lists.py"
    assert LIST.read_text(encoding="utf-8").count("| Exercise ") == len(EXERCISES)


def test_the_readmes_table_of_chapters_is_that_of_the_notebooks():
    readme = README.read_text(encoding="utf-8")
    assert readme == with_chapters(readme, CHAPTERS), "python tools/write_lists.py"
    assert readme.count("](notebooks/") >= len(CHAPTERS)
