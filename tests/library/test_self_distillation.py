"""The self-distillation losses against their formulas written out, and the facts of loss_facts."""

import functools
import math

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdutils.losses import cs_kd_loss, kd_loss, ps_kd_loss, tf_kd_loss

N, K = 6, 7
SEEDS = range(3)
PRECISIONS = (torch.float64, torch.float32, *facts.LOW_PRECISION)


def probabilities(logits, temperature=1.0):
    powers = torch.exp(logits / temperature)
    return powers / powers.sum()


def kl(p, q):
    return sum(p[i] * torch.log(p[i] / q[i]) for i in range(len(p)))


def ps_kd_formula(student_logits, past_logits, labels, alpha):
    total = 0
    for z, v, label in zip(student_logits, past_logits, labels, strict=True):
        q, past = probabilities(z), probabilities(v)
        for k in range(len(q)):
            target = (1 - alpha) * (1.0 if k == label else 0.0) + alpha * past[k]
            total = total - target * torch.log(q[k])
    return total / len(student_logits)


def cs_kd_formula(student_logits, same_class_logits, temperature=4.0):
    rows = list(zip(student_logits, same_class_logits, strict=True))
    divergences = [kl(probabilities(v, temperature), probabilities(z, temperature)) for z, v in rows]
    return temperature**2 * sum(divergences) / len(rows)


def tf_kd_formula(student_logits, labels, temperature=20.0, correct_prob=0.99):
    """The virtual teacher's probabilities at T are p^(1/T), renormalised."""
    total = 0
    for z, label in zip(student_logits, labels, strict=True):
        virtual = torch.full_like(z, (1 - correct_prob) / (len(z) - 1))
        virtual[label] = correct_prob
        softened = virtual ** (1 / temperature)
        total = total + kl(softened / softened.sum(), probabilities(z, temperature))
    return total / len(student_logits)


def pair(seed=0, dtype=torch.float64):
    return (
        facts.random_tensor(N, K, seed=2 * seed, dtype=dtype),
        facts.random_tensor(N, K, seed=2 * seed + 1, dtype=dtype),
    )


LABELS = facts.random_labels(N, K)


def half_trusting_ps_kd(student_logits, past_logits):
    return ps_kd_loss(student_logits, past_logits, LABELS, alpha=0.5)


# PS-KD


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_ps_kd_matches_the_formula(seed, alpha):
    labels = facts.random_labels(N, K, seed=seed)
    facts.assert_matches_formula(
        functools.partial(ps_kd_loss, alpha=alpha),
        functools.partial(ps_kd_formula, alpha=alpha),
        *pair(seed),
        labels,
    )


def test_ps_kd_lies_between_the_labels_and_the_past():
    """alpha = 0: cross-entropy on the labels. alpha = 1: the KL divergence from the past plus its entropy."""
    student, past = pair()
    torch.testing.assert_close(ps_kd_loss(student, past, LABELS, alpha=0.0), F.cross_entropy(student, LABELS))
    past_probs = torch.softmax(past, dim=1)
    entropy = -(past_probs * past_probs.log()).sum(dim=1).mean()
    torch.testing.assert_close(
        ps_kd_loss(student, past, LABELS, alpha=1.0), kd_loss(student, past, temperature=1.0) + entropy
    )


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_ps_kd_is_linear_in_alpha(alpha, seed):
    student, past = pair(seed)
    ends = [ps_kd_loss(student, past, LABELS, alpha=end) for end in (0.0, 1.0)]
    torch.testing.assert_close(
        ps_kd_loss(student, past, LABELS, alpha=alpha), (1 - alpha) * ends[0] + alpha * ends[1]
    )


# CS-KD


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("temperature", [None, 0.7, 1.0, 4.0, 20.0])
def test_cs_kd_matches_the_formula(seed, temperature):
    setting = {} if temperature is None else {"temperature": temperature}
    facts.assert_matches_formula(
        functools.partial(cs_kd_loss, **setting), functools.partial(cs_kd_formula, **setting), *pair(seed)
    )


# Tf-KD


def tf_kd(student_logits, labels, temperature, correct_prob):
    return tf_kd_loss(student_logits, labels, temperature=temperature, correct_prob=correct_prob)


@pytest.mark.parametrize("seed", SEEDS)
def test_tf_kd_defaults_match_the_formula(seed):
    labels = facts.random_labels(N, K, seed=seed)
    facts.assert_matches_formula(tf_kd_loss, tf_kd_formula, pair(seed)[0], labels)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0, 40.0])
@pytest.mark.parametrize("correct_prob", [0.5, 0.9, 0.99, 0.9999])
def test_tf_kd_matches_the_formula(temperature, correct_prob):
    facts.assert_matches_formula(tf_kd, tf_kd_formula, pair()[0], LABELS, temperature, correct_prob)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_tf_kd_is_zero_where_the_student_is_the_virtual_teacher(temperature):
    others = math.log(0.01 / (K - 1))
    student = torch.full((N, K), others, dtype=torch.float64)
    student[torch.arange(N), LABELS] = math.log(0.99)
    loss = functools.partial(tf_kd_loss, temperature=temperature)
    value, gradient = facts.value_and_gradient(loss, student + 3.0, LABELS)
    assert value.abs() < 1e-12 and gradient.abs().max() < 1e-12
    value, gradient = facts.value_and_gradient(loss, 2 * student, LABELS)
    assert value > 1e-3 and gradient.abs().max() > 1e-4


def test_tf_kd_is_kd_from_the_virtual_teacher_without_t_squared():
    virtual = torch.full((N, K), 0.01 / (K - 1), dtype=torch.float64)
    virtual[torch.arange(N), LABELS] = 0.99
    expected = kd_loss(pair()[0], virtual.log(), temperature=20.0) / 400
    torch.testing.assert_close(tf_kd_loss(pair()[0], LABELS), expected)


def test_tf_kd_at_t_1_is_label_smoothing():
    """Cross-entropy on smoothed labels, up to their entropy, which no gradient sees."""
    smoothing = 0.01 * K / (K - 1)
    _, smoothed = facts.value_and_gradient(
        lambda z, y: F.cross_entropy(z, y, label_smoothing=smoothing), pair()[0], LABELS
    )
    _, gradient = facts.value_and_gradient(functools.partial(tf_kd_loss, temperature=1.0), pair()[0], LABELS)
    torch.testing.assert_close(gradient, smoothed)


def test_tf_kd_is_far_from_the_released_code():
    """There the probabilities, not their logarithms, are divided by T: a teacher that is all but uniform."""
    student = pair()[0]
    virtual = torch.full((N, K), 0.01 / (K - 1), dtype=torch.float64)
    virtual[torch.arange(N), LABELS] = 0.99
    released = kd_loss(student, virtual, temperature=20.0) / 400
    assert (tf_kd_loss(student, LABELS) - released).abs() / released > 0.1


# What every loss must satisfy: cs_kd and ps_kd with the other answer as the teacher


TWO_SIDED = (cs_kd_loss, half_trusting_ps_kd)
two_sided_losses = pytest.mark.parametrize("loss", TWO_SIDED, ids=lambda loss: loss.__name__)


@two_sided_losses
def test_gradient_is_exact(loss):
    facts.assert_gradient_is_exact(loss, *pair())


def test_tf_kd_gradient_is_exact():
    facts.assert_gradient_is_exact(tf_kd_loss, pair()[0], LABELS)


@two_sided_losses
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_one_number_in_at_least_float32(loss, dtype):
    facts.assert_one_number(loss, *pair(dtype=dtype))
    facts.assert_one_number(tf_kd_loss, pair(dtype=dtype)[0], LABELS)


@two_sided_losses
def test_teacher_gets_no_gradient(loss):
    facts.assert_teacher_gets_no_gradient(loss, *pair())


def test_cs_kd_learns_only_from_difference():
    facts.assert_learns_only_from_difference(cs_kd_loss, *pair())


@two_sided_losses
@pytest.mark.parametrize("dtype", PRECISIONS[1:], ids=str)
def test_low_precision_agrees_with_float64(loss, dtype):
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    facts.assert_agrees_with_float64(loss, *pair(dtype=dtype), rtol=rtol)


@pytest.mark.parametrize("dtype", PRECISIONS[1:], ids=str)
def test_tf_kd_in_low_precision_agrees_with_float64(dtype):
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    student = pair(dtype=dtype)[0]
    facts.assert_agrees_with_float64(lambda z, _: tf_kd_loss(z, LABELS), student, student, rtol=rtol)


@two_sided_losses
def test_works_under_autocast(loss):
    facts.assert_works_under_autocast(loss, *pair())


def test_tf_kd_works_under_autocast():
    student = pair(dtype=torch.float32)[0]
    expected = tf_kd_loss(student, LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(tf_kd_loss(student, LABELS), expected)
        value, gradient = facts.value_and_gradient(tf_kd_loss, student.bfloat16(), LABELS)
    assert torch.isfinite(value) and gradient.abs().max() > 0


@two_sided_losses
def test_nan_is_shown(loss):
    facts.assert_nan_is_shown(loss, *pair(dtype=torch.float32))


def test_nan_is_shown_by_tf_kd():
    for i in range(N):
        student = pair(dtype=torch.float32)[0]
        student[i, i] = math.nan
        assert torch.isnan(tf_kd_loss(student, LABELS))


@pytest.mark.parametrize(("dtype", "gap"), [(torch.float32, 450.0), (torch.float16, 40.0)], ids=str)
def test_finite_at_the_extremes(dtype, gap):
    certain = (gap * torch.eye(K))[LABELS].to(dtype)
    extremes = [
        certain,
        certain.roll(1, dims=1),
        -certain,
        pair(dtype=dtype)[0][:1].repeat(N, 1),
        torch.full((N, K), 0.1, dtype=dtype),
        torch.zeros(N, K, dtype=dtype),
    ]
    for student in extremes:
        facts.assert_finite(tf_kd_loss, student, LABELS)
        facts.assert_finite(functools.partial(tf_kd_loss, temperature=1.0), student, LABELS)
        for other in extremes:
            for loss in TWO_SIDED:
                facts.assert_finite(loss, student, other)
            for alpha in (0.0, 1.0):
                facts.assert_finite(functools.partial(ps_kd_loss, alpha=alpha), student, other, LABELS)


def test_two_classes_are_enough():
    student, other = (logits[:, :2] for logits in pair())
    labels = torch.arange(len(student)) % 2
    facts.assert_learns_only_from_difference(cs_kd_loss, student, other)
    facts.assert_finite(functools.partial(ps_kd_loss, alpha=0.5), student, other, labels)
    facts.assert_finite(tf_kd_loss, student, labels)


def test_a_past_of_another_precision_is_taken():
    student, past = pair()
    expected = ps_kd_loss(student, past, LABELS, alpha=0.5)
    loss = ps_kd_loss(student.float(), past, LABELS, alpha=0.5)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-5)


# Bad input


@pytest.mark.parametrize("shape", [(0, K), (N,), (N, K, 1), (N, 1)], ids=str)
def test_refuses_logits_of_another_shape(shape):
    logits, labels = torch.zeros(shape), torch.zeros(shape[:1], dtype=torch.long)
    for message in (
        facts.assert_rejects(ps_kd_loss, logits, logits, labels, alpha=0.5, naming="student_logits"),
        facts.assert_rejects(cs_kd_loss, logits, logits, naming="student_logits"),
        facts.assert_rejects(tf_kd_loss, logits, labels, naming="student_logits"),
    ):
        assert str(shape) in message


def test_refuses_logits_that_differ_in_shape():
    student, other = pair()
    facts.assert_rejects(ps_kd_loss, student, other[:, 1:], LABELS, alpha=0.5, naming="past_logits")
    facts.assert_rejects(cs_kd_loss, student, other[1:], naming="same_class_logits")


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    student, other = pair()
    facts.assert_rejects(cs_kd_loss, student, other, temperature=temperature, naming="temperature")
    facts.assert_rejects(tf_kd_loss, student, LABELS, temperature=temperature, naming="temperature")


@pytest.mark.parametrize(
    "labels",
    [torch.full((N,), K), torch.full((N,), -1), torch.zeros(N - 1, dtype=torch.long), torch.zeros(N)],
    ids=["K", "-1", "too few", "floating"],
)
def test_refuses_bad_labels(labels):
    student, past = pair()
    facts.assert_rejects(ps_kd_loss, student, past, labels, alpha=0.5, naming="labels")
    facts.assert_rejects(tf_kd_loss, student, labels, naming="labels")


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8], ids=str)
def test_takes_labels_of_every_integer_dtype(dtype):
    student, past = pair()
    torch.testing.assert_close(
        ps_kd_loss(student, past, LABELS.to(dtype), alpha=0.5), ps_kd_loss(student, past, LABELS, alpha=0.5)
    )
    torch.testing.assert_close(tf_kd_loss(student, LABELS.to(dtype)), tf_kd_loss(student, LABELS))


def test_refuses_weights_out_of_range():
    student, past = pair()
    for alpha in (-0.1, 1.1, math.nan):
        facts.assert_rejects(ps_kd_loss, student, past, LABELS, alpha=alpha, naming="alpha")
    for correct_prob in (0.0, 1.0, -0.5, 1.5, math.nan):
        facts.assert_rejects(tf_kd_loss, student, LABELS, correct_prob=correct_prob, naming="correct_prob")
