"""The course's figures: one style, one colour for every role, every seed a dot."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator
from matplotlib.transforms import Bbox
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


def role_colors(arms: Sequence[str]) -> dict[str, str]:
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
    Raises ValueError for an unknown measure, and where an interrupt has left no finished seed.
    """
    arms = runs.arms
    measure = next(iter(runs.values)) if measure is None else measure
    columns = [runs.of(arm, measure) for arm in arms]
    ax = plt.subplots(figsize=(max(3.5, 1.2 * len(arms) + 1), 3.5))[1] if ax is None else ax
    for paired in zip(*columns, strict=True):
        ax.plot(range(len(arms)), paired, color="0.85", linewidth=1, zorder=1)
    for x, (arm, colour) in enumerate(role_colors(arms).items()):
        ax.scatter(
            [x] * len(runs.seeds), columns[x], color=colour, marker=MARKERS.get(colour, "^"), s=28, zorder=3
        )
        ax.hlines(runs.mean(arm, measure), x - 0.2, x + 0.2, color=colour, linewidth=2.5, zorder=2)
    for name, value in (references or {}).items():
        ax.axhline(value, color=TEACHER, linestyle="--", linewidth=1)
        ax.annotate(name, (len(arms) - 0.55, value), va="bottom", ha="right", fontsize="small", color=TEACHER)
    ax.set(xticks=range(len(arms)), xticklabels=[textwrap.fill(arm, 14) for arm in arms], ylabel=measure)
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
    ax.set_ylim(len(named_gains) - 0.5, -0.5)  # the first gain on top
    return ax


def images(pictures: Tensor, titles: Sequence[str]) -> None:
    """A row of grey-scale images (N, 1, H, W), each under its title."""
    _, axes = plt.subplots(1, len(pictures), figsize=(1.25 * len(pictures), 1.7), squeeze=False)
    for ax, picture, title in zip(axes[0], pictures, titles, strict=True):
        ax.imshow(picture[0].numpy())
        ax.set_title(title, fontsize="small", loc="center")
        ax.axis("off")


def map_rows(rows: Mapping[str, Sequence[Tensor] | Tensor], titles: Sequence[str] = ()) -> None:
    """Rows of maps, each (H, W), dark where active, in the colour of the row's role.

    rows: name → maps, such as a teacher's attention on several images.   titles: one for every column.
    """
    columns = max(len(maps) for maps in rows.values())
    _, axes = plt.subplots(len(rows), columns, figsize=(columns + 1, len(rows) + 0.3), squeeze=False)
    shades = {TEACHER: "Greys", BASELINE: "Oranges", DISTILLED: "Blues"}
    for row, (name, colour) in zip(axes, role_colors(list(rows)).items(), strict=True):
        for ax, values in zip(row, rows[name], strict=False):
            ax.imshow(values.numpy(), cmap=shades.get(colour, "gray_r"))
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation="horizontal", ha="right", va="center")
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize="small", loc="center")


def trade_off(
    points: Mapping[str, tuple[float, float, float]],
    ax: Axes | None = None,
    xlabel: str = "latency (ms, batch 1, CPU)",
) -> Axes:
    """Accuracy against latency with size as area.   points: name → (latency ms, accuracy %, size MB).

    A label stands above its marker, or below or beside it where an earlier label is in the way.
    """
    ax = plt.subplots()[1] if ax is None else ax
    colours = role_colors(list(points))
    labels: list[Annotation] = []
    for name, (latency, accuracy, size) in points.items():
        area = 20 + 800 * size  # in square points
        marker = MARKERS.get(colours[name], "^")
        ax.scatter(latency, accuracy, s=area, color=colours[name], marker=marker, alpha=0.6)
        label = ax.annotate(
            f"{name}, {size:.3g} MB",
            (latency, accuracy),
            xytext=(0, area**0.5 / 2 + 3),  # above the marker
            textcoords="offset points",
            ha="center",
            fontsize="small",
            color=colours[name],
        )
        labels.append(label)
    ax.set(xscale="log", xlabel=xlabel, ylabel="test accuracy (%)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.margins(0.25)
    ax.autoscale_view()  # now, not when the figure is drawn: labels are placed in pixels
    _place(labels, ax)
    return ax


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
            colour = ("#b0413e" if value > 0 else DISTILLED) if strong else "0.85"
            ax.plot(
                *positions[[i, j]].T.tolist(), color=colour, linewidth=0.5 + min(6 * abs(value), 4), alpha=0.6
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
