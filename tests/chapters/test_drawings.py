"""Drawings speak one language: frames say what is trained, arrows where data and gradients go."""

from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from kdutils.course import drawings
from kdutils.course.drawings import LOSS, STUDENT, TEACHER, Place

PIXELS = torch.arange(4 * 4, dtype=torch.uint8).reshape(4, 4)


@pytest.fixture(autouse=True)
def no_figure_is_left():
    matplotlib.use("agg")
    yield
    plt.close("all")


def of_kind(ax, kind):
    return [patch for patch in ax.patches if type(patch) is kind]


def words(ax):
    return {text.get_text() for text in ax.texts}


def test_a_place_has_four_sides():
    place = Place(3, 2, 4, 1)
    assert (place.left, place.right, place.top, place.bottom) == ((1, 2), (5, 2), (3, 2.5), (3, 1.5))


def test_a_sheet_has_equal_units_and_no_axes():
    ax = drawings.sheet(10, 5, scale=0.6)
    assert ax.figure.get_size_inches().tolist() == [6, 3] and not ax.axison
    assert (ax.get_xlim(), ax.get_ylim(), ax.get_aspect()) == ((0, 10), (0, 5), 1)


@pytest.mark.parametrize(("trained", "line", "word"), [(True, "-", "trained"), (False, "--", "frozen")])
def test_the_frame_of_a_network_says_whether_it_is_trained(trained, line, word):
    ax = drawings.sheet(10, 5)
    place = drawings.network(ax, Place(3, 2, 4, 1), "student", STUDENT, trained=trained)
    (box,) = of_kind(ax, FancyBboxPatch)
    assert (box.get_linestyle(), to_hex(box.get_edgecolor())) == (line, STUDENT)
    assert words(ax) == {"student", word} and place == (3, 2, 4, 1)
    drawn = box.get_path().get_extents()
    assert (drawn.x0, drawn.x1, drawn.y0, drawn.y1) == pytest.approx((1, 5, 1.5, 2.5))


def test_bars_stand_on_their_line_and_the_highest_fills_the_place():
    ax = drawings.sheet(10, 5)
    drawings.bars(ax, Place(3, 2, 4, 1), [0.2, 0.8], TEACHER, "softened")
    low, high = of_kind(ax, Rectangle)
    assert (low.get_height(), high.get_height()) == (0.25, 1) and low.get_y() == high.get_y() == 1.5
    assert 1 < low.get_x() < 3 < high.get_x() and high.get_x() + high.get_width() < 5
    assert words(ax) == {"softened"}


def test_an_image_stands_in_its_frame_and_leaves_the_sheet_as_it_was():
    ax = drawings.sheet(10, 5)
    drawings.image(ax, Place(3, 2, 2, 2), PIXELS)
    assert list(ax.images[0].get_extent()) == [2, 4, 1, 3]
    assert (ax.images[0].get_array() == PIXELS.numpy()).all()
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 10), (0, 5))


def test_a_loss_is_a_circle_with_its_name_and_sides():
    ax = drawings.sheet(10, 5)
    place = drawings.loss(ax, (4, 2), "KL", radius=0.5)
    (circle,) = of_kind(ax, Circle)
    assert (circle.center, circle.radius, to_hex(circle.get_edgecolor())) == ((4, 2), 0.5, LOSS)
    assert place.left == (3.5, 2) and words(ax) == {"KL"}


def ends(arrow):
    return arrow._posA_posB


def test_data_flows_along_solid_arrows_and_gradients_along_dashed_ones():
    ax = drawings.sheet(10, 5)
    drawings.flow(ax, (1, 1), (2, 2), STUDENT)
    drawings.gradient(ax, (3, 3), (3, 0), (1, 0), (1, 1))
    data, back = of_kind(ax, FancyArrowPatch)
    assert (data.get_linestyle(), to_hex(data.get_edgecolor()), ends(data)) == (
        "-",
        STUDENT,
        [(1, 1), (2, 2)],
    )
    assert to_hex(back.get_edgecolor()) == LOSS and ends(back) == [(1, 0), (1, 1)]
    assert back.get_linestyle() == drawings.DASHES
    assert ax.lines[0].get_xydata().tolist() == [[3, 3], [3, 0], [1, 0]] and ax.lines[0].is_dashed()


def test_in_response_distillation_the_teacher_is_frozen_and_gradients_reach_the_student_alone():
    ax = drawings.response_distillation(PIXELS, label="Bag")
    assert {"teacher", "frozen", "student", "trained", "label: Bag", "KL · T²", "CE", "× 0.9"} <= words(ax)
    frames = {to_hex(box.get_edgecolor()): box.get_linestyle() for box in of_kind(ax, FancyBboxPatch)}
    assert frames == {TEACHER: "--", STUDENT: "-"}
    teacher, student = (box.get_path().get_extents() for box in of_kind(ax, FancyBboxPatch))
    back = [ends(a)[1] for a in of_kind(ax, FancyArrowPatch) if a.get_linestyle() != "-"]
    assert len(back) == 1
    x, y = back[0]
    assert student.x0 < x < student.x1 and y == pytest.approx(student.y0) and y < teacher.y0


def test_every_arrow_of_response_distillation_ends_within_the_sheet():
    ax = drawings.response_distillation(PIXELS, label="Bag")
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    for arrow in of_kind(ax, FancyArrowPatch):
        assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in ends(arrow))


def test_a_distillation_system_names_its_three_components():
    ax = drawings.distillation_system(PIXELS)
    said = " ".join(words(ax))
    assert all(component in said for component in ("KNOWLEDGE", "ALGORITHM", "ARCHITECTURE"))
    frames = {to_hex(box.get_edgecolor()): box.get_linestyle() for box in of_kind(ax, FancyBboxPatch)}
    assert frames == {TEACHER: "--", STUDENT: "-"}
    (back,) = [ends(a)[1] for a in of_kind(ax, FancyArrowPatch) if a.get_linestyle() != "-"]
    student = of_kind(ax, FancyBboxPatch)[1].get_path().get_extents()
    assert back == pytest.approx(((student.x0 + student.x1) / 2, student.y0))
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    for arrow in of_kind(ax, FancyArrowPatch):
        assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in ends(arrow))


def test_stored_views_show_the_student_the_view_and_the_teacher_the_original_or_the_view():
    ax = drawings.stored_views(PIXELS, PIXELS.flip(1))
    assert {"stale answer", "matching answer", "moved", "teacher", "frozen", "student"} <= words(ax)
    frames = [box.get_linestyle() for box in of_kind(ax, FancyBboxPatch)]
    assert frames == ["--", "-"] * 2
    arrows = [ends(arrow) for arrow in of_kind(ax, FancyArrowPatch)]
    (stale_start, stale_end), (start, end) = (arrows[1 + 5 * panel] for panel in (0, 1))
    assert stale_start[1] == stale_end[1]  # the original lies beside the teacher
    assert start[1] == arrows[7][0][1] < end[1]  # the view, from which the student's arrow starts, too
    assert all(0 <= x <= 13.2 and 0 <= y <= 5.6 for arrow in arrows for x, y in arrow)


def test_few_steps_start_where_many_do_and_one_loss_compares_their_ends():
    ax = drawings.fewer_steps()
    noise, end, drawn, compared = of_kind(ax, Circle)
    arrows = of_kind(ax, FancyArrowPatch)
    of_student = [a for a in arrows if to_hex(a.get_edgecolor()) == STUDENT]
    of_teacher = [a for a in arrows if to_hex(a.get_edgecolor()) == TEACHER]
    assert len(of_student) == 2 and len(of_teacher) == 9  # one step, and eight; one more each to the loss
    assert ends(of_student[0]) == [noise.center, drawn.center]
    assert (ends(of_teacher[0])[0], ends(of_teacher[-1])[0]) == (noise.center, end.center)
    assert to_hex(compared.get_edgecolor()) == LOSS


def test_in_subliminal_learning_only_three_numbers_of_each_network_reach_the_loss():
    ax = drawings.subliminal_learning(PIXELS)
    assert {"teacher", "frozen", "student", "trained", "three numbers", "MSE"} <= words(ax)
    frames = {to_hex(box.get_edgecolor()): box.get_linestyle() for box in of_kind(ax, FancyBboxPatch)}
    assert frames == {TEACHER: "--", STUDENT: "-"}
    (circle,) = of_kind(ax, Circle)
    x, y = circle.center
    arrows = of_kind(ax, FancyArrowPatch)
    compared = [a for a in arrows if ends(a)[1] == pytest.approx((x - circle.radius, y))]
    assert [to_hex(a.get_edgecolor()) for a in compared] == [TEACHER, STUDENT]
    assert sum(a.get_linestyle() != "-" for a in arrows) == 1


def test_who_is_the_teacher_shows_seven_of_whom_two_are_trained():
    ax = drawings.who_is_the_teacher()
    titles = sorted(word for word in words(ax) if " · " in word)
    assert [title[:2] for title in titles] == ["04", "05", "05", "06", "06", "06", "06"]
    boxes = of_kind(ax, FancyBboxPatch)
    assert [box.get_linestyle() for box in boxes[::2]] == ["--", "-", "--", "-", "--", "--", "--"]
    assert {box.get_linestyle() for box in boxes[1::2]} == {"-"}
    assert to_hex(boxes[0].get_edgecolor()) == TEACHER and {"k steps old", "an epoch ago"} <= words(ax)


def test_in_who_is_the_teacher_only_peers_teach_both_ways_and_all_stays_on_the_sheet():
    ax = drawings.who_is_the_teacher()
    arrows = of_kind(ax, FancyArrowPatch)
    upward = [arrow for arrow in arrows if ends(arrow)[1][1] > ends(arrow)[0][1]]
    assert (len(arrows), len(upward)) == (8, 1)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    for box in of_kind(ax, FancyBboxPatch):
        drawn = box.get_path().get_extents()
        assert x0 < drawn.x0 < drawn.x1 < x1 and y0 < drawn.y0 < drawn.y1 < y1


TAPPED = {  # what compares two layers → its name, and how many networks are drawn
    "hint_transfer": ("MSE", 7),
    "attention_transfer": ("MSE", 6),
    "flow_transfer": ("MSE", 6),
    "pattern_transfer": ("MMD", 6),
    "variational_transfer": ("NLL", 7),
}


@pytest.mark.parametrize("name", TAPPED)
def test_a_feature_loss_compares_a_frozen_teacher_with_a_trained_student(name):
    ax = getattr(drawings, name)()
    compared, networks = TAPPED[name]
    assert {"teacher", "student", "early", "middle", "late", compared} <= words(ax)
    frames = [(to_hex(box.get_edgecolor()), box.get_linestyle()) for box in of_kind(ax, FancyBboxPatch)]
    assert (
        frames.count((TEACHER, "--")) == 3 and frames.count((STUDENT, "-")) == networks - 3 == len(frames) - 3
    )
    assert_within_the_sheet(ax)


def test_only_answers_travel_between_peers_that_label_a_pool():
    ax = drawings.peers_label_a_pool()
    assert [box.get_linestyle() for box in of_kind(ax, FancyBboxPatch)] == ["-", "-"]
    assert len(of_kind(ax, FancyArrowPatch)) == 6 and "250 images, labels:\nstay at home" in words(ax)


def assert_within_the_sheet(ax):
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    for arrow in of_kind(ax, FancyArrowPatch):
        assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in ends(arrow))


def test_attention_is_compared_at_all_three_layers():
    ax = drawings.attention_transfer()
    assert sorted(circle.center[0] for circle in of_kind(ax, Circle)) == [2.2, 5.2, 8.2]


def test_the_gradient_of_a_hint_reaches_student_and_regressor():
    ax = drawings.hint_transfer()
    boxes = [box.get_path().get_extents() for box in of_kind(ax, FancyBboxPatch)]
    back = [ends(a)[1] for a in of_kind(ax, FancyArrowPatch) if a.get_linestyle() != "-"]
    reached = [
        k
        for k, box in enumerate(boxes)
        for x, y in back
        if box.x0 - 0.01 <= x <= box.x1 + 0.01 and box.y0 - 0.01 <= y <= box.y1 + 0.01
    ]
    assert reached == [4, 6]  # the student's middle layer, the regressor


def test_a_grid_is_darker_where_the_value_is_larger():
    ax = drawings.sheet(10, 5)
    place = drawings.grid(ax, Place(3, 2, 2, 1), [[0.1, 0.9]], TEACHER)
    pale, dark, frame = of_kind(ax, Rectangle)
    assert (pale.get_alpha(), dark.get_alpha(), frame.get_facecolor()[3]) == (0.1, 0.9, 0)
    assert (pale.get_xy(), dark.get_xy(), place.right) == ((2, 1.5), (3, 1.5), (4, 2))


def test_tokens_become_a_grid_of_the_size_that_the_map_is_pooled_to():
    ax = drawings.tokens_to_grid(PIXELS)
    assert {"transformer", "CNN", "16 tokens", "pooled to 4×4"} <= words(ax)
    assert [box.get_linestyle() for box in of_kind(ax, FancyBboxPatch)] == ["-", "--"]
    assert_within_the_sheet(ax)


def test_the_quiz_shows_every_choice_to_the_teacher_and_one_image_to_the_student():
    ax = drawings.contrast_quiz(PIXELS.expand(3, 4, 4))
    assert {"student", "head", "teacher", "CE"} <= words(ax)
    frames = [box.get_linestyle() for box in of_kind(ax, FancyBboxPatch)]
    assert frames == ["--", "-", "-"]  # teacher frozen, student and head trained


def test_relation_transfer_compares_two_triangles():
    ax = drawings.relation_transfer(PIXELS.expand(3, 4, 4))
    assert {"teacher", "student", "RKD", "sides and angles"} <= words(ax) and len(ax.images) == 3
    dots = [to_hex(circle.get_facecolor()) for circle in of_kind(ax, Circle)]
    assert dots.count(TEACHER) == dots.count(STUDENT) == 3
    (back,) = [ends(a)[1] for a in of_kind(ax, FancyArrowPatch) if a.get_linestyle() != "-"]
    assert back == pytest.approx((4.4, 0.75))
    assert_within_the_sheet(ax)


def test_four_losses_name_their_kind_of_relation():
    said = " ".join(words(drawings.kinds_of_relation()))
    assert all(name in said for name in ("RKD", "SP", "PKT", "CC"))


def test_blocks_look_around_with_thick_lines_and_across_with_thin_ones():
    ax = drawings.convolution_blocks()
    assert {"plain", "depthwise separable", "inverted residual"} <= words(ax)
    around = [line for line in ax.lines if to_hex(line.get_color()) == LOSS]
    across = [line for line in ax.lines if to_hex(line.get_color()) == TEACHER]
    assert len(around) == 4 * 4 + 4 + 6  # all to all; each channel alone; each of the wide ones alone
    assert len(across) == 4 * 4 + 2 * 6 + 6 * 2
    assert min(line.get_linewidth() for line in around) > max(line.get_linewidth() for line in across)
    (shortcut,) = of_kind(ax, FancyArrowPatch)
    assert to_hex(shortcut.get_edgecolor()) == STUDENT


def test_the_roofline_rises_with_the_bandwidth_up_to_the_peak():
    ax = drawings.roofline(peak=80.0, bandwidth=8.0)
    assert {"memory:\n8 GB/s", "arithmetic: 80 billion MACs/s"} <= words(ax)
    (roof,) = ax.lines
    assert roof.get_xydata()[0].tolist() == [0.5, 4] and roof.get_xydata()[1].tolist() == [10, 80]


def test_with_a_channel_go_a_row_its_norm_and_a_column():
    ax = drawings.channel_surgery()
    red = [r for r in of_kind(ax, Rectangle) if to_hex(r.get_facecolor()) == LOSS]
    rows = {round(r.get_y(), 6) for r in red[:5]}
    columns = {round(r.get_x(), 6) for r in red[5:]}
    assert len(red) == 3 + 2 + 5 and len(rows) == len(columns) == 1
    assert_within_the_sheet(ax)


def test_the_pruned_copy_is_repaired_by_the_teacher_it_came_from():
    ax = drawings.prune_then_distill()
    assert {"1 · prune", "2 · distill", "3 · round", "KL", "int8 copy"} <= words(ax)
    frames = [(to_hex(box.get_edgecolor()), box.get_linestyle()) for box in of_kind(ax, FancyBboxPatch)]
    assert frames == [(TEACHER, "--"), (STUDENT, "--"), (STUDENT, "-")]
    assert sum(a.get_linestyle() != "-" for a in of_kind(ax, FancyArrowPatch)) == 1
    assert_within_the_sheet(ax)


def test_the_peak_of_running_memory_is_the_layer_that_reads_and_writes_most():
    ax = drawings.running_memory({"one": [1_000, 3_000, 2_000], "other": [1_000, 1_000]})
    one, other = ax.figure.axes
    assert [bar.get_height() for bar in one.patches] == [4, 12, 12, 8]  # kB: read, then written
    assert ("20 kB" in words(one), "8 kB" in words(other)) == (True, True)
    assert one.get_title(loc="left") == "one" or one.get_title() == "one"
    assert one.get_ylim() == other.get_ylim() == (0, 24)


def test_next_tokens_are_compared_after_the_last_of_the_question_up_to_the_token_before_the_end():
    ax = drawings.next_token_distillation()
    assert {"teacher", "student", "K?", "AE?", "T?", ".?"} <= words(ax) and "_?" not in words(ax)
    assert len(of_kind(ax, Circle)) == 4


def colors(patches):
    return [to_hex(patch.get_facecolor()) for patch in patches]


def test_layers_are_bars_as_high_as_they_have_channels():
    ax = drawings.ways_to_cut()
    bars = of_kind(ax, Rectangle)
    assert (
        colors(bars) == [TEACHER] * 5 + [STUDENT] * 11
    )  # five narrow ones, three wide ones, three narrow ones
    heights = [bar.get_height() for bar in bars]
    assert heights[4] == pytest.approx(4 * heights[0]) and heights[5] == pytest.approx(heights[0] / 4)
    assert heights[10:13] == pytest.approx([heights[0], heights[2], heights[4]])
    assert {"teacher", "fewer neurons", "fewer layers", "both"} <= words(ax)


def test_of_a_layer_the_strongest_filters_are_kept_and_of_these_the_inputs_that_are_left():
    ax = drawings.copied_channels()
    cells = [patch for patch in of_kind(ax, Rectangle) if to_hex(patch.get_edgecolor()) == "#ffffff"]
    layers = [cells[:4], cells[4:20], cells[20:]]  # 4 filters of 1 input, then two times 4 of 4
    kept = [[to_hex(cell.get_facecolor()) == STUDENT for cell in layer] for layer in layers]
    first, second, classes = (
        [row[i : i + n] for i in range(0, len(row), n)] for row, n in zip(kept, (1, 4, 4), strict=True)
    )
    filters = [i for i, row in enumerate(first) if any(row)]
    assert filters == [0, 2] and [i for i, keep in enumerate(second[1]) if keep] == filters
    seconds = [i for i, row in enumerate(second) if any(row)]
    assert len(seconds) == 2 and all([i for i, keep in enumerate(row) if keep] == seconds for row in classes)
    assert len(of_kind(ax, FancyArrowPatch)) == 3


def test_the_strongest_filters_of_the_drawing_are_the_ones_that_stay():
    ax = drawings.copied_channels()
    cells = [patch for patch in of_kind(ax, Rectangle) if to_hex(patch.get_edgecolor()) == "#ffffff"][4:20]
    shade = [p.get_alpha() if to_hex(p.get_facecolor()) == STUDENT else p.get_alpha() / 0.35 for p in cells]
    strength = [sum(shade[4 * i : 4 * i + 4]) for i in range(4)]
    assert sorted(range(4), key=strength.__getitem__)[2:] in ([1, 2], [2, 1])


def test_the_straight_line_meets_every_stair_in_its_middle_and_is_flat_where_values_are_clipped():
    ax = drawings.rounding_staircase()
    (stairs,) = [line for line in ax.lines if line.get_linewidth() == 2 and line.get_color() == STUDENT]
    (straight,) = [line for line in ax.lines if line.get_color() == LOSS]
    (_, left), (x0, y0), (x1, y1), (_, right) = straight.get_xydata()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(1) and (left, right) == (y0, y1)
    corners = stairs.get_xydata()
    rises = [(low, high) for low, high in pairwise(corners) if low[0] == high[0]]
    assert len(rises) == 6  # seven levels: three bits
    for low, high in rises:  # the line passes through the middle of every rise
        assert y0 + (low[0] - x0) == pytest.approx((low[1] + high[1]) / 2)


def test_in_fake_quantization_the_gradient_goes_around_the_rounding_to_the_float_weights():
    ax = drawings.fake_quantization()
    frames = [(to_hex(box.get_edgecolor()), box.get_linestyle()) for box in of_kind(ax, FancyBboxPatch)]
    assert frames == [(STUDENT, "-"), (STUDENT, "-"), (TEACHER, "--")]
    weights = of_kind(ax, FancyBboxPatch)[0].get_path().get_extents()
    (back,) = [ends(a)[1] for a in of_kind(ax, FancyArrowPatch) if a.get_linestyle() != "-"]
    assert weights.x0 < back[0] < weights.x1 and back[1] == pytest.approx(weights.y0)
    assert {"float weights", "rounded copy", "teacher", "frozen", "KL"} <= words(ax)
    assert_within_the_sheet(ax)


def test_every_scene_has_its_place_in_the_map_of_slips():
    ax = drawings.where_slips_sit()
    scenes = set()
    for text in words(ax):
        for part in text.split(" · ")[0].split(", ") if " · " in text else []:
            first, *last = part.split("–")
            scenes |= set(range(int(first), int((last or [first])[0]) + 1))
    assert scenes == set(range(1, 21))
    frames = [(to_hex(box.get_edgecolor()), box.get_linestyle()) for box in of_kind(ax, FancyBboxPatch)]
    assert frames == [(TEACHER, "--"), (STUDENT, "-")]
    assert_within_the_sheet(ax)


def test_the_student_gets_the_embeddings_and_three_layers_at_the_height_of_the_teachers():
    ax = drawings.cut_and_distill()
    copied = [
        arrow
        for arrow in of_kind(ax, FancyArrowPatch)
        if to_hex(arrow.get_edgecolor()) == TEACHER and ends(arrow)[1][0] == 10.1
    ]
    assert len(copied) == 4 and all(start[1] == end[1] for start, end in map(ends, copied))
    assert {"cos", "KL · T²", "CE", "the hidden word"} <= words(ax)
    assert [text.get_text() for text in ax.texts].count("layer 4") == 1  # the teacher's only
    assert_within_the_sheet(ax)


def test_losses_on_the_inside_compare_layers_of_one_height():
    ax = drawings.losses_on_the_inside()
    compared = of_kind(ax, Circle)
    assert len(compared) == 3 + 2 + 1
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts if len(text.get_text()) == 1}
    assert {round(circle.center[1], 6) for circle in compared} == {round(heights[i], 6) for i in "025"}
    assert all(start[1] == end[1] for start, end in map(ends, of_kind(ax, FancyArrowPatch)))
    assert {"TinyBERT", "PKD", "MiniLM", "MSE", "KL"} <= words(ax)
    assert_within_the_sheet(ax)
