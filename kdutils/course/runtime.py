"""A network where it would really run: written to a file, rounded to int8, and timed in ONNX Runtime.

All of it needs the extra `int8` (onnx, onnxruntime, onnxscript).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdutils import evaluate
from kdutils._extras import require_extra

INPUT = "images"
Name = TypeVar("Name")


def available() -> bool:
    """Whether the extra `int8` is installed; says how to install it where it is not."""
    there = all(find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
    if not there:
        print("ONNX Runtime is not installed: pip install onnx onnxruntime onnxscript")
    return there


def export_onnx(network: nn.Module, path: str | Path, sample: Tensor) -> Path:
    """Writes a network as an .onnx file that takes any number of images.

    Args:
        network: In eval mode, on the CPU; images (N, C, H, W) → logits (N, K).
        path: The file to write.
        sample: Some images, N >= 2: their shape and dtype count, their values do not.

    Raises:
        ImportError: The extra `int8` is missing.
        ValueError: The network is in training mode, or `sample` holds fewer than two images.
    """
    require_extra("onnx", "int8")
    require_extra("onnxscript", "int8")
    if network.training:
        raise ValueError("network: expected one in eval mode, got one in training mode: call .eval() first")
    if len(sample) < 2:
        raise ValueError(f"sample: expected at least 2 images, got {len(sample)}: one would fix the number")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns where torchvision is missing
    any_number = ({0: torch.export.Dim("images")},)
    torch.onnx.export(
        network, (sample,), str(path), input_names=[INPUT], dynamic_shapes=any_number,
        external_data=False, verbose=False,
    )  # fmt: skip
    return Path(path)


def quantize_onnx(source: str | Path, target: str | Path, images: Tensor) -> Path:
    """Writes an int8 version of an .onnx file: weights with a scale per channel, activations as uint8.

    Args:
        source: What `export_onnx` wrote.
        target: The file to write.
        images: (N, C, H, W): their activations set the scales (*static* quantization).

    Raises:
        ImportError: The extra `int8` is missing.
        ValueError: No images.
    """
    require_extra("onnxruntime", "int8")
    if not len(images):
        raise ValueError("images: expected some to set the scales of int8, got none")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class InPieces(CalibrationDataReader):
        pieces: Iterator[Tensor] = iter(images.split(10))

        def get_next(self) -> dict[str, Any] | None:
            piece = next(self.pieces, None)
            return None if piece is None else {INPUT: piece.numpy()}

    prepared = Path(f"{target}.prepared")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        prepared, target, InPieces(), quant_format=QuantFormat.QDQ, per_channel=True,
        weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
    )  # fmt: skip
    prepared.unlink()
    return Path(target)


def onnx_logits(path: str | Path, images: Tensor) -> Tensor:
    """What an .onnx file answers: images (N, C, H, W) → logits (N, K), in pieces of 500 images."""
    session = evaluate.onnx_session(path)
    pieces = [session.run(None, {INPUT: piece.numpy()})[0] for piece in images.split(500)]
    return torch.cat([torch.from_numpy(piece) for piece in pieces])


def latencies_ms(
    models: Mapping[Name, nn.Module | Path], sample: Tensor, rounds: int = 5, min_run_time: float = 0.05
) -> dict[Name, float]:
    """Milliseconds of each model on one thread: a module in eager PyTorch, a path in ONNX Runtime.

    The models are timed in turns, `rounds` times, and the shortest of each one's medians counts: whatever
    else the machine does only adds to a time.
    """
    timers = {name: _timer(model, sample, min_run_time) for name, model in models.items()}
    times = [{name: timer() for name, timer in timers.items()} for _ in range(rounds)]
    return {name: min(time[name] for time in times) for name in models}


def _timer(model: nn.Module | Path, sample: Tensor, min_run_time: float) -> Callable[[], float]:
    if isinstance(model, nn.Module):
        return lambda: evaluate.latency_ms(model, sample, min_run_time)
    session = evaluate.onnx_session(model)
    return lambda: evaluate.onnx_latency_ms(session, sample, min_run_time)
