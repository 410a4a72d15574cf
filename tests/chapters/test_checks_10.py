"""The slips that the exercise checks of notebook 10 know are named."""

import pytest
import torch
from notebook_code import verdict

from kdutils.course.exercises import chapter10 as exercises


def by_channel(weight, positions):
    return weight.reshape(len(weight), -1, positions)


def other_channels(weight, kept, positions):
    others = [c for c in range(weight.shape[1] // positions) if c not in kept.tolist()]
    return by_channel(weight, positions)[:, others].reshape(len(weight), -1)


def zeroed(weight, kept, positions):
    masked = torch.zeros_like(by_channel(weight, positions))
    masked[:, kept] = by_channel(weight, positions)[:, kept]
    return masked.reshape(weight.shape)


SLIPS = {
    "a channel owned one column": lambda w, kept, positions: w[:, kept],
    "the channels changed fastest": lambda w, kept, positions: w.reshape(len(w), positions, -1)[
        :, :, kept
    ].reshape(len(w), -1),
    "the channels that go were kept": other_channels,
    "two dimensions back": lambda w, kept, positions: by_channel(w, positions)[:, kept],
    "zero, but still there": zeroed,
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_without_inputs_is_named(capsys, name):
    said = verdict(capsys, exercises.without_inputs, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (1 / 3, "the share that stays"),
        (0.5, "the positions alone"),
        (200 / 3, "a share between 0 and 1"),
        (0.8, "a position had 32 bits"),
        (0.1, "too low"),
        ("a third", "expected a number"),
    ],
)
def test_slip_in_the_break_even_is_named(capsys, attempt, said):
    answer = verdict(capsys, exercises.break_even_sparsity, attempt)
    assert answer.startswith("✗ not yet") and said in answer


@pytest.mark.parametrize("attempt", ["stages.0.0", "stages.1.0", "stages.1.3", "stages.2.3", "nonsense", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.sensitive_layer, attempt).startswith("✗ not yet")
