"""What stands on a page for a notebook's slider: the pictures it can show, with a range input for each.

The pictures are drawn when a notebook is stored, into docs/frames/NN; _static/explore.js shows them. Without
a script the picture that the notebook shows first stands still.
"""

import itertools
import json
import shutil
from html import escape
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

FRAMES = Path("frames")


def stored_frames(source: Path, docname: str) -> list[dict[str, Any] | None]:
    """What is stored of a chapter's sliders, in their order; empty where nothing is drawn yet.

    None for what is no slider, but a box for words.
    """
    index = source / FRAMES / Path(docname).name[:2] / "sliders.json"
    return json.loads(index.read_text(encoding="utf-8")) if index.is_file() else []


def words(sliders: list[dict[str, Any]], places: tuple[int, ...]) -> str:
    """Where the sliders stand: temperature 4, image 179."""
    stand = zip(sliders, places, strict=True)
    return ", ".join(f"{slider['name']} {slider['labels'][place]}" for slider, place in stand)


def exploration_html(stored: dict[str, Any], folder: str, label: str) -> str:
    """The picture and its range inputs.

    Args:
        stored: One entry of sliders.json.
        folder: Where the pictures lie, from the page.
        label: What the picture shows, for those who do not see it.
    """
    sliders = stored["sliders"]
    all_places = list(itertools.product(*(range(len(slider["labels"])) for slider in sliders)))
    start = tuple(slider["start"] for slider in sliders)
    first = all_places.index(start)
    data = {
        "frames": [f"{folder}/{name}" for name in stored["frames"]],
        "words": [words(sliders, places) for places in all_places],
        "texts": stored["texts"],
    }
    alternative = f"{label} Here: {data['words'][first]}."
    size = f'width="{stored["width"]}" height="{stored["height"]}"'
    image = (
        f'<img src="{data["frames"][first]}" {size} loading="lazy" decoding="sync" '
        f'alt="{escape(alternative)}" data-label="{escape(label)}">'
    )
    rows = "".join(_row(slider) for slider in sliders)
    text = f'<pre class="printed">{escape(stored["texts"][first])}</pre>' if any(stored["texts"]) else ""
    return (
        f'<div class="explore" data-explore="{escape(json.dumps(data, ensure_ascii=False))}">{image}{text}'
        f'<div class="controls" hidden>{rows}</div></div>'
    )


def _row(slider: dict[str, Any]) -> str:
    labels, start = slider["labels"], slider["start"]
    return (
        f'<label><span class="name">{escape(slider["name"])}</span> '
        f'<span class="end" aria-hidden="true">{escape(labels[0])}</span> '
        f'<input type="range" min="0" max="{len(labels) - 1}" value="{start}" autocomplete="off" '
        f'data-labels="{escape(json.dumps(labels, ensure_ascii=False))}" '
        f'aria-label="{escape(slider["name"])}" aria-valuetext="{escape(labels[start])}"> '
        f'<span class="end" aria-hidden="true">{escape(labels[-1])}</span> '
        f'<strong class="value" aria-hidden="true">{escape(labels[start])}</strong></label>'
    )


def copy_pictures(app: Sphinx, error: Exception | None) -> None:
    if error is None and (Path(app.srcdir) / FRAMES).is_dir():
        ignored = shutil.ignore_patterns("*.json")
        shutil.copytree(
            Path(app.srcdir) / FRAMES, Path(app.outdir) / FRAMES, ignore=ignored, dirs_exist_ok=True
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", copy_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
