"""The slips that the exercise checks of notebook 12 know are named."""

import pytest
import torch
import torch.nn.functional as F
from notebook_code import verdict

from kdutils.course.exercises import chapter12 as exercises


def right(s, t, mask):
    return F.mse_loss(s[mask == 1], t.detach()[mask == 1])


SLIPS = {
    "padding counts, too": lambda s, t, mask: F.mse_loss(s, t.detach()),
    "also runs over the padding": lambda s, t, mask: F.mse_loss(
        s * mask.unsqueeze(2), t.detach() * mask.unsqueeze(2)
    ),
    "added up over the width": lambda s, t, mask: right(s, t, mask) * s.shape[2],
    "kept tokens are not averaged": lambda s, t, mask: right(s, t, mask) * mask.sum(),
    "every sentence weighs the same": lambda s, t, mask: torch.stack(
        [right(s[n : n + 1], t[n : n + 1], mask[n : n + 1]) for n in range(len(s))]
    ).mean(),
    "the words were left out": lambda s, t, mask: right(s, t, 1 - mask),
    "the teacher learns": lambda s, t, mask: F.mse_loss(s[mask == 1], t[mask == 1]),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_hidden_mse_is_named(capsys, name):
    said = verdict(capsys, exercises.hidden_mse, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (100 * (302.3 / 2) / 335.1, "the pooler stayed"),
        (50.15, "halved, too"),
        (54.6, "what is left"),
        (50, "only the layers"),
        (0.454, "a fraction"),
        (40, "too low"),
    ],
)
def test_slip_in_the_larger_bert_is_named(capsys, attempt, said):
    answer = verdict(capsys, exercises.saved_of_large, attempt)
    assert answer.startswith("✗ not yet") and said in answer


@pytest.mark.parametrize(("attempt", "said"), [("3 %", "guessing included"), ("about 3 points", "divided")])
def test_slip_in_what_is_lost_is_named(capsys, attempt, said):
    answer = verdict(capsys, exercises.lost_above_chance, attempt)
    assert answer.startswith("✗ not yet") and said in answer
