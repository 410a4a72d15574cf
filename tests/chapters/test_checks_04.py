"""The slips that the exercise checks of notebook 04 know are named."""

import pytest
import torch
import torch.nn.functional as F
from notebook_code import verdict

from kdutils.course.exercises import chapter04 as exercises


def each(list_of_logits, function):
    return torch.stack([function(logits) for logits in list_of_logits])


SLIPS = {
    "the logits were averaged": lambda teachers, T: (sum(teachers) / len(teachers) / T).softmax(dim=-1),
    "the temperature is missing": lambda teachers, T: each(teachers, lambda z: z.softmax(dim=-1)).mean(dim=0),
    "multiplied by T": lambda teachers, T: each(teachers, lambda z: (T * z).softmax(dim=-1)).mean(dim=0),
    "the average was softened": lambda teachers, T: (
        each(teachers, lambda z: z.softmax(dim=-1)).mean(dim=0) / T
    ).softmax(dim=-1),
    "added up": lambda teachers, T: sum((z / T).softmax(dim=-1) for z in teachers),
    "over the batch": lambda teachers, T: each(teachers, lambda z: (z / T).softmax(dim=0)).mean(dim=0),
    "over the teachers": lambda teachers, T: (torch.stack(list(teachers)) / T).softmax(dim=0).mean(dim=0),
    "log-probabilities were averaged": lambda teachers, T: each(
        teachers, lambda z: F.log_softmax(z / T, dim=-1)
    ).mean(dim=0),
    "the logarithm of the mean": lambda teachers, T: torch.log(
        each(teachers, lambda z: (z / T).softmax(dim=-1)).mean(dim=0)
    ),
    "only the first teacher": lambda teachers, T: (teachers[0] / T).softmax(dim=-1),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_ensemble_targets_is_named(capsys, name):
    said = verdict(capsys, exercises.ensemble_targets, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (18, "places were forgotten"),
        (32, "rest was forgotten"),
        (16, "places and the rest"),
        (26, "one byte"),
        (2000, "all 1000"),
        (272, "bits"),
        (17, "numbers were counted"),
        (52, "single precision"),
    ],
)
def test_slip_in_the_cache_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.cache_mb, attempt)


@pytest.mark.parametrize(
    "attempt", ["about a tenth, as by chance", "about half", "nearly all", "nonsense", 3]
)
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.shoes_from_tops, attempt).startswith("✗ not yet")
