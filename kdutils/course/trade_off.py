"""The table behind the plot of chapters 07 to 10: accuracy, latency and size of every model they made.

Every student had the same: the pool's 20,000 images without labels, the teacher's answers, 1,200 steps of 64
images (only the copy in two bits stopped at 200). A row is a model in one way of running it: `chapter` that
made it, `model` and `arm` in words, `shown_as` (its short name in the plot, missing for a model that is drawn
without one), `runtime` ("eager", "onnx fp32" or "onnx int8"), the `data` it learned from and the `start` of
its weights in words, `parameters`, `macs` per image, `size_mb`, `latency_ms` for one image on one thread of a
CPU, `accuracy` on the test set in percent (the mean over seeds) and its `standard_error` in points.

The chapters were run one by one, on a machine that is not always equally fast. Each therefore measured the
teacher in ONNX Runtime as well, and its latencies are read in proportion to the teacher's.
"""

from __future__ import annotations

import io
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from kdutils import evaluate
from kdutils.course import plot, runtime
from kdutils.course.data import data_dir, verified_bytes
from kdutils.train import predict

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

FILE = "trade_off.csv"
SHA256 = "ca3992ce20b4b468860990a8a92c959329243023ba9cb445a918fb272484e31b"  # set by tools/store_trade_off.py
COLUMNS = (
    "chapter", "model", "arm", "shown_as", "runtime", "data", "start", "parameters", "macs", "size_mb",
    "latency_ms", "accuracy", "standard_error",
)  # fmt: skip
MARKERS = {"onnx int8": "o", "onnx fp32": "s", "eager": "x"}
TEACHER = "teacher_latency_ms"  # one more column of the file: the teacher in ONNX Runtime, in the row's run
Running = nn.Module | Path  # in eager PyTorch, or in ONNX Runtime


def load_trade_off() -> pandas.DataFrame:
    """The table that ships with the course, taken from the stored notebooks by `tools/store_trade_off.py`.

    Latencies are in ms of the run that the first row comes from: every other run's are scaled by what the
    teacher took there and here.

    Raises:
        DataFileError: The file is missing, truncated or altered.
    """
    import pandas

    points = pandas.read_csv(io.BytesIO(verified_bytes(data_dir() / FILE, SHA256)))
    of_teacher = points.pop(TEACHER)
    points["latency_ms"] *= of_teacher[0] / of_teacher
    return points


def as_csv(points: pandas.DataFrame, teacher_latency_ms: float) -> str:
    """The table as text: what a notebook prints, and `tools/store_trade_off.py` collects.

    Args:
        points: The rows, with the columns `COLUMNS`.
        teacher_latency_ms: What the teacher took in ONNX Runtime, fp32, in the run that the points come from.

    Raises:
        ValueError: Columns that are not the table's.
    """
    if set(points.columns) != set(COLUMNS):
        raise ValueError(f"points: expected the columns {list(COLUMNS)}, got {list(points.columns)}")
    rows = points[list(COLUMNS)].assign(**{TEACHER: teacher_latency_ms})
    return rows.to_csv(index=False, float_format="%.5g", lineterminator="\n").rstrip()


def run_everywhere(
    models: Mapping[str, Sequence[nn.Module]], calibration: Tensor, images: Tensor, labels: Tensor
) -> pandas.DataFrame:
    """Runs every model in eager PyTorch and, where it is installed, in ONNX Runtime as fp32 and as int8.

    Args:
        models: Name → the trained networks of its seeds, on the CPU in eval mode. The first one is timed.
        calibration: Prepared images (N, C, H, W) whose activations set the scales of int8.
        images: The prepared test images (N, C, H, W).
        labels: Their labels, (N,).

    Returns:
        A row for each model and runtime, with those columns of the table that can be measured.
    """
    import pandas

    rows: list[dict[str, object]] = []
    timed: dict[tuple[str, str], Running] = {}
    there = runtime.available()
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, networks) in enumerate(models.items()):
            ways: dict[str, list[Running]] = {"eager": list(networks)}
            if there:
                ways |= _as_files(networks, calibration, images, f"{folder}/{number}")
            for how, runs in ways.items():
                timed[name, how] = runs[0]
                rows.append({"model": name, "runtime": how, **_measured(networks[0], runs, images, labels)})
        latency = runtime.latencies_ms(timed, images[:1])
    return pandas.DataFrame(rows).assign(latency_ms=list(latency.values()))


def _as_files(
    networks: Sequence[nn.Module], calibration: Tensor, images: Tensor, stem: str
) -> dict[str, list[Running]]:
    fp32 = [
        runtime.export_onnx(network, f"{stem}-{seed}.onnx", images[:2])
        for seed, network in enumerate(networks)
    ]
    int8 = [runtime.quantize_onnx(path, path.with_suffix(".int8.onnx"), calibration) for path in fp32]
    return {"onnx fp32": list(fp32), "onnx int8": list(int8)}


def _measured(
    network: nn.Module, runs: Sequence[Running], images: Tensor, labels: Tensor
) -> dict[str, float | int]:
    scores = [evaluate.accuracy(_logits(run, images), labels) for run in runs]
    first = runs[0]
    return {
        "parameters": evaluate.parameter_count(network),
        "macs": evaluate.macs(network, images[:1]),
        "size_mb": first.stat().st_size / 1e6 if isinstance(first, Path) else evaluate.size_mb(first),
        "accuracy": statistics.mean(scores),
        "standard_error": statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0,
    }


def _logits(run: Running, images: Tensor) -> Tensor:
    return runtime.onnx_logits(run, images) if isinstance(run, Path) else predict(run, images)


def on_front(points: pandas.DataFrame) -> pandas.Series:
    """Which rows no other row beats: none is as fast and more accurate, or faster and as accurate."""
    fastest = points.sort_values(["latency_ms", "accuracy"], ascending=[True, False])
    best_so_far = fastest["accuracy"].cummax().shift(fill_value=-math.inf)
    return (fastest["accuracy"] > best_so_far).reindex(points.index)


def draw(points: pandas.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy against latency: a color for each start, a marker for each runtime, a line for the front.

    Rows with a name in `shown_as` carry it once, at the runtime where they are fastest; the front joins the
    rows in ONNX Runtime, or all where there is none. Rows in eager PyTorch are drawn lightly.
    """
    import matplotlib.pyplot as plt

    points = points.reset_index(drop=True)  # tables that were joined may number their rows alike
    ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")[1] if ax is None else ax
    colors = _colors(points["start"].unique())
    for (start, how), rows in points.groupby(["start", "runtime"], sort=False):
        pale = how == "eager"
        ax.scatter(
            rows["latency_ms"], rows["accuracy"], s=28 if pale else 42, marker=MARKERS[how],
            color=colors[start], alpha=0.35 if pale else 0.85, linewidths=1 if pale else 0, zorder=3,
        )  # fmt: skip
    served = points[points["runtime"] != "eager"]
    front = (served if len(served) else points)[lambda rows: on_front(rows)].sort_values("latency_ms")
    ax.step(front["latency_ms"], front["accuracy"], where="post", color="#b5b5b5", linewidth=1.2, zorder=1)
    named = points[points["shown_as"].notna()].sort_values("latency_ms").drop_duplicates("shown_as")
    plot.name_points(
        ax,
        {
            row.shown_as: (row.latency_ms, row.accuracy, colors[row.start])
            for row in named.itertuples(index=False)
        },
    )
    _legend(ax, colors, [how for how in MARKERS if how in set(points["runtime"])])
    ax.set(xlabel="latency of one image (ms, one thread)", ylabel="test accuracy (%)")
    return ax


def _colors(starts: Sequence[str]) -> dict[str, str]:
    palette = (plot.DISTILLED, *plot.OTHERS[:3], plot.BASELINE, *plot.OTHERS[3:])
    students = [start for start in starts if start != "teacher"]
    return {"teacher": plot.TEACHER} | dict(zip(students, palette, strict=False))


def _legend(ax: Axes, colors: Mapping[str, str], ways: Sequence[str]) -> None:
    for how in ways:
        ax.scatter([], [], marker=MARKERS[how], color="#606060", s=30, label=how.replace("onnx", "ONNX"))
    for start, color in colors.items():
        ax.plot([], [], color=color, linewidth=5, label=start)
    ax.legend(fontsize="x-small", loc="lower right")
