"""Facts that every loss of the course must satisfy, as plain assertions.

Each takes the loss, then the arguments in the loss's own order: student, teacher, *rest.
A loss with keyword settings, or one that is a module, is passed as a lambda or as the module.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdutils import losses

LOW_PRECISION = (torch.float16, torch.bfloat16)


def every_loss() -> dict[str, Callable]:
    """Name → function of every loss that a module beneath kdutils.losses defines."""
    names = [f"kdutils.losses.{info.name}" for info in pkgutil.iter_modules(losses.__path__)]
    modules = [importlib.import_module(name) for name in names]
    return {
        name: function
        for module in modules
        for name, function in vars(module).items()
        if name.endswith("_loss") and function.__module__ == module.__name__
    }


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


def assert_scalar_of_input_dtype(loss_fn, student, teacher, *rest):
    """The loss is one number, in the dtype of the student's tensor."""
    loss = loss_fn(student, teacher, *rest)
    assert loss.shape == ()
    assert loss.dtype == student.dtype


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
