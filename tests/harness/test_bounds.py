"""The bounds of the claims lie beyond what changes from one set of seeds to the next."""

import statistics

import bounds
import fault_runs
import pytest
from notebook_files import CHAPTERS

# The course's own seeds, and five others.
DRAWS = ["no network, no disk", *(f"seeds from {offset}" for offset in (1000, 2000, 3000, 4000, 5000))]
DEVIATIONS = 2.5
# Gains and costs that held in every draw and scatter widely. Their bounds cannot move further: beyond them
# lies what is left without the loss, or the claim says only which of two is ahead.
CLOSE = {
    "AT on top of KD, points",
    "AT in the middle over AT early, validation points",
    "hint in the middle over KD, points",
    "in pieces, soft over hard: mean, points",
    "wrong labels: PS-KD over label smoothing, points",
    "train mode: the company changes an answer by up to, logits",
}


def deviations_to_bound(values: list[float], bound: dict[str, float]) -> float:
    """From the mean of the values to the nearer bound, in standard deviations of the values."""
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    gaps = [(bound[side] - mean) * sign for side, sign in (("above", -1), ("below", 1)) if side in bound]
    return min(gaps) / deviation


def scattered(chapter) -> dict[str, float]:
    """Claim → deviations between its bound and what was measured; for claims that the seeds move."""
    runs, claims = fault_runs.kept_runs(chapter), bounds.claims_of(chapter)
    missing = [draw for draw in DRAWS if draw not in runs]
    if missing:
        raise fault_runs.NoRun(f"{chapter.stem} was not run under {missing}: make fault_runs NB={chapter}")
    found = {}
    for claim in runs[DRAWS[0]].values:
        values = [runs[draw].values[claim] for draw in DRAWS if claim in runs[draw].values]
        bound = next(now.bounds for now in claims if now.pattern.fullmatch(claim))
        if len(values) == len(DRAWS) and len(set(values)) > 1 and "equals" not in bound:
            found[claim] = deviations_to_bound(values, bound)
    return found


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_bounds_lie_beyond_the_scatter_between_sets_of_seeds(chapter):
    close = {claim: far for claim, far in scattered(chapter).items() if far < DEVIATIONS}
    assert set(close) <= CLOSE, close


def test_the_claims_listed_as_close_are_close():
    far = {claim: far for chapter in CHAPTERS for claim, far in scattered(chapter).items() if claim in CLOSE}
    assert set(far) == CLOSE
    assert max(far.values()) < DEVIATIONS


def test_deviations_are_counted_to_the_nearer_bound():
    values = [1.0, 2.0, 3.0]
    assert deviations_to_bound(values, {"above": 0.0}) == 2
    assert deviations_to_bound(values, {"below": 2.5}) == 0.5
    assert deviations_to_bound(values, {"above": 0.0, "below": 2.5}) == 0.5
    assert deviations_to_bound(values, {"above": 2.5}) == -0.5
