"""An exercise's check names the likely slip and never raises."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdutils.course.exercises.judge import handed_in, judge_choice, judge_function, judge_value

# A function


def soft_loss(student_logits, teacher_logits, T):
    soft = F.kl_div(
        F.log_softmax(student_logits / T, dim=1),
        F.log_softmax(teacher_logits.detach() / T, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    return T**2 * soft


def teacher_learns(student_logits, teacher_logits, T):
    log_q, log_p = (F.log_softmax(z / T, dim=1) for z in (student_logits, teacher_logits))
    return T**2 * F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


SLIPS = {
    "T² is missing": lambda s, t, T: soft_loss(s, t, T) / T**2,
    "the teacher learns": teacher_learns,
    "the arguments are swapped": lambda s, t, T: soft_loss(t, s, T),
}
CASES = [
    (*torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed)).unbind(), T)
    for seed, T in ((0, 2.0), (1, 5.0))
]


def verdict(capsys, attempt, cases=CASES, definition=soft_loss, slips=SLIPS, gradient=True):
    judge_function(attempt, cases, definition, slips, gradient)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_right_function_has_passed(capsys):
    def by_sums(s, t, T):
        p, q = F.softmax(t.detach() / T, 1), F.softmax(s / T, 1)
        return T**2 * (p * (p.log() - q.log())).sum(1).mean()

    assert verdict(capsys, soft_loss) == "✓ passed"
    assert verdict(capsys, by_sums) == "✓ passed"


def only_dots(s, t, T): ...


@pytest.mark.parametrize("stub", [..., lambda s, t, T: ..., lambda s, t, T: None, only_dots])
def test_a_stub_is_not_attempted(stub, capsys):
    assert verdict(capsys, stub).startswith("… not attempted")


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named(slip, capsys):
    assert verdict(capsys, SLIPS[slip]) == f"✗ not yet: looks as if {slip}"


def test_a_slip_must_fit_every_case(capsys):
    """T² is missing only where T is 2: no known slip."""
    assert "on random input" in verdict(capsys, lambda s, t, T: soft_loss(s, t, T) / (4 if T == 2 else 1))


def test_the_case_that_differs_is_shown(capsys):
    """Right for the first case's T = 2 only."""
    line = verdict(capsys, lambda s, t, T: soft_loss(s, t, 2.0))
    expected, found = soft_loss(*CASES[1]), soft_loss(*CASES[1][:2], 2.0)
    assert line == f"✗ not yet: on random input the definition gives {expected:.4g}, yours {found:.4g}"


def test_arguments_may_be_changed_in_place(capsys):
    def in_place(s, t, T):
        s /= T
        return T**2 * F.kl_div(s.log_softmax(1), (t / T).softmax(1).detach(), reduction="batchmean")

    assert verdict(capsys, in_place) == "✓ passed"


def test_the_first_case_alone_does_not_pass(capsys):
    assert verdict(capsys, lambda s, t, T: 4 * soft_loss(s, t, T) / T**2) != "✓ passed"


ODD = {
    "text": (lambda s, t, T: "4.2", "expected a tensor or a number, got str"),
    "a dict": (lambda s, t, T: {"loss": 1}, "expected a tensor or a number, got dict"),
    "a list of shapes": (lambda s, t, T: [s, 1], "expected a tensor or a number, got list"),
    "an object": (lambda s, t, T: object(), "expected a tensor or a number, got object"),
    "no reduction": (lambda s, t, T: s, "expected a result of shape (), got (4, 3)"),
    "a pair": (lambda s, t, T: (1.0, 2.0), "expected a result of shape (), got (2,)"),
    "an empty tensor": (lambda s, t, T: torch.zeros(0), "expected a result of shape (), got (0,)"),
    "a number": (lambda s, t, T: 1.5, "on random input the definition gives"),
    "an integer": (lambda s, t, T: 2, "on random input the definition gives"),
    "a truth": (lambda s, t, T: s.sum() > 0, "on random input the definition gives"),
    "numpy": (lambda s, t, T: np.float64(1.5), "on random input the definition gives"),
    "nan": (lambda s, t, T: soft_loss(s, t, T) * math.nan, "yours nan"),
    "infinity": (lambda s, t, T: soft_loss(s, t, T) * math.inf, "yours inf"),
    "no gradient": (lambda s, t, T: soft_loss(s.detach(), t, T), "the value is right, its gradient is not"),
    "an item": (lambda s, t, T: soft_loss(s, t, T).item(), "the value is right, its gradient is not"),
    "another device": (lambda s, t, T: s.sum().to("meta"), "it raised "),
    "a matrix on another device": (lambda s, t, T: s.detach().to("meta"), ""),
    "an error of two lines": (lambda s, t, T: fail("one\ntwo"), "it raised ValueError: one"),
    "an error": (lambda s, t, T: 1 / 0, "it raised ZeroDivisionError: division by zero"),
    "an error of torch": (lambda s, t, T: s @ t, "it raised RuntimeError"),
    "an unknown name": (lambda s, t, T: kl_divergence(s, t), "it raised NameError"),  # noqa: F821
    "a failed assertion": (lambda s, t, T: pytest.fail if not 1 else exec("assert 0"), "it raised Assertion"),
    "endless recursion": (lambda s, t, T: endless(s), "it raised RecursionError"),
    "too few arguments": (lambda s: s.sum(), "it raised TypeError"),
    "none": (None, "it raised TypeError"),
    "no function": (3.0, "it raised TypeError"),
    "text for a function": ("soft_loss", "it raised TypeError"),
    "a student changed in place": (
        lambda s, t, T: soft_loss(s.div_(T), t, T),
        "on random input the definition gives",
    ),
    "a backward pass of its own": (lambda s, t, T: backward(soft_loss(s, t, T)), "it raised RuntimeError"),
    "complex": (lambda s, t, T: torch.complex(s, t).sum(), "it raised "),
    "sparse": (lambda s, t, T: s.detach().to_sparse(), "expected a result of shape"),
    "a class": (type("Loss", (), {"__init__": lambda self, s, t, T: None}), "expected a tensor or a number"),
}


def endless(s):
    return endless(s)


def fail(message):
    raise ValueError(message)


def backward(loss):
    loss.backward()
    return loss


@pytest.mark.parametrize("attempt, words", ODD.values(), ids=ODD.keys())
def test_odd_answers_get_a_verdict_and_raise_nothing(attempt, words, capsys):
    line = verdict(capsys, attempt)
    assert line.startswith("✗ not yet: ") and words in line


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("attempt, _", ODD.values(), ids=ODD.keys())
def test_odd_answers_to_a_question_of_shape_raise_nothing(attempt, _, gradient, capsys):
    """The definition returns a matrix, compared with and without gradients."""
    line = verdict(capsys, attempt, definition=lambda s, t, T: s / T + t, slips={}, gradient=gradient)
    assert line.startswith(("✗ not yet: ", "… not attempted"))


def test_a_truth_matrix_raises_nothing(capsys):
    line = verdict(capsys, lambda s, t, T: s > 0, definition=lambda s, t, T: s, slips={}, gradient=False)
    assert "on random input it differs from the definition by up to" in line


def test_what_the_attempt_changes_in_place_is_whole_again_for_the_definition(capsys):
    """A function that spoils its arguments is compared with the definition on unspoiled ones."""
    labels, rows = torch.tensor([0, 1, 2]), [1.0, 2.0]

    def spoils(labels, rows):
        labels += 1
        rows.clear()
        return labels.sum()

    cases, slips = [(labels, rows)], {}
    line = verdict(capsys, spoils, cases, lambda labels, rows: (labels + 1).sum() + len(rows), slips)
    assert line == "✗ not yet: on random input the definition gives 8, yours 6"
    assert labels.tolist() == [0, 1, 2] and rows == [1.0, 2.0]


def test_cases_stay_whole_without_gradients(capsys):
    values = torch.ones(3)
    line = verdict(capsys, lambda x: x.mul_(2).sum(), [(values,)], lambda x: x.sum(), {}, gradient=False)
    assert line == "✗ not yet: on random input the definition gives 3, yours 6"
    assert values.tolist() == [1, 1, 1]


def test_values_alone_are_compared_without_gradients(capsys):
    assert verdict(capsys, lambda *case: soft_loss(*case).item(), gradient=False) == "✓ passed"
    assert verdict(capsys, teacher_learns, slips={}, gradient=False) == "✓ passed"


def test_plain_numbers_are_judged(capsys):
    slips = {"it was not squared": lambda x: x}
    for attempt, words in ((lambda x: x * x, "passed"), (lambda x: x, "squared"), (lambda x: 3, "gives 4")):
        assert words in verdict(capsys, attempt, [(2,), (5,)], lambda x: x**2, slips)


def test_a_trained_weight_may_enter_where_no_argument_has_a_gradient(capsys):
    weight = torch.tensor(3.0, requires_grad=True)
    assert verdict(capsys, lambda x: weight * x, [(2,)], lambda x: 3.0 * x, {}) == "✓ passed"


def test_the_readers_random_numbers_are_left_alone(capsys):
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    verdict(capsys, soft_loss)
    assert torch.equal(torch.rand(2), expected)


# A number


@pytest.mark.parametrize(
    "attempt, words",
    [
        (..., "… not attempted"),
        (3.0, "✓ passed"),
        (3.009, "✓ passed"),
        (torch.tensor([3.0]), "✓ passed"),
        (np.int64(3), "✓ passed"),
        ("3", "✓ passed"),
        (4.0, "✗ not yet: looks as if subtracted"),
        (3.5, "✗ not yet: 3.5 is too high"),
        (-1e9, "✗ not yet: -1e+09 is too low"),
        (math.inf, "✗ not yet: inf is too high"),
        (math.nan, "✗ not yet: expected a number, got nan"),
        (None, "✗ not yet: expected a number, got None"),
        ("three", "✗ not yet: expected a number, got 'three'"),
        (torch.ones(2), "✗ not yet: expected a number, got tensor"),
        (np.ones(2), "✗ not yet: expected a number, got array"),
        (3 + 1j, "✗ not yet: expected a number, got (3+1j)"),
        (10**400, "✗ not yet: expected a number"),
        ([3.0], "✗ not yet: expected a number"),
        (soft_loss, "✗ not yet: expected a number"),
    ],
)
def test_a_number_is_judged(attempt, words, capsys):
    judge_value(attempt, correct=3.0, tolerance=0.01, slips={"subtracted": 4.0})
    assert capsys.readouterr().out.startswith(words)


# A choice


@pytest.mark.parametrize(
    "attempt, words",
    [
        (..., "… not attempted"),
        ("worse", "✓ passed"),
        ("better", "✗ not yet: who said so?"),
        ("Worse", "✗ not yet: expected one of ['better', 'worse'], got 'Worse'"),
        (None, "✗ not yet: expected one of"),
        (3, "✗ not yet: expected one of"),
        (["worse"], "✗ not yet: expected one of"),
        (np.array(["worse", "better"]), "✗ not yet: expected one of"),
        (torch.ones(2), "✗ not yet: expected one of"),
    ],
)
def test_a_choice_is_judged(attempt, words, capsys):
    judge_choice(attempt, correct="worse", why_not={"better": "who said so?"})
    assert capsys.readouterr().out.startswith(words)


# What is handed in


def test_a_dict_with_the_right_keys_is_taken(capsys):
    given = {"labels": [1], "distilled": [2]}
    assert handed_in(given, ("distilled", "labels")) is given
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "answer, told",
    [
        (..., "not attempted"),
        ({"labels": [1]}, "expected a dict with the keys ['labels', 'distilled'], got ['labels']"),
        (3.0, "expected a dict with the keys ['labels', 'distilled'], got float"),
    ],
)
def test_anything_else_gets_a_verdict(answer, told, capsys):
    assert handed_in(answer, ["labels", "distilled"]) is None
    assert told in capsys.readouterr().out
