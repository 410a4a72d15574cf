"""The pages' snippets run as printed: every block of Python, in the order of the page."""

import copy
import re
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from decision import QUESTIONS, WIDTH, decision_svg
from notebook_files import ROOT

from kdutils import losses

COOKBOOK = ROOT / "docs" / "cookbook.md"
LIBRARY = ROOT / "docs" / "library.md"
NAMES = ROOT / "docs" / "names.md"
LONGEST_LINE, MOST_LINES = 88, 26  # of a block


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def recipes(path: Path) -> dict[str, str]:
    """The page's sections of third level, each by its heading."""
    parts = re.split(r"^### (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        heading: text.partition("\n## ")[0] for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def run(block: str, names: dict[str, Any], where: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(block, where, "exec"), names)


RECIPES = recipes(COOKBOOK)
START, *OTHERS = RECIPES


@pytest.fixture
def started(tmp_path, monkeypatch) -> dict[str, Any]:
    """What the first recipe leaves, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    *stand_ins, last = python_blocks(RECIPES[START])
    for block in stand_ins:
        run(block, names, START)
    names["state of the teacher"] = copy.deepcopy(names["teacher"].state_dict())
    run(last, names, START)
    return names


def test_the_first_recipe_trains_the_student_and_not_the_teacher(started):
    assert len(started["history"]["loss"]) == 8
    assert not started["teacher"].training and not started["student"].training
    for name, tensor in started["teacher"].state_dict().items():
        assert tensor.equal(started["state of the teacher"][name])


# What must be true after a recipe, beyond that it runs.
OUTCOMES = {
    "Which temperature?": lambda n: n["first"] < 0.5,
    "Which weight?": lambda n: min(n["norms"].values()) > 0,
    "Which layers, and what if the shapes differ?": lambda n: n["history"]["hint"][0] > 0,
    "My student is no better than without": lambda n: n["slips"] == [],
    "Is the gain real, or luck?": lambda n: len(n["runs"].seeds) == 3,
    "Segmentation": lambda n: n["student_logits"].grad.abs().sum() > 0,
    "Regression": lambda n: n["bounded"] > 0 and n["student_says"].grad.abs().sum() > 0,
    "Detection": lambda n: n["student_boxes"].grad.abs().sum() > 0,
    "A language model": lambda n: n["student_says"].grad[:, :3].eq(0).all(),
    "The teacher is behind an API": lambda n: (
        n["teacher_logits"].softmax(1).allclose(n["probabilities"], atol=1e-6)
    ),
    "A student cut out of its teacher": lambda n: n["three_layers"].config.num_hidden_layers == 3,
    "The teacher is slow: cache its answers": lambda n: Path("answers.npy").is_file(),
    "Gradient accumulation": lambda n: n["logits"].grad.allclose(n["whole"], atol=1e-6),
    "Train only a part": lambda n: n["mean_before"].equal(n["normed"][1].running_mean),
    "Validate, keep the best, stop early": lambda n: n["best"]["accuracy"] > 0,
    "Export the student, and check that it answers alike": lambda n: n["alike"] == 100,
}


@pytest.mark.parametrize("heading", OTHERS)
def test_a_recipe_runs_as_printed(heading, started):
    (block,) = python_blocks(RECIPES[heading])
    run(block, started, heading)
    assert OUTCOMES.get(heading, lambda names: True)(started)


def test_every_outcome_belongs_to_a_recipe_and_the_cookbook_is_one():
    assert set(OUTCOMES) <= set(OTHERS)
    assert len(RECIPES) >= 20


def test_the_library_by_example_leads_to_an_exported_student(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in python_blocks(LIBRARY.read_text(encoding="utf-8")):
        run(block, names, LIBRARY.name)
    assert names["slips"] == []
    # what the page says of the two arms
    runs = names["runs"]
    assert abs(runs.mean("labels") - 40) < 12 and abs(runs.mean("distilled") - 80) < 12
    assert runs.gain("distilled", over="labels").low > 0
    assert names["alike"] == 100 and names["difference"] < 1e-3
    assert names["accuracy"](names["logits"], names["new_labels"]) > 90  # the last is the student


@pytest.mark.parametrize("page", [COOKBOOK, LIBRARY], ids=lambda page: page.stem)
def test_blocks_fit_the_page(page):
    for block in python_blocks(page.read_text(encoding="utf-8")):
        lines = [line for line in block.splitlines() if line.strip()]
        assert max(map(len, lines)) <= LONGEST_LINE, lines
        assert len(lines) <= MOST_LINES, block


def test_every_name_of_ours_in_the_table_is_one():
    rows = [
        line.split("|") for line in NAMES.read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    named = {name for row in rows if len(row) > 5 for name in re.findall(r"`(\w+)`", row[2])}
    assert named - {"FeatureTap"} <= set(losses.__all__) and len(named) > 15


def test_torchdistill_has_the_names_of_the_table():
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    column = NAMES.read_text(encoding="utf-8").partition("## Losses")[2].partition("\n\n| what")[2]
    rows = [line.split("|") for line in column.splitlines() if line.startswith("|") and line.count("|") == 5]
    named = {name for row in rows for name in re.findall(r"`(\w+Loss)`", row[3])}
    assert len(named) > 8 and all(hasattr(mid_level, name) for name in named)


def test_the_same_divergence_by_other_conventions():
    names: dict[str, Any] = {}
    (block,) = python_blocks(NAMES.read_text(encoding="utf-8"))
    run(block, names, NAMES.name)
    ours = names["ours"].item()
    assert names["as_in_repdistiller"].item() == pytest.approx(ours, rel=1e-4)
    assert 16 * names["as_in_trl"].item() == pytest.approx(ours, rel=1e-4)
    assert 10 * names["with_reduction_mean"].item() == pytest.approx(ours, rel=1e-4)


def test_the_decision_leads_to_the_chapters_that_are_there_and_to_no_other():
    answers = [answer for answers in QUESTIONS.values() for answer in answers]
    there = {"00": "notebooks/00.html", "08": "notebooks/08.html"}
    drawing = decision_svg(there.get)
    assert re.findall(r'href="(.+?)"', drawing) == [
        "notebooks/08.html",
        "notebooks/00.html",
        "notebooks/08.html",
    ]
    everything = decision_svg(lambda chapter: f"{chapter}.html")
    assert len(re.findall("<a ", everything)) == len(answers)
    ElementTree.fromstring(everything)  # well-formed
    # eight units are about a bold letter's width
    assert all(8 * (len(answer.advice) + 5) < WIDTH + 30 for answer in answers)
