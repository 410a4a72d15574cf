"""What a model is worth (accuracy, calibration, agreement) and what it costs (parameters, MACs, MB, ms)."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._modes import eval_mode
from kdutils._numerics import at_least_float32, inner_products, unit_vectors
from kdutils._validate import (
    require_count,
    require_finite,
    require_labels,
    require_matrix,
    require_same_batch,
    require_same_shape,
)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose largest logit is the label's, in percent.

    logits: (N, K).   labels: (N,), class indices.   Raises ValueError for shapes or labels that do not fit,
    or logits that are not finite.
    """
    _require_logits(logits, labels)
    return 100 * (logits.argmax(dim=1) == labels).cpu().double().mean().item()


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Minus the log-probability of the label, in nats, averaged over N.

    logits: (N, K), unnormalised.   labels: (N,).   Raises ValueError as `accuracy`.
    """
    _require_logits(logits, labels)
    return F.cross_entropy(logits.cpu().double(), labels.cpu().long()).item()


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Gap between confidence and accuracy, in percentage points, averaged over bins of equal width.

    The confidence is the largest probability. Every bin weighs as many samples as fall into it.
    logits: (N, K), unnormalised.   labels: (N,).   bins: cut (0, 1] into equal parts.
    Raises ValueError as `accuracy`, and for bins < 1.

    Source: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    _require_logits(logits, labels)
    require_count("bins", bins)
    confidence, prediction = logits.cpu().double().softmax(dim=1).max(dim=1)
    correct = (prediction == labels.cpu()).double()
    bin_of = (confidence * bins).ceil().long() - 1
    gap_sums = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, correct - confidence)
    return 100 * gap_sums.abs().sum().item() / len(labels)


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> float:
    """Share of samples for which student and teacher predict the same class, in percent.

    Both: (N, K).   Raises ValueError for shapes that differ, an empty batch, or logits that are not finite.

    Source: Stanton et al. 2021, "Does Knowledge Distillation Really Work?" (top-1 agreement).
    """
    require_matrix("student_logits", student_logits)
    require_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    require_finite("student_logits", student_logits)
    require_finite("teacher_logits", teacher_logits)
    return 100 * (student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1)).cpu().double().mean().item()


def parameter_count(model: nn.Module) -> int:
    """Number of trainable and frozen parameters (buffers such as running statistics not counted)."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, sample: Tensor) -> int:
    """Multiply-accumulate operations of one forward pass on the sample, half of PyTorch's FLOP count.

    sample: a batch as the model takes it; give a batch of one for MACs per image. Convolutions, linear layers
    and matrix products count; batch norm, activations and pooling do not.
    Raises ValueError for a model with a recurrent layer, which PyTorch's counter does not see.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    recurrent = [type(m).__name__ for m in model.modules() if isinstance(m, nn.RNNBase | nn.RNNCellBase)]
    if recurrent:
        raise ValueError(f"model: expected no recurrent layer, got {recurrent[0]}")
    counter = FlopCounterMode(display=False)
    # The counter knows neither fused attention nor the fast path of PyTorch's own transformer layers; the
    # plain form is made of products that it knows.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad(), eval_mode(model):
            model(sample)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops() // 2


def size_mb(model: nn.Module) -> float:
    """Size of what is stored of a model (`state_dict`), in MB (10⁶ bytes); a shared tensor counts once."""
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6


def latency_ms(model: nn.Module, sample: Tensor, min_run_time: float = 0.3, num_threads: int = 1) -> float:
    """Median time of one forward pass in eval mode without gradient, in ms, on the sample's device.

    sample: a batch as the model takes it; its length is the batch size.
    `torch.utils.benchmark` warms up, synchronises a GPU, and repeats in blocks for at least `min_run_time`
    seconds. num_threads: threads of the CPU; 1 unless told, since that is what repeats best.
    """
    # its import warns where a CUDA toolkit stands without a GPU, which is no matter here
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    with torch.inference_mode(), eval_mode(model):
        timer = Timer("model(sample)", globals={"model": model, "sample": sample}, num_threads=num_threads)
        return 1e3 * timer.blocked_autorange(min_run_time=min_run_time).median


def _require_logits(logits: Tensor, labels: Tensor) -> None:
    require_matrix("logits", logits)
    require_labels(labels, *logits.shape)
    require_finite("logits", logits)


def linear_cka(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Similarity of two representations of the same N samples, from 0 to 1: linear centred kernel alignment.

        Σ_ij S_ij · T_ij / (‖S‖ · ‖T‖)

    student_features, teacher_features: shapes (N, ...) with the same N ≥ 2 and any number of features each.
    S and T are the N×N inner products of the centred features: they say which samples a layer takes to be
    alike, and the measure is the cosine between the student's and the teacher's. Rotating the features,
    scaling all of them alike or adding a constant changes nothing. No gradient reaches the teacher.
    Returns a 0-dim tensor of the student's dtype; 0 if one of them gives all samples the same features.
    Raises ValueError if N differs or is below 2.

    Source: Kornblith et al. 2019. Written out in notebook 02.
    """
    require_same_batch(
        "student_features", student_features, "teacher_features", teacher_features, min_samples=2
    )
    student = unit_vectors(_centred_gram(student_features).flatten())
    teacher = unit_vectors(_centred_gram(teacher_features.detach()).flatten())
    return (student * teacher).sum().to(student_features.dtype)


def _centred_gram(features: Tensor) -> Tensor:
    rows = at_least_float32(features).flatten(1)
    centred = rows - rows.mean(dim=0)
    # what is left of equal rows is rounding error: at unit length it would look like a signal
    is_constant = centred.norm() <= 10 * torch.finfo(rows.dtype).eps * rows.norm()
    centred = torch.where(is_constant, 0.0, centred)
    return inner_products(centred, centred)
