"""Lint, format and types of everything in the repository."""

import ast
import subprocess
import sys

import pytest
from notebook_files import ROOT


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_clean(command):
    run = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def undocumented(source: str) -> list[str]:
    """Public functions, classes and methods without a docstring; of a module's `forward` its class tells."""
    definitions = (ast.FunctionDef, ast.ClassDef)
    top = [node for node in ast.parse(source).body if isinstance(node, definitions)]
    methods = [n for c in top if isinstance(c, ast.ClassDef) for n in c.body if isinstance(n, definitions)]
    return [
        node.name
        for node in [*top, *methods]
        if not node.name.startswith("_")
        and node.name not in {"forward", "extra_repr"}
        and not ast.get_docstring(node)
    ]


def test_everything_public_is_documented():
    modules = [path for path in (ROOT / "kdutils").rglob("*.py") if not path.name.startswith("_")]
    found = {path.name: undocumented(path.read_text(encoding="utf-8")) for path in modules}
    assert {name: names for name, names in found.items() if names} == {}
    assert len(modules) > 20


def test_what_is_not_documented_is_named():
    source = "class A:\n    def b(self): ...\n    def _c(self): ...\n\ndef d():\n    'Words.'\n\ndef e(): ..."
    assert undocumented(source) == ["A", "e", "b"]
