"""Chapter 06: what the notebook writes out equals the library; its exercises name the usual slips."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from notebook_code import assert_same_loss, definition, verdict
from notebook_files import ROOT

import kdutils
from kdutils.batches import batches
from kdutils.course import data
from kdutils.course.exercises import chapter06 as exercises
from kdutils.evaluate import fit_temperature
from kdutils.losses import cs_kd_loss, kd_loss, ps_kd_loss, tf_kd_loss

NOTEBOOK = ROOT / "notebooks" / "06_self_distillation.ipynb"

# What the notebook writes out equals the library

GENERATOR = torch.Generator().manual_seed(0)
PAIRS = [tuple(3 * torch.randn(2, 16, 10, generator=GENERATOR, dtype=torch.float64)) for _ in range(3)]
LABELS = torch.randint(10, (16,), generator=GENERATOR)


def test_tf_kd_loss_equals_its_rung():
    written_out = definition(NOTEBOOK, "tf_kd_loss_written_out")
    cases = [(student, LABELS) for student, _ in PAIRS]
    for settings in ({}, {"temperature": 1.0}, {"temperature": 5.0, "correct_prob": 0.9}):
        assert_same_loss(tf_kd_loss, written_out, cases, **settings)


def test_ps_kd_loss_equals_its_rung():
    written_out = definition(NOTEBOOK, "ps_kd_loss_written_out")
    cases = [(student, past, LABELS) for student, past in PAIRS]
    for alpha in (0.0, 0.3, 1.0):
        assert_same_loss(ps_kd_loss, written_out, cases, alpha=alpha)


def test_cs_kd_loss_equals_its_rung():
    written_out = definition(NOTEBOOK, "cs_kd_loss_written_out")
    for temperature in (1.0, 4.0):
        assert_same_loss(cs_kd_loss, written_out, PAIRS, temperature=temperature)


def test_rungs_send_no_gradient_to_the_teacher():
    student, past = (tensor.clone().requires_grad_() for tensor in PAIRS[0])
    definition(NOTEBOOK, "ps_kd_loss_written_out")(student, past, LABELS, 0.5).backward()
    definition(NOTEBOOK, "cs_kd_loss_written_out")(student, past).backward()
    assert past.grad is None and student.grad.norm() > 0


def test_deepest_exit_teaches_every_shallower_one():
    answers = torch.stack([PAIRS[0][0], PAIRS[1][0], PAIRS[2][0]], dim=1)
    loss_fn = definition(NOTEBOOK, "deepest_teaches", kd_loss=kd_loss)(kd_weight=0.3, temperature=2.0)
    first, second, deepest = answers.unbind(dim=1)
    expected = F.cross_entropy(deepest, LABELS)
    for shallow in (first, second):
        expected = (
            expected
            + 0.7 * F.cross_entropy(shallow, LABELS)
            + 0.3 * kd_loss(shallow, deepest, temperature=2.0)
        )
    torch.testing.assert_close(loss_fn(lambda images: answers, None, LABELS), expected)


def test_classmate_is_another_image_of_the_class():
    classmate = definition(NOTEBOOK, "classmate")
    mates = classmate(LABELS)
    assert (LABELS[mates] == LABELS).all()
    alone = (LABELS[:, None] == LABELS).sum(dim=1) == 1
    assert ((mates == torch.arange(16)) == alone).all() and not alone.all()


def test_first_sure_exit_is_the_first_and_the_last_takes_the_rest():
    sure, unsure = torch.tensor([9.0, 0.0]), torch.tensor([0.1, 0.0])
    answers = torch.stack(
        [
            torch.stack(exits)
            for exits in ([sure, unsure, sure], [unsure, sure, sure], [unsure, unsure, unsure])
        ]
    )
    first_sure_exit = definition(NOTEBOOK, "first_sure_exit")
    assert first_sure_exit(answers, 0.9).tolist() == [0, 1, 2]
    assert first_sure_exit(answers, 1.0).tolist() == [2, 2, 2]
    assert first_sure_exit(answers, 0.0).tolist() == [0, 0, 0]


# Exercises


def targets(logits, labels, label_share, other_share):
    onehot = F.one_hot(labels, logits.shape[1])
    return label_share * onehot + other_share * (1 - onehot)


def against(targets, logits):
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def right(z, y, s):
    return F.cross_entropy(z, y, label_smoothing=s)


SLIPS = {
    "among the other classes only": lambda z, y, s: against(targets(z, y, 1 - s, s / (z.shape[1] - 1)), z),
    "the uniform distribution is missing": lambda z, y, s: against(targets(z, y, 1 - s, 0), z),
    "swapped": lambda z, y, s: against(targets(z, y, s + (1 - s) / z.shape[1], (1 - s) / z.shape[1]), z),
    "every class gets `smoothing`": lambda z, y, s: against(targets(z, y, 1, s), z),
    "sum to more than one": lambda z, y, s: against(targets(z, y, 1 + s / z.shape[1], s / z.shape[1]), z),
    "the labels are not smoothed": lambda z, y, s: F.cross_entropy(z, y),
    "the mean also runs over the classes": lambda z, y, s: right(z, y, s) / z.shape[1],
    "not divided by N": lambda z, y, s: right(z, y, s) * len(y),
    "the minus sign is missing": lambda z, y, s: -right(z, y, s),
    "probabilities stand where log-probabilities belong": lambda z, y, s: (
        -(targets(z, y, 1 - s + s / z.shape[1], s / z.shape[1]) * F.softmax(z, dim=1)).sum(dim=1).mean()
    ),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_smoothed_cross_entropy_is_named(capsys, name):
    said = verdict(capsys, exercises.smoothed_cross_entropy, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


def confident(scale, seed=0):
    """Logits and labels of a network of about 80% accuracy; the larger the scale, the surer it is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (500,), generator=generator)
    is_right = torch.rand(500, generator=generator) < 0.8 - 0.1 * seed
    said = torch.where(is_right, labels, (labels + 1) % 5)
    noise = torch.randn(500, 5, generator=generator, dtype=torch.float64)
    return scale * (2 * F.one_hot(said, 5) + 0.3 * noise), labels


def handed_in(scale, so):
    validation, test = confident(scale, 0), confident(scale, 1)
    temperature = fit_temperature(*validation)
    return {"validation": validation, "test": test, "temperature": temperature, "so": so}


@pytest.mark.parametrize(("scale", "so"), [(5.0, "too sure"), (0.3, "too modest")])
def test_confidence_is_held_against_accuracy(capsys, scale, so):
    assert verdict(capsys, exercises.honest_confidence, handed_in(scale, so)) == "✓ passed"
    (other,) = {"too sure", "too modest"} - {so}
    assert "mean confidence minus accuracy" in verdict(
        capsys, exercises.honest_confidence, handed_in(scale, other)
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"temperature": fit_temperature(*confident(5.0, 1))}, "fitted on the test half"),
        ({"temperature": 1 / fit_temperature(*confident(5.0, 0))}, "1 / T"),
        ({"temperature": 1.0}, "another temperature"),
        ({"temperature": "high"}, "raised ValueError"),
        ({"test": confident(5.0, 0)}, "halves are the same"),
        ({"validation": None}, "raised TypeError"),
        ({"so": "maybe"}, "expected one of"),
        ({"more": 1}, "keys"),
    ],
)
def test_slip_in_honest_confidence_is_named(capsys, changed, said):
    answer = verdict(capsys, exercises.honest_confidence, handed_in(5.0, "too sure") | changed)
    assert answer.startswith("✗ not yet") and said in answer


def test_a_moving_average_starts_as_its_student_and_follows_slowly():
    names = {"copy": copy, "itertools": itertools, "F": F, "kd_loss": kd_loss, "batches": batches}
    seen = {}

    class Models:
        @staticmethod
        def small_cnn(seed):
            torch.manual_seed(seed)
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 10))

    def fit(student, loader, loss_fn, steps, lr):
        seen["start"] = student[1].weight.detach().clone()
        with torch.no_grad():
            student[1].weight += 1
        loss_fn(student, torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2]))

    pool = data.Split(torch.randn(128, 1, 2, 2), None)
    names |= {"models": Models, "fit": fit, "fm": data.FashionMNIST(None, None, pool, None), "nn": torch.nn}
    names |= {"known": lambda seed: (torch.zeros(3, 1), torch.zeros(3)), "device": "cpu", "kdutils": kdutils}
    names |= {"normalize": lambda images: images, "moved_and_mirrored": lambda images: images}
    teacher = definition(NOTEBOOK, "mean_teacher", **names)(seed=0, decay=0.95)
    torch.testing.assert_close(teacher[1].weight, seen["start"] + 0.05)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize(
    "attempt",
    ["zero", "the gradient of the labels alone", "pointing to softer answers", "nonsense", 3],
)
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.present_teacher, attempt).startswith("✗ not yet")
