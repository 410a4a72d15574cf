"""The feature losses against their formulas written out element by element."""

import json
import math

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdutils.losses import (
    Regressor,
    VIDLoss,
    at_loss,
    attention_map,
    channel_kd_loss,
    fsp_loss,
    hint_loss,
    kd_loss,
    nst_loss,
)

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


def channel_kd_formula(student, teacher, temperature=4.0):
    def places(channel):
        powers = [torch.exp(channel[y, x] / temperature) for y, x in positions(channel)]
        return [power / sum(powers) for power in powers]

    def kl(s, t):
        return sum(p * torch.log(p / q) for p, q in zip(places(t), places(s), strict=True))

    student, teacher = of_one_size(student, teacher)
    channels = [(s, t) for n in range(len(student)) for s, t in zip(student[n], teacher[n], strict=True)]
    return temperature**2 * mean(kl(s, t) for s, t in channels)


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
    channel_kd_loss: channel_kd_formula,
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
def test_one_number_in_at_least_float32(loss_fn):
    for dtype in (torch.float64, torch.float32, *facts.LOW_PRECISION):
        facts.assert_one_number(loss_fn, *feature_maps(dtype=dtype))


def test_vid_gives_one_number_in_at_least_float32():
    for dtype in (torch.float64, torch.float32):
        facts.assert_one_number(*vid(dtype=dtype))
    loss, student, teacher = vid(dtype=torch.float32)
    facts.assert_one_number(loss, student.half(), teacher.half())


@every_loss
def test_a_cached_teacher_may_be_stored_in_half_precision(loss_fn):
    student, teacher = feature_maps(dtype=torch.float32)
    loss = loss_fn(student, teacher.half())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_fn(student, teacher), rtol=0.01, atol=0)


@every_loss
def test_no_gradient_reaches_the_teacher(loss_fn):
    facts.assert_teacher_gets_no_gradient(loss_fn, *feature_maps())


def test_no_gradient_reaches_the_teacher_of_vid():
    facts.assert_teacher_gets_no_gradient(*vid())


@every_loss
def test_learns_only_from_difference(loss_fn):
    facts.assert_learns_only_from_difference(loss_fn, *feature_maps())


@every_loss
def test_a_nan_is_shown(loss_fn):
    facts.assert_nan_is_shown(loss_fn, *feature_maps())


def test_a_nan_is_shown_by_vid():
    facts.assert_nan_is_shown(*vid())


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


@pytest.mark.parametrize("loss_fn", [hint_loss, at_loss, nst_loss], ids=lambda f: f.__name__)
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
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("loss_fn", [hint_loss, at_loss, nst_loss], ids=lambda f: f.__name__)
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


def test_regressor_refuses_what_are_no_feature_maps():
    """Three dimensions, also tokens (N, L, D) with N = in_channels, would pass for one picture."""
    regressor = Regressor(4, 6)
    for shape in ((4, 5, 6), (2, 3, 5, 5), (2, 4), (0, 4, 5, 5)):
        facts.assert_rejects(regressor, torch.zeros(shape), naming="input")
    for channels in (0, 1.5, True, "4", None):
        facts.assert_rejects(Regressor, channels, 3, naming="in_channels")
        facts.assert_rejects(VIDLoss, 3, channels, naming="out_channels")


# Channels, place by place


def test_channel_kd_asks_where_and_kd_asks_what():
    student, teacher = feature_maps()
    rows = [maps.flatten(2).flatten(0, 1) for maps in (student, teacher)]
    for temperature in (1.0, 4.0):
        loss = channel_kd_loss(student, teacher, temperature=temperature)
        torch.testing.assert_close(loss, kd_loss(*rows, temperature=temperature))
    what = kd_loss(student, teacher, temperature=4.0, class_dim=1)
    assert (what - channel_kd_loss(student, teacher)).abs() > 0.01


def test_channel_kd_does_not_hear_a_channels_level():
    """What is added to a whole map moves no place of it."""
    student, teacher = feature_maps()
    level = facts.random_tensor(1, student.shape[1], 1, 1, seed=9)
    torch.testing.assert_close(channel_kd_loss(student + level, teacher), channel_kd_loss(student, teacher))
    assert channel_kd_loss(student[..., :1, :1], teacher).abs() < 1e-12


def test_channel_kd_pools_the_larger_map_and_wants_as_many_channels():
    student, teacher = feature_maps()[0], feature_maps(shape=(2, 4, 5, 3))[1]
    torch.testing.assert_close(channel_kd_loss(student, teacher), channel_kd_formula(student, teacher))
    facts.assert_rejects(channel_kd_loss, student, teacher[:, :3], naming="teacher_features")
