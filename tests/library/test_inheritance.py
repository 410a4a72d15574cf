"""kdutils.inheritance: shared and inherited errors against counting by hand, and their intervals."""

import pytest
import torch
import torch.nn.functional as F

from kdutils.inheritance import agreement_beyond_chance, inherited_errors

NUM_CLASSES = 4


def logits_of(answers):
    return F.one_hot(torch.as_tensor(answers), NUM_CLASSES).float()


def answers_with_errors(labels, rate, generator):
    """Answers that are wrong at the rate, each wrong answer drawn from the other classes."""
    wrong = torch.rand(len(labels), generator=generator) < rate
    shift = torch.randint(1, NUM_CLASSES, (len(labels),), generator=generator)
    return torch.where(wrong, (labels + shift) % NUM_CLASSES, labels)


def test_agreement_counted_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    teacher = torch.tensor([1, 1, 2, 0, 1, 0])  # wrong on images 0, 1, 2 and 5
    student = torch.tensor([1, 0, 1, 0, 1, 0])
    found = agreement_beyond_chance(logits_of(student), logits_of(teacher), labels)
    # image 0: same, of the 3 other images of class 0 one is called 1; image 1: not the same, two of 3;
    # image 2: not the same, none called 2; image 5: same, of the other image of class 1 none is called 0
    assert found.images == 4
    assert found.observed == pytest.approx(50)
    assert found.expected == pytest.approx(100 * (1 / 3 + 2 / 3 + 0 + 0) / 4)
    beyond = torch.tensor([2 / 3, -2 / 3, 0.0, 1.0])
    assert found.beyond == pytest.approx(100 * beyond.mean().item())
    half_width = 196 * beyond.std().item() / 2
    assert (found.low, found.high) == pytest.approx((found.beyond - half_width, found.beyond + half_width))


def test_interval_of_strangers_covers_zero_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(300):
        labels = torch.randint(NUM_CLASSES, (400,), generator=generator)
        student, teacher = (answers_with_errors(labels, 0.4, generator) for _ in range(2))
        found = agreement_beyond_chance(logits_of(student), logits_of(teacher), labels)
        covered += found.low <= 0 <= found.high
    assert 0.91 <= covered / 300 <= 0.985


def test_a_copy_shares_every_error_and_habits_alone_none():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(NUM_CLASSES, (4000,), generator=generator)
    teacher = answers_with_errors(labels, 0.3, generator)
    copy = agreement_beyond_chance(logits_of(teacher), logits_of(teacher), labels)
    assert copy.observed == 100 and copy.low > 80
    dealt = teacher.clone()  # the same answers to every class, dealt out anew
    for c in range(NUM_CLASSES):
        of_class = (labels == c).nonzero().squeeze(1)
        dealt[of_class] = teacher[of_class[torch.randperm(len(of_class), generator=generator)]]
    by_habit = agreement_beyond_chance(logits_of(dealt), logits_of(teacher), labels)
    assert by_habit.low < 0 < by_habit.high


def test_inherited_errors_counted_by_hand():
    labels = torch.zeros(10, dtype=torch.long)
    teacher = torch.tensor([1, 1, 2, 2, 0, 0, 3, 0, 0, 0])  # alone wrong on 0, 1, 2, 3
    control = torch.tensor([0, 0, 0, 0, 1, 2, 3, 0, 0, 0])  # alone wrong on 4, 5; both on 6
    student = torch.tensor([1, 2, 2, 2, 1, 0, 3, 0, 0, 1])
    found = inherited_errors(*map(logits_of, (student, teacher, control)), labels)
    assert (found.student_accuracy, found.teacher_accuracy, found.control_accuracy) == pytest.approx(
        (30, 50, 70)
    )
    assert found.images == (4, 2)
    assert (found.of_teacher, found.of_control, found.inherited) == pytest.approx((75, 50, 25))
    half_width = 196 * (0.25 / 4 + 0.5 / 2) ** 0.5  # the variances of 1, 0, 1, 1 and of 1, 0
    assert (found.low, found.high) == pytest.approx((25 - half_width, 25 + half_width))
    assert "repeats 75.0% of 4 errors" in str(found) and "+25.0 points" in str(found)


def test_a_student_of_the_labels_repeats_the_errors_of_both_alike():
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(NUM_CLASSES, (6000,), generator=generator)
    student, teacher, control = (answers_with_errors(labels, 0.3, generator) for _ in range(3))
    stranger = inherited_errors(*map(logits_of, (student, teacher, control)), labels)
    assert stranger.low < 0 < stranger.high
    heir = inherited_errors(*map(logits_of, (teacher, teacher, control)), labels)
    assert heir.of_teacher == 100 and heir.low > 50


def test_what_cannot_be_counted_is_said():
    labels = torch.tensor([0, 0, 1, 1])
    right, wrong = logits_of(labels), logits_of([1, 1, 0, 0])
    with pytest.raises(ValueError, match="teacher_logits: expected at least two wrong answers, got 0"):
        agreement_beyond_chance(wrong, right, labels)
    with pytest.raises(ValueError, match="labels: expected at least two images of every class"):
        agreement_beyond_chance(wrong, wrong, torch.tensor([0, 0, 1, 2]))
    with pytest.raises(ValueError, match="control_logits: expected at least two errors of its own, got 0"):
        inherited_errors(wrong, wrong, right, labels)
    with pytest.raises(ValueError, match="teacher_logits: expected at least two errors of its own, got 0"):
        inherited_errors(wrong, wrong, wrong, labels)
    with pytest.raises(ValueError, match="teacher_logits: expected the shape of student_logits"):
        agreement_beyond_chance(wrong, wrong[:3], labels)
    with pytest.raises(ValueError, match="student_logits: expected finite"):
        agreement_beyond_chance(wrong * torch.nan, wrong, labels)
    with pytest.raises(ValueError, match="labels"):
        inherited_errors(wrong, wrong, wrong, labels[:3])
