"""The precision that losses compute in."""

from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 widened to float32; float32 and float64 as they are.

    Small differences of probabilities, which losses are made of, vanish in 8 or 11 significant bits.
    """
    return tensor.float() if tensor.element_size() < 4 else tensor
