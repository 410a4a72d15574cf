"""Chapter 16: what the notebook writes out, its shipped generator, and the slips its exercises know."""

import json

import pytest
import torch
from damage import alter, remove, truncate
from notebook_code import verdict

from kdutils.course import data, generator
from kdutils.course.exercises import chapter16 as exercises
from kdutils.course.generator import Autoencoder, Flow, load_autoencoder, load_clothes_flow
from kdutils.course.models import load_teacher

POINTS = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))

# The generator


def test_a_seed_makes_the_same_flow_whatever_was_drawn_before():
    torch.manual_seed(5)
    first = Flow(2, seed=3)(POINTS, 0.5)
    torch.manual_seed(6)
    assert torch.equal(first, Flow(2, seed=3)(POINTS, 0.5))
    assert not torch.equal(first, Flow(2, seed=4)(POINTS, 0.5))


def test_a_time_for_all_and_one_for_each_are_the_same():
    flow = Flow(2)
    each = torch.full((7, 1), 0.25)
    assert torch.equal(flow(POINTS, 0.25), flow(POINTS, each)) and flow(POINTS, 0.25).shape == (7, 2)
    assert not torch.equal(flow(POINTS, 0.25), flow(POINTS, 0.5))


def test_an_autoencoder_keeps_shape_and_range():
    images = torch.rand(3, 1, 28, 28)
    rebuilt = Autoencoder()(images)
    assert rebuilt.shape == images.shape and rebuilt.min() >= 0 and rebuilt.max() <= 1


def test_the_shipped_autoencoder_rebuilds_clothes_and_its_codes_are_standardized():
    images = data.fashion_mnist().pool.images[:2_000] / 255
    model = load_autoencoder()
    codes = model.encode(images)
    assert (model.decode(codes) - images).abs().mean() < 0.06
    assert codes.mean(dim=0).abs().max() < 0.15 and (codes.std(dim=0) - 1).abs().max() < 0.15
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_shipped_flow_draws_what_the_classifier_takes_for_clothes():
    points = torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    for step in range(32):
        points = points + load_clothes_flow()(points, step / 32) / 32
    pixels = (255 * load_autoencoder().decode(points)).round().byte()
    with torch.no_grad():
        confidence = load_teacher()(data.normalize_fashion_mnist(pixels)).softmax(dim=1).amax(dim=1)
    assert confidence.median() > 0.9


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("card.json", remove),
        *(
            (f"{name}.safetensors", damage)
            for name in ("autoencoder", "flow")
            for damage in (remove, truncate, alter)
        ),
    ],
)
def test_a_damaged_file_is_named_with_its_repair(tmp_path, monkeypatch, name, damage):
    folder = tmp_path / "data" / "generator"
    folder.mkdir(parents=True)
    for path in (data.data_dir() / "generator").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(generator, "data_dir", lambda: tmp_path / "data")
    damage(folder / name)
    with pytest.raises(data.DataFileError, match=rf"{name}.*Repair: "):
        load_autoencoder()
        load_clothes_flow()


def test_the_card_says_what_was_trained():
    card = json.loads((data.data_dir() / "generator" / "card.json").read_text())
    for name, model in (("autoencoder", Autoencoder()), ("flow", generator.clothes_flow())):
        assert card[name]["parameters"] == sum(p.numel() for p in model.parameters())


# Exercises


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (1.5, "passed"),
        (3.0, "more frequent"),
        (0.5, "equally frequent"),
        (1.9, "leaving the noise"),
        (1.1, "velocity"),
    ],
)
def test_the_landing_place(capsys, answer, said):
    assert said in verdict(capsys, exercises.landing_place, answer)


def right(teacher, start, time, steps):
    half = 1 / (2 * steps)
    middle = start + half * teacher(start, time)
    return (middle + half * teacher(middle, time + half) - start) * steps


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (right, "passed"),
        (
            lambda teacher, start, time, steps: start + right(teacher, start, time, steps) / steps,
            "returns where",
        ),
        (lambda teacher, start, time, steps: right(teacher, start, time, steps) / steps, "returns the way"),
        (lambda teacher, start, time, steps: teacher(start, time) / 2, "one half step"),
        (lambda teacher, start, time, steps: ..., "not attempted"),
    ],
)
def test_two_steps_in_one(capsys, attempt, said):
    assert said in verdict(capsys, exercises.two_in_one, attempt)


def clouds(**changed):
    drawn = {
        name: torch.randn(600, 2, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("abc")
    }
    ring = {name: cloud / cloud.norm(dim=1, keepdim=True) for name, cloud in drawn.items()}
    lump = 0.01 * drawn["a"]
    return {"data": ring["a"], "many_steps": ring["b"], "one_step": lump, "student": ring["c"], **changed}


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (clouds(), "passed"),
        (clouds(student=clouds()["one_step"]), "in step"),
        (clouds(student=clouds()["many_steps"]), "are the teacher's"),
        (clouds(many_steps=clouds()["one_step"]), "train the teacher longer"),
        (clouds(student=torch.zeros(600, 3)), "'student' is none"),
        (clouds(student="no"), "'student' is none"),
        ({"data": POINTS}, "expected a dict"),
        (3, "expected a dict"),
        (..., "not attempted"),
    ],
)
def test_own_data(capsys, samples, said):
    assert said in verdict(capsys, exercises.own_data, samples)
