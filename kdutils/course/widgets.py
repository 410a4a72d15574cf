"""Sliders for the quantities that matter."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import ipywidgets
import matplotlib.pyplot as plt


class Exploration(NamedTuple):
    """What `explore` was asked for: a drawing, each slider's stops, and the stops shown first."""

    draw: Callable[..., Any]
    stops: dict[str, list]
    start: dict[str, Any]


# All of this session, in order. From them the site's pictures are drawn when a notebook is stored.
explorations: list[Exploration] = []


def explore(draw: Callable[..., Any], **choices: Sequence) -> None:
    """A slider for every named argument of `draw`; the picture follows when a slider is released.

    Args:
        draw: Draws one matplotlib figure.
        choices: name=[values], the slider's stops; the first one is shown. Numbers are put in order.

    Raises:
        ValueError: A slider has fewer than two stops.
    """
    stops, sliders = {}, {}
    for name, values in choices.items():
        if len(values) < 2:
            raise ValueError(f"{name}: expected at least two stops, got {list(values)}")
        stops[name] = in_order(values)
        sliders[name] = ipywidgets.SelectionSlider(
            options=stops[name], value=values[0], description=name.replace("_", " "),
            continuous_update=False, style={"description_width": "initial"}, layout={"width": "460px"},
        )  # fmt: skip
    explorations.append(Exploration(draw, stops, {name: values[0] for name, values in choices.items()}))

    def redraw(**values: Any) -> None:
        draw(**values)
        plt.show()

    ipywidgets.interact(redraw, **sliders)


def in_order(values: Sequence) -> list:
    """Numbers from the lowest to the highest; anything else as it comes."""
    return sorted(values) if all(isinstance(value, Real) for value in values) else list(values)
