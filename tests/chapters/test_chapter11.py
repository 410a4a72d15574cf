"""Chapter 11: what the notebook writes out equals the library; its exercises name the usual slips."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from notebook_code import assert_same_loss, definition, verdict
from notebook_files import ROOT

from kdutils.audit import audit
from kdutils.course import models
from kdutils.course.exercises import chapter11
from kdutils.course.exercises import chapter11 as exercises
from kdutils.losses import kd_loss, next_token

NOTEBOOK = ROOT / "notebooks" / "11_silent_failures.ipynb"

# What the notebook writes out equals the library

GENERATOR = torch.Generator().manual_seed(0)
PAIRS = [tuple(3 * torch.randn(2, 8, 10, generator=GENERATOR, dtype=torch.float64)) for _ in range(3)]
T = 4.0


def from_notebook(name):
    return definition(NOTEBOOK, name, kd_loss=kd_loss, T=T)


def test_written_out_sum_equals_the_library():
    for temperature in (1.0, 4.0, 20.0):
        written_out = partial(from_notebook("kl_written_out"), temperature=temperature)
        assert_same_loss(partial(kd_loss, temperature=temperature), written_out, PAIRS)


@pytest.mark.parametrize("name", ["first_loss", "right_loss", "not_detached"])
def test_right_losses_equal_the_library(name):
    assert_same_loss(from_notebook(name), partial(kd_loss, temperature=T), PAIRS)


FACTORS = {"without_t_squared": 1 / T**2, "mean_over_classes": 1 / 10}


@pytest.mark.parametrize("name", FACTORS)
def test_slips_of_scale_are_off_by_their_factor(name):
    assert_same_loss(from_notebook(name), lambda s, t: FACTORS[name] * kd_loss(s, t, temperature=T), PAIRS)


def test_reversed_kl_is_the_library_with_swapped_sides():
    for student, teacher in PAIRS:
        expected = T**2 * F.kl_div(
            F.log_softmax(teacher / T, 1), F.softmax(student / T, 1), reduction="batchmean"
        )
        torch.testing.assert_close(from_notebook("reversed_kl")(student, teacher), expected)


# What the audit says about each broken loss of the notebook: exercises A and B among them.
SAID = {
    "second_loss": "compared with itself",
    "swapped": "swapped",
    "without_t_squared": "T² is forgotten",
    "mean_over_classes": "divides by the number of classes",
    "probabilities": "probabilities stand where kl_div expects",
    "softmax_twice": "both answers go through softmax twice",
    "reversed_kl": "arguments reversed",
    "script_a": "arguments reversed",
    "script_b": "divides by the number of classes",
}


@pytest.mark.parametrize("name", SAID)
def test_audit_names_the_slip(name):
    images = torch.randn(24, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    teacher = models.load_teacher()
    batch = (images, teacher(images).argmax(dim=1), teacher(images))
    loss_fn = from_notebook(name)
    if not name.startswith("script"):
        loss_fn = definition(NOTEBOOK, "mixed")(loss_fn)
    assert SAID[name] in audit(loss_fn, models.small_cnn(0), teacher, batch)[0]


# Language models


def writers():
    """What the scenes on texts use: an author, its texts, and what both say about the next token."""
    names = {"END": 0, "START": 1, "VOCABULARY": 40, "next_token": next_token, "kd_loss": kd_loss}
    names["Writer"] = definition(NOTEBOOK, "Writer", **names)
    names["author"] = names["Writer"](16, 100).requires_grad_(False)
    names["author"].head.weight *= 4
    names["renumbered"] = torch.cat([torch.arange(5), torch.arange(5, 40).roll(1)])
    for name in ("next_words", "kl_per_token", "right_on_texts", "texts_only"):
        names[name] = definition(NOTEBOOK, name, **names)
    return names


WRITERS = writers()
LENGTHS = torch.arange(3, 11).roll(3)  # one text of every length; the longest fills the width
MASK = (torch.arange(10) < LENGTHS[:, None]).long()
TOKENS = torch.randint(2, 40, (8, 10), generator=GENERATOR) * MASK
TOKENS[torch.arange(8), LENGTHS - 1] = 0  # the end token


def on_texts(name):
    return definition(NOTEBOOK, name, **WRITERS)


def test_a_writer_reads_forwards_only():
    writer, changed = WRITERS["Writer"](4, 0), TOKENS.clone()
    changed[:, 5] = 2 + (changed[:, 5] + 1) % 38
    moved = (writer(TOKENS) - writer(changed)).abs().amax(dim=(0, 2)) > 0
    assert moved.tolist() == [False] * 5 + [True, True] + [False] * 3


def test_divergence_per_token_averages_to_the_right_loss():
    student = WRITERS["Writer"](4, 0)
    said, meant, counts = WRITERS["next_words"](student, TOKENS, MASK)
    per_token = WRITERS["kl_per_token"](said, meant)[counts].mean()
    torch.testing.assert_close(per_token, WRITERS["right_on_texts"](student, TOKENS, MASK))


SAID_ON_TEXTS = {
    "padding_counted": "padding tokens are counted",
    "off_by_one": "compared with the teacher's 1 before it",
    "end_masked": "the end token seems to be masked as padding",
    "mean_of_means": "a mean of means",
    "top_three": "only the teacher's most probable tokens count",
    "two_paths": "the loss runs no teacher",
}


@pytest.mark.parametrize("name", SAID_ON_TEXTS)
def test_audit_names_the_slip_in_texts(name):
    student, author = WRITERS["Writer"](4, 0), WRITERS["author"]
    assert SAID_ON_TEXTS[name] in audit(on_texts(name), student, author, (TOKENS, MASK))[0]


@pytest.mark.parametrize("name", ["right_on_texts", "other_tokenizer"])  # the audit cannot know of the second
def test_audit_names_nothing_in_texts(name):
    assert audit(on_texts(name), WRITERS["Writer"](4, 0), WRITERS["author"], (TOKENS, MASK)) == []


def test_the_author_as_its_own_student_exposes_what_compares_it_with_something_else():
    loss = {name: on_texts(name)(WRITERS["author"], TOKENS, MASK) for name in SAID_ON_TEXTS}
    zero = {name for name, value in loss.items() if value.abs() < 1e-6}
    assert zero == {"padding_counted", "end_masked", "mean_of_means", "top_three"}
    assert on_texts("other_tokenizer")(WRITERS["author"], TOKENS, MASK) > 0.5
    assert on_texts("two_paths")(WRITERS["author"], TOKENS, MASK, fast=False).abs() < 1e-6


def test_a_loss_of_the_top_three_alone_can_be_negative():
    cheat = definition(NOTEBOOK, "OnlyItsTopThree", author=WRITERS["author"])()
    assert on_texts("top_three")(cheat, TOKENS, MASK) < -0.05


def test_best_of_one_is_the_truth_and_more_are_luckier():
    best_of = definition(NOTEBOOK, "best_of")
    assert abs(best_of(1, 1000) - 80) < 0.1
    # the mean of the largest of 100 normal numbers lies 2.51 deviations above their mean
    assert abs(best_of(100, 1000) - 80 - 2.51 * 100 * (0.8 * 0.2 / 1000) ** 0.5) < 0.1


def test_exercise_answers_are_among_those_that_the_notebook_offers():
    from notebook_files import read

    text = next(cell.source for cell in read(NOTEBOOK).cells if "### Exercise 3" in cell.source)
    assert all(f'`"{fault}"`' in text for fault in exercises.FAULTS.values())


# Exercises


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (0.225, "T was divided out"),
        (14.4, "multiplied in"),
        (0.00625, "weight of the labels"),
        (0.36, "shares after it"),
        (0.9, "nothing was changed"),
        (0.5, "too high"),
        ("a lot", "expected a number"),
    ],
)
def test_slip_in_the_weight_is_named(capsys, attempt, said):
    answer = verdict(capsys, chapter11.forgotten_weight, attempt)
    assert answer.startswith("✗ not yet") and said in answer


def own_is_nearest(cached, live):
    return torch.cdist(cached, live).argmin(1) == torch.arange(len(live))


SHARES = {
    "between 0 and 1": lambda cached, live: own_is_nearest(cached, live).double().mean(),
    "images were counted": lambda cached, live: own_is_nearest(cached, live).double().sum(),
    "predicted classes": lambda cached, live: 100.0 * (cached.argmax(1) == live.argmax(1)).double().mean(),
    "equality": lambda cached, live: (
        100.0 * torch.isclose(cached, live, rtol=0, atol=0).all(1).double().mean()
    ),
    "out of step were counted": lambda cached, live: 100 - 100 * own_is_nearest(cached, live).double().mean(),
    "furthest": lambda cached, live: (
        100 * (torch.cdist(cached, live).argmax(1) == torch.arange(len(live))).double().mean()
    ),
    "raised IndexError": lambda cached, live: torch.cdist(cached, live).argmin(dim=2),
}


@pytest.mark.parametrize("name", SHARES)
def test_slip_in_the_share_is_named(capsys, name):
    answer = verdict(capsys, chapter11.share_in_step, SHARES[name])
    assert answer.startswith("✗ not yet") and name in answer


def test_right_share_passes_also_as_a_plain_number(capsys):
    def share(cached, live):
        return 100 * own_is_nearest(cached, live).sum().item() / len(live)

    assert verdict(capsys, chapter11.share_in_step, share) == "✓ passed"


@pytest.mark.parametrize("script", chapter11.FAULTS)
def test_wrong_fault_is_answered_with_a_question(capsys, script):
    answer = verdict(capsys, chapter11.five_faults, {**chapter11.FAULTS, script: "softmax twice"})
    assert answer == f"✗ not yet: script {script}: {chapter11.QUESTIONS[script]}"
    assert chapter11.FAULTS[script] not in answer


def test_open_scripts_are_listed(capsys):
    answer = verdict(capsys, chapter11.five_faults, {**chapter11.FAULTS, "B": ..., "D": ...})
    assert answer == "✗ not yet: right so far; still open: B, D"


@pytest.mark.parametrize("answer", [3, "arguments reversed", {"A": "arguments reversed"}, None])
def test_answer_of_another_kind_is_refused(capsys, answer):
    assert "expected a dict with the keys" in verdict(capsys, chapter11.five_faults, answer)


@pytest.mark.parametrize("answer", [..., dict.fromkeys("ABCDE", ...)])
def test_untouched_answer_is_not_attempted(capsys, answer):
    assert "not attempted" in verdict(capsys, chapter11.five_faults, answer)
