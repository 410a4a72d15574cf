"""Chapter 18: the slips its exercises know, its project, and the problems that are made on the spot."""

import pytest
import torch
import torch.nn.functional as F
from notebook_code import definition, verdict
from notebook_files import ROOT

from kdutils.course import data, models, your_problem
from kdutils.course.exercises import chapter18 as exercises
from kdutils.losses import kd_loss
from kdutils.train import predict

NOTEBOOK = ROOT / "notebooks" / "18_your_own_problem.ipynb"

# What the notebook writes out


def test_a_bound_pulls_only_where_the_student_is_further_from_the_truth_than_the_teacher():
    bounded = definition(NOTEBOOK, "bounded", your_problem=your_problem)
    prices = torch.zeros(2, 1)
    maps = torch.full((2, 1, 12, 12), 0.1)  # the teacher says 1
    near = torch.full((2, 1, 12, 12), 0.01, requires_grad=True)
    assert bounded(lambda images: near, None, prices, maps).item() == pytest.approx(0.1**2)
    far = torch.full((2, 1, 12, 12), 0.3)
    assert bounded(lambda images: far, None, prices, maps).item() == pytest.approx(1.5 * 9, rel=1e-5)


def test_a_shrug_is_half_a_label_and_half_a_uniform_answer():
    with_a_shrug = definition(NOTEBOOK, "with_a_shrug", kd_loss=kd_loss)
    logits, labels = torch.randn(6, 2), torch.arange(6) % 2
    uniform = torch.full((6, 2), 0.5)
    shrug = F.kl_div(logits.log_softmax(dim=1), uniform, reduction="batchmean")
    torch.testing.assert_close(
        with_a_shrug(logits, labels), 0.5 * F.cross_entropy(logits, labels) + 0.5 * shrug
    )


# Exercises


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (57.9, "passed"),
        (58.6, "passed"),
        (23, "the word table was rounded, too"),
        (90.9, "nothing was rounded"),
        (55.6, "the layers were not"),
        (46.9, "only the table was counted"),
        (11, "only the layers were counted"),
        (70, "too high"),
        ("small", "expected a number"),
        (..., "not attempted"),
    ],
)
def test_partly_rounded(capsys, answer, said):
    assert said in verdict(capsys, exercises.partly_rounded, answer)


def along(labels, accuracies, wanted, of=torch.log2, back=lambda value: 2**value):
    piece = min(int((accuracies <= wanted).sum()) - 1, len(labels) - 2)
    way = (wanted - accuracies[piece]) / (accuracies[piece + 1] - accuracies[piece])
    start, end = of(labels[piece]), of(labels[piece + 1])
    return back(start + way * (end - start))


def plain(value):
    return value


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (along, "passed"),
        (lambda *curve: along(*curve, of=plain, back=plain), "not over their logarithm"),
        (lambda *curve: along(*curve, back=plain), "raise 2 to it"),
        (lambda labels, found, wanted: labels[(found - wanted).abs().argmin()], "nearest point"),
        (lambda labels, found, wanted: labels[0], "the definition gives"),
        (lambda *curve: ..., "not attempted"),
        (..., "not attempted"),
    ],
)
def test_worth_in_labels(capsys, attempt, said):
    assert said in verdict(capsys, exercises.worth_in_labels, attempt)


def sound_loss(student, images, labels, teacher_answers):
    logits = student(images)
    soft = kd_loss(logits, teacher_answers, temperature=4.0)
    return 0.1 * F.cross_entropy(logits, labels) + 0.9 * soft


@pytest.fixture(scope="module")
def answers():
    """The teacher's, of images prepared as the project does it, and rightly."""
    images, _ = exercises.project_images()
    teacher = models.load_teacher()
    return {
        "as printed": predict(teacher, images.float() / 255),
        "right": predict(teacher, images, transform=data.normalize_fashion_mnist),
    }


@pytest.mark.slow
def test_a_project_that_is_half_repaired_hears_what_is_left(capsys, answers):
    broken_loss = definition(NOTEBOOK, "project_loss", kd_loss=kd_loss)
    for loss_fn, which, lr, said in [
        (broken_loss, "as printed", 0.003, "prepared as in training"),
        (broken_loss, "right", 0.6, "the audit says"),
        (sound_loss, "right", 0.003, "far from its best"),
        (sound_loss, "right", "fast", "could not convert"),
        (sound_loss, "right", ..., "not attempted"),
    ]:
        attempt = {"loss": loss_fn, "answers": answers[which], "lr": lr}
        assert said in verdict(capsys, exercises.repaired, attempt)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        ({"loss": sound_loss, "answers": torch.zeros(2, 3), "lr": 0.6}, "shape (2, 3)"),
        ({"loss": sound_loss}, "expected a dict"),
        (sound_loss, "expected a dict"),
        (..., "not attempted"),
    ],
)
def test_what_is_no_project_is_told(capsys, attempt, said):
    assert said in verdict(capsys, exercises.repaired, attempt)


@pytest.mark.slow
def test_a_repaired_project_is_trained_and_passes(capsys, answers, monkeypatch):
    monkeypatch.setattr(exercises, "STEPS", 150)
    monkeypatch.setattr(exercises, "SEEDS", (0, 1))
    attempt = {"loss": sound_loss, "answers": answers["right"], "lr": 0.6}
    assert "passed" in verdict(capsys, exercises.repaired, attempt)


def test_a_repaired_project_that_gains_nothing_is_told(capsys, answers, monkeypatch):
    monkeypatch.setattr(exercises, "_trained", lambda *arguments: 70.0)
    attempt = {"loss": sound_loss, "answers": answers["right"], "lr": 0.6}
    assert "no better than labels" in verdict(capsys, exercises.repaired, attempt)


LABELS = [70.0, 71, 70, 72, 71]


def report(plus=5.0, shrug=1.0, **changed):
    wobble = (0.3, -0.2, 0.1, 0.0, -0.1)
    raised = {
        "know-nothing": [score + shrug + w for score, w in zip(LABELS, wobble, strict=True)],
        "distilled": [score + plus - w for score, w in zip(LABELS, wobble, strict=True)],
    }
    return {"labels": LABELS, **raised, "teacher": 90.0, "megabytes": 0.5} | changed


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (report(), "ship it, 0.5 MB"),
        (report(plus=0.0), "an honest null"),
        (report(shrug=5.0), "a teacher who knows nothing may bring as much"),
        (report(teacher=60), "nothing is there to be learned"),
        (report(labels=LABELS[:4]), "different numbers of seeds"),
        (
            {"labels": [70], "know-nothing": [70], "distilled": [75], "teacher": 90, "megabytes": 1},
            "five seeds",
        ),
        (report(labels="many"), "expected numbers for 'labels'"),
        (report(megabytes=None), "expected numbers for 'megabytes'"),
        ({"labels": LABELS}, "expected a dict"),
        (3, "expected a dict"),
        (..., "not attempted"),
    ],
)
def test_own_problem(capsys, attempt, said):
    assert said in verdict(capsys, exercises.own_problem, attempt)
