"""The tests that apply to any loss. Each returns the slip that it found, as a sentence, or None."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._modes import eval_mode
from kdutils._numerics import inner_products, unit_vectors
from kdutils._trees import Path, map_tensors, replace_tensors, tensors_in
from kdutils.audit.bench import (
    Bench,
    DoesNotApply,
    close,
    graph_leaves,
    is_in,
    left_as_found,
    seed_random_numbers,
)
from kdutils.audit.calls import Call, hooked, pattern_of
from kdutils.audit.forms import SLIPPED_FORMS, best_fit, kl
from kdutils.audit.probe import MAX_REST_PULL, Probe, evidence_of, is_class_index, probe_of, random_like
from kdutils.audit.roles import HALF_PRECISION, are_alike, are_distributions, centered, is_binary

MIN_TEACHER_SHARE = 1e-3  # of the student's gradient that has to depend on the teacher
MIN_SURPRISE_RATIO = 1.1  # of two cross-entropies, from which on one is worse
MIN_SAMPLES_FOR_CHANCE = 20  # from which on a share of right answers is held against chance
WEIGHT_TOLERANCE = 2e-3  # of a sum of weights
MIN_SOFT_WEIGHT = 0.1  # of the labels' weight, below which the teacher hardly counts
MIN_ANSWERS = 40  # from which on it is no chance that all lie between 0 and 1
OVERFIT_STEPS = 20
OVERFIT_RATES = (1e-2, 1e-3, 1e-4)


def not_finite(bench: Bench) -> str | None:
    """Whether the loss is infinite or not a number."""
    value = bench.loss().item()
    if math.isfinite(value):
        return None
    return f"it is {value}: the logarithm of a zero, or log-probabilities where kl_div expects probabilities"


def student_does_not_learn(bench: Bench) -> str | None:
    """Whether no gradient reaches the student."""
    if bench.gradient(bench.loss()).any():
        return None
    loss = bench.loss(bench.replaced(lambda tensor: tensor.clone().requires_grad_()))
    if next(graph_leaves(loss), None) is not None:
        return "the gradient reaches the teacher's side only: student and teacher are swapped"
    return "no gradient reaches the student: it is frozen, detached, or run under no_grad"


def teacher_ignored(bench: Bench) -> str | None:
    """Whether another teacher would teach the same."""
    runs = bench.appended or any(bench.calls[teacher] for teacher in bench.teacher)
    if not runs and not bench.places("knowledge") and not bench.places("index"):
        return (
            "the loss runs no teacher, and nothing in the batch is taken for a teacher's knowledge: "
            "if something is, say so with roles="
        )
    loss = bench.loss()
    gradient = bench.gradient(loss)
    with bench.another_teacher() as arguments:
        other_loss = bench.loss(arguments)
        other_gradient = bench.gradient(other_loss)
    if not close(gradient, other_gradient, MIN_TEACHER_SHARE):
        return None
    if not close(gradient, other_gradient):
        return "the teacher hardly counts: another changes the student's gradient by less than a thousandth"
    louder_loss = bench.loss(bench.replaced(lambda knowledge: 2 * knowledge))
    if close(loss, other_loss) and close(loss, louder_loss):
        return "another teacher changes nothing: the teacher is compared with itself, or the student is"
    return (
        "another teacher changes the loss and not the student's gradient: "
        "student and teacher are swapped, or the student's side is detached"
    )


def others_learn(bench: Bench) -> str | None:
    """Whether the loss has trainable parameters that are not the student's."""
    leaves = list(graph_leaves(bench.loss()))
    taught = [leaf for leaf in leaves if is_in(leaf, bench.teacher)]
    if taught:
        return (
            f"a gradient flows into the teacher, into {len(taught)} of its parameters: "
            "run it under no_grad, or detach its answer"
        )
    strangers = [tuple(leaf.shape) for leaf in leaves if not is_in(leaf, bench.student)]
    if strangers:
        return (
            f"the loss has trainable parameters that are not the student's, of shapes "
            f"{strangers}: a regressor is missing from the optimizer"
        )
    return None


def teacher_in_train_mode(bench: Bench) -> str | None:
    """Whether a teacher that the loss runs would answer otherwise in eval mode."""
    loss = bench.loss()
    ran: list[nn.Module] = []

    def to_eval_mode(module: nn.Module, args: Any, kwargs: Any) -> None:
        module.training = False
        ran.append(module)

    with hooked(bench.teacher.modules(), to_eval_mode):
        loss_in_eval_mode = bench.loss()
    if not ran:
        raise DoesNotApply("the loss itself runs no teacher")
    if close(loss, loss_in_eval_mode):
        return None
    return "the teacher runs in train mode (batch statistics, dropout): call teacher.eval()"


def teacher_given_less(bench: Bench) -> str | None:
    """Whether a teacher lacks an input that the student has, such as a mask, and would answer otherwise."""
    if bench.pattern is None or len(bench.pattern.sources) < 2:
        raise DoesNotApply("the student has one input")
    applies = False
    student_sources = set(bench.pattern.sources.values())
    for teacher in bench.teacher:
        sources, said = _what_it_was_given(bench, teacher)
        missing = student_sources - sources
        if not missing or not sources < student_sources:
            continue
        with torch.no_grad(), eval_mode(teacher):
            try:
                with_all = bench.pattern.call(teacher, bench.tensors)
            except Exception:  # it has no use for them
                continue
        applies = True
        pairs = zip(tensors_in(said).values(), tensors_in(with_all).values(), strict=False)
        if any(a.shape == b.shape and not close(a, b, MIN_TEACHER_SHARE) for a, b in pairs):
            places = sorted((bench.place(path) for path in missing), key=str)
            return (
                f"the teacher is not given {places} of the batch, as the student is, and answers otherwise "
                "with it; `fit` gives a module the first tensor only, a function the whole batch"
            )
    if not applies:
        raise DoesNotApply("the teacher is given as much, or takes no more")
    return None


def _what_it_was_given(bench: Bench, teacher: nn.Module) -> tuple[set[Path], Any]:
    """Which tensors of the batch a teacher was called with, and its answer."""
    calls = [call for call in bench.calls[teacher] if call.module is teacher]
    if bench.appended:
        return {next(iter(bench.tensors))}, bench.arguments[-1]
    pattern = pattern_of(calls, bench.tensors)
    return (set(pattern.sources.values()), calls[0].output) if pattern else (set(), None)


def cache_out_of_step(bench: Bench) -> str | None:
    """Whether cached knowledge is not what the teacher says now."""
    paths = bench.places("knowledge")
    if bench.appended or not paths:
        raise DoesNotApply("the batch holds no cached knowledge")
    live = bench.live_answers()
    cached: dict[torch.Size, list[Tensor]] = {}
    for path in paths:
        cached.setdefault(bench.tensors[path].shape, []).append(bench.tensors[path])
    pairs = [(tensors, [a for a in live if a.shape == shape]) for shape, tensors in cached.items()]
    if not any(answers for _, answers in pairs):
        raise DoesNotApply("no cached tensor has the shape of the teacher's answer")
    for tensors, answers in pairs:
        different = [tensor for tensor in tensors if not _is_one_of(bench, tensor, answers)]
        # other knowledge may happen to have the shape of an answer, but not in place of it
        is_missing = len(tensors) - len(different) < min(len(tensors), len(answers))
        slip = _why_cache_differs(bench, different[0], answers) if is_missing else None
        if slip is not None:
            return slip
    return None


def _why_cache_differs(bench: Bench, cached: Tensor, live: list[Tensor]) -> str | None:
    if any(answer.dim() == 2 and close(cached, answer.softmax(dim=1), HALF_PRECISION) for answer in live):
        if _takes_probabilities(bench):
            return None
        return "the cache holds probabilities, not logits: the softmax comes twice"
    for scale, inputs in _rescaled(bench.inputs).items():
        if _is_one_of(bench, cached, bench.live_answers({bench.places("inputs")[0]: inputs})):
            return (
                f"the cache holds the teacher's answer to the images scaled to {scale}: "
                "different normalisation for teacher and student"
            )
    seed_random_numbers(0)
    if _is_one_of(bench, cached, bench.live_answers(train=True)):
        return "the cache was made by a teacher in train mode (batch statistics, dropout)"
    if any(_own_rows_fit_best(cached, answer) for answer in live):
        return (
            "the cache is near the teacher's answer and not equal to it: made in train mode, "
            "from images normalised or augmented differently, or by another teacher"
        )
    return "the cached knowledge belongs to other images: it is out of step with the shuffled ones"


def _is_one_of(bench: Bench, cached: Tensor, live: list[Tensor]) -> bool:
    """Whether a cached answer is one of the teachers', at all tokens that are no padding."""
    mask = bench.mask
    for answer in live:
        if answer.shape != cached.shape:
            continue
        if mask is None or mask.shape != cached.shape[:2]:
            alike = are_alike(cached, answer)
        else:
            alike = are_alike(cached[mask.bool()], answer[mask.bool()])
        if alike:
            return True
    return False


def _takes_probabilities(bench: Bench) -> bool:
    """Whether the loss is at rest where the student's probabilities are those of the cache."""
    try:
        return probe_of(bench).softened
    except DoesNotApply:
        return False


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


def _own_rows_fit_best(cached: Tensor, live: Tensor) -> bool:
    """Whether most rows of the cache resemble the live row of their own sample more than any other."""
    cached, live = (unit_vectors((t - t.mean(dim=0)).flatten(1)) for t in (cached, live))
    best = inner_products(cached, live).argmax(dim=1)
    return bool((best == torch.arange(len(best), device=best.device)).float().mean() > 0.5)


def teacher_is_wrong(bench: Bench) -> str | None:
    """Whether a teacher knows the labels no better than chance, or less well than from another input."""
    labels = bench.labels
    answers = bench.student_call.answers(bench.num_samples) if bench.student_call else {}
    if labels is None or labels.dim() != 1 or all(answer.dim() != 2 for answer in answers.values()):
        raise DoesNotApply("it takes labels (N,) in the batch, and a student that answers with logits (N, K)")
    try:
        compared = bench.comparison()
    except DoesNotApply:
        raise DoesNotApply("no logits of the teacher enter the loss") from None
    if not is_class_index(labels, compared.student_answer):
        raise DoesNotApply("the whole numbers in the batch are no classes")
    if any(_sees_worse(bench, call, path) for call, path in compared.teachers):
        return (
            "the teacher sees other images than the student, and is less right on them: "
            "different normalisation for teacher and student"
        )
    said = [tensors_in(call.output)[path] for call, path in compared.teachers]
    said = said or [bench.tensors[path] for path in compared.cached]
    return next((slip for answer in said if (slip := _no_better_than_chance(answer, labels))), None)


def _no_better_than_chance(answer: Tensor, labels: Tensor) -> str | None:
    n, chance = len(labels), 1 / answer.shape[1]
    hits = int((answer.argmax(dim=1) == labels).sum())
    if n < MIN_SAMPLES_FOR_CHANCE or hits > n * chance + 2 * math.sqrt(n * chance * (1 - chance)):
        return None
    return (
        f"it is right on {hits} of {n} samples, no better than chance: untrained, swapped with the "
        "student, its classes in another order, or its images normalised differently"
    )


def _sees_worse(bench: Bench, call: Call, path: Path) -> bool:
    """Whether a teacher knows the labels clearly worse from what it sees than from what the student sees."""
    student_sees, labels = _main_input(bench), bench.labels
    if student_sees is None or labels is None:
        return False
    given = tensors_in((call.args, call.kwargs))
    same_shape = [place for place, tensor in given.items() if tensor.shape == student_sees.shape]
    if not same_shape or given[same_shape[0]].equal(student_sees):
        return False
    args, kwargs = replace_tensors((call.args, call.kwargs), {same_shape[0]: student_sees.clone()})
    with torch.no_grad(), eval_mode(call.module):
        from_students = tensors_in(call.module(*args, **kwargs))[path]
    own, other = (
        F.cross_entropy(answer.float(), labels.long())
        for answer in (tensors_in(call.output)[path], from_students)
    )
    return bool(own > MIN_SURPRISE_RATIO * other)


def _main_input(bench: Bench) -> Tensor | None:
    """What the student sees in a step in place of the batch's images, augmented perhaps; None for tokens."""
    if bench.pattern is None:
        return None
    given, first = tensors_in(bench.pattern.arguments), bench.places("inputs")[0]
    seen = [given[path] for path, source in bench.pattern.sources.items() if source == first]
    return seen[0] if seen and seen[0].is_floating_point() else None


def padding_counts(bench: Bench) -> str | None:
    """Whether what the teacher says at padding changes the loss."""
    mask = bench.mask
    # what is said at a token may be about the next one, which counts where it is the first of an answer
    kept = None if mask is None else mask.bool() | F.pad(mask.bool()[:, 1:], (0, 1))
    if kept is None or kept.all():
        raise DoesNotApply("the batch holds no mask (N, L) of tokens, some of them padding")

    def spoiled(knowledge: Tensor) -> Tensor:
        if knowledge.dim() < 3 or knowledge.shape[:2] != kept.shape or not knowledge.is_floating_point():
            return knowledge
        each = kept.reshape(*kept.shape, *[1] * (knowledge.dim() - 2))
        return torch.where(each, knowledge, knowledge.flip(-1) + 1)

    def spoil_output(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        return map_tensors(spoiled, output)

    loss = bench.loss()
    gradient = bench.gradient(loss)
    with hooked(bench.teacher, after=spoil_output):
        spoiled_loss = bench.loss(bench.replaced(spoiled))
        spoiled_gradient = bench.gradient(spoiled_loss)
    if close(loss, spoiled_loss) and close(gradient, spoiled_gradient):
        return None
    return "what the teacher says at padding changes the loss: padding tokens are counted"


def something_overwritten(bench: Bench) -> str | None:
    """Whether a layer or a network works in place on a tensor that is needed as it was."""
    copies = map_tensors(torch.clone, bench.arguments)
    loss = bench.loss_of(copies)
    written = [
        bench.place(path)
        for path, tensor in tensors_in(copies).items()
        if bench.roles.of.get(path) == "inputs" and not _equal(tensor, bench.tensors[path])
    ]
    if written:
        return f"the batch is overwritten in place, at {written}: who reads it later sees other numbers"

    def copied(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return map_tensors(torch.clone, (args, kwargs))

    with hooked([*bench.student.modules(), *bench.teacher.modules()], before=copied):
        protected = bench.loss()
    if close(loss, protected):
        return None
    return "an in-place layer (ReLU) overwrites tapped features before the loss sees them: keep a copy"


def _equal(tensor: Tensor, other: Tensor) -> bool:
    return torch.equal(tensor.nan_to_num(), other.nan_to_num())


def answers_are_probabilities(bench: Bench) -> str | None:
    """Whether a network answers with probabilities where the loss expects logits."""
    probe = probe_of(bench)
    student_answer, teacher_answer = probe.compared.student_answer, probe.compared.teacher_answer
    if are_distributions(student_answer):
        return "the student answers with probabilities, not logits: the softmax comes twice"
    if are_distributions(teacher_answer) and not probe.softened:
        return "the teacher answers with probabilities, not logits: the softmax comes twice"
    yes_or_no = probe.label_values is not None and is_binary(probe.label_values)
    # an untrained student's few logits may lie between 0 and 1 by chance, a trained teacher's many do not
    if (
        yes_or_no
        and teacher_answer.numel() >= MIN_ANSWERS
        and ((teacher_answer > 0) & (teacher_answer < 1)).all()
    ):
        return "the teacher answers with probabilities, not logits: the sigmoid comes twice"
    return None


def drawn_elsewhere(bench: Bench) -> str | None:
    """Whether a student is drawn anywhere but to its teacher."""
    probe = probe_of(bench)
    evidence = evidence_of(probe)
    if has_classes(probe) and not best_fit(kl, evidence).holds:
        for slip, forms in SLIPPED_FORMS.items():
            if any(best_fit(form, evidence).holds for form in forms):
                return slip
    if probe.rest().norm() > MAX_REST_PULL * probe.pull.norm():
        probe.require_known_labels()
        return (
            "a student that equals the teacher is still pulled, and not only by the labels: "
            "are both softened alike, and is each softmax taken once?"
        )
    if is_pushed_away(probe):
        return "the student is pushed away from the teacher: a sign is inverted"
    return None


def has_classes(probe: Probe) -> bool:
    """Whether the answers are logits of two or more classes, not values or one sigmoid per class."""
    answer = probe.compared.student_answer
    return answer.dim() == 2 and answer.shape[1] > 1 and probe.label_values is None


def is_pushed_away(probe: Probe) -> bool:
    """Whether a student that left its teacher is driven further away."""
    _, teacher, _ = probe.logits
    aside = 0.1 * random_like(teacher, seed=3)
    restoring = probe.gradient(teacher + aside, teacher) - probe.at_rest
    return bool((restoring * aside).sum() < 0)


def out_of_proportion(bench: Bench) -> str | None:
    """Whether the weights of soft term and labels are the usual ones but for a usual slip."""
    probe = probe_of(bench)
    fit = best_fit(kl, evidence_of(probe)) if has_classes(probe) else None
    if fit is None or not fit.holds:
        raise DoesNotApply("the loss is no KL divergence at one temperature")
    hard = probe.label_weight()
    if hard is None:
        raise DoesNotApply("the labels do not enter as a cross-entropy")
    t, (n, k) = fit.temperature, probe.compared.student_answer.shape
    soft = fit.scale / t**2
    if sum_to_one(soft, hard):
        return None
    found = f"{soft:.3g} · T² at T = {t:.3g}, labels {hard:.3g}"
    for slip, factor in {
        "T² is forgotten": t**-2,
        "T stands where T² belongs": 1 / t,
        "the reduction divides by the number of classes, too": 1 / k,
        "T² is forgotten, and the reduction divides by the number of classes": t**-2 / k,
        "the sum over the batch is not divided by N": n,
        "T² is forgotten, and the sum over the batch is not divided by N": t**-2 * n,
    }.items():
        weight = soft / factor
        # Many losses give both terms the weight 1. A missing T cannot be told there: 1 / T may be a weight.
        both_one = sum_to_one(weight, 0.0) and sum_to_one(hard, 0.0) and factor != 1 / t
        if sum_to_one(weight, hard) or both_one:
            return f"{found}: looks like weights {weight:.3g} and {hard:.3g}, and {slip}"
    if soft < MIN_SOFT_WEIGHT * hard:
        return f"{found}: the soft term hardly counts. T² forgotten, or divided by the number of classes?"
    return None


def sum_to_one(soft: float, hard: float) -> bool:
    """Whether two weights sum to one, and the soft one is not all but zero."""
    return abs(soft + hard - 1) < WEIGHT_TOLERANCE and soft > 10 * WEIGHT_TOLERANCE


def cannot_be_overfitted(bench: Bench) -> str | None:
    """Whether some steps on one batch bring the student no nearer to its own teacher than to another."""
    if teacher_ignored(bench) is not None:
        raise DoesNotApply("the teacher does not matter")
    probe = _only_probe(bench)
    before = bench.loss().item()
    for lr in OVERFIT_RATES:
        after, likeness = _overfitted(bench, probe, lr, bench.arguments)
        if not after < before:
            continue
        if likeness is None:
            return None
        with bench.another_teacher() as arguments:
            _, likeness_elsewhere = _overfitted(bench, probe, lr, arguments)
        if likeness_elsewhere is None or likeness > likeness_elsewhere:
            return None
    return (
        f"{OVERFIT_STEPS} steps on one batch bring the student no nearer to its teacher than to another: "
        "does every part of the loss reach the weights, and in the right direction?"
    )


def _only_probe(bench: Bench) -> Probe | None:
    """The probe of the only answer that the loss compares; None if there is no such answer, or several."""
    try:
        return probe_of(bench) if len(bench.comparisons()) == 1 else None
    except DoesNotApply:
        return None


def _overfitted(bench: Bench, probe: Probe | None, lr: float, arguments: Any) -> tuple[float, float | None]:
    """The loss after some steps on one batch, and how like the batch's own teacher the student then answers.

    The likeness is the correlation of their answers; None where the loss compares no answers.
    """
    with left_as_found(bench.student):
        parameters = bench.trained()
        optimizer = torch.optim.AdamW(parameters, lr=lr)
        for _ in range(OVERFIT_STEPS):
            gradients = torch.autograd.grad(bench.loss(arguments), parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        outputs: list[Any] = []

        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            outputs.append(output)

        with hooked([probe.compared.student.module] if probe else [], after=keep):
            after = bench.loss(arguments).item()
    if probe is None:
        return after, None
    answer = tensors_in(outputs[-1])[probe.compared.student_path].detach()
    return after, _likeness(answer, probe.compared.teacher_answer, of_classes=has_classes(probe))


def _likeness(answer: Tensor, other: Tensor, of_classes: bool) -> float | None:
    """The correlation of two answers, logits up to a constant; None where one of them is constant."""
    pair = [centered(a) if of_classes else a for a in (answer, other.to(answer.dtype))]
    correlation = torch.corrcoef(torch.stack([a.flatten() for a in pair])).cpu()[0, 1].item()
    return None if math.isnan(correlation) else correlation
