"""The definitions in notebook 12 equal the library's, in value and gradient, with padding and without."""

import torch
from faults import NOTEBOOKS
from notebook_code import assert_same_loss, definition

from kdutils.losses import hidden_cosine_loss, kd_loss, token_kd_loss

NOTEBOOK = NOTEBOOKS / "12_distilbert_case_study.ipynb"
GENERATOR = torch.Generator().manual_seed(0)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
CASES = [
    (*(3 * torch.randn(2, 3, 5, 7, generator=GENERATOR, dtype=torch.float64)), mask)
    for mask in (MASK, torch.ones_like(MASK), MASK.bool())
]


def test_hidden_cosine_loss_equals_its_rung():
    assert_same_loss(hidden_cosine_loss, definition(NOTEBOOK, "hidden_cosine"), CASES)


def test_token_kd_loss_equals_its_rung():
    for temperature in (1.0, 2.0, 5.0):
        assert_same_loss(
            token_kd_loss, definition(NOTEBOOK, "token_kd", kd_loss=kd_loss), CASES, temperature=temperature
        )


def test_rungs_send_no_gradient_to_the_teacher():
    for name in ("hidden_cosine", "token_kd"):
        student, teacher, mask = (t.clone() for t in CASES[0])
        student.requires_grad_(), teacher.requires_grad_()
        definition(NOTEBOOK, name, kd_loss=kd_loss)(student, teacher, mask).backward()
        assert teacher.grad is None and student.grad.abs().max() > 0
