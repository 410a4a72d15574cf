"""Quantization, folding and storage, each against what it stands for."""

import copy
import re
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn
from used_network import used_network, weights

from kdutils.compress import (
    FakeQuantize,
    fake_quantize,
    fix_scales,
    fold_batch_norm,
    integer_range,
    learn_scales,
    least_error_scale,
    load_packed_state,
    magnitude_masks,
    pack_integers,
    packed_state,
    unpack_integers,
)
from kdutils.course.models import ConvNet, small_cnn

IMAGES = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
BITS = [2, 3, 4, 8]


# The grid


@pytest.mark.parametrize(
    ("bits", "signed", "expected"),
    [(8, True, (-127, 127)), (2, True, (-1, 1)), (8, False, (0, 255)), (3, False, (0, 7))],
)
def test_integer_range(bits, signed, expected):
    assert integer_range(bits, signed) == expected


@pytest.mark.parametrize("bits", [1, 9, 0, -3, 2.0])
def test_bits_out_of_range_are_named(bits):
    with pytest.raises(ValueError, match=f"bits: expected a whole number.*got {bits}"):
        integer_range(bits)


@pytest.mark.parametrize("bits", BITS)
def test_rounded_values_are_the_integers_times_the_step(bits):
    values = 3 * torch.randn(5, 4, 3, 3)
    quantizer = FakeQuantize(least_error_scale(values.flatten(1), bits), bits)
    integers = quantizer.integers(values)
    assert integers.dtype == torch.int8
    torch.testing.assert_close(
        quantizer(values), integers * quantizer.scale.reshape(-1, 1, 1, 1), rtol=0, atol=0
    )
    assert len(integers.unique()) <= 2**bits - 1


def test_one_step_for_all_without_sign():
    values = torch.tensor([-1.0, 0.0, 0.26, 0.74, 9.0])
    quantizer = FakeQuantize(torch.tensor(0.5), 2, signed=False)
    assert quantizer(values).tolist() == [0, 0, 0.5, 0.5, 1.5]
    assert quantizer.integers(values).tolist() == [0, 0, 1, 1, 3]


def test_gradient_passes_inside_the_grid_and_stops_where_it_clips():
    values = torch.tensor([[-0.9, -0.4, 0.2, 0.9]], requires_grad=True)
    FakeQuantize(torch.tensor([0.5]), 2)(values).sum().backward()
    # the grid ends at ±.5; torch rounds first, so that values up to half a step beyond still count as inside
    assert values.grad.tolist() == [[0, 1, 1, 0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.booleans(), st.integers(0, 2**31))
def test_no_other_share_of_the_magnitude_errs_less(bits, signed, seed):
    rows = torch.randn(3, 40, generator=torch.Generator().manual_seed(seed))
    rows = rows if signed else rows.relu()
    high = integer_range(bits, signed)[1]
    low = integer_range(bits, signed)[0]

    def error(scale):
        step = scale.unsqueeze(1)
        return ((rows / step).round().clamp(low, high) * step - rows).square().mean(dim=1)

    chosen = error(least_error_scale(rows, bits, signed))
    for share in (0.05, 0.3, 0.55, 0.8, 1.0):
        assert (chosen <= error(share * rows.abs().amax(dim=1) / high) + 1e-7).all()


def test_clipping_pays_at_two_bits_and_not_for_numbers_on_the_grid():
    assert least_error_scale(torch.tensor([[-3.0, 1.0, 2.0, 3.0]]), 3).item() == pytest.approx(1.0)
    heavy = torch.cat([torch.randn(1000), torch.tensor([20.0])]).unsqueeze(0)
    assert least_error_scale(heavy, 2).item() < 10


def test_a_row_of_zeros_stays_zero():
    scale = least_error_scale(torch.zeros(2, 3), 4)
    assert scale.tolist() == [1, 1]
    assert FakeQuantize(scale, 4)(torch.zeros(2, 3)).abs().max() == 0


@pytest.mark.parametrize(
    "rows, naming",
    [
        (torch.zeros(3), r"expected shape .*, got \(3,\)"),
        (torch.zeros(0, 3), r"expected shape .*, got \(0, 3\)"),
        (torch.zeros(1, 3, dtype=torch.int8), "expected a floating-point dtype, got torch.int8"),
        (torch.tensor([[torch.nan, 1]]), "expected finite numbers, got 1 that are not"),
    ],
)
def test_rows_that_do_not_fit_are_named(rows, naming):
    with pytest.raises(ValueError, match=f"^rows: {naming}$"):
        least_error_scale(rows, 4)


def test_weights_and_images_that_are_not_finite_are_named():
    network = used_network()
    with pytest.raises(ValueError, match=r"^images: expected finite numbers, got 784 that are not$"):
        fake_quantize(network, 4, torch.full((1, 1, 28, 28), torch.inf))
    with torch.no_grad():
        network.classifier.bias[3] = torch.nan
    with pytest.raises(ValueError, match=r"^network: classifier\.bias: expected finite numbers, got 1 that"):
        fake_quantize(network, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_rounding_keeps_the_precision_of_what_comes_in(dtype):
    values = torch.tensor([[-0.9, 0.3], [0.1, 0.7]])
    for scale in (torch.tensor([0.5, 0.25]), torch.tensor(0.5)):
        rounded = FakeQuantize(scale.to(dtype), 4)(values.to(dtype))
        assert rounded.dtype == dtype
        torch.testing.assert_close(rounded.float(), FakeQuantize(scale, 4)(values))


def test_one_relu_at_two_places_is_rounded_at_both_each_with_its_step():
    relu = nn.ReLU()
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    images = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    shared = fake_quantize(nn.Sequential(first, relu, second, relu), 3, images)
    apart = fake_quantize(nn.Sequential(first, nn.ReLU(), second, nn.ReLU()), 3, images)
    assert len(shared) == 4
    for place in (1, 3):
        assert [type(layer).__name__ for layer in shared[place]] == ["ReLU", "FakeQuantize"]
    assert shared[1][1].scale != shared[3][1].scale
    torch.testing.assert_close(shared(images), apart(images))


def test_a_network_without_weights_to_prune_is_named():
    with pytest.raises(ValueError, match=r"^network: expected at least one Conv2d or Linear, got none$"):
        magnitude_masks(nn.Conv1d(1, 1, 1), 0.5)


# Networks


@pytest.mark.parametrize("bits", BITS)
def test_every_weight_is_rounded_per_channel(bits):
    network = used_network()
    rounded = fake_quantize(network, bits)
    for name, weight in weights(rounded).items():
        assert all(len(channel.unique()) <= 2**bits - 1 for channel in weight), name
    before = {name: weight.clone() for name, weight in weights(network).items()}
    torch.testing.assert_close(weights(network), before)  # the given network is as it was


def test_eight_bits_change_little_and_two_bits_change_more():
    network = used_network()
    logits = network(IMAGES)
    difference = {
        bits: (fake_quantize(network, bits, IMAGES)(IMAGES) - logits).norm() / logits.norm() for bits in BITS
    }
    assert difference[8] < 0.05 < difference[2]
    assert list(difference.values()) == sorted(difference.values(), reverse=True)


@pytest.mark.parametrize("bits", BITS)
def test_every_activation_is_rounded_per_layer(bits):
    rounded = fake_quantize(used_network(), bits, IMAGES)
    seen = []
    for module in rounded.modules():
        if isinstance(module, FakeQuantize) and not module.signed:
            module.register_forward_hook(lambda m, i, output: seen.append(output))
    rounded(IMAGES)
    assert len(seen) == 4  # one for each of the network's ReLUs
    assert all(len(output.unique()) <= 2**bits and output.min() >= 0 for output in seen)


def test_choosing_the_steps_leaves_batch_norm_and_mode_alone():
    network = used_network().train()
    rounded = fake_quantize(network, 4, IMAGES)
    assert network.training and rounded.training
    for (name, before), (_, after) in zip(network.named_buffers(), network.named_buffers(), strict=True):
        assert torch.equal(before, after), name
    assert torch.equal(rounded.stages[0][1].running_mean, network.stages[0][1].running_mean)


def test_training_moves_the_weights_under_fixed_steps():
    network = fake_quantize(used_network(), 3, IMAGES).train()
    steps = {n: b.clone() for n, b in network.named_buffers() if n.endswith("scale")}
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    F.cross_entropy(network(IMAGES), torch.arange(6)).backward()
    optimizer.step()
    key = "stages.0.0.parametrizations.weight.original"
    assert not torch.equal(network.state_dict()[key], before[key])
    assert all(torch.equal(b, steps[n]) for n, b in network.named_buffers() if n in steps)


# Scales that are learned


@pytest.mark.parametrize("images", [None, IMAGES], ids=["weights", "activations too"])
def test_learning_the_scales_begins_and_ends_where_fixed_ones_are(images):
    fixed = fake_quantize(used_network(), 3, images)
    learning = learn_scales(fixed)
    torch.testing.assert_close(learning(IMAGES), fixed(IMAGES), rtol=1e-4, atol=1e-4)
    assert torch.equal(fix_scales(learning)(IMAGES), fixed(IMAGES))
    assert not any(name.endswith("log_factor") for name, _ in fixed.named_parameters())


@pytest.mark.parametrize("signed", [True, False])
def test_gradient_to_a_scale_is_that_of_lsq(signed):
    """Esser et al. 2020, eq. 3: the rounding's error within the grid, the grid's end where it clips."""
    values = 2 * torch.randn(3, 200, dtype=torch.float64)
    quantizer = FakeQuantize(torch.tensor([0.3, 0.5, 1.0]), 3, signed)
    quantizer.log_factor = nn.Parameter(torch.zeros(3))
    upstream = torch.randn_like(values)
    quantizer(values).backward(upstream)
    ratio = values / quantizer.scale.unsqueeze(1)
    inside = (ratio > quantizer.low) & (ratio < quantizer.high)
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(quantizer.low, quantizer.high))
    # the scale is its start times exp(10 · log_factor)
    expected = 10 * quantizer.scale * (upstream * slope).sum(dim=1)
    torch.testing.assert_close(quantizer.log_factor.grad, expected.float(), rtol=1e-4, atol=1e-4)


def test_gradient_to_the_values_stops_where_a_learned_grid_ends():
    quantizer = FakeQuantize(torch.tensor(0.5), 3)
    quantizer.log_factor = nn.Parameter(torch.tensor(0.0))
    values = torch.tensor([-1.7, -1.0, 0.1, 1.4, 1.6], requires_grad=True)
    quantizer(values).sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


def test_training_moves_learned_scales_which_are_then_folded_and_stored():
    network = learn_scales(fake_quantize(used_network(), 3, IMAGES))
    before = fix_scales(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    F.cross_entropy(network(IMAGES), torch.arange(6)).backward()
    optimizer.step()
    after = fix_scales(network)
    moved = [
        (name, scale / dict(before.named_buffers())[name])
        for name, scale in after.named_buffers()
        if name.endswith("scale")
    ]
    assert len(moved) == 9  # five layers with a weight, four ReLUs
    assert all((share > 0).all() and (share != 1).any() for _, share in moved)
    torch.testing.assert_close(after(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-4)
    stored = fold_batch_norm(after)
    read = fold_batch_norm(fake_quantize(ConvNet((4, 6, 8), (1, 2, 1), seed=9), 3, IMAGES))
    load_packed_state(read, load(save(packed_state(stored))))
    torch.testing.assert_close(read(IMAGES), stored(IMAGES), rtol=1e-6, atol=1e-6)


def test_scales_are_learned_once_and_fixed_before_they_are_stored():
    network = fake_quantize(used_network(), 3)
    learning = learn_scales(network)
    with pytest.raises(ValueError, match="network: expected a scale that is fixed"):
        learn_scales(learning)
    with pytest.raises(ValueError, match="network: expected a scale that is being learned"):
        fix_scales(network)
    with pytest.raises(ValueError, match="scale: expected a fixed one"):
        packed_state(learning)


@pytest.mark.parametrize(
    ("network", "images", "said"),
    [
        (nn.Sequential(nn.ReLU()), None, "at least one convolution or linear layer"),
        (nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2), "at least one nn.ReLU"),
    ],
)
def test_a_network_with_nothing_to_round_is_named(network, images, said):
    with pytest.raises(ValueError, match=f"network: expected {said}"):
        fake_quantize(network, 4, images)


def part_of(conv, norm):
    """Gives a batch norm numbers as after training; returns both."""
    generator = torch.Generator().manual_seed(norm.num_features)
    for values in (norm.running_var, norm.running_mean, norm.weight.data, norm.bias.data):
        values.copy_(0.5 + torch.rand(values.shape, generator=generator))
    return conv, norm


class CallsItsParts(nn.Module):
    """A Sequential whose parts are called one by one, in several ways."""

    def __init__(self, how):
        super().__init__()
        self.parts = nn.Sequential(
            *part_of(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)),
            nn.ReLU(),
            *part_of(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            nn.ReLU(),
            nn.Conv2d(4, 2, 3),
        ).eval()
        self.how = how

    def forward(self, x):
        if self.how == "index":
            for index in (0, 1, 2, 3, 4, 5):
                x = self.parts[index](x)
            return self.parts[6](x)
        if self.how == "slice":
            return self.parts[3:](self.parts[:3](x))
        if self.how == "loop":
            for part in self.parts:
                x = part(x)
            return x
        return self.parts[6](self.parts[:6](x)) if x.sum() < 1e9 else x  # which cannot be traced


@pytest.mark.parametrize("how", ["index", "slice", "loop", "values"])
def test_parts_of_a_sequential_may_be_called_one_by_one(how):
    torch.manual_seed(0)
    network = CallsItsParts(how)
    expected = fake_quantize(network.parts, 4, IMAGES)(IMAGES)
    torch.testing.assert_close(fake_quantize(network, 4, IMAGES)(IMAGES), expected)
    assert expected.shape == (6, 2, 22, 22)
    plain = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    torch.testing.assert_close(plain(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_relu_that_is_called_twice_gets_the_larger_of_its_two_scales():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

        def forward(self, x):
            return self.part(10 * x) + self.part(x)

    torch.manual_seed(0)
    network, images = Twice(), torch.rand(50, 3)
    alone = fake_quantize(network.part, 4, 10 * images)
    assert fake_quantize(network, 4, images).part[1][1].scale == alone[1][1].scale


def test_what_is_rounded_already_is_refused():
    for rounded in (fake_quantize(used_network(), 8), nn.Sequential(FakeQuantize(torch.tensor(1.0), 8))):
        with pytest.raises(ValueError, match=r"^network: expected one that is not fake-quantized yet"):
            fake_quantize(rounded, 4)


def test_a_weight_that_is_computed_is_refused_by_rounding_and_left_alone_by_folding():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 3, 3))
    network = nn.Sequential(OrderedDict(a=conv, b=nn.BatchNorm2d(3))).eval()
    with pytest.raises(ValueError, match=r"^network: expected a\.weight to be a parameter, got one that is"):
        fake_quantize(network, 4)
    with pytest.warns(UserWarning, match=r"^network: 1 batch norms stay, .* before them: b$"):
        plain = fold_batch_norm(network)
    torch.testing.assert_close(plain(IMAGES), network(IMAGES))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_would_erase_everything_is_refused(scale):
    with pytest.raises(ValueError, match=r"^scale: expected finite numbers > 0, got "):
        FakeQuantize(torch.tensor([1.0, scale]), 4)


class LikeGPT2(nn.Module):
    """Weights that lie the other way round in a class of their own, and a head tied to the embedding."""

    class Conv1D(nn.Module):
        def __init__(self, before, after):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(before, after))

        def forward(self, x):
            return x @ self.weight

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(11, 4)
        self.block = nn.Sequential(*[self.Conv1D(4, 4) for _ in range(5)])
        self.relu = nn.ReLU()
        self.act = nn.Sequential(nn.ReLU())
        self.lm_head = nn.Linear(4, 11, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, x):
        return self.lm_head(self.act(self.relu(self.block(self.wte(x.long())))))


TOKENS = torch.arange(11.0)


def test_weights_and_activations_that_stay_are_named_to_the_caller():
    with pytest.warns(UserWarning) as caught:
        fake_quantize(LikeGPT2(), 4, TOKENS)
    assert [str(warning.message) for warning in caught] == [
        "network: 65% of the parameters stay in float32, in weights of block.0.weight, block.1.weight, "
        "block.2.weight, block.3.weight and 1 more",
        "network: activations stay in float32 after relu: no nn.ReLU in an nn.Sequential",
    ]
    assert all(warning.filename == __file__ for warning in caught)
    with pytest.warns(UserWarning, match=r"^network: 65%") as caught:
        fake_quantize(LikeGPT2(), 4)
    assert len(caught) == 1


def test_nothing_is_said_where_all_is_rounded_and_folded():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fold_batch_norm(fake_quantize(used_network(), 4, IMAGES))


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 3, 3), nn.Conv3d(2, 3, 3), nn.Linear(2, 3)])
def test_other_layers_with_their_output_channels_first_are_rounded_too(layer):
    weight = fake_quantize(layer, 2).weight
    assert all(len(channel.unique()) <= 3 for channel in weight)


def test_attention_is_rounded_too():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rounded = fake_quantize(layer, 2)
    assert all(len(row.unique()) <= 3 for row in rounded.self_attn.in_proj_weight)
    x = torch.randn(2, 5, 8)
    assert (rounded(x) - layer(x)).abs().max() > 0.01
    other = fake_quantize(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), 2)
    load_packed_state(other, load(save(packed_state(rounded))))
    torch.testing.assert_close(other(x), rounded(x))


# Folding


class Residual(nn.Module):
    """A block as ResNet writes it: parts by name, a ReLU at two places, a shortcut with a batch norm."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = part_of(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.conv2, self.bn2 = part_of(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.short = nn.Sequential(*part_of(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)))
        self.relu = nn.ReLU()

    def forward(self, x):
        inner = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(inner)) + self.short(x))


@pytest.mark.parametrize("bits", [None, 4])
def test_a_residual_network_is_folded_wholly(bits):
    network = Residual().eval()
    network = network if bits is None else fake_quantize(network, bits)
    plain = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert isinstance(plain.bn1, nn.Identity) and len(plain.short) == 1
    torch.testing.assert_close(plain(IMAGES), network(IMAGES), rtol=1e-5, atol=1e-5)


class OtherUses(nn.Module):
    """Batch norms that must stay: before a convolution, of one that is read twice, of one with two norms."""

    def __init__(self):
        super().__init__()
        _, self.first = part_of(None, nn.BatchNorm2d(1))
        self.read, self.of_read = part_of(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
        self.both, self.one = part_of(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        _, self.other = part_of(None, nn.BatchNorm2d(3))
        self.twice = nn.Sequential(*part_of(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
        self.last = nn.Sequential(*part_of(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)))

    def forward(self, x):
        read = self.read(self.first(x))
        x = self.of_read(read) + read
        x = self.one(self.both(x)) + self.other(self.both(x + 1))
        return self.last(self.twice(self.twice(x)))


def test_batch_norms_that_cannot_be_folded_stay_and_are_counted():
    network = OtherUses().eval()
    with pytest.warns(UserWarning) as caught:
        plain = fold_batch_norm(network)
    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message) == (
        "network: 5 batch norms stay, without a convolution of their own before them: "
        "first, of_read, one, other and 1 more"
    )
    assert len(plain.last) == 1
    torch.testing.assert_close(plain(IMAGES), network(IMAGES), rtol=1e-5, atol=1e-5)


def test_a_convolution_at_two_places_of_a_network_that_cannot_be_traced_is_left_alone():
    conv, norm = part_of(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    network = CallsItsParts("values").eval()
    network.parts = nn.Sequential(conv, norm, conv, copy.deepcopy(norm), nn.ReLU(), nn.ReLU(), nn.ReLU())
    network.eval()
    with pytest.warns(UserWarning, match=r"^network: 2 batch norms stay"):
        plain = fold_batch_norm(network)
    torch.testing.assert_close(plain(IMAGES), network(IMAGES))


def test_named_parts_of_a_sequential_keep_their_names():
    conv, norm = part_of(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    plain = fold_batch_norm(nn.Sequential(OrderedDict(conv=conv, norm=norm, relu=nn.ReLU())))
    assert list(dict(plain.named_children())) == ["conv", "norm", "relu"]
    assert isinstance(plain.norm, nn.Identity)


@pytest.mark.parametrize(
    "conv, norm, shape",
    [
        (nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), (4, 2, 9)),
        (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), (4, 2, 3, 4, 5)),
    ],
    ids=["1d", "3d"],
)
def test_convolutions_of_other_dimensions_are_folded(conv, norm, shape):
    network = nn.Sequential(*part_of(conv, norm)).eval()
    plain = fold_batch_norm(network)
    assert len(plain) == 1
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(x), network(x), rtol=1e-5, atol=1e-5)


def test_folded_equals_eval_mode():
    network = used_network()
    plain = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(plain(IMAGES), network(IMAGES), rtol=1e-5, atol=1e-5)


def test_folded_equals_pytorchs_own_folding():
    network = used_network()
    ours = fold_batch_norm(network).stages[1][0]
    theirs = torch.nn.utils.fuse_conv_bn_eval(network.stages[1][0], network.stages[1][1])
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("affine", [True, False])
def test_folding_keeps_a_bias_and_a_plain_norm(affine):
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, affine=affine)).eval()
    network[1].running_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    network[1].running_var.copy_(torch.tensor([0.3, 2.0, 1.0]))
    torch.testing.assert_close(fold_batch_norm(network)(IMAGES), network(IMAGES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("images", [None, IMAGES], ids=["weights", "activations too"])
@pytest.mark.parametrize("bits", BITS)
def test_folding_keeps_the_integers_up_to_a_channels_sign(bits, images):
    rounded = fake_quantize(used_network(), bits, images)
    plain = fold_batch_norm(rounded)
    if images is None:
        torch.testing.assert_close(plain(IMAGES), rounded(IMAGES), rtol=1e-5, atol=1e-5)
    else:  # an activation between two numbers of the grid may go to the other one
        assert (plain(IMAGES) - rounded(IMAGES)).norm() < 0.02 * rounded(IMAGES).norm()
    assert all((buffer > 0).all() for name, buffer in plain.named_buffers() if name.endswith("scale"))
    for place in ((0, 0), (1, 0)):
        before, after = (network.stages[place[0]][place[1]] for network in (rounded, plain))
        integers = [
            conv.parametrizations.weight[0].integers(conv.parametrizations.weight.original).abs()
            for conv in (before, after)
        ]
        assert torch.equal(*integers)


def test_a_channel_that_batch_norm_switches_off_stays_finite():
    network = used_network()
    network.stages[0][1].weight.data[0] = 0
    plain = fold_batch_norm(fake_quantize(network, 4))
    torch.testing.assert_close(plain(IMAGES), fake_quantize(network, 4)(IMAGES), rtol=1e-5, atol=1e-5)


def test_a_norm_without_statistics_is_named():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ValueError, match="running statistics"):
        fold_batch_norm(network)


# Storage


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 50), st.integers(0, 2**31))
def test_packing_is_undone_by_unpacking(bits, count, seed):
    low, high = integer_range(bits)
    integers = torch.randint(low, high + 1, (count, 3), generator=torch.Generator().manual_seed(seed))
    integers = integers.to(torch.int8)
    content = pack_integers(integers, bits)
    assert content.dtype == torch.uint8 and len(content) == -(-count * 3 * bits // 8)
    assert torch.equal(unpack_integers(content, bits, integers.shape), integers)


def test_integers_outside_the_grid_are_named():
    with pytest.raises(ValueError, match=re.escape("integers: expected -1 … 1, got -1 … 2")):
        pack_integers(torch.tensor([-1, 2], dtype=torch.int8), 2)


def test_numbers_that_are_no_integers_are_named():
    with pytest.raises(ValueError, match=r"integers: expected int8, got torch\.float32"):
        pack_integers(torch.tensor([1.7, -0.4]), 4)


def test_a_relu_that_is_not_reached_is_named():
    class GoesAround(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
            self.spare = nn.Sequential(nn.Linear(3, 2), nn.ReLU())

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match=r"network: expected a forward pass through every nn\.ReLU"):
        fake_quantize(GoesAround(), 4, torch.ones(2, 3))


def test_a_layer_may_have_any_name():
    network = fake_quantize(nn.ModuleDict({"net": nn.ModuleDict({"original": nn.Linear(3, 2)})}), 4)
    layer = network.get_submodule("net.original")
    before, stored = layer.weight.detach().clone(), packed_state(network)
    layer.parametrizations["weight"].original.data.zero_()
    load_packed_state(network, stored)
    assert layer.weight.any()
    torch.testing.assert_close(layer.weight, before)


def test_bytes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"content: expected 3 bytes .* got shape \(2,\)"):
        unpack_integers(torch.zeros(2, dtype=torch.uint8), 4, (5,))


@pytest.mark.parametrize("bits", BITS)
def test_a_stored_network_answers_as_before(bits):
    stored = fold_batch_norm(fake_quantize(used_network(), bits, IMAGES))
    read = fold_batch_norm(fake_quantize(ConvNet((4, 6, 8), (1, 2, 1), seed=9), bits, IMAGES))
    load_packed_state(read, load(save(packed_state(stored))))
    torch.testing.assert_close(read(IMAGES), stored(IMAGES), rtol=1e-6, atol=1e-6)


def test_stored_bytes_shrink_with_the_bits():
    def size(state):
        return sum(tensor.nbytes for tensor in state.values())

    network = small_cnn(0)
    full = size(fold_batch_norm(network).state_dict())
    sizes = {bits: size(packed_state(fold_batch_norm(fake_quantize(network, bits)))) for bits in BITS}
    assert sizes[8] < full / 3 and sizes[4] < sizes[8] / 1.5 and sizes[2] < sizes[4] / 1.4


def test_a_network_that_is_not_quantized_is_named():
    with pytest.raises(ValueError, match="network: expected fake-quantized weights"):
        packed_state(small_cnn(0))


@pytest.mark.filterwarnings("ignore:network. 65%")
def test_tied_weights_are_rounded_together_and_stored_once():
    torch.manual_seed(0)
    network = LikeGPT2()
    rounded = fake_quantize(network, 4)
    torch.testing.assert_close(rounded.wte.weight, rounded.lm_head.weight, rtol=0, atol=0)
    assert len(rounded.wte.weight[3].unique()) <= 15
    stored = packed_state(rounded)
    assert sum(tensor.dtype == torch.uint8 for tensor in stored.values()) == 1
    torch.manual_seed(1)
    read = fake_quantize(LikeGPT2(), 4)
    load_packed_state(read, load(save(stored)))
    torch.testing.assert_close(read(TOKENS), rounded(TOKENS), rtol=1e-6, atol=1e-6)
    assert (rounded(TOKENS) - network(TOKENS)).abs().max() > 0.01


def test_a_layer_at_two_places_is_stored_once():
    def network(seed):
        torch.manual_seed(seed)
        layer = nn.Linear(3, 3)
        return fake_quantize(nn.Sequential(layer, nn.Tanh(), layer), 3)

    stored, read, x = packed_state(network(0)), network(1), torch.randn(4, 3)
    assert not any(key.startswith("2.") for key in stored)
    load_packed_state(read, load(save(stored)))
    torch.testing.assert_close(read(x), network(0)(x))


def test_a_state_that_lacks_a_tensor_or_belongs_to_another_network_is_named():
    network = fake_quantize(small_cnn(0), 8)
    stored = packed_state(network)
    for key in ("classifier.parametrizations.weight.original", "classifier.parametrizations.weight.0.scale"):
        with pytest.raises(RuntimeError, match=rf"Missing key.*{re.escape(key)}"):
            load_packed_state(network, {name: value for name, value in stored.items() if name != key})
    with pytest.raises(ValueError, match="network: expected fake-quantized weights"):
        load_packed_state(small_cnn(0), stored)
