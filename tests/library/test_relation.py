"""The relation losses against their formulas written out pair by pair, and the facts of loss_facts."""

import math

import loss_facts as facts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdutils.losses import (
    cc_loss,
    info_nce_loss,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    rkd_loss,
    sp_loss,
)

N, STUDENT_WIDTH, TEACHER_WIDTH = 6, 4, 5


# The papers' formulas, in float64, one pair or triple of samples at a time.


def dot(x, y):
    return sum(x[d] * y[d] for d in range(len(x)))


def length(x):
    return torch.sqrt(dot(x, x))


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def pairs(samples):
    return [(i, j) for i in range(len(samples)) for j in range(len(samples))]


def smooth_l1(x, y):
    gap = (x - y).abs()
    return gap**2 / 2 if gap < 1 else gap - 0.5


def sp_formula(student, teacher):
    def row_normalised(features):
        samples = [sample.reshape(-1) for sample in features]
        rows = [torch.stack([dot(x, y) for y in samples]) for x in samples]
        return [row / length(row) for row in rows]

    s, t = row_normalised(student), row_normalised(teacher)
    return mean((s[i][j] - t[i][j]) ** 2 for i, j in pairs(s))


def rkd_distance_formula(student, teacher):
    def relative(embeddings):
        zero = embeddings.new_zeros(())
        distances = {
            (i, j): zero
            if torch.equal(embeddings[i], embeddings[j])
            else length(embeddings[i] - embeddings[j])
            for i, j in pairs(embeddings)
        }
        average = mean(distance for distance in distances.values() if distance > 0)
        return {pair: distance / average for pair, distance in distances.items()}

    s, t = relative(student), relative(teacher)
    return mean(smooth_l1(s[pair], t[pair]) for pair in pairs(student))


def rkd_angle_formula(student, teacher):
    def cosine(embeddings, i, j, k):
        if i in (j, k):
            return embeddings.new_zeros(())
        to_j, to_k = embeddings[j] - embeddings[i], embeddings[k] - embeddings[i]
        return dot(to_j, to_k) / (length(to_j) * length(to_k))

    triples = [(i, j, k) for i, j in pairs(student) for k in range(len(student))]
    return mean(smooth_l1(cosine(student, *triple), cosine(teacher, *triple)) for triple in triples)


def rkd_formula(student, teacher):
    return 25 * rkd_distance_formula(student, teacher) + 50 * rkd_angle_formula(student, teacher)


def pkt_formula(student, teacher, eps=1e-7):
    def neighbours(embeddings):
        unit = [x / (length(x) + eps) for x in embeddings]
        rows = [torch.stack([(dot(x, y) + 1) / 2 for y in unit]) for x in unit]
        return [row / row.sum() for row in rows]

    s, t = neighbours(student), neighbours(teacher)
    return mean(t[i][j] * torch.log((t[i][j] + eps) / (s[i][j] + eps)) for i, j in pairs(s))


def cc_formula(student, teacher, gamma=0.4, order=2):
    def correlation(x, y):
        cosine = dot(x, y) / (length(x) * length(y))
        series = sum((2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1))
        return math.exp(-2 * gamma) * series

    return mean(
        (correlation(student[i], student[j]) - correlation(teacher[i], teacher[j])) ** 2
        for i, j in pairs(student)
    )


def info_nce_formula(student, teacher, temperature=0.1):
    """The cross-entropy of N questions with N answers each."""

    def cosine(x, y):
        return dot(x, y) / (length(x) * length(y))

    terms = []
    for i in range(len(student)):
        scores = [torch.exp(cosine(student[i], teacher[j]) / temperature) for j in range(len(teacher))]
        terms.append(-torch.log(scores[i] / sum(scores)))
    return mean(terms)


FORMULAS = {
    sp_loss: sp_formula,
    rkd_distance_loss: rkd_distance_formula,
    rkd_angle_loss: rkd_angle_formula,
    rkd_loss: rkd_formula,
    pkt_loss: pkt_formula,
    cc_loss: cc_formula,
}
LOSSES = list(FORMULAS)
every_loss = pytest.mark.parametrize("loss_fn", LOSSES, ids=lambda loss: loss.__name__)


def embeddings(seed=0, num_samples=N, std=2.0, dtype=torch.float64):
    """Student and teacher embeddings of different widths."""
    student = facts.random_tensor(num_samples, STUDENT_WIDTH, seed=seed, std=std, dtype=dtype)
    return student, facts.random_tensor(num_samples, TEACHER_WIDTH, seed=seed + 100, std=std, dtype=dtype)


# Formula and gradient


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula(loss_fn, seed):
    facts.assert_matches_formula(loss_fn, FORMULAS[loss_fn], *embeddings(seed))


@every_loss
def test_equals_the_formula_with_an_outlier(loss_fn):
    student, teacher = embeddings(1)
    student[2] *= 20  # differences of relative distances above 1, where smooth L1 is linear
    facts.assert_matches_formula(loss_fn, FORMULAS[loss_fn], student, teacher)


def test_duplicates_in_a_large_batch_are_at_distance_zero():
    """Taken from differences, for more than 25 samples, too; and what is zero does not count in the mean."""
    student, teacher = (rows.repeat(2, 1) for rows in embeddings(num_samples=20, dtype=torch.float32))
    expected = rkd_distance_loss(student.double(), teacher.double())
    loss = rkd_distance_loss(student + 100, teacher - 100)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    num_samples=st.integers(3, 5),
    widths=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    std=st.sampled_from([0.05, 1.0, 30.0]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_formula_for_any_shape_and_scale(num_samples, widths, std, seed):
    student = facts.random_tensor(num_samples, widths[0], seed=seed, std=std)
    teacher = facts.random_tensor(num_samples, widths[1], seed=seed + 1)
    for loss_fn, formula in FORMULAS.items():
        facts.assert_matches_formula(loss_fn, formula, student, teacher, rtol=1e-5 if std < 1 else 1e-6)


@every_loss
def test_gradient_is_exact(loss_fn):
    facts.assert_gradient_is_exact(loss_fn, *embeddings())


def test_sp_flattens_feature_maps():
    student = facts.random_tensor(4, 2, 3, 2, seed=1)
    teacher = facts.random_tensor(4, 3, 2, 2, seed=2)
    facts.assert_matches_formula(sp_loss, sp_formula, student, teacher)


def test_cc_settings():
    student, teacher = embeddings()
    for gamma, order in ((0.4, 1), (2.0, 3)):
        facts.assert_matches_formula(
            lambda s, t, g=gamma, o=order: cc_loss(s, t, gamma=g, order=o),
            lambda s, t, g=gamma, o=order: cc_formula(s, t, g, o),
            student,
            teacher,
        )


def test_the_taylor_series_of_cc_approaches_the_gaussian_kernel():
    def gaussian(embeddings, gamma):
        unit = torch.nn.functional.normalize(embeddings)
        return torch.exp(-gamma * torch.cdist(unit, unit) ** 2)

    student, teacher = embeddings()
    expected = (gaussian(student, 0.4) - gaussian(teacher, 0.4)).pow(2).mean()
    torch.testing.assert_close(cc_loss(student, teacher, gamma=0.4, order=20), expected, rtol=1e-9, atol=0)


def test_rkd_weights():
    student, teacher = embeddings()
    distance, angle = rkd_distance_loss(student, teacher), rkd_angle_loss(student, teacher)
    torch.testing.assert_close(rkd_loss(student, teacher), 25 * distance + 50 * angle)
    weighted = rkd_loss(student, teacher, distance_weight=3.0, angle_weight=0.5)
    torch.testing.assert_close(weighted, 3 * distance + 0.5 * angle)


# Known values, worked out by hand


def test_three_samples_by_hand():
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    # distances 1, 1, √2 against 1, 2, 1 (pairs 01, 02, 12), each divided by their mean
    s_mean, t_mean = (2 + math.sqrt(2)) / 3, 4 / 3
    gaps = [1 / s_mean - 1 / t_mean, 1 / s_mean - 2 / t_mean, math.sqrt(2) / s_mean - 1 / t_mean]
    assert rkd_distance_loss(student, teacher).item() == pytest.approx(sum(g * g for g in gaps) / 9)

    # angles at 0, 1, 2: cosines 0, √½, √½ against 1, −1, 1; each counts for (j, k) and (k, j);
    # and where j = k, the cosine is 1 for both
    def huber(gap):
        return gap**2 / 2 if abs(gap) < 1 else abs(gap) - 0.5

    total = 2 * (huber(1) + huber(1 + math.sqrt(0.5)) + huber(1 - math.sqrt(0.5)))
    assert rkd_angle_loss(student, teacher).item() == pytest.approx(total / 27)


def test_two_samples_by_hand():
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    root = math.sqrt(0.5)
    assert sp_loss(student, teacher).item() == pytest.approx((2 * (1 - root) ** 2 + 2 * root**2) / 4)
    # student: neighbours 2/3 and 1/3; teacher: ½ and ½
    kl = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    assert pkt_loss(student, teacher).item() == pytest.approx(kl / 2, rel=1e-5)
    # two of four entries differ: cosine 0 against 1
    assert cc_loss(student, teacher).item() == pytest.approx((math.exp(-0.8) * (0.8 + 0.32)) ** 2 / 2)


# What every loss owes


@every_loss
def test_one_number_in_at_least_float32(loss_fn):
    for dtype in (torch.float64, torch.float32, *facts.LOW_PRECISION):
        facts.assert_one_number(loss_fn, *embeddings(dtype=dtype))


@every_loss
def test_a_cached_teacher_may_be_stored_in_half_precision(loss_fn):
    student, teacher = embeddings(dtype=torch.float32)
    loss = loss_fn(student, teacher.half())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_fn(student, teacher), rtol=0.01, atol=0)


@every_loss
def test_no_gradient_reaches_the_teacher(loss_fn):
    facts.assert_teacher_gets_no_gradient(loss_fn, *embeddings())


@every_loss
def test_learns_only_from_difference(loss_fn):
    student, _ = embeddings(3)
    teacher = facts.random_tensor(*student.shape, seed=4)
    atol = 5e-8 if loss_fn is pkt_loss else 1e-12  # PKT's eps leaves a gradient of that order at equality
    facts.assert_learns_only_from_difference(loss_fn, student, teacher, atol=atol)


@every_loss
def test_a_nan_is_shown(loss_fn):
    facts.assert_nan_is_shown(loss_fn, *embeddings())


@every_loss
def test_works_under_autocast(loss_fn):
    facts.assert_works_under_autocast(loss_fn, *embeddings())
    student, teacher = embeddings(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_fn(student, teacher)
    torch.testing.assert_close(loss, loss_fn(student, teacher))  # no product was rounded to bfloat16


@every_loss
def test_float32_agrees_with_float64(loss_fn):
    facts.assert_agrees_with_float64(loss_fn, *embeddings(dtype=torch.float32), rtol=1e-4)


@every_loss
def test_half_precision_does_not_overflow(loss_fn):
    student, teacher = embeddings(std=300.0)  # squares leave the range of float16
    loss = loss_fn(student.half(), teacher.half())
    torch.testing.assert_close(loss.double(), loss_fn(student, teacher), rtol=0.01, atol=1e-6)
    facts.assert_finite(loss_fn, student.half(), teacher.half())


# Extremes


def spoiled(kind, tensor):
    tensor = tensor.clone()
    if kind == "duplicates":
        tensor[1] = tensor[4] = tensor[0]
    elif kind == "all alike":
        tensor[:] = tensor[0]
    elif kind == "a dead sample":
        tensor[2] = 0
    elif kind == "a dead feature":
        tensor[:, 1] = 0
    elif kind == "two dead samples":
        tensor[2] = tensor[3] = 0
    elif kind == "all dead":
        tensor[:] = 0
    elif kind == "opposite":
        tensor[1] = -3 * tensor[0]
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
    "a dead sample",
    "a dead feature",
    "two dead samples",
    "all dead",
    "opposite",
    "large",
    "small",
    "tiny",
)


@every_loss
@pytest.mark.parametrize("student_kind", KINDS)
def test_finite_at_extremes(loss_fn, student_kind):
    for dtype in (torch.float64, torch.float32):
        student, teacher = embeddings(dtype=dtype)
        for teacher_kind in KINDS:
            facts.assert_finite(loss_fn, spoiled(student_kind, student), spoiled(teacher_kind, teacher))


@every_loss
@pytest.mark.parametrize("kind", ["duplicates", "all alike", "a dead sample", "two dead samples", "all dead"])
def test_dead_and_duplicate_samples_do_not_explode_the_gradient(loss_fn, kind):
    for seed in range(5):
        student, teacher = embeddings(seed)
        _, ordinary = facts.value_and_gradient(loss_fn, student, teacher)
        _, gradient = facts.value_and_gradient(loss_fn, spoiled(kind, student), teacher)
        assert gradient.abs().max() < 100 * ordinary.abs().max()


def test_many_opposite_embeddings_keep_pkt_finite():
    # in float32 some of these cosines come out below −1
    rows = facts.random_tensor(200, 33, dtype=torch.float32)
    teacher = facts.random_tensor(2, 8, seed=1, dtype=torch.float32)
    for row in rows:
        facts.assert_finite(pkt_loss, torch.stack([row, -row]), teacher)
        facts.assert_finite(pkt_loss, torch.stack([row, -1.7 * row]), teacher)


def test_distances_of_duplicates_are_zero_and_stay_out_of_the_mean():
    student, teacher = embeddings()
    student, teacher = spoiled("duplicates", student), spoiled("duplicates", teacher)
    facts.assert_matches_formula(rkd_distance_loss, rkd_distance_formula, student, teacher)
    far_away = student.float() + 100  # where x² + y² − 2xy would leave a rounding error for a distance
    expected = rkd_distance_formula(far_away.double(), teacher)
    torch.testing.assert_close(
        rkd_distance_loss(far_away, teacher.float()).double(), expected, rtol=1e-4, atol=0
    )


def test_the_angle_loss_moves_duplicates_apart():
    student, teacher = embeddings()
    student[1] = student[0]
    _, gradient = facts.value_and_gradient(rkd_angle_loss, student, teacher)
    assert not torch.allclose(gradient[0], gradient[1])


@pytest.mark.parametrize("loss_fn", [sp_loss, rkd_distance_loss, pkt_loss, cc_loss])
def test_one_sample_has_no_relations(loss_fn):
    student, teacher = embeddings(num_samples=1)
    value, gradient = facts.value_and_gradient(loss_fn, student, teacher)
    assert value.abs() < 1e-6 and gradient.abs().max() < 1e-6
    facts.assert_finite(loss_fn, torch.zeros_like(student), teacher)


# Invariances


@settings(max_examples=20, deadline=None, derandomize=True)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_scaling_all_embeddings_changes_nothing(scale, seed):
    student, teacher = embeddings(seed)
    for loss_fn in (sp_loss, rkd_distance_loss, rkd_angle_loss, cc_loss):
        expected = loss_fn(student, teacher)
        torch.testing.assert_close(loss_fn(scale * student, teacher), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(loss_fn(student, scale * teacher), expected, rtol=1e-9, atol=1e-12)


@every_loss
def test_rotating_the_embeddings_changes_nothing(loss_fn):
    student, teacher = embeddings()
    rotation, _ = torch.linalg.qr(facts.random_tensor(STUDENT_WIDTH, STUDENT_WIDTH, seed=5))
    torch.testing.assert_close(loss_fn(student @ rotation, teacher), loss_fn(student, teacher))


@every_loss
def test_the_order_of_the_samples_changes_nothing(loss_fn):
    student, teacher = embeddings()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(loss_fn(student[order], teacher[order]), loss_fn(student, teacher))
    assert not torch.isclose(loss_fn(student[order], teacher), loss_fn(student, teacher), rtol=1e-3)


def test_only_rkd_ignores_where_the_origin_is():
    student, teacher = embeddings()
    for loss_fn in LOSSES:
        moved, unmoved = loss_fn(student + 7, teacher), loss_fn(student, teacher)
        assert torch.isclose(moved, unmoved, rtol=1e-6) == (loss_fn.__name__.startswith("rkd"))


# Variants of public code that are not these losses


def test_sp_rows_have_unit_l2_length_not_l1():
    def l1_rows(student, teacher):
        def gram(x):
            return torch.nn.functional.normalize(x @ x.T, 1)  # sets p = 1

        return (gram(student) - gram(teacher)).pow(2).mean()

    student, teacher = embeddings()
    assert not torch.isclose(sp_loss(student, teacher), l1_rows(student, teacher), rtol=0.1)


def test_rkd_does_not_normalise_the_embeddings_first():
    student, teacher = embeddings()
    student *= torch.arange(1, N + 1).unsqueeze(1)
    unit_student, unit_teacher = map(torch.nn.functional.normalize, (student, teacher))
    for loss_fn in (rkd_distance_loss, rkd_angle_loss):
        assert not torch.isclose(loss_fn(student, teacher), loss_fn(unit_student, unit_teacher), rtol=0.05)


def test_pkt_averages_over_pairs():
    student, teacher = embeddings()
    summed = sum(N * pkt_formula(student, teacher) for _ in range(N))
    torch.testing.assert_close(N**2 * pkt_loss(student, teacher), summed)
    assert pkt_loss(student, teacher) != pkt_loss(teacher, student)


def test_cc_is_not_the_product_of_neighbouring_differences():
    student, _ = embeddings(3)
    teacher = facts.random_tensor(*student.shape, seed=4)
    gap = (student - teacher).abs()
    neighbours = (gap[:-1] * gap[1:]).sum(1).mean()
    assert not torch.isclose(cc_loss(student, teacher), neighbours, rtol=0.1)


# Bad input


@every_loss
def test_rejects_bad_shapes(loss_fn):
    noun = "features" if loss_fn is sp_loss else "embeddings"
    student, teacher = embeddings()
    facts.assert_rejects(loss_fn, student, teacher[:-1], naming=f"teacher_{noun}")
    facts.assert_rejects(loss_fn, student[:0], teacher[:0], naming=f"student_{noun}")
    facts.assert_rejects(loss_fn, student[:, :0], teacher, naming=f"student_{noun}")
    facts.assert_rejects(loss_fn, student, teacher[:, :0], naming=f"teacher_{noun}")
    facts.assert_rejects(loss_fn, student[0], teacher, naming=f"student_{noun}")
    if loss_fn is not sp_loss:
        facts.assert_rejects(loss_fn, student, teacher[:, :, None], naming="teacher_embeddings")


@pytest.mark.parametrize("loss_fn", [rkd_angle_loss, rkd_loss])
def test_angles_need_three_samples(loss_fn):
    for num_samples in (1, 2):
        sentence = facts.assert_rejects(
            loss_fn, *embeddings(num_samples=num_samples), naming="student_embeddings"
        )
        assert "N >= 3" in sentence
    assert torch.isfinite(loss_fn(*embeddings(num_samples=3)))


def test_cc_rejects_bad_settings():
    for gamma in (0, -1.0, float("nan")):
        facts.assert_rejects(cc_loss, *embeddings(), gamma=gamma, naming="gamma")
    for order in (0, -1, 1.5, 2.0, float("nan")):
        facts.assert_rejects(cc_loss, *embeddings(), order=order, naming="order")


# Contrast with the batch


def same_width(seed=0, num_samples=N, dtype=torch.float64):
    return tuple(facts.random_tensor(num_samples, 5, seed=seed + s, dtype=dtype) for s in (0, 100))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_info_nce_equals_the_formula(seed, temperature):
    facts.assert_matches_formula(
        lambda s, t: info_nce_loss(s, t, temperature=temperature),
        lambda s, t: info_nce_formula(s, t, temperature),
        *same_width(seed),
    )


def test_guessing_costs_the_logarithm_of_the_batch():
    """Where all teacher embeddings are alike nothing tells them apart."""
    student, teacher = same_width(num_samples=8)
    loss = info_nce_loss(student, teacher[:1].repeat(8, 1))
    assert loss.item() == pytest.approx(math.log(8))


def test_info_nce_brings_a_student_to_its_own_teacher_embedding():
    student, teacher = same_width()
    assert info_nce_loss(teacher, teacher) < info_nce_loss(student, teacher)
    assert info_nce_loss(teacher, teacher) < info_nce_loss(teacher.roll(1, dims=0), teacher)
    torch.testing.assert_close(info_nce_loss(7 * student, 0.1 * teacher), info_nce_loss(student, teacher))
    facts.assert_gradient_is_exact(info_nce_loss, student, teacher)
    facts.assert_teacher_gets_no_gradient(info_nce_loss, student, teacher)


def test_info_nce_works_in_low_precision_and_at_extremes():
    student, teacher = same_width(dtype=torch.float32)
    facts.assert_works_under_autocast(info_nce_loss, student, teacher, rtol=0.05)
    facts.assert_nan_is_shown(info_nce_loss, student, teacher)
    for spoiled in (0 * student, student[:1].repeat(len(student), 1), -teacher, 1e4 * student):
        facts.assert_finite(info_nce_loss, spoiled, teacher)
        facts.assert_finite(info_nce_loss, student, spoiled)


def test_info_nce_refuses_one_sample_and_other_widths():
    student, teacher = same_width()
    assert "N >= 2" in facts.assert_rejects(
        info_nce_loss, student[:1], teacher[:1], naming="student_embeddings"
    )
    facts.assert_rejects(info_nce_loss, student, teacher[:, :-1], naming="teacher_embeddings")


# Scale


@pytest.mark.parametrize("scale", [1e-9, 1e-8, 1e-4, 1e4, 1e8])
def test_similarities_do_not_depend_on_the_scale_of_float32_features(scale):
    """Inner products of tiny features would pass for zero."""
    student, teacher = (rows.float() for rows in embeddings())
    value, gradient = facts.value_and_gradient(sp_loss, student, teacher)
    scaled_value, scaled_gradient = facts.value_and_gradient(sp_loss, scale * student, scale * teacher)
    torch.testing.assert_close(scaled_value, value, rtol=1e-4, atol=0)
    torch.testing.assert_close(scale * scaled_gradient, gradient, rtol=1e-3, atol=1e-7)


def test_cc_refuses_a_series_that_leaves_the_range():
    facts.assert_rejects(cc_loss, *embeddings(), gamma=41.0, naming="gamma")
    facts.assert_rejects(cc_loss, *embeddings(), order=101, naming="order")
    assert cc_loss(*(rows.float() for rows in embeddings()), gamma=40.0, order=100).isfinite()
