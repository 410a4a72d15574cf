"""Facts that every loss of the course must satisfy, as plain assertions.

Each takes the loss, then the arguments in the loss's own order: student, teacher, *rest.
A loss with keyword settings, or one that is a module, is passed as a lambda or as the module.
"""

import importlib
import inspect
import math
import pkgutil
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kdutils import losses

LOW_PRECISION = (torch.float16, torch.bfloat16)


def public_in_losses() -> dict[str, Any]:
    """Name → function or class, for all that the modules beneath kdutils.losses define for others."""
    names = [f"kdutils.losses.{info.name}" for info in pkgutil.iter_modules(losses.__path__)]
    return {
        name: value
        for module in map(importlib.import_module, names)
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def every_loss() -> dict[str, Callable]:
    """Name → function of every loss that a module beneath kdutils.losses defines."""
    return {name: value for name, value in public_in_losses().items() if name.endswith("_loss")}


def random_tensor(*shape, seed=0, std=2.0, dtype=torch.float64):
    """Normal numbers with the given standard deviation, the same for the same seed and shape."""
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def random_labels(num_samples, num_classes, seed=0):
    """Class indices of shape (N,), the same for the same seed."""
    return torch.randint(num_classes, (num_samples,), generator=torch.Generator().manual_seed(seed))


def value_and_gradient(loss_fn, student: Tensor, teacher, *rest):
    """The loss and its gradient with respect to the student's tensor, both detached."""
    student = student.detach().clone().requires_grad_()
    loss = loss_fn(student, teacher, *rest)
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.detach(), gradient


def assert_matches_formula(loss_fn, formula, student, teacher, *rest, rtol=1e-6):
    """Value and gradient agree with the formula written out, element by element, in float64."""
    assert student.dtype == torch.float64, "compare with a formula in float64"
    value, gradient = value_and_gradient(loss_fn, student, teacher, *rest)
    expected_value, expected_gradient = value_and_gradient(formula, student, teacher, *rest)
    torch.testing.assert_close(value, expected_value, rtol=rtol, atol=1e-14)
    # entries far below the largest one are lost to rounding in any formula that cancels
    floor = 1e-10 * expected_gradient.abs().max().item()
    torch.testing.assert_close(gradient, expected_gradient, rtol=rtol, atol=floor)


def assert_gradient_is_exact(loss_fn, student, teacher, *rest):
    """The student's gradient agrees with finite differences in float64."""
    student = student.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss_fn(s, teacher, *rest), student)


def at_least_float32(dtype):
    """The dtype of a loss of tensors of this dtype: a float16 would end the gradient scaler's range."""
    return torch.float32 if dtype in LOW_PRECISION else dtype


def assert_one_number(loss_fn, student, teacher, *rest):
    """The loss is one number, in the dtype of the student's tensor, at least float32."""
    loss = loss_fn(student, teacher, *rest)
    assert loss.shape == ()
    assert loss.dtype == at_least_float32(student.dtype)


def assert_teacher_gets_no_gradient(loss_fn, student, teacher, *rest):
    """The student's tensor gets a gradient, the teacher's does not even when it asks for one."""
    student = student.detach().clone().requires_grad_()
    teacher = teacher.detach().clone().requires_grad_()
    loss_fn(student, teacher, *rest).backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.abs().max() > 0


def assert_learns_only_from_difference(loss_fn, student, teacher, *rest, atol=1e-12):
    """Zero loss and zero gradient when the student equals the teacher, both positive otherwise."""
    assert_zero_at_equality(loss_fn, teacher, *rest, atol=atol)
    value, gradient = value_and_gradient(loss_fn, student, teacher, *rest)
    assert value > 1e3 * atol
    assert gradient.abs().max() > 1e3 * atol


def assert_zero_at_equality(loss_fn, tensor, *rest, atol=1e-12):
    """Zero loss and zero gradient when student and teacher hold the same values."""
    value, gradient = value_and_gradient(loss_fn, tensor, tensor.detach().clone(), *rest)
    assert value.abs() <= atol, f"loss at equality: {value.item()}"
    assert gradient.abs().max() <= atol, f"gradient at equality: {gradient.abs().max().item()}"


def assert_finite(loss_fn, student, teacher, *rest):
    """No infinity and no NaN, in the value and in the student's gradient."""
    value, gradient = value_and_gradient(loss_fn, student, teacher, *rest)
    assert torch.isfinite(value), f"loss: {value.item()}"
    assert torch.isfinite(gradient).all(), f"gradient: {gradient}"


def assert_agrees_with_float64(loss_fn, student, teacher, *rest, rtol):
    """Value and gradient stay within rtol of those of the same numbers in float64.

    The gradient is held to its largest entry; below 0.01 what is left may be rounding: the bound is absolute.
    """
    value, gradient = value_and_gradient(loss_fn, student, teacher, *rest)
    expected_value, expected_gradient = value_and_gradient(loss_fn, student.double(), teacher.double(), *rest)
    torch.testing.assert_close(value.double(), expected_value, rtol=rtol, atol=rtol * 1e-2)
    scale = max(expected_gradient.abs().max().item(), 1e-2)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=rtol * scale)


def assert_works_under_autocast(loss_fn, student, teacher, *rest, rtol=0.02):
    """Under bfloat16 autocast on the CPU: right to rtol, for float32 tensors and for bfloat16 ones."""
    student, teacher = student.float(), teacher.float()
    expected_value, expected_gradient = value_and_gradient(loss_fn, student, teacher, *rest)
    scale = expected_gradient.abs().max().item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(loss_fn, student, teacher, *rest)
        assert_finite(loss_fn, student.bfloat16(), teacher.bfloat16(), *rest)
    assert value.shape == () and value.dtype == torch.float32
    torch.testing.assert_close(value, expected_value, rtol=rtol, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=rtol * scale)


def assert_nan_is_shown(loss_fn, student, teacher, *rest):
    """A NaN anywhere in the student's or the teacher's tensor gives a NaN, never a number."""
    for index in (0, student.numel() // 2, student.numel() - 1):
        spoiled = student.detach().clone()
        spoiled.view(-1)[index] = float("nan")
        assert torch.isnan(loss_fn(spoiled, teacher, *rest)), f"NaN at student element {index} is hidden"
        spoiled = teacher.detach().clone()
        spoiled.view(-1)[index % teacher.numel()] = float("nan")
        assert torch.isnan(loss_fn(student, spoiled, *rest)), f"NaN at teacher element {index} is hidden"


def assert_rejects(loss_fn, *arguments, naming, **settings):
    """ValueError whose sentence starts with the argument's name and says what was expected and what came.

    An argument that it is compared with is the student's, or the first of a list.
    """
    with pytest.raises(ValueError, match=rf"^{naming}.*: expected .*, got ") as caught:
        loss_fn(*arguments, **settings)
    sentence = str(caught.value)
    compared_with = re.search(r"(?:the shape of|as in) ([^,]+),", sentence)
    assert not compared_with or re.match(r"student_|list_of_logits\[0\]", compared_with[1]), sentence
    return sentence


# Arguments for any loss


SETTINGS = {"ps_kd_loss": {"alpha": 0.5}}  # what has no default
N, L, K = 4, 3, 5
SHAPES = {
    "features": (N, 3, 4, 4),
    "embeddings": (N, 7),
    "hidden": (N, L, 7),
    "scores": (N, 2, L, L),
    "values": (N, 2, L, 6),
    "outputs": (N, 2),
}


def example(name, leading=None):
    """Arguments of the loss of this name, all but its mask, and those settings that it must have.

    leading: the shape of the positions for losses on logits, (N,) unless the loss is one on sequences.
    """
    parameters = inspect.signature(every_loss()[name]).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if leading is None:
        leading = (N, L) if name == "policy_gradient_kd_loss" else (N,)
    if name == "sequence_kd_loss":  # one token a position, not several
        required[1] = "sampled_ids"
    arguments = [example_argument(parameter, leading) for parameter in required]
    if name == "patient_loss":  # one state per sample
        arguments = [hidden[:, 0] for hidden in arguments]
    return arguments, SETTINGS.get(name, {})


def example_argument(parameter, leading):
    """A value for a parameter of this name."""
    seed, size = zlib.crc32(parameter.encode()), math.prod(leading)
    if parameter == "list_of_logits":
        return [random_tensor(*leading, K, seed=seed + peer) for peer in range(2)]
    if parameter.endswith("logits"):
        return random_tensor(*leading, K, seed=seed)
    if parameter.endswith("pair"):
        return tuple(random_tensor(N, channels, 4, 4, seed=seed + channels) for channels in (3, 2))
    if parameter in ("labels", "sampled_ids"):
        return random_labels(size, K).view(leading)
    if parameter == "token_ids":
        first = random_labels(size, K).view(*leading, 1)
        return torch.cat([first, (first + 2) % K], dim=-1)
    if parameter == "token_log_probs":
        return torch.log_softmax(random_tensor(*leading, K), dim=-1)[..., :2]
    kind = next(kind for kind in SHAPES if parameter.endswith(kind))
    return random_tensor(*SHAPES[kind], seed=seed)
