"""Exercises of every chapter: the printed solution passes, the stub is not attempted.

The slips that a check names are tested chapter by chapter, in test_checks_*.py.
"""

import importlib

import pytest
from list_exercises import LIST, as_markdown
from notebook_code import exercises, solution, stub, verdict
from notebook_files import CHAPTERS

EXERCISES = [(path, *exercise) for path in CHAPTERS for exercise in exercises(path)]
every_exercise = pytest.mark.parametrize(
    ("path", "number", "judge", "name"), EXERCISES, ids=[f"{row[0].stem}-{row[1]}" for row in EXERCISES]
)


def judge_of(path, name):
    return getattr(importlib.import_module(f"kdutils.course.exercises.chapter{path.stem[:2]}"), name)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_two_or_three_exercises_that_are_checked(path):
    assert [number for number, _, _ in exercises(path)] in ([1, 2], [1, 2, 3])


@every_exercise
def test_printed_solution_passes(capsys, path, number, judge, name):
    assert verdict(capsys, judge_of(path, judge), solution(path, number)[name]) == "✓ passed"


@every_exercise
def test_stub_is_not_attempted(capsys, path, number, judge, name):
    assert "not attempted" in verdict(capsys, judge_of(path, judge), stub(path, number)[name])


def test_the_list_of_exercises_is_that_of_the_notebooks():
    assert LIST.read_text(encoding="utf-8") == as_markdown(CHAPTERS), "python tools/list_exercises.py"
    assert LIST.read_text(encoding="utf-8").count("| Exercise ") == len(EXERCISES)
