"""The definitions in notebook 06 equal the library's, in value and gradient."""

import torch
import torch.nn.functional as F
from faults import NOTEBOOKS
from notebook_code import assert_same_loss, definition

from kdutils.losses import cs_kd_loss, kd_loss, ps_kd_loss, tf_kd_loss

NOTEBOOK = NOTEBOOKS / "06_self_distillation.ipynb"
GENERATOR = torch.Generator().manual_seed(0)
PAIRS = [tuple(3 * torch.randn(2, 16, 10, generator=GENERATOR, dtype=torch.float64)) for _ in range(3)]
LABELS = torch.randint(10, (16,), generator=GENERATOR)


def test_tf_kd_loss_equals_its_rung():
    written_out = definition(NOTEBOOK, "tf_kd_loss_written_out")
    cases = [(student, LABELS) for student, _ in PAIRS]
    for settings in ({}, {"temperature": 1.0}, {"temperature": 5.0, "correct_prob": 0.9}):
        assert_same_loss(tf_kd_loss, written_out, cases, **settings)


def test_ps_kd_loss_equals_its_rung():
    written_out = definition(NOTEBOOK, "ps_kd_loss_written_out")
    cases = [(student, past, LABELS) for student, past in PAIRS]
    for alpha in (0.0, 0.3, 1.0):
        assert_same_loss(ps_kd_loss, written_out, cases, alpha=alpha)


def test_cs_kd_loss_equals_its_rung():
    written_out = definition(NOTEBOOK, "cs_kd_loss_written_out")
    for temperature in (1.0, 4.0):
        assert_same_loss(cs_kd_loss, written_out, PAIRS, temperature=temperature)


def test_rungs_send_no_gradient_to_the_teacher():
    student, past = (tensor.clone().requires_grad_() for tensor in PAIRS[0])
    definition(NOTEBOOK, "ps_kd_loss_written_out")(student, past, LABELS, 0.5).backward()
    definition(NOTEBOOK, "cs_kd_loss_written_out")(student, past).backward()
    assert past.grad is None and student.grad.norm() > 0


def test_deepest_exit_teaches_every_shallower_one():
    answers = torch.stack([PAIRS[0][0], PAIRS[1][0], PAIRS[2][0]], dim=1)
    loss_fn = definition(NOTEBOOK, "deepest_teaches", kd_loss=kd_loss)(kd_weight=0.3, temperature=2.0)
    first, second, deepest = answers.unbind(dim=1)
    expected = F.cross_entropy(deepest, LABELS)
    for shallow in (first, second):
        expected = expected + 0.7 * F.cross_entropy(shallow, LABELS) + 0.3 * kd_loss(shallow, deepest, 2.0)
    torch.testing.assert_close(loss_fn(lambda images: answers, None, LABELS), expected)


def test_classmate_is_another_image_of_the_class():
    classmate = definition(NOTEBOOK, "classmate")
    mates = classmate(LABELS)
    assert (LABELS[mates] == LABELS).all()
    alone = (LABELS[:, None] == LABELS).sum(dim=1) == 1
    assert ((mates == torch.arange(16)) == alone).all() and not alone.all()


def test_first_sure_exit_is_the_first_and_the_last_takes_the_rest():
    sure, unsure = torch.tensor([9.0, 0.0]), torch.tensor([0.1, 0.0])
    answers = torch.stack(
        [
            torch.stack(exits)
            for exits in ([sure, unsure, sure], [unsure, sure, sure], [unsure, unsure, unsure])
        ]
    )
    first_sure_exit = definition(NOTEBOOK, "first_sure_exit")
    assert first_sure_exit(answers, 0.9).tolist() == [0, 1, 2]
    assert first_sure_exit(answers, 1.0).tolist() == [2, 2, 2]
    assert first_sure_exit(answers, 0.0).tolist() == [0, 0, 0]
