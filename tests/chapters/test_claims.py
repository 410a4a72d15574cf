"""A claim that rests on distillation, on the teacher or on a formula fails where that is taken away."""

import ast

import claims
import fault_runs
import faults
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import CHAPTERS, write
from weekly import weekly_runs

every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)


@every_chapter
def test_no_claim_is_left_standing_without_what_it_rests_on(chapter):
    for fault in fault_runs.asked_for(chapter):
        outcome = fault_runs.run_under(chapter, fault)
        assert outcome.reached, fault
        assert claims.left_standing(fault, outcome.claims, claims.claims_of(chapter)) == []


@every_chapter
def test_a_chapter_rests_some_claim_on_distillation_and_on_the_teacher_that_it_loads(chapter):
    marks = {claim.rests_on for claim in claims.claims_of(chapter)}
    assert marks & {"distillation", "teacher"}
    if "teacher" in marks:
        assert faults.can_reach(chapter, "classes permuted")


@every_chapter
@pytest.mark.parametrize("fault", claims.HAS_TO_FAIL["formula"])
def test_what_is_said_of_the_formula_fails_where_the_loss_has_another_scale(chapter, fault):
    made = claims.claims_of(chapter)
    if any(claim.rests_on == "formula" for claim in made):
        outcome = weekly_runs(chapter, [fault])[fault].outcome
        assert claims.left_standing(fault, outcome.claims, made) == []


# Each of these can fail

CELL = """
check("a gain, points", gain, above=1, rests_on="distillation")
for n in range(2):
    check(f"gain of {n}, points", gain, above=1, rests_on="teacher")
check("a cost, times", cost, above=1)
"""


@pytest.fixture
def made(tmp_path):
    return claims.claims_of(write(new_notebook(cells=[new_code_cell(CELL)]), tmp_path / "01_small.ipynb"))


FAILED = {
    "a gain, points": False,
    "gain of 0, points": False,
    "gain of 1, points": False,
    "a cost, times": True,
}


def test_all_is_well_where_every_marked_claim_fails(made):
    assert claims.left_standing("losses zeroed", FAILED, made) == []
    assert claims.left_standing("classes permuted", FAILED | {"a gain, points": True}, made) == []


@pytest.mark.parametrize("fault", fault_runs.REQUIRED)
def test_one_that_holds_is_named_among_the_instances_of_a_loop(made, fault):
    outcome = FAILED | {"gain of 1, points": True}
    assert claims.left_standing(fault, outcome, made) == ["gain of 1, points"]


def test_one_that_the_run_never_came_to_is_named(made):
    """An error in an earlier cell proves nothing about a claim."""
    outcome = {words: holds for words, holds in FAILED.items() if words != "a gain, points"}
    (complaint,) = claims.left_standing("losses zeroed", outcome, made)
    assert complaint.startswith("never made: a\\ gain")


def test_a_claim_whose_words_are_computed_rests_on_nothing():
    (call,) = (
        node
        for node in ast.walk(ast.parse('check(words, 1, above=0, rests_on="teacher")'))
        if claims.is_claim(node)
    )
    with pytest.raises(ValueError, match="rests_on: expected words that stand in the call"):
        claims.claim_of(call)
