"""The programs under examples/ distil, weigh every word of a step alike, and go on from their checkpoint."""

import copy
import importlib
import re
import runpy
import sys
from types import ModuleType

import pytest
import torch
from notebook_files import ROOT
from torch.utils.data import default_collate

EXAMPLES = ROOT / "examples"
NEEDS = {
    "plain_pytorch": [],
    "hugging_face_trainer": ["transformers", "accelerate"],
    "lightning_module": ["lightning"],
    "with_accelerate": ["accelerate"],
}
EPOCHS, MICRO_BATCHES = 3, 4
MOST_LINES = 70


@pytest.fixture(autouse=True)
def can_import_examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def teacher() -> torch.nn.Module:
    return runpy.run_path(str(EXAMPLES / "task.py"))["trained_teacher"]()


@pytest.fixture(params=NEEDS)
def program(request, monkeypatch, teacher) -> ModuleType:
    """A program with the teacher trained once for all of them, which notes its micro-batches' words."""
    for package in NEEDS[request.param]:
        pytest.importorskip(package)
    program = importlib.import_module(request.param)
    own = copy.deepcopy(teacher)
    monkeypatch.setattr(program, "trained_teacher", lambda: own)
    monkeypatch.setattr(program, "teacher", own, raising=False)
    monkeypatch.setattr(program, "noted", [], raising=False)
    loss_of = program.loss_of

    def noting(logits, teacher_logits, labels, kept):
        assert not own.training and not teacher_logits.requires_grad
        program.noted.append((int((labels != -100).sum()), float(kept)))
        return loss_of(logits, teacher_logits, labels, kept)

    monkeypatch.setattr(program, "loss_of", noting)
    return program


def test_every_program_is_tried():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*NEEDS, "task"}


@pytest.mark.filterwarnings("ignore")  # of loaders without workers, and the like
def test_a_program_distils_and_goes_on_from_its_checkpoint(program, tmp_path, teacher):
    task = importlib.import_module("task")
    folder = tmp_path / "run"
    folder.mkdir()
    student = program.main(folder, epochs=EPOCHS - 1)
    first = task.accuracy(student)
    steps = len(program.noted)
    assert steps == 40 * (EPOCHS - 1)
    again = program.main(folder, epochs=EPOCHS)
    assert len(program.noted) == steps + 40  # one epoch more, not all of them afresh
    assert task.accuracy(again) > max(45, first - 5)
    # nothing of the teacher has changed, and it is in no checkpoint
    for name, tensor in program.teacher.state_dict().items():
        assert tensor.cpu().equal(teacher.state_dict()[name])
    size = sum(tensor.nbytes for tensor in teacher.state_dict().values())
    assert all(path.stat().st_size < size for path in folder.rglob("*.safetensors"))
    for path in folder.rglob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert state and all(name.startswith("student.") for name in state)


@pytest.mark.filterwarnings("ignore")
def test_every_word_of_a_step_weighs_the_same(program, tmp_path):
    program.main(tmp_path, epochs=1)
    for start in range(0, len(program.noted), MICRO_BATCHES):
        step = program.noted[start : start + MICRO_BATCHES]
        (divisor,) = {kept for _, kept in step}
        words = sum(words for words, _ in step)
        if program.__name__ == "lightning_module":  # a constant, and about right
            assert MICRO_BATCHES * divisor == pytest.approx(words, rel=0.25)
        else:
            assert divisor == words


def test_losses_of_micro_batches_add_up_to_that_of_the_step():
    task = importlib.import_module("task")
    batch = default_collate(task.texts(12, seed=0))
    torch.manual_seed(0)
    logits, teacher_logits = torch.randn(2, 12, task.LENGTH, task.TAGS)
    kept = (batch["labels"] != -100).sum()
    whole = task.loss_of(logits, teacher_logits, batch["labels"], kept)
    parts = [
        task.loss_of(logits[rows], teacher_logits[rows], batch["labels"][rows], kept)
        for rows in torch.arange(12).split(5)
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, teacher):
    program = importlib.import_module("plain_pytorch")
    monkeypatch.setattr(program, "trained_teacher", lambda: copy.deepcopy(teacher))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    program.main(tmp_path / "a", epochs=1)
    resumed = program.main(tmp_path / "a", epochs=2).state_dict()
    at_once = program.main(tmp_path / "b", epochs=2).state_dict()
    assert all(resumed[name].equal(at_once[name]) for name in resumed)


def test_a_program_runs_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plain_pytorch.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "plain_pytorch.py"), run_name="__main__")
    share = float(re.search(r"student: (\d+\.\d)% of the words", capsys.readouterr().out)[1])
    assert share > 60


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_program_is_short(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES
