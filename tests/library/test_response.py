"""The response losses against their formulas written out sample by sample, and the facts of loss_facts."""

import functools
import math

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdutils.losses import (
    dist_loss,
    dkd_loss,
    kd_loss,
    logit_mse_loss,
    multilabel_kd_loss,
    nkd_loss,
    regression_kd_loss,
    standardized_kd_loss,
)

N, K = 6, 7
SEEDS = range(3)
TEMPERATURES = (0.7, 1.0, 2.0, 4.0, 20.0)


# The papers' formulas, in float64, one sample and one class at a time.


def probabilities(logits, temperature):
    powers = torch.exp(logits / temperature)
    return powers / powers.sum()


def kl(p, q):
    return sum(p[i] * torch.log(p[i] / q[i]) for i in range(len(p)))


def batch_mean(formula):
    """A formula for one sample's rows, averaged over the samples of a batch."""

    def averaged(student_logits, teacher_logits, *labels, **keywords):
        rows = zip(student_logits, teacher_logits, *labels, strict=True)
        return sum(formula(*row, **keywords) for row in rows) / len(student_logits)

    return averaged


@batch_mean
def kd_formula(z, v, temperature=4.0):
    return temperature**2 * kl(probabilities(v, temperature), probabilities(z, temperature))


@batch_mean
def logit_mse_formula(z, v):
    return sum((z[i] - v[i]) ** 2 for i in range(len(z))) / len(z)


def without(probs, label):
    others = torch.cat([probs[:label], probs[label + 1 :]])
    return others / others.sum()


@batch_mean
def dkd_formula(z, v, label, alpha=1.0, beta=8.0, temperature=4.0):
    q, p = probabilities(z, temperature), probabilities(v, temperature)
    tckd = p[label] * torch.log(p[label] / q[label])
    tckd = tckd + (1 - p[label]) * torch.log((1 - p[label]) / (1 - q[label]))
    nckd = kl(without(p, label), without(q, label))
    return temperature**2 * (alpha * tckd + beta * nckd)


@batch_mean
def nkd_formula(z, v, label, gamma=1.5, temperature=1.0):
    target = -probabilities(v, 1)[label] * torch.log(probabilities(z, 1)[label])
    q, p = without(probabilities(z, temperature), label), without(probabilities(v, temperature), label)
    return target - gamma * temperature**2 * (p * torch.log(q)).sum()


def pearson_distance(x, y):
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return 1 - covariance / (x.var(unbiased=False) * y.var(unbiased=False)).sqrt()


def dist_formula(student_logits, teacher_logits, beta=1.0, gamma=1.0, temperature=1.0):
    q = torch.stack([probabilities(z, temperature) for z in student_logits])
    p = torch.stack([probabilities(v, temperature) for v in teacher_logits])
    inter = sum(pearson_distance(q[i], p[i]) for i in range(len(q))) / len(q)
    intra = sum(pearson_distance(q[:, k], p[:, k]) for k in range(q.shape[1])) / q.shape[1]
    return temperature**2 * (beta * inter + gamma * intra)


def z_score(logits):
    mean = logits.sum() / len(logits)
    variance = ((logits - mean) ** 2).sum() / (len(logits) - 1)
    return (logits - mean) / (variance.sqrt() + 1e-7)


@batch_mean
def standardized_kd_formula(z, v, temperature=2.0):
    q, p = probabilities(z_score(z), temperature), probabilities(z_score(v), temperature)
    return temperature**2 * kl(p, q)


@batch_mean
def multilabel_kd_formula(z, v, temperature=1.0):
    """Two probabilities, yes and no, for each class apart."""
    total = 0
    for k in range(len(z)):
        q, p = 1 / (1 + torch.exp(-z[k] / temperature)), 1 / (1 + torch.exp(-v[k] / temperature))
        total = total + p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
    return temperature**2 * total / len(z)


FORMULAS = {
    kd_loss: kd_formula,
    logit_mse_loss: logit_mse_formula,
    dkd_loss: dkd_formula,
    nkd_loss: nkd_formula,
    dist_loss: dist_formula,
    standardized_kd_loss: standardized_kd_formula,
    multilabel_kd_loss: multilabel_kd_formula,
    regression_kd_loss: logit_mse_formula,
}
LABELLED = (dkd_loss, nkd_loss)
TEMPERED = tuple(loss for loss in FORMULAS if loss not in (logit_mse_loss, regression_kd_loss))
ON_CLASSES = tuple(loss for loss in FORMULAS if loss not in (multilabel_kd_loss, regression_kd_loss))
ZERO_AT_EQUALITY = tuple(loss for loss in FORMULAS if loss is not nkd_loss)
ONE_SAMPLE_IS_ENOUGH = tuple(loss for loss in FORMULAS if loss is not dist_loss)

every_loss = pytest.mark.parametrize("loss", FORMULAS, ids=lambda loss: loss.__name__)
losses_on_classes = pytest.mark.parametrize("loss", ON_CLASSES, ids=lambda loss: loss.__name__)
tempered_losses = pytest.mark.parametrize("loss", TEMPERED, ids=lambda loss: loss.__name__)


def arguments(loss, seed=0, num_samples=N, num_classes=K, dtype=torch.float64, std=2.0):
    """Student logits, teacher logits and, where the loss takes them, labels."""
    student = facts.random_tensor(num_samples, num_classes, seed=2 * seed, dtype=dtype, std=std)
    teacher = facts.random_tensor(num_samples, num_classes, seed=2 * seed + 1, dtype=dtype, std=std)
    labels = facts.random_labels(num_samples, num_classes, seed=seed)
    return (student, teacher, labels) if loss in LABELLED else (student, teacher)


# Value and gradient


@every_loss
@pytest.mark.parametrize("seed", SEEDS)
def test_defaults_match_the_formula(loss, seed):
    facts.assert_matches_formula(loss, FORMULAS[loss], *arguments(loss, seed))


@tempered_losses
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_temperature_matches_the_formula(loss, seed, temperature):
    facts.assert_matches_formula(
        functools.partial(loss, temperature=temperature),
        functools.partial(FORMULAS[loss], temperature=temperature),
        *arguments(loss, seed),
    )


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        (dkd_loss, {"alpha": 0.3, "beta": 2.0}),
        (dkd_loss, {"alpha": 1.0, "beta": 0.0}),
        (dkd_loss, {"alpha": 0.0, "beta": 1.0}),
        (nkd_loss, {"gamma": 0.4}),
        (nkd_loss, {"gamma": 0.0}),
        (dist_loss, {"beta": 2.0, "gamma": 0.5}),
        (dist_loss, {"beta": 0.0, "gamma": 1.0}),
    ],
)
def test_every_weight_matches_the_formula(loss, weights):
    for temperature in (1.0, 3.0):
        facts.assert_matches_formula(
            functools.partial(loss, temperature=temperature, **weights),
            functools.partial(FORMULAS[loss], temperature=temperature, **weights),
            *arguments(loss),
        )


@every_loss
@pytest.mark.parametrize("shape", [(2, 3), (9, 4)], ids=str)
def test_other_shapes_match_the_formula(loss, shape):
    facts.assert_matches_formula(loss, FORMULAS[loss], *arguments(loss, 5, *shape))


@pytest.mark.parametrize("loss", ONE_SAMPLE_IS_ENOUGH, ids=lambda loss: loss.__name__)
def test_one_sample_matches_the_formula(loss):
    facts.assert_matches_formula(loss, FORMULAS[loss], *arguments(loss, 5, num_samples=1))


@every_loss
def test_gradient_is_exact(loss):
    facts.assert_gradient_is_exact(loss, *arguments(loss, num_samples=4, num_classes=5))


def test_kd_gradient_is_the_difference_of_probabilities():
    student, teacher = arguments(kd_loss)
    _, gradient = facts.value_and_gradient(functools.partial(kd_loss, temperature=3.0), student, teacher)
    expected = 3.0 * (torch.softmax(student / 3, 1) - torch.softmax(teacher / 3, 1)) / N
    torch.testing.assert_close(gradient, expected)


def test_dist_counts_rows_and_columns_apart():
    """Whole rows shifted against one another keep every row's pattern: only the intra part sees it."""
    student, teacher = arguments(dist_loss)
    assert dist_loss(student + 5, teacher).sub(dist_loss(student, teacher)).abs() < 1e-12
    inter = dist_loss(student, teacher, gamma=0.0)
    intra = dist_loss(student, teacher, beta=0.0)
    torch.testing.assert_close(inter + intra, dist_loss(student, teacher))
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    torch.testing.assert_close(dist_loss(student[order], teacher[order]), dist_loss(student, teacher))
    assert (inter - intra).abs() > 0.01


def test_dist_of_opposite_answers_is_two():
    """Two classes: the student's probabilities are the teacher's, swapped; both correlations are −1."""
    teacher = facts.random_tensor(5, 2)
    torch.testing.assert_close(dist_loss(teacher.flip(1), teacher), torch.tensor(4.0, dtype=torch.float64))


# What every loss must satisfy


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *facts.LOW_PRECISION], ids=str)
def test_one_number_in_at_least_float32(loss, dtype):
    facts.assert_one_number(loss, *arguments(loss, dtype=dtype))


@every_loss
def test_teacher_of_another_precision(loss):
    student, teacher, *labels = arguments(loss)
    expected = loss(student.float(), teacher.half().float(), *labels)
    mixed = loss(student.float(), teacher.half(), *labels)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, expected)
    assert loss(student.half(), teacher.float(), *labels).dtype == torch.float32


@every_loss
def test_teacher_gets_no_gradient(loss):
    facts.assert_teacher_gets_no_gradient(loss, *arguments(loss))


@pytest.mark.parametrize("loss", ZERO_AT_EQUALITY, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("seed", SEEDS)
def test_learns_only_from_difference(loss, seed):
    facts.assert_learns_only_from_difference(loss, *arguments(loss, seed))


def test_nkd_others_are_learned_at_equality():
    """At equality the non-target part is an entropy: not zero, but with nothing left to learn."""
    logits, _, labels = arguments(nkd_loss)
    value, gradient = facts.value_and_gradient(
        lambda s, t: nkd_loss(s, t, labels, gamma=2.0) - nkd_loss(s, t, labels, gamma=1.0), logits, logits
    )
    assert value > 0.1
    assert gradient.abs().max() < 1e-12


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_low_precision_agrees_with_float64(loss, dtype):
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    facts.assert_agrees_with_float64(loss, *arguments(loss, dtype=dtype), rtol=rtol)


@every_loss
def test_small_difference_survives_low_precision(loss):
    """A student close to its teacher: probabilities kept in bfloat16 would leave only rounding error."""
    student, teacher, *labels = arguments(loss, num_classes=50)
    close = teacher + 0.1 * student
    facts.assert_agrees_with_float64(loss, close.bfloat16(), teacher.bfloat16(), *labels, rtol=2e-2)


@every_loss
def test_works_under_autocast(loss):
    facts.assert_works_under_autocast(loss, *arguments(loss))


@every_loss
def test_works_behind_a_layer_under_autocast(loss):
    features, teacher, *labels = arguments(loss, num_classes=5, dtype=torch.float32)
    head = torch.nn.Linear(5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(features)
        assert logits.dtype == torch.bfloat16
        loss(logits, teacher, *labels).backward()
    assert torch.isfinite(head.weight.grad).all() and head.weight.grad.abs().max() > 0


@every_loss
def test_nan_is_shown(loss):
    facts.assert_nan_is_shown(loss, *arguments(loss, dtype=torch.float32))


# Classes that both sides mask with a logit of −inf


def masked_classes(logits):
    return logits.index_fill(1, torch.tensor([1, 4]), -math.inf)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 1e3])
@pytest.mark.parametrize("loss", [kd_loss, dkd_loss, nkd_loss], ids=lambda loss: loss.__name__)
def test_masked_classes_are_as_if_they_were_not_there(loss, temperature):
    student, teacher, *labels = arguments(loss)
    others = torch.tensor([0, 2, 3, 5, 6])
    labels = [torch.tensor([0, 2, 3, 5, 6, 0])] if labels else []
    expected = [torch.tensor([0, 1, 2, 3, 4, 0])] if labels else []
    call = functools.partial(loss, temperature=temperature)
    value, gradient = facts.value_and_gradient(
        call, masked_classes(student), masked_classes(teacher), *labels
    )
    without = facts.value_and_gradient(call, student[:, others], teacher[:, others], *expected)
    torch.testing.assert_close(value, without[0])
    torch.testing.assert_close(gradient[:, others], without[1])
    assert gradient[:, [1, 4]].abs().max() == 0


def test_a_class_that_the_teacher_alone_masks_is_unlearned_by_the_student():
    student, teacher = arguments(kd_loss)
    value, gradient = facts.value_and_gradient(kd_loss, student, masked_classes(teacher))
    close = facts.value_and_gradient(kd_loss, student, teacher.index_fill(1, torch.tensor([1, 4]), -1e4))
    torch.testing.assert_close((value, gradient), close)
    assert gradient[:, [1, 4]].min() > 0
    assert kd_loss(masked_classes(student), teacher).item() == math.inf


@pytest.mark.parametrize(
    "loss", [logit_mse_loss, dist_loss, standardized_kd_loss], ids=lambda loss: loss.__name__
)
def test_losses_that_have_no_use_for_a_masked_class_say_so(loss):
    student, teacher = arguments(loss)
    for pair, name in (
        ((masked_classes(student), teacher), "student"),
        ((student, masked_classes(teacher)), "teacher"),
    ):
        sentence = facts.assert_rejects(loss, *pair, naming=f"{name}_logits")
        assert sentence.endswith(f"got {2 * N}: leave masked classes out of both tensors")


def test_an_answer_that_both_sides_exclude_costs_nothing():
    student, teacher = arguments(multilabel_kd_loss)
    value, gradient = facts.value_and_gradient(
        multilabel_kd_loss, masked_classes(student), masked_classes(teacher)
    )
    counted = torch.ones(N, K).index_fill(1, torch.tensor([1, 4]), 0)
    torch.testing.assert_close(value, multilabel_kd_loss(student, teacher, counted) * (K - 2) / K)
    assert gradient.isfinite().all()


# One answer a class, one number a sample


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, K), (N, 1, 3, 2)], ids=str)
def test_multilabel_kd_takes_yes_or_no_answers_of_any_shape(shape):
    """Binary classification with one logit is that of two classes with logits z and 0, apart from ½."""
    student, teacher = (facts.random_tensor(*shape, seed=seed) for seed in (1, 2))
    for temperature in (1.0, 3.0):
        expected = multilabel_kd_formula(
            student.reshape(-1, 1), teacher.reshape(-1, 1), temperature=temperature
        )
        loss = multilabel_kd_loss(student, teacher, temperature=temperature)
        torch.testing.assert_close(loss, expected)
        two = [F.pad(logits.reshape(-1, 1), (0, 1)) for logits in (student, teacher)]
        torch.testing.assert_close(loss, kd_loss(*two, temperature=temperature))


def test_multilabel_kd_learns_what_a_binary_cross_entropy_on_soft_targets_does():
    student, teacher = arguments(multilabel_kd_loss)
    _, gradient = facts.value_and_gradient(multilabel_kd_loss, student, teacher)
    _, expected = facts.value_and_gradient(
        lambda s, t: F.binary_cross_entropy_with_logits(s, t.sigmoid()), student, teacher
    )
    torch.testing.assert_close(gradient, expected)


def test_multilabel_kd_with_a_mask_counts_single_answers():
    student, teacher = arguments(multilabel_kd_loss)
    mask = torch.rand(N, K, generator=torch.Generator().manual_seed(0)) < 0.5
    value, gradient = facts.value_and_gradient(multilabel_kd_loss, student, teacher, mask)
    torch.testing.assert_close(value, multilabel_kd_loss(student[mask], teacher[mask]))
    assert gradient[~mask].abs().max() == 0
    halves = [
        multilabel_kd_loss(student[rows], teacher[rows], mask[rows], denominator=mask.sum())
        for rows in (slice(0, 2), slice(2, N))
    ]
    torch.testing.assert_close(sum(halves), value)
    facts.assert_rejects(multilabel_kd_loss, student, teacher, mask[:, 0], naming="mask")


@pytest.mark.parametrize("delta", [0.5, 1.0, 100.0])
def test_regression_kd_is_hubers_distance_with_a_delta(delta):
    def formula(student, teacher):
        gaps = (student - teacher).abs().flatten()
        return sum(g**2 / 2 if g <= delta else delta * (g - delta / 2) for g in gaps) / len(gaps)

    student, teacher = arguments(regression_kd_loss)
    call = functools.partial(regression_kd_loss, delta=delta)
    facts.assert_matches_formula(call, formula, student, teacher)
    facts.assert_matches_formula(call, formula, student[:, 0], teacher[:, 0])


# Extremes


def certain_logits(gap, dtype):
    """Sample i certain of class i % K, by the given gap."""
    return (gap * torch.eye(K, dtype=torch.float64)[torch.arange(N) % K]).to(dtype)


def extreme_logits(dtype):
    """Name → logits of shape (N, K) that break careless losses."""
    gap = 450.0 if dtype == torch.float32 else 40.0
    certain = certain_logits(gap, dtype)
    ordinary = facts.random_tensor(N, K, seed=3, dtype=dtype)
    return {
        "ordinary": ordinary,
        "duplicate rows": ordinary[:1].repeat(N, 1),
        "constant logits": torch.full((N, K), 0.1, dtype=dtype),
        "all zero": torch.zeros(N, K, dtype=dtype),
        "one constant row": ordinary.index_fill(0, torch.tensor(2), -3.3),
        "one dead class": ordinary.index_fill(1, torch.tensor(2), -gap),
        "certain": certain,
        "certain of the wrong class": certain.roll(1, dims=1),
        "certain of one class": certain[:1].repeat(N, 1),
        "certain what it is not": -certain,
    }


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("student_is", extreme_logits(torch.float32))
def test_finite_at_the_extremes(loss, dtype, student_is):
    labels = [torch.arange(N) % K] if loss in LABELLED else []
    student = extreme_logits(dtype)[student_is]
    for teacher in extreme_logits(dtype).values():
        facts.assert_finite(loss, student, teacher, *labels)
        if loss in TEMPERED:
            facts.assert_finite(functools.partial(loss, temperature=1.0), student, teacher, *labels)


@pytest.mark.parametrize("loss", [kd_loss, dkd_loss, nkd_loss], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_right_at_a_gap_of_450(loss, temperature):
    """Not only finite: as in float64, where the logarithm of a sum cannot overflow at this gap."""
    labels = [torch.arange(N) % K] if loss in LABELLED else []
    certain = certain_logits(450.0, torch.float32)
    call = functools.partial(loss, temperature=temperature)
    for student in (certain, certain.roll(1, dims=1)):
        facts.assert_agrees_with_float64(call, student, -certain, *labels, rtol=1e-5)
        facts.assert_agrees_with_float64(call, student, facts.random_tensor(N, K).float(), *labels, rtol=1e-5)


def test_kd_at_a_gap_of_450_is_the_gap():
    """A teacher certain of one class, a student certain of another: the divergence at T = 1 is the gap."""
    certain = certain_logits(450.0, torch.float32)
    assert kd_loss(certain.roll(1, dims=1), certain, temperature=1.0).item() == pytest.approx(450.0)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.77, 1e4])
def test_constant_logits_of_standardized_kd(value):
    """A student that says nothing counts as uniform and is pulled to the teacher by a moderate gradient."""
    teacher = facts.random_tensor(N, K, dtype=torch.float32)
    student = torch.full((N, K), value)
    uniform = kd_formula(torch.zeros(N, K), torch.stack([z_score(row) for row in teacher]), temperature=2.0)
    loss, gradient = facts.value_and_gradient(standardized_kd_loss, student, teacher)
    assert loss.item() == pytest.approx(uniform.item(), rel=1e-3)
    assert 1e-3 < gradient.abs().max() < 1
    assert (gradient * teacher).sum() < 0


def test_standardized_kd_of_logits_far_from_zero():
    """Centred before they are scaled: a large common offset costs no precision beyond the logits' own."""
    student, teacher = arguments(standardized_kd_loss, dtype=torch.float32, std=0.05)
    facts.assert_agrees_with_float64(standardized_kd_loss, 3000 + student, teacher - 3000, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.77, 1e4])
def test_constant_logits_of_dist(value):
    """No variance, no correlation: both parts count 1, and the gradient still points to the teacher."""
    teacher = facts.random_tensor(N, K, dtype=torch.float32)
    loss, gradient = facts.value_and_gradient(dist_loss, torch.full((N, K), value), teacher)
    assert loss.item() == pytest.approx(2.0, abs=1e-5)
    assert 1e-4 < gradient.abs().max() < 1
    assert (gradient * torch.softmax(teacher, dim=1)).sum() < 0


def test_duplicate_rows_of_dist_are_not_read_as_signal():
    """With all samples alike no class varies over the batch: intra is 1, not rounding errors correlated."""
    for seed in range(20):
        row = facts.random_tensor(1, K, seed=seed, dtype=torch.float32)
        other = facts.random_tensor(1, K, seed=seed + 100, dtype=torch.float32)
        intra = dist_loss(row.repeat(N, 1), other.repeat(N, 1), beta=0.0)
        assert intra.item() == pytest.approx(1.0, abs=1e-5)


def test_dist_hears_a_class_that_nobody_believes_in():
    """Its probabilities are tiny, not constant: turned round over the batch they cost what any do."""
    teacher = facts.random_tensor(N, K, dtype=torch.float32, std=0.5)
    teacher[:, 0] -= 25
    student = teacher.clone()
    student[:, 0] = -50 - teacher[:, 0]
    inter, intra = dist_loss(student, teacher, gamma=0.0), dist_loss(student, teacher, beta=0.0)
    assert inter.item() == pytest.approx(0, abs=1e-5)
    assert 0.8 * 2 / K < intra.item() <= 2 / K


# Identities


logit_values = st.floats(-8, 8)
batches_of_logits = st.integers(0, 10_000).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(1, 5), st.integers(3, 12), st.floats(0.1, 4))
)


def drawn_arguments(seed, num_samples, num_classes, std):
    return arguments(dkd_loss, seed, num_samples, num_classes, std=std)


@settings(max_examples=60, deadline=None)
@given(batches_of_logits, st.floats(0.5, 20))
def test_kd_is_tckd_plus_the_others_share_of_nckd(batch, temperature):
    """KD = TCKD + (1 − p_target) · NCKD, sample by sample."""
    student, teacher, labels = drawn_arguments(*batch)
    teacher_probs = torch.softmax(teacher / temperature, dim=1)
    for i in range(len(student)):
        one = slice(i, i + 1)
        z, v, label = student[one], teacher[one], labels[one]
        tckd = dkd_loss(z, v, label, alpha=1.0, beta=0.0, temperature=temperature)
        nckd = dkd_loss(z, v, label, alpha=0.0, beta=1.0, temperature=temperature)
        others_share = 1 - teacher_probs[i, labels[i]]
        torch.testing.assert_close(
            tckd + others_share * nckd, kd_loss(z, v, temperature=temperature), rtol=1e-9, atol=1e-12
        )


@settings(max_examples=40, deadline=None)
@given(batches_of_logits)
def test_hot_kd_is_matching_of_centred_logits(batch):
    """T → ∞: kd_loss → ‖centred logit difference‖² / (2K), averaged over N (Hinton et al. 2015, sec. 2.1)."""
    student, teacher, _ = drawn_arguments(*batch)
    difference = student - teacher
    difference = difference - difference.mean(dim=1, keepdim=True)
    limit = (difference**2).sum(dim=1).mean() / (2 * student.shape[1])
    torch.testing.assert_close(kd_loss(student, teacher, temperature=1e4), limit, rtol=5e-3, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(batches_of_logits, st.floats(0.2, 50), st.floats(-100, 100))
def test_standardized_kd_ignores_scale_and_shift(batch, scale, shift):
    """Up to the 1e-7 beside the standard deviation."""
    student, teacher, _ = drawn_arguments(*batch)
    expected = standardized_kd_loss(student, teacher)
    for student_or_teacher_scaled in (
        standardized_kd_loss(scale * student + shift, teacher),
        standardized_kd_loss(student, scale * teacher + shift),
    ):
        torch.testing.assert_close(student_or_teacher_scaled, expected, rtol=1e-3, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(batches_of_logits, st.lists(st.floats(-50, 50), min_size=5, max_size=5))
def test_probability_losses_ignore_a_shift_per_sample(batch, shifts):
    student, teacher, labels = drawn_arguments(*batch)
    shifted = student + torch.tensor(shifts[: len(student)], dtype=torch.float64).unsqueeze(1)
    for loss in (kd_loss, dkd_loss, nkd_loss, dist_loss, standardized_kd_loss):
        if loss is dist_loss and len(student) == 1:
            continue
        rest = [labels] if loss in LABELLED else []
        torch.testing.assert_close(
            loss(shifted, teacher, *rest), loss(student, teacher, *rest), rtol=1e-6, atol=1e-9
        )


@settings(max_examples=40, deadline=None)
@given(batches_of_logits, st.floats(0.5, 20), st.randoms(use_true_random=False))
def test_losses_do_not_depend_on_the_order_of_samples_and_classes(batch, temperature, random):
    student, teacher, labels = drawn_arguments(*batch)
    rows, columns = list(range(student.shape[0])), list(range(student.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    new_labels = torch.tensor([columns.index(int(labels[i])) for i in rows])
    for loss in TEMPERED:
        if loss is dist_loss and len(student) == 1:
            continue
        before = [labels] if loss in LABELLED else []
        after = [new_labels] if loss in LABELLED else []
        torch.testing.assert_close(
            loss(student[rows][:, columns], teacher[rows][:, columns], *after, temperature=temperature),
            loss(student, teacher, *before, temperature=temperature),
            rtol=1e-8,
            atol=1e-10,
        )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(logit_values, logit_values), min_size=3, max_size=8),
    st.integers(0, 2),
    st.floats(0.3, 20),
)
def test_divergences_are_not_negative(pairs, label, temperature):
    student, teacher = torch.tensor(pairs, dtype=torch.float64).T.unsqueeze(1)
    assert kd_loss(student, teacher, temperature=temperature) >= -1e-9
    assert dkd_loss(student, teacher, torch.tensor([label]), temperature=temperature) >= -1e-9
    assert standardized_kd_loss(student, teacher, temperature=temperature) >= -1e-9


@pytest.mark.parametrize(
    ("num_classes", "temperature", "low", "high"),
    [
        (10, 1.0, 0.093, 0.098),
        (10, 2.0, 0.106, 0.112),
        (10, 4.0, 0.106, 0.112),
        (10, 20.0, 0.104, 0.110),
        (1000, 1.0, 0.028, 0.031),
        (1000, 20.0, 0.0108, 0.0115),
    ],
)
def test_t_squared_keeps_the_gradient_scale_only_asymptotically(num_classes, temperature, low, high):
    """The norm of the batch's gradient, N = 64, logits of std 2: settles from T = 2 on with few classes."""
    norms = []
    for seed in range(10):
        student, teacher = arguments(kd_loss, seed, 64, num_classes)
        loss = functools.partial(kd_loss, temperature=temperature)
        _, gradient = facts.value_and_gradient(loss, student, teacher)
        norms.append(gradient.norm().item())
    assert low < sum(norms) / len(norms) < high


def test_common_slips_are_far_from_these_losses():
    """The tolerances above tell the losses from what public code often computes instead."""
    student, teacher = arguments(kd_loss, num_samples=64)
    p, log_q = torch.softmax(teacher / 4, 1), torch.log_softmax(student / 4, 1)
    with pytest.warns(UserWarning, match="batchmean"):
        mean_over_classes = 16 * torch.nn.KLDivLoss()(log_q, p)
    assert kd_loss(student, teacher) / mean_over_classes == pytest.approx(K)

    def population_z_score(x):
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True, unbiased=False) + 1e-7)

    population = kd_loss(population_z_score(student), population_z_score(teacher), temperature=2.0)
    assert 1.13 < population / standardized_kd_loss(student, teacher) < 1.17


# Bad input


@losses_on_classes
@pytest.mark.parametrize("shape", [(0, K), (N,), (N, K, 0), (), (N, 0), (2, 3, 4, 5)], ids=str)
def test_refuses_logits_of_another_shape(loss, shape):
    labels = [torch.zeros(shape[:-1], dtype=torch.long)] if loss in LABELLED else []
    logits = torch.zeros(shape)
    message = facts.assert_rejects(loss, logits, logits, *labels, naming="student_logits")
    assert str(shape) in message


@every_loss
def test_refuses_logits_that_differ_in_shape(loss):
    student, teacher, *labels = arguments(loss)
    message = facts.assert_rejects(loss, student, teacher[:, :-1], *labels, naming="teacher_")
    assert message.endswith(f", ({N}, {K}), got ({N}, {K - 1})")
    facts.assert_rejects(loss, student, teacher[:1], *labels, naming="teacher_")


@every_loss
def test_refuses_integer_logits(loss):
    student, teacher, *labels = arguments(loss)
    facts.assert_rejects(loss, student.long(), teacher, *labels, naming="student_")


@tempered_losses
@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_refuses_a_temperature_that_is_not_positive(loss, temperature):
    message = facts.assert_rejects(loss, *arguments(loss), naming="temperature", temperature=temperature)
    assert message.endswith(str(temperature))


@pytest.mark.parametrize("loss", LABELLED, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize(
    "labels",
    [
        torch.full((N,), K),
        torch.full((N,), -1),
        torch.zeros(N - 1, dtype=torch.long),
        torch.zeros(N, 1, dtype=torch.long),
        torch.zeros(N),
        torch.zeros(N, dtype=torch.bool),
        torch.tensor([0, 1, 2, 3, 4, -100]),
    ],
    ids=["K", "-1", "too few", "a column", "floating", "yes and no", "-100 among others"],
)
def test_refuses_bad_labels(loss, labels):
    student, teacher, _ = arguments(loss)
    facts.assert_rejects(loss, student, teacher, labels, naming="labels")


@pytest.mark.parametrize("loss", LABELLED, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8], ids=str)
def test_takes_labels_of_every_integer_dtype(loss, dtype):
    student, teacher, labels = arguments(loss)
    torch.testing.assert_close(loss(student, teacher, labels.to(dtype)), loss(student, teacher, labels))


def test_refuses_too_few_classes_or_samples():
    def logits(*shape):
        return torch.zeros(shape), torch.zeros(shape)

    label = torch.zeros(N, dtype=torch.long)
    for loss in (kd_loss, dist_loss, standardized_kd_loss):
        assert "K >= 2" in facts.assert_rejects(loss, *logits(N, 1), naming="student_logits")
    assert "K >= 2" in facts.assert_rejects(nkd_loss, *logits(N, 1), label, naming="student_logits")
    assert "K >= 3" in facts.assert_rejects(dkd_loss, *logits(N, 2), label, naming="student_logits")
    assert "N >= 2" in facts.assert_rejects(dist_loss, *logits(1, K), naming="student_logits")
