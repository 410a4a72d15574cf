"""Chapter 04: what the notebook writes out equals the library; its exercises name the usual slips."""

import pytest
import torch
import torch.nn.functional as F
from notebook_code import definition, verdict
from notebook_files import ROOT

from kdutils.course import data
from kdutils.course.exercises import chapter04 as exercises
from kdutils.losses import kd_loss

NOTEBOOK = ROOT / "notebooks" / "04_offline_distillation.ipynb"

# What the notebook writes out equals the library

LOGITS = 5 * torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randint(256, (6, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_distilled_is_kd_loss_and_a_tenth_of_the_labels():
    student_logits, teacher_logits = LOGITS[:16], LOGITS[16:32]
    labels = torch.arange(16) % 10
    mixed = definition(NOTEBOOK, "distilled", kd_loss=kd_loss)
    expected = 0.1 * F.cross_entropy(student_logits, labels) + 0.9 * kd_loss(
        student_logits, teacher_logits, temperature=4.0
    )
    torch.testing.assert_close(mixed(lambda images: student_logits, None, labels, teacher_logits), expected)


def test_random_views_are_moved_or_mirrored_images():
    views = definition(NOTEBOOK, "random_views")
    assert torch.equal(views(IMAGES, seed=5), views(IMAGES, seed=5))
    assert not torch.equal(views(IMAGES, seed=5), views(IMAGES, seed=6))
    for image, view in zip(IMAGES, views(IMAGES, seed=5, max_shift=0), strict=True):
        assert torch.equal(view, image) or torch.equal(view, image.flip(-1))
    dot = torch.zeros(200, 1, 28, 28, dtype=torch.uint8)
    dot[:, :, 14, 14] = 255
    _, _, rows, columns = views(dot, seed=0, max_shift=4).nonzero(as_tuple=True)
    for places in (rows, columns):
        assert 9 <= places.min() < 12 and 16 < places.max() <= 18  # a mirror takes 14 to 13
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) > 60  # every image moves on its own


def test_every_arm_has_what_its_name_says():
    def predict(teacher, images, transform):
        return images.flatten(1)[:, :10].float()

    pool = data.Split(torch.cat([IMAGES] * 5), torch.arange(30) % 10)

    class Fm:
        pass

    Fm.pool = pool
    index = torch.arange(20)
    known = definition(
        NOTEBOOK,
        "known",
        fm=Fm,
        pool_logits=LOGITS[:30],
        balanced_index=lambda labels, size, seed: index,
        random_views=definition(NOTEBOOK, "random_views"),
        predict=predict,
        teacher=None,
        normalize=None,
    )
    arms = known(3, size=20, count=4)
    assert set(arms) == {
        "labels only", "augmented labels", "fixed cache", "stale answers", "matching answers"
    }  # fmt: skip
    for name, (images, labels, answers) in arms.items():
        times = 1 if name in ("labels only", "fixed cache") else 4
        assert torch.equal(labels, pool.labels[index].repeat(times)) and len(images) == 20 * times
        if name == "matching answers":
            assert torch.equal(answers, predict(None, images, None))
        elif name != "augmented labels":
            assert torch.equal(answers, LOGITS[index].repeat(times, 1))


def test_pieces_are_the_image_in_another_order():
    scattered = definition(NOTEBOOK, "in_pieces")(IMAGES, torch.Generator().manual_seed(0))
    assert not torch.equal(scattered, IMAGES)

    def sorted_pieces(image):
        pieces = [
            image[0, y : y + 7, x : x + 7].flatten().tolist()
            for y in range(0, 28, 7)
            for x in range(0, 28, 7)
        ]
        return sorted(pieces)

    assert [sorted_pieces(image) for image in scattered] == [sorted_pieces(image) for image in IMAGES]


# Exercises


def each(list_of_logits, function):
    return torch.stack([function(logits) for logits in list_of_logits])


SLIPS = {
    "the logits were averaged": lambda teachers, T: (sum(teachers) / len(teachers) / T).softmax(dim=-1),
    "the temperature is missing": lambda teachers, T: each(teachers, lambda z: z.softmax(dim=-1)).mean(dim=0),
    "multiplied by T": lambda teachers, T: each(teachers, lambda z: (T * z).softmax(dim=-1)).mean(dim=0),
    "the average was softened": lambda teachers, T: (
        each(teachers, lambda z: z.softmax(dim=-1)).mean(dim=0) / T
    ).softmax(dim=-1),
    "added up": lambda teachers, T: sum((z / T).softmax(dim=-1) for z in teachers),
    "over the batch": lambda teachers, T: each(teachers, lambda z: (z / T).softmax(dim=0)).mean(dim=0),
    "over the teachers": lambda teachers, T: (torch.stack(list(teachers)) / T).softmax(dim=0).mean(dim=0),
    "log-probabilities were averaged": lambda teachers, T: each(
        teachers, lambda z: F.log_softmax(z / T, dim=-1)
    ).mean(dim=0),
    "the logarithm of the mean": lambda teachers, T: torch.log(
        each(teachers, lambda z: (z / T).softmax(dim=-1)).mean(dim=0)
    ),
    "only the first teacher": lambda teachers, T: (teachers[0] / T).softmax(dim=-1),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_ensemble_targets_is_named(capsys, name):
    said = verdict(capsys, exercises.ensemble_targets, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (48, "30 views were forgotten"),
        (1200, "seeds were forgotten"),
        (840, "classes were forgotten"),
        (600, "seeds and the classes"),
        (1500, "a number for the rest"),
        (2040, "four bytes"),
        (60_240, "all thousand"),
        (11_520, "bits"),
        (630, "numbers were counted"),
    ],
)
def test_slip_in_the_store_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.store_mb, attempt)


RISING = {64: (70, 60), 256: (75.0, 76.5), 1024: (75.2, torch.tensor(81.0))}


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        (RISING, "✓ passed At 1,024 steps matching answers lead by 5.8 points; the curve is still rising"),
        ({**RISING, 1024: (78, 77)}, "augmented labels lead by 1.0 points; the curve is flat"),
        (3, "expected a dict"),
        ({}, "expected a dict"),
        ({64: (70, 60, 50)}, "expected a dict"),
        ({**RISING, 2048: (float("nan"), 80)}, "expected a dict"),
        ({64: (70, 60), 256: (75, 76)}, "three lengths or more"),
        ({**RISING, 1500: (75, 81)}, "at least twice"),
        ({64: (0.7, 0.6), 256: (0.75, 0.76), 1024: (0.75, 0.81)}, "in percent"),
        ({**RISING, 4096: (-1, 80)}, "in percent"),
    ],
)
def test_own_patience(capsys, curves, said):
    assert said in verdict(capsys, exercises.own_patience, curves)
