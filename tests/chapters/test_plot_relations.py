"""Figures of relations: matrices in one scale, graphs of pictures, neighbors with their mistakes framed."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex

from kdutils.course import plot

PICTURES = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def fresh_figures():
    matplotlib.use("agg")
    plt.close("all")
    yield
    plt.close("all")


def test_relation_matrices_share_their_scale_and_name_the_classes():
    matrices = {"student": torch.eye(5), "teacher": 3 * torch.eye(5)}
    plot.relation_matrices(matrices, torch.tensor([1, 1, 1, 4, 4]), ["a", "b", "c", "d", "e"], "distance (m)")
    student, teacher, bar = plt.gcf().axes
    assert [student.get_title(), teacher.get_title()] == ["student", "teacher"]
    assert student.images[0].get_clim() == teacher.images[0].get_clim() == (0, 3)
    assert [label.get_text() for label in student.get_yticklabels()] == ["b", "e"]
    assert student.get_yticks().tolist() == [1.0, 3.5]
    assert [line.get_ydata()[0] for line in teacher.lines if line.get_xdata()[0] != line.get_xdata()[1]] == [
        2.5
    ]
    assert bar.get_ylabel() == "distance (m)"


def test_edges_of_a_graph_tell_too_long_from_too_short():
    edges = torch.zeros(4, 4)
    edges[1, 0], edges[2, 0] = 0.5, -0.5
    ax = plt.subplots()[1]
    plot.image_graph(torch.rand(4, 2), PICTURES, edges, "title", ax, framed=3)
    colors = [to_hex(line.get_color()) for line in ax.lines]
    assert len(colors) == 6
    assert sorted(colors) == sorted([to_hex("#b0413e"), plot.DISTILLED] + 4 * [to_hex("0.85")])
    frames = [box.patch.get_linewidth() for box in ax.artists]
    assert len(frames) == 4 and max(frames) == frames[3] > frames[0]


def test_wrong_neighbors_are_framed():
    plot.neighbors(PICTURES, {"student": PICTURES}, {"student": torch.tensor([True, False, True, True])})
    axes = plt.gcf().axes
    framed = [ax.spines["left"].get_visible() for ax in axes]
    assert framed == [False] * 4 + [False, True, False, False]
    assert [axes[0].get_ylabel(), axes[4].get_ylabel()] == ["query", "student"]
