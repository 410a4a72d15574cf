"""The map of the course: what a distillation system is made of, drawn."""

from collections.abc import Sequence
from itertools import chain, pairwise

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from kdutils.course.plot import BASELINE, DISTILLED, OTHERS, TEACHER

KNOWLEDGE, ALGORITHM, ARCHITECTURE = OTHERS[0], OTHERS[1], BASELINE
Point = tuple[float, float]


def course_map() -> Figure:
    """A teacher, a student, and the three components of distillation, each with its chapters' numbers.

    Source of the three components: Gou, Yu, Maybank and Tao 2021, "Knowledge Distillation: A Survey", sec. 1.
    """
    figure, ax = plt.subplots(figsize=(8.6, 5.4))
    ax.set(xlim=(0, 21.5), ylim=(-0.5, 13.5), aspect="equal")
    ax.axis("off")
    _draw_knowledge(ax)
    _draw_algorithms(ax)
    _draw_architectures(ax)
    _name_the_rest(ax)
    return figure


def _name_the_rest(ax: Axes) -> None:
    """Chapters that belong to no single component, in two rows."""
    rows = {
        0.5: {4.2: "10  pruning, all combined", 10.7: "11  silent failures", 16.4: "12  DistilBERT"},
        -0.3: {
            1.6: "13  language models", 5.3: "14  on-policy", 8.3: "15  SmolLM2", 11.5: "16  fewer steps",
            15.5: "17  what is passed on", 19.7: "18  your problem",
        },
    }  # fmt: skip
    for y, names in rows.items():
        for x, name in names.items():
            ax.text(x, y, name, ha="center", fontsize="small", color=TEACHER)


def _draw_knowledge(ax: Axes) -> None:
    _panel(ax, (0.2, 6.3), (13.6, 7.0), "KNOWLEDGE", "what is transferred", KNOWLEDGE)
    _network(ax, (2.0, 7.7), (5, 5, 5, 5), TEACHER, spacing=1.2)
    _network(ax, (12.3, 7.7), (3, 3, 3, 3), DISTILLED, spacing=1.2)
    ax.text(2.0, 6.75, "teacher", ha="center", color=TEACHER, weight="bold")
    ax.text(12.3, 6.75, "student", ha="center", color=DISTILLED, weight="bold")
    for text, y in {
        "01  responses: what it answers": 11.3,
        "02  features: what it sees on the way": 9.5,
    }.items():
        _arrow(ax, (3.9, y), (11.1, y), KNOWLEDGE)
        ax.text(7.5, y + 0.2, text, ha="center", fontsize="small")
    for x, size in ((4.6, 0.7), (10.6, 0.5)):
        corners = [(x - size, 7.3), (x + size, 7.5), (x + 0.1, 7.4 + 1.3 * size)]
        xs, ys = zip(*corners, strict=True)
        ax.fill(xs, ys, facecolor="none", edgecolor=KNOWLEDGE)
        ax.scatter(xs, ys, s=22, color=KNOWLEDGE)
    _arrow(ax, (5.7, 7.7), (9.8, 7.7), KNOWLEDGE)
    ax.text(7.5, 6.75, "03  relations: what lies near what", ha="center", fontsize="small")


def _draw_algorithms(ax: Axes) -> None:
    _panel(ax, (0.2, 1.2), (13.6, 4.7), "ALGORITHM", "how training is organized", ALGORITHM)
    y = 3.6
    captions = {
        2.3: "04  offline:\nteacher first",
        7.1: "05  online:\ntogether",
        11.6: "06  self:\none model is both",
    }
    for x, caption in captions.items():
        ax.text(x, 2.8, caption, ha="center", va="top", fontsize="small", linespacing=1.4)
    ax.scatter([1.2], [y], s=240, marker="s", color=TEACHER)
    ax.scatter([3.4, 6.0, 8.2, 11.6], [y] * 4, s=130, marker="D", color=DISTILLED)
    _arrow(ax, (1.8, y), (2.9, y), ALGORITHM)
    _arrow(ax, (6.4, y + 0.2), (7.8, y + 0.2), ALGORITHM)
    _arrow(ax, (7.8, y - 0.2), (6.4, y - 0.2), ALGORITHM)
    _arrow(ax, (11.25, y + 0.35), (11.95, y + 0.35), ALGORITHM, bend=-1.6)


def _draw_architectures(ax: Axes) -> None:
    _panel(ax, (14.2, 1.2), (7.3, 12.1), "ARCHITECTURE", "into what", ARCHITECTURE)
    _network(ax, (15.8, 9.9), (2, 2), DISTILLED)
    _network(ax, (15.8, 6.5), (3, 3), DISTILLED, marker="s")
    _network(ax, (15.8, 2.2), (2, 1, 2, 1, 2), DISTILLED, spacing=0.65)
    captions = {
        10.5: "07  smaller:\nfewer layers,\nfewer channels",
        7.1: "08  quantized:\nfewer bits",
        3.5: "09  optimized:\nanother design",
    }
    for y, caption in captions.items():
        ax.text(17.3, y, caption, va="center", fontsize="small", linespacing=1.4)


def _panel(ax: Axes, corner: Point, size: Point, name: str, question: str, color: str) -> None:
    """A tinted box with the component's name and the question that it answers."""
    ax.add_patch(
        FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.4", color=color, alpha=0.07)
    )
    left, top = corner[0] + 0.4, corner[1] + size[1] - 0.75
    title = ax.text(left, top, name, color=color, weight="bold")
    ax.annotate(
        question, (1, 0), xycoords=title, xytext=(8, 0), textcoords="offset points", va="bottom", color=color
    )


def _network(
    ax: Axes,
    bottom: Point,
    widths: Sequence[int],
    color: str,
    marker: str = "o",
    spacing: float = 1.2,
) -> None:
    """Layers of units from the bottom up, every unit joined to those of the next layer."""
    layers = [
        [(bottom[0] + 0.65 * (i - (width - 1) / 2), bottom[1] + spacing * level) for i in range(width)]
        for level, width in enumerate(widths)
    ]
    for lower, upper in pairwise(layers):
        for start in lower:
            for end in upper:
                ax.plot(*zip(start, end, strict=True), color="0.8", linewidth=0.7, zorder=1)
    x, y = zip(*chain.from_iterable(layers), strict=True)
    ax.scatter(x, y, s=42, color=color, marker=marker, zorder=2)


def _arrow(ax: Axes, start: Point, end: Point, color: str, bend: float = 0.0) -> None:
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.8, "connectionstyle": f"arc3,rad={bend}"}
    ax.annotate("", end, start, arrowprops=style)
