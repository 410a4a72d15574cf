"""The claims of notebook 06 fail where its losses are zeroed. There is no trained teacher to be faulty."""

from faults import NOTEBOOKS, surviving_claims

NOTEBOOK = NOTEBOOKS / "06_self_distillation.ipynb"

# What exits save and cost, with labels at every exit: no distillation enters.
EXITS = {
    "time up to the first exit, batch 1, percent of the network's",
    "that is more than its share of the MACs, times",
    "leaving early: mean cost, dearest seed, percent of the network's",
    "leaving early: accuracy lost, points",
    "what early exits cost the last one, points gained",
}
# Nulls: without the loss, too, there is no gain. They fail for a loss that helps or harms.
NULLS = {
    *(f"exit {n}: the deepest as a teacher adds next to nothing, points" for n in (1, 2, 3)),
    "Tf-KD: calibration error added, points",
}
# Label smoothing and an ensemble of independent networks are PyTorch's cross-entropy alone.
LABELS_ALONE = {
    "three strangers over one network, low end in points",
    "label smoothing over labels only, low end in points",
    "label smoothing over labels only, mean in points",
    "label smoothing: calibration error added, low end in points",
}
# A gradient that the detached teacher does not get, zeroed or not.
CLOSED_FORMS = {"and leaves the deepest alone"}


def test_no_claim_of_a_gain_survives_losses_that_are_zeroed():
    survivors = surviving_claims(NOTEBOOK, ["losses zeroed"])
    assert survivors <= EXITS | NULLS | LABELS_ALONE | CLOSED_FORMS
