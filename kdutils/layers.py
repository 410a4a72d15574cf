"""A student cut out of its teacher: some of its layers, copied."""

import copy
from collections.abc import Sequence

from torch import nn


def student_from_teacher(teacher: nn.Module, layers: Sequence[int]) -> nn.Module:
    """A copy of a transformer encoder that keeps only some of its layers.

    teacher: an encoder such as BERT's or DistilBERT's from `transformers`, with any head: a module whose
    layers lie in one ModuleList, as many as its `config.num_hidden_layers`. It is left as it was.
    layers: which of them to keep, as different indices from 0, in the student's order.
    Embeddings, kept layers and head of the student hold the teacher's numbers, in memory of their own, and
    train even where the teacher is frozen. Its config has its own depth.
    Raises ValueError for another kind of module or for such an index, naming what was received.

    Source: Sanh et al. 2019, "DistilBERT", sec. 3, student initialization.
    """
    teacher_layers = _encoder_layers(teacher)
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(len(teacher_layers))):
        raise ValueError(
            f"layers: expected different indices from 0 to {len(teacher_layers) - 1}, at least one, "
            f"got {list(layers)}"
        )
    # deepcopy takes what the memo holds for a part instead of copying it: the left-out layers cost no memory
    memo: dict[int, object] = {}
    memo[id(teacher_layers)] = nn.ModuleList(copy.deepcopy(teacher_layers[i], memo) for i in layers)
    student = copy.deepcopy(teacher, memo)
    student.config.num_hidden_layers = len(layers)  # type: ignore[union-attr]
    return student.requires_grad_(True)


def _encoder_layers(teacher: nn.Module) -> nn.ModuleList:
    """The ModuleList that holds as many modules as the config tells layers."""
    depth = getattr(getattr(teacher, "config", None), "num_hidden_layers", None)
    lists = [module for module in teacher.modules() if isinstance(module, nn.ModuleList)]
    candidates = [module for module in lists if len(module) == depth]
    if len(candidates) != 1:
        raise ValueError(
            "teacher: expected an encoder with one ModuleList of config.num_hidden_layers layers, got "
            f"{type(teacher).__name__} with num_hidden_layers {depth} and ModuleLists of length "
            f"{[len(module) for module in lists]}"
        )
    return candidates[0]
