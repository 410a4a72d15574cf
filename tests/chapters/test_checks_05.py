"""The slips that the exercise checks of notebook 05 know are named."""

import itertools

import pytest
import torch.nn.functional as F
from notebook_code import verdict

from kdutils.course.exercises import chapter05 as exercises


def divergence(own, other):
    """KL(other ‖ own)."""
    log_q, log_p = F.log_softmax(own, dim=1), F.log_softmax(other, dim=1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def hard(logits, labels):
    return sum(F.cross_entropy(own, labels) for own in logits)


def mutual(logits, pair_loss=lambda own, other: divergence(own, other.detach())):
    return sum(pair_loss(own, other) for own, other in itertools.permutations(logits, 2))


SLIPS = {
    "summed over the other peers": lambda z, y: hard(z, y) + mutual(z),
    "counts the peer itself": lambda z, y: hard(z, y) + mutual(z) / len(z),
    "the other peers learn too": lambda z, y: hard(z, y) + mutual(z, divergence) / (len(z) - 1),
    "swapped": lambda z, y: (
        hard(z, y) + mutual(z, lambda own, other: divergence(other.detach(), own)) / (len(z) - 1)
    ),
    "the labels are missing": lambda z, y: mutual(z) / (len(z) - 1),
    "only the labels count": hard,
    "the cohort's mean": lambda z, y: (hard(z, y) + mutual(z) / (len(z) - 1)) / len(z),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_cohort_loss_is_named(capsys, name):
    said = verdict(capsys, exercises.cohort_loss, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (1e6 / 10, "the batch was forgotten"),
        (1e6 / 128, "the classes were forgotten"),
        (4e6 / 1280, "the weights were counted in bytes"),
        (1e6 / 5120, "the logits in bytes"),
        (500, "too low"),
    ],
)
def test_slip_in_break_even_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.break_even, attempt)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [("it grows", "err differently"), ("it stays", "disagree"), ("so what", "expected one")],
)
def test_wrong_choice_is_answered(capsys, attempt, said):
    answer = verdict(capsys, exercises.heavy_weight, attempt)
    assert answer.startswith("✗ not yet") and said in answer
