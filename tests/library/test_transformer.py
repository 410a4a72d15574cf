"""The losses on transformers against their formulas written out token by token, the facts of loss_facts,
and padding that must not count."""

from typing import NamedTuple

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdutils.losses import (
    attention_mse_loss,
    hidden_cosine_loss,
    hidden_mse_loss,
    minilm_loss,
    patient_loss,
    value_relation_loss,
)

N, LENGTH, HEADS, WIDTH = 3, 4, 2, 5
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])


# The papers' formulas, in float64, one kept token at a time.


def dot(x, y):
    return sum(x[d] * y[d] for d in range(len(x)))


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def kept_positions(tensor, mask):
    """(sentence, token) of all tokens that count, for a tensor whose tokens are its second last dimension."""
    num_tokens = tensor.shape[-2]
    kept = torch.ones(len(tensor), num_tokens) if mask is None else mask
    return [(n, i) for n in range(len(tensor)) for i in range(num_tokens) if kept[n][i] == 1]


def kl(student_scores, teacher_scores):
    s, t = (scores.exp() / scores.exp().sum() for scores in (student_scores, teacher_scores))
    return sum(t[k] * torch.log(t[k] / s[k]) for k in range(len(t)))


def hidden_cosine_formula(student, teacher, mask=None):
    def cosine(x, y):
        return dot(x, y) / torch.sqrt(dot(x, x) * dot(y, y))

    return mean(1 - cosine(student[n][i], teacher[n][i]) for n, i in kept_positions(student, mask))


def hidden_mse_formula(student, teacher, mask=None):
    gaps = (student[n][i] - teacher[n][i] for n, i in kept_positions(student, mask))
    return mean(dot(gap, gap) / len(gap) for gap in gaps)


def attention_mse_formula(student, teacher, mask=None):
    positions = kept_positions(student, mask)
    pairs = [(n, i, j) for n, i in positions for m, j in positions if n == m]
    return mean(
        (student[n][a][i][j] - teacher[n][a][i][j]) ** 2 for n, i, j in pairs for a in range(student.shape[1])
    )


def minilm_formula(student, teacher, mask=None):
    positions = kept_positions(student, mask)

    def divergence(n, a, i):
        keys = [j for m, j in positions if m == n]
        return kl(student[n][a][i][keys], teacher[n][a][i][keys])

    return mean(divergence(n, a, i) for n, i in positions for a in range(student.shape[1]))


def value_relation_formula(student, teacher, mask=None):
    def scores(values):
        rows = [[[[dot(x, y) for y in head] for x in head] for head in sentence] for sentence in values]
        flat = torch.stack([cell for n in rows for a in n for i in a for cell in i])
        return flat.view(*values.shape[:3], values.shape[2]) / values.shape[-1] ** 0.5

    return minilm_formula(scores(student), scores(teacher), mask)


def patient_formula(student, teacher):
    def unit(x):
        return x / torch.sqrt(dot(x, x))

    return mean(dot(gap, gap) for gap in (unit(student[n]) - unit(teacher[n]) for n in range(len(student))))


class Case(NamedTuple):
    formula: object
    student_shape: tuple
    teacher_shape: tuple
    names: tuple  # of the first two arguments


CASES = {
    hidden_cosine_loss: Case(
        hidden_cosine_formula, (N, LENGTH, WIDTH), (N, LENGTH, WIDTH), ("student_hidden", "teacher_hidden")
    ),
    hidden_mse_loss: Case(
        hidden_mse_formula, (N, LENGTH, WIDTH), (N, LENGTH, WIDTH), ("student_hidden", "teacher_hidden")
    ),
    attention_mse_loss: Case(
        attention_mse_formula,
        (N, HEADS, LENGTH, LENGTH),
        (N, HEADS, LENGTH, LENGTH),
        ("student_scores", "teacher_scores"),
    ),
    minilm_loss: Case(
        minilm_formula,
        (N, HEADS, LENGTH, LENGTH),
        (N, HEADS, LENGTH, LENGTH),
        ("student_attention_scores", "teacher_attention_scores"),
    ),
    value_relation_loss: Case(
        value_relation_formula,
        (N, HEADS, LENGTH, 3),
        (N, HEADS, LENGTH, 2),
        ("student_values", "teacher_values"),
    ),
    patient_loss: Case(patient_formula, (N, WIDTH), (N, WIDTH), ("student_hidden", "teacher_hidden")),
}
MASKED = [loss for loss in CASES if loss is not patient_loss]
every_loss = pytest.mark.parametrize("loss_fn", CASES, ids=lambda loss: loss.__name__)
every_masked_loss = pytest.mark.parametrize("loss_fn", MASKED, ids=lambda loss: loss.__name__)


def pair(loss_fn, seed=0, std=2.0, dtype=torch.float64):
    """Student's and teacher's tensor for a loss."""
    case = CASES[loss_fn]
    student = facts.random_tensor(*case.student_shape, seed=seed, std=std, dtype=dtype)
    return student, facts.random_tensor(*case.teacher_shape, seed=seed + 100, std=std, dtype=dtype)


def at_padding(tensor, mask=MASK):
    """Booleans, of the tensor's shape: what belongs to a token that does not count, as query or as key."""
    padding = mask == 0
    if tensor.dim() == 3:
        return padding[:, :, None].expand_as(tensor)
    where = padding[:, None, :, None].expand_as(tensor)
    is_scores = tensor.shape[2] == tensor.shape[3]
    return where | padding[:, None, None, :].expand_as(tensor) if is_scores else where


# Formula and gradient


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula(loss_fn, seed):
    facts.assert_matches_formula(loss_fn, CASES[loss_fn].formula, *pair(loss_fn, seed))


@every_masked_loss
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula_over_the_kept_tokens(loss_fn, seed):
    facts.assert_matches_formula(loss_fn, CASES[loss_fn].formula, *pair(loss_fn, seed), MASK)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(mask=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=3, max_size=3))
def test_equals_the_formula_for_any_mask(mask):
    mask = torch.tensor(mask)
    mask[1, 2] = True  # at least one token counts
    for loss_fn in MASKED:
        student, teacher = pair(loss_fn, 7)
        expected = CASES[loss_fn].formula(student, teacher, mask)
        torch.testing.assert_close(loss_fn(student, teacher, mask), expected, rtol=1e-6, atol=1e-14)


@every_loss
def test_gradient_is_exact(loss_fn):
    masks = (None, MASK) if loss_fn in MASKED else ()
    facts.assert_gradient_is_exact(loss_fn, *pair(loss_fn))
    for mask in masks:
        facts.assert_gradient_is_exact(loss_fn, *pair(loss_fn), mask)


# Known values, worked out by hand


def test_two_tokens_by_hand():
    student = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]], dtype=torch.float64)
    teacher = torch.tensor([[[1.0, 1.0], [0.0, 2.0]]], dtype=torch.float64)
    # cosines √½ and 4/5; gaps (0, 1) and (3, 2)
    assert hidden_cosine_loss(student, teacher).item() == pytest.approx(1 - (0.5**0.5 + 0.8) / 2)
    assert hidden_mse_loss(student, teacher).item() == pytest.approx((1 + 13) / 4)
    second = torch.tensor([[0, 1]])
    assert hidden_cosine_loss(student, teacher, second).item() == pytest.approx(0.2)
    assert hidden_mse_loss(student, teacher, second).item() == pytest.approx(13 / 2)
    assert patient_loss(student[:, 1], teacher[:, 1]).item() == pytest.approx(2 * 0.2)


def test_attention_by_hand():
    zeros = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    # one query looks at the two keys as 1 : 3, the other as 1 : 1; the student always as 1 : 1
    teacher = torch.tensor([[[[0.0, 3.0], [1.0, 1.0]]]], dtype=torch.float64)
    teacher[0, 0, 0, 1] = torch.log(teacher[0, 0, 0, 1])
    expected = 0.25 * torch.log(torch.tensor(0.5)) + 0.75 * torch.log(torch.tensor(1.5))
    assert minilm_loss(zeros, teacher).item() == pytest.approx(expected.item() / 2, rel=1e-6)
    assert attention_mse_loss(zeros, teacher).item() == pytest.approx((1.0986122886681098**2 + 2) / 4)


@every_masked_loss
def test_one_token_alone(loss_fn):
    """Attention of one token is 1, whatever the scores; everything else compares as ever."""
    student, teacher = (t[:, :1] if t.dim() == 3 else t[:, :, :1, :1] for t in pair(loss_fn))
    value = loss_fn(student, teacher)
    if loss_fn in (minilm_loss, value_relation_loss):
        assert value.abs() < 1e-12
    elif loss_fn is hidden_cosine_loss:
        assert 0 <= value <= 2
    else:
        assert value > 0


# Padding


@every_masked_loss
@pytest.mark.parametrize("junk", [1e30, -1e30, float("nan"), float("inf"), float("-inf")])
def test_what_lies_at_padding_changes_nothing(loss_fn, junk):
    student, teacher = pair(loss_fn)
    expected = facts.value_and_gradient(loss_fn, student, teacher, MASK)
    student = student.masked_fill(at_padding(student), junk)
    teacher = teacher.masked_fill(at_padding(teacher), junk)
    value, gradient = facts.value_and_gradient(loss_fn, student, teacher, MASK)
    assert torch.equal(value, expected[0])
    torch.testing.assert_close(gradient, expected[1], rtol=1e-12, atol=0)
    assert (gradient[at_padding(student)] == 0).all()
    assert gradient.abs().max() > 0


@every_masked_loss
def test_a_padded_sentence_counts_as_the_sentence_itself(loss_fn):
    for sentence, length in enumerate(MASK.sum(dim=1).tolist()):
        student, teacher = (t[sentence : sentence + 1] for t in pair(loss_fn))
        crop = {3: (slice(None), slice(length))}.get(student.dim(), (slice(None), slice(None), slice(length)))
        cropped = student[crop], teacher[crop]
        if loss_fn in (attention_mse_loss, minilm_loss):
            cropped = tuple(scores[..., :length] for scores in cropped)
        padded = loss_fn(student, teacher, MASK[sentence : sentence + 1])
        torch.testing.assert_close(padded, loss_fn(*cropped), rtol=1e-12, atol=1e-14)


@every_masked_loss
def test_padding_on_the_left_and_sentences_without_a_token_work_too(loss_fn):
    student, teacher = pair(loss_fn)
    mask = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]])
    facts.assert_matches_formula(loss_fn, CASES[loss_fn].formula, student, teacher, mask)


@every_masked_loss
def test_every_kept_token_weighs_the_same(loss_fn):
    """The loss of the batch is the sentences' own, weighted by tokens (by pairs where these count)."""
    student, teacher = pair(loss_fn)
    weights = MASK.sum(dim=1) ** (2 if loss_fn is attention_mse_loss else 1)
    alone = torch.stack([loss_fn(student[n : n + 1], teacher[n : n + 1], MASK[n : n + 1]) for n in range(N)])
    expected = (weights * alone).sum() / weights.sum()
    torch.testing.assert_close(loss_fn(student, teacher, MASK), expected)


@every_masked_loss
def test_any_dtype_of_the_mask_will_do(loss_fn):
    student, teacher = pair(loss_fn)
    expected = loss_fn(student, teacher, MASK)
    for dtype in (torch.bool, torch.int32, torch.float32):
        assert torch.equal(loss_fn(student, teacher, MASK.to(dtype)), expected)
    assert torch.equal(loss_fn(student, teacher, torch.ones_like(MASK)), loss_fn(student, teacher))
    assert loss_fn(student, teacher) != expected


def test_scores_with_the_mask_already_added_give_the_same():
    """Encoders add the lowest number to the scores of padded keys; the loss masks them in any case."""
    student, teacher = pair(minilm_loss)
    added = torch.where(MASK == 1, 0.0, torch.finfo(torch.float32).min)[:, None, None, :]
    expected = minilm_loss(student, teacher, MASK)
    torch.testing.assert_close(minilm_loss(student + added, teacher + added, MASK), expected)


# What every loss owes


def arguments(loss_fn, **settings):
    """Student, teacher and, where the loss takes one, a mask with padding."""
    return (*pair(loss_fn, **settings), MASK) if loss_fn in MASKED else pair(loss_fn, **settings)


@every_loss
def test_one_number_in_at_least_float32(loss_fn):
    for dtype in (torch.float64, torch.float32, *facts.LOW_PRECISION):
        facts.assert_one_number(loss_fn, *arguments(loss_fn, dtype=dtype))


@every_loss
def test_a_cached_teacher_may_be_stored_in_half_precision(loss_fn):
    student, teacher = pair(loss_fn, dtype=torch.float32)
    loss = loss_fn(student, teacher.half())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_fn(student, teacher), rtol=0.01, atol=0)


@every_loss
def test_no_gradient_reaches_the_teacher(loss_fn):
    facts.assert_teacher_gets_no_gradient(loss_fn, *arguments(loss_fn))


@every_loss
def test_learns_only_from_difference(loss_fn):
    student, teacher, *mask = arguments(loss_fn, seed=3)
    if student.shape != teacher.shape:  # values of different widths
        teacher = facts.random_tensor(*student.shape, seed=4)
    facts.assert_learns_only_from_difference(loss_fn, student, teacher, *mask)


@every_loss
def test_a_nan_is_shown(loss_fn):
    facts.assert_nan_is_shown(loss_fn, *pair(loss_fn))


@every_loss
def test_works_under_autocast(loss_fn):
    facts.assert_works_under_autocast(loss_fn, *arguments(loss_fn))
    student, teacher, *mask = arguments(loss_fn, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_fn(student, teacher, *mask)
    torch.testing.assert_close(loss, loss_fn(student, teacher, *mask))  # nothing was rounded to bfloat16


@every_loss
def test_float32_agrees_with_float64(loss_fn):
    facts.assert_agrees_with_float64(loss_fn, *arguments(loss_fn, dtype=torch.float32), rtol=1e-4)


@every_loss
def test_half_precision_does_not_overflow(loss_fn):
    """Squares and inner products of these leave the range of float16."""
    student, teacher, *mask = arguments(loss_fn, std=300.0)
    facts.assert_finite(lambda s, t: loss_fn(s.half(), t.half(), *mask), student, teacher)


# Extremes


def spoiled(kind, tensor):
    tensor = tensor.clone()
    if kind == "duplicates":
        tensor[:, 1] = tensor[:, 0]
    elif kind == "all alike":
        tensor[:] = tensor[:1].clone()
    elif kind == "constant":
        tensor[:] = 1.0
    elif kind == "a dead sample":
        tensor[1] = 0
    elif kind == "all dead":
        tensor[:] = 0
    elif kind == "a gap of 450":
        tensor[..., 0] += 450
    elif kind == "large":
        tensor *= 1e4
    elif kind == "small":
        tensor *= 1e-4
    elif kind == "tiny":
        tensor *= 1e-20
    else:
        assert kind == "intact"
    return tensor


KINDS = (
    "intact",
    "duplicates",
    "all alike",
    "constant",
    "a dead sample",
    "all dead",
    "a gap of 450",
    "large",
    "small",
    "tiny",
)


@every_loss
@pytest.mark.parametrize("student_kind", KINDS)
def test_finite_at_extremes(loss_fn, student_kind):
    for dtype in (torch.float64, torch.float32):
        student, teacher, *mask = arguments(loss_fn, dtype=dtype)
        for teacher_kind in KINDS:
            facts.assert_finite(
                loss_fn, spoiled(student_kind, student), spoiled(teacher_kind, teacher), *mask
            )


def test_a_gap_of_40_is_finite_in_float16():
    student, teacher, mask = arguments(minilm_loss, dtype=torch.float16)
    for tensor in (student, teacher):
        tensor[..., 0] += 40
        facts.assert_finite(minilm_loss, student, teacher, mask)
        tensor[..., 0] -= 80
        facts.assert_finite(minilm_loss, student, teacher, mask)


@pytest.mark.parametrize("loss_fn", [hidden_cosine_loss, patient_loss])
def test_a_dead_state_does_not_explode_the_gradient(loss_fn):
    student, teacher = pair(loss_fn)
    _, ordinary = facts.value_and_gradient(loss_fn, student, teacher)
    for kind in ("a dead sample", "all dead"):
        _, gradient = facts.value_and_gradient(loss_fn, spoiled(kind, student), teacher)
        assert gradient.abs().max() < 100 * ordinary.abs().max()


# Identities and invariances


def test_patient_loss_is_twice_the_cosine_loss():
    student, teacher = pair(patient_loss)
    cosine = hidden_cosine_loss(student[:, None], teacher[:, None])
    torch.testing.assert_close(patient_loss(student, teacher), 2 * cosine)


@pytest.mark.parametrize("loss_fn", [hidden_cosine_loss, patient_loss])
def test_the_length_of_a_state_does_not_matter(loss_fn):
    student, teacher = pair(loss_fn)
    expected = loss_fn(student, teacher)
    torch.testing.assert_close(loss_fn(7 * student, teacher), expected)
    torch.testing.assert_close(loss_fn(student, 0.1 * teacher), expected)
    assert loss_fn(-student, teacher) != expected


def test_a_shift_of_all_scores_does_not_matter():
    student, teacher, mask = arguments(minilm_loss)
    expected = minilm_loss(student, teacher, mask)
    torch.testing.assert_close(minilm_loss(student + 3, teacher - 1000, mask), expected)
    torch.testing.assert_close(minilm_loss(student - 1000, teacher + 3, mask), expected)


def test_value_relations_are_attention_of_values_to_values():
    student, teacher = pair(value_relation_loss)
    scores = [values @ values.transpose(2, 3) / values.shape[-1] ** 0.5 for values in (student, teacher)]
    expected = minilm_loss(*scores, MASK)
    torch.testing.assert_close(value_relation_loss(student, teacher, MASK), expected)


def test_rotating_a_heads_values_changes_nothing():
    student, teacher = pair(value_relation_loss)
    rotation, _ = torch.linalg.qr(facts.random_tensor(3, 3, seed=5))
    expected = value_relation_loss(student, teacher)
    torch.testing.assert_close(value_relation_loss(student @ rotation, teacher), expected)


# Variants of public code that are not these losses


def test_the_attention_softmax_is_taken_once():
    student, teacher = pair(minilm_loss)
    twice = minilm_loss(student.softmax(-1), teacher.softmax(-1))
    assert not torch.isclose(minilm_loss(student, teacher), twice, rtol=0.1)


def test_very_negative_scores_count_in_the_attention_mse():
    """Code that takes every score below −100 for padding sets it to zero, and learns nothing there."""
    student, teacher = pair(attention_mse_loss)
    student[0, 0, 0, 0] = -150.0
    facts.assert_matches_formula(attention_mse_loss, attention_mse_formula, student, teacher, MASK)
    _, gradient = facts.value_and_gradient(attention_mse_loss, student, teacher)
    assert gradient[0, 0, 0, 0] != 0


def test_patient_loss_sums_over_the_width():
    student, teacher = pair(patient_loss)
    mean_over_width = F.mse_loss(F.normalize(student), F.normalize(teacher))
    torch.testing.assert_close(patient_loss(student, teacher), WIDTH * mean_over_width)


def test_one_head_is_enough():
    student, teacher = (values[:, :1] for values in pair(value_relation_loss))
    facts.assert_matches_formula(value_relation_loss, value_relation_formula, student, teacher, MASK)


# Bad input


@every_loss
def test_rejects_bad_shapes(loss_fn):
    student, teacher = pair(loss_fn)
    student_name, teacher_name = CASES[loss_fn].names
    facts.assert_rejects(loss_fn, student, teacher[:-1], naming=teacher_name)
    facts.assert_rejects(loss_fn, student[:0], teacher[:0], naming=student_name)
    facts.assert_rejects(loss_fn, student[0], teacher[0], naming=student_name)
    facts.assert_rejects(loss_fn, student.long(), teacher.long(), naming=student_name)
    if loss_fn is not value_relation_loss:
        facts.assert_rejects(loss_fn, student, teacher[..., :-1], naming=teacher_name)


@pytest.mark.parametrize(
    "loss_fn, symbols",
    [
        (hidden_cosine_loss, "(N, L, D)"),
        (hidden_mse_loss, "(N, L, D)"),
        (attention_mse_loss, "(N, A, L, L)"),
        (minilm_loss, "(N, A, L, L)"),
        (value_relation_loss, "(N, A, L, D)"),
    ],
)
def test_the_shape_that_was_expected_is_told_in_symbols(loss_fn, symbols):
    student, teacher = pair(loss_fn)
    name = CASES[loss_fn].names[0]
    sentence = facts.assert_rejects(loss_fn, student[0], teacher[0], naming=name)
    got = tuple(student[0].shape)
    assert sentence == f"{name}: expected shape {symbols}, none of them 0, got {got}"


@pytest.mark.parametrize("loss_fn", [attention_mse_loss, minilm_loss])
def test_rejects_scores_that_are_not_square(loss_fn):
    student, teacher = pair(loss_fn)
    sentence = facts.assert_rejects(
        loss_fn, student[..., :3], teacher[..., :3], naming=CASES[loss_fn].names[0]
    )
    assert "as many keys as queries" in sentence


def test_rejects_values_of_other_heads_or_length():
    student, teacher = pair(value_relation_loss)
    sentence = facts.assert_rejects(value_relation_loss, student, teacher[:, :1], naming="teacher_values")
    assert sentence == "teacher_values: expected (N, A, L) as in student_values, (3, 2, 4), got (3, 1, 4)"
    facts.assert_rejects(value_relation_loss, student, teacher[:, :, :2], naming="teacher_values")
    facts.assert_rejects(value_relation_loss, student, teacher.long(), naming="teacher_values")


@every_masked_loss
def test_rejects_bad_masks(loss_fn):
    student, teacher = pair(loss_fn)
    facts.assert_rejects(loss_fn, student, teacher, MASK[:, :2], naming="attention_mask")
    facts.assert_rejects(loss_fn, student, teacher, MASK[:, :, None], naming="attention_mask")
    token_types = MASK * torch.tensor([1, 2, 1, 2])
    sentence = facts.assert_rejects(loss_fn, student, teacher, token_types, naming="attention_mask")
    assert sentence.endswith("expected zeros and ones, got [0, 1, 2]")
    added = torch.where(MASK == 1, 0.0, float("-inf"))  # the form in which it is added to scores
    facts.assert_rejects(loss_fn, student, teacher, added, naming="attention_mask")
    facts.assert_rejects(loss_fn, student, teacher, torch.zeros_like(MASK), naming="attention_mask")


# −inf


def test_keys_that_both_sides_mask_have_no_attention():
    """Causal scores: the loss is that over the keys up to the query's own."""
    student, teacher = pair(minilm_loss)
    later = torch.ones(LENGTH, LENGTH).triu(1).bool()
    causal = [scores.masked_fill(later, float("-inf")) for scores in (student, teacher)]
    value, gradient = facts.value_and_gradient(minilm_loss, *causal)
    rows = [
        kl(student[n][a][i][: i + 1], teacher[n][a][i][: i + 1])
        for n in range(N)
        for a in range(HEADS)
        for i in range(LENGTH)
    ]
    torch.testing.assert_close(value, mean(rows))
    assert gradient.isfinite().all() and gradient[:, :, later].abs().max() == 0


def test_scores_with_minus_infinity_have_no_difference():
    student, teacher = pair(attention_mse_loss)
    student[0, 0, 0, 1] = float("-inf")
    sentence = facts.assert_rejects(attention_mse_loss, student, teacher, naming="student_scores")
    assert sentence.endswith("got 1: take them before a mask is added")
    student[0, 0, 0, 1], student[0, 0, 0, 3] = 0.0, float("-inf")  # padding
    facts.assert_finite(attention_mse_loss, student, teacher, MASK)


@pytest.mark.parametrize("loss_fn", [hidden_cosine_loss, patient_loss])
def test_a_state_beyond_the_range_of_its_dtype_is_not_taken_for_zero(loss_fn):
    student, teacher = (state.float() for state in pair(loss_fn))
    assert loss_fn(1e20 * student, teacher).isnan()
    torch.testing.assert_close(loss_fn(1e15 * student, teacher), loss_fn(student, teacher))
