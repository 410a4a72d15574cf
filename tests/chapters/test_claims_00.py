"""The claims of notebook 00 fail where distillation is switched off, or where all networks are one."""

from faults import NOTEBOOKS

NOTEBOOK = NOTEBOOKS / "00_why_distill.ipynb"
FAULTS = ["kd_loss zeroed", "one network for all"]

GAINS = {
    "distilled over labels only, points, lower end of the interval",
    "distilled over labels only, points, mean",
}
# Two clock readings of a machine that runs two notebooks at once say nothing about a fault.
TIMES = {"teacher over student, latency at batch 1", "teacher over student, latency at batch 256"}
# Arithmetic on paper, which no training enters.
ON_PAPER = {
    "the weights in fp32, GB",
    "the weights in fp32 over those 570 GB of text",
    "175 billion parameters in int4, over one GPU's memory",
}


def test_gains_fail_without_the_distillation_loss(outcomes):
    outcomes = outcomes["kd_loss zeroed"]
    assert {claim for claim, holds in outcomes.items() if not holds} - TIMES == GAINS


def test_every_claim_fails_where_teacher_and_students_are_one_network(outcomes):
    outcomes = outcomes["one network for all"]
    assert {claim for claim, holds in outcomes.items() if holds} - TIMES == ON_PAPER
    assert set(outcomes) > GAINS | ON_PAPER
