"""Figures hold what they promise: every seed a dot, roles in their colors, axes with names."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox

from kdutils.compare import Runs, paired_gain
from kdutils.course import plot

ARMS = {"labels only": [70.0, 72.0, 71.0], "distilled": [71.5, 74.5, 72.0], "DIST": [72.0, 75.0, 73.0]}
RUNS = Runs([0, 1, 2], {"test accuracy (%)": ARMS, "loss (nats)": {arm: [0.5] * 3 for arm in ARMS}})


@pytest.fixture(autouse=True)
def fresh_figures():
    matplotlib.use("agg")
    plt.close("all")
    with matplotlib.rc_context():
        yield
    plt.close("all")


def dots(ax):
    """Positions, color and number of corners of every scatter."""
    return [
        (
            scatter.get_offsets().tolist(),
            to_hex(scatter.get_facecolor()[0]),
            len(scatter.get_paths()[0].vertices),
        )
        for scatter in ax.collections
        if isinstance(scatter, matplotlib.collections.PathCollection)
    ]


def bars_of(ax):
    return [
        lines.get_segments()[0]
        for lines in ax.collections
        if isinstance(lines, matplotlib.collections.LineCollection)
    ]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_style_is_the_courses():
    plot.use_style()
    figure, ax = plt.subplots()
    assert figure.get_size_inches().tolist() == [6, 3.5] and 100 <= figure.dpi <= 120
    assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()


# Roles


def test_roles_have_their_colors():
    colors = plot.role_colors(
        ["teacher", "labels only", "distilled", "teacher's hard labels", "distilled + maps", "ensemble"]
    )
    assert colors["teacher"] == plot.TEACHER and colors["labels only"] == plot.BASELINE
    assert colors["distilled"] == plot.DISTILLED
    others = [colors[arm] for arm in ("teacher's hard labels", "distilled + maps", "ensemble")]
    assert len({*others, plot.TEACHER, plot.BASELINE, plot.DISTILLED}) == 6


@pytest.mark.parametrize(
    "arm, role",
    [
        ("teacher, ten epochs", plot.TEACHER),
        ("baseline", plot.BASELINE),
        ("labels only, twice as wide", plot.BASELINE),
        ("KD, T = 4", plot.DISTILLED),
        ("soft targets", plot.DISTILLED),
        ("hard decisions of the teacher", plot.HARD_DECISIONS),
        ("know-nothing teacher", plot.KNOW_NOTHING),
        ("augmented labels", plot.AUGMENTED),
    ],
)
def test_a_role_is_told_by_how_the_name_begins(arm, role):
    assert plot.role_colors([arm]) == {arm: role}


def test_an_arm_without_a_role_takes_no_color_of_a_role_that_is_there():
    arms = ["hard decisions", "know-nothing", "augmented labels", "a", "b", "distilled", "distilled twice"]
    assert len(set(plot.role_colors(arms[:5]).values())) == 5
    assert len({plot.role_colors(arms)[arm] for arm in arms[3:]} & {plot.KNOW_NOTHING}) == 0


def test_there_are_colors_for_many_arms():
    arms = [f"student {n}" for n in range(12)]
    assert list(plot.role_colors(arms)) == arms
    assert len({plot.role_colors(arms)[arm] for arm in arms[:5]}) == 5


def test_roles_are_told_apart_without_color():
    assert len(set(plot.MARKERS.values())) == len(plot.MARKERS) and "^" not in plot.MARKERS.values()
    assert set(plot.ROLES.values()) <= set(plot.MARKERS)


# Every seed


def test_every_seed_is_a_dot_in_its_arms_column():
    ax = plot.every_seed(RUNS)
    drawn = dots(ax)
    assert [positions for positions, _, _ in drawn] == [
        [[x, value] for value in values] for x, values in enumerate(ARMS.values())
    ]
    assert [color for _, color, _ in drawn] == [plot.BASELINE, plot.DISTILLED, plot.OTHERS[0]]
    assert len({corners for _, _, corners in drawn}) == 3


def test_means_have_as_many_decimals_as_asked_for():
    ax = plot.every_seed(RUNS, digits=3)
    assert [text.get_text() for text in ax.texts] == [f"{RUNS.mean(arm):.3f}" for arm in ARMS]


def test_paired_seeds_are_joined_and_means_are_bars():
    ax = plot.every_seed(RUNS)
    assert [list(line.get_ydata()) for line in ax.lines] == [
        list(seed) for seed in zip(*ARMS.values(), strict=True)
    ]
    bars = bars_of(ax)
    assert [bar[0][1] for bar in bars] == [sum(values) / 3 for values in ARMS.values()]
    assert all(bar[0][0] < x < bar[1][0] for x, bar in enumerate(bars))


def test_the_mean_stands_beside_its_bar():
    ax = plot.every_seed(RUNS)
    assert [(text.get_text(), to_hex(text.get_color())) for text in ax.texts] == [
        ("71.0", plot.BASELINE), ("72.7", plot.DISTILLED), ("73.3", plot.OTHERS[0]),
    ]  # fmt: skip
    assert [text.xy[1] for text in ax.texts] == [RUNS.mean(arm) for arm in ARMS]


def test_axes_are_named_and_arms_wrapped():
    ax = plot.every_seed(Runs([0, 1], {"test accuracy (%)": {"distilled with attention maps": [1.0, 2.0]}}))
    assert ax.get_ylabel() == "test accuracy (%)"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["distilled with\nattention maps"]


def test_another_measure_and_given_axes():
    figure, given = plt.subplots()
    ax = plot.every_seed(RUNS, "loss (nats)", ax=given)
    assert ax is given and ax.get_ylabel() == "loss (nats)"
    assert {bar[0][1] for bar in bars_of(ax)} == {0.5}
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match=r"measure: expected one of .*got 'ms'"):
        plot.every_seed(RUNS, "ms")


def test_references_nearby_are_dashed_and_named():
    ax = plot.every_seed(RUNS, references={"teacher": 80.0, "chance": 62.0})
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [80.0, 62.0]
    assert texts(ax)[-2:] == ["teacher 80.0", "chance 62.0"]
    low, high = ax.get_ylim()
    assert low < 62 and high > 80


def test_references_far_away_are_named_at_the_edge_and_leave_the_dots_their_room():
    ax = plot.every_seed(RUNS, references={"teacher": 91.9, "chance": 10.0})
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]
    assert texts(ax)[-2:] == ["teacher 91.9 ↑", "chance 10.0 ↓"]
    assert [text.get_position() for text in ax.texts[-2:]] == [(0.98, 1.0), (0.98, 0.0)]
    low, high = ax.get_ylim()
    assert low > 65 and high < 80


# Gains


GAINS = {"distilled": paired_gain([1.0, 2.0, 4.0]), "DIST": paired_gain([-1.0, 0.5])}


def test_a_gain_shows_its_seeds_mean_and_interval_against_zero():
    ax = plot.gains(GAINS)
    drawn = [positions for positions, _, _ in dots(ax)]
    assert drawn == [
        [[value, 0] for value in (1.0, 2.0, 4.0)],
        [[GAINS["distilled"].mean, 0]],
        [[value, 1] for value in (-1.0, 0.5)],
        [[-0.25, 1]],
    ]
    zero, *intervals = [list(line.get_xdata()) for line in ax.lines]
    assert zero == [0, 0]
    assert intervals == [[gain.low, gain.high] for gain in GAINS.values()]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(GAINS)
    assert ax.get_xlabel() == "gain (points)"
    low, high = ax.get_ylim()
    assert low > 1 and high < 0, "the first gain is on top, none on the edge"


def test_a_gains_number_stands_beside_its_diamond():
    ax = plot.gains(GAINS)
    assert texts(ax) == ["+2.3", "−0.2"]
    assert [text.xy for text in ax.texts] == [(GAINS["distilled"].mean, 0), (-0.25, 1)]


# Curves


def ticks(ax):
    ax.figure.canvas.draw()
    return [label.get_text() for label in ax.get_xticklabels()]


def test_curves_go_through_the_means_and_show_every_seed():
    arms = {"labels only": {75: [1.0, 3.0], 1200: [4.0, 6.0]}, "distilled": {75: [0.0, 1.0]}}
    ax = plot.curves(arms, xlabel="steps")
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[75, 2], [1200, 5]], [[75, 0.5]]]
    assert [line.get_color() for line in ax.lines] == [plot.BASELINE, plot.DISTILLED]
    assert [positions for positions, _, _ in dots(ax)] == [
        [[75, 1], [75, 3]], [[1200, 4], [1200, 6]], [[75, 0], [75, 1]],
    ]  # fmt: skip
    assert {(text.get_text(), text.xy) for text in ax.texts} == {
        ("labels only", (1200, 5)),
        ("distilled", (75, 0.5)),
    }
    assert ax.get_xscale() == "log" and ticks(ax) == ["75", "1,200"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("steps", "test accuracy (%)")


def test_names_of_curves_that_end_close_together_do_not_overlap():
    arms = {"distilled": {50: [0.0], 500: [80.2]}, "labels only": {50: [40.0], 500: [80.0]}}
    ax = plot.curves(arms)
    ax.figure.canvas.draw()
    lower, upper = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert lower.y1 < upper.y0
    assert max(ax.texts, key=lambda text: text.get_window_extent().y0).get_text() == "distilled"


def test_a_curve_of_gains_has_their_intervals_and_numbers():
    gains = {50: paired_gain([8.0, 10.0]), 20_000: paired_gain([-1.0, 0.5])}
    ax = plot.gain_curve(gains, xlabel="labels")
    zero, line, *intervals = [list(line.get_ydata()) for line in ax.lines]
    assert zero == [0, 0] and line == [9.0, -0.25]
    assert intervals == [[gain.low, gain.high] for gain in gains.values()]
    assert texts(ax) == ["+9.0", "−0.2"] and ticks(ax) == ["50", "20,000"]


# Answers and borders


def test_small_probabilities_are_bars_that_can_be_seen_and_read():
    ax = plt.subplots()[1]
    plot.probabilities(
        torch.tensor([0.913, 0.0861, 0.00034, 0.0000062]), ["boot", "sneaker", "bag", "coat"], ax
    )
    assert ax.get_xscale() == "log"
    assert [text.get_text().strip() for text in ax.texts] == ["0.91", "0.09", "0.0003", "0.000006"]
    ax.figure.canvas.draw()
    lengths = [Bbox.intersection(bar.get_window_extent(), ax.bbox).width for bar in ax.patches]
    assert min(lengths) > 0.05 * ax.bbox.width and lengths == sorted(lengths, reverse=True)
    top, bottom = ax.transData.transform([(1, 0), (1, 3)])[:, 1]
    assert top > bottom, "the first class is on top"


def test_an_answer_stands_beside_its_image():
    pixels = torch.arange(4, dtype=torch.uint8).reshape(1, 2, 2)
    plot.answer(pixels, torch.tensor([0.9, 0.1]), ["bag", "boot"])
    left, right = plt.gcf().axes
    assert (left.images[0].get_array() == pixels[0].numpy()).all() and not left.axison
    assert [label.get_text() for label in right.get_yticklabels()] == ["bag", "boot"]
    assert len(right.patches) == 2


def test_borders_lie_where_a_classifier_changes_its_mind():
    """Class 0 left of x = −1, class 1 up to x = 1, class 2 beyond."""
    x = torch.linspace(-2, 2, 41).expand(41, -1)
    logits = torch.stack([-x - 1, torch.zeros_like(x), x - 1], dim=-1)
    ax = plt.subplots()[1]
    plot.borders(torch.stack([logits, logits + 3]), extent=2, ax=ax, color=plot.DISTILLED)
    places = [path.vertices[:, 0] for lines in ax.collections for path in lines.get_paths()]
    assert len(ax.collections) == 4  # two networks, the borders of two classes
    assert {round(float(place), 3) for line in places for place in line} == {-1.0, 1.0}


# Images and maps


def test_images_stand_under_their_titles():
    pictures = torch.arange(3 * 4, dtype=torch.uint8).reshape(3, 1, 2, 2)
    plot.images(pictures, ["a", "b", "c"])
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes] == ["a", "b", "c"]
    assert all(
        (ax.images[0].get_array() == picture[0].numpy()).all()
        for ax, picture in zip(axes, pictures, strict=True)
    )
    assert not any(ax.axison for ax in axes)
    with pytest.raises(ValueError):
        plot.images(pictures, ["a"])


def test_one_image_is_a_row():
    plot.images(torch.zeros(1, 1, 2, 2), ["a"])
    assert len(plt.gcf().axes) == 1


def test_rows_of_maps_are_named_and_shaded_by_role():
    maps = torch.rand(3, 4, 5)
    plot.map_rows({"teacher": maps, "labels only": list(maps[:2])}, titles=["bag", "boot", "coat"])
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes[:3]] == ["bag", "boot", "coat"]
    assert axes[0].get_ylabel() == "teacher" and axes[3].get_ylabel() == "labels only"
    assert [len(ax.images) for ax in axes] == [1, 1, 1, 1, 1, 0]
    assert torch.equal(torch.tensor(axes[4].images[0].get_array()), maps[1])
    assert axes[0].images[0].get_cmap().name == "Greys" and axes[3].images[0].get_cmap().name == "Oranges"


# Relations


def test_matrices_share_one_scale_and_their_classes_are_parted_and_named():
    matrices = {"teacher": torch.eye(5), "student": 3 * torch.eye(5) - 1}
    plot.relation_matrices(matrices, torch.tensor([0, 0, 2, 2, 2]), ["bag", "coat", "boot"], "cosine")
    left, right, bar = plt.gcf().axes
    assert [ax.get_title() for ax in (left, right)] == ["teacher", "student"]
    assert [ax.images[0].get_clim() for ax in (left, right)] == [(-1, 2)] * 2
    assert (right.images[0].get_array() == matrices["student"].numpy()).all()
    assert [label.get_text() for label in left.get_yticklabels()] == ["bag", "boot"]
    assert left.get_yticks().tolist() == [0.5, 3.0] and len(right.get_yticks()) == 0
    assert [set(line.get_xdata()) | set(line.get_ydata()) for line in right.lines] == [{0, 1, 1.5}] * 2
    assert bar.get_ylabel() == "cosine"


def test_a_graph_joins_its_pictures_by_the_strength_of_their_relations():
    ax = plt.subplots()[1]
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    edges = torch.tensor([[0.0, 0.5, 0.05], [0.5, 0.0, -0.3], [0.05, -0.3, 0.0]])
    plot.image_graph(positions, torch.zeros(3, 1, 2, 2), edges, "a triangle", ax, framed=1)
    assert [to_hex(line.get_color()) for line in ax.lines] == ["#b0413e", "#d9d9d9", plot.DISTILLED]
    assert [line.get_linewidth() for line in ax.lines] == pytest.approx([3.5, 0.8, 2.3])
    assert ax.lines[2].get_xydata().tolist() == [[0, 1], [1, 0]]
    boxes = [artist for artist in ax.artists if hasattr(artist, "patch")]
    assert [box.xybox for box in boxes] == positions.tolist()
    assert [to_hex(box.patch.get_edgecolor()) for box in boxes] == ["#999999", "#000000", "#999999"]
    assert ax.get_title() == "a triangle"


@pytest.mark.parametrize("queries", [1, 3])
def test_wrong_neighbors_are_framed(queries):
    pictures = torch.arange(queries * 4.0).reshape(queries, 1, 2, 2)
    right = torch.arange(queries) == 0
    plot.neighbors(pictures, {"student": pictures + 1}, {"student": right})
    axes = plt.gcf().axes
    assert len(axes) == 2 * queries
    framed = [ax.spines["left"].get_visible() for ax in axes]
    assert framed == [False] * queries + (~right).tolist()
    assert (axes[-1].images[0].get_array() == pictures[-1, 0].numpy() + 1).all()
    assert (axes[0].get_ylabel(), axes[queries].get_ylabel()) == ("query", "student")


# Names beside points


POINTS = {"teacher": (2.0, 92.0, plot.TEACHER), "distilled": (0.3, 84.0, plot.DISTILLED)}


def named(points, **size):
    ax = plt.subplots(**size)[1]
    ax.scatter([x for x, _, _ in points.values()], [y for _, y, _ in points.values()])
    plot.name_points(ax, points)
    return ax


def test_names_stand_above_their_markers_on_an_axis_of_plain_numbers():
    ax = named(POINTS)
    ax.figure.canvas.draw()
    assert texts(ax) == ["teacher", "distilled"]
    for label, (x, y, color) in zip(ax.texts, POINTS.values(), strict=True):
        assert label.get_color() == color
        centre = ax.transData.transform((x, y))[1]
        assert label.get_window_extent().y0 >= centre + 3.5 * ax.figure.dpi / 72
    shown = [label.get_text() for label in ax.get_xticklabels()]
    assert ax.get_xscale() == "log" and {"0.5", "1", "2"} <= set(shown)


def test_a_name_makes_way_for_earlier_names():
    ax = named({"a": (1.0, 80.0, "k"), "b": (1.05, 80.0, "k"), "far": (10.0, 20.0, "k")})
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.texts]
    assert sum(box.count_overlaps(boxes) for box in boxes) == len(boxes)  # each with itself alone


def test_a_name_that_makes_way_at_the_edge_stays_inside_the_axes():
    """Above is the earlier name, below and to the right its marker, to the left the axis."""
    points = {"both": (0.0737, 74.5, "k"), "all combined": (0.0707, 74.8, "k"), "far": (0.5, 92, "k")}
    ax = named(points, figsize=(8, 5.5))
    boxes = [label.get_window_extent() for label in ax.texts]
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)
    assert sum(box.count_overlaps(boxes) for box in boxes) == len(boxes)
