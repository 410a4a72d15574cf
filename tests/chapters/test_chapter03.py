"""Chapter 03: what the notebook writes out equals the library; its exercises name the usual slips."""

import math

import pytest
import torch
import torch.nn.functional as F
from notebook_code import assert_same_loss, definition, solution, verdict
from notebook_files import ROOT

from kdutils.course.exercises import chapter03 as exercises
from kdutils.losses import relation

NOTEBOOK = ROOT / "notebooks" / "03_relation_knowledge.ipynb"

# What the notebook writes out equals the library


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


def test_info_nce_written_out_equals_the_library():
    written_out = definition(NOTEBOOK, "info_nce_loss_written_out")
    embeddings = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_same_loss(relation.info_nce_loss, written_out, [tuple(embeddings)])


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
    assert recall_at_1(embeddings, torch.arange(5)) == 0, "an image was its own neighbor"


# Exercises


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


def quiz(student, memory, own, temperature=0.1, unit=("student", "memory"), average=True):
    """The third exercise as a reader may write it, with room for the slips."""
    student = student / student.norm(dim=1, keepdim=True) if "student" in unit else student
    memory = memory / memory.norm(dim=1, keepdim=True) if "memory" in unit else memory
    log_shares = (student @ memory.T / temperature).log_softmax(dim=1)
    right = log_shares[torch.arange(len(student)), own]
    return -right.mean() if average else -right.sum()


QUIZ_SLIPS = {
    "the place in the batch": lambda s, m, own: quiz(s, m.detach(), torch.arange(len(s))),
    "only the batch's own rows": lambda s, m, own: quiz(s, m.detach()[own], torch.arange(len(s))),
    "the temperature is missing": lambda s, m, own: quiz(s, m.detach(), own, temperature=1.0),
    "multiplied by the temperature": lambda s, m, own: quiz(s, m.detach(), own, temperature=10.0),
    "nothing is scaled": lambda s, m, own: quiz(s, m.detach(), own, unit=()),
    "only the student is scaled": lambda s, m, own: quiz(s, m.detach(), own, unit=("student",)),
    "only the memory is scaled": lambda s, m, own: quiz(s, m.detach(), own, unit=("memory",)),
    "not divided by N": lambda s, m, own: quiz(s, m.detach(), own, average=False),
    "the memory learns too": quiz,
    "the sign is wrong": lambda s, m, own: -quiz(s, m.detach(), own),
}


@pytest.mark.parametrize("name", QUIZ_SLIPS)
def test_slip_in_the_quiz_is_named(capsys, name):
    said = verdict(capsys, exercises.quiz_with_memory, QUIZ_SLIPS[name])
    assert said.startswith("✗ not yet: looks as if") and name in said


def test_another_way_to_write_the_quiz_passes(capsys):
    assert verdict(capsys, exercises.quiz_with_memory, lambda s, m, own: quiz(s, m.detach(), own)).startswith(
        "✓ passed"
    )


def test_with_the_batch_as_its_memory_the_printed_quiz_is_the_librarys():
    written_out = solution(NOTEBOOK, 3)["quiz_with_memory"]
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    own = torch.arange(7)
    assert_same_loss(relation.info_nce_loss, lambda s, t: written_out(s, t, own), [(student, teacher)])
