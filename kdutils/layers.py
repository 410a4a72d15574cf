"""A student cut out of its teacher: some of its layers, copied."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

_PLACE_IN_THE_STACK = ("layer_idx", "layer_id", "layer_index", "layer_number", "layer_num")


def student_from_teacher(teacher: nn.Module, layers: Sequence[int]) -> nn.Module:
    """A copy of a transformer that keeps only some of its layers.

    Embeddings, kept layers and head of the student hold the teacher's numbers, in memory of their own, and
    train even where the teacher is frozen. Its config has its own depth, and entries per layer such as
    `layer_types` are those of the kept layers: saved and loaded by `save_pretrained` and `from_pretrained` it
    stays the same. Layers that know their place, as those that write into a cache do, are numbered anew.

    Args:
        teacher: An encoder or decoder from `transformers`, with any head: a module whose layers lie in one
            ModuleList, as many as its `config.num_hidden_layers`. It is left as it was.
        layers: Which of them to keep, as different indices from 0, in the student's order.

    Returns:
        The student.

    Raises:
        ValueError: For another kind of module, and for an index that is not there. For layers that the config
            cannot describe at their new places, or that compute something else there.

    Source: Sanh et al. 2019, "DistilBERT", sec. 3, student initialization.
    """
    path, teacher_layers = _stack_of_layers(teacher)
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(len(teacher_layers))):
        raise ValueError(
            f"layers: expected different indices from 0 to {len(teacher_layers) - 1}, at least one, "
            f"got {list(layers)}"
        )
    # deepcopy takes what the memo holds for a part instead of copying it: the left-out layers cost no memory
    memo: dict[int, object] = {}
    kept = nn.ModuleList(copy.deepcopy(teacher_layers[i], memo) for i in layers)
    memo[id(teacher_layers)] = kept
    student = copy.deepcopy(teacher, memo)
    for place, (layer, former_place) in enumerate(zip(kept, layers, strict=True)):
        _renumber(layer, former_place, place)
    for config in _configs(student):
        _cut_config(config, len(teacher_layers), layers)
    _require_same_layers(teacher, student, path, layers)
    return student.requires_grad_(True)


def _stack_of_layers(teacher: nn.Module) -> tuple[str, nn.ModuleList]:
    """Path and ModuleList of the layers: as many modules as the config tells."""
    depth = getattr(getattr(teacher, "config", None), "num_hidden_layers", None)
    lists = [(name, part) for name, part in teacher.named_modules() if isinstance(part, nn.ModuleList)]
    candidates = [(name, part) for name, part in lists if len(part) == depth]
    if len(candidates) != 1:
        raise ValueError(
            "teacher: expected a transformer with one ModuleList of config.num_hidden_layers layers, got "
            f"{type(teacher).__name__} with num_hidden_layers {depth} and ModuleLists of length "
            f"{[len(part) for _, part in lists]}"
        )
    return candidates[0]


def _renumber(layer: nn.Module, former_place: int, place: int) -> None:
    for module in layer.modules():
        for name in _PLACE_IN_THE_STACK:
            if getattr(module, name, None) == former_place:
                setattr(module, name, place)


def _configs(model: nn.Module) -> list[Any]:
    """The configs of the model and its parts, each once; parts mostly share the model's."""
    found = (getattr(module, "config", None) for module in model.modules())
    return list({id(config): config for config in found if hasattr(config, "num_hidden_layers")}.values())


def _cut_config(config: Any, depth: int, layers: Sequence[int]) -> None:
    """Depth and lists with one entry per layer, such as `layer_types`, become those of the kept layers."""
    if config.num_hidden_layers != depth:
        return
    for name, entries in list(vars(config).items()):
        is_per_layer = ("layer" in name or name.endswith("_types")) and isinstance(entries, list | tuple)
        if is_per_layer and len(entries) == depth:
            setattr(config, name, type(entries)(entries[i] for i in layers))
    config.num_hidden_layers = len(layers)


def _require_same_layers(teacher: Any, student: Any, path: str, layers: Sequence[int]) -> None:
    """Raises ValueError unless the student's config describes the layers that it has.

    What is compared is what the two configs describe, not what is there: that may have been changed since
    it was made, as by another dropout. On the meta device making it costs no memory.
    """
    if not hasattr(teacher, "_from_config"):  # not from `transformers`
        return
    if getattr(teacher.config, "scale_attn_by_inverse_layer_idx", False):
        raise ValueError(
            "teacher: expected layers that compute the same at any place, got a config with "
            "scale_attn_by_inverse_layer_idx"
        )
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            of_teacher, of_student = (
                type(teacher)._from_config(copy.deepcopy(model.config)).get_submodule(path)
                for model in (teacher, student)
            )
    except TypeError:  # a class of one's own that is made from more than a config
        return
    for place, former_place in enumerate(layers):
        told, is_there = (
            dict(_description(stack[index], index))
            for stack, index in ((of_student, place), (of_teacher, former_place))
        )
        if told != is_there:
            differing = sorted(
                key for key in told.keys() | is_there.keys() if told.get(key) != is_there.get(key)
            )
            raise ValueError(
                f"layers: expected layers that the config of {type(teacher).__name__} can describe at their "
                f"new places, got {list(layers)}: layer {former_place} at place {place} would have another "
                f"{differing[0]}"
            )


def _description(layer: nn.Module, place: int) -> Iterator[tuple[str, object]]:
    """What a layer is made of: kinds and settings of its modules, shapes of its parameters and buffers."""
    for path, module in layer.named_modules():
        yield path or "kind", type(module)
        for name, value in vars(module).items():
            if isinstance(value, bool | int | float | str) and name not in _PLACE_IN_THE_STACK:
                yield f"{path}.{name}".lstrip("."), value
    for name, tensor in layer.state_dict().items():
        yield name, tensor.shape
