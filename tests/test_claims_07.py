"""The claims of notebook 07 fail where the loss is switched off, or where the teacher has learned nothing."""

from faults import NOTEBOOKS

NOTEBOOK = NOTEBOOKS / "07_smaller_student.ipynb"
# The second is for what a student inherits as weights, which does not pass through a loss.
FAULTS = ["losses zeroed", "teacher untrained"]

# What an architecture costs, and what a copy of everything is, whatever was learned.
COSTS = {
    "five layers, width 16 over width 2: MACs, times",
    "five layers, width 16 over width 2: latency, times",
    "width 2, five layers over two: latency, times",
    "MACs of five layers of width 8, by hand",
    "five layers of width 8 over three of 16: MACs, times",
    "the same: latency, times",
    "everything copied: logits, largest difference",
}
# How much a network of a size can fit, whoever wrote the answers.
CAPACITY = {"agreement in training, largest over smallest, points"}
# Differences said to be small: so they are without a loss.
NULLS = {
    "gain of the student of 496 parameters: mean, points",
    "the same: accuracy, distilled: mean, points",
    "the assistant over the teacher: mean, points",
}


def test_no_claim_of_a_gain_survives_without_loss_and_teacher(survivors):
    assert survivors <= COSTS | CAPACITY | NULLS
    assert survivors >= COSTS  # the notebook did run under the faults


def test_every_claim_of_distillation_falls_without_the_loss(outcomes):
    distilled = {
        "width 16 gains more than width 2: mean, points",
        "mean gain of the nine students, points",
        "gain of five layers of width 16: mean, points",
        "the best distilled student over the best on labels, points",
    }
    assert distilled <= outcomes["losses zeroed"].keys()
    assert not any(outcomes["losses zeroed"][claim] for claim in distilled)
