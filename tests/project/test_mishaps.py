"""What happens to readers: no network, a disk that cannot be written, cells run twice or too early, two
notebooks at once, a program killed while it writes a file, a file that would run code when it is loaded."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import CHAPTERS, ROOT, code_cells, figure, read, small_chapter, write

HARNESS, TOOLS = ROOT / "tests" / "harness", ROOT / "tools"

USE_OF_THE_PACKAGE = """
import sealed
attempts = sealed.seal()

import torch
import torch.nn.functional as F
from kdutils import evaluate
from kdutils.batches import batches
from kdutils.claim import check
from kdutils.course import course_map, data, models, plot, text, trade_off
from kdutils.course.exercises import chapter01
from kdutils.compare import compare
from kdutils.losses import kd_loss, multilabel_kd_loss
from kdutils.train import fit, predict

plot.use_style()
torch.set_num_threads(1)
fm, reviews, teacher = data.fashion_mnist(), text.movie_reviews(), models.load_teacher()
normalize = data.normalize_fashion_mnist
images, labels = data.labeled_subset(fm.pool, 100, seed=0)
knowledge = predict(teacher, images, transform=normalize)


def distilled(seed):
    student = models.small_cnn(seed)
    loader = batches(images, knowledge, seed=seed, transform=normalize)
    fit(student, loader, lambda model, x, teacher: kd_loss(model(x), teacher), steps=3, lr=0.01)
    answers = predict(student, fm.validation.images[:500], transform=normalize)
    return evaluate.accuracy(answers, fm.validation.labels[:500])


runs = compare({"distilled": distilled, "labels only": lambda seed: 10.0}, seeds=range(2))
check("something is known", evaluate.accuracy(knowledge, labels), above=80)
chapter01.tag_loss(lambda z, v, T: multilabel_kd_loss(z, v, temperature=T))
plot.every_seed(runs)
plot.gains({"gain": runs.gain("distilled", over="labels only")})
trade_off.draw(trade_off.load_trade_off())
plot.images(data.normalize_fashion_mnist(images[:3]), ["a", "b", "c"])
course_map.course_map()
assert len(sealed.pictures()) == 5
print(runs.values, knowledge.sum().item(), len(reviews.unlabelled))
print(attempts)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of a process whose temporary folder, the only place that it may write to, is its own."""
    folder = str(tmp_path_factory.mktemp("scratch"))
    return {
        **os.environ, "TMPDIR": folder, "MPLCONFIGDIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder,
        "MPLBACKEND": "agg", "TQDM_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(HARNESS), str(TOOLS)]),
    }  # fmt: skip


def python(environment, *arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


# No network, a disk that cannot be written, two at once


@pytest.fixture(scope="module")
def two_uses(environment):
    """What two processes printed that used the package at the same time, each sealed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", USE_OF_THE_PACKAGE], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [printed.splitlines() for printed, _ in outputs]


def test_the_package_neither_asks_for_the_network_nor_writes_a_file(two_uses):
    assert [lines[-1] for lines in two_uses] == ["[]", "[]"]


def test_two_at_once_see_the_same(two_uses):
    first, second = two_uses
    assert first == second


ATTEMPTS = {
    "socket.socket().connect(('127.0.0.99', 9))": "connects to 127.0.0.99",
    "urllib.request.urlopen('http://elsewhere.invalid')": "looks up elsewhere.invalid",
    "urllib.request.urlopen('http://127.0.0.1:9')": None,
    "pathlib.Path('x').write_text('')": "writes x",
    "pathlib.Path('x').mkdir()": "os.mkdir x",
    "tempfile.TemporaryFile().write(b'x')": None,
    "with tempfile.TemporaryDirectory() as f: (pathlib.Path(f) / 'x').write_text('')": None,
}


@pytest.mark.parametrize("attempt, noted", ATTEMPTS.items(), ids=ATTEMPTS)
def test_an_attempt_is_noted_although_the_program_goes_on(attempt, noted, environment, tmp_path):
    program = (
        "import contextlib, pathlib, sealed, socket, tempfile, urllib.request\n"
        f"attempts = sealed.seal()\nwith contextlib.suppress(OSError):\n    {attempt}\nprint(attempts)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**environment, "no_proxy": "*"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout.strip() == str([noted] if noted else []), run.stderr
    assert not (tmp_path / "x").exists()


# Cells run twice, and too early


def complaints(environment, *notebooks):
    run = python(environment, str(HARNESS / "sealed.py"), *map(str, notebooks))
    assert run.returncode == 0, run.stderr
    assert "Exception in interact callback" not in run.stderr, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def complaints_about_chapters(environment):
    return complaints(environment, *CHAPTERS)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_stands_cells_run_twice_and_too_early_without_network_or_disk(
    path, complaints_about_chapters
):
    assert complaints_about_chapters[str(path)] == []


def test_what_goes_wrong_is_told(environment, tmp_path):
    chapter = small_chapter()
    chapter.cells[1].source += "\nseen = []"
    chapter.cells[3].source = "seen.append(len(seen))\nplt.plot(seen);"
    chapter.cells.append(new_code_cell("1 / 0", outputs=[figure()]))
    chapter.cells.append(new_code_cell("plt.plot(trained);", outputs=[figure()]))
    chapter.cells.append(new_code_cell("open('x', 'w')", metadata={"tags": ["browser"]}))
    path = write(chapter, tmp_path / "spoiled.ipynb")
    assert complaints(environment, path)[str(path)] == [
        "1 / 0: too early, ZeroDivisionError: division by zero",
        "seen.append(len(seen)): another picture the second time",
        "open('x', 'w'): OSError: [Errno 30] Read-only file system: 'writes x'",
        "writes x",
    ]


# Killed while a file is written

KILLED = """
import os, runpy, sys
from pathlib import Path

write = Path.write_bytes


def written_in_part(path, content):
    write(path, content[: len(content) // 2])
    os._exit(9)  # as a kill: nothing is tidied up


Path.write_bytes = written_in_part
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_notebook_is_whole_after_a_kill_and_the_next_run_stores_it(environment, tmp_path):
    path = write(new_notebook(cells=[new_code_cell("print(2 + 2)")]), tmp_path / "small.ipynb")
    before = path.read_bytes()
    store = [str(TOOLS / "store_notebooks.py"), str(path)]
    assert python(environment, "-c", KILLED, *store).returncode == 9
    assert path.read_bytes() == before
    assert python(environment, *store).returncode == 0
    assert read(path).cells[0].outputs[0].text == "4\n"
    assert os.listdir(tmp_path) == ["small.ipynb"]


def test_tools_replace_files_in_one_step():
    """No tool writes in a file's place: then a kill leaves it whole, as the test above shows of one."""
    in_place = [
        f"{path.name}:{node.lineno}"
        for path in TOOLS.glob("*.py")
        if path.name not in {"replacing.py", "binder.py"}  # the one itself; settings of control groups
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"write_text", "write_bytes", "write", "to_csv"}
    ]
    assert in_place == []


# Files that would run code when they are loaded

LOADS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unsafe_loads(source: str) -> Iterator[str]:
    """What in a program could run code that a file holds: pickle and what is made of it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = {module or ""} | {alias.name for alias in node.names}
            yield from sorted(LOADS_CODE & {name.split(".")[0] for name in names})
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            settings = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if ast.unparse(node.func) == "torch.load" and settings.get("weights_only") is not True:
                yield "torch.load without weights_only=True"
            if settings.get("allow_pickle") not in (None, False):
                yield "allow_pickle"
            if node.func.attr == "read_pickle":
                yield "read_pickle"


def programs() -> Iterator[tuple[str, str]]:
    """(name, source) of every program of the project, and of every notebook's code."""
    for folder in ("kdutils", "tools", "tests", "docs", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in CHAPTERS:
        transform = TransformerManager().transform_cell
        yield path.name, "".join(transform(cell.source) for cell in code_cells(read(path)))


def test_no_pickle_is_ever_loaded():
    found = {name: list(unsafe_loads(source)) for name, source in programs()}
    assert {name: loads for name, loads in found.items() if loads} == {}
    assert len(found) > 100


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "import cloudpickle as c", "torch.load(path)",
        "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)", "pd.read_pickle(path)",
    ],
)  # fmt: skip
def test_a_load_that_could_run_code_is_seen(source):
    assert len(list(unsafe_loads(source))) == 1
    assert list(unsafe_loads("torch.load(p, weights_only=True)\nnp.load(p)\nsafetensors.torch.load(b)")) == []
