"""The bounds of the claims lie beyond what changes from one set of seeds to the next (weekly runs)."""

import ast
import statistics

import claims
import pytest
from notebook_files import CHAPTERS
from weekly import weekly_runs

# The course's own seeds, and five others.
DRAWS = ["no network, no disk", *(f"seeds from {offset}" for offset in (1000, 2000, 3000, 4000, 5000))]
DEVIATIONS = 2.4
# Of a claim whose bound cannot move further: beyond it lies what is left without the loss, or the claim says
# only which of two is ahead.
DEVIATIONS_WHERE_FIXED = 1.5


def deviations_to_bound(values: list[float], bound: dict[str, float]) -> float:
    """From the mean of the values to the nearer bound, in standard deviations of the values."""
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    gaps = [(bound[side] - mean) * sign for side, sign in (("above", -1), ("below", 1)) if side in bound]
    return min(gaps) / deviation


def asked_for(claim: claims.Claim) -> float:
    """How many deviations the bound of a claim has to be away."""
    is_fixed = claim.rests_on or 0 in claim.bounds.values()
    return DEVIATIONS_WHERE_FIXED if is_fixed else DEVIATIONS


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_bounds_lie_beyond_the_scatter_between_sets_of_seeds(chapter):
    runs, made = weekly_runs(chapter, DRAWS), claims.claims_of(chapter)
    measured = [runs[draw].outcome.values for draw in DRAWS]
    close = {}
    for words in measured[0]:
        values = [draw[words] for draw in measured if words in draw]
        claim = claims.claim_for(words, made)
        if len(values) == len(DRAWS) and len(set(values)) > 1 and "equals" not in claim.bounds:
            far = deviations_to_bound(values, claim.bounds)
            close |= {words: far} if far < asked_for(claim) else {}
    assert close == {}


def test_deviations_are_counted_to_the_nearer_bound():
    values = [1.0, 2.0, 3.0]
    assert deviations_to_bound(values, {"above": 0.0}) == 2
    assert deviations_to_bound(values, {"below": 2.5}) == 0.5
    assert deviations_to_bound(values, {"above": 0.0, "below": 2.5}) == 0.5
    assert deviations_to_bound(values, {"above": 2.5}) == -0.5


@pytest.mark.parametrize(
    "call, deviations",
    [
        ('check("a cost, times", x, above=3)', DEVIATIONS),
        ('check("a gain, points", x, above=3, rests_on="teacher")', DEVIATIONS_WHERE_FIXED),
        ('check("one over the other, points", x, above=0)', DEVIATIONS_WHERE_FIXED),
    ],
)
def test_a_bound_that_cannot_move_further_may_lie_closer(call, deviations):
    assert asked_for(claims.claim_of(ast.parse(call).body[0].value)) == deviations
