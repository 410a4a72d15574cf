"""`make chapter` makes three files that run as they are and say what is left to be written."""

import re
import subprocess
import sys
from typing import Any

import pytest
from new_chapter import make_chapter
from notebook_code import exercises, solution, stub, verdict
from notebook_files import ROOT, read
from notebook_rules import complaints
from write_lists import chapter_row


@pytest.fixture
def made(tmp_path):
    """The files of a new chapter, in an empty checkout."""
    for folder in ("notebooks", "kdutils/course/exercises", "tests/chapters"):
        (tmp_path / folder).mkdir(parents=True)
    return make_chapter("43_language_models", tmp_path)


def test_three_files_are_made(made, tmp_path):
    assert [str(path.relative_to(tmp_path)) for path in made] == [
        "notebooks/43_language_models.ipynb",
        "kdutils/course/exercises/chapter43.py",
        "tests/chapters/test_chapter43.py",
    ]
    assert not [path for path in made if "<<" in path.read_text(encoding="utf-8")]


def test_what_is_left_to_do_is_to_write_and_to_run_it(made):
    told = complaints(read(made[0]), made[0])
    left = [
        complaint for complaint in told if not re.search("is not finished: TODO|execution counts", complaint)
    ]
    # links to chapters lead nowhere in an empty checkout
    assert [complaint for complaint in left if "01_response_knowledge" not in complaint] == []
    assert len([complaint for complaint in told if "TODO" in complaint]) > 5


def test_its_exercises_have_solutions_and_stubs(made, capsys):
    checks: dict[str, Any] = {}
    exec(made[1].read_text(encoding="utf-8"), checks)
    found = exercises(made[0])
    assert [number for number, _, _ in found] == [1, 2, 3]
    for number, check, name in found:
        assert verdict(capsys, checks[check], solution(made[0], number)[name]) == "✓ passed"
        assert "not attempted" in verdict(capsys, checks[check], stub(made[0], number)[name])


def test_it_has_a_row_in_the_readme(made):
    assert chapter_row(made[0]).startswith("| [43 · Language models](notebooks/43_language_models.ipynb) | ")


def test_its_code_is_in_style(made):
    for command in (["check"], ["format", "--check"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, f"--config={ROOT / 'pyproject.toml'}", *made],
            capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", ["language_models", "13_Language", "13", "13_a b", "../13_a"])
def test_another_name_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="name: expected two digits and words"):
        make_chapter(name, tmp_path)


def test_a_number_is_given_once(made, tmp_path):
    with pytest.raises(ValueError, match=r"there is 43_language_models\.ipynb"):
        make_chapter("43_other_models", tmp_path)
