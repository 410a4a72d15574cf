"""Code taken out of the notebooks, so that tests judge what the reader sees."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from notebook_files import read

NAMES = {"torch": torch, "F": F, "nn": torch.nn}


def definition(notebook: Path, name: str, **names: Any) -> Any:
    """The function or class as a code cell of the notebook defines it.

    names: what it uses beside torch, F and nn.
    """
    for cell in read(notebook).cells:
        if cell.cell_type != "code" or f" {name}(" not in cell.source:
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith("%"))
        for node in ast.parse(source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
                return _executed(ast.unparse(node), names)[name]
    raise LookupError(f"{notebook.name} defines no {name}")


def exercises(notebook: Path) -> list[tuple[int, str, str]]:
    """(number, check, name of what the reader makes) of every exercise whose check the notebook calls."""
    found, number = [], 0
    for cell in read(notebook).cells:
        if heading := re.search(r"^### Exercise (\d+) ", cell.source, re.MULTILINE):
            number = int(heading[1])
        elif call := re.fullmatch(r"exercises\.(\w+)\((\w+)\)", cell.source.strip()):
            found.append((number, call[1], call[2]))
    return found


def solution(notebook: Path, exercise: int) -> dict[str, Any]:
    """The names that the printed solution of an exercise defines (its first block of code)."""
    text = _exercise(notebook, exercise)
    block = re.search(r"<summary>Solution</summary>\s*```python\n(.*?)```", text, re.DOTALL)
    assert block, f"{notebook.name}: exercise {exercise} prints no solution"
    return _executed(block[1], {})


def stub(notebook: Path, exercise: int) -> dict[str, Any]:
    """The names that the stub of an exercise defines (the first code cell after its text)."""
    cells = read(notebook).cells
    start = next(i for i, cell in enumerate(cells) if f"### Exercise {exercise} " in cell.source)
    return _executed(next(cell.source for cell in cells[start:] if cell.cell_type == "code"), {})


def verdict(capsys: Any, check: Any, attempt: Any) -> str:
    """What an exercise's check prints about an attempt."""
    capsys.readouterr()
    check(attempt)
    return capsys.readouterr().out.strip()


def assert_same_loss(
    loss: Any, other: Any, cases: Iterable[tuple], relative: float = 1e-6, **settings: Any
) -> None:
    """Asserts that both give the same value and the same gradient for the first argument of every case."""
    for student, *others in cases:
        results = []
        for function in (loss, other):
            leaf = student.clone().requires_grad_()
            value = function(leaf, *others, **settings)
            results.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
        torch.testing.assert_close(results[0], results[1], rtol=relative, atol=1e-9)


def _exercise(notebook: Path, number: int) -> str:
    for cell in read(notebook).cells:
        if cell.cell_type == "markdown" and f"### Exercise {number} " in cell.source:
            return cell.source[cell.source.index(f"### Exercise {number} ") :]
    raise LookupError(f"{notebook.name} has no exercise {number}")


def _executed(source: str, names: dict[str, Any]) -> dict[str, Any]:
    namespace = NAMES | names
    exec(compile(source, "notebook", "exec"), namespace)
    return namespace
