"""The definitions in notebook 01 equal the library's, in value and gradient."""

import torch
from faults import NOTEBOOKS
from notebook_code import assert_same_loss, definition

from kdutils.losses import kd_loss

NOTEBOOK = NOTEBOOKS / "01_response_knowledge.ipynb"
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
        student_logits, teacher_logits, 3.0
    )
    torch.testing.assert_close(loss_fn(lambda images: student_logits, None, labels, teacher_logits), expected)
