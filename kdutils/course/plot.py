"""The course's figures: one style, one color and marker for every role, every seed a dot."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox
from torch import Tensor

from kdutils.compare import Gain, Runs

TEACHER, BASELINE, DISTILLED = "#404040", "#d9730d", "#1f6fb4"
OTHERS = ("#2a9d6f", "#8e5bb5", "#b0413e", "#7a7a7a", "#c9a227")
HARD_DECISIONS, KNOW_NOTHING, AUGMENTED = OTHERS[1], OTHERS[3], OTHERS[4]
MARKERS = {
    TEACHER: "s", BASELINE: "o", DISTILLED: "D", HARD_DECISIONS: "v", KNOW_NOTHING: "X", AUGMENTED: "P",
}  # fmt: skip
# How the name of an arm begins → its color, in every figure of the course.
ROLES = {
    "teacher": TEACHER,
    "labels only": BASELINE,
    "hard labels": BASELINE,
    "baseline": BASELINE,
    "augmented labels": AUGMENTED,
    "know-nothing": KNOW_NOTHING,
    "hard decisions": HARD_DECISIONS,
    "distilled": DISTILLED,
    "soft targets": DISTILLED,
    "student": DISTILLED,
    "KD": DISTILLED,
}


def use_style() -> None:
    """Makes the course's style matplotlib's default: size, resolution, no top and right spine."""
    plt.rcParams.update(
        {
            "figure.figsize": (6, 3.5),
            "figure.dpi": 100,
            "savefig.bbox": "tight",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "image.cmap": "gray_r",
        }
    )


def role_colors(arms: Sequence[str]) -> dict[str, str]:
    """A color for every arm: by its role where the name begins with one, else from the other colors in turn.

    The first distilled arm is blue; further ones take their turn.
    """
    roles = {arm: _role(arm) for arm in arms}
    free = [color for color in OTHERS if color not in roles.values()] or OTHERS
    others = iter(free * (1 + len(arms) // len(free)))
    colors: dict[str, str] = {}
    for arm, role in roles.items():
        is_second = role == DISTILLED and DISTILLED in colors.values()
        colors[arm] = next(others) if role is None or is_second else role
    return colors


def _role(arm: str) -> str | None:
    """The color of the role that the name of an arm begins with; what is the teacher's is not the teacher."""
    if arm.startswith(("teacher's", "teacher’s")):
        return None
    return next((color for name, color in ROLES.items() if arm.startswith(name)), None)


def every_seed(
    runs: Runs,
    measure: str | None = None,
    ax: Axes | None = None,
    references: Mapping[str, float] | None = None,
    digits: int = 1,
) -> Axes:
    """Every seed a dot, paired dots joined by a line, the mean a bar with its number: a column for every arm.

    Args:
        runs: What `compare` returned.
        measure: The first one unless named; its name labels the axis.
        ax: Axes to draw into.
        references: Named values, such as the teacher's accuracy or chance. Each is a dashed line; one that
            is too far away to leave the dots room is named at the edge instead.
        digits: Decimals of the means.

    Raises:
        ValueError: An unknown measure, or an interrupt has left no finished seed.
    """
    arms = runs.arms
    measure = next(iter(runs.values)) if measure is None else measure
    columns = [runs.of(arm, measure) for arm in arms]
    ax = plt.subplots(figsize=(max(3.5, 1.2 * len(arms) + 1), 3.5))[1] if ax is None else ax
    for paired in zip(*columns, strict=True):
        ax.plot(range(len(arms)), paired, color="0.85", linewidth=1, zorder=1)
    for x, (arm, color) in enumerate(role_colors(arms).items()):
        mean = runs.mean(arm, measure)
        ax.scatter(
            [x] * len(runs.seeds), columns[x], color=color, marker=MARKERS.get(color, "^"), s=28, zorder=3
        )
        ax.hlines(mean, x - 0.2, x + 0.2, color=color, linewidth=2.5, zorder=2)
        ax.annotate(f"{mean:.{digits}f}", (x + 0.24, mean), va="center", fontsize="small", color=color)
    _draw_references(ax, references or {}, [value for column in columns for value in column])
    ax.set(xticks=range(len(arms)), xticklabels=[textwrap.fill(arm, 14) for arm in arms], ylabel=measure)
    ax.set_xlim(-0.5, len(arms) - 0.4)
    return ax


def _draw_references(ax: Axes, references: Mapping[str, float], values: Sequence[float]) -> None:
    """Named dashed lines, or names at the edge for what is further away than the values spread twice."""
    low, high = min(values), max(values)
    for name, value in references.items():
        if low - 2 * (high - low) <= value <= high + 2 * (high - low):
            ax.axhline(value, color=TEACHER, linestyle="--", linewidth=1)
            place, va, text = (0.98, value), "bottom", f"{name} {value:.1f}"
        else:
            is_above = value > high
            place, va = (0.98, 1.0 if is_above else 0.0), "top" if is_above else "bottom"
            text = f"{name} {value:.1f} {'↑' if is_above else '↓'}"
        within = ax.get_yaxis_transform() if place[1] == value else ax.transAxes
        ax.text(*place, text, transform=within, va=va, ha="right", fontsize="small", color=TEACHER)


def gains(named_gains: Mapping[str, Gain], ax: Axes | None = None, xlabel: str = "gain (points)") -> Axes:
    """Every gain a row: its seeds as dots, its mean a diamond with its number, its 95% interval a bar."""
    ax = plt.subplots(figsize=(6, 0.55 * len(named_gains) + 1))[1] if ax is None else ax
    ax.axvline(0, color="0.6", linewidth=1)
    for row, gain in enumerate(named_gains.values()):
        ax.scatter(gain.differences, [row] * len(gain.differences), color="0.75", s=16, zorder=2)
        ax.plot([gain.low, gain.high], [row, row], color=DISTILLED, linewidth=2, zorder=3)
        ax.scatter([gain.mean], [row], color=DISTILLED, marker="D", s=36, zorder=4)
        _write_gain(ax, gain.mean, (gain.mean, row), offset=(0, 6), ha="center", va="bottom")
    ax.set(yticks=range(len(named_gains)), yticklabels=list(named_gains), xlabel=xlabel)
    ax.set_ylim(len(named_gains) - 0.5, -0.6)  # the first gain on top
    return ax


def _write_gain(
    ax: Axes, mean: float, place: tuple[float, float], offset: tuple[float, float], **how: Any
) -> None:
    """A gain's number, with its sign, beside its diamond."""
    number = f"{mean:+.1f}".replace("-", "−")
    ax.annotate(
        number, place, xytext=offset, textcoords="offset points", fontsize="small", color=DISTILLED, **how
    )


def curves(
    arms: Mapping[str, Mapping[float, Sequence[float]]],
    ax: Axes | None = None,
    xlabel: str = "",
    ylabel: str = "test accuracy (%)",
) -> Axes:
    """Every arm a line through its means, its seeds as dots, its name at the line's end.

    Args:
        arms: Name → x → one value for every seed. The x axis doubles: it is logarithmic.
        ax: Axes to draw into.
        xlabel: What x counts.
        ylabel: The measure with its unit.
    """
    ax = plt.subplots()[1] if ax is None else ax
    ends: dict[str, tuple[float, float, str]] = {}
    for (arm, points), color in zip(arms.items(), role_colors(list(arms)).values(), strict=True):
        means = [sum(values) / len(values) for values in points.values()]
        for x, values in points.items():
            ax.scatter([x] * len(values), values, color=color, s=10, alpha=0.35, linewidth=0, zorder=2)
        ax.plot(list(points), means, color=color, marker=MARKERS.get(color, "^"), markersize=5, zorder=3)
        ends[arm] = (list(points)[-1], means[-1], color)
    _doubling_axis(ax, sorted({x for points in arms.values() for x in points}))
    _name_ends(ax, ends)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def _name_ends(ax: Axes, ends: Mapping[str, tuple[float, float, str]], line: float = 13) -> None:
    """The name of every arm beside its line's end (x, y, color); names that would overlap are moved apart.

    line: the least distance between two names, in points.
    """
    ax.autoscale_view()
    below = -float("inf")
    for arm, (x, y, color) in sorted(ends.items(), key=lambda item: item[1][1]):
        height = ax.transData.transform((x, y))[1] * 72 / ax.figure.dpi
        below = max(height, below + line)
        offset = (9, below - height)
        ax.annotate(arm, (x, y), xytext=offset, textcoords="offset points", va="center", color=color)


def gain_curve(
    gains_at: Mapping[float, Gain], ax: Axes | None = None, xlabel: str = "", ylabel: str = "gain (points)"
) -> Axes:
    """How a gain changes along a doubling axis: seeds as dots, means as diamonds with numbers, 95% intervals.

    Args:
        gains_at: x → gain.
        ax: Axes to draw into.
        xlabel: What x counts.
        ylabel: The gain with its unit.
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.axhline(0, color="0.6", linewidth=1)
    ax.plot(
        list(gains_at), [gain.mean for gain in gains_at.values()], color=DISTILLED, alpha=0.4, linewidth=1
    )
    for x, gain in gains_at.items():
        ax.scatter([x] * len(gain.differences), gain.differences, color="0.75", s=16, zorder=2)
        ax.plot([x, x], [gain.low, gain.high], color=DISTILLED, linewidth=2, zorder=3)
        ax.scatter([x], [gain.mean], color=DISTILLED, marker="D", s=36, zorder=4)
        _write_gain(ax, gain.mean, (x, gain.mean), offset=(8, 4), ha="left", va="center")
    _doubling_axis(ax, list(gains_at))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(x=0.1)
    return ax


def _doubling_axis(ax: Axes, places: Sequence[float]) -> None:
    """A logarithmic x axis whose ticks are the places that were measured, as plain numbers."""
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(places), [f"{place:,g}" for place in places])


def probabilities(
    values: Tensor, names: Sequence[str], ax: Axes, color: str = TEACHER, smallest: float = 1e-6
) -> None:
    """Probabilities as bars on a logarithmic axis, each with its number, so that small ones can be read.

    Args:
        values: Shape (K,).
        names: Of the K classes, top to bottom.
        ax: Axes to draw into.
        color: Of the bars; by default the teacher's.
        smallest: Where the axis begins.
    """
    ax.barh(range(len(names)), values.tolist(), color=color)
    for row, value in enumerate(values.tolist()):
        number = " " + np.format_float_positional(value, 2 if value >= 0.1 else 1, fractional=False, trim="-")
        ax.text(max(value, smallest), row, number, va="center", fontsize="small", color=color)
    ax.set(xscale="log", xlim=(smallest, 30), yticks=range(len(names)), yticklabels=names)
    ax.xaxis.set_major_locator(LogLocator(numticks=4))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("probability")
    ax.invert_yaxis()


def answer(pixels: Tensor, values: Tensor, names: Sequence[str]) -> None:
    """An image and, beside it, the probabilities that a network gives its classes; see `probabilities`.

    Args:
        pixels: Shape (1, H, W).
        values: Shape (K,).
        names: Of the K classes.
    """
    _, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2.9), width_ratios=[1, 1.7], layout="constrained")
    left.imshow(pixels[0].numpy())
    left.axis("off")
    probabilities(values, names, right)


def borders(logits: Tensor, extent: float, ax: Axes, color: str, linewidth: float = 0.7) -> None:
    """Where each of many classifiers of points in the plane changes its mind: its borders, drawn as lines.

    Args:
        logits: Shape (R, G, G, K): R classifiers, on a grid of G rows and columns.
        extent: The grid reaches from −extent to +extent, both ways.
        ax: Axes to draw into.
        color: Of the lines.
        linewidth: In points.
    """
    places = torch.linspace(-extent, extent, logits.shape[1]).numpy()
    for scores in logits.double():
        for k in range(scores.shape[-1] - 1):  # the last class's borders are the others', too
            rest = torch.cat([scores[..., :k], scores[..., k + 1 :]], dim=-1).amax(dim=-1)
            margin = (scores[..., k] - rest).numpy()
            ax.contour(places, places, margin, levels=[0], colors=color, linewidths=linewidth)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(True)


def images(pictures: Tensor, titles: Sequence[str]) -> None:
    """A row of gray-scale images (N, 1, H, W), each under its title."""
    _, axes = plt.subplots(1, len(pictures), figsize=(1.25 * len(pictures), 1.7), squeeze=False)
    for ax, picture, title in zip(axes[0], pictures, titles, strict=True):
        ax.imshow(picture[0].numpy())
        ax.set_title(title, fontsize="small", loc="center")
        ax.axis("off")


def map_rows(rows: Mapping[str, Sequence[Tensor] | Tensor], titles: Sequence[str] = ()) -> None:
    """Rows of maps, each (H, W), dark where active, in the color of the row's role.

    rows: name → maps, such as a teacher's attention on several images.   titles: one for every column.
    """
    columns = max(len(maps) for maps in rows.values())
    _, axes = plt.subplots(len(rows), columns, figsize=(columns + 1, len(rows) + 0.3), squeeze=False)
    shades = {TEACHER: "Greys", BASELINE: "Oranges", DISTILLED: "Blues"}
    for row, (name, color) in zip(axes, role_colors(list(rows)).items(), strict=True):
        for ax, values in zip(row, rows[name], strict=False):
            ax.imshow(values.numpy(), cmap=shades.get(color, "gray_r"))
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation="horizontal", ha="right", va="center")
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize="small", loc="center")


def name_points(ax: Axes, points: Mapping[str, tuple[float, float, str]], markersize: float = 7) -> None:
    """Writes names beside points on a logarithmic x axis.   points: name → (x, y, color).

    A name stands above its marker, or below or beside it where a marker or an earlier name is in the way.
    markersize: the markers' width, in points.
    """
    labels = [
        ax.annotate(
            name, (x, y), (0, markersize / 2 + 3), textcoords="offset points", ha="center",
            fontsize="small", color=color,
        )
        for name, (x, y, color) in points.items()
    ]  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.margins(0.12)
    ax.autoscale_view()  # now, not when the figure is drawn: labels are placed in pixels
    _place(labels, ax)


def _place(labels: Sequence[Annotation], ax: Axes) -> None:
    """Moves each label around its marker to where it covers least: markers, earlier labels, the edge."""
    taken = [_around_marker(label, ax) for label in labels]
    for label in labels:
        distance = label.get_position()[1]
        places = [
            {"position": (away * x * distance, away * y * distance), "ha": ha, "va": va}
            for away in (1, 3)  # where all is taken near the marker, a little further
            for x, ha in ((0, "center"), (1, "left"), (-1, "right"))
            for y, va in ((1, "bottom"), (-1, "top"), (0, "center"))
            if x or y
        ]
        covered = []
        for place in places:
            label.set(**place)
            extent = label.get_window_extent()
            within = ax.bbox.containsx(extent.x0) and ax.bbox.containsx(extent.x1)
            covered.append(extent.count_overlaps(taken) + (not within))
        label.set(**places[covered.index(min(covered))])
        taken.append(label.get_window_extent())


def _around_marker(label: Annotation, ax: Axes) -> Bbox:
    """The square, in pixels, that the label's marker fills: the label stands 3 points above it."""
    x, y = ax.transData.transform(label.xy)
    half = (label.get_position()[1] - 3) * ax.figure.dpi / 72
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def relation_matrices(
    matrices: Mapping[str, Tensor], labels: Tensor, class_names: Sequence[str], quantity: str
) -> None:
    """Relations of every sample with every other, (N, N), side by side, in shades of one common scale.

    labels: (N,), sorted; white lines part the classes, which are named at the left.
    quantity: what the shades mean, with its unit.
    """
    low = min(matrix.min().item() for matrix in matrices.values())
    high = max(matrix.max().item() for matrix in matrices.values())
    _, axes = plt.subplots(1, len(matrices), figsize=(2.5 * len(matrices) + 1, 2.9), squeeze=False)
    classes, counts = labels.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    for ax, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        shown = ax.imshow(matrix.numpy(), cmap="viridis", vmin=low, vmax=high)
        for end in ends[:-1].tolist():
            ax.axhline(end - 0.5, color="white", linewidth=0.8)
            ax.axvline(end - 0.5, color="white", linewidth=0.8)
        ax.set(xticks=[], yticks=[])
        ax.set_title(name, fontsize="small", loc="center")
    middles = (ends - counts / 2 - 0.5).tolist()
    axes[0, 0].set_yticks(middles, [class_names[c] for c in classes.tolist()], fontsize="small")
    axes[0, 0].tick_params(length=0)
    plt.colorbar(shown, ax=axes.ravel().tolist(), shrink=0.75, label=quantity)


def image_graph(
    positions: Tensor, pictures: Tensor, edges: Tensor, title: str, ax: Axes, framed: int | None = None
) -> None:
    """Pictures (N, 1, H, W) at their positions (N, 2), joined by edges (N, N).

    edges: within ±0.1 drawn thin and grey; above red, below blue, the wider the further from 0.
    framed: index of a picture with a black frame.
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    for i in range(len(positions)):
        for j in range(i):
            value = edges[i, j].item()
            strong = abs(value) > 0.1
            color = ("#b0413e" if value > 0 else DISTILLED) if strong else "0.85"
            ax.plot(
                *positions[[i, j]].T.tolist(), color=color, linewidth=0.5 + min(6 * abs(value), 4), alpha=0.6
            )
    for i, (position, picture) in enumerate(zip(positions.tolist(), pictures, strict=True)):
        shown = OffsetImage(picture[0].numpy(), zoom=0.8, cmap="gray_r")
        frame = {"edgecolor": "black", "linewidth": 2.5} if i == framed else {"edgecolor": "0.6"}
        ax.add_artist(AnnotationBbox(shown, position, pad=0.05, bboxprops=frame))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize="small", loc="center")
    ax.margins(0.15)


def neighbors(queries: Tensor, found: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    """Pictures (N, 1, H, W) in a row, and below them what each model found: right dark, wrong framed red.

    found: model → pictures (N, 1, H, W).   right: model → whether each is of the query's class, (N,).
    """
    names = list(found)
    size = (0.62 * len(queries) + 1, 0.7 * len(names) + 0.7)
    _, axes = plt.subplots(1 + len(names), len(queries), figsize=size, squeeze=False)
    for row, name in zip(axes, ["query", *names], strict=True):
        for column, ax in enumerate(row):
            wrong = name in right and not right[name][column]
            ax.imshow((queries if name == "query" else found[name])[column, 0].numpy())
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(visible=bool(wrong), color="#b0413e", linewidth=2.5)
        row[0].set_ylabel(name, rotation="horizontal", ha="right", va="center", fontsize="small")
