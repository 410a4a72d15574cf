"""Exercise checks of notebook 03, relation knowledge."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course.exercises.judge import judge_function, judge_value
from kdutils.losses.relation import sp_loss


def points_on_a_line(prediction: Any) -> None:
    """rkd_distance_loss of distances 1, 1, 2 (student) against 3, 4, 5 (teacher)."""
    judge_value(
        prediction,
        correct=1 / 72,
        tolerance=1e-4,
        slips={
            "each pair was counted once: (i, j) and (j, i) both stand in the matrix": 1 / 144,
            "the sum was divided by the six pairs: the diagonal counts too, the mean is over N² = 9": 1 / 48,
            "the half of smooth L1 is missing: it is gap² / 2 for gaps below 1": 1 / 36,
            "the distances were not divided by their mean": 13 / 9,
            "the gaps were not squared: smooth L1 is gap² / 2 for gaps below 1": 1 / 9,
        },
    )


def centered_sp_loss(attempt: Any) -> None:
    """Similarity preservation after each feature's mean over the batch is taken away."""
    generator = torch.Generator().manual_seed(0)

    def embeddings(width: int) -> Tensor:
        return torch.randn(6, width, generator=generator, dtype=torch.float64) + 1

    def centred(features: Tensor) -> Tensor:
        return features - features.mean(dim=0)

    def matrix(features: Tensor) -> Tensor:
        return features @ features.T

    def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher.detach()).square().mean()

    judge_function(
        attempt,
        cases=[(embeddings(3), embeddings(5)), (embeddings(4), embeddings(4))],
        definition=lambda s, t: sp_loss(centred(s), centred(t)),
        slips={
            "nothing is centred": sp_loss,
            "only the student is centred": lambda s, t: sp_loss(centred(s), t),
            "only the teacher is centred": lambda s, t: sp_loss(s, centred(t)),
            "each sample's own mean is taken away: a shift moves a feature of all samples (dim=0)": (
                lambda s, t: sp_loss(s - s.mean(1, keepdim=True), t - t.mean(1, keepdim=True))
            ),
            "one number is taken away from all features: every feature has its own mean (dim=0)": (
                lambda s, t: sp_loss(s - s.mean(), t - t.mean())
            ),
            "the rows of the matrices are not scaled to length one": (
                lambda s, t: mean_square(matrix(centred(s)), matrix(centred(t)))
            ),
            "the rows sum to one in absolute value (L1): their length (L2) should be one": (
                lambda s, t: mean_square(
                    F.normalize(matrix(centred(s)), p=1, dim=1), F.normalize(matrix(centred(t)), p=1, dim=1)
                )
            ),
            "the embeddings are scaled to length one, not the rows of the matrices": (
                lambda s, t: mean_square(
                    matrix(F.normalize(centred(s), dim=1)), matrix(F.normalize(centred(t), dim=1))
                )
            ),
            "the sum is divided by N, not by N²": lambda s, t: sp_loss(centred(s), centred(t)) * len(s),
            "the sum is not divided by N²": lambda s, t: sp_loss(centred(s), centred(t)) * len(s) ** 2,
            "the teacher learns too: detach its embeddings": (
                lambda s, t: (
                    (F.normalize(matrix(centred(s)), dim=1) - F.normalize(matrix(centred(t)), dim=1))
                    .square()
                    .mean()
                )
            ),
            "student and teacher are swapped": lambda s, t: sp_loss(centred(t), centred(s)),
        },
    )


def cosine_recall_at_1(attempt: Any) -> None:
    """The share of samples, in percent, whose nearest other sample by cosine has the same label."""
    generator = torch.Generator().manual_seed(0)

    def case(samples: int, width: int) -> tuple[Tensor, Tensor]:
        lengths = 0.2 + 3 * torch.rand(samples, 1, generator=generator, dtype=torch.float64)
        embeddings = torch.randn(samples, width, generator=generator, dtype=torch.float64) + 0.7
        return lengths * embeddings, torch.randint(3, (samples,), generator=generator)

    def unit(embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=1)

    judge_function(
        attempt,
        cases=[case(60, 4), case(45, 7)],
        definition=lambda x, labels: _recall(unit(x) @ unit(x).T, labels),
        slips={
            "every sample found itself: leave the diagonal out": (
                lambda x, labels: _recall(unit(x) @ unit(x).T, labels, itself=True)
            ),
            "neighbors are near by distance, not by angle: scale the embeddings to length one": (
                lambda x, labels: _recall(-torch.cdist(x, x), labels)
            ),
            "the inner products of unscaled embeddings were taken": lambda x, labels: _recall(
                x @ x.T, labels
            ),
            "each feature was scaled over the samples: every sample has length one (dim=1)": (
                lambda x, labels: _recall(-torch.cdist(F.normalize(x, dim=0), F.normalize(x, dim=0)), labels)
            ),
            "the mean was taken away first: an angle is measured at the origin": (
                lambda x, labels: _recall(unit(x - x.mean(dim=0)) @ unit(x - x.mean(dim=0)).T, labels)
            ),
            "the least similar sample was taken": lambda x, labels: _recall(-unit(x) @ unit(x).T, labels),
            "it is a share: percent are asked for": (
                lambda x, labels: _recall(unit(x) @ unit(x).T, labels) / 100
            ),
            "it is a count: percent are asked for": (
                lambda x, labels: _recall(unit(x) @ unit(x).T, labels) * len(x) / 100
            ),
        },
        gradient=False,
    )


def _recall(similarities: Tensor, labels: Tensor, itself: bool = False) -> float:
    if not itself:
        similarities = similarities.masked_fill(torch.eye(len(labels), dtype=torch.bool), -torch.inf)
    return 100 * (labels[similarities.argmax(dim=1)] == labels).double().mean().item()
