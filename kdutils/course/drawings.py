"""Drawings of mechanisms: who looks at what, what is compared, what is trained.

One visual language for the whole course. A box with rounded corners is a network: dark gray the teacher, blue
the student; a solid frame is trained, a dashed one is frozen. A plain box is data. Bars are probabilities. A
solid arrow carries data, a dashed one gradients. A red circle compares what arrives there: a loss.

Drawings are made of the primitives below, on a sheet whose units are those of `sheet`. Each mechanism has one
function, which returns the axes so that a chapter may add to it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

from kdutils.course.plot import BASELINE, DISTILLED, OTHERS, TEACHER

STUDENT = DISTILLED
LOSS = "#b0413e"
PALE = {TEACHER: "#e4e4e4", STUDENT: "#dbe8f4", BASELINE: "#fbe6d3", LOSS: "#f6e0df"}
DASHES = (0, (4, 3))
Point = tuple[float, float]
_EIGHTHS = [eighth / 8 for eighth in range(9)]


class Place(NamedTuple):
    """Where something stands: its center, width and height. Arrows start and end at its sides."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        """The middle of the left side."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        """The middle of the right side."""
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> Point:
        """The middle of the upper side."""
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> Point:
        """The middle of the lower side."""
        return self.x, self.y - self.height / 2


# Primitives


def sheet(width: float, height: float, scale: float = 0.6) -> Axes:
    """An empty sheet of so many units; a unit is `scale` inches in both directions."""
    figure = plt.figure(figsize=(width * scale, height * scale))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return ax


def network(ax: Axes, place: Place, name: str, color: str, trained: bool, state: str = "") -> Place:
    """A network: a rounded box, its frame solid where it is trained, dashed where it is frozen.

    state: what stands below its name, in place of "trained" or "frozen".
    """
    corner = place.left[0] + 0.12, place.bottom[1] + 0.12
    box = FancyBboxPatch(
        corner,
        place.width - 0.24,
        place.height - 0.24,
        boxstyle="round,pad=0.12",
        facecolor=PALE.get(color, "white"),
        edgecolor=color,
        linewidth=2 if trained else 1.4,
        linestyle="-" if trained else "--",
    )
    ax.add_patch(box)
    state = state or ("trained" if trained else "frozen")
    ax.text(place.x, place.y + 0.16, name, ha="center", va="center", color=color, weight="bold")
    ax.text(place.x, place.y - 0.26, state, ha="center", va="center", color=color, fontsize="small")
    return place


def data(ax: Axes, place: Place, text: str, color: str = TEACHER) -> Place:
    """Data in a plain box: a label, logits, a batch of images."""
    corner = place.left[0], place.bottom[1]
    ax.add_patch(Rectangle(corner, place.width, place.height, facecolor="white", edgecolor=color))
    ax.text(place.x, place.y, text, ha="center", va="center", color=color, fontsize="small")
    return place


def image(ax: Axes, place: Place, pixels: Tensor) -> Place:
    """A gray-scale image (H, W) in its frame."""
    extent = (place.left[0], place.right[0], place.bottom[1], place.top[1])
    ax.imshow(pixels.numpy(), extent=extent, cmap="gray_r", zorder=2)
    corner = place.left[0], place.bottom[1]
    ax.add_patch(Rectangle(corner, place.width, place.height, facecolor="none", edgecolor=TEACHER, zorder=3))
    ax.set(xlim=(0, ax.get_xlim()[1]), ylim=(0, ax.get_ylim()[1]))  # imshow has moved them
    return place


def bars(ax: Axes, place: Place, heights: Sequence[float], color: str, caption: str = "") -> Place:
    """Probabilities as bars that stand on a line; the highest fills the place.

    Args:
        ax: The sheet.
        place: Where the bars stand.
        heights: One number for every class.
        color: Of the bars: whose probabilities they are.
        caption: Written below.
    """
    step = place.width / len(heights)
    for k, height in enumerate(heights):
        corner = place.left[0] + (k + 0.15) * step, place.bottom[1]
        size = place.height * height / max(heights)
        ax.add_patch(Rectangle(corner, 0.7 * step, size, facecolor=color, edgecolor="none"))
    ax.plot([place.left[0], place.right[0]], [place.bottom[1]] * 2, color=color, linewidth=1)
    ax.text(place.x, place.bottom[1] - 0.08, caption, ha="center", va="top", color=color, fontsize="small")
    return place


def grid(ax: Axes, place: Place, shades: Sequence[Sequence[float]], color: str) -> Place:
    """A map or a matrix: rows of squares, the darker the larger the value between 0 and 1."""
    rows, columns = len(shades), len(shades[0])
    width, height = place.width / columns, place.height / rows
    for i, row in enumerate(shades):
        for j, shade in enumerate(row):
            corner = place.left[0] + j * width, place.top[1] - (i + 1) * height
            ax.add_patch(Rectangle(corner, width, height, facecolor=color, alpha=shade, edgecolor="none"))
    corner = place.left[0], place.bottom[1]
    ax.add_patch(Rectangle(corner, place.width, place.height, facecolor="none", edgecolor=color))
    return place


def loss(ax: Axes, center: Point, name: str, radius: float = 0.55) -> Place:
    """Where things are compared: a red circle with the loss's short name."""
    ax.add_patch(Circle(center, radius, facecolor=PALE[LOSS], edgecolor=LOSS, linewidth=1.6, zorder=3))
    ax.text(*center, name, ha="center", va="center", color=LOSS, weight="bold", fontsize="small", zorder=4)
    return Place(*center, 2 * radius, 2 * radius)


def flow(ax: Axes, start: Point, end: Point, color: str = TEACHER) -> None:
    """A solid arrow: data goes from start to end, in the color of whose data it is."""
    _arrow(ax, start, end, color, "-")


def gradient(ax: Axes, *corners: Point) -> None:
    """A dashed arrow along corners: the gradient of a loss goes back to what is trained."""
    *path, last_but_one, end = corners
    ax.plot(*zip(*path, last_but_one, strict=True), color=LOSS, linestyle=DASHES, linewidth=1.4)
    _arrow(ax, last_but_one, end, LOSS, DASHES)


def _arrow(ax: Axes, start: Point, end: Point, color: str, linestyle: str | tuple, bend: float = 0.0) -> None:
    arrow = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=12,
        connectionstyle=f"arc3,rad={bend}",
        shrinkA=0,
        shrinkB=2,
        color=color,
        linestyle=linestyle,
        linewidth=1.4,
    )
    ax.add_patch(arrow)


def note(ax: Axes, place: Point, text: str, color: str = TEACHER, ha: str = "center") -> None:
    """A few small words."""
    ax.text(*place, text, ha=ha, va="center", color=color, fontsize="small")


# Mechanisms


def distillation_system(pixels: Tensor) -> Axes:
    """Chapter 00: a teacher, a student, and the three components: knowledge, algorithm, architecture.

    Args:
        pixels: An image that both look at, shape (H, W).
    """
    ax = sheet(13, 6.6)
    picture = image(ax, Place(1.3, 3.6, 1.9, 1.9), pixels)
    teacher = network(ax, Place(5.0, 5.0, 3.2, 1.9), "teacher", TEACHER, trained=False)
    student = network(ax, Place(5.0, 2.2, 1.9, 1.1), "student", STUDENT, trained=True)
    taught = bars(ax, Place(8.6, 5.0, 1.9, 1.1), [0.25, 0.4, 0.2, 1, 0.65], TEACHER)
    tried = bars(ax, Place(8.6, 2.2, 1.9, 1.1), [0.5, 0.35, 0.4, 1, 0.4], STUDENT)
    compared = loss(ax, (11.3, 3.6), "loss", radius=0.6)
    for net, answer, color in ((teacher, taught, TEACHER), (student, tried, STUDENT)):
        flow(ax, picture.right, net.left, color)
        flow(ax, net.right, answer.left, color)
        flow(ax, answer.right, compared.left, color)
    below = 0.75
    gradient(ax, compared.bottom, (compared.x, below), (student.x, below), student.bottom)
    note(ax, (8.6, 6.25), "1 · KNOWLEDGE: what is passed on", OTHERS[0])
    note(ax, (8.3, 0.35), "2 · ALGORITHM: who learns from whom, and when", OTHERS[1])
    note(ax, (5.4, 3.4), "3 · ARCHITECTURE: into what", BASELINE)
    return ax


def response_distillation(pixels: Tensor, label: str) -> Axes:
    """Chapter 01: two networks see one image; two losses compare their softened answers, and the label.

    Args:
        pixels: The image, shape (H, W).
        label: Its class.
    """
    ax = sheet(13, 6.6)
    picture = image(ax, Place(1.1, 4.0, 1.7, 1.7), pixels)
    teacher = network(ax, Place(4.1, 5.6, 2.6, 1.5), "teacher", TEACHER, trained=False)
    student = network(ax, Place(4.1, 2.9, 1.9, 1.1), "student", STUDENT, trained=True)
    taught = bars(ax, Place(7.5, 5.6, 1.7, 1.0), [0.25, 0.4, 0.2, 1, 0.65], TEACHER, "softened by T")
    tried = bars(ax, Place(7.5, 3.6, 1.7, 1.0), [0.5, 0.35, 0.4, 1, 0.4], STUDENT, "softened by T")
    plain = bars(ax, Place(7.5, 1.6, 1.7, 1.0), [0.08, 0.04, 0.06, 1, 0.06], STUDENT, "as it is")
    word = data(ax, Place(7.5, 0.35, 2.3, 0.55), f"label: {label}", BASELINE)
    kd = loss(ax, (10.4, 4.6), "KL · T²", radius=0.6)
    ce = loss(ax, (10.4, 1.2), "CE", radius=0.6)
    for net, answers in ((teacher, [taught]), (student, [tried, plain])):
        flow(ax, picture.right, net.left)
        for answer in answers:
            flow(ax, net.right, answer.left, TEACHER if net is teacher else STUDENT)
    flow(ax, taught.right, kd.left, TEACHER)
    flow(ax, tried.right, kd.left, STUDENT)
    flow(ax, plain.right, ce.left, STUDENT)
    flow(ax, word.right, ce.left, BASELINE)
    note(ax, (11.15, 4.6), "× 0.9", LOSS, ha="left")
    note(ax, (11.15, 1.2), "× 0.1", LOSS, ha="left")
    _gradient_below(ax, student, kd, ce)
    return ax


def hint_transfer() -> Axes:
    """Chapter 02: a trained regressor lifts the student's middle layer to the channels of the teacher's."""
    ax = sheet(12.4, 6.8)
    teacher, student = _layers(ax)
    regressor = network(ax, Place(5.2, 2.75, 2.2, 1.1), "regressor", STUDENT, trained=True)
    compared = loss(ax, (5.2, 4.25), "MSE", radius=0.5)
    flow(ax, teacher[1].bottom, compared.top)
    flow(ax, student[1].top, regressor.bottom, STUDENT)
    flow(ax, regressor.top, compared.bottom, STUDENT)
    note(ax, (5.4, 5.0), "64 channels", TEACHER, ha="left")
    note(ax, (5.4, 3.54), "64 channels", STUDENT, ha="left")
    note(ax, (5.0, 1.75), "12 channels", STUDENT, ha="right")
    note(ax, (3.9, 2.75), "thrown away\nafter training", STUDENT, ha="right")
    gradient(ax, compared.right, (8.9, 4.25), (8.9, 2.75), regressor.right)
    gradient(ax, (8.9, 2.75), (8.9, 1.75), (5.8, 1.75), (5.8, student[1].top[1]))
    note(ax, (9.1, 3.5), "gradient", LOSS, ha="left")
    return ax


def attention_transfer() -> Axes:
    """Chapter 02: every layer becomes one map of where it is active; the maps are compared."""
    ax = sheet(12.4, 6.8)
    shown = [
        (
            [[0.1, 0.2, 0.5], [0.2, 0.9, 0.7], [0.1, 0.3, 0.2]],
            [[0.5, 0.2, 0.1], [0.3, 0.4, 0.8], [0.2, 0.6, 0.1]],
        ),
        (
            [[0.8, 0.3, 0.1], [0.6, 0.2, 0.1], [0.1, 0.3, 0.1]],
            [[0.4, 0.5, 0.1], [0.7, 0.1, 0.2], [0.1, 0.6, 0.3]],
        ),
        (
            [[0.1, 0.6, 0.1], [0.2, 0.9, 0.2], [0.4, 0.1, 0.1]],
            [[0.2, 0.3, 0.7], [0.1, 0.6, 0.3], [0.6, 0.1, 0.2]],
        ),
    ]
    for taught, trained, (theirs, own) in zip(*_layers(ax), shown, strict=True):
        x = taught.x
        compared = loss(ax, (x, 3.4), "MSE", radius=0.45)
        map_above = grid(ax, Place(x, 4.6, 0.75, 0.75), theirs, TEACHER)
        map_below = grid(ax, Place(x, 2.2, 0.75, 0.75), own, STUDENT)
        flow(ax, taught.bottom, map_above.top)
        flow(ax, map_above.bottom, compared.top)
        flow(ax, trained.top, map_below.bottom, STUDENT)
        flow(ax, map_below.top, compared.bottom, STUDENT)
    note(ax, (9.2, 4.6), "mean of the squared\nchannels, length 1", TEACHER, ha="left")
    note(ax, (9.2, 2.2), "the same map,\nfewer channels", STUDENT, ha="left")
    note(ax, (9.2, 3.4), "one loss for each layer", LOSS, ha="left")
    return ax


def flow_transfer() -> Axes:
    """Chapter 02: two layers of a network become one matrix of which channels go together."""
    ax = sheet(12.4, 6.8)
    teacher, student = _layers(ax)
    theirs = [[0.9, 0.1, 0.1, 0.6], [0.1, 0.7, 0.2, 0.1], [0.2, 0.1, 0.8, 0.3]]
    own = [[0.4, 0.3, 0.2, 0.5], [0.3, 0.4, 0.6, 0.1], [0.5, 0.1, 0.4, 0.4]]
    x = (teacher[0].x + teacher[1].x) / 2
    matrix_above = grid(ax, Place(x, 4.55, 1.2, 0.9), theirs, TEACHER)
    matrix_below = grid(ax, Place(x, 2.25, 1.2, 0.9), own, STUDENT)
    compared = loss(ax, (x, 3.4), "MSE", radius=0.45)
    for layers, matrix, color in ((teacher, matrix_above, TEACHER), (student, matrix_below, STUDENT)):
        side = matrix.top if color == TEACHER else matrix.bottom
        for layer in layers[:2]:
            start = layer.bottom if color == TEACHER else layer.top
            flow(ax, start, side, color)
    flow(ax, matrix_above.bottom, compared.top)
    flow(ax, matrix_below.top, compared.bottom, STUDENT)
    note(ax, (x - 0.8, 4.55), "early channels", TEACHER, ha="right")
    note(ax, (x + 0.8, 4.55), "× middle channels: which fire at the same places?", TEACHER, ha="left")
    note(ax, (x + 0.8, 2.25), "the same table, after a regressor on each layer", STUDENT, ha="left")
    return ax


def pattern_transfer() -> Axes:
    """Chapter 02: the channels of a layer as a set of patterns; two sets are compared, in no order."""
    ax = sheet(12.4, 6.8)
    teacher, student = _layers(ax)
    theirs = [
        [[0.9, 0.1], [0.2, 0.1]],
        [[0.1, 0.2], [0.8, 0.7]],
        [[0.1, 0.9], [0.1, 0.6]],
        [[0.3, 0.3], [0.1, 0.9]],
    ]
    own = [[[0.2, 0.3], [0.7, 0.4]], [[0.6, 0.2], [0.1, 0.3]]]
    bag_above = data(ax, Place(8.2, 4.55, 3.1, 0.8), "")
    bag_below = data(ax, Place(8.2, 2.2, 3.1, 0.8), "", STUDENT)
    for bag, patterns, color in ((bag_above, theirs, TEACHER), (bag_below, own, STUDENT)):
        step = bag.width / len(patterns)
        for k, pattern in enumerate(patterns):
            grid(ax, Place(bag.left[0] + (k + 0.5) * step, bag.y, 0.6, 0.6), pattern, color)
    compared = loss(ax, (8.2, 3.38), "MMD", radius=0.42)
    flow(ax, teacher[2].bottom, bag_above.top)
    flow(ax, student[2].top, bag_below.bottom, STUDENT)
    flow(ax, bag_above.bottom, compared.top)
    flow(ax, bag_below.top, compared.bottom, STUDENT)
    note(ax, (6.4, 4.55), "one map for each channel,\nevery map of length 1", TEACHER, ha="right")
    note(ax, (6.4, 2.2), "fewer maps, in no order", STUDENT, ha="right")
    return ax


def variational_transfer() -> Axes:
    """Chapter 02: the student predicts every channel of the teacher, and how sure it can be of each."""
    ax = sheet(12.4, 6.8)
    teacher, student = _layers(ax)
    predictor = network(ax, Place(8.2, 2.6, 2.2, 1.0), "mean", STUDENT, trained=True)
    compared = loss(ax, (8.2, 4.35), "NLL", radius=0.45)
    flow(ax, teacher[2].bottom, compared.top)
    flow(ax, student[2].top, predictor.bottom, STUDENT)
    flow(ax, predictor.top, compared.bottom, STUDENT)
    places = [step / 20 - 1 for step in range(41)]
    for x, width, at in ((1.6, 0.16, 0.1), (3.6, 0.34, -0.25), (5.6, 0.62, 0.6)):
        bell = [0.16 / width * 1.25 * 2.718 ** (-((place / width) ** 2) / 2) for place in places]
        ax.plot([x + 0.9 * place for place in places], [2.9 + height for height in bell], color=STUDENT)
        ax.plot([x - 0.9, x + 0.9], [2.9, 2.9], color=STUDENT, linewidth=0.8)
        ax.plot([x + 0.9 * at], [2.9], "s", color=TEACHER, markersize=6)
    note(
        ax,
        (3.6, 4.45),
        "three of the teacher's channels: its value (square),\nwhat the student expects (bell)",
        TEACHER,
    )
    note(ax, (1.6, 2.5), "predictable:\ncounts much", STUDENT)
    note(ax, (5.6, 2.5), "unpredictable:\ncounts little", STUDENT)
    return ax


def tokens_to_grid(pixels: Tensor) -> Axes:
    """Chapter 02: a transformer's tokens laid out as a grid, and a pooled map of a CNN beside them.

    Args:
        pixels: An image, shape (H, W), with H and W multiples of 4.
    """
    ax = sheet(13, 6.2)
    shades = [[0.1, 0.3, 0.2, 0.1], [0.2, 0.8, 0.9, 0.3], [0.3, 0.9, 0.8, 0.2], [0.1, 0.4, 0.5, 0.1]]
    picture = image(ax, Place(1.3, 3.1, 1.9, 1.9), pixels)
    transformer = network(ax, Place(4.4, 1.2, 2.4, 1.2), "transformer", STUDENT, trained=True)
    convolutions = network(ax, Place(4.4, 5.0, 2.4, 1.2), "CNN", TEACHER, trained=False)
    tokens = grid(ax, Place(7.2, 1.2, 0.35, 2.2), [[shade] for row in shades for shade in row], STUDENT)
    as_map = grid(ax, Place(9.4, 1.2, 1.5, 1.5), shades, STUDENT)
    fine = [[0.5 * (shades[i * 4 // 7][j * 4 // 7] + 0.1) for j in range(7)] for i in range(7)]
    maps = grid(ax, Place(7.2, 5.0, 1.5, 1.5), fine, TEACHER)
    pooled = grid(ax, Place(9.4, 5.0, 1.5, 1.5), shades, TEACHER)
    compared = loss(ax, (9.4, 3.1), "MSE", radius=0.5)
    for net, color in ((transformer, STUDENT), (convolutions, TEACHER)):
        flow(ax, picture.right, net.left, color)
    flow(ax, transformer.right, tokens.left, STUDENT)
    flow(ax, tokens.right, as_map.left, STUDENT)
    flow(ax, convolutions.right, maps.left)
    flow(ax, maps.right, pooled.left)
    flow(ax, pooled.bottom, compared.top)
    flow(ax, as_map.top, compared.bottom, STUDENT)
    note(ax, (6.9, 2.6), "16 tokens", STUDENT)
    note(ax, (10.3, 1.2), "a grid of 4×4", STUDENT, ha="left")
    note(ax, (7.2, 4.0), "7×7")
    note(ax, (10.3, 5.0), "pooled to 4×4", TEACHER, ha="left")
    note(ax, (9.6, 2.28), "regressor", STUDENT, ha="left")
    return ax


def _layers(ax: Axes) -> tuple[list[Place], list[Place]]:
    """Three layers of a frozen teacher above, of a trained student below: early, middle, late."""
    rows = []
    for name, color, y, height in (("teacher", TEACHER, 6.0, 1.3), ("student", STUDENT, 0.7, 1.0)):
        places = [Place(x, y, 2.0, height) for x in (2.2, 5.2, 8.2)]
        for place, layer in zip(places, ("early", "middle", "late"), strict=True):
            network(ax, place, layer, color, trained=color == STUDENT)
        flow(ax, (0.5, y), places[0].left, color)
        for one, other in pairwise(places):
            flow(ax, one.right, other.left, color)
        answer = data(ax, Place(11.0, y, 1.3, 0.6), "answer", color)
        flow(ax, places[2].right, answer.left, color)
        note(ax, (0.1, y + 0.35), name, color, ha="left")
        rows.append(places)
    return rows[0], rows[1]


def who_is_the_teacher() -> Axes:
    """Chapters 04 to 06: seven teachers of one student. Solid frames are trained, dashed ones are not."""
    ax = sheet(14, 8.6, scale=0.5)
    tiles = {
        "04 · a finished network": ("teacher", "frozen", TEACHER),
        "05 · a peer": ("peer", "trained", STUDENT),
        "05 · a peer's stale copy": ("copy of a peer", "k steps old", STUDENT),
        "06 · the deepest exit": ("last exit", "trained", STUDENT),
        "06 · a parent": ("parent", "frozen", STUDENT),
        "06 · its own past": ("itself", "an epoch ago", STUDENT),
        "06 · its moving average": ("mean of itself", "follows slowly", STUDENT),
    }
    for number, (title, (name, state, color)) in enumerate(tiles.items()):
        row, column = divmod(number, 4)
        x, top = 1.75 + 3.5 * column + 1.75 * row, 7.1 - 4.4 * row
        is_exit, is_trained = name == "last exit", state == "trained"
        if is_exit:
            data(ax, Place(x, top - 0.95, 3.1, 3.4), "", STUDENT)
        teacher = network(ax, Place(x, top, 2.7, 1.0), name, color, is_trained, state)
        learner = "first exit" if is_exit else "peer" if name == "peer" else "student"
        student = network(ax, Place(x, top - 1.95, 2.7, 1.0), learner, STUDENT, trained=True)
        aside = 0.3 if name == "peer" else 0.0  # two arrows, side by side
        flow(ax, (x + aside, teacher.bottom[1]), (x + aside, student.top[1]), color)
        if aside:
            flow(ax, (x - aside, student.top[1]), (x - aside, teacher.bottom[1]), STUDENT)
        note(ax, (x, top + 1.05), title, TEACHER)
    return ax


def peers_label_a_pool() -> Axes:
    """Chapter 05: two peers, each with images at home; what travels is a copy's answers to a common pool."""
    ax = sheet(14, 6.0, scale=0.5)
    pool = data(ax, Place(7, 4.9, 3.4, 1.0), "pool, no labels:\neverybody's")
    for side, name in ((-1, "A"), (1, "B")):
        peer = network(ax, Place(7 + 4.6 * side, 2.9, 2.8, 1.0), f"peer {name}", STUDENT, trained=True)
        home = data(ax, Place(peer.x, 0.9, 3.4, 1.0), "250 images, labels:\nstay at home", BASELINE)
        flow(ax, home.top, peer.bottom, BASELINE)
        x = pool.left[0] if side < 0 else pool.right[0]
        flow(ax, (x, pool.y), (peer.x, peer.top[1]), TEACHER)
        note(ax, (peer.x, peer.top[1] + 0.75), f"what does {name} say?", TEACHER)
    left, right = 7 - 4.6 + 1.4, 7 + 4.6 - 1.4
    flow(ax, (left, 3.15), (right, 3.15), STUDENT)
    flow(ax, (right, 2.65), (left, 2.65), STUDENT)
    note(ax, (7, 3.45), "A's copy answers for the pool", STUDENT)
    note(ax, (7, 2.3), "B's copy answers for the pool", STUDENT)
    return ax


def relation_transfer(batch: Tensor) -> Axes:
    """Chapter 03: each network places three images; the triangles are compared, never the places.

    Args:
        batch: Three images, shape (3, H, W).
    """
    ax = sheet(13, 5.6)
    pictures = [image(ax, Place(1.1, 4.6 - 1.8 * k, 1.4, 1.4), pixels) for k, pixels in enumerate(batch)]
    teacher = network(ax, Place(4.4, 4.3, 3.0, 1.6), "teacher", TEACHER, trained=False)
    student = network(ax, Place(4.4, 1.3, 1.9, 1.1), "student", STUDENT, trained=True)
    compared = loss(ax, (11.4, 2.8), "RKD", radius=0.6)
    wide = [(7.6, 3.6), (9.4, 3.6), (7.6, 5.0)]
    small = [(8.0, 0.9), (9.0, 0.9), (8.0, 1.9)]
    for net, corners, color in ((teacher, wide, TEACHER), (student, small, STUDENT)):
        for picture in pictures:
            flow(ax, picture.right, net.left)
        _triangle(ax, corners, color)
        flow(ax, net.right, (7.2, net.y), color)
        flow(ax, (9.7, net.y), compared.left, color)
    note(ax, (8.5, 5.35), "places of 128 numbers", TEACHER)
    note(ax, (8.5, 0.45), "places of 8 numbers", STUDENT)
    note(ax, (11.4, 3.75), "sides and angles", LOSS)
    gradient(ax, compared.bottom, (11.4, 0.15), (4.4, 0.15), student.bottom)
    return ax


def contrast_quiz(batch: Tensor) -> Axes:
    """Chapter 03: the student's embedding of one image looks for the teacher's embedding of the same image.

    Args:
        batch: Three images, shape (3, H, W). The student is asked about the second.
    """
    ax = sheet(13, 5.6)
    pictures = [image(ax, Place(0.9, 4.7 - 1.8 * k, 1.4, 1.4), pixels) for k, pixels in enumerate(batch)]
    teacher = network(ax, Place(3.9, 4.4, 2.8, 1.5), "teacher", TEACHER, trained=False)
    student = network(ax, Place(3.9, 1.3, 1.9, 1.1), "student", STUDENT, trained=True)
    head = network(ax, Place(6.5, 1.3, 1.5, 0.9), "head", STUDENT, trained=True)
    for picture in pictures:
        flow(ax, picture.right, teacher.left)
    flow(ax, pictures[1].right, student.left, STUDENT)
    flow(ax, student.right, head.left, STUDENT)
    asked = grid(ax, Place(8.6, 1.3, 1.5, 0.4), [[0.8, 0.3, 0.5, 0.9]], STUDENT)
    flow(ax, head.right, asked.left, STUDENT)
    shades = [[0.1, 0.9, 0.4, 0.2], [0.9, 0.3, 0.4, 0.8], [0.3, 0.2, 0.9, 0.1]]
    choices = [grid(ax, Place(8.6, 5.1 - 0.7 * k, 1.5, 0.4), [row], TEACHER) for k, row in enumerate(shades)]
    for choice in choices:
        flow(ax, teacher.right, choice.left)
    shares = bars(ax, Place(10.6, 2.4, 1.2, 1.3), [0.2, 0.7, 0.1], STUDENT, "shares")
    flow(ax, asked.right, (9.95, 1.75), STUDENT)
    flow(ax, choices[2].right, (10.2, 3.2))
    quiz = loss(ax, (12.3, 2.4), "CE")
    flow(ax, (shares.right[0], 2.4), quiz.left, STUDENT)
    note(ax, (9.65, 4.4), "the same image\nis the right answer", LOSS, ha="left")
    ax.add_patch(Rectangle((7.75, 4.1), 1.7, 0.6, facecolor="none", edgecolor=LOSS, linewidth=2.0))
    gradient(ax, quiz.bottom, (12.3, 0.3), (3.9, 0.3), student.bottom)
    gradient(ax, (6.5, 0.3), head.bottom)
    return ax


def kinds_of_relation() -> Axes:
    """Chapter 03: what four losses call a relation between the samples of a batch."""
    ax = sheet(13, 3.4)
    corners = [(0.6, 1.4), (2.6, 1.4), (0.6, 2.9)]
    _triangle(ax, corners, STUDENT)
    ax.plot(*zip(*corners[1:], strict=True), color=LOSS, linewidth=2.6)
    ax.add_patch(Rectangle((0.62, 1.42), 0.28, 0.28, facecolor="none", edgecolor=LOSS, linewidth=2))
    alike = [[0.3, 0.6, 0.7], [0.28, 0.85, 0.45], [0.25, 0.35, 0.9]]
    grid(ax, Place(4.7, 2.2, 1.6, 1.6), alike, STUDENT)
    ax.add_patch(Rectangle((3.9, 1.93), 1.6, 0.54, facecolor="none", edgecolor=LOSS, linewidth=2.4))
    bars(ax, Place(8.1, 2.1, 1.6, 1.3), [0.35, 0.38, 0.28], LOSS)
    pairs = [[1.0, 0.55, 0.5], [0.55, 1.0, 0.3], [0.5, 0.3, 1.0]]
    grid(ax, Place(11.5, 2.2, 1.6, 1.6), pairs, STUDENT)
    ax.add_patch(
        Rectangle((12.3 - 0.533, 2.47), 0.533, 0.533, facecolor="none", edgecolor=LOSS, linewidth=2.4)
    )
    said = {
        1.6: "RKD\na side, an angle",
        4.7: "SP\na sample's row of\ninner products",
        8.1: "PKT\nhow likely each sample\nis chosen as a neighbor",
        11.5: "CC\na kernel of every pair",
    }
    for x, text in said.items():
        ax.text(x, 1.1, text, ha="center", va="top", color=TEACHER, fontsize="small")
    return ax


def _triangle(ax: Axes, corners: Sequence[Point], color: str) -> None:
    """Three samples as dots, and the sides between them."""
    ax.plot(*zip(*corners, corners[0], strict=True), color=color, linewidth=1.4)
    for corner in corners:
        ax.add_patch(Circle(corner, 0.13, facecolor=color, edgecolor="white", zorder=3))


def stored_views(original: Tensor, view: Tensor) -> Axes:
    """Chapter 04: what the teacher looks at while the student sees a view: the original, or the same view.

    Args:
        original: An image, shape (H, W).
        view: The same image moved, shape (H, W).
    """
    ax = sheet(13.2, 5.6, scale=0.55)
    for left, title, is_stale in ((0.0, "stale answer", True), (6.8, "matching answer", False)):
        whole = image(ax, Place(left + 1.0, 3.8, 1.5, 1.5), original)
        moved = image(ax, Place(left + 1.0, 1.0, 1.5, 1.5), view)
        teacher = network(ax, Place(left + 3.5, 3.8, 2.0, 1.4), "teacher", TEACHER, trained=False)
        student = network(ax, Place(left + 3.5, 1.0, 1.9, 1.2), "student", STUDENT, trained=True)
        kd = loss(ax, (left + 5.6, 2.4), "KL")
        flow(ax, whole.bottom, moved.top)
        note(ax, (left + 1.15, 2.4), "moved", ha="left")
        flow(ax, (whole if is_stale else moved).right, teacher.left)
        flow(ax, moved.right, student.left, STUDENT)
        flow(ax, teacher.right, kd.top)
        flow(ax, student.right, kd.bottom, STUDENT)
        note(ax, (left + 3.2, 5.2), title, LOSS if is_stale else STUDENT)
    return ax


def fewer_steps() -> Axes:
    """Chapter 16: the teacher's many small steps, the student's single one, and a loss where both end."""
    ax = sheet(13, 4.6)
    noise, end = (1.4, 2.6), (10.2, 1.9)
    way = [(noise[0] + (end[0] - noise[0]) * t, noise[1] + 5.2 * t * (1 - t) - 0.7 * t) for t in _EIGHTHS]
    for start, stop in pairwise(way):
        _arrow(ax, start, stop, TEACHER, "-")
    drawn = end[0] - 0.7, end[1] - 0.75
    _arrow(ax, noise, drawn, STUDENT, "-", bend=0.16)
    for place, color in ((noise, "0.6"), (end, TEACHER), (drawn, STUDENT)):
        ax.add_patch(Circle(place, 0.17, facecolor=color, edgecolor="white", zorder=3))
    note(ax, (noise[0], noise[1] + 0.5), "noise")
    note(ax, (5.8, 4.2), "teacher (frozen): many small steps", TEACHER)
    note(ax, (5.4, 0.5), "student (trained): one step", STUDENT)
    compared = loss(ax, (12.0, 1.5), "MSE")
    flow(ax, end, compared.left, TEACHER)
    flow(ax, drawn, compared.left, STUDENT)
    return ax


def next_token_distillation() -> Axes:
    """Chapter 13: both models read one text; they are compared after each token that an answer follows."""
    ax = sheet(13, 8.6, scale=0.5)
    text = ["_", "c", "a", "t", "=", "K", "AE", "T", ".", "_"]
    heights = {4: [0.2, 1, 0.3], 5: [0.1, 0.4, 1], 6: [1, 0.2, 0.1], 7: [0.1, 1, 0.1]}
    teacher = network(ax, Place(6.5, 7.0, 12.6, 1.0), "teacher", TEACHER, trained=False)
    student = network(ax, Place(6.5, 2.0, 12.6, 1.0), "student", STUDENT, trained=True)
    for place, token in enumerate(text):
        x, is_answer = 0.9 + 1.25 * place, 5 <= place <= 8
        for y, net in ((8.2, teacher), (0.75, student)):
            box = data(ax, Place(x, y, 0.8, 0.55), token, LOSS if is_answer else TEACHER)
            start, side = (box.bottom, net.top[1]) if net is teacher else (box.top, net.bottom[1])
            flow(ax, start, (x, side), TEACHER if net is teacher else STUDENT)
        if place in heights:
            taught = bars(ax, Place(x, 5.8, 0.8, 0.55), heights[place], TEACHER)
            tried = bars(ax, Place(x, 3.0, 0.8, 0.55), [h**0.5 for h in heights[place]], STUDENT)
            kl = loss(ax, (x, 4.4), "KL", radius=0.4)
            flow(ax, taught.bottom, kl.top)
            flow(ax, tried.top, kl.bottom, STUDENT)
            note(ax, (x + 0.45, 3.85), f"{text[place + 1]}?", LOSS, ha="left")
    note(ax, (2.8, 4.4), "question: not compared", ha="center")
    note(ax, (11.6, 4.4), "padding:\nnot compared", ha="center")
    return ax


def subliminal_learning(noise: Tensor) -> Axes:
    """Chapter 17: both networks see noise; only three outputs without a meaning are compared.

    Args:
        noise: An image of noise, shape (H, W).
    """
    ax = sheet(12.4, 5.2)
    picture = image(ax, Place(1.1, 2.6, 1.7, 1.7), noise)
    teacher = network(ax, Place(4.2, 3.9, 2.4, 1.4), "teacher", TEACHER, trained=False)
    student = network(ax, Place(4.2, 1.3, 2.4, 1.4), "student", STUDENT, trained=True)
    data(ax, Place(7.6, 4.65, 2.3, 0.6), "ten classes: unused")
    taught = data(ax, Place(7.6, 3.5, 2.3, 0.6), "three numbers")
    tried = data(ax, Place(7.6, 1.7, 2.3, 0.6), "three numbers", STUDENT)
    data(ax, Place(7.6, 0.55, 2.3, 0.6), "ten classes: unused", STUDENT)
    mse = loss(ax, (10.3, 2.6), "MSE", radius=0.6)
    for net, answer, color in ((teacher, taught, TEACHER), (student, tried, STUDENT)):
        flow(ax, picture.right, net.left)
        flow(ax, net.right, answer.left, color)
        flow(ax, answer.right, mse.left, color)
    gradient(ax, mse.right, (11.7, 2.6), (11.7, 0.1), (4.2, 0.1), student.bottom)
    note(ax, (1.1, 1.45), "noise, new in every step")
    note(ax, (11.6, 1.3), "gradient", LOSS, ha="right")
    return ax


def ways_to_cut() -> Axes:
    """Chapter 07: layers as bars, as high as they have channels; fewer neurons, fewer layers, both."""
    ax = sheet(13.2, 3.9)
    shapes = {
        "teacher": ("5 layers,\n32 to 128 channels", (32, 64, 64, 128, 128), TEACHER),
        "fewer neurons": ("5 layers,\n8 to 32 channels", (8, 16, 16, 32, 32), STUDENT),
        "fewer layers": ("3 layers,\n32 to 128 channels", (32, 64, 128), STUDENT),
        "both": ("3 layers,\n8 to 32 channels", (8, 16, 32), STUDENT),
    }
    for column, (name, (counts, widths, color)) in enumerate(shapes.items()):
        center = 1.9 + 3.15 * column
        left = center - 0.25 * (len(widths) - 1)
        for number, width in enumerate(widths):
            height = 0.0155 * width
            corner = left + 0.5 * number - 0.15, 2.15 - height / 2
            ax.add_patch(Rectangle(corner, 0.3, height, facecolor=color, edgecolor="none"))
        ax.text(center, 3.55, name, ha="center", va="center", color=color, weight="bold")
        note(ax, (center, 0.55), counts, color)
    return ax


def copied_channels() -> Axes:
    """Chapter 07: every layer keeps its strongest filters, and of these the inputs that are left."""
    ax = sheet(12.6, 6.2)
    kept_rows = {"first layer": (0, 2), "second layer": (1, 2), "classifier": (0, 1, 2, 3)}
    strengths = {
        "first layer": ((0.85,), (0.3,), (0.95,), (0.2,)),
        "second layer": (
            (0.2, 0.4, 0.3, 0.2), (0.9, 0.5, 0.8, 0.6), (0.7, 0.9, 0.85, 0.4), (0.3, 0.1, 0.4, 0.2),
        ),
        "classifier": (
            (0.4, 0.7, 0.5, 0.3), (0.6, 0.4, 0.8, 0.5), (0.3, 0.8, 0.4, 0.6), (0.5, 0.5, 0.7, 0.4),
        ),
    }  # fmt: skip
    inputs: tuple[int, ...] = (0,)
    size, centers = 0.52, (2.3, 6.2, 10.1)
    for x, (name, rows) in zip(centers, strengths.items(), strict=True):
        outputs, columns = kept_rows[name], len(rows[0])
        left, top = x - size * columns / 2, 5.35
        for i, row in enumerate(rows):
            for j, shade in enumerate(row):
                color = STUDENT if i in outputs and j in inputs else TEACHER
                alpha = shade if color == STUDENT else 0.35 * shade
                corner = left + j * size, top - (i + 1) * size
                ax.add_patch(Rectangle(corner, size, size, facecolor=color, alpha=alpha, edgecolor="white"))
        note(ax, (x, 5.75), f"teacher's {name}")
        small = [[rows[i][j] for j in inputs] for i in outputs]
        width, height = size * len(inputs), size * len(outputs)
        place = grid(ax, Place(x, 2.5 - height / 2, width, height), small, STUDENT)
        flow(ax, (x, top - 4 * size - 0.1), place.top, STUDENT)
        inputs = outputs
    for x, text in ((4.25, "filters that\nstay …"), (8.15, "… are the\ninputs left")):
        note(ax, (x, 4.3), text, STUDENT)
    note(ax, (2.3, 0.15), "2 filters", STUDENT)
    note(ax, (6.2, 0.15), "2 filters, 2 inputs", STUDENT)
    note(ax, (10.1, 0.15), "all classes, 2 inputs", STUDENT)
    note(ax, (0.2, 1.98), "student", STUDENT, ha="left")
    note(ax, (0.2, 4.3), "rows:\nfilters", ha="left")
    return ax


def rounding_staircase() -> Axes:
    """Chapter 08: rounding to three bits, and the straight line whose slope stands in for its gradient."""
    ax = sheet(13, 7)
    x0, y0, unit = 6.5, 3.6, 0.85  # where zero stands; a step of the grid

    def at(value: float, result: float) -> Point:
        return x0 + unit * value, y0 + unit * result

    for low, high in ((-6.4, -3.5), (3.5, 6.4)):
        corner, size = at(low, -3.6), (unit * (high - low), 7.2 * unit)
        ax.add_patch(Rectangle(corner, *size, facecolor=PALE[LOSS], edgecolor="none"))
    for start, end in ((at(-6.4, 0), at(6.4, 0)), (at(0, -3.7), at(0, 3.7))):
        ax.plot(*zip(start, end, strict=True), color="0.75", linewidth=0.8)
    stairs = [at(-6.4, -3)]
    for level in range(-3, 3):
        stairs += [at(level + 0.5, level), at(level + 0.5, level + 1)]
    ax.plot(*zip(*stairs, at(6.4, 3), strict=True), color=STUDENT, linewidth=2)
    straight = [at(-6.4, -3.5), at(-3.5, -3.5), at(3.5, 3.5), at(6.4, 3.5)]
    ax.plot(*zip(*straight, strict=True), color=LOSS, linestyle=DASHES, linewidth=1.6)
    for level in range(-3, 4):
        ax.plot(*at(0, level), "_", color=STUDENT, markersize=8)
    note(ax, at(-0.6, 2.4), "rounded:\nwhat is used", STUDENT, ha="right")
    note(ax, at(0.5, -1.4), "straight through:\nslope 1 for the gradient", LOSS, ha="left")
    note(ax, at(-5.0, 1.2), "clipped:\nslope 0", LOSS)
    note(ax, at(5.1, -2.0), "clipped:\nslope 0", LOSS)
    note(ax, at(0.15, -3.3), "scale: the height of a stair", STUDENT, ha="left")
    note(ax, at(6.4, -0.35), "weight", ha="right")
    return ax


def fake_quantization() -> Axes:
    """Chapter 08: float weights are rounded on the way forward; the gradient passes the rounding to them."""
    ax = sheet(13.4, 5.6)
    kept = network(ax, Place(1.9, 1.5, 2.8, 1.3), "float weights", STUDENT, trained=True)
    rounding = data(ax, Place(5.2, 1.5, 1.9, 0.9), "round to\nthe grid", STUDENT)
    copy = network(ax, Place(8.4, 1.5, 2.4, 1.3), "rounded copy", STUDENT, trained=True, state="answers")
    teacher = network(ax, Place(8.4, 4.4, 2.4, 1.3), "teacher", TEACHER, trained=False)
    images = data(ax, Place(5.2, 3.2, 1.5, 0.6), "images")
    kd = loss(ax, (11.4, 2.95), "KL")
    flow(ax, kept.right, rounding.left, STUDENT)
    flow(ax, rounding.right, copy.left, STUDENT)
    flow(ax, images.right, teacher.left)
    flow(ax, images.right, (copy.left[0], copy.top[1]), STUDENT)
    flow(ax, teacher.right, kd.top)
    flow(ax, copy.right, kd.left, STUDENT)
    gradient(ax, kd.bottom, (kd.x, 0.35), (kept.x, 0.35), kept.bottom)
    note(ax, (5.2, 0.62), "gradient: straight through", LOSS)
    return ax


def convolution_blocks() -> Axes:
    """Chapter 09: which channel looks at which, in three kinds of block. A dot is a channel.

    A thick line is a 3×3 filter, a thin one a single weight.
    """
    ax = sheet(15, 5.9, scale=0.5)
    blocks = {
        "plain": (1.5, (4, 4), ("3×3",)),
        "depthwise separable": (5.2, (4, 4, 4), ("3×3", "1×1")),
        "inverted residual": (10.2, (2, 6, 6, 2), ("1×1", "3×3", "1×1")),
    }
    for name, (left, sizes, sides) in blocks.items():
        columns = [
            [(left + 1.4 * k, 2.9 + 0.5 * (i - (size - 1) / 2)) for i in range(size)]
            for k, size in enumerate(sizes)
        ]
        for (before, after), side in zip(pairwise(columns), sides, strict=True):
            is_alone = side == "3×3" and name != "plain"
            pairs = zip(before, after, strict=True) if is_alone else [(a, b) for a in before for b in after]
            color, width = (LOSS, 2.4) if side == "3×3" else (TEACHER, 0.6)
            for a, b in pairs:
                ax.plot(*zip(a, b, strict=True), color=color, linewidth=width, zorder=1)
            note(ax, ((before[0][0] + after[0][0]) / 2, 1.0), side, color)
        for column in columns:
            for center in column:
                ax.add_patch(Circle(center, 0.15, facecolor=STUDENT, edgecolor="white", zorder=2))
        middle = left + 0.7 * (len(sizes) - 1)
        ax.text(middle, 5.6, name, ha="center", va="center", color=TEACHER, weight="bold")
    start, end = (10.2, 3.35), (14.4, 3.35)
    _arrow(ax, start, end, STUDENT, "-", bend=-0.7)
    note(ax, (12.3, 0.35), "thin · wide · wide · thin", STUDENT)
    note(ax, (2.2, 0.35), "around and across at once")
    note(ax, (6.6, 0.35), "around, then across")
    return ax


def roofline(peak: float, bandwidth: float) -> Axes:
    """Chapter 09: how fast a layer can be at most, by how much arithmetic it does on each byte.

    Args:
        peak: The most that this machine computes, in billions of MACs a second.
        bandwidth: The most that it reads and writes, in GB a second.
    """
    ax = plt.subplots(figsize=(6.4, 3.4))[1]
    ridge = peak / bandwidth
    ax.loglog([0.5, ridge, 300], [0.5 * bandwidth, peak, peak], color=LOSS, linewidth=2)
    ax.text(0.56, 1.7 * bandwidth, f"memory:\n{bandwidth:.0f} GB/s", color=LOSS, fontsize="small")
    ax.text(
        290, 1.7 * peak, f"arithmetic: {peak:.0f} billion MACs/s", color=LOSS, ha="right", fontsize="small"
    )
    ax.set(
        xlabel="MACs per byte moved", ylabel="billion MACs a second", xlim=(0.5, 300), ylim=(2, 2.2 * peak)
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    return ax


def channel_surgery() -> Axes:
    """Chapter 10: a channel takes its filter with it, its batch norm, and the next layer's weights."""
    ax = sheet(14, 5.4, scale=0.5)
    gone, stays = 1, 0.22
    first = [[0.85 if row == gone else stays for _ in range(3)] for row in range(4)]
    norm = [[0.85 if row == gone else stays for _ in range(2)] for row in range(4)]
    following = [[0.85 if column == gone else stays for column in range(4)] for _ in range(5)]
    places = (
        (Place(2.3, 2.8, 2.1, 2.8), first, "first convolution", "a row: one filter"),
        (Place(6.3, 2.8, 1.4, 2.8), norm, "batch norm", "factor, constant"),
        (Place(11.3, 2.8, 2.8, 3.5), following, "next convolution", "a column: what it reads"),
    )
    for place, shades, name, caption in places:
        _marked_grid(ax, place, shades)
        ax.text(place.x, 5.0, name, ha="center", va="center", color=TEACHER, weight="bold")
        note(ax, (place.x, 0.5), caption)
    (a, *_), (b, *_), (c, *_) = places
    flow(ax, (a.right[0] + 0.1, 2.8 + 0.35), (b.left[0] - 0.1, 2.8 + 0.35), LOSS)
    flow(ax, (b.right[0] + 0.1, 2.8 + 0.35), (c.left[0] - 0.1, 2.8 + 0.35), LOSS)
    note(ax, ((a.right[0] + b.left[0]) / 2, 3.6), "channel 2", LOSS)
    return ax


def _marked_grid(ax: Axes, place: Place, shades: Sequence[Sequence[float]]) -> None:
    """A grid in gray, what is dark in it in red, and white lines between the squares."""
    rows, columns = len(shades), len(shades[0])
    width, height = place.width / columns, place.height / rows
    for i, row in enumerate(shades):
        for j, shade in enumerate(row):
            corner = place.left[0] + j * width, place.top[1] - (i + 1) * height
            color = LOSS if shade > 0.5 else PALE[TEACHER]
            ax.add_patch(Rectangle(corner, width, height, facecolor=color, edgecolor="white", linewidth=1.5))


def prune_then_distill() -> Axes:
    """Chapter 10: the teacher is pruned, repairs its own smaller copy, and the copy is rounded."""
    ax = sheet(14, 6, scale=0.5)
    teacher = network(ax, Place(2.2, 4.4, 3.2, 2.2), "teacher", TEACHER, trained=False)
    copied = network(ax, Place(2.2, 1.4, 1.9, 1.2), "copy", STUDENT, trained=False, state="half as wide")
    student = network(ax, Place(7.4, 1.4, 1.9, 1.2), "copy", STUDENT, trained=True)
    rounded = data(ax, Place(12.2, 1.4, 1.9, 1.2), "int8 copy", STUDENT)
    compared = loss(ax, (7.4, 4.4), "KL")
    flow(ax, teacher.bottom, copied.top, TEACHER)
    flow(ax, copied.right, student.left, STUDENT)
    flow(ax, student.right, rounded.left, STUDENT)
    flow(ax, teacher.right, compared.left, TEACHER)
    flow(ax, (7.1, student.top[1]), (7.1, compared.bottom[1]), STUDENT)
    gradient(ax, (7.7, compared.bottom[1]), (7.7, student.top[1]))
    note(ax, (3.3, 2.65), "1 · prune", OTHERS[0])
    note(ax, (9.1, 4.4), "2 · distill", OTHERS[0])
    note(ax, (9.8, 1.75), "3 · round", OTHERS[0])
    return ax


def cut_and_distill() -> Axes:
    """Chapter 12: three of six layers are copied into the student; three losses then train it on text."""
    ax = sheet(14, 9.9, scale=0.5)
    heights = [1.9 + 0.75 * layer for layer in range(6)]
    for x, name, color, kept in ((2.4, "teacher", TEACHER, range(6)), (11.6, "student", STUDENT, (0, 2, 5))):
        data(ax, Place(x, 0.9, 3.0, 0.6), "embeddings", color)
        for layer in kept:
            data(ax, Place(x, heights[layer], 3.0, 0.6), f"layer {layer}", color)
        data(ax, Place(x, 6.7, 3.0, 0.6), "states", color)
        data(ax, Place(x, 7.7, 3.0, 0.6), "words", color)
        note(ax, (x, 0.25), name, color)
        flow(ax, (x, 5.95), (x, 6.4), color)
        flow(ax, (x, 7.0), (x, 7.4), color)
    for height in (0.9, *(heights[layer] for layer in (0, 2, 5))):
        flow(ax, (3.9, height), (10.1, height), TEACHER)
    note(ax, (7, 4.5), "copied", TEACHER)
    for height, name in ((6.7, "cos"), (7.9, "KL · T²")):
        compared = loss(ax, (7, height), name)
        flow(ax, (3.9, min(height, 7.7)), compared.left, TEACHER)
        flow(ax, (10.1, min(height, 7.7)), compared.right, STUDENT)
    word = data(ax, Place(7.7, 9.3, 2.7, 0.6), "the hidden word", BASELINE)
    asked = loss(ax, (11.6, 9.3), "CE")
    flow(ax, word.right, asked.left, BASELINE)
    flow(ax, (11.6, 8.0), asked.bottom, STUDENT)
    return ax


def losses_on_the_inside() -> Axes:
    """Chapter 12: which layers of teacher and student TinyBERT, PKD and MiniLM compare, and what of them."""
    ax = sheet(17.6, 7.7, scale=0.4)
    heights = [1.2 + 0.85 * layer for layer in range(6)]
    losses = {
        "TinyBERT": (range(3), "MSE", "every state,\nevery pair of tokens"),
        "PKD": (range(2), "dir.", "one state a sentence,\nits direction"),
        "MiniLM": (range(2, 3), "KL", "who looks at whom,\nlast layer only"),
    }
    for column, (name, (places, short, what)) in enumerate(losses.items()):
        left = 1.4 + 5.9 * column
        for layer, height in enumerate(heights):
            data(ax, Place(left, height, 1.7, 0.6), str(layer))
        for place, layer in enumerate((0, 2, 5)):
            data(ax, Place(left + 3.6, heights[layer], 1.2, 0.6), str(layer), STUDENT)
            if place in places:
                compared = loss(ax, (left + 1.9, heights[layer]), short, radius=0.5)
                flow(ax, (left + 0.85, heights[layer]), compared.left, TEACHER)
                flow(ax, (left + 3.0, heights[layer]), compared.right, STUDENT)
        note(ax, (left, 0.5), "teacher", TEACHER)
        note(ax, (left + 3.6, 0.5), "student", STUDENT)
        note(ax, (left + 1.9, 7.35), name, LOSS)
        note(ax, (left + 1.9, 6.55), what)
    return ax


def where_slips_sit() -> Axes:
    """Chapter 11: a distillation, and beside each of its parts the scenes whose slip sits there."""
    ax = sheet(14, 7.4, scale=0.5)
    batch = data(ax, Place(1.5, 3.7, 1.9, 1.1), "batch")
    teacher = network(ax, Place(5.2, 5.5, 3.0, 1.5), "teacher", TEACHER, trained=False)
    student = network(ax, Place(5.2, 1.9, 2.2, 1.2), "student", STUDENT, trained=True)
    stored = data(ax, Place(8.6, 5.5, 1.5, 0.8), "stored")
    compared = loss(ax, (10.6, 3.7), "loss", radius=0.6)
    flow(ax, batch.right, teacher.left)
    flow(ax, batch.right, student.left)
    flow(ax, teacher.right, stored.left, TEACHER)
    flow(ax, stored.right, (10.3, 4.22), TEACHER)
    flow(ax, student.right, (10.1, 3.35), STUDENT)
    below = 0.7
    gradient(ax, compared.bottom, (compared.x, below), (student.x, below), student.bottom)
    for place, scenes in {
        (1.9, 5.3): "10, 19 · what\nit is given",
        (5.2, 6.75): "8, 9 · the teacher's state",
        (8.6, 6.45): "13, 18 · what is stored",
        (8.4, 1.75): "11 · what\nis tapped",
        (8.0, 0.35): "12 · who is trained",
        (12.6, 4.7): "1–7 · the formula",
        (12.6, 3.7): "14–17 · which\ntokens count",
        (12.6, 2.7): "20 · which code\nruns",
    }.items():
        note(ax, place, scenes, LOSS)
    return ax


def running_memory(maps: Mapping[str, Sequence[int]]) -> Axes:
    """Chapter 10: the maps that lie in memory while each layer runs: what it reads, and what it writes.

    Args:
        maps: Network → how many numbers the input has, and each layer's output, one after the other. A
            number takes four bytes.
    """
    figure, axes = plt.subplots(1, len(maps), figsize=(2.6 * len(maps), 2.5), sharey=True, squeeze=False)
    highest = 0.0
    for ax, (name, sizes) in zip(axes[0], maps.items(), strict=True):
        read, written = ([4 * size / 1e3 for size in part] for part in (sizes[:-1], sizes[1:]))
        layers = range(1, len(sizes))
        ax.bar(layers, read, color=PALE[STUDENT], label="reads")
        ax.bar(layers, written, bottom=read, color=STUDENT, label="writes")
        peak = max(a + b for a, b in zip(read, written, strict=True))
        highest = max(highest, peak)
        ax.axhline(peak, color=LOSS, linewidth=1, linestyle=DASHES)
        ax.annotate(f"{peak:.0f} kB", (0.6, peak), (0, 3), textcoords="offset points", color=LOSS)
        ax.set(title=name, xlabel="convolution", xticks=list(layers))
    axes[0][0].set(ylabel="maps in memory (kB)", ylim=(0, 1.2 * highest))
    axes[0][-1].legend(fontsize="small")
    figure.tight_layout()
    return axes[0][0]


def _gradient_below(ax: Axes, trained: Place, *losses: Place) -> None:
    """The gradients of all losses, joined at the right, return below everything to what is trained."""
    right, below = losses[0].right[0] + 1.5, 0.0 + 0.02
    for place in losses:
        ax.plot([place.right[0] + 0.95, right], [place.y] * 2, color=LOSS, linestyle=DASHES, linewidth=1.4)
    gradient(ax, (right, losses[0].y), (right, below), (trained.x, below), trained.bottom)
    note(ax, (right - 0.1, 2.9), "gradient", LOSS, ha="right")


def student_writes_teacher_marks() -> Axes:
    """Chapter 14: the student writes, the teacher answers at each of its tokens, and both are compared."""
    ax = sheet(14.2, 7.4, scale=0.5)
    teacher = network(ax, Place(6.5, 6.6, 11.6, 1.0), "teacher", TEACHER, trained=False)
    student = network(ax, Place(6.5, 0.9, 11.6, 1.0), "student", STUDENT, trained=True)
    heights = [[0.2, 1, 0.3], [1, 0.2, 0.1], [0.1, 1, 0.5]]
    for place, token in enumerate(["c", "a", "t", "=", "K", "EY", "T"]):
        x, is_own = 1.5 + 1.5 * place, place >= 4
        box = data(ax, Place(x, 3.4, 0.9, 0.6), token, STUDENT if is_own else TEACHER)
        flow(ax, box.top, (x, teacher.bottom[1]))
        if is_own:
            _arrow(ax, (x - 1.2, student.top[1]), box.bottom, STUDENT, "-", bend=-0.15)
        if place in (3, 4, 5):
            taught = bars(ax, Place(x + 0.75, 4.95, 0.7, 0.5), heights[place - 3], TEACHER)
            flow(ax, (x + 0.75, teacher.bottom[1]), (x + 0.75, taught.top[1]))
    compared = loss(ax, (12.3, 3.4), "KL")
    _arrow(ax, (9.15, 5.2), compared.top, TEACHER, "-", bend=-0.25)
    tried = bars(ax, Place(11.0, 2.05, 0.7, 0.5), [0.4, 1, 0.4], STUDENT)
    flow(ax, (11.0, student.top[1]), tried.bottom, STUDENT)
    flow(ax, tried.right, (12.0, compared.bottom[1] + 0.1), STUDENT)
    gradient(ax, (12.5, compared.bottom[1]), (12.5, 0.9), student.right)
    note(ax, (2.2, 2.1), "1 · writes", STUDENT)
    note(ax, (2.2, 5.1), "2 · marks", TEACHER)
    note(ax, (13.4, 2.1), "3 · learns", LOSS)
    return ax


def draft_and_judge() -> Axes:
    """Chapter 14: a draft proposes tokens; one call of the teacher judges them, up to a refusal."""
    ax = sheet(13, 6.6, scale=0.5)
    draft = network(ax, Place(6.0, 0.9, 8.6, 1.0), "draft", STUDENT, trained=False, state="four calls")
    teacher = network(ax, Place(7.2, 5.8, 11.0, 1.0), "teacher", TEACHER, trained=False, state="one call")
    data(ax, Place(0.8, 3.2, 1.0, 0.6), "B", TEACHER)
    for place, token in enumerate(["AE", "G", "AA", "JH"]):
        x, color = 2.8 + 2.1 * place, STUDENT if place < 2 else LOSS
        box = data(ax, Place(x, 3.2, 1.0, 0.6), token, color)
        flow(ax, (x, draft.top[1]), box.bottom, STUDENT)
        flow(ax, (x, teacher.bottom[1]), (x, 4.4))
        note(ax, (x, 4.05), ["accepted", "accepted", "refused", "thrown away"][place], color)
    own = data(ax, Place(11.6, 3.2, 1.0, 0.6), "IH", TEACHER)
    flow(ax, (11.6, teacher.bottom[1]), own.top)
    note(ax, (0.8, 2.5), "given")
    note(ax, (11.6, 2.3), "the teacher's own,\nin place of AA")
    return ax


def layer_left_out() -> Axes:
    """Chapter 15: layers add to a stream; one is left out, and what lies above it is computed again."""
    ax = sheet(14, 4.4, scale=0.5)
    flow(ax, (0.6, 1.2), (13.6, 1.2))
    note(ax, (1.5, 0.7), "residual stream")
    for place, name in enumerate(["layer 18", "layer 19", "layer 20", "layer 21", "layer 22"]):
        x, is_out = 2.0 + 2.4 * place, place == 2
        color = LOSS if is_out else TEACHER
        box = data(ax, Place(x + 0.7, 3.0, 1.9, 0.8), name, color)
        if is_out:
            ax.plot([box.left[0], box.right[0]], [2.6, 3.4], color=LOSS, linewidth=2)
            note(ax, (x + 0.7, 0.7), "adds nothing", LOSS)
        else:
            flow(ax, (x, 1.2), (x + 0.2, 2.55), color)
            flow(ax, (x + 1.2, 2.55), (x + 1.6, 1.45), color)
            ax.add_patch(Circle((x + 1.7, 1.2), 0.22, facecolor="white", edgecolor=color, zorder=3))
            ax.text(x + 1.7, 1.19, "+", ha="center", va="center", color=color, zorder=4)
    note(ax, (4.6, 4.05), "stored from the first pass")
    note(ax, (11.2, 4.05), "computed again", LOSS)
    return ax


def heal_around_the_cut(first: int = 13, count: int = 6) -> Axes:
    """Chapter 15: below the cut the stream is stored, above it three layers learn from stored answers.

    Args:
        first: The first of the layers removed.
        count: How many were.
    """
    ax = sheet(14.4, 6.6, scale=0.5)
    after = first + count
    whole = network(
        ax,
        Place(7.2, 5.6, 8.4, 1.2),
        "whole model, 30 layers",
        TEACHER,
        trained=False,
        state="asked once",
    )
    answers = data(ax, Place(12.9, 5.6, 2.1, 1.0), "64 likeliest\nand the rest")
    flow(ax, whole.right, answers.left)
    below = network(
        ax, Place(1.9, 2.2, 2.8, 1.2), f"0 to {first - 1}", TEACHER, False, state="frozen, shared"
    )
    stream = data(ax, Place(4.5, 2.2, 1.3, 0.8), "stored\nstream")
    healing = network(ax, Place(7.3, 2.2, 2.5, 1.2), f"{after} to {after + 2}", STUDENT, trained=True)
    above = network(
        ax,
        Place(10.4, 2.2, 2.5, 1.2),
        f"{after + 3} to 29",
        TEACHER,
        False,
        "frozen, shared",
    )
    compared = loss(ax, (12.9, 2.2), "KL")
    flow(ax, below.right, stream.left)
    flow(ax, stream.right, healing.left)
    flow(ax, healing.right, above.left, STUDENT)
    flow(ax, above.right, compared.left, STUDENT)
    flow(ax, answers.bottom, compared.top)
    flow(ax, (1.9, below.top[1]), (3.6, whole.bottom[1]))
    gradient(ax, compared.bottom, (compared.x, 0.7), (healing.x, 0.7), healing.bottom)
    gone = data(ax, Place(5.6, 3.8, 2.4, 0.8), f"{first} to {after - 1}", LOSS)
    ax.plot([gone.left[0], gone.right[0]], [gone.bottom[1], gone.top[1]], color=LOSS, linewidth=2)
    note(ax, (8.0, 3.8), "removed", LOSS)
    return ax
