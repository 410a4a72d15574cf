"""An audit of a distillation loss: a handful of tests that find the slips which no training curve shows."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._numerics import inner_products, unit_vectors
from kdutils.audit.bench import (
    Bench,
    DoesNotApply,
    another_teacher,
    answer_of,
    bench_of,
    call_of,
    centred,
    close,
    hooked,
    is_in,
    leaves_of,
    left_as_found,
    mapped,
    shape_of,
    student_gradient,
)
from kdutils.audit.forms import (
    SAME_FORM,
    SLIPPED_FORMS,
    best_fit,
    has_form,
    kl,
    label_weight,
    probe_of,
    random_like,
)

AT_REST = 5e-3  # pull on a student that equals its teacher, as a share of the pull elsewhere
HARDLY = 1e-3  # share of the gradient that depends on the teacher
SUM_TO_ONE = 2e-3
HALF_PRECISION = 1e-2  # relative, for knowledge stored in 16 bits
CLEARLY = 1.1  # ratio of two cross-entropies from which on one is worse
ENOUGH_TO_COUNT = 20  # samples from which on a share is held against chance
OVERFIT_STEPS = 20


def audit(
    loss_fn: Callable[..., Any], student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, ...]
) -> list[str]:
    """The slips found in a distillation loss, each a sentence; empty if there are none. Prints every test.

    loss_fn: as `fit` takes it: `loss_fn(student, *batch)` is a scalar or a dict of named scalars. If it takes
    one argument more than that, the teacher's answer to batch[0] is appended, as `fit(…, teacher=teacher)`
    does. It is called about a hundred times, and must give the same value for the same numbers.
    student: whatever the optimizer trains: the network, or a `ModuleDict` of network and regressor.
    teacher: trained; a function of batch[0], in the mode in which the training finds it.
    batch: as the loader yields it, N ≥ 4 samples: the input, then labels, masks and cached knowledge in any
    order. Every floating-point tensor after the first is taken for the teacher's knowledge, an int64 one of
    shape (N,) for labels, one of zeros and ones of shape (N, L) for a mask of tokens.

    A line begins with ✓ for a test that was passed, ✗ for a likely slip, – for a test that does not apply,
    with the reason. Tests of the form of a loss apply where logits of shape (N, K) are compared.
    What tests cannot see: choices made on test images, too few seeds, arms tuned with unequal effort.

    Weights, buffers, gradients, modes and PyTorch's random state are afterwards what they were.
    Raises ValueError for a batch that is too small or holds no tensor, or a loss that is no scalar.
    """
    slips: list[str] = []
    every_gpu = range(torch.cuda.device_count())  # a seed is set on all of them
    with torch.random.fork_rng(devices=every_gpu), left_as_found(student, teacher):
        bench = bench_of(loss_fn, student, teacher, batch)
        for title, test in TESTS.items():
            try:
                with left_as_found(student, teacher):
                    slip = test(bench)
            except DoesNotApply as reason:
                print(f"– {title}: {reason}")
                continue
            print(f"✗ {title}: {slip}" if slip else f"✓ {title}")
            if slip:
                slips.append(slip)
            if slip and test in (_is_finite, _student_learns):
                break  # what follows would say nothing more
    return slips


def _is_finite(bench: Bench) -> str:
    value = bench.loss().item()
    if math.isfinite(value):
        return ""
    return f"it is {value}: the logarithm of a zero, or log-probabilities where kl_div expects probabilities"


def _student_learns(bench: Bench) -> str:
    if student_gradient(bench, bench.loss()).any():
        return ""
    batch = bench.replaced(lambda tensor: tensor.clone().requires_grad_())
    loss = bench.loss(batch)
    if next(leaves_of(loss), None) is not None:
        return "the gradient reaches the teacher's side only: student and teacher are swapped"
    return "no gradient reaches the student: it is frozen, detached, or run under no_grad"


def _teacher_decides(bench: Bench) -> str:
    loss = bench.loss()
    gradient = student_gradient(bench, loss)
    with another_teacher(bench) as batch:
        other_loss = bench.loss(batch)
        other_gradient = student_gradient(bench, other_loss)
    if not close(gradient, other_gradient, HARDLY):
        return ""
    if not close(gradient, other_gradient):
        return "the teacher hardly counts: another changes the student's gradient by less than a thousandth"
    louder_loss = bench.loss(bench.replaced(lambda knowledge: 2 * knowledge))
    if close(loss, other_loss) and close(loss, louder_loss):
        return "another teacher changes nothing: the teacher is compared with itself, or the student is"
    return (
        "another teacher changes the loss and not the student's gradient: "
        "student and teacher are swapped, or the student's side is detached"
    )


def _nobody_else_learns(bench: Bench) -> str:
    leaves = list(leaves_of(bench.loss()))
    taught = [leaf for leaf in leaves if is_in(leaf, bench.teacher)]
    if taught:
        return (
            f"a gradient flows into the teacher, into {len(taught)} of its parameters: "
            "run it under no_grad, or detach its answer"
        )
    strangers = [leaf for leaf in leaves if not is_in(leaf, bench.student)]
    if strangers:
        return (
            f"the loss has trainable parameters that are not the student's, of shapes "
            f"{[tuple(leaf.shape) for leaf in strangers]}: a regressor is missing from the optimizer"
        )
    return ""


def _teacher_in_eval_mode(bench: Bench) -> str:
    loss = bench.loss()
    ran: list[nn.Module] = []

    def settle(module: nn.Module, _: Any) -> None:
        module.training = False
        ran.append(module)

    with hooked(bench.teacher, nn.Module.register_forward_pre_hook, settle):
        settled = bench.loss()
    if not ran:
        raise DoesNotApply("the loss itself runs no teacher")
    if close(loss, settled):
        return ""
    return "the teacher runs in train mode (batch statistics, dropout): call teacher.eval()"


def _cache_is_in_step(bench: Bench) -> str:
    if bench.appended or not bench.knowledge:
        raise DoesNotApply("the batch holds no cached knowledge")
    live = answer_of(bench.teacher, bench.inputs)
    cached = bench.cached(live.shape) if isinstance(live, Tensor) else None
    if cached is None:
        raise DoesNotApply("no cached tensor has the shape of the teacher's answer")
    if _alike(cached, live):
        return ""
    if live.dim() == 2 and close(cached, live.softmax(dim=1), HALF_PRECISION):
        return "the cache holds probabilities, not logits: the softmax comes twice"
    for scale, inputs in _rescaled(bench.inputs).items():
        if _alike(cached, answer_of(bench.teacher, inputs)):
            return (
                f"the cache holds the teacher's answer to the images scaled to {scale}: "
                "different normalisation for teacher and student"
            )
    bench.teacher.train()
    torch.manual_seed(0)
    with torch.no_grad():
        if _alike(cached, bench.teacher(bench.inputs)):
            return "the cache was made by a teacher in train mode (batch statistics, dropout)"
    if _own_rows_fit_best(cached, live):
        return (
            "the cache is near the teacher's answer and not equal to it: made in train mode, "
            "from images normalised or augmented differently, or by another teacher"
        )
    return "the cached knowledge belongs to other images: it is out of step with the shuffled ones"


def _rescaled(inputs: Tensor) -> dict[str, Tensor]:
    """The inputs on other usual scales; none for whole numbers."""
    if not inputs.is_floating_point():
        return {}
    unit = (inputs - inputs.min()) / (inputs.max() - inputs.min())
    return {
        "0…1": unit,
        "0…255": 255 * unit,
        "−1…1": 2 * unit - 1,
        "mean 0 and standard deviation 1": (inputs - inputs.mean()) / inputs.std(),
    }


def _alike(cached: Tensor, live: Tensor) -> bool:
    """Whether two answers are the same to half precision; a constant added to all logits is no difference."""
    if live.dim() == 2:
        cached, live = centred(cached), centred(live)
    return close(cached.to(live.dtype), live, HALF_PRECISION)


def _own_rows_fit_best(cached: Tensor, live: Tensor) -> bool:
    """Whether most rows of the cache resemble the live row of their own sample more than any other."""
    cached, live = (unit_vectors((t - t.mean(dim=0)).flatten(1)) for t in (cached, live))
    best = inner_products(cached, live).argmax(dim=1)
    return bool((best == torch.arange(len(best), device=best.device)).float().mean() > 0.5)


def _teacher_is_right(bench: Bench) -> str:
    labels = bench.labels
    student_call, teacher_call = call_of(bench, bench.student), call_of(bench, bench.teacher)
    if labels is None or student_call is None:
        raise DoesNotApply("it takes labels (N,) in the batch, and a student that answers with logits (N, K)")
    answer = teacher_call.output if teacher_call else bench.cached(student_call.output.shape)
    if answer is None or answer.shape != student_call.output.shape:
        raise DoesNotApply("no logits of the teacher enter the loss")
    if not 0 <= labels.min() <= labels.max() < answer.shape[1]:
        raise DoesNotApply("the whole numbers in the batch are no classes")
    if teacher_call and _sees_worse(bench, labels, teacher_call.inputs, (bench.inputs, student_call.inputs)):
        return (
            "the teacher sees other images than the student, and is less right on them: "
            "different normalisation for teacher and student"
        )
    n, chance = len(labels), 1 / answer.shape[1]
    hits = int((answer.argmax(dim=1) == labels).sum())
    if n >= ENOUGH_TO_COUNT and hits <= n * chance + 2 * math.sqrt(n * chance * (1 - chance)):
        return (
            f"it is right on {hits} of {n} samples, no better than chance: untrained, swapped with the "
            "student, its classes in another order, or its images normalised differently"
        )
    return ""


def _sees_worse(bench: Bench, labels: Tensor, seen: Tensor, others: tuple[Tensor, ...]) -> bool:
    """Whether the teacher knows the labels clearly worse from what it sees than from what others see."""

    def surprise(inputs: Tensor) -> Tensor:
        return F.cross_entropy(answer_of(bench.teacher, inputs), labels)

    different = [other for other in others if not torch.equal(other, seen)]
    return any(surprise(seen) > CLEARLY * surprise(other) for other in different)


def _padding_does_not_count(bench: Bench) -> str:
    mask = bench.mask
    if mask is None:
        raise DoesNotApply("the batch holds no mask (N, L) of tokens, some of them padding")

    def spoiled(knowledge: Tensor) -> Tensor:
        if knowledge.dim() < 3 or knowledge.shape[:2] != mask.shape:
            return knowledge
        kept = mask.bool().reshape(*mask.shape, *[1] * (knowledge.dim() - 2))
        return torch.where(kept, knowledge, knowledge.flip(-1) + 1)

    loss = bench.loss()
    gradient = student_gradient(bench, loss)
    hook = bench.teacher.register_forward_hook(lambda _, __, output: mapped(spoiled, output))
    try:
        spoiled_loss = bench.loss(bench.replaced(spoiled))
        spoiled_gradient = student_gradient(bench, spoiled_loss)
    finally:
        hook.remove()
    if close(loss, spoiled_loss) and close(gradient, spoiled_gradient):
        return ""
    return "what the teacher says at padding changes the loss: padding tokens are counted"


def _nothing_is_overwritten(bench: Bench) -> str:
    def copied(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)

    loss = bench.loss()
    with (
        hooked(bench.student, nn.Module.register_forward_pre_hook, copied),
        hooked(bench.teacher, nn.Module.register_forward_pre_hook, copied),
    ):
        protected = bench.loss()
    if close(loss, protected):
        return ""
    return "an in-place layer (ReLU) overwrites tapped features before the loss sees them: keep a copy"


def _batch_can_be_overfitted(bench: Bench) -> str:
    if _teacher_decides(bench):
        raise DoesNotApply("the teacher does not matter")
    before = bench.loss().item()
    for lr in (1e-2, 1e-3, 1e-4):
        after, likeness = _overfitted(bench, lr, bench.batch)
        with another_teacher(bench) as batch:
            _, likeness_elsewhere = _overfitted(bench, lr, batch)
        if after < before and (likeness is None or likeness > likeness_elsewhere):
            return ""
    return (
        f"{OVERFIT_STEPS} steps on one batch bring the student no nearer to its teacher than to another: "
        "does every part of the loss reach the weights, and in the right direction?"
    )


def _overfitted(bench: Bench, lr: float, batch: tuple[Any, ...]) -> tuple[float, Any]:
    """The loss after some steps on one batch, and how like the batch's own teacher the student then answers.

    The likeness is the correlation of their logits; None where logits are not compared.
    """
    with left_as_found(bench.student):
        parameters = bench.trained()
        optimizer = torch.optim.AdamW(parameters, lr=lr)
        for _ in range(OVERFIT_STEPS):
            gradients = torch.autograd.grad(bench.loss(batch), parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        after, call = bench.loss(batch).item(), call_of(bench, bench.student)
    answer = answer_of(bench.teacher, bench.inputs)
    if call is None or shape_of(answer) != call.output.shape:
        return after, None
    pair = torch.stack([centred(call.output).flatten(), centred(answer).flatten()])
    return after, torch.corrcoef(pair)[0, 1].item()


def _answers_are_logits(bench: Bench) -> str:
    probe = probe_of(bench)
    for name, answer in (("student", probe.call.output), ("teacher", probe.teacher_answer)):
        if (answer >= 0).all() and close(answer.sum(dim=1), torch.ones_like(answer[:, 0])):
            return f"the {name} answers with probabilities, not logits: the softmax comes twice"
    return ""


def _drawn_to_the_teacher(bench: Bench) -> str:
    probe = probe_of(bench)
    for slip, forms in SLIPPED_FORMS.items():
        if not has_form(kl, probe) and any(has_form(form, probe) for form in forms):
            return slip
    if probe.rest().norm() > AT_REST * probe.pull.norm():
        return (
            "a student that equals the teacher is still pulled, and not only by the labels: "
            "are both softened alike, and is each softmax taken once?"
        )
    _, teacher, _ = probe.logits
    aside = 0.1 * random_like(teacher, seed=3)
    restoring = probe.gradient(teacher + aside, teacher) - probe.gradient(teacher, teacher)
    if (restoring * aside).sum() < 0:
        return "the student is pushed away from the teacher: a sign is inverted"
    return ""


def _soft_term_counts(bench: Bench) -> str:
    probe = probe_of(bench)
    fit = best_fit(kl, probe)
    if fit.residual >= SAME_FORM or fit.scale <= 0:
        raise DoesNotApply("the loss is no KL divergence at one temperature")
    hard = label_weight(probe)
    if hard is None:
        raise DoesNotApply("the labels do not enter as a cross-entropy")
    t, (n, k) = fit.temperature, probe.call.output.shape
    soft = fit.scale / t**2
    found = f"{soft:.3g} · T² at T = {t:.3g}, labels {hard:.3g}"
    if _sum_to_one(soft, hard):
        return ""
    for slip, factor in {
        "T² is forgotten": t**-2,
        "T stands where T² belongs": 1 / t,
        "the reduction divides by the number of classes, too": 1 / k,
        "T² is forgotten, and the reduction divides by the number of classes": t**-2 / k,
        "the sum over the batch is not divided by N": n,
        "T² is forgotten, and the sum over the batch is not divided by N": t**-2 * n,
    }.items():
        weight = soft / factor
        # weights of 1 and 1 are usual, too; but 1 and 1 / T may be meant
        both_one = _sum_to_one(weight, 0.0) and _sum_to_one(hard, 0.0) and factor != 1 / t
        if _sum_to_one(weight, hard) or both_one:
            return f"{found}: looks like weights {weight:.3g} and {hard:.3g}, and {slip}"
    if soft < 0.1 * hard:
        return f"{found}: the soft term hardly counts. T² forgotten, or divided by the number of classes?"
    return ""


def _sum_to_one(soft: float, hard: float) -> bool:
    return abs(soft + hard - 1) < SUM_TO_ONE and soft > 10 * SUM_TO_ONE


TESTS: dict[str, Callable[[Bench], str]] = {
    "the loss is a finite number": _is_finite,
    "the student learns": _student_learns,
    "the teacher decides what it learns": _teacher_decides,
    "nobody else learns": _nobody_else_learns,
    "the teacher runs in eval mode": _teacher_in_eval_mode,
    "cached knowledge equals the live teacher's": _cache_is_in_step,
    "the teacher is right about the labels": _teacher_is_right,
    "padding does not count": _padding_does_not_count,
    "no layer overwrites what is compared": _nothing_is_overwritten,
    "the answers are logits": _answers_are_logits,
    "the student is drawn to the teacher, and at rest where it equals it": _drawn_to_the_teacher,
    "soft term and labels are in proportion": _soft_term_counts,
    "one batch can be overfitted to the teacher": _batch_can_be_overfitted,
}
