"""The tap, and the feature losses against their formulas written out element by element."""

import json
import math

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdutils.course import models
from kdutils.evaluate import linear_cka
from kdutils.losses import Regressor, VIDLoss, at_loss, attention_map, fsp_loss, hint_loss, nst_loss
from kdutils.taps import FeatureTap, _in_batch_order

# The papers' formulas, in float64, one element at a time. Maps are (C, H, W), one sample.


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def positions(maps):
    return [(y, x) for y in range(maps.shape[-2]) for x in range(maps.shape[-1])]


def average_pooled(maps, height, width):
    """Each output pixel is the mean of the input pixels that it covers, wholly or in part."""

    def covered(i, out, size):
        return slice(i * size // out, math.ceil((i + 1) * size / out))

    _, _, rows, columns = maps.shape
    pooled = [
        [
            maps[:, :, covered(y, height, rows), covered(x, width, columns)].mean(dim=(2, 3))
            for x in range(width)
        ]
        for y in range(height)
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in pooled], dim=-2)


def of_one_size(maps, other):
    size = [min(side, other_side) for side, other_side in zip(maps.shape[2:], other.shape[2:], strict=True)]
    return average_pooled(maps, *size), average_pooled(other, *size)


def hint_formula(student, teacher):
    return mean((s - t) ** 2 for s, t in zip(student.reshape(-1), teacher.reshape(-1), strict=True))


def attention_formula(maps, p=2):
    energy = [mean(maps[c, y, x].abs() ** p for c in range(len(maps))) for y, x in positions(maps)]
    return torch.stack(energy) / torch.sqrt(sum(e**2 for e in energy))


def at_formula(student, teacher, p=2):
    student, teacher = of_one_size(student, teacher)
    return mean(
        (attention_formula(s, p) - attention_formula(t, p)).pow(2).mean()
        for s, t in zip(student, teacher, strict=True)
    )


def fsp_formula(student_pair, teacher_pair):
    def matrix(early, late, c1, c2):
        return mean(early[c1, y, x] * late[c2, y, x] for y, x in positions(early))

    (s1, s2), (t1, t2) = of_one_size(*student_pair), of_one_size(*teacher_pair)
    return mean(
        (matrix(s1[n], s2[n], c1, c2) - matrix(t1[n], t2[n], c1, c2)) ** 2
        for n in range(len(s1))
        for c1 in range(s1.shape[1])
        for c2 in range(s2.shape[1])
    )


def nst_formula(student, teacher):
    def patterns(maps):
        return [channel.reshape(-1) / torch.sqrt((channel**2).sum()) for channel in maps]

    def kernel(a, b):
        return mean((x * y).sum() ** 2 for x in a for y in b)

    student, teacher = of_one_size(student, teacher)
    pairs = [(patterns(s), patterns(t)) for s, t in zip(student, teacher, strict=True)]
    return mean(kernel(s, s) + kernel(t, t) - 2 * kernel(s, t) for s, t in pairs)


def vid_formula(loss, student, teacher):
    student, teacher = of_one_size(student, teacher)
    first, second, third = (loss.mean[i].weight[:, :, 0, 0] for i in (0, 2, 4))
    variance = torch.log(1 + torch.exp(loss.raw_variance)) + 1e-5
    terms = []
    for n in range(len(student)):
        for y, x in positions(student):
            mu = third @ (second @ (first @ student[n, :, y, x]).clamp(min=0)).clamp(min=0)
            terms += [
                ((teacher[n, c, y, x] - mu[c]) ** 2 / variance[c] + torch.log(variance[c])) / 2
                for c in range(len(mu))
            ]
    return mean(terms)


def cka_formula(student, teacher):
    """HSIC(K, L) / √(HSIC(K, K)·HSIC(L, L)) with HSIC(K, L) = tr(K·H·L·H), H the centring matrix."""
    n = len(student)
    centring = torch.eye(n, dtype=student.dtype) - 1 / n

    def hsic(k, kk):
        return torch.trace(k @ centring @ kk @ centring)

    k, kk = (x.reshape(n, -1) @ x.reshape(n, -1).T for x in (student, teacher))
    return hsic(k, kk) / torch.sqrt(hsic(k, k) * hsic(kk, kk))


# The losses as functions of one student and one teacher tensor, so that the same facts serve all of them.


def split_fsp(student, teacher):
    """FSP of the first two channels with the rest."""
    return fsp_loss((student[:, :2], student[:, 2:]), (teacher[:, :2], teacher[:, 2:]))


def split_fsp_formula(student, teacher):
    return fsp_formula((student[:, :2], student[:, 2:]), (teacher[:, :2], teacher[:, 2:]))


FORMULAS = {
    hint_loss: hint_formula,
    at_loss: at_formula,
    split_fsp: split_fsp_formula,
    nst_loss: nst_formula,
}
every_loss = pytest.mark.parametrize("loss_fn", list(FORMULAS), ids=lambda loss: loss.__name__)
LOSSES_OF_ANY_SIZE = {at_loss: at_formula, nst_loss: nst_formula}


def feature_maps(seed=0, shape=(2, 4, 3, 2), dtype=torch.float64, std=2.0):
    student = facts.random_tensor(*shape, seed=seed, dtype=dtype, std=std)
    return student, facts.random_tensor(*shape, seed=seed + 100, dtype=dtype, std=std)


# Formula and gradient


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula(loss_fn, seed):
    facts.assert_matches_formula(loss_fn, FORMULAS[loss_fn], *feature_maps(seed))


@every_loss
def test_equals_the_formula_for_one_sample(loss_fn):
    facts.assert_matches_formula(loss_fn, FORMULAS[loss_fn], *feature_maps(shape=(1, 4, 3, 2)))


@every_loss
def test_gradient_is_exact(loss_fn):
    facts.assert_gradient_is_exact(loss_fn, *feature_maps())


SIZES = [
    ((8, 8), (4, 4)),
    ((4, 4), (8, 8)),
    ((14, 14), (7, 7)),
    ((5, 5), (8, 8)),
    ((8, 8), (5, 5)),
    ((6, 2), (3, 4)),
    ((1, 1), (4, 4)),
]


@pytest.mark.parametrize("loss_fn", list(LOSSES_OF_ANY_SIZE), ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("student_size, teacher_size", SIZES)
def test_the_larger_map_is_average_pooled_to_the_smaller(loss_fn, student_size, teacher_size):
    student = facts.random_tensor(2, 3, *student_size, seed=1)
    teacher = facts.random_tensor(2, 2, *teacher_size, seed=2)
    if 1 in student_size:  # a single position holds no pattern
        value, gradient = facts.value_and_gradient(loss_fn, student, teacher)
        assert value.abs() < 1e-12 and gradient.abs().max() < 1e-12
    else:
        facts.assert_matches_formula(loss_fn, LOSSES_OF_ANY_SIZE[loss_fn], student, teacher)


@pytest.mark.parametrize("early_size, late_size", [((8, 8), (4, 4)), ((5, 5), (8, 8)), ((4, 6), (6, 4))])
def test_fsp_pools_within_a_pair(early_size, late_size):
    early = facts.random_tensor(2, 2, *early_size, seed=1)
    late = facts.random_tensor(2, 3, *late_size, seed=2)
    teacher_pair = facts.random_tensor(2, 2, 7, 7, seed=3), facts.random_tensor(2, 3, 3, 3, seed=4)
    for position in (0, 1):

        def with_student(formula, position=position):
            def of_one(student, teacher_pair):
                return formula((student, late) if position == 0 else (early, student), teacher_pair)

            return of_one

        facts.assert_matches_formula(
            with_student(fsp_loss), with_student(fsp_formula), (early, late)[position], teacher_pair
        )


@pytest.mark.parametrize("p", [1, 2, 3, 4.0])
def test_attention_powers(p):
    student, teacher = feature_maps()
    facts.assert_matches_formula(
        lambda s, t: at_loss(s, t, p=p), lambda s, t: at_formula(s, t, p), student, teacher
    )


def test_attention_map():
    features = facts.random_tensor(3, 5, 4, 6)
    maps = attention_map(features)
    assert maps.shape == (3, 4, 6) and maps.dtype == features.dtype
    torch.testing.assert_close(maps.flatten(1).norm(dim=1), torch.ones(3, dtype=torch.float64))
    for sample, one in zip(features, maps, strict=True):
        torch.testing.assert_close(one.flatten(), attention_formula(sample))
    torch.testing.assert_close(attention_map(-3 * features), maps)
    assert attention_map(torch.zeros(1, 2, 2, 2)).abs().max() == 0
    by_hand = torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]])  # energies 9/2 and 4/2
    torch.testing.assert_close(attention_map(by_hand), torch.tensor([[[9.0, 4.0]]]) / math.sqrt(97))


@pytest.mark.parametrize("seed", range(2))
def test_vid_equals_the_formula_for_student_and_parameters(seed):
    loss, student, teacher = vid(seed=seed)
    with torch.no_grad():
        loss.raw_variance += facts.random_tensor(3, seed=seed)
    facts.assert_matches_formula(loss, lambda s, t: vid_formula(loss, s, t), student, teacher)
    parameters = list(loss.parameters())
    gradients = torch.autograd.grad(loss(student, teacher), parameters)
    expected = torch.autograd.grad(vid_formula(loss, student, teacher), parameters)
    torch.testing.assert_close(gradients, expected, rtol=1e-6, atol=1e-12)
    facts.assert_gradient_is_exact(loss, student, teacher)


def vid(seed=0, student_shape=(2, 2, 3, 2), teacher_shape=(2, 3, 3, 2), dtype=torch.float64):
    torch.manual_seed(seed)
    loss = VIDLoss(student_shape[1], teacher_shape[1]).to(dtype)
    student = facts.random_tensor(*student_shape, seed=seed, dtype=dtype)
    return loss, student, facts.random_tensor(*teacher_shape, seed=seed + 100, dtype=dtype)


def test_vid_pools_and_starts_at_variance_5():
    for sizes in SIZES:
        loss, student, teacher = vid(student_shape=(2, 2, *sizes[0]), teacher_shape=(2, 3, *sizes[1]))
        torch.testing.assert_close(loss(student, teacher), vid_formula(loss, student, teacher))
    torch.testing.assert_close(loss.variance, torch.full((3,), 5.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_vid_learns_which_channels_can_be_predicted():
    student = facts.random_tensor(64, 2, 2, 2, std=1.0, dtype=torch.float32)
    noise = facts.random_tensor(64, 1, 2, 2, seed=9, std=3.0, dtype=torch.float32)
    teacher = torch.cat([student.relu(), noise], dim=1)
    torch.manual_seed(0)
    loss = VIDLoss(2, 3)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    assert loss.variance[2] > 3 * loss.variance[:2].max()


# What every loss owes


@every_loss
def test_scalar_of_the_students_dtype(loss_fn):
    for dtype in (torch.float64, torch.float32, *facts.LOW_PRECISION):
        facts.assert_scalar_of_input_dtype(loss_fn, *feature_maps(dtype=dtype))


def test_vid_and_cka_give_scalars_of_the_students_dtype():
    for dtype in (torch.float64, torch.float32):
        facts.assert_scalar_of_input_dtype(*vid(dtype=dtype))
    for dtype in (torch.float64, torch.float32, *facts.LOW_PRECISION):
        facts.assert_scalar_of_input_dtype(linear_cka, *feature_maps(dtype=dtype))
    loss, student, teacher = vid(dtype=torch.float32)
    assert loss(student.half(), teacher.half()).dtype == torch.float16


@every_loss
def test_a_cached_teacher_may_be_stored_in_half_precision(loss_fn):
    student, teacher = feature_maps(dtype=torch.float32)
    loss = loss_fn(student, teacher.half())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_fn(student, teacher), rtol=0.01, atol=0)


@every_loss
def test_no_gradient_reaches_the_teacher(loss_fn):
    facts.assert_teacher_gets_no_gradient(loss_fn, *feature_maps())


def test_no_gradient_reaches_the_teacher_of_vid_and_cka():
    facts.assert_teacher_gets_no_gradient(*vid())
    facts.assert_teacher_gets_no_gradient(linear_cka, *feature_maps(shape=(5, 2, 3, 2)))


@every_loss
def test_learns_only_from_difference(loss_fn):
    facts.assert_learns_only_from_difference(loss_fn, *feature_maps())


@every_loss
def test_a_nan_is_shown(loss_fn):
    facts.assert_nan_is_shown(loss_fn, *feature_maps())


def test_a_nan_is_shown_by_vid_and_cka():
    facts.assert_nan_is_shown(*vid())
    facts.assert_nan_is_shown(linear_cka, *feature_maps())


@every_loss
def test_works_under_autocast(loss_fn):
    facts.assert_works_under_autocast(loss_fn, *feature_maps())
    student, teacher = feature_maps(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_fn(student, teacher)
    torch.testing.assert_close(loss, loss_fn(student, teacher))  # no product was rounded to bfloat16


def test_vid_works_under_autocast():
    facts.assert_works_under_autocast(*vid(dtype=torch.float32), rtol=0.03)


@every_loss
def test_float32_agrees_with_float64(loss_fn):
    facts.assert_agrees_with_float64(loss_fn, *feature_maps(dtype=torch.float32), rtol=1e-5)


@pytest.mark.parametrize("loss_fn", [at_loss, nst_loss])
def test_half_precision_does_not_overflow(loss_fn):
    student, teacher = feature_maps(std=300.0)  # squares leave the range of float16
    loss = loss_fn(student.half(), teacher.half())
    torch.testing.assert_close(loss.double(), loss_fn(student, teacher), rtol=0.01, atol=1e-6)
    facts.assert_finite(loss_fn, student.half(), teacher.half())


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_finite_at_extremes(loss_fn, dtype):
    student, teacher = feature_maps(dtype=dtype)

    def spoiled(tensor):
        dead_channel, dead_sample, alike = tensor.clone(), tensor.clone(), tensor.clone()
        dead_channel[:, 1] = 0
        dead_sample[0] = 0
        alike[:] = alike[0, 0, 0, 0]
        return [
            tensor,
            dead_channel,
            dead_sample,
            alike,
            torch.zeros_like(tensor),
            1e4 * tensor,
            1e-4 * tensor,
            1e-20 * tensor,
        ]

    for bad_student in spoiled(student):
        for bad_teacher in spoiled(teacher):
            facts.assert_finite(loss_fn, bad_student, bad_teacher)


@pytest.mark.parametrize("p", [1, 1.5, 4])
def test_dead_features_keep_every_attention_power_finite(p):
    student, teacher = feature_maps()
    student[0] = 0
    facts.assert_finite(lambda s, t: at_loss(s, t, p=p), student, teacher)


def test_a_teacher_that_needs_gradients_stays_out_of_the_graph():
    teacher = nn.Conv2d(1, 4, 3)
    student = nn.Conv2d(1, 4, 3)
    images = torch.randn(2, 1, 6, 6)
    for loss_fn in FORMULAS:
        loss_fn(student(images), teacher(images)).backward()
    assert teacher.weight.grad is None and student.weight.grad.abs().sum() > 0


# Invariances and variants of public code that are not these losses


def test_attention_ignores_scale_and_nst_the_scale_of_each_channel():
    student, teacher = feature_maps()
    per_channel = torch.tensor([0.1, 3.0, 20.0, 1.0], dtype=torch.float64).view(1, 4, 1, 1)
    torch.testing.assert_close(at_loss(50 * student, teacher), at_loss(student, teacher))
    torch.testing.assert_close(nst_loss(per_channel * student, teacher), nst_loss(student, teacher))
    assert not torch.isclose(at_loss(per_channel * student, teacher), at_loss(student, teacher), rtol=0.01)


def test_nst_is_a_distance_of_spatial_gram_matrices():
    def gram(maps):
        unit = F.normalize(maps.flatten(2), dim=2)
        return unit.transpose(1, 2) @ unit / maps.shape[1]

    student = facts.random_tensor(3, 5, 4, 4, seed=1)
    teacher = facts.random_tensor(3, 7, 4, 4, seed=2)
    expected = (gram(student) - gram(teacher)).pow(2).sum(dim=(1, 2)).mean()
    torch.testing.assert_close(nst_loss(student, teacher), expected)


def test_the_order_of_channels_matters_to_hint_and_fsp_alone():
    student, teacher = feature_maps()
    shuffled = student[:, [2, 0, 3, 1]]
    for loss_fn in FORMULAS:
        same = torch.isclose(loss_fn(shuffled, teacher), loss_fn(student, teacher), rtol=1e-9)
        assert same == (loss_fn in (at_loss, nst_loss))


def test_attention_is_averaged_over_channels():
    student, teacher = feature_maps()
    without_reduction = (F.normalize(student.flatten(1)) - F.normalize(teacher.flatten(1))).pow(2).mean()
    assert not torch.isclose(at_loss(student, teacher), without_reduction, rtol=0.1)


def test_attention_loss_is_the_mean_of_squares_not_the_norm():
    student, teacher = feature_maps(shape=(2, 4, 8, 8))
    maps = attention_map(student).flatten(1), attention_map(teacher).flatten(1)
    norm = (maps[0] - maps[1]).norm(dim=1).mean()
    assert norm > 50 * at_loss(student, teacher)


def test_fsp_squares_every_element_not_the_norm_of_a_column():
    student, teacher = feature_maps()

    def matrix(features):
        return features[:, :2].flatten(2) @ features[:, 2:].flatten(2).transpose(1, 2) / 6

    column_norms = (matrix(student) - matrix(teacher)).norm(dim=1).sum() / 2
    assert not torch.isclose(split_fsp(student, teacher), column_norms, rtol=0.1)


def test_pooling_comes_before_the_attention_map():
    student, teacher = facts.random_tensor(2, 3, 8, 8), facts.random_tensor(2, 3, 4, 4, seed=1)
    pooled_energy = F.avg_pool2d(student.pow(2).mean(1, keepdim=True), 2).flatten(1)
    after = (F.normalize(pooled_energy) - attention_map(teacher).flatten(1)).pow(2).mean()
    assert not torch.isclose(at_loss(student, teacher), after, rtol=0.01)


# The regressor


def test_regressor_is_a_1x1_convolution():
    torch.manual_seed(0)
    regressor = Regressor(3, 5).double()
    features = facts.random_tensor(2, 3, 4, 4)
    expected = torch.einsum("oc,nchw->nohw", regressor.weight[:, :, 0, 0], features)
    torch.testing.assert_close(regressor(features), expected + regressor.bias.view(1, -1, 1, 1))
    assert sum(p.numel() for p in regressor.parameters()) == 3 * 5 + 5


def test_hint_through_a_regressor_trains_student_and_regressor():
    torch.manual_seed(0)
    student, regressor = nn.Conv2d(1, 2, 3), Regressor(2, 4)
    hint_loss(regressor(student(torch.randn(2, 1, 6, 6))), torch.randn(2, 4, 4, 4)).backward()
    assert student.weight.grad.abs().sum() > 0 and regressor.weight.grad.abs().sum() > 0


# Linear CKA


@pytest.mark.parametrize("shapes", [((5, 2), (5, 3)), ((4, 3, 2, 2), (4, 7)), ((6, 20), (6, 1))])
def test_cka_equals_the_formula(shapes):
    student = facts.random_tensor(*shapes[0], seed=1) + 3
    teacher = facts.random_tensor(*shapes[1], seed=2) - 1
    facts.assert_matches_formula(linear_cka, cka_formula, student, teacher)
    facts.assert_gradient_is_exact(linear_cka, student, teacher)
    torch.testing.assert_close(linear_cka(teacher, student), linear_cka(student, teacher))


def test_cka_in_feature_space():
    student, teacher = facts.random_tensor(30, 4, seed=1), facts.random_tensor(30, 6, seed=2)
    x, y = student - student.mean(0), teacher - teacher.mean(0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    torch.testing.assert_close(linear_cka(student, teacher), expected)


def test_cka_ignores_rotation_scale_and_offset():
    student = facts.random_tensor(12, 4, seed=1)
    rotation, _ = torch.linalg.qr(facts.random_tensor(4, 4, seed=3))
    torch.testing.assert_close(
        linear_cka(3 * student @ rotation - 5, student), torch.ones_like(student[0, 0])
    )
    stretched = student * torch.tensor([1.0, 5.0, 1.0, 0.2])
    assert 0.1 < linear_cka(stretched, student) < 0.95


def test_cka_falls_as_noise_grows():
    teacher = facts.random_tensor(200, 10, seed=1, dtype=torch.float32)
    noise = facts.random_tensor(200, 10, seed=2, dtype=torch.float32)
    similarity = [linear_cka(teacher + level * noise, teacher).item() for level in (0, 0.5, 1, 4)]
    assert similarity == sorted(similarity, reverse=True)
    assert similarity[0] == pytest.approx(1, abs=1e-5) and similarity[-1] < 0.3


def test_cka_of_constant_features_is_zero():
    student, teacher = facts.random_tensor(6, 4), facts.random_tensor(6, 3, seed=1)
    for dtype in (torch.float64, torch.float32):
        for constant in (torch.zeros(6, 4, dtype=dtype), torch.full((6, 4), 0.1, dtype=dtype)):
            assert linear_cka(constant, teacher.to(dtype)).abs() < 1e-5
            assert linear_cka(student.to(dtype), constant[:, :3]).abs() < 1e-5
            facts.assert_finite(linear_cka, constant, teacher.to(dtype))


@pytest.mark.parametrize("size", [1e-3, 3.0, 1e4])
def test_cka_of_two_layers_that_collapsed_is_zero(size):
    # equal rows, whose mean is rounded: what centring leaves of them is no signal, however it is scaled
    student, teacher = (size * facts.random_tensor(1, d, seed=d, dtype=torch.float32) for d in (32, 64))
    assert linear_cka(student.expand(100, -1), teacher.expand(100, -1)) == 0
    assert linear_cka(student.expand(100, -1).double(), teacher.expand(100, -1).double()) == 0


# Bad input


def test_hint_rejects_shapes_that_would_broadcast():
    student, teacher = feature_maps()
    facts.assert_rejects(hint_loss, student, teacher[:1], naming="teacher_features")
    facts.assert_rejects(hint_loss, student[:, :1], teacher, naming="teacher_features")
    facts.assert_rejects(hint_loss, student, teacher[:, :, :1], naming="teacher_features")
    facts.assert_rejects(hint_loss, student[:0], teacher[:0], naming="student_features")


@pytest.mark.parametrize("loss_fn", [at_loss, nst_loss, VIDLoss(4, 4).double()])
def test_map_losses_reject_bad_shapes(loss_fn):
    student, teacher = feature_maps()
    facts.assert_rejects(loss_fn, student, teacher[:1], naming="teacher_features")
    facts.assert_rejects(loss_fn, student[:0], teacher[:0], naming="student_features")
    facts.assert_rejects(loss_fn, student.flatten(2), teacher, naming="student_features")
    facts.assert_rejects(loss_fn, student, teacher.flatten(1), naming="teacher_features")
    facts.assert_rejects(loss_fn, student, teacher[:, :, :0], naming="teacher_features")


@pytest.mark.parametrize("loss_fn", [hint_loss, at_loss, nst_loss, linear_cka], ids=lambda f: f.__name__)
def test_a_teacher_of_another_precision_is_taken(loss_fn):
    student, teacher = feature_maps()
    expected = loss_fn(student, teacher).item()
    for precisions in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        loss = loss_fn(student.to(precisions[0]), teacher.to(precisions[1]))
        assert loss.dtype == precisions[0] and loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("p", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_attention_does_not_depend_on_the_scale(p, scale):
    student, teacher = feature_maps(dtype=torch.float32)
    maps = attention_map(student, p=p)
    torch.testing.assert_close(attention_map(scale * student, p=p), maps, rtol=1e-4, atol=1e-6)
    mixed = student * torch.tensor([1, scale]).view(-1, 1, 1, 1)  # each sample has a scale of its own
    torch.testing.assert_close(attention_map(mixed, p=p), maps, rtol=1e-4, atol=1e-6)
    expected = at_loss(student, teacher, p=p).item()
    assert at_loss(scale * student, teacher / scale, p=p).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("dtype", facts.LOW_PRECISION, ids=str)
def test_vid_runs_in_low_precision(dtype):
    student, teacher = (maps.to(dtype) for maps in feature_maps())
    vid = VIDLoss(student.shape[1], teacher.shape[1])
    expected = vid(student.float(), teacher.float()).item()
    loss = vid.to(dtype)(student, teacher)
    assert loss.dtype == dtype and loss.item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("loss_fn", [hint_loss, at_loss, nst_loss, linear_cka], ids=lambda f: f.__name__)
def test_whole_numbers_are_refused(loss_fn):
    """Rounded to whole numbers a loss below one would be zero."""
    pixels = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    told = ": expected a floating-point dtype, got torch.uint8"
    for who, arguments in (("student", (pixels, pixels.float())), ("teacher", (pixels.float(), pixels))):
        naming = f"{who}_features"
        assert facts.assert_rejects(loss_fn, *arguments, naming=naming) == naming + told


def test_attention_map_names_its_argument_and_keeps_its_precision():
    student, _ = feature_maps()
    assert facts.assert_rejects(attention_map, student[:0], naming="features").startswith("features: ")
    assert attention_map(student.to(torch.bfloat16)).dtype == torch.bfloat16


def test_attention_rejects_small_powers():
    student, teacher = feature_maps()
    for p in (0.5, 0, -2, float("nan")):
        facts.assert_rejects(at_loss, student, teacher, p=p, naming="p")
        facts.assert_rejects(attention_map, student, p=p, naming="p")


def test_fsp_rejects_bad_pairs():
    student, teacher = feature_maps()
    pair = student[:, :2], student[:, 2:]
    facts.assert_rejects(fsp_loss, pair, (teacher[:, :1], teacher[:, 2:]), naming="teacher_pair")
    facts.assert_rejects(fsp_loss, pair, (teacher[:, :2], teacher), naming="teacher_pair")
    facts.assert_rejects(fsp_loss, pair, (teacher[:1, :2], teacher[:1, 2:]), naming="teacher_pair")
    facts.assert_rejects(fsp_loss, (student[:1, :2], student[:, 2:]), pair, naming=r"student_pair\[1\]")
    facts.assert_rejects(fsp_loss, (student[0], student), pair, naming=r"student_pair\[0\]")
    facts.assert_rejects(fsp_loss, pair, (teacher[:0, :2], teacher[:0, 2:]), naming=r"teacher_pair\[0\]")


def test_vid_rejects_other_channels():
    loss, student, teacher = vid()
    facts.assert_rejects(loss, teacher, teacher, naming="student_features")
    facts.assert_rejects(loss, student, student, naming="teacher_features")


def test_cka_needs_two_samples_of_both():
    student, teacher = feature_maps()
    facts.assert_rejects(linear_cka, student[:1], teacher[:1], naming="student_features")
    facts.assert_rejects(linear_cka, student, teacher[:1], naming="teacher_features")
    facts.assert_rejects(linear_cka, student, torch.cat([teacher, teacher]), naming="teacher_features")


# Memory


def peak_megabytes(function, folder):
    """The most memory that tensors made inside the function took at one time."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as run:
        function()
    run.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda event: event[0]):
        held += change
        peak = max(peak, held)
    return peak / 1e6


def test_nst_stays_under_200_megabytes(tmp_path):
    def step(loss_fn, num_samples):
        student = torch.randn(num_samples, 256, 8, 8, requires_grad=True)
        loss_fn(student, torch.randn(num_samples, 256, 8, 8)).backward()

    def nst_by_broadcasting(student, teacher):
        maps = [F.normalize(x.flatten(2), dim=2) for x in (student, teacher)]
        kernels = [(a.unsqueeze(1) * b.unsqueeze(2)).sum(-1).pow(2).mean() for a in maps for b in maps]
        return kernels[0] - kernels[1] - kernels[2] + kernels[3]

    peak = peak_megabytes(lambda: step(nst_loss, 64), tmp_path)
    assert 10 < peak < 200
    assert peak_megabytes(lambda: step(nst_by_broadcasting, 4), tmp_path) > 64  # and 16 times that at N = 64


# The tap


class Block(nn.Module):
    """A residual block that writes into its activations: in-place ReLU after `norm`, then `+=`."""

    def __init__(self, inplace):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU(inplace=inplace)
        self.inplace = inplace

    def forward(self, x):
        out = self.last(self.relu(self.norm(self.conv(x))))
        if self.inplace:
            out += x
            return F.relu_(out)
        return F.relu(out + x)


def network(inplace=False):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), Block(inplace), nn.Flatten(), nn.Linear(2 * 6 * 6, 3))


IMAGES = facts.random_tensor(4, 1, 8, 8, dtype=torch.float32)


def num_hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_tap_records_what_layers_return():
    model = network()
    with FeatureTap(model, {"first": "0", "norm": "1.norm", "logits": ""}) as tap:
        logits = model(IMAGES)
        torch.testing.assert_close(tap["first"], model[0](IMAGES))
    assert tap["norm"].shape == (4, 2, 6, 6)
    torch.testing.assert_close(tap["logits"], logits)


def test_tap_does_not_see_what_later_layers_overwrite():
    """Values and gradients are those of the network that writes nothing in place."""
    layers = {"norm": "1.norm", "last": "1.last", "block": "1"}
    results = {}
    for inplace in (False, True):
        model = network(inplace)
        with FeatureTap(model, layers) as tap:
            logits = model(IMAGES)
        loss = logits.pow(2).mean() + sum(tap[name].pow(3).mean() for name in layers)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        results[inplace] = [tap[name] for name in layers], gradients
    assert (results[True][0][0] < 0).any() and (results[True][0][1] < 0).any()
    torch.testing.assert_close(results[True], results[False])


def test_gradient_flows_through_the_tap():
    model = network()
    with FeatureTap(model, {"norm": "1.norm"}) as tap:
        model(IMAGES)
        tap["norm"].pow(2).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0 and model[3].weight.grad is None


def test_tap_gives_the_last_forward():
    model = network().eval()
    with FeatureTap(model, {"first": "0"}) as tap:
        model(IMAGES)
        model(IMAGES[:2] + 1)
        torch.testing.assert_close(tap["first"], model[0](IMAGES[:2] + 1))


def test_tap_removes_its_hooks():
    model = network()
    tap = FeatureTap(model, {"first": "0", "norm": "1.norm"})
    assert num_hooks(model) == 0
    for _ in range(2):
        with tap:
            assert num_hooks(model) == 3
        assert num_hooks(model) == 0
    with pytest.raises(ZeroDivisionError), tap:
        1 / 0  # noqa: B018
    assert num_hooks(model) == 0
    with pytest.raises(RuntimeError), tap:
        model(torch.zeros(1, 5, 8, 8))  # wrong channels: the forward pass itself breaks
    assert num_hooks(model) == 0


def test_tap_names_the_nearest_layer():
    model = models.small_cnn()
    for wrong, nearest in {
        "stage.1.0": "stages.1.0",
        "clasifier": "classifier",
    }.items():
        with pytest.raises(
            ValueError, match=rf"layers\['x'\]: expected .*, got '{wrong}'; the nearest is '{nearest}'"
        ):
            FeatureTap(model, {"x": wrong})
    with pytest.raises(ValueError, match="expected the path of a layer of ReLU, got 'stages'"):
        FeatureTap(nn.ReLU(), {"x": "stages"})


@pytest.mark.parametrize("container", [nn.ModuleDict({"net": nn.ReLU()}), nn.ModuleList([nn.ReLU()])])
def test_tap_refuses_what_is_never_called(container):
    # without its call nothing says that a new batch began: an old one's features could be read
    with pytest.raises(
        ValueError, match=f"model: expected a module that is called, got a {type(container).__name__}"
    ):
        FeatureTap(container, {"x": next(iter(dict(container.named_children())))})


def test_tap_read_too_early_or_by_a_wrong_name():
    model = network()
    tap = FeatureTap(model, {"first": "0"})
    with pytest.raises(RuntimeError, match=r"nothing recorded for 'first'.*forward.*layer '0'"):
        tap["first"]
    model(IMAGES)  # outside of the block, nothing is recorded
    with pytest.raises(RuntimeError):
        tap["first"]
    with pytest.raises(KeyError, match=r"no layer is tapped as 'frist', only as \['first'\]"):
        tap["frist"]


def test_tap_forgets_a_layer_that_the_last_forward_went_around():
    class Early(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x, stop_early=False):
            x = self.first(x)
            return x if stop_early else self.second(x)

    model = Early()
    with FeatureTap(model, {"first": "first", "second": "second"}) as tap:
        model(torch.ones(1, 2))
        tap["second"]
        model(torch.ones(3, 2), stop_early=True)
        assert tap["first"].shape == (3, 2)
        with pytest.raises(RuntimeError, match="went around"):
            tap["second"]


def test_tap_refuses_what_is_not_a_tensor():
    model = nn.Sequential(nn.LSTM(2, 2))
    told = r"^layer '0' returns a tuple, not a tensor: tap a layer inside it$"
    with FeatureTap(model, {"x": "0"}), pytest.raises(TypeError, match=told):
        model(torch.ones(1, 1, 2))


def test_tap_under_no_grad_inference_mode_and_autocast():
    model = network(inplace=True)
    with FeatureTap(model, {"norm": "1.norm", "last": "1.last"}) as tap:
        with torch.no_grad():
            model(IMAGES)
        assert not tap["norm"].requires_grad and (tap["norm"] < 0).any()
        with torch.inference_mode():
            model(IMAGES)
        assert (tap["norm"] < 0).any()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(IMAGES)
        assert tap["last"].dtype == torch.bfloat16
        at_loss(tap["last"], facts.random_tensor(4, 5, 3, 3, dtype=torch.float32)).backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_tap_in_data_parallel():
    model = network()
    parallel = nn.DataParallel(model)
    with FeatureTap(parallel, {"norm": "1.norm"}) as tap:
        parallel(IMAGES)
        features = tap["norm"]
        assert features.shape == (4, 2, 6, 6)
        features.sum().backward()
    assert model[0].weight.grad is not None and num_hooks(parallel) == 0
    with pytest.raises(ValueError, match=r"of Sequential, got 'module\.1\.norm'; the nearest is '1\.norm'"):
        FeatureTap(parallel, {"norm": "module.1.norm"})


def test_tap_refuses_a_replica_of_the_tapped_model():
    model = nn.Sequential(nn.ReLU())
    replica = model[0]._replicate_for_data_parallel()  # as DataParallel makes them: it shares the hooks
    told = r"^DataParallel split the batch: tap the DataParallel model, not the one inside$"
    with FeatureTap(model, {"x": "0"}), pytest.raises(RuntimeError, match=told):
        replica(IMAGES)
    with FeatureTap(nn.DataParallel(model), {"x": "0"}) as tap:
        replica(IMAGES)
        torch.testing.assert_close(tap["x"], IMAGES.relu())


def test_parts_of_a_batch_come_back_in_order():
    first, second = torch.tensor([[0.0], [1.0]], requires_grad=True), torch.tensor([[2.0]])
    whole = _in_batch_order({0: second, 1: first}, device_ids=[1, 0])
    torch.testing.assert_close(whole, torch.tensor([[0.0], [1.0], [2.0]]))
    whole.sum().backward()
    assert first.grad is not None
    # a small batch leaves devices without a part
    torch.testing.assert_close(
        _in_batch_order({0: second, 3: second}, [3, 2, 0]), torch.cat([second, second])
    )


class OnGPU(torch.Tensor):
    """A part of a batch that says it lies on the GPU `number`, and remembers where it is sent."""

    number: int
    sent_to: torch.device

    @property
    def device(self):
        return torch.device("cuda", self.number)

    def clone(self):
        return self

    def to(self, device):
        self.sent_to = device
        return self.as_subclass(torch.Tensor)


def test_a_tap_puts_the_replicas_parts_in_order_on_the_first_gpu():
    parallel = nn.DataParallel(nn.Sequential(nn.Identity()))
    parallel.device_ids = [1, 0]
    first, second = IMAGES[:3].as_subclass(OnGPU), IMAGES[3:].as_subclass(OnGPU)
    first.number, second.number = 1, 0
    with FeatureTap(parallel, {"x": "0"}) as tap:
        for part in (second, first):  # the GPU that is ready first
            parallel.module[0]._replicate_for_data_parallel()(part)
        torch.testing.assert_close(tap["x"], IMAGES)
    assert first.sent_to == second.sent_to == torch.device("cuda:1")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tap_gathers_the_replicas_of_data_parallel():
    model = network().eval()
    expected = model[0](IMAGES)
    parallel = nn.DataParallel(model.to("cuda:1"), device_ids=[1, 0])
    with FeatureTap(parallel, {"first": "0"}) as tap:
        parallel(IMAGES.to("cuda:1"))
    assert tap["first"].device == torch.device("cuda:1")
    torch.testing.assert_close(tap["first"].cpu(), expected, rtol=1e-2, atol=1e-3)


def test_tap_in_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        model = network()
        distributed = nn.parallel.DistributedDataParallel(model)
        with FeatureTap(distributed, {"norm": "1.norm"}) as tap:
            logits = distributed(IMAGES)
            (logits.mean() + tap["norm"].pow(2).mean()).backward()
        assert model[1].conv.weight.grad.abs().sum() > 0 and num_hooks(distributed) == 0
    finally:
        torch.distributed.destroy_process_group()


def test_tapped_student_learns_from_a_tapped_teacher():
    """The whole way: two networks of different widths, a regressor, one step of gradient descent."""
    teacher = models.teacher_cnn(seed=1).eval()
    student = models.small_cnn(seed=2)
    regressor = Regressor(16, 64)
    images = facts.random_tensor(8, 1, 28, 28, std=1.0, dtype=torch.float32)
    optimizer = torch.optim.Adam([*student.parameters(), *regressor.parameters()], lr=0.01)
    losses = []
    with (
        FeatureTap(teacher, {"hint": "stages.1"}) as hint,
        FeatureTap(student, {"guided": "stages.1"}) as guided,
    ):
        with torch.no_grad():
            teacher(images)
        for _ in range(20):
            student(images)
            loss = hint_loss(regressor(guided["guided"]), hint["hint"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
