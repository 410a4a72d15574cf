"""The claims of notebook 04 fail where the students' loss is switched off."""

from faults import NOTEBOOKS

NOTEBOOK = NOTEBOOKS / "04_offline_distillation.ipynb"
FAULTS = ["losses zeroed"]

# What asking a teacher costs, and what becomes of it in training mode, whatever a student learns from it.
COSTS = {
    "a cached step takes so many times a step on labels only",
    "a live step takes so many times a cached one",
    "the losses of the first ten steps, cached and live, differ at most by",
    "asked in training mode the teacher loses, points",
    "and part of the damage stays, points",
    "bytes of the top 3 of this pool",
}
# About teachers that learned from labels, before any student does.
TEACHERS = {
    "this teacher, which never trained on crops, loses on them, points",
    "the large teacher's own lead over the medium ones, points",
    "the mean of three teachers is better than one of them, points",
}
# Differences said to be small, or a student said to stay at chance: so they are without a loss.
NULLS = {
    "half precision over the whole cache, points",
    "top 3 over the whole cache, points",
    "accuracy: same crop over original, points",
    "noise: accuracy, %",
    "the lead of its students: mean, points",
    "the student of three over the student of one, points",
    "stopped early over trained to the end, points",
    "assistant over large, points",
    "assistant over medium, points",
}


def test_no_claim_of_a_gain_survives_without_the_losses(survivors):
    assert survivors <= COSTS | TEACHERS | NULLS
    assert survivors >= TEACHERS  # the notebook did run under the fault
