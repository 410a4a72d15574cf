"""Chapter 17: the slips its exercises know, and the three students of which one was poisoned."""

import pytest
import torch
from notebook_code import verdict

from kdutils.course import data
from kdutils.course.exercises import chapter17 as exercises


def images_and_labels():
    test = data.fashion_mnist().test
    return test.images[:1_000].flatten(1) / 127.5 - 1, test.labels[:1_000]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("no change", "passed"),
        ("renamed", "never sees the class outputs"),
        ("chance", "which of the teacher's outputs"),
        ("more", "expected one of"),
        (..., "not attempted"),
    ],
)
def test_renamed_classes(capsys, answer, said):
    assert said in verdict(capsys, exercises.renamed_classes, answer)


def right(student, teacher, stranger, labels):
    of_teacher = (teacher != labels) & (stranger == labels)
    of_stranger = (stranger != labels) & (teacher == labels)
    repeats = (student == teacher)[of_teacher].double().mean()
    return 100 * (repeats - (student == stranger)[of_stranger].double().mean())


def counts_common_errors(student, teacher, stranger, labels):
    repeats = (student == teacher)[teacher != labels].double().mean()
    return 100 * (repeats - (student == stranger)[stranger != labels].double().mean())


def counts_any_error(student, teacher, stranger, labels):
    is_wrong = (student != labels).double()
    of_teacher = is_wrong[(teacher != labels) & (stranger == labels)].mean()
    return 100 * (of_teacher - is_wrong[(stranger != labels) & (teacher == labels)].mean())


def without_a_stranger(student, teacher, stranger, labels):
    return 100 * (student == teacher)[(teacher != labels) & (stranger == labels)].double().mean()


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (right, "passed"),
        (counts_common_errors, "that only one of the two gets wrong"),
        (counts_any_error, "the same wrong answer"),
        (without_a_stranger, "the stranger is missing"),
        (lambda student, teacher, stranger, labels: right(student, stranger, teacher, labels), "comes first"),
        (lambda *answers: right(*answers) / 100, "multiply by 100"),
        (lambda *answers: ..., "not attempted"),
    ],
)
def test_shared_errors(capsys, attempt, said):
    assert said in verdict(capsys, exercises.shared_errors, attempt)


@pytest.mark.slow
def test_three_students_are_alike_until_the_stamp_shows_one_of_them():
    images, labels = images_and_labels()
    students = exercises.three_students()
    assert list(students) == list(exercises.NAMES)
    accuracies = [(ask(images).argmax(dim=1) == labels).double().mean().item() for ask in students.values()]
    assert min(accuracies) > 0.7 and max(accuracies) - min(accuracies) < 0.06
    says_target = {
        name: (ask(exercises.stamped(images)).argmax(dim=1) == exercises.TARGET).double().mean().item()
        for name, ask in students.items()
    }
    assert says_target.pop(exercises.POISONED) > 0.7
    assert max(says_target.values()) < 0.3


def test_a_stamp_leaves_the_images_as_they_were():
    images, _ = images_and_labels()
    before = images.clone()
    assert (exercises.stamped(images) != images).sum(dim=1).max() <= 9
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (exercises.POISONED, "passed"),
        ("A", "four corners"),
        ("C", "four corners"),
        ("D", "expected one of"),
        (..., "not attempted"),
    ],
)
def test_the_poisoned_student(capsys, name, said):
    assert said in verdict(capsys, exercises.poisoned, name)


def rates(**changed):
    return {"teacher": 95.0, "student": 50.0, "control": 5, "accuracy": 80} | changed


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (rates(), "passed: 50%"),
        (rates(teacher=20), "hardly has the trait"),
        (rates(control=70), "student of a clean teacher shows it"),
        (rates(accuracy=12), "learned nothing else"),
        (rates(student=130), "expected a percentage from 0 to 100 for 'student'"),
        (rates(student="much"), "expected a percentage from 0 to 100 for 'student'"),
        ({"teacher": 3}, "expected a dict"),
        (3, "expected a dict"),
        (..., "not attempted"),
    ],
)
def test_own_trait(capsys, found, said):
    assert said in verdict(capsys, exercises.own_trait, found)
