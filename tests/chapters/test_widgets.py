"""A slider for every argument; the picture follows, and what fails is not swallowed."""

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import pytest

from kdutils.course.widgets import explorations, explore


@pytest.fixture(autouse=True)
def no_windows():
    matplotlib.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    """The box of sliders that `explore` displays."""
    boxes = []
    monkeypatch.setattr(ipywidgets.widgets.interaction, "display", boxes.append)
    return boxes


def sliders_in(box):
    return {
        slider.description: slider
        for slider in box.children
        if isinstance(slider, ipywidgets.SelectionSlider)
    }


def test_a_slider_for_every_argument_and_the_first_stops_drawn(shown):
    drawn = []
    assert explore(lambda **values: drawn.append(values), T=[1, 2, 4], kd_weight=(0.5, 0.9)) is None
    (box,) = shown
    sliders = sliders_in(box)
    assert set(sliders) == {"T", "kd weight"}
    assert sliders["T"].options == (1, 2, 4) and sliders["kd weight"].options == (0.5, 0.9)
    assert not any(slider.continuous_update for slider in sliders.values())
    assert drawn == [{"T": 1, "kd_weight": 0.5}]


def test_moving_a_slider_draws_anew(shown):
    drawn = []
    explore(lambda T, alpha: drawn.append((T, alpha)), T=[1, 2, 4], alpha=range(3))
    sliders = sliders_in(shown[0])
    sliders["T"].value = 4
    sliders["alpha"].value = 2
    assert drawn == [(1, 0), (4, 0), (4, 2)]


def test_numbers_are_put_in_order_and_the_first_one_is_shown(shown):
    drawn = []
    explore(lambda **values: drawn.append(values), T=[4, 1, 20, 2.5], layer=["last", "first"])
    sliders = sliders_in(shown[0])
    assert sliders["T"].options == (1, 2.5, 4, 20) and sliders["layer"].options == ("last", "first")
    assert drawn == [{"T": 4, "layer": "last"}]


def test_what_was_explored_is_kept_for_the_site(shown):
    def draw(T):
        pass

    explore(draw, T=[4, 1])
    assert explorations[-1] == (draw, {"T": [1, 4]}, {"T": 4})


def test_every_picture_is_shown(shown, monkeypatch):
    shows = []
    monkeypatch.setattr(plt, "show", lambda: shows.append(plt.get_fignums()))
    explore(lambda T: plt.figure(T), T=[1, 2])
    sliders_in(shown[0])["T"].value = 2
    assert shows == [[1], [1, 2]]


@pytest.mark.parametrize("stops", [[], [1], ()])
def test_a_slider_needs_two_stops(stops, shown):
    with pytest.raises(ValueError, match=r"T: expected at least two stops, got \["):
        explore(lambda T: None, T=stops)
    assert shown == []
