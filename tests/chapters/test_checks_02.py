"""The slips that the exercise checks of notebook 02 know are named."""

import pytest
import torch
import torch.nn.functional as F
from notebook_code import verdict

from kdutils.course.exercises import chapter02 as exercises


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (14 * 14, "smaller map grows"),
        (16 * 49, "student's channels"),
        (32 * 49, "teacher's channels"),
        (32 * 14 * 14, "nothing"),
        (7, "height times width"),
        (50, "too high"),
    ],
)
def test_slip_in_the_count_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.compared_numbers, attempt)


def patterns(features, dim=2):
    return F.normalize(features.flatten(2), dim=dim)


def kernel(a, b, power=2):
    return torch.einsum("nip,njp->nij", a, b).pow(power)


def reader_loss(s, t, own_s=1, own_t=1, mixed=-2, power=2, average=torch.mean):
    """The exercise as a reader may write it, with room for the slips."""
    return (
        own_s * average(kernel(s, s, power))
        + own_t * average(kernel(t, t, power))
        + mixed * average(kernel(s, t, power))
    )


SLIPS = {
    "not scaled to length one": lambda s, t: reader_loss(s.flatten(2), t.flatten(2).detach()),
    "scaled over the channels": lambda s, t: reader_loss(patterns(s, 1), patterns(t, 1).detach()),
    "the kernel is not squared": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), power=1),
    "factor 2 of the mixed term": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), mixed=-1),
    "it is subtracted": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), mixed=2),
    "the student's own patterns": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), own_s=0),
    "the teacher's own patterns": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), own_t=0),
    "not divided by N": lambda s, t: reader_loss(
        patterns(s), patterns(t).detach(), average=lambda k: k.mean(dim=(1, 2)).sum()
    ),
    "the teacher learns too": lambda s, t: reader_loss(patterns(s), patterns(t)),
    "swapped": lambda s, t: reader_loss(patterns(t), patterns(s).detach()),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_nst_loss_is_named(capsys, name):
    said = verdict(capsys, exercises.nst_loss_written_out, SLIPS[name])
    assert said.startswith("✗ not yet: looks as if") and name in said


def test_another_mistake_in_nst_loss_is_not_passed(capsys):
    said = verdict(capsys, exercises.nst_loss_written_out, lambda s, t: (s.mean() - t.detach().mean()) ** 2)
    assert said.startswith("✗ not yet") and "looks as if" not in said


@pytest.mark.parametrize("attempt", ["more positions decide", "nothing, the length is one", "nonsense", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.effect_of_p, attempt).startswith("✗ not yet")
