"""Linear layers whose weights lie in memory as 8 or 4 bits, multiplied as such by ONNX Runtime on a CPU.

All of it needs the extra `int8` (onnx, onnxruntime).
"""

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from kdutils._extras import require_extra
from kdutils.course.smollm import tidy

TABLE_BITS = 8  # of embeddings and of a head that shares them: four would cost too much


class PackedWeight:
    """A matrix (N, K) as whole numbers of 8 or 4 bits, with a scale and a middle for each block of a row.

    A block's lowest weight becomes 0, its highest 2^bits − 1: w = scale · (code − 2^(bits − 1)) + middle.

    Attributes:
        bits: 8 or 4.
        block: How many neighbors share scale and middle.
        shape: N and K.
        codes: The numbers as uint8, (N, K / block, block) or, two in a byte, half as many.
        scales: (N, K / block) as float32.
        middles: As `scales`.
        size_mb: What all of it takes, in units of 10⁶ bytes.
    """

    def __init__(self, weight: Tensor, bits: int, block: int = 32) -> None:
        if bits not in (4, 8):
            raise ValueError(f"bits: expected 4 or 8, got {bits!r}")
        if weight.dim() != 2 or weight.shape[1] % block:
            raise ValueError(
                f"weight: expected shape (N, K), K a multiple of {block}, got {tuple(weight.shape)}"
            )
        self.bits, self.block, self.shape = bits, block, tuple(weight.shape)
        pieces = [self._rounded(rows) for rows in weight.detach().split(2048)]  # a few MB at a time
        self.codes, self.scales, self.middles = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        tensors = (self.codes, self.scales, self.middles)
        self.size_mb = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6

    def _rounded(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        blocks = weight.float().unflatten(1, (-1, self.block))
        low, high = blocks.amin(dim=-1), blocks.amax(dim=-1)
        scales = ((high - low) / (2**self.bits - 1)).clamp(min=1e-12)
        codes = ((blocks - low[..., None]) / scales[..., None]).round().to(torch.uint8)
        codes = codes if self.bits == 8 else codes[..., 0::2] | (codes[..., 1::2] << 4)
        return codes, scales, low + scales * 2 ** (self.bits - 1)

    def rows(self, indices: Tensor) -> Tensor:
        """Some rows given back as float32: indices (...) → (..., K)."""
        codes = self.codes[indices]
        if self.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2)
        centered = codes.float() - 2 ** (self.bits - 1)
        return (centered * self.scales[indices][..., None] + self.middles[indices][..., None]).flatten(-2)


class PackedLinear(nn.Module):
    """(..., K) → (..., N) without a bias; nothing of it trains.

    ONNX Runtime's operator MatMulNBits rounds the inputs to int8, block by block, and multiplies whole
    numbers. What the middles add is a product of the blocks' sums.
    """

    def __init__(self, weight: PackedWeight) -> None:
        super().__init__()
        self.session, self.middles = _session(weight), weight.middles
        self.block, self.size_mb = weight.block, weight.size_mb

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.detach().flatten(0, -2)
        (products,) = self.session.run(None, {"inputs": flat.numpy()})
        outputs = torch.from_numpy(products)
        outputs += flat.unflatten(-1, (-1, self.block)).sum(dim=-1) @ self.middles.T
        return outputs.unflatten(0, inputs.shape[:-1])


class PackedEmbedding(nn.Module):
    """Tokens (...) → (..., K), the rows of a packed matrix."""

    def __init__(self, weight: PackedWeight) -> None:
        super().__init__()
        self.weight, self.size_mb = weight, weight.size_mb

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight.rows(tokens)


def packed(model: Any, bits: int, block: int = 32, finer: Collection[int] = ()) -> Any:
    """A causal language model of `transformers` whose linear layers are packed, its vocabulary in 8 bits.

    Args:
        model: With its layers in `model.model.layers`.
        bits: 8 or 4.
        block: How many neighbors share scale and middle.
        finer: Places of transformer layers that are packed in 8 bits whatever `bits` says.

    Embedding and head have to share one matrix, and go on sharing it. The model that is given stays as it
    was; what is not packed, such as the norms, is shared with it.

    Raises:
        ImportError: The extra `int8` is missing.
        ValueError: `bits` is neither 8 nor 4, a layer has a bias or a width that is no multiple of `block`,
            or the head has a matrix of its own.
    """
    require_extra("onnxruntime", "int8")
    require_extra("onnx", "int8")
    model = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.weight is not embeddings.weight:
        raise ValueError("model: expected a head that shares the embeddings' matrix, got one of its own")
    table = PackedWeight(head.weight, TABLE_BITS, block)
    in_8_bits = {id(part) for place in finer for part in model.model.layers[place].modules()}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                if child.bias is not None:
                    raise ValueError(f"model: expected linear layers without a bias, but {name} has one")
                own_bits = 8 if id(child) in in_8_bits else bits
                weight = table if child is head else PackedWeight(child.weight, own_bits, block)
                setattr(parent, name, PackedLinear(weight))
    model.set_input_embeddings(PackedEmbedding(table))
    tidy()
    return model


def size_mb(model: nn.Module) -> float:
    """What a model's weights take, packed or not, in units of 10⁶ bytes; a shared vocabulary counts once."""
    bare = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    linear = sum(module.size_mb for module in model.modules() if isinstance(module, PackedLinear))
    return bare / 1e6 + linear  # the embedding's rows are those of the packed head


def _session(weight: PackedWeight) -> Any:
    import onnx
    import onnxruntime
    from onnx import helper

    rows, columns = weight.shape
    number = onnx.TensorProto.FLOAT
    stored = {"codes": weight.codes, "scales": weight.scales.flatten()}
    product = helper.make_node(
        "MatMulNBits", ["inputs", *stored], ["outputs"], domain="com.microsoft",
        K=columns, N=rows, bits=weight.bits, block_size=weight.block, accuracy_level=4,
    )  # fmt: skip
    graph = helper.make_graph(
        [product],
        "packed",
        [helper.make_tensor_value_info("inputs", number, ["tokens", columns])],
        [helper.make_tensor_value_info("outputs", number, ["tokens", rows])],
        [onnx.numpy_helper.from_array(tensor.numpy(), name) for name, tensor in stored.items()],
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # each layer would keep its own
    options.log_severity_level = 3
    content = helper.make_model(graph, opset_imports=domains, ir_version=10).SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
