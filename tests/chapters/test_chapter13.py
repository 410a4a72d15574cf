"""Chapter 13: what it writes out equals the library; the language of strings; the slips of its exercises."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from notebook_code import definition, verdict
from notebook_files import ROOT

from kdutils.compare import paired_gain
from kdutils.course.exercises import chapter13 as exercises
from kdutils.losses import generalized_jsd_loss, kd_loss, next_token, reverse_kl_loss

NOTEBOOK = ROOT / "notebooks" / "13_language_models.ipynb"


def some_texts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 3, 7, 5, dtype=torch.float64, generator=generator)
    tokens = torch.randint(5, (3, 7), generator=generator)
    is_learned = torch.arange(7) >= torch.tensor([[2], [3], [5]])
    return student, teacher, tokens, is_learned


# What the notebook writes out equals the library


@pytest.mark.parametrize("temperature", [1.0, 2.0, 7.0])
def test_token_kd_written_out(temperature):
    student, teacher, tokens, is_learned = some_texts()
    written_out = definition(NOTEBOOK, "token_kd_written_out")
    ours = written_out(student, teacher, is_learned, temperature)
    rows, _, counts = next_token(student, tokens, is_learned)
    taught, _, _ = next_token(teacher, tokens, is_learned)
    torch.testing.assert_close(ours, kd_loss(rows, taught, counts, temperature=temperature))


def test_the_divergences_written_out():
    student, teacher, _, _ = some_texts()
    divergence = definition(NOTEBOOK, "divergence", math=math)
    log_q, log_p = student.log_softmax(dim=-1), teacher.log_softmax(dim=-1)
    library = {
        0: kd_loss(student, teacher, temperature=1.0),
        0.3: generalized_jsd_loss(student, teacher, beta=0.3),
        0.5: generalized_jsd_loss(student, teacher, beta=0.5),
        1: reverse_kl_loss(student, teacher),
    }
    for beta, loss in library.items():
        torch.testing.assert_close(divergence(log_p, log_q, beta).mean(), loss)


# The language of 100,000 strings


def test_the_loss_after_own_beginnings_is_the_divergence_of_whole_strings():
    strings = torch.cartesian_prod(*[torch.arange(10)] * 3)
    language = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    language = language / language.sum()
    beginnings = [language.view(10**t, 10, -1).sum(dim=-1) for t in (1, 2)]
    prefix_loss = definition(
        NOTEBOOK,
        "prefix_loss",
        beginnings=beginnings,
        log_next=[(mass / mass.sum(dim=1, keepdim=True)).log() for mass in beginnings],
        divergence=definition(NOTEBOOK, "divergence", math=math),
    )
    log_q = torch.randn(10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_q = log_q.log_softmax(dim=-1)
    first = language.view(10, -1).sum(dim=1)
    log_each = math.log(0.1) + log_q[strings[:, :-1], strings[:, 1:]].sum(dim=1)
    forward = (language * (language.log() - log_each)).sum() - (first * (first / 0.1).log()).sum()
    torch.testing.assert_close(prefix_loss(log_q, 0, "teacher's"), forward)
    each = log_each.exp()
    reverse = (each * (log_each - language.log())).sum() - (0.1 * (0.1 / first).log()).sum()
    torch.testing.assert_close(prefix_loss(log_q, 1, "own"), reverse, rtol=1e-6, atol=1e-6)


# Words with several pronunciations


def test_coverage_is_compared_at_the_same_precision_seed_by_seed():
    precision, coverage = "precision (%)", "coverage (%)"
    values = {
        ("T = 1", precision): [10.0, 20, 10, 10, 10],
        ("T = 1", coverage): [40.0, 40, 40, 40, 40],
        ("T = 0.5", precision): [30.0, 40, 30, 30, 30],
        ("T = 0.5", coverage): [20.0, 20, 20, 20, 20],
        ("other", precision): [20.0, 30, 15, 20, 20],  # a half, a half, a quarter of the way
        ("other", coverage): [33.0, 29, 37, 31, 31],
    }
    coverage_over_cooled = definition(
        NOTEBOOK,
        "coverage_over_cooled",
        several_runs=SimpleNamespace(of=lambda label, measure: values[label, measure]),
        cooled=["T = 1", "T = 0.5"],
        BOTH=(precision, coverage),
        paired_gain=paired_gain,
        np=np,
    )
    assert coverage_over_cooled("other").differences == (3, -1, 2, 1, 1)


# Exercises


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (36, "passed"),
        (36.0, "passed"),
        (12, "ids were forgotten"),
        (24, "log-probabilities were forgotten"),
        (48, "four bytes each"),
        (1.8, "not 20"),
        (36_000, "megabytes"),
        (40, "too high"),
        ("much", "expected a number"),
        (..., "not attempted"),
    ],
)
def test_stored_size(capsys, answer, said):
    assert said in verdict(capsys, exercises.stored_size, answer)


def top_k(student_logits, ids, log_probs, rest=True, detach=True):
    p = (log_probs.detach() if detach else log_probs).exp()
    q = student_logits.softmax(dim=-1).gather(1, ids)
    if rest:
        p, q = (torch.cat([x, 1 - x.sum(dim=-1, keepdim=True)], dim=-1) for x in (p, q))
    return (p * (p / q).log()).sum(dim=-1).mean()


def renormalized(student_logits, ids, log_probs):
    p = log_probs.detach().softmax(dim=-1)
    return (p * (p / student_logits.softmax(dim=-1).gather(1, ids)).log()).sum(dim=-1).mean()


def among_k(student_logits, ids, log_probs):
    p = log_probs.detach().softmax(dim=-1)
    return F.kl_div(student_logits.gather(1, ids).log_softmax(dim=-1), p, reduction="batchmean")


def reversed_top_k(student_logits, ids, log_probs):
    p, q = log_probs.detach().exp(), student_logits.softmax(dim=-1).gather(1, ids)
    p, q = (torch.cat([x, 1 - x.sum(dim=-1, keepdim=True)], dim=-1) for x in (p, q))
    return (q * (q / p).log()).sum(dim=-1).mean()


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (top_k, "passed"),
        (lambda *case: top_k(*case, rest=False), "the rest is missing"),
        (renormalized, "renormalized"),
        (among_k, "over the k tokens only"),
        (reversed_top_k, "reverse KL"),
        (lambda s, ids, p: top_k(s, ids, p) / 4, "sum over them"),
        (lambda s, ids, p: top_k(s, ids, p) * len(ids), "take the mean"),
        (lambda *case: top_k(*case, detach=False), "detach"),
        (lambda *case: ..., "not attempted"),
    ],
)
def test_top_k(capsys, attempt, said):
    assert said in verdict(capsys, exercises.top_k, attempt)


def budget(**changed):
    found = {"parameters": 9_000, "labels": [20.0, 21.5, 22.0], "distilled": [24.0, 25.0, 27.5]}
    return found | changed


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (budget(), "passed: +4.3 points"),
        (budget(distilled=[19.0, 23.0, 22.0]), "it holds zero"),
        (budget(parameters="few"), "number of your student's parameters"),
        (budget(labels=[20.0, 21.5]), "three or more percentages"),
        (budget(labels=[0.2, 0.21, 130]), "three or more percentages"),
        (budget(labels=None), "three or more percentages"),
        (budget(distilled=[20.0, 21.5, 22.0]), "both arms say the same"),
        (budget(labels=[20.0] * 3, distilled=[24.0] * 3), "all seeds say the same"),
        (budget(labels=[0.0, 0.1, 0.0], distilled=[0.1, 0.0, 0.0]), "train longer"),
        ({"labels": []}, "expected a dict"),
        (3, "expected a dict"),
        (..., "not attempted"),
    ],
)
def test_own_budget(capsys, found, said):
    assert said in verdict(capsys, exercises.own_budget, found)
