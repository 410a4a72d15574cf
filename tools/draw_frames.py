"""Draws every picture that the sliders of a notebook can show, for the site, where no kernel runs.

`store_notebooks.py` calls it in the notebook's own kernel, once all cells have run.
"""

import contextlib
import hashlib
import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.transforms import Bbox
from PIL import Image, ImageChops
from replacing import replace

from kdutils.course.widgets import Exploration

MOST_FRAMES = 64  # of one exploration
SHARPNESS = 1.5  # pixels of a frame for each of the notebook's figure
MARGIN = 1.0  # inches around a figure, where labels may stand
WHITE_RIM = 8  # pixels


def draw_frames(explorations: Sequence[Exploration], folder: Path) -> list[dict[str, Any]]:
    """Writes the pictures into the folder, named by their content; returns what the site has to know."""
    plt.switch_backend("agg")  # shows nothing by itself, and leaves figures open
    folder.mkdir(parents=True, exist_ok=True)
    return [_frames_of(exploration, folder) for exploration in explorations]


def moving(stops: dict[str, list]) -> list[str]:
    """The first sliders whose combinations are few enough; at least one. The others stand still."""
    names = list(stops)
    while len(names) > 1 and math.prod(len(stops[name]) for name in names) > MOST_FRAMES:
        names.pop()
    return names


def _frames_of(exploration: Exploration, folder: Path) -> dict[str, Any]:
    names = moving(exploration.stops)
    combinations = itertools.product(*(exploration.stops[name] for name in names))
    drawn = [
        _picture(exploration, {**exploration.start, **dict(zip(names, values, strict=True))})
        for values in combinations
    ]
    pictures = _cropped_alike([picture for picture, _ in drawn])
    width, height = pictures[0].size
    return {
        "sliders": [_slider(exploration, name) for name in names],
        "width": round(width / SHARPNESS),
        "height": round(height / SHARPNESS),
        "frames": [_stored(picture, folder) for picture in pictures],
        "texts": [text for _, text in drawn],
    }


def _slider(exploration: Exploration, name: str) -> dict[str, Any]:
    stops = exploration.stops[name]
    return {
        "name": name.replace("_", " "),
        "labels": [str(stop) for stop in stops],
        "start": stops.index(exploration.start[name]),
    }


def _picture(exploration: Exploration, values: dict[str, Any]) -> tuple[Image.Image, str]:
    """The figure drawn for the values, with a wide margin, and what was printed below it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exploration.draw(**values)
    if len(plt.get_fignums()) != 1:
        raise ValueError(f"{values}: expected one figure, found {len(plt.get_fignums())}")
    figure = plt.gcf()
    width, height = figure.get_size_inches()
    whole, file = Bbox([[-MARGIN, -MARGIN], [width + MARGIN, height + MARGIN]]), io.BytesIO()
    figure.savefig(file, format="png", dpi=figure.dpi * SHARPNESS, bbox_inches=whole)
    plt.close(figure)
    picture = Image.open(file).convert("RGB").quantize(256)  # a quarter of the memory, no visible difference
    return picture, printed.getvalue().strip()


def _cropped_alike(pictures: list[Image.Image]) -> list[Image.Image]:
    """The pictures without the margin that is white in all of them."""
    boxes = [_ink(picture) for picture in pictures]
    left, top = (min(box[side] for box in boxes) - WHITE_RIM for side in (0, 1))
    right, bottom = (max(box[side] for box in boxes) + WHITE_RIM for side in (2, 3))
    return [picture.crop((left, top, right, bottom)) for picture in pictures]


def _ink(picture: Image.Image) -> tuple[int, int, int, int]:
    colors = picture.convert("RGB")
    return ImageChops.difference(colors, Image.new("RGB", colors.size, "white")).getbbox() or (0, 0, 9, 9)


def _stored(picture: Image.Image, folder: Path) -> str:
    """The name of the picture's file."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="webp", lossless=True, quality=90, method=4)
    name = f"{hashlib.sha256(file.getvalue()).hexdigest()[:16]}.webp"
    replace(folder / name, file.getvalue())
    return name
