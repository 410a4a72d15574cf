"""An audit of a distillation loss: a handful of tests that find the slips which no training curve shows."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from kdutils.audit import checks, text_checks
from kdutils.audit.bench import Bench, DoesNotApply, bench_of, left_as_found, random_state_kept
from kdutils.audit.texts import Text, text_of

__all__ = ["audit"]


class Test(NamedTuple):
    """A property of a sound loss, and how its absence is found."""

    title: str
    find_slip: Callable[[Any], str | None]
    is_decisive: bool = False  # without it, the other tests would say nothing more
    is_rare: bool = False  # it is about few losses; where it does not apply, no line is printed


FIRST_TESTS = (
    Test("the loss is a finite number", checks.not_finite, is_decisive=True),
    Test("the student learns", checks.student_does_not_learn, is_decisive=True),
    Test("the teacher decides what it learns", checks.teacher_ignored),
    Test("nobody else learns", checks.others_learn),
    Test("the teacher runs in eval mode", checks.teacher_in_train_mode),
    Test("the teacher is given what the student is given", checks.teacher_given_less, is_rare=True),
    Test("cached knowledge equals the live teacher's", checks.cache_out_of_step),
    Test("the teacher is right about the labels", checks.teacher_is_wrong),
    Test("padding does not count", checks.padding_counts),
    Test("no layer overwrites what is compared", checks.something_overwritten),
)
ANSWER_TESTS = (
    Test("the answers are logits", checks.answers_are_probabilities),
    Test("the student is drawn to the teacher, and at rest where it equals it", checks.drawn_elsewhere),
    Test("soft term and labels are in proportion", checks.out_of_proportion),
)
# Of losses on the next token, in place of those on one answer per sample.
TEXT_TESTS = (
    Test("the labels are one token ahead", text_checks.labels_not_ahead),
    Test("teacher and student are compared at the same token", text_checks.teacher_at_another_position),
    Test("prompt and padding do not count", text_checks.ignored_tokens_count),
    Test("the end token counts", text_checks.end_token_ignored),
    Test("every token weighs the same", text_checks.tokens_weigh_differently),
    Test("the whole vocabulary counts", text_checks.rest_ignored),
    Test("the student is drawn to the teacher at every token", text_checks.drawn_elsewhere),
    Test("soft term and labels are in proportion", text_checks.out_of_proportion),
)
LAST_TESTS = (Test("one batch can be overfitted to the teacher", checks.cannot_be_overfitted),)


def audit(
    loss_fn: Callable[..., Any],
    student: nn.Module,
    teacher: Any,
    batch: Any,
    *,
    roles: Mapping[Any, str] | None = None,
) -> list[str]:
    """Finds the slips in a distillation loss that no training curve shows, and prints every test.

    The loss is run about a hundred times, a few seconds for small networks: with another teacher, with
    made-up answers of student and teacher, in eval mode, on one batch again and again. Losses on the next
    token, where the student turns tokens (N, L) into logits (N, L, V) and reads forwards only, have tests of
    their own.

    A line begins with ✓ for a test that was passed, ✗ for a likely slip, – for a test that does not apply,
    with the reason. After a loss on the next token, a line with · says which of the usual conventions it
    follows: the divergence, the temperature, the factor T², what a mean is taken over. What no test sees:
    choices made on test data, too few seeds, arms tuned with unequal effort.

    The batch, weights, buffers, gradients, modes and the random numbers of PyTorch, NumPy and Python are
    afterwards what they were.

    Args:
        loss_fn: As `fit` takes it: `loss_fn(student, *batch)` with a tuple or list, `loss_fn(student, batch)`
            with a tensor or a dict, returns a scalar or a dict of named scalars. If it takes one argument
            more than that, the teacher's answer is appended, as `fit(..., teacher=teacher)` does. It must
            give the same value for the same tensors and random numbers.
        student: Whatever the optimizer trains: the network, or a `ModuleDict` of network and regressor. It is
            run in training mode, as in `fit`.
        teacher: The trained teacher in the mode in which the training finds it, a list of several, or, as for
            `fit`, a function of the batch; of a function, tests that look into the network do not apply.
        batch: As the loader yields it, with N >= 4 samples: a tensor, a tuple, a list or a dict, or a nesting
            of them. Inputs, labels, masks, indices of samples and the teacher's knowledge are recognized in
            any order. What counts is first the names that keys and arguments of the loss have, then what the
            networks are called with and answer, then dtype, shape and values. Labels may be class indices,
            rows of probabilities (mixup), zeros and ones (several labels), values (regression) or tokens.
        roles: What was not recognized, or wrongly: from an index or a key of the batch to "inputs", "labels",
            "knowledge", "mask" (which tokens are real or to be learned, (N, L)), "positions" (the same of
            logits that are about the next token), "index" (the number of a sample) or "other".

    Returns:
        The slips, each a sentence; empty if none was found.

    Raises:
        ValueError: A batch without a tensor, of fewer than four samples, or in which the knowledge cannot be
            told from the labels; a role or a teacher that is none; a loss that is no scalar.

    The first of these tests are written out in notebook 11.
    """
    slips: list[str] = []
    with random_state_kept():
        bench = bench_of(loss_fn, student, teacher, batch, roles)
        with left_as_found(student, bench.teacher):
            for test in FIRST_TESTS:
                slips += _slips_found(test, bench, bench)
                if slips and test.is_decisive:
                    return slips
            text = _text_or_none(bench)
            for test in ANSWER_TESTS if text is None else TEXT_TESTS:
                slips += _slips_found(test, text or bench, bench)
            for test in LAST_TESTS:
                slips += _slips_found(test, bench, bench)
            if text is not None and (said := text_checks.conventions(text)):
                print(f"· {said}")
    return slips


def _text_or_none(bench: Bench) -> Text | None:
    """The text of a loss on the next token; None for any other loss."""
    try:
        return text_of(bench)
    except DoesNotApply:
        return None


def _slips_found(test: Test, subject: Bench | Text, bench: Bench) -> list[str]:
    """The slip that a test finds, if it finds one; prints the test's line."""
    try:
        with left_as_found(bench.student, bench.teacher):
            slip = test.find_slip(subject)
    except DoesNotApply as reason:
        if not test.is_rare:
            print(f"– {test.title}: {reason}")
        return []
    print(f"✗ {test.title}: {slip}" if slip else f"✓ {test.title}")
    return [slip] if slip else []
