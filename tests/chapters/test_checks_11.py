"""The slips that the exercise checks of notebook 11 know are named."""

import pytest
import torch
from notebook_code import verdict

from kdutils.course.exercises import chapter11


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (0.225, "T was divided out"),
        (14.4, "multiplied in"),
        (0.00625, "weight of the labels"),
        (0.36, "shares after it"),
        (0.9, "nothing was changed"),
        (0.5, "too high"),
        ("a lot", "expected a number"),
    ],
)
def test_slip_in_the_weight_is_named(capsys, attempt, said):
    answer = verdict(capsys, chapter11.forgotten_weight, attempt)
    assert answer.startswith("✗ not yet") and said in answer


def own_is_nearest(cached, live):
    return torch.cdist(cached, live).argmin(1) == torch.arange(len(live))


SHARES = {
    "between 0 and 1": lambda cached, live: own_is_nearest(cached, live).double().mean(),
    "images were counted": lambda cached, live: own_is_nearest(cached, live).double().sum(),
    "predicted classes": lambda cached, live: 100.0 * (cached.argmax(1) == live.argmax(1)).double().mean(),
    "equality": lambda cached, live: (
        100.0 * torch.isclose(cached, live, rtol=0, atol=0).all(1).double().mean()
    ),
    "out of step were counted": lambda cached, live: 100 - 100 * own_is_nearest(cached, live).double().mean(),
    "furthest": lambda cached, live: (
        100 * (torch.cdist(cached, live).argmax(1) == torch.arange(len(live))).double().mean()
    ),
    "raised IndexError": lambda cached, live: torch.cdist(cached, live).argmin(dim=2),
}


@pytest.mark.parametrize("name", SHARES)
def test_slip_in_the_share_is_named(capsys, name):
    answer = verdict(capsys, chapter11.share_in_step, SHARES[name])
    assert answer.startswith("✗ not yet") and name in answer


def test_right_share_passes_also_as_a_plain_number(capsys):
    def share(cached, live):
        return 100 * own_is_nearest(cached, live).sum().item() / len(live)

    assert verdict(capsys, chapter11.share_in_step, share) == "✓ passed"


@pytest.mark.parametrize("script", chapter11.FAULTS)
def test_wrong_fault_is_answered_with_a_question(capsys, script):
    answer = verdict(capsys, chapter11.five_faults, {**chapter11.FAULTS, script: "softmax twice"})
    assert answer == f"✗ not yet: script {script}: {chapter11.QUESTIONS[script]}"
    assert chapter11.FAULTS[script] not in answer


def test_open_scripts_are_listed(capsys):
    answer = verdict(capsys, chapter11.five_faults, {**chapter11.FAULTS, "B": ..., "D": ...})
    assert answer == "✗ not yet: right so far; still open: B, D"


@pytest.mark.parametrize("answer", [3, "arguments reversed", {"A": "arguments reversed"}, None])
def test_answer_of_another_kind_is_refused(capsys, answer):
    assert "expected a dict with the keys" in verdict(capsys, chapter11.five_faults, answer)


@pytest.mark.parametrize("answer", [..., dict.fromkeys("ABCDE", ...)])
def test_untouched_answer_is_not_attempted(capsys, answer):
    assert "not attempted" in verdict(capsys, chapter11.five_faults, answer)
