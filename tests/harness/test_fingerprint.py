"""The fingerprint of a notebook's code: what cannot move a claim leaves it as it is, all else does not."""

import re

import fingerprint
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import CHAPTERS, code_cells, read, write

CELLS = [
    """
import matplotlib.pyplot as plt
import torch.nn.functional as F

import kdutils
from kdutils.claim import check
from kdutils.course import plot
from kdutils.course.exercises import chapter01 as exercises
from kdutils.losses import kd_loss
from kdutils.train import fit

kdutils.set_seed(0)
""",
    '''
def trained(seed, lr):
    """A student."""
    student = models.small_cnn(seed)
    fit(student, loader, kd_loss, steps=10, lr=lr)
    plt.plot(curve(student), color="blue")
    return student

# the arms
students = [trained(seed, lr=0.1) for seed in range(3)]
gain = accuracy(students)
''',
    """
def drawn(values, ax):
    shown = [100 * value for value in values]
    ax.plot(shown, label="gain")
    ax.set(xlabel="seed", ylabel="points")


colors = ["red", "green"]
_, axes = plt.subplots(1, 2, figsize=(7, 3))
for ax, color in zip(axes, colors, strict=True):
    drawn(gain, ax)
    ax.set_title("a title", color=color)
print("mean", sum(gain) / 3)
""",
    'check("the gain, points", gain, above=1, rests_on="teacher")',
    "bound = 2 * sum(gain)\nplot.gains(gain, xlabel='points');",
    'check("all gains, points", gain, below=bound)',
    "answer = ...",
    "exercises.judged(answer)",
]


def code_of(folder, cells):
    return fingerprint.code_of(
        write(new_notebook(cells=[new_code_cell(c) for c in cells]), folder / "01.ipynb")
    )


def edited(old, new):
    assert sum(old in cell for cell in CELLS) == 1, old
    return [cell.replace(old, new) for cell in CELLS]


@pytest.mark.parametrize(
    "old, new",
    [
        ("# the arms", "# other words\n"),
        ('"""A student."""', '"""Trained from a seed."""'),
        ("from kdutils.train import fit", "from kdutils.loop import fit, predict"),
        ("import matplotlib.pyplot as plt\n", "import matplotlib.pyplot as plt\nimport pandas as pd\n"),
        ('xlabel="seed"', 'xlabel="seed of the draw"'),
        ('ylabel="points"', 'ylabel="gain (points)", ylim=(0, 5)'),
        ('label="gain"', 'label="what is gained", color=plot.DISTILLED, linewidth=3'),
        ('"red", "green"', '"blue", "green"'),
        ('color="blue"', "color=plot.TEACHER"),
        ("figsize=(7, 3)", "figsize=(6, 3.5), sharey=True"),
        ('"a title"', 'f"{len(gain)} seeds"'),
        ("shown = [100 * value for value in values]", "shown = values"),
        ('print("mean", sum(gain) / 3)', 'print(f"on average {sum(gain) / 3:.1f}")'),
        ("above=1, ", "above=0.5, below=9, "),
        ('rests_on="teacher"', 'rests_on="distillation"'),
        ("xlabel='points'", "xlabel='gain (points)'"),
        (
            "plot.gains(gain, xlabel='points');",
            "plot.gains(gain)\nplt.figure()\nplt.hist(gain, color='pink');",
        ),
        ("answer = ...", "def answer(x):\n    return ..."),
    ],
)
def test_what_cannot_move_a_claim_leaves_the_fingerprint_as_it_is(old, new, tmp_path):
    assert code_of(tmp_path, edited(old, new)) == code_of(tmp_path, CELLS)


def test_a_cell_that_only_draws_or_shows_leaves_it_as_it_is(tmp_path):
    more = [
        *CELLS[:4],
        "import numpy as np\nxs = np.linspace(0, 1)\nplt.plot(xs, [x**2 for x in xs]);",
        "explore(lambda n: drawn(gain[:n], plt.gca()), n=[1, 2, 3])",
        "drawings.fewer_steps();",
        "pd.DataFrame({'gain': gain}).round(1)",
        *CELLS[4:],
    ]
    assert code_of(tmp_path, more) == code_of(tmp_path, CELLS)


@pytest.mark.parametrize(
    "old, new",
    [
        ("set_seed(0)", "set_seed(1)"),
        ("steps=10", "steps=11"),
        ("lr=0.1", "lr=0.2"),
        ("kd_loss, steps", "F.cross_entropy, steps"),
        ("range(3)", "range(4)"),
        ('"the gain, points"', '"the mean gain, points"'),
        ("above=1, ", "above=bound, "),
        ("below=bound", "below=3 * sum(gain)"),  # computed: what it comes to is not known without a run
        ("bound = 2 * sum(gain)", "bound = 3 * sum(gain)"),
        ('ax.plot(shown, label="gain")', 'ax.plot(trained(7, 0.1), label="gain")'),  # may draw random numbers
        ("    drawn(gain, ax)", "    drawn(gain, ax)\n    gain.append(ax)"),
        ("import torch.nn.functional as F\n", "from other import functions as F, kd as kd_loss\n"),
    ],
)
def test_what_can_move_a_claim_changes_the_fingerprint(old, new, tmp_path):
    assert code_of(tmp_path, edited(old, new)) != code_of(tmp_path, CELLS)


@pytest.mark.parametrize(
    "line",
    [
        "torch.manual_seed(1)",
        "torch.rand(3).mean()",
        "gain += [1]",
        "gain.sort()",
        "student.train()",
        "student.weight.zero_()",
        "np.random.shuffle(gain)",
        "print(trained(1, 0.1))",
        "plt.plot(fit(student, loader, kd_loss, steps=1, lr=0.1)['loss'])",
        "list(map(run, range(3)))",  # whatever `run` does
        "max(gain, key=run)",
        "(gain := [1])",
        "gain[0] = 2",
        "torch.use_deterministic_algorithms(True)",
        'check("one more, points", 1, above=0)',
    ],
)
def test_a_line_that_may_change_something_is_seen(line, tmp_path):
    assert code_of(tmp_path, [*CELLS[:3], line, *CELLS[3:]]) != code_of(tmp_path, CELLS)


LOOKS = {
    r"\b(color|c)=plot\.\w+\b(?! if )": r"\1='pink'",  # one that depends on a result counts as code
    r"\b(xlabel|ylabel|title)=f?\"[^\"]*\"": r"\1='something else'",
    r"figsize=\([^()]*\)": "figsize=(3, 3)",
    r"\blinestyle=\"[^\"]*\"": "linestyle=':'",
}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_another_color_label_or_size_in_a_chapter_is_no_other_code(chapter, tmp_path):
    notebook, changes = read(chapter), 0
    for cell in code_cells(notebook):
        for look, other in LOOKS.items():
            cell.source, count = re.subn(look, other, cell.source)
            changes += count
    assert changes >= 5
    assert fingerprint.code_of(write(notebook, tmp_path / chapter.name)) == fingerprint.code_of(chapter)
