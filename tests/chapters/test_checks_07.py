"""The slips that the exercise checks of notebook 07 know are named."""

import pytest
import torch
from faults import NOTEBOOKS
from notebook_code import solution, verdict

from kdutils.course.exercises import chapter07 as exercises

NOTEBOOK = NOTEBOOKS / "07_smaller_student.ipynb"


def over_groups(merge, weight, group, dim):
    """Neighbouring channels along one dimension, merged by a function of a tensor and a dimension."""
    return torch.stack([merge(piece, dim) for piece in weight.split(group, dim=dim)], dim=dim)


def merged(outputs, inputs):
    def attempt(weight, group):
        if outputs:
            weight = over_groups(outputs, weight, group, 0)
        return over_groups(inputs, weight, group, 1) if inputs else weight

    return attempt


def merged_far_apart(weight, group):
    outputs = sum(weight.chunk(group, dim=0)) / group
    return sum(outputs.chunk(group, dim=1))


SLIPS = {
    "the inputs were averaged": merged(torch.mean, torch.mean),
    "the outputs were added up": merged(torch.sum, torch.sum),
    "only the outputs were merged": merged(torch.mean, None),
    "only the inputs were merged": merged(None, torch.sum),
    "channels were selected": lambda weight, group: weight[::group][:, ::group],
    "channels far apart": merged_far_apart,
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_merged_weight_is_named(capsys, name):
    said = verdict(capsys, exercises.merged_weight, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


def test_another_way_to_merge_passes(capsys):
    assert verdict(capsys, exercises.merged_weight, merged(torch.mean, torch.sum)) == "✓ passed"


def test_the_printed_solution_keeps_its_promise():
    """Equal inputs within each group: the merged convolution gives the mean of each group of outputs."""
    merged_weight = solution(NOTEBOOK, 2)["merged_weight"]
    weight, image = torch.randn(6, 4, 3, 3), torch.randn(2, 2, 5, 5)
    outputs = torch.nn.functional.conv2d(image.repeat_interleave(2, dim=1), weight)
    expected = outputs.view(2, 3, 2, 3, 3).mean(dim=2)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(image, merged_weight(weight, 2)), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (16, "saved the square"),
        (4, "one side"),
        (15.59, "parameters"),
        (45.86, "lost layers"),
        (0.0633, "other way round"),
    ],
)
def test_slip_in_the_saving_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.times_fewer, attempt)


def test_two_digits_are_enough(capsys):
    assert verdict(capsys, exercises.times_fewer, 15.8) == "✓ passed"


@pytest.mark.parametrize("attempt", ["larger", "the same", "nonsense", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.head_start, attempt).startswith("✗ not yet")
