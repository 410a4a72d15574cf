"""The claims of notebook 05 fail where the peers' losses are switched off."""

from faults import NOTEBOOKS

NOTEBOOK = NOTEBOOKS / "05_online_distillation.ipynb"
FAULTS = ["losses zeroed"]

# Written out in the notebook, without the library's loss.
CLOSED_FORMS = {"the second rung on the image above"}
# Counted or caused, whatever is learnt from it.
COUNTED = {
    "bytes counted: weights, after 50, 100 and 150 steps",
    "bytes counted: logits of every batch",
    "peers that the report calls killed by signal 9",
    # The work of two processes, of which the loss is a small part.
    "work of the busiest of two processes over that of one process",
}
# Said to bring no large gain: so it does without a loss as well.
NULLS = {
    "tuned, mutual over alone: at most so many points, high end",
    "tuned, taught by the ensemble over alone: at most so many points, mean",
    "a wider peer: at most so many points, high end",
}
# The lead of an ensemble that nobody taught.
UNTAUGHT = {
    "tuned: two strangers' ensemble over one mutual peer, low end in points",
    "own images: two strangers' ensemble over a taught peer, mean in points",
}


def test_no_claim_of_a_gain_survives_without_the_losses(survivors):
    assert survivors <= CLOSED_FORMS | COUNTED | NULLS | UNTAUGHT
    assert survivors >= CLOSED_FORMS | UNTAUGHT  # the notebook did run under the fault
