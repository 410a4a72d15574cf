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


def test_distil_and_imitation_are_kd_loss():
    student_logits, teacher_logits = LOGITS[:16], LOGITS[16:32]
    labels = torch.arange(16) % 10
    kd = kd_loss(student_logits, teacher_logits, temperature=3.0)
    mixed = definition(NOTEBOOK, "distil", kd_loss=kd_loss)(temperature=3.0, kd_weight=0.7)
    expected = 0.3 * torch.nn.functional.cross_entropy(student_logits, labels) + 0.7 * kd
    torch.testing.assert_close(mixed(lambda images: student_logits, None, labels, teacher_logits), expected)
    imitated = definition(NOTEBOOK, "imitation", kd_loss=kd_loss)(3.0)
    torch.testing.assert_close(imitated(lambda images: student_logits, None, teacher_logits), kd)


def test_restored_logits_keep_the_largest_and_the_mean():
    shrunk, restored = definition(NOTEBOOK, "shrunk"), definition(NOTEBOOK, "restored")
    for k in (1, 3, 9):
        logits = restored(*shrunk(LOGITS, k))
        torch.testing.assert_close(logits.topk(k).values, LOGITS.topk(k).values, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(logits.mean(dim=-1), LOGITS.mean(dim=-1), rtol=1e-3, atol=5e-3)
        assert torch.equal(logits.argmax(dim=-1), LOGITS.argmax(dim=-1))


def test_random_crops_are_moved_or_flipped_images():
    crops = definition(NOTEBOOK, "random_crops")
    assert torch.equal(crops(IMAGES, 3, seed=5), crops(IMAGES, 3, seed=5))
    unmoved = crops(IMAGES, 0, seed=5)
    for image, crop in zip(IMAGES, unmoved, strict=True):
        assert torch.equal(crop, image) or torch.equal(crop, image.flip(-1))
    dot = torch.zeros(200, 1, 28, 28, dtype=torch.uint8)
    dot[:, :, 14, 14] = 255
    _, _, rows, columns = crops(dot, 4, seed=0).nonzero(as_tuple=True)
    for places in (rows, columns):
        assert 9 <= places.min() < 12 and 16 < places.max() <= 18  # a flip takes 14 to 13


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


def test_noise_changes_the_given_share_and_always_the_label():
    labels = torch.arange(10_000) % data.NUM_CLASSES
    noisy = definition(NOTEBOOK, "with_noise")(labels, 0.4, seed=0)
    assert 0.38 < (noisy != labels).float().mean() < 0.42
    assert (noisy - labels)[noisy != labels].remainder(10).unique().tolist() == list(range(1, 10))


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
        (18, "places were forgotten"),
        (32, "rest was forgotten"),
        (16, "places and the rest"),
        (26, "one byte"),
        (2000, "all 1000"),
        (272, "bits"),
        (17, "numbers were counted"),
        (52, "single precision"),
    ],
)
def test_slip_in_the_cache_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.cache_mb, attempt)


@pytest.mark.parametrize(
    "attempt", ["about a tenth, as by chance", "about half", "nearly all", "nonsense", 3]
)
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.shoes_from_tops, attempt).startswith("✗ not yet")
