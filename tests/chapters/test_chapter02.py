"""Chapter 02: what the notebook writes out equals the library; its exercises name the usual slips."""

import pytest
import torch
import torch.nn.functional as F
from notebook_code import assert_same_loss, definition, solution, verdict
from notebook_files import ROOT

from kdutils.course.exercises import chapter02 as exercises
from kdutils.evaluate import linear_cka
from kdutils.losses import Regressor, VIDLoss, at_loss, attention_map, fsp_loss, hint_loss, nst_loss
from kdutils.taps import FeatureTap

NOTEBOOK = ROOT / "notebooks" / "02_feature_knowledge.ipynb"

# What the notebook writes out equals the library

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
        torch.testing.assert_close(attention_map(features, p=p), by_hand)


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


def test_the_token_grid_has_each_patch_where_it_stands_in_the_image():
    tokens = torch.arange(2 * 16 * 3).view(2, 16, 3)
    as_map = definition(NOTEBOOK, "token_grid")(tokens)
    assert as_map.shape == (2, 3, 4, 4)
    assert all(as_map[1, :, k // 4, k % 4].equal(tokens[1, k]) for k in range(16))


# Exercises


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (14 * 14, "smaller map grows"),
        (16 * 49, "student's channels"),
        (32 * 49, "teacher's channels"),
        (32 * 14 * 14, "nothing"),
        (7, "height times width"),
        (50, "too high"),
    ],
)
def test_slip_in_the_count_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.compared_numbers, attempt)


def patterns(features, dim=2):
    return F.normalize(features.flatten(2), dim=dim)


def kernel(a, b, power=2):
    return torch.einsum("nip,njp->nij", a, b).pow(power)


def reader_loss(s, t, own_s=1, own_t=1, mixed=-2, power=2, average=torch.mean):
    """The exercise as a reader may write it, with room for the slips."""
    return (
        own_s * average(kernel(s, s, power))
        + own_t * average(kernel(t, t, power))
        + mixed * average(kernel(s, t, power))
    )


SLIPS = {
    "not scaled to length one": lambda s, t: reader_loss(s.flatten(2), t.flatten(2).detach()),
    "scaled over the channels": lambda s, t: reader_loss(patterns(s, 1), patterns(t, 1).detach()),
    "the kernel is not squared": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), power=1),
    "factor 2 of the mixed term": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), mixed=-1),
    "it is subtracted": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), mixed=2),
    "the student's own patterns": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), own_s=0),
    "the teacher's own patterns": lambda s, t: reader_loss(patterns(s), patterns(t).detach(), own_t=0),
    "not divided by N": lambda s, t: reader_loss(
        patterns(s), patterns(t).detach(), average=lambda k: k.mean(dim=(1, 2)).sum()
    ),
    "the teacher learns too": lambda s, t: reader_loss(patterns(s), patterns(t)),
    "swapped": lambda s, t: reader_loss(patterns(t), patterns(s).detach()),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_nst_loss_is_named(capsys, name):
    said = verdict(capsys, exercises.nst_loss_written_out, SLIPS[name])
    assert said.startswith("✗ not yet: looks as if") and name in said


def test_another_mistake_in_nst_loss_is_not_passed(capsys):
    said = verdict(capsys, exercises.nst_loss_written_out, lambda s, t: (s.mean() - t.detach().mean()) ** 2)
    assert said.startswith("✗ not yet") and "looks as if" not in said


def gap_of(pairs_used=lambda pairs: pairs, average=False, student_learns=True):
    """The third exercise as a reader may write it, with room for the slips."""

    def gap(student, teacher, images, pairs):
        losses = []
        for mine, its in pairs_used(pairs):
            with torch.set_grad_enabled(student_learns), FeatureTap(student, {"own": mine}) as own:
                student(images)
            with torch.no_grad(), FeatureTap(teacher, {"theirs": its}) as theirs:
                teacher(images)
            losses.append(at_loss(own["own"], theirs["theirs"]))
        return sum(losses) / (len(losses) if average else 1)

    return gap


GAP_SLIPS = {
    "only the first pair": gap_of(lambda pairs: pairs[:1]),
    "only the last pair": gap_of(lambda pairs: pairs[-1:]),
    "averaged": gap_of(average=True),
    "without gradients": gap_of(student_learns=False),
}


@pytest.mark.parametrize("name", GAP_SLIPS)
def test_slip_in_the_gap_is_named(capsys, name):
    said = verdict(capsys, exercises.attention_gap, GAP_SLIPS[name])
    assert said.startswith("✗ not yet: looks as if") and name in said


def test_another_way_to_write_the_gap_passes(capsys):
    assert verdict(capsys, exercises.attention_gap, gap_of()).startswith("✓ passed")


def test_the_printed_gap_passes(capsys):
    names = {"torch": torch, "FeatureTap": FeatureTap, "at_loss": at_loss}
    gap = solution(NOTEBOOK, 3)["attention_gap"]
    gap.__globals__.update(names)
    assert verdict(capsys, exercises.attention_gap, gap).startswith("✓ passed")
