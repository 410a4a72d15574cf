"""The definitions in notebook 03 equal the library's, in value and gradient."""

import math

import pytest
import torch
from faults import NOTEBOOKS
from notebook_code import assert_same_loss, definition

from kdutils.losses import relation

NOTEBOOK = NOTEBOOKS / "03_relation_knowledge.ipynb"


def cases():
    """Student and teacher embeddings (N, D), (N, E), one of them with outliers."""
    generator = torch.Generator().manual_seed(0)
    for student_width, teacher_width, scale in ((2, 3, 1.0), (8, 128, 3.0), (5, 5, 0.1)):
        student = scale * torch.randn(12, student_width, generator=generator, dtype=torch.float64)
        student[0] *= 9
        yield student, torch.randn(12, teacher_width, generator=generator, dtype=torch.float64).relu() + 0.01


@pytest.mark.parametrize("name", ["rkd_distance_loss", "rkd_angle_loss", "sp_loss", "pkt_loss", "cc_loss"])
def test_written_out_equals_the_library(name):
    written_out = definition(NOTEBOOK, f"{name}_written_out", math=math)
    assert_same_loss(getattr(relation, name), written_out, cases())


def test_no_gradient_reaches_the_teacher_in_the_written_out_losses():
    for name in ("rkd_distance_loss", "rkd_angle_loss", "sp_loss", "pkt_loss", "cc_loss"):
        student, teacher = (tensor.requires_grad_() for tensor in next(cases()))
        definition(NOTEBOOK, f"{name}_written_out", math=math)(student, teacher).backward()
        assert student.grad is not None and teacher.grad is None


def test_recall_counts_the_nearest_other():
    recall_at_1 = definition(NOTEBOOK, "recall_at_1")
    embeddings = torch.tensor([[0.0], [1.0], [1.5], [9.0], [7.0]])
    labels = torch.tensor([0, 1, 1, 0, 0])
    # nearest: 0→1 (wrong), 1→2, 2→1, 3→4, 4→3
    assert recall_at_1(embeddings, labels) == pytest.approx(80)
    assert recall_at_1(embeddings, torch.arange(5)) == 0, "a picture was its own neighbour"
