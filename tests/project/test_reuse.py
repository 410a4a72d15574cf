"""The README's lines, and those for several GPUs, run as printed: own networks, own DataLoader, torchrun."""

import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from notebook_files import ROOT
from torch.utils.data import DataLoader

from kdutils.peers import torchrun

README, PAGE = (
    (ROOT / name).read_text(encoding="utf-8").replace("steps=1000", "steps=2")
    for name in ("README.md", "docs/several_gpus.md")
)
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
HERE, SEVERAL = BLOCK.findall(README)[0], BLOCK.findall(PAGE)[1]


def test_the_page_on_several_gpus_begins_with_the_readmes_lines():
    assert BLOCK.findall(README) == [HERE] and BLOCK.findall(PAGE)[0] == HERE


DATASET = """\
import torch
from torch.utils.data import TensorDataset

torch.manual_seed(0)
my_dataset = TensorDataset(torch.randn(16, 3, 32, 32), torch.arange(16) % 10)
"""


def state(network):
    return torch.cat([tensor.double().flatten() for tensor in network.state_dict().values()])


def test_the_ten_lines_train_the_readers_student_and_leave_the_teacher_alone():
    assert len([line for line in HERE.splitlines() if line]) <= 10
    definitions, last_line = HERE.rsplit("\n", 2)[:2]
    names: dict[str, Any] = {}
    exec(DATASET + definitions, names)
    names["my_loader"] = DataLoader(names["my_dataset"], batch_size=8)
    before = state(names["student"]), state(names["teacher"])
    exec(last_line, names)
    assert len(names["history"]["loss"]) == 2
    assert not torch.equal(state(names["student"]), before[0])
    assert torch.equal(state(names["teacher"]), before[1])


@pytest.mark.skipif(sys.platform == "win32", reason="kdutils.peers is for Linux and macOS")
def test_the_same_lines_run_in_several_processes(tmp_path):
    definitions = HERE.rsplit("\n", 2)[0]
    told = "print(f'weights {peers.rank} {sum(p.double().sum() for p in student.parameters()):.12f}')\n"
    program = tmp_path / "train.py"
    program.write_text("\n".join([DATASET, definitions, SEVERAL, told]))
    printed = torchrun(str(program), processes=2)
    weights = dict(re.findall(r"weights (\d) (-?\d+\.\d{12})", printed))
    assert weights.keys() == {"0", "1"}
    assert weights["0"] == weights["1"]
    assert "Warning" not in printed


def test_type_checkers_see_the_types(tmp_path):
    """The lines are right, what `fit` returns is known, and a wrong argument is noticed."""
    program = tmp_path / "typed.py"
    loader = "my_loader = torch.utils.data.DataLoader(my_dataset)"
    wrong = "reveal_type(history)\nfit(student, my_loader, loss_fn, steps='many', lr=0.01)"
    program.write_text("\n".join([DATASET, loader, HERE, wrong]))
    run = subprocess.run(
        [sys.executable, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}", program],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert 'Revealed type is "dict[str, list[float]]"' in run.stdout.replace("builtins.", "")
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1 and '"steps" to "fit" has incompatible type "str"' in errors[0], run.stdout
