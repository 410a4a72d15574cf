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


def quiz_with_memory(attempt: Any) -> None:
    """The cross-entropy of finding one's own among all rows of a memory, by cosine at a temperature."""
    generator = torch.Generator().manual_seed(0)

    def case(samples: int, stored: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        student = torch.randn(samples, width, generator=generator, dtype=torch.float64)
        memory = 2 * torch.randn(stored, width, generator=generator, dtype=torch.float64) + 0.3
        return student, memory, torch.randperm(stored, generator=generator)[:samples]

    judge_function(
        attempt,
        cases=[case(4, 9, 3), case(6, 15, 5)],
        definition=_quiz,
        slips={
            "the right answer is the place in the batch: it is the place in the memory, `own`": (
                lambda s, m, own: _quiz(s, m, torch.arange(len(s)))
            ),
            "only the batch's own rows of the memory are choices: all rows are": (
                lambda s, m, own: _quiz(s, m[own], torch.arange(len(s)))
            ),
            "the temperature is missing: the cosines are divided by it": (
                lambda s, m, own: _quiz(s, m, own, temperature=1.0)
            ),
            "the cosines are multiplied by the temperature: they are divided by it": (
                lambda s, m, own: _quiz(s, m, own, temperature=10.0)
            ),
            "nothing is scaled to length one: a cosine does not see lengths": (
                lambda s, m, own: F.cross_entropy(s @ m.detach().T / 0.1, own)
            ),
            "only the student is scaled to length one": (
                lambda s, m, own: F.cross_entropy(F.normalize(s, dim=1) @ m.detach().T / 0.1, own)
            ),
            "only the memory is scaled to length one": (
                lambda s, m, own: F.cross_entropy(s @ F.normalize(m.detach(), dim=1).T / 0.1, own)
            ),
            "the sum over the batch is not divided by N": lambda s, m, own: _quiz(s, m, own) * len(s),
            "the memory learns too: detach it": (
                lambda s, m, own: F.cross_entropy(F.normalize(s, dim=1) @ F.normalize(m, dim=1).T / 0.1, own)
            ),
            "the sign is wrong: a loss falls as the right answer gets likelier": (
                lambda s, m, own: -_quiz(s, m, own)
            ),
        },
    )


def _quiz(student: Tensor, memory: Tensor, own: Tensor, temperature: float = 0.1) -> Tensor:
    cosines = F.normalize(student, dim=1) @ F.normalize(memory.detach(), dim=1).T
    return F.cross_entropy(cosines / temperature, own)
