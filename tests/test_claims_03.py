"""The claims of notebook 03 fail where no relation is asked for, or the teacher has learned nothing."""

from faults import NOTEBOOKS, claims_under

NOTEBOOK = NOTEBOOKS / "03_relation_knowledge.ipynb"

GAINS = {
    "correlation with the teacher's distances, after minus before",
    "RKD over labels only, points",
    "RKD over labels only, low end of the interval",
    "SP over labels only, low end of the interval",
    "PKT over labels only, low end of the interval",
    "RKD over labels only stopped half-way, low end of the interval",
    "RKD over KD, points",
    "RKD from the blind teacher over labels only, low end of the interval",
}


def test_no_gain_survives_without_the_losses():
    outcomes = claims_under(NOTEBOOK, "losses zeroed")
    assert outcomes.keys() >= GAINS
    assert not [claim for claim in GAINS if outcomes[claim]]


def test_relations_of_an_untrained_teacher_are_worth_little():
    outcomes = claims_under(NOTEBOOK, "teacher untrained")
    assert not outcomes["RKD over labels only, points"]
