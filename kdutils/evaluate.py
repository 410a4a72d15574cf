"""What a model is worth (accuracy, calibration, agreement) and what it costs (parameters, MACs, MB, ms)."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._extras import require_extra
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

Sample = Tensor | tuple | Mapping[str, Any]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose largest logit is the label's, in percent.

    Args:
        logits: (N, K).
        labels: (N,), class indices.

    Raises:
        ValueError: For shapes or labels that do not fit, or logits that are not finite.
    """
    logits, labels = _on_cpu(logits, labels)
    return 100 * (logits.argmax(dim=1) == labels).double().mean().item()


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Minus the log-probability of the label, in nats, averaged over N.

    Args:
        logits: (N, K), unnormalized.
        labels: (N,), class indices.

    Raises:
        ValueError: As `accuracy`.
    """
    logits, labels = _on_cpu(logits, labels)
    return F.cross_entropy(logits.double(), labels.long()).item()


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Gap between confidence and accuracy, in percentage points, averaged over bins of equal width.

    The confidence is the largest probability. Every bin weighs as many samples as fall into it.

    Args:
        logits: (N, K), unnormalized.
        labels: (N,), class indices.
        bins: Number of equal parts into which (0, 1] is cut.

    Raises:
        ValueError: As `accuracy`, and for bins < 1.

    Source: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    logits, labels = _on_cpu(logits, labels)
    require_count("bins", bins)
    confidence, prediction = logits.double().softmax(dim=1).max(dim=1)
    correct = (prediction == labels).double()
    bin_of = (confidence * bins).ceil().long() - 1
    gap_sums = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, correct - confidence)
    return 100 * gap_sums.abs().sum().item() / len(labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T at which softmax(logits / T) gives the labels the largest likelihood.

    Temperature scaling: fit T on held-out data, then divide all logits by it. Accuracy stays the same, and
    the probabilities become calibrated. Above 1 the model was overconfident.

    Args:
        logits: (N, K), unnormalized, of samples that the model was not trained on.
        labels: (N,), class indices.

    Raises:
        ValueError: As `accuracy`. Where no T is best: if every label has the largest logit, the likelihood
            grows as T → 0; if labels have logits below the mean on average, as T → ∞.

    Source: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", sec. 4.2.
    """
    logits, labels = _on_cpu(logits, labels)
    logits = logits.double()
    of_label = logits.gather(1, labels.long().unsqueeze(1)).squeeze(1)
    # in 1 / T the loss is convex, with this slope at 0 and one that is negative everywhere
    if (logits.mean(dim=1) - of_label).mean() >= 0:
        raise ValueError(
            "logits: expected ones that are better than chance, got ones that no temperature helps"
        )
    if (logits.amax(dim=1) == of_label).all():
        raise ValueError(
            "logits: expected at least one wrong prediction, got none: the best temperature is 0"
        )
    low, high, inverse = 0.0, torch.inf, 1 / logits.std().item()
    for _ in range(200):  # Newton's method, kept between the bounds that the slope's sign gives
        probabilities = (inverse * logits).softmax(dim=1)
        mean = (probabilities * logits).sum(dim=1)
        slope = (mean - of_label).mean().item()
        curvature = (probabilities * (logits - mean.unsqueeze(1)).square()).sum(dim=1).mean().item()
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else torch.inf
        if not low < step < high:
            step = 2 * inverse if high == torch.inf else (low + high) / 2
        if abs(step - inverse) <= 1e-10 * inverse:
            break
        inverse = step
    return 1 / inverse


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> float:
    """Share of samples for which student and teacher predict the same class, in percent.

    Args:
        student_logits: (N, K).
        teacher_logits: (N, K).

    Raises:
        ValueError: For shapes that differ, an empty batch, or logits that are not finite.

    Source: Stanton et al. 2021, "Does Knowledge Distillation Really Work?" (top-1 agreement).
    """
    require_matrix("student_logits", student_logits)
    require_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    require_finite("student_logits", student_logits)
    require_finite("teacher_logits", teacher_logits)
    predictions, expected = (logits.argmax(dim=1).cpu() for logits in (student_logits, teacher_logits))
    return 100 * (predictions == expected).double().mean().item()


def _on_cpu(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Checked, also the values; on the CPU, which has float64 everywhere."""
    require_matrix("logits", logits)
    labels = labels.cpu() if isinstance(labels, Tensor) else labels
    require_labels(labels, *logits.shape)
    require_finite("logits", logits)
    return logits.cpu(), labels


def parameter_count(model: nn.Module) -> int:
    """Number of trainable and frozen parameters, also of layers that PyTorch has quantized and packed.

    Buffers such as running statistics do not count.
    """
    packed = (value for value in model.state_dict().values() if isinstance(value, tuple | list))
    weights = [group for group in map(list, map(_tensors, packed)) if any(t.is_quantized for t in group)]
    return sum(p.numel() for p in model.parameters()) + sum(t.numel() for group in weights for t in group)


def macs(model: nn.Module, sample: Sample) -> int:
    """Multiply-accumulate operations of one forward pass on the sample, half of PyTorch's FLOP count.

    Convolutions, linear layers and matrix products count, also those with a vector; batch norm, activations,
    pooling and other elementwise operations do not.

    Args:
        model: Any module; it is called in eval mode.
        sample: A batch as the model takes it, a tuple for several inputs, a dict for inputs by keyword. A
            batch of one gives MACs per image.

    Raises:
        ValueError: For a model with a recurrent or a quantized layer, which PyTorch's counter does not see.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for module in model.modules():
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            raise ValueError(f"model: expected no recurrent layer, got {type(module).__name__}")
        if ".quantized" in type(module).__module__:
            raise ValueError(f"model: expected no quantized layer, got {type(module).__name__}")
    counter = FlopCounterMode(display=False, custom_mapping=_more_products())
    # The counter knows neither fused attention nor the fast path of PyTorch's own transformer layers; the
    # plain form is made of products that it knows.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    arguments, keywords = _arguments(sample)
    try:
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad(), eval_mode(model):
            model(*arguments, **keywords)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops() // 2


def _more_products() -> dict[Any, Any]:
    """FLOPs, from the arguments' shapes, of products that PyTorch's counter leaves out."""

    def bilinear(first: Any, weight: Any, second: Any, *_: Any, **__: Any) -> int:
        # the weight (O, I, J) times the second input, and the result times the first
        outputs = second[0] * weight[0] * weight[1]
        return 2 * (outputs * weight[2] + outputs)

    aten = torch.ops.aten
    return {
        aten.mv: lambda matrix, vector, **_: 2 * matrix[0] * matrix[1],
        aten.addmv: lambda added, matrix, vector, **_: 2 * matrix[0] * matrix[1],
        aten.dot: lambda first, second, **_: 2 * first[0],
        aten.vdot: lambda first, second, **_: 2 * first[0],
        aten.addbmm: lambda added, first, second, **_: 2 * first[0] * first[1] * first[2] * second[2],
        aten._trilinear: bilinear,
    }


def size_mb(model: nn.Module) -> float:
    """Size of what is stored of a model (`state_dict`), in MB (10⁶ bytes); a shared tensor counts once.

    Quantized and packed weights count with the bytes that they take, and so does what a module stores besides
    tensors, where it is made of tensors or bytes.
    """
    tensors = {id(t): t for value in model.state_dict(keep_vars=True).values() for t in _tensors(value)}
    return sum(map(_num_bytes, tensors.values())) / 1e6


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors, and the byte strings, in one entry of a state dict."""
    if isinstance(value, Tensor | bytes | bytearray):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


def _num_bytes(value: Any) -> int:
    if not isinstance(value, Tensor):
        return len(value)
    if hasattr(value, "__tensor_flatten__"):  # made of others, as torchao's quantized weights are
        return sum(_num_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
    return value.numel() * value.element_size()


def latency_ms(model: nn.Module, sample: Sample, min_run_time: float = 0.3, num_threads: int = 1) -> float:
    """Median time of one forward pass in eval mode without gradient, in ms, on the sample's device.

    A few calls come before the clock starts: they warm up, and compile what `torch.compile` has been given. A
    GPU is waited for. `onnx_latency_ms` tells the same of ONNX Runtime.

    Args:
        model: Any module, compiled or not.
        sample: A batch as the model takes it, a tuple for several inputs, a dict for inputs by keyword. Its
            length is the batch size.
        min_run_time: Seconds for which the call is repeated, at least.
        num_threads: Threads of the CPU. One gives times that repeat best.
    """
    arguments, keywords = _arguments(sample)
    # no inference mode: a tensor that the model caches in it could not be trained with afterwards
    with torch.no_grad(), eval_mode(model):
        names = {"model": model, "arguments": arguments, "keywords": keywords}
        return _median_ms("model(*arguments, **keywords)", names, min_run_time, num_threads)


def onnx_session(path: str | Path, num_threads: int = 1) -> Any:
    """An .onnx file, ready to run on the CPU: an `onnxruntime.InferenceSession`.

    Needs the extra `int8`.

    Args:
        path: The file.
        num_threads: Threads for one operation.
    """
    onnxruntime = require_extra("onnxruntime", "int8")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = num_threads, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_latency_ms(model: Any, sample: Sample, min_run_time: float = 0.3, num_threads: int = 1) -> float:
    """Median time of one run of an ONNX model in ONNX Runtime, in ms, measured as `latency_ms` measures.

    Needs the extra `int8`.

    Args:
        model: Path of an .onnx file, which runs on the CPU, or an `onnxruntime.InferenceSession`.
        sample: A batch as a tensor or array, a tuple for several inputs, a dict for inputs by name.
        min_run_time: Seconds for which the run is repeated, at least.
        num_threads: Threads for a model that is given by its path. A session has threads of its own.

    Raises:
        ValueError: For another number of inputs than the model has.
    """
    if isinstance(model, str | Path):
        model = onnx_session(model, num_threads)
    names = [argument.name for argument in model.get_inputs()]
    arguments, keywords = _arguments(sample)
    inputs = keywords or dict(zip(names, arguments, strict=False))
    if len(arguments) + len(keywords) != len(names):
        raise ValueError(f"sample: expected inputs {names}, got {len(arguments) + len(keywords)}")
    feed = {
        name: value.cpu().numpy() if isinstance(value, Tensor) else value for name, value in inputs.items()
    }
    return _median_ms("model.run(None, feed)", {"model": model, "feed": feed}, min_run_time, num_threads)


def _arguments(sample: Any) -> tuple[tuple, dict[str, Any]]:
    """What a model is called with, by position and by keyword."""
    if isinstance(sample, Mapping):
        return (), dict(sample)
    return (sample if isinstance(sample, tuple) else (sample,)), {}


def _median_ms(statement: str, names: dict[str, Any], min_run_time: float, num_threads: int) -> float:
    # importing the timer logs a warning where a CUDA toolkit stands without a GPU
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    timer = Timer(statement, globals=names, num_threads=num_threads)
    timer.timeit(1)  # the timer takes its block size from the first call, which may have to compile
    return 1e3 * timer.blocked_autorange(min_run_time=min_run_time).median


def linear_cka(student_features: Tensor, teacher_features: Tensor, *, debiased: bool = False) -> Tensor:
    """Similarity of two representations of the same N samples: linear centered kernel alignment.

        Σ_ij S_ij · T_ij / (‖S‖ · ‖T‖)

    S and T are the N×N inner products of the centered features: they say which samples a layer takes to be
    alike, and the measure is the cosine between the student's and the teacher's. Rotating the features,
    scaling all of them alike or adding a constant changes nothing. No gradient reaches the teacher.

    The plain estimate lies between 0 and 1, and above the truth by the more, the fewer samples there are for
    the number of features: for unrelated features it is near 1 where these outnumber the samples by far, and
    of two samples it is always 1, since they are alike in one way only. `debiased` leaves out what every
    sample has in common with itself, and corrects the centering: unrelated features then give 0 on average,
    and single estimates may lie below 0.

    Args:
        student_features: (N, ...) with N ≥ 2 and any number of features.
        teacher_features: (N, ...) with the same N and its own number of features.
        debiased: Whether to use the unbiased estimate of the inner products. Needs N ≥ 4.

    Returns:
        A 0-dim tensor, in float32 for features of half precision. It is 0 if one of them gives all samples
        the same features.

    Raises:
        ValueError: If N differs or is too small.

    Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited". Debiased: Song et
    al. 2012, "Feature Selection via Dependence Maximization", sec. 4; Nguyen, Raghu and Kornblith 2021, "Do
    Wide and Deep Networks Learn the Same Things?", sec. 3. Written out in notebook 02.
    """
    require_same_batch(
        "student_features",
        student_features,
        "teacher_features",
        teacher_features,
        min_samples=4 if debiased else 2,
    )
    similarities = _off_diagonal if debiased else _centered_products
    student = unit_vectors(similarities(student_features).flatten())
    teacher = unit_vectors(similarities(teacher_features.detach()).flatten())
    return (student * teacher).sum().to(at_least_float32(student_features).dtype)


def _centered_products(features: Tensor) -> Tensor:
    # at a size near 1, since the inner products of large or small features would leave float32's range
    rows = _at_size_one(at_least_float32(features).flatten(1))
    centered = rows - rows.mean(dim=0)
    # what is left of equal rows is rounding error: at unit length it would look like a signal
    is_constant = centered.norm() <= 10 * torch.finfo(rows.dtype).eps * rows.norm()
    centered = _at_size_one(torch.where(is_constant, 0.0, centered))
    return inner_products(centered, centered)


def _off_diagonal(features: Tensor) -> Tensor:
    """Inner products of different samples, centered so that each sample's sum with all others is zero."""
    products = _centered_products(features)
    count = len(products)
    different = 1 - torch.eye(count, dtype=products.dtype, device=products.device)
    products = products * different
    sums = products.sum(dim=1) / (count - 2)
    mean = sums.sum() / (count - 1)
    return (products - sums.unsqueeze(0) - sums.unsqueeze(1) + mean) * different


def _at_size_one(rows: Tensor) -> Tensor:
    """Divided by the largest magnitude; zeros stay zeros. The measure does not depend on it: no gradient."""
    largest = rows.detach().abs().amax()
    return rows / torch.where(largest == 0, 1.0, largest)
