"""The claims of notebook 06 fail where its losses are zeroed. There is no trained teacher to be faulty."""

from faults import NOTEBOOKS

NOTEBOOK = NOTEBOOKS / "06_self_distillation.ipynb"
FAULTS = ["losses zeroed"]

# What exits save and cost, and what more labels bring them: no distillation enters.
EXITS = {
    "threshold 0.7 over the whole network, points",
    "threshold 0.7: mean cost, percent of the network's",
    "time up to the first exit, batch 1, percent of the network's",
    "that is more than its share of the MACs, times",
    "leaving early: mean cost, dearest seed, percent of the network's",
    "leaving early: accuracy lost, points",
    "leaving early over exit 2, points",
    "10,000 labels: exit 3 gains, low end in points",
    "10,000 labels: gain of exit 3 minus gain of exit 1, points",
}
# Nulls: without the loss, too, there is no gain. They fail for a loss that helps or harms.
NULLS = {f"exit {n}: the deepest as a teacher adds next to nothing, points" for n in (1, 2, 3)}
# Label smoothing and an ensemble of independent networks are PyTorch's cross-entropy alone. With children
# that stay untrained the family's answer is its eldest's: strangers are about as good as that, or better.
LABELS_ALONE = {
    "three strangers over one, points",
    "three strangers over three generations, points",
    "label smoothing over labels only, points",
    "labels only: confidence above accuracy, points",
    "label smoothing: confidence below accuracy, points",
    "labels only: wrong labels repeated, percent",
    "wrong labels: stopping at half time over labels only, points",
}
# A gradient that the detached teacher does not get, zeroed or not.
CLOSED_FORMS = {"and leaves the deepest alone"}


def test_no_claim_of_a_gain_survives_losses_that_are_zeroed(survivors):
    assert survivors <= EXITS | NULLS | LABELS_ALONE | CLOSED_FORMS
    assert survivors >= CLOSED_FORMS  # the notebook did run under the fault
