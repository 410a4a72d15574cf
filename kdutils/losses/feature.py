"""Feature knowledge: what the hidden layers of a teacher compute, and losses that ask a student for it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._numerics import at_least_float32, inner_products, unit_vectors
from kdutils._validate import require_same_batch, require_same_shape, require_shape

FIRST_VARIANCE = 5.0  # σ² of VIDLoss before training, and the least it can become
SMALLEST_VARIANCE = 1e-5


class Regressor(nn.Conv2d):
    """1×1 convolution from the student's channels to the teacher's, so that `hint_loss` can compare the two.

    features (N, in_channels, H, W) → (N, out_channels, H, W). Its weights must be trained with the student's:
    hand both to the optimizer. It is thrown away after training.

    Source: Romero et al. 2015 (FitNets). Written out in notebook 02.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=1)


def hint_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference of features, over all elements.

        mean (student − teacher)²

    student_features, teacher_features: the same shape, any; no gradient reaches the teacher. Where the
    channels differ, pass the student's through a `Regressor` first.
    Returns a 0-dim tensor of the student's dtype. Raises ValueError if the shapes differ or are empty.

    Source: Romero et al. 2015 (FitNets). Written out in notebook 02.
    """
    require_same_shape("student_features", student_features, "teacher_features", teacher_features)
    loss = F.mse_loss(at_least_float32(student_features), at_least_float32(teacher_features.detach()))
    return loss.to(student_features.dtype)


def attention_map(features: Tensor, *, p: float = 2) -> Tensor:
    """Where a layer is active, over H and W, in whatever channel.

        Q / ‖Q‖,  Q = Σ_c |A_c|^p / C

    features: shape (N, C, H, W). p: ≥ 1; the larger, the more the strongest channels count.
    Returns shape (N, H, W), each map of length 1 (of length 0 where all features are zero).
    Raises ValueError if features has another number of dimensions or none of some size, or p < 1.

    Source: Zagoruyko and Komodakis 2017; the mean over channels is that of their code. Written out in
    notebook 02.
    """
    require_shape("features", features, "(N, C, H, W)")
    if not p >= 1:
        raise ValueError(f"p: expected a number >= 1, got {p}")
    magnitudes = at_least_float32(features).abs()
    # the map does not depend on the scale; high powers of large or small numbers would leave float32's range
    largest = magnitudes.amax(dim=(1, 2, 3), keepdim=True).detach()
    energy = (magnitudes / torch.where(largest > 0, largest, 1.0)).pow(p).mean(dim=1)
    return unit_vectors(energy.flatten(1)).view_as(energy).to(features.dtype)


def at_loss(student_features: Tensor, teacher_features: Tensor, *, p: float = 2) -> Tensor:
    """Mean squared difference of attention maps, over N·H·W.

        mean (Q_student / ‖Q_student‖ − Q_teacher / ‖Q_teacher‖)²

    student_features, teacher_features: shapes (N, C, H, W), of any channels and sizes; the larger is
    average-pooled to the smaller before the attention maps are taken. No gradient reaches the teacher.
    p: see `attention_map`.
    Returns a 0-dim tensor of the student's dtype; 0 for maps of 1×1, which hold no pattern.
    Raises ValueError for other shapes, or if N differs.

    Source: Zagoruyko and Komodakis 2017, as in their code; eq. 2 of the paper has the norm itself, not its
    square divided by H·W. Written out in notebook 02.
    """
    student, teacher = _pooled_to_smaller(
        "student_features", student_features, "teacher_features", teacher_features.detach()
    )
    return F.mse_loss(attention_map(student, p=p), attention_map(teacher, p=p)).to(student_features.dtype)


def fsp_loss(student_pair: tuple[Tensor, Tensor], teacher_pair: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared difference of FSP matrices, over N·C₁·C₂: how early channels go with later ones.

        mean (G_student − G_teacher)²,  G = F₁ · F₂ᵀ / (H · W)

    student_pair, teacher_pair: two feature maps each, (N, C₁, H₁, W₁) and (N, C₂, H₂, W₂); within a pair the
    larger is average-pooled to the smaller, H×W. C₁ and C₂ are the same in both pairs, the sizes need not be.
    The FSP matrix G of a pair F₁, F₂ is C₁ by C₂. No gradient reaches the teacher.
    Returns a 0-dim tensor of the student's dtype. Raises ValueError for other shapes, or if N, C₁ or C₂
    differ.

    Source: Yim et al. 2017. Written out in notebook 02.
    """
    student = _fsp_matrix("student_pair", *student_pair)
    teacher = _fsp_matrix("teacher_pair", *teacher_pair).detach()
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher_pair: expected (N, C1, C2) as in student_pair, {tuple(student.shape)}, "
            f"got {tuple(teacher.shape)}"
        )
    return F.mse_loss(student, teacher).to(student_pair[0].dtype)


def _fsp_matrix(name: str, early: Tensor, late: Tensor) -> Tensor:
    early, late = _pooled_to_smaller(f"{name}[0]", early, f"{name}[1]", late)
    return inner_products(early.flatten(2), late.flatten(2)) / early[0, 0].numel()


def nst_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Squared distance between the sets of activation patterns of two layers, averaged over N.

        mean k(s, s') + mean k(t, t') − 2 · mean k(s, t),  k(a, b) = (a · b)²

    student_features, teacher_features: shapes (N, C, H, W), of any channels and sizes; the larger is
    average-pooled to the smaller. Each channel's map, s or t, is scaled to unit length; the distance between
    the two sets of maps is the maximum mean discrepancy under the kernel k. No gradient reaches the teacher.
    Returns a 0-dim tensor of the student's dtype; 0 for maps of 1×1, which hold no pattern.
    Raises ValueError for other shapes, or if N differs.

    Source: Huang and Wang 2017 (neuron selectivity transfer, polynomial kernel). Written out in notebook 02.
    """
    student, teacher = _pooled_to_smaller(
        "student_features", student_features, "teacher_features", teacher_features.detach()
    )
    student, teacher = unit_vectors(student.flatten(2)), unit_vectors(teacher.flatten(2))

    def mean_kernel(maps: Tensor, other_maps: Tensor) -> Tensor:
        # products of shape (N, C, C), never (N, C, C, H·W); a norm, whose gradient needs no further copies
        products = inner_products(maps, other_maps)
        return torch.linalg.vector_norm(products).square() / products.numel()

    discrepancy = (
        mean_kernel(student, student) + mean_kernel(teacher, teacher) - 2 * mean_kernel(student, teacher)
    )
    return discrepancy.to(student_features.dtype)


class VIDLoss(nn.Module):
    """Negative log-likelihood of the teacher's features under a Gaussian that the student predicts, in nats.

        mean ½ · [(t − μ)² / σ² + log σ²]

    The mean μ is a small network on the student's features (three 1×1 convolutions), the variance σ² one
    learned number per teacher channel, softplus + 1e-5, 5 at first. Both must be trained with the student:
    hand `parameters()` to the optimizer. Channels that the student cannot predict get a large σ² and count
    less.

    loss(student_features, teacher_features): shapes (N, in_channels, H, W) and (N, out_channels, H, W); of
    different sizes, the larger is average-pooled to the smaller. No gradient reaches the teacher.
    Returns the mean over N·C·H·W, a 0-dim tensor of the student's dtype; without the constant ½·log 2π, so it
    can be negative. Raises ValueError for other shapes, or if N differs.

    Source: Ahn et al. 2019 (variational information distillation), as in their code. Written out in
    notebook 02.
    """

    def __init__(self, in_channels: int, out_channels: int):
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
        student, teacher = _pooled_to_smaller(
            "student_features", student_features, "teacher_features", teacher_features.detach()
        )
        _require_channels("student_features", student, self.in_channels)
        _require_channels("teacher_features", teacher, self.out_channels)
        variance = at_least_float32(self.variance).view(1, -1, 1, 1)
        predicted = self.mean(student.to(self.raw_variance.dtype))
        squared_error = (teacher - at_least_float32(predicted)).pow(2)
        return (0.5 * (squared_error / variance + variance.log())).mean().to(student_features.dtype)


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
