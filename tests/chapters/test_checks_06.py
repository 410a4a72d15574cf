"""The slips that the exercise checks of notebook 06 know are named."""

import pytest
import torch.nn.functional as F
from notebook_code import verdict

from kdutils.course.exercises import chapter06 as exercises


def targets(logits, labels, label_share, other_share):
    onehot = F.one_hot(labels, logits.shape[1])
    return label_share * onehot + other_share * (1 - onehot)


def against(targets, logits):
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def right(z, y, s):
    return F.cross_entropy(z, y, label_smoothing=s)


SLIPS = {
    "among the other classes only": lambda z, y, s: against(targets(z, y, 1 - s, s / (z.shape[1] - 1)), z),
    "the uniform distribution is missing": lambda z, y, s: against(targets(z, y, 1 - s, 0), z),
    "swapped": lambda z, y, s: against(targets(z, y, s + (1 - s) / z.shape[1], (1 - s) / z.shape[1]), z),
    "every class gets `smoothing`": lambda z, y, s: against(targets(z, y, 1, s), z),
    "sum to more than one": lambda z, y, s: against(targets(z, y, 1 + s / z.shape[1], s / z.shape[1]), z),
    "the labels are not smoothed": lambda z, y, s: F.cross_entropy(z, y),
    "the mean also runs over the classes": lambda z, y, s: right(z, y, s) / z.shape[1],
    "not divided by N": lambda z, y, s: right(z, y, s) * len(y),
    "the minus sign is missing": lambda z, y, s: -right(z, y, s),
    "probabilities stand where log-probabilities belong": lambda z, y, s: (
        -(targets(z, y, 1 - s + s / z.shape[1], s / z.shape[1]) * F.softmax(z, dim=1)).sum(dim=1).mean()
    ),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_smoothed_cross_entropy_is_named(capsys, name):
    said = verdict(capsys, exercises.smoothed_cross_entropy, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (25.0, "added up"),
        (130 / 3, "equally often"),
        (205, "ten images"),
        (10.5, "leave early"),
        (1, "too low"),
    ],
)
def test_slip_in_the_bill_is_named(capsys, attempt, said):
    answer = verdict(capsys, exercises.mean_cost, attempt)
    assert answer.startswith("✗ not yet") and said in answer


@pytest.mark.parametrize(
    "attempt",
    ["zero", "the gradient of the labels alone", "pointing to softer answers", "nonsense", 3],
)
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.present_teacher, attempt).startswith("✗ not yet")
