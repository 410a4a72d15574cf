"""What holds for all losses alike, wherever they stand: names, settings, masks, precision, bad input."""

import inspect
import math
import re
from fractions import Fraction

import loss_facts as facts
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdutils import losses

LOSSES = facts.every_loss()
N, L, K = facts.N, facts.L, facts.K


def parameters_of(name, kind=None):
    parameters = inspect.signature(LOSSES[name]).parameters.values()
    return [p.name for p in parameters if kind is None or p.kind is kind]


MASKED = [name for name in LOSSES if "mask" in parameters_of(name)]
POSITIONAL = [name for name in MASKED if name != "multilabel_kd_loss"]  # there every logit is a position
SUMMED = [name for name in POSITIONAL if "denominator" in parameters_of(name)]
DENSE = [name for name in POSITIONAL if "class_dim" in parameters_of(name)]
every_loss = pytest.mark.parametrize("name", LOSSES)
MASK = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]])


def call(name, arguments, *mask, **settings):
    return LOSSES[name](*arguments, *mask, **facts.SETTINGS.get(name, {}), **settings)


def mapped(change, arguments):
    """The arguments with all tensors changed, also those in a list."""
    return [
        type(argument)(map(change, argument)) if isinstance(argument, (list, tuple)) else change(argument)
        for argument in arguments
    ]


def value_and_gradient(name, arguments, *mask, **settings):
    student, *rest = arguments
    return facts.value_and_gradient(lambda s, _: call(name, [s, *rest], *mask, **settings), student, None)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


# Names and settings


def test_every_public_name_is_imported_from_losses_by_name():
    public = facts.public_in_losses()
    assert sorted(losses.__all__) == sorted(public)
    assert all(getattr(losses, name) is value for name, value in public.items())
    assert len(LOSSES) >= 37 and {"Regressor", "VIDLoss", "attention_map", "next_token"} <= public.keys()


@every_loss
def test_settings_are_taken_by_keyword_only(name):
    """By position come tensors, first of all the student's, and last a mask."""
    by_position = parameters_of(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert by_position[0].startswith("student_") and len(by_position) >= 2
    kinds = (*facts.SHAPES, "logits", "labels", "ids", "pair", "log_probs", "mask")
    assert [name for name in by_position if not name.endswith(kinds)] == []
    assert [name for name in by_position[:-1] if name.endswith("mask")] == []


@pytest.mark.parametrize("name", facts.public_in_losses())
def test_the_docstring_tells_of_every_argument(name):
    documented = facts.public_in_losses()[name]
    text = inspect.getdoc(documented)
    assert "Source: " in text or "notebook" in text or name in ("next_token", "Regressor")
    sections = re.split(r"\n(Args|Returns|Raises):\n", text)
    arguments = sections[sections.index("Args") + 1]
    for parameter in inspect.signature(documented).parameters:
        assert re.search(rf"^    {parameter}: [^a-z]", arguments, re.M), f"{name}: {parameter}"
    assert "Raises" in sections
    assert inspect.isclass(documented) or "Returns" in sections


# Positions


@pytest.mark.parametrize("name", POSITIONAL)
def test_a_mask_selects_positions(name):
    arguments, _ = facts.example(name, (N, L))
    kept = MASK.bool()
    selected = mapped(lambda tensor: tensor[kept], arguments)
    if name == "policy_gradient_kd_loss":  # one sequence
        selected = mapped(lambda tensor: tensor[None], selected)
    value, gradient = value_and_gradient(name, arguments, MASK)
    expected, of_selected = value_and_gradient(name, selected)
    assert_same((value, gradient[kept]), (expected, of_selected.view(-1, K)))
    assert gradient[~kept].abs().max() == 0
    for mask in (kept, MASK.to(torch.uint8), MASK.double()):
        assert torch.equal(call(name, arguments, mask), value)
    everything = call(name, arguments, torch.ones(N, L))
    torch.testing.assert_close(everything, call(name, arguments))
    assert (everything - value).abs() > 1e-6


@pytest.mark.parametrize("name", POSITIONAL)
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e300])
def test_what_lies_at_masked_positions_changes_nothing(name, junk):
    """Prompts and padding: logits, labels and ids of whatever value."""
    arguments, _ = facts.example(name, (N, L))

    def spoiled(tensor):
        masked = (MASK == 0).view(N, L, *[1] * (tensor.dim() - 2))
        return tensor.masked_fill(masked, junk if tensor.is_floating_point() else -100)

    value, gradient = value_and_gradient(name, mapped(spoiled, arguments), MASK)
    assert_same((value, gradient), value_and_gradient(name, arguments, MASK))
    assert gradient[MASK == 0].abs().max() == 0 and gradient.abs().max() > 0


@pytest.mark.parametrize("name", SUMMED)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    mask=st.lists(st.lists(st.booleans(), min_size=L, max_size=L), min_size=N, max_size=N),
    cuts=st.lists(st.integers(1, N - 1), unique=True, max_size=N - 1).map(sorted),
)
def test_any_split_into_micro_batches_adds_up_to_the_whole(name, mask, cuts):
    """Value and gradient, also where a part has no position that counts."""
    mask = torch.tensor(mask)
    mask[1, 1] = True
    arguments, _ = facts.example(name, (N, L))
    expected = value_and_gradient(name, arguments, mask)
    parts = []
    for start, end in zip([0, *cuts], [*cuts, N], strict=True):
        part = mapped(lambda tensor, rows=slice(start, end): tensor[rows], arguments)
        parts.append(value_and_gradient(name, part, mask[start:end], denominator=mask.sum()))
    values, gradients = zip(*parts, strict=True)
    assert_same((sum(values), torch.cat(gradients)), expected)


@pytest.mark.parametrize("name", SUMMED)
def test_a_denominator_replaces_the_number_of_positions(name):
    arguments, _ = facts.example(name, (N, L))
    total = N * L * call(name, arguments)
    for denominator in (7, 7.0, torch.tensor(7.0)):
        torch.testing.assert_close(call(name, arguments, denominator=denominator), total / 7)
    for wrong in (0, -1, math.nan, "all"):
        facts.assert_rejects(LOSSES[name], *arguments, denominator=wrong, naming="denominator")


@pytest.mark.parametrize("name", DENSE)
def test_the_classes_may_stand_anywhere(name):
    """Pixels, (N, K, H, W): the mean over all of them, as of so many samples."""
    arguments, _ = facts.example(name, (N, 2, 3))
    mask = torch.rand(N, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    pixels = mapped(lambda tensor: tensor.movedim(-1, 1) if tensor.is_floating_point() else tensor, arguments)
    rows = mapped(lambda t: t.flatten(0, 2), arguments)
    for masks in ((), (mask,)):
        flat = tuple(m.flatten() for m in masks)
        value, gradient = value_and_gradient(name, pixels, *masks, class_dim=1)
        expected, of_rows = value_and_gradient(name, rows, *flat)
        assert_same((value, gradient.movedim(1, -1).flatten(0, 2)), (expected, of_rows))
        torch.testing.assert_close(call(name, arguments, *masks, class_dim=-1), expected)
    if name != "ensemble_kd_loss":
        sentence = facts.assert_rejects(LOSSES[name], *pixels, naming="student_logits")
        assert "class_dim" in sentence and "(N, K, H, W)" in sentence
    for wrong in (4, "1", 1.0, True):
        facts.assert_rejects(LOSSES[name], *arguments, class_dim=wrong, naming="class_dim")


@pytest.mark.parametrize("name", [name for name in MASKED if name in POSITIONAL])
def test_refuses_a_mask_that_is_none(name):
    arguments, _ = facts.example(name, (N, L))
    for wrong in (MASK[:, :2], MASK[..., None], MASK[0], 4.0, [[1, 1, 0]] * N):
        facts.assert_rejects(LOSSES[name], *arguments, wrong, naming="mask")
    long = torch.arange(N * L).view(N, L)
    sentence = facts.assert_rejects(LOSSES[name], *arguments, long, naming="mask")
    assert sentence == "mask: expected zeros and ones, got [0, 1, 2, 3, 4, …]"
    added = torch.where(MASK == 1, 0.0, -math.inf)
    facts.assert_rejects(LOSSES[name], *arguments, added, naming="mask")
    nothing = torch.zeros_like(MASK)
    sentence = facts.assert_rejects(LOSSES[name], *arguments, nothing, naming="mask")
    assert sentence == "mask: expected at least one position that counts, got zeros only"


@pytest.mark.parametrize("name", [name for name in DENSE if "teacher_logits" in parameters_of(name)])
def test_vocabularies_padded_to_other_sizes_are_refused_with_advice(name):
    (student, teacher, *rest), _ = facts.example(name, (N, L))
    sentence = facts.assert_rejects(
        LOSSES[name], student, F.pad(teacher, (0, 2)), *rest, naming="teacher_logits"
    )
    assert f"({N}, {L}, {K}), got ({N}, {L}, {K + 2}). Vocabularies" in sentence
    assert "logits[..., :len(tokenizer)]" in sentence and "chapter 14" in sentence


# Precision


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *facts.LOW_PRECISION], ids=str)
def test_one_number_in_at_least_float32(name, dtype):
    arguments, _ = facts.example(name)
    cast = mapped(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, arguments)
    loss = call(name, cast)
    assert loss.shape == () and loss.dtype == facts.at_least_float32(dtype)
    torch.testing.assert_close(loss.double(), call(name, arguments), rtol=0.05, atol=0.05)


@every_loss
def test_a_scaled_loss_of_half_precision_stays_finite(name):
    """A gradient scaler starts at 65,536: as a float16 the product would be infinite, the step skipped."""
    arguments, _ = facts.example(name)
    half = mapped(lambda tensor: tensor.half() if tensor.is_floating_point() else tensor, arguments)
    students = half[0] if isinstance(half[0], tuple) else half[:1]
    for student in students:
        student.requires_grad_()
    loss = 2.0**16 * call(name, half)
    (2.0**-7 * loss).backward()
    assert loss.isfinite()
    for student in students:
        assert student.grad.dtype == torch.float16
        assert student.grad.isfinite().all() and student.grad.abs().max() > 0


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_a_gradient_scaler_skips_no_step(weight):
    """float16 autocast on the CPU, as on a GPU: the scale stays where it starts."""
    torch.manual_seed(0)
    student, images = nn.Linear(8, 5), torch.randn(128, 8)
    teacher_logits = student(images).detach() + 0.1 * torch.randn(128, 5)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(6):
        before = student.weight.detach().clone()
        with torch.autocast("cpu", dtype=torch.float16):
            logits = student(images)
            loss = weight * losses.kd_loss(logits, teacher_logits)
        assert logits.dtype == torch.float16
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert not torch.equal(student.weight, before)
    assert scaler.get_scale() == 2.0**16


@every_loss
def test_a_nan_is_shown(name):
    arguments, _ = facts.example(name)

    def spoiled(tensor):
        if not tensor.is_floating_point():
            return tensor
        return tensor.index_fill(-1, torch.tensor(0), math.nan)

    for index, argument in enumerate(arguments):
        if isinstance(argument, Tensor) and not argument.is_floating_point():
            continue
        [changed] = mapped(spoiled, [argument])
        assert call(name, [*arguments[:index], changed, *arguments[index + 1 :]]).isnan(), index


# Settings: learned, and out of range

LEARNED = ("temperature", "alpha", "beta", "gamma", "weight", "distance_weight", "angle_weight")


@every_loss
def test_a_learned_setting_is_a_tensor_of_one_number(name):
    """Shape () or (1,), any floating dtype: the loss stays one number, of the same value."""
    arguments, _ = facts.example(name)
    for setting in set(parameters_of(name)) & set(LEARNED):
        expected = call_with(name, arguments, setting, 0.5)
        for shape in ((), (1,)):
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                loss = call_with(name, arguments, setting, torch.full(shape, 0.5, dtype=dtype))
                assert loss.shape == () and loss.dtype == torch.float64
                torch.testing.assert_close(loss, expected)


def call_with(name, arguments, setting, value):
    return LOSSES[name](*arguments, **{**facts.SETTINGS.get(name, {}), setting: value})


@pytest.mark.parametrize("name", [name for name in LOSSES if "temperature" in parameters_of(name)])
def test_a_learned_temperature_gets_its_gradient(name):
    arguments, _ = facts.example(name)
    temperature = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    call(name, arguments, temperature=temperature).backward()
    step = 1e-5
    above, below = (call(name, arguments, temperature=2.0 + shift) for shift in (step, -step))
    assert temperature.grad.item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-4)


@pytest.mark.parametrize("name", [name for name in LOSSES if "temperature" in parameters_of(name)])
def test_extreme_temperatures_are_right_or_refused(name):
    """In float32, T² enlarges what is lost: 1.5% at 10,000, a sign at 1,000,000."""
    arguments, _ = facts.example(name)
    single = mapped(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, arguments)
    for temperature in (1e-6, 1e-3, 1e3, 1e4, 1e5, 1e6):
        expected, loss = (call(name, given, temperature=temperature) for given in (arguments, single))
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), expected, rtol=2e-3, atol=1e-6)
    for temperature in (0, -1.0, 1e-7, 1e7, math.nan, math.inf):
        facts.assert_rejects(LOSSES[name], *arguments, temperature=temperature, naming="temperature")


# Bad input of every kind, one argument at a time

NO_TENSORS = [None, "logits", [[0.1, 0.2]], np.ones((N, K)), 0.5, nn.Linear(2, 2), {"logits": 1}, object()]
NO_NUMBERS = [
    "4", [4.0], {}, 2j, np.ones(2), True, math.nan, -math.inf, -1.0, torch.ones(N, 1), torch.ones(2),
    torch.tensor(True), torch.tensor(2j), torch.tensor(math.nan), torch.tensor([[2.0]]),
]  # fmt: skip
ODD_NUMBERS = [0, 1, 3, 0.25, 10**30, 1e300, 1e-300, math.inf, np.float32(0.5), np.int64(1), Fraction(1, 2)]


def odd_tensors(tensor):
    """Tensors that a loss may take or not: of other shapes, dtypes, layouts, values."""
    yield from (tensor[:0], tensor[0], tensor[..., :0], tensor[..., None], torch.tensor(1.0), torch.zeros(0))
    yield from (tensor[:-1], tensor[..., :-1], tensor.expand(2, *tensor.shape), tensor.to_sparse())
    dtypes = (
        torch.int8, torch.int16, torch.int64, torch.uint8, torch.uint16, torch.bool, torch.complex64,
        torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float32, torch.float64,
    )  # fmt: skip
    yield from (tensor.to(dtype) for dtype in dtypes)
    yield torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.quint8)
    yield from (tensor.clone().t().contiguous().t() for _ in range(tensor.dim() == 2))
    yield nn.Parameter(tensor) if tensor.is_floating_point() else tensor + 1000
    if tensor.is_floating_point():
        yield from (torch.zeros_like(tensor), tensor * 1e-30, -tensor.abs(), tensor.sign())


def finite_or_named(name, arguments, settings, changed):
    """Whether the loss gives a finite number; else it must raise a ValueError that names an argument."""
    try:
        loss = LOSSES[name](*arguments, **{**facts.SETTINGS.get(name, {}), **settings})
    except ValueError as error:
        argument = re.split(r"[:\[]", str(error))[0]
        assert argument in parameters_of(name), f"{changed}: {error}"
        assert ": expected " in str(error) and ", got " in str(error) and len(str(error)) < 400
        return argument
    assert loss.shape == () and loss.isfinite(), f"{changed}: {loss}"
    return None


@every_loss
def test_what_is_no_tensor_is_refused_by_name(name):
    arguments, _ = facts.example(name)
    parameters = parameters_of(name)
    for index in range(len(arguments)):
        for wrong in NO_TENSORS:
            changed = [*arguments[:index], wrong, *arguments[index + 1 :]]
            assert finite_or_named(name, changed, {}, wrong) == parameters[index], wrong
        if isinstance(arguments[index], (list, tuple)):
            for wrong in NO_TENSORS:
                changed = [*arguments[:index], [arguments[index][0], wrong], *arguments[index + 1 :]]
                assert finite_or_named(name, changed, {}, wrong) == parameters[index], wrong
        else:
            sentence = facts.assert_rejects(
                LOSSES[name], *arguments[:index], None, *arguments[index + 1 :],
                naming=parameters[index], **facts.SETTINGS.get(name, {}),
            )  # fmt: skip
            assert sentence == f"{parameters[index]}: expected a tensor, got None"


@every_loss
@pytest.mark.filterwarnings("ignore")
def test_odd_tensors_give_a_finite_number_or_a_sentence(name):
    arguments, _ = facts.example(name)
    for index, argument in enumerate(arguments):
        is_list = isinstance(argument, (list, tuple))
        for odd in odd_tensors(argument[1] if is_list else argument):
            given = type(argument)([argument[0], odd]) if is_list else odd
            finite_or_named(name, [*arguments[:index], given, *arguments[index + 1 :]], {}, odd)


@every_loss
def test_what_is_no_number_is_refused_by_name(name):
    arguments, _ = facts.example(name)
    optional = {"class_dim", "denominator", "delta"}
    for setting in parameters_of(name, inspect.Parameter.KEYWORD_ONLY):
        for wrong in NO_NUMBERS if setting in optional else [None, *NO_NUMBERS]:
            if setting == "baseline" and isinstance(wrong, float) and math.isfinite(wrong):
                continue  # it may be negative
            assert finite_or_named(name, arguments, {setting: wrong}, (setting, wrong)) == setting, wrong
        for odd in ODD_NUMBERS:
            finite_or_named(name, arguments, {setting: odd}, (setting, odd))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in POSITIONAL and "mask" in
                                  "".join(parameters_of(name))])  # fmt: skip
def test_any_other_mask_is_checked_as_well(name):
    arguments, _ = facts.example(name)
    parameter = next(parameter for parameter in parameters_of(name) if parameter.endswith("mask"))
    for wrong in (4.0, "mask", [1, 1], torch.ones(2), torch.arange(N * L).view(N, L)):
        facts.assert_rejects(LOSSES[name], *arguments, wrong, naming=parameter)


def test_a_teacher_that_asks_for_a_gradient_gets_none():
    for name in LOSSES:
        arguments, _ = facts.example(name)
        flat = [
            a
            for argument in arguments
            for a in (argument if isinstance(argument, (list, tuple)) else [argument])
        ]
        for tensor in flat:
            tensor.requires_grad_(tensor.is_floating_point())
        call(name, arguments).backward()
        students = arguments[0] if isinstance(arguments[0], tuple) else arguments[:1]
        for tensor in flat:
            is_student = any(tensor is student for student in students)
            assert (isinstance(tensor.grad, Tensor) and bool(tensor.grad.any())) == is_student, name
