"""Drawings of mechanisms: who looks at what, what is compared, what is trained.

One visual language for the whole course. A box with rounded corners is a network: dark gray the teacher, blue
the student; a solid frame is trained, a dashed one is frozen. A plain box is data. Bars are probabilities. A
solid arrow carries data, a dashed one gradients. A red circle compares what arrives there: a loss.

Drawings are made of the primitives below, on a sheet whose units are those of `sheet`. Each mechanism has one
function, which returns the axes so that a chapter may add to it.
"""

from collections.abc import Sequence
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


def network(ax: Axes, place: Place, name: str, color: str, trained: bool) -> Place:
    """A network: a rounded box, its frame solid where it is trained, dashed where it is frozen."""
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
    state = "trained" if trained else "frozen"
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


def _gradient_below(ax: Axes, trained: Place, *losses: Place) -> None:
    """The gradients of all losses, joined at the right, return below everything to what is trained."""
    right, below = losses[0].right[0] + 1.5, 0.0 + 0.02
    for place in losses:
        ax.plot([place.right[0] + 0.95, right], [place.y] * 2, color=LOSS, linestyle=DASHES, linewidth=1.4)
    gradient(ax, (right, losses[0].y), (right, below), (trained.x, below), trained.bottom)
    note(ax, (right - 0.1, 2.9), "gradient", LOSS, ha="right")
