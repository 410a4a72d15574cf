"""The table behind the plot of chapters 07 to 10: accuracy, latency and size of every model they made.

A row is a model: `chapter` that made it, `model` and `arm` in words, `shown_as` (its short name in the plot,
missing for a model that is not drawn by name), `parameters`, `macs` per image, `size_mb`, `latency_ms` at
batch 1 on a CPU, `accuracy` on the test set in percent (the mean over seeds) and its `standard_error` in
points.

The chapters were run one by one, on a machine that is not always equally fast. Each therefore measured the
teacher as well, and its latencies are read in proportion to the teacher's.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from kdutils.course.data import data_dir, verified_bytes

if TYPE_CHECKING:
    import pandas

FILE = "trade_off.csv"
SHA256 = "8dc7751a4ba98264cd1fdba39f372fa446ad0db374a14a40c8e998c87f7fa07d"  # set by tools/store_trade_off.py
COLUMNS = (
    "chapter", "model", "arm", "shown_as", "parameters", "macs", "size_mb", "latency_ms", "accuracy",
    "standard_error",
)  # fmt: skip
TEACHER = "teacher_latency_ms"  # one more column of the file: what the teacher took in the row's own run


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
        teacher_latency_ms: What the teacher took in the run that the points come from.

    Raises:
        ValueError: Columns that are not the table's.
    """
    if set(points.columns) != set(COLUMNS):
        raise ValueError(f"points: expected the columns {list(COLUMNS)}, got {list(points.columns)}")
    rows = points[list(COLUMNS)].assign(**{TEACHER: teacher_latency_ms})
    return rows.to_csv(index=False, float_format="%.5g", lineterminator="\n").rstrip()


def points_for_plot(
    points: pandas.DataFrame, teacher_latency_ms: float | None = None
) -> dict[str, tuple[float, float, float]]:
    """The rows with a name in the plot: name → (latency ms, accuracy %, size MB), for `plot.trade_off`.

    Args:
        points: The table, as `load_trade_off` gives it.
        teacher_latency_ms: The teacher's latency on this machine. Given, all latencies are scaled by its
            ratio to the stored one, so that points from another machine stand beside new ones at about the
            right place.

    Raises:
        ValueError: `teacher_latency_ms` is given, and no row is shown as "teacher".
    """
    named = points[points["shown_as"].notna()]
    scale = 1.0
    if teacher_latency_ms is not None:
        of_teacher = named.loc[named["shown_as"] == "teacher", "latency_ms"]
        if len(of_teacher) != 1:
            raise ValueError(f"points: expected one row shown as 'teacher', got {len(of_teacher)}")
        scale = teacher_latency_ms / of_teacher.item()
    rows = named[["shown_as", "latency_ms", "accuracy", "size_mb"]].itertuples(index=False)
    return {name: (scale * latency, accuracy, size) for name, latency, accuracy, size in rows}
