"""The definitions in notebook 02 equal the library's, in value and gradient."""

import torch
from faults import NOTEBOOKS
from notebook_code import assert_same_loss, definition, solution

from kdutils.evaluate import linear_cka
from kdutils.losses import Regressor, VIDLoss, at_loss, attention_map, fsp_loss, hint_loss, nst_loss

NOTEBOOK = NOTEBOOKS / "02_feature_knowledge.ipynb"
GENERATOR = torch.Generator().manual_seed(0)


def maps(channels, size, samples=4):
    return torch.randn(samples, channels, size, size, generator=GENERATOR, dtype=torch.float64)


def written_out(name, *helpers):
    return definition(NOTEBOOK, name, **{helper: written_out(helper) for helper in helpers})


def test_regressor():
    regressor = Regressor(5, 7).double()
    features = maps(5, 3)
    by_hand = written_out("regressor_written_out")(features, regressor.weight[:, :, 0, 0], regressor.bias)
    torch.testing.assert_close(regressor(features), by_hand)


def test_hint_loss():
    cases = [(maps(6, 4), maps(6, 4)), (maps(1, 1), maps(1, 1))]
    assert_same_loss(hint_loss, written_out("hint_loss_written_out"), cases)


def test_attention_map():
    features = maps(6, 5)
    for p in (1, 2, 4):
        by_hand = written_out("attention_map_written_out")(features, p)
        torch.testing.assert_close(attention_map(features, p), by_hand)


def test_at_loss_also_for_maps_of_two_sizes():
    by_hand = written_out("at_loss_written_out", "attention_map_written_out")
    cases = [(maps(6, 4), maps(9, 4)), (maps(3, 8), maps(5, 4)), (maps(3, 4), maps(5, 8))]
    for p in (1, 2, 4):
        assert_same_loss(at_loss, by_hand, cases, p=p)


def test_fsp_loss_also_for_pairs_of_two_sizes():
    by_hand = written_out("fsp_loss_written_out", "fsp_matrix_written_out")
    pair = torch.stack([maps(3, 6).flatten(1), maps(3, 6).flatten(1)])

    def student_of(loss):  # the student's pair as one leaf, whose gradient is compared
        return lambda student, *teacher: loss(tuple(student.view(2, 4, 3, 6, 6)), teacher)

    cases = [(pair, maps(3, 6), maps(3, 6)), (pair, maps(3, 8), maps(3, 4))]
    assert_same_loss(student_of(fsp_loss), student_of(by_hand), cases)


def test_vid_loss():
    vid = VIDLoss(5, 7).double()
    by_hand = written_out("vid_written_out")
    assert_same_loss(vid, lambda s, t: by_hand(vid.mean(s), vid.variance, t), [(maps(5, 4), maps(7, 4))])


def test_nst_loss_equals_the_exercise_solution():
    by_hand = solution(NOTEBOOK, 2)["nst_loss_written_out"]
    assert_same_loss(nst_loss, by_hand, [(maps(5, 4), maps(7, 4)), (maps(2, 3), maps(2, 3))])


def test_linear_cka():
    cases = [(maps(5, 3, samples=8), maps(7, 4, samples=8))]
    assert_same_loss(linear_cka, written_out("linear_cka_written_out"), cases)
