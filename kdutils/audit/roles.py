"""What each tensor of a batch is: input, label, the teacher's knowledge, mask, or the number of a sample.

What the caller says counts first, then names, then what is seen in a step, then dtype, shape and values.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from kdutils._trees import Path

Role = Literal["inputs", "labels", "knowledge", "mask", "positions", "index", "other"]
ROLES: tuple[str, ...] = get_args(Role)

HALF_PRECISION = 1e-2  # relative tolerance for knowledge stored in 16 bits
SUM_TOLERANCE = 1e-3
MAX_MIXED_VALUES = 3  # in a row of mixed labels: two images' classes, and what smoothing gives all others

NAMES: dict[str, Role] = {
    "teacher": "knowledge",
    "knowledge": "knowledge",
    "label": "labels",
    "labels": "labels",
    "index": "index",
    "indices": "index",
    "idx": "index",
    "weight": "other",
    "weights": "other",
}


@dataclass(frozen=True)
class Evidence:
    """What is known of a batch before its tensors have roles.

    Attributes:
        tensors: All tensors, by path.
        said: Roles that the caller named, or that are certain.
        names: What the reader's own code calls a tensor: keys of a dict, arguments of the loss.
        inputs: Tensors that the student is called with.
        answer: The student's answer, if there is one.
        live: What the teachers answer to the same input.
        teacher_runs: Whether a teacher runs in the step, so that the batch need not hold knowledge.
    """

    tensors: Mapping[Path, Tensor]
    said: Mapping[Path, Role]
    names: Mapping[Path, list[str]]
    inputs: list[Path]
    answer: Tensor | None
    live: list[Tensor]
    teacher_runs: bool


@dataclass
class Roles:
    """The role of every tensor, by path; `unclear` holds those that may be the labels or something else."""

    of: dict[Path, Role]
    unclear: list[Path] = field(default_factory=list)


class Ambiguous(ValueError):
    """Two tensors may be the teacher's knowledge, or one may be knowledge or labels."""

    def __init__(self, paths: list[Path]):
        super().__init__(paths)
        self.paths = paths


def recognized_roles(evidence: Evidence) -> Roles:
    """The role of every tensor.

    Raises:
        Ambiguous: Tensors that may be the labels or the teacher's knowledge.
    """
    roles = Roles(dict(evidence.said))
    for path, tensor in _undecided(evidence, roles):
        if (role := _role_by_name(evidence.names[path], tensor)) is not None:
            roles.of[path] = role
    if "inputs" not in roles.of.values():
        free = [path for path in evidence.inputs if path not in roles.of]
        masks = [path for path in free if _is_mask_beside(evidence.tensors[path], evidence, free)]
        roles.of |= dict.fromkeys(masks, "mask")
        free = [path for path in free if path not in masks]
        roles.of |= dict.fromkeys(free or _first_input(evidence, roles), "inputs")
    inputs = next(evidence.tensors[path] for path in evidence.tensors if roles.of.get(path) == "inputs")
    for path, tensor in _undecided(evidence, roles):
        if (role := _role_by_values(tensor, inputs, evidence.answer)) is not None:
            roles.of[path] = role
    _decide_vectors(evidence, roles)
    _decide_floats(evidence, roles)
    _decide_whole_numbers(evidence, roles)
    return roles


def _undecided(evidence: Evidence, roles: Roles) -> Iterator[tuple[Path, Tensor]]:
    taken = set(roles.of) | set(roles.unclear)
    return iter([(path, tensor) for path, tensor in evidence.tensors.items() if path not in taken])


def _role_by_name(names: list[str], tensor: Tensor) -> Role | None:
    """The role that a name tells; none for soft labels, which are a teacher's as often as a data set's."""
    for name in names:
        words = re.split(r"[\W_]+", name.lower())
        for word in words:
            if word in NAMES and not (NAMES[word] == "labels" and "soft" in words):
                return NAMES[word]
        if words[-1] == "mask" and tensor.dim() == 2 and is_binary(tensor):  # not a picture's segmentation
            return "mask"
    return None


def _is_mask_beside(tensor: Tensor, evidence: Evidence, inputs: list[Path]) -> bool:
    """Whether an input of zeros and ones goes with tokens of the same shape."""
    others = [evidence.tensors[path] for path in inputs if evidence.tensors[path].shape == tensor.shape]
    return tensor.dim() == 2 and is_binary(tensor) and any(not is_binary(other) for other in others)


def _first_input(evidence: Evidence, roles: Roles) -> list[Path]:
    """The first tensor that is no vector of whole numbers, as labels are; else the first of all."""
    free = [(path, tensor) for path, tensor in evidence.tensors.items() if path not in roles.of]
    free = free or list(evidence.tensors.items())
    wider = [path for path, tensor in free if tensor.is_floating_point() or tensor.dim() > 1]
    return [(wider or [free[0][0]])[0]]


def _role_by_values(tensor: Tensor, inputs: Tensor, answer: Tensor | None) -> Role | None:
    """Masks of tokens, and labels that are a row of zeros and ones or of probabilities of two images."""
    tokens = not inputs.is_floating_point() and inputs.dim() == 2
    if is_binary(tensor) and tensor.dim() == 2:
        if tokens and tensor.shape == inputs.shape:
            return "mask"
        if answer is not None and answer.dim() == 3 and tensor.shape == answer.shape[:2]:
            return "mask"
    if answer is not None and answer.dim() <= 2 and same_but_for_a_one(tensor, answer):
        if is_binary(tensor):
            return "labels"
        mixed = answer.dim() == 2 and answer.shape[1] > MAX_MIXED_VALUES and are_distributions(tensor)
        if mixed and all(len(row.unique()) <= MAX_MIXED_VALUES for row in tensor):
            return "labels"
    return None


def _decide_vectors(evidence: Evidence, roles: Roles) -> None:
    """Whole numbers (N,): class indices if they can be, else the numbers of the samples."""
    vectors = [
        (path, tensor)
        for path, tensor in _undecided(evidence, roles)
        if tensor.dim() == 1 and not tensor.is_floating_point()
    ]
    answer = evidence.answer
    num_classes = answer.shape[1] if answer is not None and answer.dim() == 2 else 0
    fitting = [path for path, v in vectors if 0 <= v.min() <= v.max() < num_classes]
    if "labels" in roles.of.values():
        fitting = []
    if len(fitting) > 1:  # a class comes more than once in a batch, a sample does not
        repeated = [path for path in fitting if _has_repetitions(evidence.tensors[path])]
        if len(repeated) == 1:
            fitting = repeated
        else:
            roles.unclear += fitting
            fitting = []
    roles.of |= dict.fromkeys(fitting, "labels")
    roles.of |= {path: "index" for path, _ in _undecided_of(vectors, roles)}


def _has_repetitions(vector: Tensor) -> bool:
    return len(vector.unique()) < len(vector)


def _undecided_of(tensors: list[tuple[Path, Tensor]], roles: Roles) -> list[tuple[Path, Tensor]]:
    return [(path, t) for path, t in tensors if path not in roles.of and path not in roles.unclear]


def _decide_floats(evidence: Evidence, roles: Roles) -> None:
    """The teacher's knowledge, and values that a regression has to meet."""
    candidates = []
    for path, tensor in _undecided(evidence, roles):
        if not tensor.is_floating_point():
            continue
        of_its_shape = [live for live in evidence.live if live.shape == tensor.shape]
        if any(is_said(tensor, live) for live in of_its_shape):
            roles.of[path] = "knowledge"
        elif of_its_shape:
            candidates.append(path)
        else:
            roles.of[path] = "knowledge" if tensor.dim() > 1 else "other"
    if "labels" in roles.of.values() or roles.unclear:
        roles.of |= dict.fromkeys(candidates, "knowledge")
    elif evidence.teacher_runs or "knowledge" in roles.of.values():
        roles.of |= dict.fromkeys(candidates, "labels")
    elif len(candidates) < 2:
        roles.of |= dict.fromkeys(candidates, "knowledge")
    else:
        raise Ambiguous(candidates)


def _decide_whole_numbers(evidence: Evidence, roles: Roles) -> None:
    """Labels of tokens or pixels, and the places to which stored knowledge of a few classes belongs."""
    knowledge = [t.shape for path, t in evidence.tensors.items() if roles.of.get(path) == "knowledge"]
    for path, tensor in _undecided(evidence, roles):
        if tensor.dim() == 3 and tensor.shape in knowledge:
            roles.of[path] = "knowledge"
        else:
            roles.of[path] = "other" if "labels" in roles.of.values() or tensor.dim() < 2 else "labels"


def is_binary(tensor: Tensor) -> bool:
    """Whether all of it is zero or one."""
    return bool(((tensor == 0) | (tensor == 1)).all())


def are_distributions(tensor: Tensor) -> bool:
    """Whether it is (N, K), and every row is a distribution over two or more classes."""
    if not tensor.is_floating_point() or tensor.dim() != 2 or tensor.shape[1] < 2:
        return False
    return bool((tensor >= 0).all() and (tensor.sum(dim=1) - 1).abs().max() < SUM_TOLERANCE)


def same_but_for_a_one(tensor: Tensor, other: Tensor) -> bool:
    """Whether two shapes agree, (N,) and (N, 1) taken for the same."""
    return tensor.shape == other.shape or (
        tensor.numel() == other.numel() == len(tensor) and len(tensor) == len(other)
    )


def is_said(cached: Tensor, live: Tensor) -> bool:
    """Whether stored knowledge is what the teacher says now, as logits or as probabilities."""
    if are_alike(cached, live):
        return True
    return live.dim() > 1 and close_within(cached, live.softmax(dim=-1), HALF_PRECISION)


def are_alike(cached: Tensor, live: Tensor) -> bool:
    """Whether two answers agree to half precision; a constant added to all logits is no difference."""
    cached = cached.to(live.dtype)
    if live.dim() in (2, 3) and live.shape[-1] > 1:
        cached, live = centered(cached), centered(live)
    return close_within(cached, live, HALF_PRECISION)


def centered(rows: Tensor) -> Tensor:
    """The rows, each less its mean."""
    return rows - rows.mean(dim=-1, keepdim=True)


def close_within(value: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether the difference is small beside the larger of the two."""
    return bool((value - other).norm() <= tolerance * max(value.norm(), other.norm()))


def places_said(roles: Mapping[Any, str] | None, places: Mapping[Path, Any]) -> dict[Path, Role]:
    """The caller's roles by path.

    Args:
        roles: From a place in the batch, an index or a key, to a role.
        places: The place in the batch of every tensor, by path.

    Raises:
        ValueError: An unknown place or role.
    """
    roles = roles or {}
    for place, role in roles.items():
        if place not in places.values():
            known = list(dict.fromkeys(places.values()))
            raise ValueError(f"roles: expected places of tensors in the batch, {known}, got {place!r}")
        if role not in ROLES:
            raise ValueError(f"roles[{place!r}]: expected one of {list(ROLES)}, got {role!r}")
    return {path: roles[place] for path, place in places.items() if place in roles}  # type: ignore[misc]
