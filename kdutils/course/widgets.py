"""Sliders for the quantities that matter."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt


def explore(draw: Callable[..., Any], **choices: Sequence) -> None:
    """A slider for every named argument of `draw`; the picture follows when a slider is released.

    Args:
        draw: Draws one matplotlib figure.
        choices: name=[values], the slider's stops; the first one is shown.

    Raises:
        ValueError: A slider has fewer than two stops.
    """
    sliders = {}
    for name, stops in choices.items():
        if len(stops) < 2:
            raise ValueError(f"{name}: expected at least two stops, got {list(stops)}")
        sliders[name] = ipywidgets.SelectionSlider(
            options=list(stops), description=name.replace("_", " "), continuous_update=False,
            style={"description_width": "initial"}, layout={"width": "460px"},
        )  # fmt: skip

    def redraw(**values: Any) -> None:
        draw(**values)
        plt.show()

    ipywidgets.interact(redraw, **sliders)
