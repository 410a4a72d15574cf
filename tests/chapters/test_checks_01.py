"""The slips that the exercise checks of notebook 01 know are named."""

import pytest
import torch.nn.functional as F
from notebook_code import verdict

from kdutils.course.exercises import chapter01 as exercises


def log_p(logits, temperature):
    return F.log_softmax(logits / temperature, dim=-1)


SLIPS = {
    "T² is missing": lambda s, t, T: F.kl_div(
        log_p(s, T), log_p(t, T).detach(), log_target=True, reduction="batchmean"
    ),
    "T stands where T² belongs": lambda s, t, T: (
        T * F.kl_div(log_p(s, T), log_p(t, T).detach(), log_target=True, reduction="batchmean")
    ),
    "the mean also runs over the classes": lambda s, t, T: (
        T**2 * F.kl_div(log_p(s, T), log_p(t, T).detach(), log_target=True, reduction="none").mean()
    ),
    "not divided by N": lambda s, t, T: (
        T**2 * F.kl_div(log_p(s, T), log_p(t, T).detach(), log_target=True, reduction="sum")
    ),
    "swapped": lambda s, t, T: (
        T**2 * F.kl_div(log_p(t, T), log_p(s, T).detach(), log_target=True, reduction="batchmean")
    ),
    "the teacher learns too": lambda s, t, T: (
        T**2 * F.kl_div(log_p(s, T), log_p(t, T), log_target=True, reduction="batchmean")
    ),
    "the student does not learn": lambda s, t, T: (
        T**2 * F.kl_div(log_p(s, T).detach(), log_p(t, T).detach(), log_target=True, reduction="batchmean")
    ),
    "probabilities stand where kl_div expects log-probabilities": lambda s, t, T: (
        T**2 * F.kl_div(log_p(s, T).exp(), log_p(t, T).exp().detach(), reduction="batchmean")
    ),
    "log_target=True": lambda s, t, T: (
        T**2 * F.kl_div(log_p(s, T), log_p(t, T).detach(), reduction="batchmean")
    ),
    "on both sides": lambda s, t, T: (
        T**2 * F.kl_div(log_p(t, T), log_p(t, T).detach(), log_target=True, reduction="batchmean")
        + 0 * s.sum()
    ),
    "only the student is softened": lambda s, t, T: (
        T**2 * F.kl_div(log_p(s, T), log_p(t, 1).detach(), log_target=True, reduction="batchmean")
    ),
    "only the teacher is softened": lambda s, t, T: (
        T**2 * F.kl_div(log_p(s, 1), log_p(t, T).detach(), log_target=True, reduction="batchmean")
    ),
    "over the batch": lambda s, t, T: (
        T**2
        * F.kl_div(
            F.log_softmax(s / T, dim=0),
            F.log_softmax(t / T, dim=0).detach(),
            log_target=True,
            reduction="batchmean",
        )
    ),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_soft_loss_is_named(capsys, name):
    said = verdict(capsys, exercises.soft_loss, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(("attempt", "said"), [(1 / 3, "wrong one"), (4.0, "subtracted"), (3**0.5, "T²")])
def test_slip_in_ratio_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.ratio_temperature, attempt)


@pytest.mark.parametrize(
    "attempt",
    ["the same as labels only", "slightly below labels only", "better than labels only", "nonsense", 3],
)
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.permuted_teacher, attempt).startswith("✗ not yet")
