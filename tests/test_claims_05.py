"""The claims of notebook 05 hold as stored, and fail where the peers' loss is switched off."""

import pytest
from faults import NOTEBOOKS, claims_under, surviving_claims

NOTEBOOK = NOTEBOOKS / "05_online_distillation.ipynb"

INDEPENDENT = {
    # Counted, whatever is learnt from it.
    "bytes counted: weights, after 50, 100 and 150 steps",
    "bytes counted: logits of every batch",
    # The work of two processes; the loss is a small part of it.
    "work of the busiest of two processes over that of one process",
    # Nulls: they say that there is no large gain.
    "tuned, mutual over alone: at most so many points, high end",
    "the same with 2,000 labels",
    "a wider peer: at most so many points, high end",
    # The lead of an ensemble that nobody taught.
    "tuned: two strangers' ensemble over one mutual peer, low end in points",
}


@pytest.mark.parametrize("fault", ["online.dml_loss zeroed"])
def test_no_claim_survives_without_what_it_speaks_of(fault):
    assert surviving_claims(NOTEBOOK, [fault]) <= INDEPENDENT


def test_every_claim_holds():
    assert all(claims_under(NOTEBOOK, "none").values())
