"""Chapter 01: what the notebook writes out equals the library; its exercises name the usual slips."""

import pytest
import torch
import torch.nn.functional as F
from notebook_code import assert_same_loss, definition, verdict
from notebook_files import ROOT

from kdutils.course.exercises import chapter01 as exercises
from kdutils.losses import dist_loss, dkd_loss, kd_loss, standardized_kd_loss

NOTEBOOK = ROOT / "notebooks" / "01_response_knowledge.ipynb"

# What the notebook writes out equals the library

GENERATOR = torch.Generator().manual_seed(0)
CASES = [tuple(3 * torch.randn(2, 16, 10, generator=GENERATOR, dtype=torch.float64)) for _ in range(3)]


@pytest.mark.parametrize("form", ["kd_loss_vectorized", "kd_loss_written_out"])
def test_kd_loss_equals_both_forms(form):
    for temperature in (1.0, 4.0, 20.0):
        assert_same_loss(kd_loss, definition(NOTEBOOK, form), CASES, temperature=temperature)


@pytest.mark.parametrize("loss", [dkd_loss, dist_loss, standardized_kd_loss])
def test_the_relatives_equal_the_forms_written_out(loss):
    name = f"{loss.__name__}_written_out"
    needs = {"kd_loss_written_out": definition(NOTEBOOK, "kd_loss_written_out")}
    labels = (torch.arange(16) % 10,) if loss is dkd_loss else ()
    cases = [(*case, *labels) for case in CASES]
    for temperature in (1.0, 4.0):
        assert_same_loss(loss, definition(NOTEBOOK, name, **needs), cases, 1e-5, temperature=temperature)


def answer_of(logits):
    """A student that answers with these logits whatever it sees."""
    return lambda images: logits


def test_the_distilled_loss_gives_the_teacher_nine_tenths():
    student_logits, teacher_logits = CASES[0]
    labels = torch.arange(16) % 10
    loss_fn = definition(NOTEBOOK, "distilled", kd_loss=kd_loss)
    expected = 0.1 * F.cross_entropy(student_logits, labels)
    expected += 0.9 * kd_loss(student_logits, teacher_logits, temperature=4.0)
    value = loss_fn(answer_of(student_logits), None, labels, teacher_logits)
    torch.testing.assert_close(value, expected)


def test_the_know_nothing_teacher_answers_a_tenth_each_whatever_the_teacher_says():
    student_logits, teacher_logits = CASES[0]
    labels = torch.arange(16) % 10
    loss_fn = definition(NOTEBOOK, "know_nothing", kd_loss=kd_loss)(0.2)
    values = [
        loss_fn(answer_of(student_logits), None, labels, logits) for logits in (teacher_logits, CASES[1][1])
    ]
    uniform = torch.full((16, 10), 0.1, dtype=torch.float64)
    soft = 16 * F.kl_div(F.log_softmax(student_logits / 4, dim=1), uniform, reduction="batchmean")
    torch.testing.assert_close(values[0], 0.2 * soft + 0.8 * F.cross_entropy(student_logits, labels))
    assert values[0] == values[1]


def test_augmented_images_are_the_same_images_elsewhere():
    """A single bright pixel stays within two pixels of where it was, or of its mirror image."""
    moved_and_mirrored = definition(NOTEBOOK, "moved_and_mirrored", normalize=lambda images: images)
    images = torch.zeros(200, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 10, 8] = 255
    torch.manual_seed(0)
    _, _, rows, columns = moved_and_mirrored(images).nonzero().T
    assert len(rows) == 200 and set(rows.tolist()) == set(range(8, 13))
    assert set(columns.tolist()) == set(range(6, 11)) | {27 - column for column in range(6, 11)}


# Exercises


def coins(z, v, T_student, T_teacher):
    """T_teacher² times the mean over all tags of KL(σ(v / T_teacher) ‖ σ(z / T_student))."""
    p, q = (v / T_teacher).sigmoid(), (z / T_student).sigmoid()
    return T_teacher**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()


def compete(z, v, T):
    return T**2 * F.kl_div(F.log_softmax(z / T, 1), F.softmax(v.detach() / T, 1), reduction="batchmean")


SLIPS = {
    "T² is missing": lambda z, v, T: coins(z, v.detach(), T, T) / T**2,
    "T stands where T² belongs": lambda z, v, T: coins(z, v.detach(), T, T) / T,
    "the tags are summed": lambda z, v, T: coins(z, v.detach(), T, T) * z.shape[1],
    "images and tags are summed": lambda z, v, T: coins(z, v.detach(), T, T) * z.numel(),
    "makes the tags compete: each": compete,
    "makes the tags compete, and the mean": lambda z, v, T: compete(z, v, T) / z.shape[1],
    "only the side yes": lambda z, v, T: (
        T**2 * ((v.detach() / T).sigmoid() * (F.logsigmoid(v.detach() / T) - F.logsigmoid(z / T))).mean()
    ),
    "this is the cross-entropy": lambda z, v, T: (
        T**2 * F.binary_cross_entropy((z / T).sigmoid(), (v.detach() / T).sigmoid())
    ),
    "swapped": lambda z, v, T: coins(v.detach(), z, T, T),
    "the teacher learns too": lambda z, v, T: coins(z, v, T, T),
    "the student does not learn": lambda z, v, T: coins(z.detach(), v.detach(), T, T),
    "only the student is softened": lambda z, v, T: coins(z, v.detach(), T, 1.0) * T**2,
    "only the teacher is softened": lambda z, v, T: coins(z, v.detach(), 1.0, T),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_tag_loss_is_named(capsys, name):
    said = verdict(capsys, exercises.tag_loss, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(("attempt", "said"), [(1 / 3, "wrong one"), (4.0, "subtracted"), (3**0.5, "T²")])
def test_slip_in_ratio_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.ratio_temperature, attempt)


@pytest.mark.parametrize("attempt", ["500 more labels", "the teacher's answers", "nonsense", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.spent_budget, attempt).startswith("✗ not yet")
