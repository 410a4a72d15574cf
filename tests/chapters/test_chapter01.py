"""Chapter 01: what the notebook writes out equals the library; its exercises name the usual slips."""

import pytest
import torch
import torch.nn.functional as F
from notebook_code import assert_same_loss, definition, verdict
from notebook_files import ROOT

from kdutils.course.exercises import chapter01 as exercises
from kdutils.losses import kd_loss

NOTEBOOK = ROOT / "notebooks" / "01_response_knowledge.ipynb"

# What the notebook writes out equals the library

GENERATOR = torch.Generator().manual_seed(0)
CASES = [tuple(3 * torch.randn(2, 16, 10, generator=GENERATOR, dtype=torch.float64)) for _ in range(3)]


def test_kd_loss_equals_both_rungs():
    for temperature in (1.0, 4.0, 20.0):
        for rung in ("kd_loss_vectorised", "kd_loss_written_out"):
            assert_same_loss(kd_loss, definition(NOTEBOOK, rung), CASES, temperature=temperature)


def test_distil_mixes_the_two_terms():
    student_logits, teacher_logits = CASES[0]
    labels = torch.arange(16) % 10
    loss_fn = definition(NOTEBOOK, "distil", kd_loss=kd_loss)(temperature=3.0, kd_weight=0.7)
    expected = 0.3 * torch.nn.functional.cross_entropy(student_logits, labels) + 0.7 * kd_loss(
        student_logits, teacher_logits, temperature=3.0
    )
    torch.testing.assert_close(loss_fn(lambda images: student_logits, None, labels, teacher_logits), expected)


# Exercises


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
