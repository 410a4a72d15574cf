"""Chapter 09: what the notebook writes out equals the library; its exercises name the usual slips."""

import random
from functools import cache, partial

import pytest
import torch
from notebook_code import definition, verdict
from notebook_files import ROOT
from torch import nn

from kdutils import evaluate
from kdutils.course import models
from kdutils.course.exercises import chapter09 as exercises
from kdutils.course.models import BlockNet, InvertedResidual, conv_stage, separable_block

NOTEBOOK = ROOT / "notebooks" / "09_optimized_student.ipynb"

# What the notebook writes out equals the library

MAPS = torch.randn(4, 6, 7, 7, generator=torch.Generator().manual_seed(0))
ONE_IMAGE = torch.zeros(1, 1, 28, 28)
SHAPES = [(6, 10, 1), (6, 6, 1), (6, 6, 2), (6, 10, 2)]


def assert_same_block(written_out, block):
    """Same weights in, same maps, running statistics and gradients out."""
    written_out.load_state_dict(dict(zip(written_out.state_dict(), block.state_dict().values(), strict=True)))
    outcomes = []
    for module in (written_out, block):
        maps = MAPS.clone().requires_grad_()
        result = module.train()(maps)
        result.square().sum().backward()
        gradients = [p.grad for p in module.parameters()]
        outcomes.append((result.detach(), maps.grad, gradients, list(module.state_dict().values())))
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("shape", SHAPES)
def test_separable_block_equals_the_notebooks(shape):
    assert_same_block(definition(NOTEBOOK, "separable_block")(*shape), separable_block(*shape))


@pytest.mark.parametrize("expansion", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_inverted_residual_equals_the_notebooks(shape, expansion):
    written_out = inverted_residual_of_the_notebook()(*shape, expansion=expansion)
    assert_same_block(written_out, InvertedResidual(*shape, expansion=expansion))


def inverted_residual_of_the_notebook():
    return definition(NOTEBOOK, "InvertedResidual")


def test_two_steps_are_one_plain_convolution():
    depthwise, pointwise = torch.randn(6, 1, 3, 3), torch.randn(5, 6, 1, 1)
    weight = definition(NOTEBOOK, "as_plain_weight")(depthwise, pointwise)
    assert weight.shape == (5, 6, 3, 3)
    two_steps = nn.functional.conv2d(nn.functional.conv2d(MAPS, depthwise, padding=1, groups=6), pointwise)
    torch.testing.assert_close(nn.functional.conv2d(MAPS, weight, padding=1), two_steps, rtol=1e-4, atol=1e-4)


# The blocks themselves


@pytest.mark.parametrize("block", [separable_block, InvertedResidual])
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_change_channels_and_size(block, stride):
    assert block(6, 10, stride)(MAPS).shape == (4, 10, 7 // stride + stride - 1, 7 // stride + stride - 1)


def test_a_channel_of_a_depthwise_convolution_sees_itself_alone():
    around = separable_block(6, 10)[0]
    other = MAPS.clone()
    other[:, 1:] += 1
    torch.testing.assert_close(around(other)[:, 0], around(MAPS)[:, 0])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shortcut_is_there_where_shapes_allow_it(shape):
    block = InvertedResidual(*shape).eval()
    nn.init.zeros_(block.project[1].weight)
    expected = MAPS if shape == (6, 6, 1) else torch.zeros_like(block(MAPS))
    torch.testing.assert_close(block(MAPS), expected)


def test_the_projection_is_linear():
    block = InvertedResidual(6, 10)
    assert (block(MAPS) < 0).any()
    assert not any(isinstance(module, nn.ReLU) for module in block.project.modules())


def test_costs_of_the_blocks_are_the_formulas():
    one = MAPS[:1]
    assert evaluate.macs(separable_block(6, 10), one) == (9 * 6 + 6 * 10) * 49
    assert evaluate.macs(InvertedResidual(6, 10, expansion=4), one) == (24 * 6 + 9 * 24 + 24 * 10) * 49


def weights(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def plain_block(in_channels, out_channels, stride):
    return conv_stage(in_channels, out_channels, 1, stride)


def test_a_net_of_plain_blocks_is_the_plain_student():
    net, plain = BlockNet(plain_block, (8, 16, 32), (1, 2, 2), seed=3), models.ConvNet((8, 16, 32), (1, 2, 2))
    plain.load_state_dict(dict(zip(plain.state_dict(), net.state_dict().values(), strict=True)))
    images = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(net(images), plain(images))
    assert net.embed(images).shape == (4, 32) and net.stages(images).shape[2:] == (7, 7)


def test_a_net_counts_its_blocks_and_its_seed():
    def blocks(net):
        return [module for module in net.modules() if isinstance(module, InvertedResidual)]

    assert len(blocks(BlockNet(InvertedResidual, (8, 8, 12), (1, 1, 1)))) == 2
    assert len(blocks(BlockNet(InvertedResidual, (8, 8, 12), (2, 2, 1)))) == 4
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (weights(BlockNet(separable_block, (8, 8), (1, 1), seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.rand(3), expected)  # nothing was drawn from the global generator


@pytest.mark.parametrize("widths, depths", [((8, 16), (1,)), ((), ()), ((0, 8), (1, 1)), ((8, 8), (1, 0))])
def test_a_net_refuses_widths_and_depths_that_do_not_fit(widths, depths):
    with pytest.raises(ValueError, match=r"widths, depths: .*got \("):
        BlockNet(separable_block, widths, depths)


# The search

BLOCKS = {"plain": plain_block, "separable": separable_block} | {
    f"inverted ×{e}": partial(InvertedResidual, expansion=e) for e in (2, 3)
}
WIDTHS, DEPTHS = (4, 8, 12, 16, 24, 32, 48), (1, 2)


@cache
def macs(net):
    kind, widths, depths = net
    return evaluate.macs(BlockNet(BLOCKS[kind], widths, depths), ONE_IMAGE)


def test_candidates_differ_and_keep_within_the_budget():
    drawn = definition(NOTEBOOK, "drawn", WIDTHS=WIDTHS, DEPTHS=DEPTHS)
    within = definition(NOTEBOOK, "within", drawn=drawn, macs=macs)
    found = within(300_000, 6, random.Random(1))
    assert len(set(found)) == 6
    for kind, widths, depths in found:
        assert 15_000 < macs((kind, widths, depths)) <= 300_000
        assert widths == tuple(sorted(widths)) and set(depths) <= set(DEPTHS) and depths[0] == 1


def test_shares_add_up_to_the_blocks_macs():
    shares = definition(NOTEBOOK, "shares")(16, 4)
    maps = torch.zeros(1, 16, 1, 1)
    counted = {name: sum(parts.values()) for name, parts in shares.items()}
    assert counted == {
        "plain": evaluate.macs(plain_block(16, 16, 1), maps),
        "separable": evaluate.macs(separable_block(16, 16), maps),
        "inverted ×4": evaluate.macs(InvertedResidual(16, 16, expansion=4), maps),
    }


# From the teacher's layers


def test_the_nearest_separable_weight_is_the_rank_one_one_of_every_input_channel():
    nearest_separable = definition(NOTEBOOK, "nearest_separable")
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64)
    depthwise, pointwise = nearest_separable(weight)
    assert depthwise.shape == (4, 1, 3, 3) and pointwise.shape == (5, 4, 1, 1)
    of_rank_one = nearest(weight.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(pointwise * depthwise.squeeze(1), of_rank_one)


def test_a_separable_weight_is_split_without_loss():
    depthwise, pointwise = torch.randn(4, 1, 3, 3), torch.randn(5, 4, 1, 1)
    weight = pointwise * depthwise.squeeze(1)
    d, p = definition(NOTEBOOK, "nearest_separable")(weight)
    torch.testing.assert_close(p * d.squeeze(1), weight, rtol=1e-4, atol=1e-5)


def test_nothing_stands_between_the_steps_of_a_split_block():
    block = definition(NOTEBOOK, "split_block")(6, 10, 2)
    assert [type(module) for module in block] == [nn.Conv2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert block(MAPS).shape == (4, 10, 4, 4)


def test_a_split_teacher_keeps_what_cannot_be_split():
    names = ("network", "nearest_separable", "split_block")
    given = {name: definition(NOTEBOOK, name) for name in names[1:]}
    blocks, shape, teacher = (
        {"split": given["split_block"]},
        ((32, 64, 128), (1, 2, 2)),
        models.load_teacher(),
    )
    network = definition(NOTEBOOK, "network", blocks=blocks, models=models)
    split_teacher = definition(
        NOTEBOOK, "split_teacher", network=network, cpu_teacher=teacher, TEACHER_SHAPE=shape, **given
    )
    student = split_teacher()
    torch.testing.assert_close(student.stages[0][0][0].weight, teacher.stages[0][0].weight)
    torch.testing.assert_close(student.classifier.weight, teacher.classifier.weight)
    torch.testing.assert_close(student.stages[2][1][2].weight, teacher.stages[2][4].weight)
    depthwise, pointwise = student.stages[2][1][:2]
    expected = nearest(teacher.stages[2][3].weight.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(pointwise.weight * depthwise.weight.squeeze(1), expected, rtol=1e-3, atol=1e-4)


# Exercises


def nearest(weight, rank=1):
    """By the eigenvectors of each output channel's patterns, not by a singular value decomposition."""
    by_output = weight.flatten(2)
    patterns = torch.linalg.eigh(by_output.transpose(1, 2) @ by_output).eigenvectors[:, :, -rank:]
    return (by_output @ patterns @ patterns.transpose(1, 2)).unflatten(2, (3, 3))


def per_input(weight):
    return nearest(weight.transpose(0, 1)).transpose(0, 1)


def one_for_all(weight):
    return nearest(weight.reshape(1, -1, 3, 3)).reshape(weight.shape)


def of_length_one(weight):
    found = nearest(weight)
    return found / found.flatten(2).norm(dim=(1, 2))[:, None, None, None]


def mean_pattern(weight):
    pattern = torch.nn.functional.normalize(weight.mean(dim=1).flatten(1), dim=1).unflatten(1, (1, 3, 3))
    return (weight * pattern).sum(dim=(2, 3), keepdim=True) * pattern


SLIPS = {
    "every input channel had one pattern": per_input,
    "all channels shared one pattern": one_for_all,
    "two patterns per channel": lambda weight: nearest(weight, rank=2),
    "singular values are missing": of_length_one,
    "mean over the inputs": mean_pattern,
    "the wrong way round": lambda weight: nearest(weight).transpose(0, 1),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_mixing_first_is_named(capsys, name):
    said = verdict(capsys, exercises.nearest_mixed_first, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


def test_another_way_to_the_nearest_one_that_mixes_first_passes(capsys):
    assert verdict(capsys, exercises.nearest_mixed_first, nearest) == "✓ passed"


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (8.4, "3×3"),
        (4.8, "five positions"),
        (25, "depthwise part was left out"),
        (128, "pointwise part was left out"),
        (18.0, "swapped"),
        (3200, "multiplied"),
        (0.048, "the other way round"),
        (20.0, "too low"),
        (21.5, "too high"),
    ],
)
def test_slip_in_the_saving_is_named(capsys, attempt, said):
    answer = verdict(capsys, exercises.times_cheaper, attempt)
    assert answer.startswith("✗ not yet") and said in answer


def test_one_digit_after_the_point_is_enough(capsys):
    assert verdict(capsys, exercises.times_cheaper, 20.9) == "✓ passed"


@pytest.mark.parametrize("attempt", ["stages.1.0", "stages.2.0", "stages.2.3", "the last one", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.one_layer, attempt).startswith("✗ not yet")
