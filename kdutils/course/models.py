"""The course's teacher and students: convolutional networks, and a small vision transformer."""

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdutils.course.data import NUM_CLASSES, DataFileError, data_dir, verified_bytes


class ConvNet(nn.Module):
    """Stages of 3×3 convolutions with batch norm and ReLU, global average pooling, one linear layer.

    Normalized images (N, 1, 28, 28) become logits (N, K). `embed` gives the (N, widths[-1]) activations
    before the linear layer. Layers to tap: "stages.0", "stages.1", …

    The first convolution of a stage has stride 2 in the first two stages and 1 after: 28×28 → 14×14 → 7×7
    → 7×7.

    Args:
        widths: Channels of each stage.
        depths: Convolutions of each stage.
        seed: The same seed gives the same initial weights, whatever was drawn before.
        num_classes: K, the number of logits.

    Raises:
        ValueError: Widths and depths that are not as many positive numbers each.
    """

    def __init__(
        self, widths: tuple[int, ...], depths: tuple[int, ...], seed: int = 0, num_classes: int = NUM_CLASSES
    ):
        super().__init__()
        _require_stages(widths, depths)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed a GPU, too
            in_channels = (1, *widths[:-1])
            strides = [2 if stage < 2 else 1 for stage in range(len(widths))]
            self.stages = nn.Sequential(*map(conv_stage, in_channels, widths, depths, strides))
            self.classifier = nn.Linear(widths[-1], num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """Activations (N, widths[-1]) before the linear layer, averaged over the last stage's positions."""
        return self.stages(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embed(images))


def conv_stage(in_channels: int, out_channels: int, depth: int, stride: int) -> nn.Sequential:
    """`depth` times convolution, batch norm, ReLU; the first convolution carries the stride."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
        in_channels, stride = out_channels, 1
    return nn.Sequential(*layers)


class BlockNet(nn.Module):
    """One 3×3 convolution, then stages of blocks of any kind, global average pooling, one linear layer.

    Strides, images, logits and `embed` are those of `ConvNet`.

    Args:
        block: Makes a block from (in_channels, out_channels, stride): `separable_block`, `InvertedResidual`,
            or a `functools.partial` of it that sets the expansion.
        widths: Channels of each stage.
        depths: Layers of each stage. The first layer of the first stage is the convolution, all others are
            blocks.
        seed: The same seed gives the same initial weights, whatever was drawn before.
        num_classes: K, the number of logits.

    Raises:
        ValueError: Widths and depths that are not as many positive numbers each.

    Source: Howard et al. 2017 (MobileNets): a full convolution first, separable ones after.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        seed: int = 0,
        num_classes: int = NUM_CLASSES,
    ):
        super().__init__()
        _require_stages(widths, depths)
        stages = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed a GPU, too
            for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
                stride = 2 if stage < 2 else 1
                first = block(widths[stage - 1], width, stride) if stage else conv_stage(1, width, 1, stride)
                stages.append(nn.Sequential(first, *(block(width, width, 1) for _ in range(depth - 1))))
            self.stages = nn.Sequential(*stages)
            self.classifier = nn.Linear(widths[-1], num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """Activations (N, widths[-1]) before the linear layer, averaged over the last stage's positions."""
        return self.stages(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embed(images))


def separable_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Depthwise separable convolution: 3×3 on every channel alone, then 1×1; each with batch norm and ReLU.

    (N, in_channels, H, W) → (N, out_channels, H / stride, W / stride), sizes rounded up.

    Source: Howard et al. 2017 (MobileNets), sec. 3.1. Written out in notebook 09.
    """
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(
        depthwise, nn.BatchNorm2d(in_channels), nn.ReLU(), pointwise, nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class InvertedResidual(nn.Module):
    """Expansion 1×1, depthwise 3×3, linear projection 1×1, and a shortcut round them where shapes allow it.

    (N, in_channels, H, W) → (N, out_channels, H / stride, W / stride), sizes rounded up. Batch norm follows
    every convolution, ReLU the first two. Inside there are expansion · in_channels channels.
    The shortcut is there for stride 1 and as many channels out as in.

    Source: Sandler et al. 2018 (MobileNetV2), sec. 3, with ReLU in place of ReLU6.
    Written out in notebook 09.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expansion: int = 3):
        super().__init__()
        inside = expansion * in_channels
        self.expand = nn.Sequential(
            nn.Conv2d(in_channels, inside, 1, bias=False), nn.BatchNorm2d(inside), nn.ReLU()
        )
        self.filter = nn.Sequential(
            nn.Conv2d(inside, inside, 3, stride, padding=1, groups=inside, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
        )
        self.project = nn.Sequential(
            nn.Conv2d(inside, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        new = self.project(self.filter(self.expand(maps)))
        return maps + new if self.has_shortcut else new


class VisionTransformer(nn.Module):
    """Patches as tokens, pre-norm transformer blocks, the mean over the tokens, one linear layer.

    Normalized images (N, 1, 28, 28) become logits (N, K). Every block returns tokens (N, L, width), row by
    row of the grid of patches, without a class token. Layers to tap: "blocks.0", "blocks.1", …

    Args:
        width: Numbers of each token, a multiple of `heads`.
        depth: Blocks.
        heads: Attention heads of each block.
        patch: Pixels of a patch's side, a divisor of 28: 7 makes 4×4 tokens.
        seed: The same seed gives the same initial weights, whatever was drawn before.
        num_classes: K, the number of logits.

    Raises:
        ValueError: A patch that does not divide 28.

    Source: Dosovitskiy et al. 2021 (ViT), sec. 3.1, with mean pooling in place of the class token.
    """

    def __init__(
        self,
        width: int = 32,
        depth: int = 3,
        heads: int = 4,
        patch: int = 7,
        seed: int = 0,
        num_classes: int = NUM_CLASSES,
    ):
        super().__init__()
        if not 1 <= patch <= 28 or 28 % patch:
            raise ValueError(f"patch: expected a divisor of 28, got {patch}")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed a GPU, too
            self.patches = nn.Conv2d(1, width, patch, stride=patch)
            self.positions = nn.Parameter(0.02 * torch.randn(1, (28 // patch) ** 2, width))
            self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
            self.norm = nn.LayerNorm(width)
            self.classifier = nn.Linear(width, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """Activations (N, width) before the linear layer: the mean over the last block's tokens."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.blocks(tokens)).mean(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embed(images))


class TransformerBlock(nn.Module):
    """Self-attention, then a network of two layers on each token; a norm before each, a shortcut round each.

    Tokens (N, L, width) → tokens (N, L, width). The inner layer is twice as wide.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.attention_norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.mlp_norm(tokens))


def teacher_cnn(seed: int = 0) -> ConvNet:
    """The teacher's architecture, untrained: 279 thousand parameters."""
    return ConvNet(widths=(32, 64, 128), depths=(1, 2, 2), seed=seed)


def small_cnn(seed: int = 0, width: int = 8) -> ConvNet:
    """A student of three convolutions: 6.3 thousand parameters at width 8, 24 thousand at 16."""
    return ConvNet(widths=(width, 2 * width, 4 * width), depths=(1, 1, 1), seed=seed)


def deep_thin_cnn(seed: int = 0) -> ConvNet:
    """A student of ten thin convolutions: 14.5 thousand parameters."""
    return ConvNet(widths=(8, 12, 16), depths=(2, 4, 4), seed=seed)


def load_teacher() -> ConvNet:
    """The trained teacher that ships with the course, in eval mode, its parameters frozen.

    How it was trained and what it reaches stands in `data/teacher/card.json`.

    Raises:
        DataFileError: A file is missing, truncated or altered.
    """
    from safetensors.torch import load

    card, weights = data_dir() / "teacher" / "card.json", data_dir() / "teacher" / "teacher.safetensors"
    try:
        sha256 = json.loads(card.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFileError(card, "the teacher's card with the weights' SHA-256", repr(error)) from error
    teacher = teacher_cnn()
    teacher.load_state_dict(load(verified_bytes(weights, sha256)))
    return teacher.eval().requires_grad_(False)


def _require_stages(widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
    if len(widths) != len(depths) or min(widths, default=0) < 1 or min(depths, default=0) < 1:
        raise ValueError(f"widths, depths: expected as many positive numbers each, got {widths} and {depths}")
