"""The course's figures: one style, one colour for every role, every seed a dot."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from kdutils.compare import Gain, Runs

TEACHER, BASELINE, DISTILLED = "#404040", "#d9730d", "#1f6fb4"
OTHERS = ("#2a9d6f", "#8e5bb5", "#b0413e", "#7a7a7a", "#c9a227")
MARKERS = {TEACHER: "s", BASELINE: "o", DISTILLED: "D"}


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


def role_colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour for every arm: by its role where the name tells it, else from the other colours in turn."""
    colours, others = {}, iter(OTHERS * (1 + len(arms) // len(OTHERS)))
    for arm in arms:
        if arm.startswith("teacher") and not arm.startswith(("teacher's", "teacher’s")):
            colours[arm] = TEACHER
        elif arm.startswith(("labels only", "hard labels", "baseline")):
            colours[arm] = BASELINE
        elif arm.startswith(("distilled", "KD")) and DISTILLED not in colours.values():
            colours[arm] = DISTILLED
        else:
            colours[arm] = next(others)
    return colours


def every_seed(
    runs: Runs,
    measure: str | None = None,
    ax: Axes | None = None,
    references: Mapping[str, float] | None = None,
) -> Axes:
    """Every seed a dot, paired dots joined by a line, the mean a bar: one column for every arm.

    measure: of the first unless named; its name labels the axis.
    references: named values drawn as dashed lines, such as the teacher's accuracy or chance.
    """
    measure = next(iter(runs.values)) if measure is None else measure
    arms = list(runs.values[measure])
    ax = plt.subplots(figsize=(max(3.5, 1.2 * len(arms) + 1), 3.5))[1] if ax is None else ax
    columns = [runs.of(arm, measure) for arm in arms]
    for paired in zip(*columns, strict=True):
        ax.plot(range(len(arms)), paired, color="0.85", linewidth=1, zorder=1)
    for x, (arm, colour) in enumerate(role_colours(arms).items()):
        ax.scatter(
            [x] * len(runs.seeds), columns[x], color=colour, marker=MARKERS.get(colour, "^"), s=28, zorder=3
        )
        ax.hlines(runs.mean(arm, measure), x - 0.2, x + 0.2, color=colour, linewidth=2.5, zorder=2)
    for name, value in (references or {}).items():
        ax.axhline(value, color=TEACHER, linestyle="--", linewidth=1)
        ax.annotate(name, (len(arms) - 0.55, value), va="bottom", ha="right", fontsize="small", color=TEACHER)
    ax.set(xticks=range(len(arms)), xticklabels=[arm.replace(" + ", "\n+ ") for arm in arms], ylabel=measure)
    ax.set_xlim(-0.5, len(arms) - 0.5)
    return ax


def gains(named_gains: Mapping[str, Gain], ax: Axes | None = None, xlabel: str = "gain (points)") -> Axes:
    """Every gain a row: its seeds as dots, its mean a diamond, its 95 % interval a bar, zero a line."""
    ax = plt.subplots(figsize=(6, 0.5 * len(named_gains) + 1))[1] if ax is None else ax
    ax.axvline(0, color="0.6", linewidth=1)
    for row, gain in enumerate(named_gains.values()):
        ax.scatter(gain.differences, [row] * len(gain.differences), color="0.75", s=16, zorder=2)
        ax.plot([gain.low, gain.high], [row, row], color=DISTILLED, linewidth=2, zorder=3)
        ax.scatter([gain.mean], [row], color=DISTILLED, marker="D", s=36, zorder=4)
    ax.set(yticks=range(len(named_gains)), yticklabels=list(named_gains), xlabel=xlabel)
    ax.invert_yaxis()
    return ax


def images(pictures: Tensor, titles: Sequence[str], title_size: str = "small") -> None:
    """A row of grey-scale images (N, 1, H, W), each under its title."""
    _, axes = plt.subplots(1, len(pictures), figsize=(1.25 * len(pictures), 1.7), squeeze=False)
    for ax, picture, title in zip(axes[0], pictures, titles, strict=True):
        ax.imshow(picture[0])
        ax.set_title(title, fontsize=title_size, loc="center")
        ax.axis("off")


def trade_off(
    points: Mapping[str, tuple[float, float, float]],
    ax: Axes | None = None,
    xlabel: str = "latency (ms, batch 1, CPU)",
) -> Axes:
    """Accuracy against latency with size as area.   points: name → (latency ms, accuracy %, size MB)."""
    ax = plt.subplots()[1] if ax is None else ax
    for (name, (latency, accuracy, size)), colour in zip(
        points.items(), role_colours(list(points)).values(), strict=True
    ):
        ax.scatter(
            latency, accuracy, s=20 + 800 * size, color=colour, marker=MARKERS.get(colour, "^"), alpha=0.6
        )
        ax.annotate(
            f"{name}, {size:.3g} MB",
            (latency, accuracy),
            xytext=(0, 12),
            textcoords="offset points",
            ha="center",
        )
    ax.set(xscale="log", xlabel=xlabel, ylabel="test accuracy (%)")
    ax.margins(0.25)
    return ax
