"""Exercise checks of notebook 04, offline distillation."""

from typing import Any

import torch
import torch.nn.functional as F

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value


def cache_mb(prediction: Any) -> None:
    """How many MB do the eight largest of 1000 logits take, for a million images, in 16 bits each?"""
    judge_value(
        prediction,
        correct=34.0,
        tolerance=0.01,
        slips={
            "the places were forgotten: a logit without its class is worth nothing": 18.0,
            "the number for the rest was forgotten": 32.0,
            "the places and the rest were forgotten": 16.0,
            "the places were stored in one byte, which tells 256 classes apart, not 1000": 26.0,
            "all 1000 logits were stored": 2000.0,
            "it was counted in bits": 272.0,
            "the numbers were counted, not their bytes": 17.0,
            "single precision was used for the logits and the rest": 52.0,
        },
    )


def ensemble_targets(attempt: Any) -> None:
    """Mean of the teachers' probabilities, each softened by T."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (3 * torch.randn(teachers, 6, 5, generator=generator, dtype=torch.float64), temperature)
        for teachers, temperature in ((3, 2.0), (4, 5.0))
    ]
    judge_function(
        attempt,
        cases,
        lambda logits, T: F.softmax(logits / T, dim=-1).mean(dim=0),
        {
            "the logits were averaged, not the probabilities": (
                lambda logits, T: F.softmax(logits.mean(dim=0) / T, dim=-1)
            ),
            "the temperature is missing": lambda logits, T: F.softmax(logits, dim=-1).mean(dim=0),
            "the logits were multiplied by T, not divided": (
                lambda logits, T: F.softmax(logits * T, dim=-1).mean(dim=0)
            ),
            "the average was softened, not each teacher": (
                lambda logits, T: F.softmax(F.softmax(logits, dim=-1).mean(dim=0) / T, dim=-1)
            ),
            "the probabilities were added up, not averaged": (
                lambda logits, T: F.softmax(logits / T, dim=-1).sum(dim=0)
            ),
            "the softmax runs over the batch, not over the classes": (
                lambda logits, T: F.softmax(logits / T, dim=1).mean(dim=0)
            ),
            "the softmax runs over the teachers, not over the classes": (
                lambda logits, T: F.softmax(logits / T, dim=0).mean(dim=0)
            ),
            "log-probabilities were averaged: the question is about probabilities": (
                lambda logits, T: F.log_softmax(logits / T, dim=-1).mean(dim=0)
            ),
            "the logarithm of the mean was returned": (
                lambda logits, T: F.softmax(logits / T, dim=-1).mean(dim=0).log()
            ),
            "only the first teacher was asked": lambda logits, T: F.softmax(logits[0] / T, dim=-1),
        },
    )


def shoes_from_tops(answer: Any) -> None:
    """How many shoes does a student recognise that got the teacher's hard decisions on tops alone?"""
    judge_choice(
        answer,
        correct="hardly any",
        why_not={
            "about a tenth, as by chance": "chance means all answers equally often: how often was the "
            "answer a shoe in training?",
            "about half": "which decisions of the teacher could have told the student what a shoe is?",
            "nearly all": "the teacher knows shoes, but of a top it decides for a top",
        },
    )
