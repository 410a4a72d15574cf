"""Exercise checks of notebook 02, feature knowledge."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.course.exercises.judge import judge_function, judge_value
from kdutils.losses.feature import at_loss, nst_loss
from kdutils.taps import FeatureTap


def compared_numbers(prediction: Any) -> None:
    """How many pairs of numbers does at_loss compare, for features of 16×7×7 and of 32×14×14?"""
    judge_value(
        prediction,
        correct=7 * 7,
        tolerance=0.5,
        slips={
            "the smaller map grows to the larger: the larger is pooled to the smaller": 14 * 14,
            "the student's channels are compared one by one: their mean is, one map a layer": 16 * 7 * 7,
            "the teacher's channels are compared one by one: their mean is, one map a layer": 32 * 7 * 7,
            "nothing of the teacher's features was averaged or pooled": 32 * 14 * 14,
            "one side was counted: a map has height times width": 7,
        },
    )


def nst_loss_written_out(attempt: Any) -> None:
    """Mean kernels among the student's patterns, among the teacher's, minus twice those between the two."""
    generator = torch.Generator().manual_seed(0)

    def maps(channels: int, size: int) -> Tensor:
        return torch.randn(3, channels, size, size, generator=generator, dtype=torch.float64).relu() + 0.1

    judge_function(
        attempt,
        cases=[(maps(4, 3), maps(6, 3)), (maps(5, 2), maps(2, 2))],
        definition=nst_loss,
        slips={
            "the maps are not scaled to length one": (
                lambda s, t: _discrepancy(s.flatten(2), t.detach().flatten(2))
            ),
            "the maps are scaled over the channels: each channel's map has length one": (
                lambda s, t: _discrepancy(_patterns(s, dim=1), _patterns(t.detach(), dim=1))
            ),
            "the kernel is not squared": (
                lambda s, t: _discrepancy(_patterns(s), _patterns(t.detach()), power=1)
            ),
            "the factor 2 of the mixed term is missing": (
                lambda s, t: _discrepancy(_patterns(s), _patterns(t.detach()), mixed_weight=1)
            ),
            "the mixed term is added: it is subtracted": (
                lambda s, t: _discrepancy(_patterns(s), _patterns(t.detach()), mixed_weight=-2)
            ),
            "the term of the student's own patterns is missing": (
                lambda s, t: nst_loss(s, t) - _mean_kernel(_patterns(s), _patterns(s))
            ),
            "the term of the teacher's own patterns is missing": (
                lambda s, t: nst_loss(s, t) - _mean_kernel(_patterns(t.detach()), _patterns(t.detach()))
            ),
            "the sum over the batch is not divided by N": lambda s, t: nst_loss(s, t) * len(s),
            "the teacher learns too: detach its features": (
                lambda s, t: _discrepancy(_patterns(s), _patterns(t))
            ),
            "student and teacher are swapped: the student gets no gradient": lambda s, t: nst_loss(t, s),
        },
    )


def attention_gap(attempt: Any) -> None:
    """The sum of `at_loss` over pairs of layers of two networks, each named by its path."""
    torch.manual_seed(0)
    student, teacher = _two_networks()
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    one, two = [("0", "body.2")], [("0", "body.0"), ("2", "body.2")]

    def gap(student: nn.Module, teacher: nn.Module, images: Tensor, pairs: list) -> Tensor:
        losses = [at_loss(s, t) for s, t in _features_of_pairs(student, teacher, images, pairs)]
        return torch.stack(losses).sum()

    judge_function(
        attempt,
        cases=[(student, teacher, images, one), (student, teacher, images, two)],
        definition=gap,
        slips={
            "only the first pair is compared": lambda s, t, x, pairs: gap(s, t, x, pairs[:1]),
            "only the last pair is compared": lambda s, t, x, pairs: gap(s, t, x, pairs[-1:]),
            "the pairs are averaged: their sum is asked for": (
                lambda s, t, x, pairs: gap(s, t, x, pairs) / len(pairs)
            ),
            "the student ran without gradients: only the teacher runs under torch.no_grad": (
                lambda s, t, x, pairs: gap(s, t, x.detach(), pairs)
            ),
        },
    )


def _two_networks() -> tuple[nn.Module, nn.Module]:
    """A student and a teacher whose layers have other names, widths and sizes."""
    student = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1))
    body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2, padding=1))
    return student.double(), nn.Sequential(OrderedDict(body=body)).double()


def _features_of_pairs(
    student: nn.Module, teacher: nn.Module, images: Tensor, pairs: list[tuple[str, str]]
) -> list[tuple[Tensor, Tensor]]:
    with FeatureTap(student, {path: path for path, _ in pairs}) as own:
        student(images)
    with torch.no_grad(), FeatureTap(teacher, {path: path for _, path in pairs}) as theirs:
        teacher(images)
    return [(own[mine], theirs[its]) for mine, its in pairs]


def _patterns(features: Tensor, dim: int = 2) -> Tensor:
    return F.normalize(features.flatten(2), dim=dim)


def _mean_kernel(maps: Tensor, other_maps: Tensor, power: int = 2) -> Tensor:
    return torch.einsum("nip,njp->nij", maps, other_maps).pow(power).mean()


def _discrepancy(student: Tensor, teacher: Tensor, power: int = 2, mixed_weight: float = 2) -> Tensor:
    own = _mean_kernel(student, student, power) + _mean_kernel(teacher, teacher, power)
    return own - mixed_weight * _mean_kernel(student, teacher, power)
