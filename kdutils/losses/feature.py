"""Feature knowledge: what the hidden layers of a teacher compute, and losses that ask a student for it.

N is the batch, C the number of channels, H and W the height and width of a map. Every loss takes the student
first, sends no gradient to the teacher, and returns one number, in float64 for float64 and in float32 for
everything shorter.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._numerics import (
    at_least_float32,
    inner_products,
    kl_divergence,
    log_probabilities,
    unit_vectors,
)
from kdutils._validate import (
    description,
    number,
    require_count,
    require_same_batch,
    require_same_shape,
    require_shape,
    require_temperature,
)

FIRST_VARIANCE = 5.0  # σ² of VIDLoss before training, and the least it can become
SMALLEST_VARIANCE = 1e-5


class Regressor(nn.Conv2d):
    """1×1 convolution from the student's channels to the teacher's, so that `hint_loss` can compare the two.

    It turns features (N, in_channels, H, W) into (N, out_channels, H, W). Its weights must be trained with
    the student's: hand both to the optimizer. It is thrown away after training.

    Args:
        in_channels: Channels of the student's layer.
        out_channels: Channels of the teacher's layer.

    Raises:
        ValueError: If a number of channels is below 1; when called, if the features have another shape.

    Source: Romero et al. 2015 (FitNets). Written out in notebook 02.
    """

    def __init__(self, in_channels: int, out_channels: int):
        require_count("in_channels", in_channels)
        require_count("out_channels", out_channels)
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, input: Tensor) -> Tensor:
        # three dimensions would pass for a single picture, also tokens (N, L, D) with N = in_channels
        require_shape("input", input, "(N, C, H, W)")
        _require_channels("input", input, self.in_channels)
        return super().forward(input)


def hint_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference of features, over all elements.

        mean (student − teacher)²

    Args:
        student_features: Any shape. Where the channels differ, pass them through a `Regressor` first.
        teacher_features: The same shape. They get no gradient.

    Returns:
        A 0-dim tensor, >= 0, zero only where the features are equal.

    Raises:
        ValueError: If the shapes differ or are empty, or a dtype is not floating.

    Source: Romero et al. 2015 (FitNets). Written out in notebook 02.
    """
    require_same_shape("student_features", student_features, "teacher_features", teacher_features)
    student = at_least_float32(student_features)
    return F.mse_loss(student, at_least_float32(teacher_features.detach())).to(student.dtype)


def attention_map(features: Tensor, *, p: float = 2) -> Tensor:
    """Where a layer is active, over H and W, in whatever channel.

        Q / ‖Q‖,  Q = Σ_c |A_c|^p / C

    Args:
        features: Shape (N, C, H, W).
        p: A number >= 1; the larger, the more the strongest channels count.

    Returns:
        Shape (N, H, W) and the features' dtype, each map of length 1, or of length 0 where all features are
        zero.

    Raises:
        ValueError: If the features have another number of dimensions, one of size 0, or p < 1.

    Source: Zagoruyko and Komodakis 2017; the mean over channels is that of their code. Written out in
    notebook 02.
    """
    require_shape("features", features, "(N, C, H, W)")
    p = float(number("p", p, "a finite number >= 1", lambda value: 1 <= value < math.inf))
    magnitudes = at_least_float32(features).abs()
    # the map does not depend on the scale; high powers of large or small numbers would leave float32's range
    largest = magnitudes.amax(dim=(1, 2, 3), keepdim=True).detach()
    energy = (magnitudes / torch.where(largest > 0, largest, 1.0)).pow(p).mean(dim=1)
    return unit_vectors(energy.flatten(1)).view_as(energy).to(features.dtype)


def at_loss(student_features: Tensor, teacher_features: Tensor, *, p: float = 2) -> Tensor:
    """Mean squared difference of attention maps, over N·H·W.

        mean (Q_student / ‖Q_student‖ − Q_teacher / ‖Q_teacher‖)²

    Args:
        student_features: Shape (N, C, H, W).
        teacher_features: Shape (N, C', H', W'), any channels and sizes; the larger is average-pooled to the
            smaller before the attention maps are taken. They get no gradient.
        p: A number >= 1, see `attention_map`.

    Returns:
        A 0-dim tensor, >= 0; 0 for maps of 1×1, which hold no pattern.

    Raises:
        ValueError: If a shape, a dtype or p is not as described, or if N differs.

    Source: Zagoruyko and Komodakis 2017, as in their code; eq. 2 of the paper has the norm itself, not its
    square divided by H·W. Written out in notebook 02.
    """
    student, teacher = _pooled_to_smaller(
        "student_features", student_features, "teacher_features", teacher_features
    )
    loss = F.mse_loss(attention_map(student, p=p), attention_map(teacher.detach(), p=p))
    return loss.to(student.dtype)


def fsp_loss(student_pair: tuple[Tensor, Tensor], teacher_pair: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared difference of FSP matrices, over N·C₁·C₂: how early channels go with later ones.

        mean (G_student − G_teacher)²,  G = F₁ · F₂ᵀ / (H · W)

    Args:
        student_pair: Two feature maps F₁ and F₂, (N, C₁, H₁, W₁) and (N, C₂, H₂, W₂); the larger is
            average-pooled to the smaller, H×W. Their FSP matrix G is C₁ by C₂.
        teacher_pair: The same of the teacher, with the same C₁ and C₂, not necessarily the same sizes. It
            gets no gradient.

    Returns:
        A 0-dim tensor, >= 0, zero only where the FSP matrices are equal.

    Raises:
        ValueError: If a shape or a dtype is not as described, or if N, C₁ or C₂ differ.

    Source: Yim et al. 2017. Written out in notebook 02.
    """
    student = _fsp_matrix("student_pair", student_pair)
    teacher = _fsp_matrix("teacher_pair", teacher_pair).detach()
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher_pair: expected (N, C1, C2) as in student_pair, {tuple(student.shape)}, "
            f"got {tuple(teacher.shape)}"
        )
    return F.mse_loss(student, teacher).to(student.dtype)


def _fsp_matrix(name: str, pair: Any) -> Tensor:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        came = f"{len(pair)} of them" if isinstance(pair, (tuple, list)) else description(pair)
        raise ValueError(f"{name}: expected two feature maps, early and late, got {came}")
    early, late = _pooled_to_smaller(f"{name}[0]", pair[0], f"{name}[1]", pair[1])
    return inner_products(early.flatten(2), late.flatten(2)) / early[0, 0].numel()


def nst_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Squared distance between the sets of activation patterns of two layers, averaged over N.

        mean k(s, s') + mean k(t, t') − 2 · mean k(s, t),  k(a, b) = (a · b)²

    Each channel's map, s or t, is scaled to unit length; the distance between the two sets of maps is the
    maximum mean discrepancy under the kernel k.

    Args:
        student_features: Shape (N, C, H, W).
        teacher_features: Shape (N, C', H', W'), any channels and sizes; the larger is average-pooled to the
            smaller. They get no gradient.

    Returns:
        A 0-dim tensor, >= 0 up to rounding; 0 for maps of 1×1, which hold no pattern.

    Raises:
        ValueError: If a shape or a dtype is not as described, or if N differs.

    Source: Huang and Wang 2017 (neuron selectivity transfer, polynomial kernel). Written out in notebook 02.
    """
    student, teacher = _pooled_to_smaller(
        "student_features", student_features, "teacher_features", teacher_features
    )
    result_dtype = student.dtype
    student, teacher = unit_vectors(student.flatten(2)), unit_vectors(teacher.detach().flatten(2))

    def mean_kernel(maps: Tensor, other_maps: Tensor) -> Tensor:
        # products of shape (N, C, C), never (N, C, C, H·W); a norm, whose gradient needs no further copies
        products = inner_products(maps, other_maps)
        return torch.linalg.vector_norm(products).square() / products.numel()

    discrepancy = (
        mean_kernel(student, student) + mean_kernel(teacher, teacher) - 2 * mean_kernel(student, teacher)
    )
    return discrepancy.to(result_dtype)


def channel_kd_loss(
    student_features: Tensor, teacher_features: Tensor, *, temperature: float | Tensor = 4.0
) -> Tensor:
    """KL divergence of where a channel is active, from the teacher's, times T², in nats.

        T² · KL(softmax(teacher / T) ‖ softmax(student / T)),  over the H·W places of one channel

    Averaged over N·C. The softmax runs over the places of a map, not over the channels: each channel, or
    each class of a segmentation's logits, asks *where*, where `kd_loss` with `class_dim=1` asks *what*.

    Args:
        student_features: Shape (N, C, H, W), features or logits. Where the channels differ from the
            teacher's, pass them through a `Regressor` first.
        teacher_features: Shape (N, C, H', W'); the larger map is average-pooled to the smaller. They get no
            gradient.
        temperature: T; the paper uses 4.

    Returns:
        A 0-dim tensor, >= 0, zero where both are active in the same places; 0 for maps of 1×1.

    Raises:
        ValueError: If a shape, a dtype or the temperature is not as described, or if N or C differ.

    Source: Shu et al. 2021, "Channel-wise Knowledge Distillation for Dense Prediction" (CWD).
    """
    student, teacher = _pooled_to_smaller(
        "student_features", student_features, "teacher_features", teacher_features
    )
    _require_channels("teacher_features", teacher, student.shape[1])
    temperature = require_temperature(temperature)
    divergence = kl_divergence(
        log_probabilities(teacher.detach().flatten(2), temperature),
        log_probabilities(student.flatten(2), temperature),
    )
    return (temperature**2 * (divergence / student.shape[:2].numel())).to(student.dtype)


class VIDLoss(nn.Module):
    """Negative log-likelihood of the teacher's features under a Gaussian that the student predicts, in nats.

        mean ½ · [(t − μ)² / σ² + log σ²]

    The mean μ is a small network on the student's features (three 1×1 convolutions), the variance σ² one
    learned number per teacher channel, softplus + 1e-5, 5 at first. Both must be trained with the student:
    hand `parameters()` to the optimizer. Channels that the student cannot predict get a large σ² and count
    less.

    Args:
        in_channels: Channels of the student's layer.
        out_channels: Channels of the teacher's layer.

    Raises:
        ValueError: If a number of channels is below 1.

    Source: Ahn et al. 2019 (variational information distillation), as in their code. Written out in
    notebook 02.
    """

    def __init__(self, in_channels: int, out_channels: int):
        require_count("in_channels", in_channels)
        require_count("out_channels", out_channels)
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),
        )
        softplus_inverse = math.log(math.expm1(FIRST_VARIANCE - SMALLEST_VARIANCE))
        self.raw_variance = nn.Parameter(torch.full((out_channels,), softplus_inverse))
        self.in_channels, self.out_channels = in_channels, out_channels

    @property
    def variance(self) -> Tensor:
        """σ² of each teacher channel, shape (out_channels,)."""
        return F.softplus(self.raw_variance) + SMALLEST_VARIANCE

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """The loss, averaged over N·C·H·W.

        Args:
            student_features: Shape (N, in_channels, H, W).
            teacher_features: Shape (N, out_channels, H', W'); of different sizes, the larger is
                average-pooled to the smaller. They get no gradient.

        Returns:
            A 0-dim tensor, without the constant ½·log 2π, so it can be negative.

        Raises:
            ValueError: If a shape or a dtype is not as described, or if N differs.
        """
        student, teacher = _pooled_to_smaller(
            "student_features", student_features, "teacher_features", teacher_features
        )
        _require_channels("student_features", student, self.in_channels)
        _require_channels("teacher_features", teacher, self.out_channels)
        variance = at_least_float32(self.variance).view(1, -1, 1, 1)
        predicted = self.mean(student.to(self.raw_variance.dtype))
        squared_error = (teacher.detach() - at_least_float32(predicted)).pow(2)
        return (0.5 * (squared_error / variance + variance.log())).mean().to(student.dtype)


def _pooled_to_smaller(name: str, features: Tensor, other_name: str, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both in at least float32, average-pooled to the smaller height and the smaller width of the two."""
    require_shape(name, features, "(N, C, H, W)")
    require_shape(other_name, other, "(N, C, H, W)")
    require_same_batch(name, features, other_name, other)
    size = min(features.shape[2], other.shape[2]), min(features.shape[3], other.shape[3])
    return _pooled(at_least_float32(features), size), _pooled(at_least_float32(other), size)


def _pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    return features if features.shape[2:] == size else F.adaptive_avg_pool2d(features, size)


def _require_channels(name: str, features: Tensor, channels: int) -> None:
    if features.shape[1] != channels:
        raise ValueError(f"{name}: expected {channels} channels, got {tuple(features.shape)}")
