"""The families have the weights, shapes and sizes that they promise; the teacher is the one on its card."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from kdutils import evaluate
from kdutils.course import data, models
from kdutils.course.data import DataFileError, fashion_mnist
from kdutils.course.models import (
    ConvNet,
    VisionTransformer,
    deep_thin_cnn,
    load_teacher,
    small_cnn,
    teacher_cnn,
)
from kdutils.taps import FeatureTap
from kdutils.train import predict

IMAGES = torch.randn(3, 1, 28, 28)
# Convolutions 9·in·out, batch norms 2·out, the classifier in·10 + 10.
PARAMETERS = {
    "small_cnn": (small_cnn, 9 * (8 + 8 * 16 + 16 * 32) + 2 * (8 + 16 + 32) + 32 * 10 + 10),
    "small_cnn of width 16": (
        lambda seed=0: small_cnn(seed, width=16),
        9 * (16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64) + 64 * 10 + 10,
    ),
    "deep_thin_cnn": (
        deep_thin_cnn,
        9 * (8 + 8 * 8 + 8 * 12 + 3 * 12 * 12 + 12 * 16 + 3 * 16 * 16)
        + 2 * (2 * 8 + 4 * 12 + 4 * 16)
        + 16 * 10
        + 10,
    ),
    "teacher_cnn": (
        teacher_cnn,
        9 * (32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 2 * (32 + 2 * 64 + 2 * 128) + 128 * 10 + 10,
    ),
}
every_net = pytest.mark.parametrize("make, parameters", PARAMETERS.values(), ids=PARAMETERS.keys())


@every_net
def test_parameters_are_counted_by_hand(make, parameters):
    assert sum(parameter.numel() for parameter in make().parameters()) == parameters


def test_parameters_as_the_course_states_them():
    assert [parameters for _, parameters in PARAMETERS.values()] == [6_274, 24_058, 14_466, 278_890]


@every_net
def test_images_become_logits(make, parameters):
    net = make().eval()
    assert net(IMAGES).shape == (3, 10)
    torch.testing.assert_close(net.classifier(net.embed(IMAGES)), net(IMAGES))
    assert [tuple(stage(x).shape[2:]) for stage, x in zip(net.stages, stage_inputs(net), strict=True)] == [
        (14, 14), (7, 7), (7, 7),
    ]  # fmt: skip


def stage_inputs(net):
    inputs = [IMAGES]
    for stage in net.stages[:-1]:
        inputs.append(stage(inputs[-1]))
    return inputs


@every_net
def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(make, parameters):
    first = weights(make(seed=7))
    torch.manual_seed(3)
    torch.rand(5)
    assert torch.equal(weights(make(seed=7)), first)
    assert not torch.equal(weights(make(seed=8)), first)


def test_making_a_net_draws_nothing_from_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    small_cnn(seed=5)
    assert torch.equal(torch.rand(3), expected)


def weights(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_another_number_of_classes():
    assert ConvNet((4,), (1,), num_classes=3)(IMAGES).shape == (3, 3)


@pytest.mark.parametrize("widths, depths", [((8, 16), (1,)), ((), ()), ((0, 8), (1, 1)), ((8, 8), (1, 0))])
def test_refuses_widths_and_depths_that_do_not_fit(widths, depths):
    with pytest.raises(ValueError, match=r"widths, depths: .*got \("):
        ConvNet(widths, depths)


# The vision transformer


def test_the_parameters_of_a_vision_transformer_are_counted_by_hand():
    width, depth, patch = 32, 3, 7
    attention = 4 * (width * width + width)
    mlp = width * 2 * width + 2 * width + 2 * width * width + width
    block = attention + mlp + 2 * 2 * width
    outside = patch * patch * width + width + 16 * width + 2 * width + width * 10 + 10
    counted = sum(parameter.numel() for parameter in VisionTransformer(width, depth).parameters())
    assert counted == depth * block + outside


def test_a_vision_transformer_makes_logits_of_images_and_tokens_of_patches():
    net = VisionTransformer(8, 2, heads=2, patch=4).eval()
    torch.testing.assert_close(net.classifier(net.embed(IMAGES)), net(IMAGES))
    with FeatureTap(net, {"tokens": "blocks.0"}) as tap:
        assert net(IMAGES).shape == (3, 10)
    assert tap["tokens"].shape == (3, 49, 8)


def test_tokens_stand_row_by_row_of_the_grid_of_patches():
    net = VisionTransformer(8, 0, heads=2).eval()
    changed = IMAGES.clone()
    changed[:, :, 7:14, 21:28] += 1  # the second row's fourth patch
    before, after = (net.patches(x).flatten(2).transpose(1, 2) for x in (IMAGES, changed))
    moved = (before - after).abs().sum(dim=(0, 2))
    assert moved.nonzero().flatten().tolist() == [1 * 4 + 3]


def test_a_vision_transformers_seed_gives_its_weights_whatever_was_drawn_before():
    first = weights(VisionTransformer(8, 1, heads=2, seed=7))
    torch.rand(5)
    assert torch.equal(weights(VisionTransformer(8, 1, heads=2, seed=7)), first)
    assert not torch.equal(weights(VisionTransformer(8, 1, heads=2, seed=8)), first)


@pytest.mark.parametrize("patch", [0, 5, 56])
def test_refuses_a_patch_that_does_not_divide_the_image(patch):
    with pytest.raises(ValueError, match=f"patch: expected a divisor of 28, got {patch}"):
        VisionTransformer(patch=patch)


# The trained teacher


@pytest.fixture(scope="module")
def card():
    return json.loads((data.data_dir() / "teacher" / "card.json").read_text())


@pytest.fixture(scope="module")
def teacher():
    return load_teacher()


def test_the_teacher_is_frozen_and_in_eval_mode(teacher):
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    stored = load_file(data.data_dir() / "teacher" / "teacher.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_teacher_reaches_what_its_card_says(teacher, card, part):
    images, labels = getattr(fashion_mnist(), part)
    logits = predict(teacher, images, transform=data.normalize_fashion_mnist)
    measured, stated = evaluate.accuracy(logits, labels), card["measures"][part]
    assert measured >= 91.5
    assert measured == pytest.approx(stated["accuracy_percent"], abs=0.05)
    assert evaluate.negative_log_likelihood(logits, labels) == pytest.approx(
        stated["negative_log_likelihood_nats"], abs=0.001
    )
    assert evaluate.expected_calibration_error(logits, labels) == pytest.approx(
        stated["expected_calibration_error_percent"], abs=0.1
    )


def test_the_card_describes_the_file(card):
    weights_file = data.data_dir() / "teacher" / "teacher.safetensors"
    assert hashlib.sha256(weights_file.read_bytes()).hexdigest() == card["sha256"]
    assert card["parameters"] == 278_890
    assert weights_file.stat().st_size <= 2_000_000
    assert {"lr", "epochs", "batch_size", "weight_decay", "seed"} <= set(card["recipe"])


@pytest.fixture
def copied_teacher(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "teacher"
    shutil.copytree(data.data_dir() / "teacher", folder)
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(models, "data_dir", lambda: tmp_path / "data")
    load_teacher()
    return folder


def test_an_altered_weight_is_refused(copied_teacher, card):
    weights_file = copied_teacher / "teacher.safetensors"
    content = bytearray(weights_file.read_bytes())
    content[-1] ^= 1
    weights_file.write_bytes(content)
    with pytest.raises(DataFileError) as raised:
        load_teacher()
    assert f"{weights_file}: expected a file with SHA-256 {card['sha256']}" in str(raised.value)
    assert "restore data/teacher/teacher.safetensors" in str(raised.value)


def test_missing_weights_are_refused(copied_teacher):
    (copied_teacher / "teacher.safetensors").unlink()
    with pytest.raises(DataFileError, match=r"teacher\.safetensors: .*found no file"):
        load_teacher()


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"sha256": null}', '{"sha256": "0"}'])
def test_a_missing_or_damaged_card_is_refused(copied_teacher, text):
    if text is None:
        (copied_teacher / "card.json").unlink()
    else:
        (copied_teacher / "card.json").write_text(text)
    with pytest.raises(DataFileError, match=r"expected .*SHA-256.* Repair: git -C .* restore data/teacher/"):
        load_teacher()
