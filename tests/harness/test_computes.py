"""What the library computes is told apart from how it is written."""

import functools
import math

import computes
import fault_runs
import faults
import fingerprint
import pytest
import torch
import torch.nn.functional as F
from notebook_files import CHAPTERS

from kdutils import batches, train
from kdutils.losses import response

pytestmark = pytest.mark.usefixtures("library_comes_back")


def put_in_place(true, other):
    """Stands another function in the library where the true one stood."""
    faults.replace_function(true, functools.wraps(true)(other))
    computes.of_loss.cache_clear()


def void_chapters():
    return {
        chapter.stem for chapter in CHAPTERS if fault_runs.changes(chapter, fault_runs.content_of(chapter))
    }


def test_a_loss_that_is_written_anew_voids_no_run():
    """Another road to the same number: what is added to all logits of a sample makes no difference."""
    true_loss, before = response.kd_loss, void_chapters()

    def written_anew(student_logits, teacher_logits, *rest, **settings):
        student_logits, teacher_logits = 3 * student_logits + 7, 3 * teacher_logits - 1
        return true_loss(student_logits / 3, teacher_logits / 3, *rest, **settings)

    put_in_place(true_loss, written_anew)
    assert void_chapters() == before


@pytest.mark.parametrize("loss", ["dml_loss", "sp_loss", "at_loss"])
def test_a_loss_that_computes_something_else_voids_the_chapters_that_use_it_and_no_others(loss):
    true_loss, before = faults.every_loss()[loss], void_chapters()
    put_in_place(true_loss, lambda *args, **settings: 1.01 * true_loss(*args, **settings))
    assert void_chapters() == before | users_of(loss)
    assert 0 < len(users_of(loss)) < len(CHAPTERS)


def users_of(loss):
    return {chapter.stem for chapter in CHAPTERS if loss in fingerprint.names_in(chapter)}


def test_a_loss_that_another_is_built_on_voids_the_users_of_both():
    true_loss = response.kd_loss
    put_in_place(true_loss, lambda *args, **settings: 1.01 * true_loss(*args, **settings))
    assert void_chapters() >= users_of("kd_loss") | users_of("ensemble_kd_loss")


def moved_by(change, *names):
    before = computes.computed(names)
    change()
    computes.of_probe.cache_clear()
    return computes.moved(before, computes.computed(names))


def test_a_setting_that_is_lost_is_seen_though_the_default_gives_the_same():
    true_loss = response.kd_loss

    def deaf(student_logits, teacher_logits, *mask, temperature=4.0, **settings):
        return true_loss(student_logits, teacher_logits, *mask, **settings)

    assert moved_by(lambda: put_in_place(true_loss, deaf), "kd_loss") == ["kd_loss(temperature)"]


def test_another_gradient_is_seen_though_the_value_is_the_same():
    true_loss = response.kd_loss

    def halved(student_logits, *rest, **settings):
        half_taught = 0.5 * student_logits + 0.5 * student_logits.detach()
        return true_loss(half_taught, *rest, **settings)

    assert "kd_loss" in moved_by(lambda: put_in_place(true_loss, halved), "kd_loss")


def test_another_loop_and_another_shuffle_are_seen(monkeypatch):
    true_fit = train.fit

    def other_rate():
        put_in_place(true_fit, lambda *args, lr, **rest: true_fit(*args, lr=1.1 * lr, **rest))

    assert moved_by(other_rate, "fit", "batches") == ["fit"]

    def other_shuffle():
        put_in_place(train.fit, true_fit)
        monkeypatch.setattr(batches.torch, "randperm", lambda size, generator: torch.arange(size))

    before = computes.computed(["fit", "batches"])
    assert before.keys() == {"fit", "batches"}
    assert moved_by(other_shuffle, "batches", "balanced_index") == ["balanced_index", "batches"]


@pytest.mark.parametrize("name", sorted(faults.public_in_losses()))
def test_every_loss_gives_numbers_and_gradients(name):
    for call, numbers in computes.of_loss(name).items():
        assert all(map(math.isfinite, numbers)), call
        assert len(numbers) >= 3 and numbers[1] > 0, call


def test_settings_and_masks_are_tried():
    calls = set(computes.computed(faults.public_in_losses()))
    assert {"kd_loss(temperature)", "cc_loss(gamma)", "hidden_cosine_loss(attention_mask)"} <= calls


def test_a_loss_that_takes_no_input_on_hand_is_named(monkeypatch):
    def odd_loss(student_logits):
        raise ValueError("student_logits: expected seven dimensions")

    monkeypatch.setattr(faults, "public_in_losses", lambda: {"odd_loss": odd_loss})
    with pytest.raises(LookupError, match=r"no input that odd_loss takes: .*seven dimensions"):
        computes.of_loss("odd_loss")


def test_names_that_are_not_the_librarys_are_passed_over():
    assert computes.computed(["kd_loss_written_out", "print"]) == {}


@pytest.mark.parametrize(
    "numbers, is_same",
    [
        ([1.0, 1e-3, 1e-7], True),
        ([1.0 + 5e-4, 1e-3, -3e-7], True),  # what is left of a sum that cancels
        ([1.0 + 5e-3, 1e-3, 1e-7], False),
        ([1.0, 1.0005e-3, 1e-7], True),
        ([1.0, 1.1e-3, 1e-7], False),
        ([1.0, 1e-3], False),
        (None, False),
    ],
)
def test_numbers_are_the_same_up_to_rounding(numbers, is_same):
    assert computes.same([1.0, 1e-3, 1e-7], numbers) == is_same


def test_float32_is_near_enough():
    """Another processor rounds otherwise: by far less than this."""
    given = {name: torch.randn(6, 5) for name in ("student_logits", "teacher_logits")}
    single, double = (
        computes.value_and_gradient(response.kd_loss, {name: to(t) for name, t in given.items()})
        for to in (torch.Tensor.float, torch.Tensor.double)
    )
    assert computes.same(single, double)
    cross_entropy = computes.value_and_gradient(
        lambda student_logits, teacher_logits: F.cross_entropy(student_logits, teacher_logits.softmax(1)),
        given,
    )
    assert not computes.same(single, cross_entropy)
