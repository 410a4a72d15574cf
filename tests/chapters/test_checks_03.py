"""The slips that the exercise checks of notebook 03 know are named."""

import pytest
import torch.nn.functional as F
from notebook_code import verdict

from kdutils.course.exercises import chapter03 as exercises


@pytest.mark.parametrize("attempt", ["it shrinks", "it stays", "nonsense", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.wider_embedding, attempt).startswith("✗ not yet")


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (1 / 144, "counted once"),
        (1 / 48, "diagonal"),
        (1 / 36, "half of smooth L1"),
        (13 / 9, "divided by their mean"),
        (1 / 9, "not squared"),
        (0.0, "too low"),
    ],
)
def test_slip_on_the_line_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.points_on_a_line, attempt)


def centred(x):
    return x - x.mean(dim=0)


def rows(x, p=2):
    return F.normalize(x @ x.T, p=p, dim=1)


def mean_square(s, t):
    return (s - t.detach()).square().mean()


def unit(x):
    directions = F.normalize(centred(x), dim=1)
    return directions @ directions.T


SLIPS = {
    "nothing is centred": lambda s, t: mean_square(rows(s), rows(t)),
    "only the student is centred": lambda s, t: mean_square(rows(centred(s)), rows(t)),
    "only the teacher is centred": lambda s, t: mean_square(rows(s), rows(centred(t))),
    "each sample's own mean": lambda s, t: mean_square(
        rows(s - s.mean(1, keepdim=True)), rows(t - t.mean(1, keepdim=True))
    ),
    "one number": lambda s, t: mean_square(rows(s - s.mean()), rows(t - t.mean())),
    "not scaled to length one": lambda s, t: mean_square(
        centred(s) @ centred(s).T, centred(t) @ centred(t).T
    ),
    "L1": lambda s, t: mean_square(rows(centred(s), p=1), rows(centred(t), p=1)),
    "the embeddings are scaled": lambda s, t: mean_square(unit(s), unit(t)),
    "divided by N, not by N²": lambda s, t: (
        (rows(centred(s)) - rows(centred(t)).detach()).square().sum(dim=1).mean()
    ),
    "the sum is not divided by N²": lambda s, t: (
        (rows(centred(s)) - rows(centred(t)).detach()).square().sum()
    ),
    "the teacher learns too": lambda s, t: (rows(centred(s)) - rows(centred(t))).square().mean(),
    "swapped": lambda s, t: mean_square(rows(centred(t)), rows(centred(s))),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_centred_sp_loss_is_named(capsys, name):
    said = verdict(capsys, exercises.centered_sp_loss, SLIPS[name])
    assert said.startswith("✗ not yet: looks as if") and name in said
