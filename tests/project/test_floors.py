"""The floors of kdutils: the library knows nothing of the course, the losses stand alone, no import goes in
circles. How light the imports are, and what is said where an extra is missing."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import requires
from pathlib import Path

import pytest
from notebook_files import ROOT
from packaging.requirements import Requirement

PACKAGE = ROOT / "kdutils"
LOSSES = sorted(path.stem for path in (PACKAGE / "losses").glob("*.py") if path.stem != "__init__")
# What a module of losses may import of kdutils: these, and other losses.
BELOW_THE_LOSSES = ("kdutils._numerics", "kdutils._validate", "kdutils.losses")
OF_AN_EXTRA = {
    "IPython", "accelerate", "gguf", "ipywidgets", "matplotlib", "onnx", "onnxruntime", "pandas",
    "safetensors", "scipy", "torchvision", "transformers",
}  # fmt: skip


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py") if "_data" not in path.parts}


def imports_of(path: Path) -> Iterator[str]:
    """The modules of kdutils that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("kdutils"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdutils"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


def lies_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


ARROWS = {name: set(imports_of(path)) for name, path in MODULES.items()}


def test_the_library_never_imports_the_course():
    library = [name for name in MODULES if not lies_in(name, "kdutils.course")]
    assert {name: [to for to in ARROWS[name] if lies_in(to, "kdutils.course")] for name in library} == {
        name: [] for name in library
    }
    assert len(library) > 15


@pytest.mark.parametrize("loss", LOSSES)
def test_a_module_of_losses_stands_alone(loss):
    above = [to for to in ARROWS[f"kdutils.losses.{loss}"] if not lies_in(to, *BELOW_THE_LOSSES)]
    assert above == []


def test_no_import_goes_in_a_circle():
    TopologicalSorter(ARROWS).prepare()  # raises CycleError
    assert sum(map(len, ARROWS.values())) > 50


def named_in(text: str) -> set[str]:
    """The modules of losses whose names stand in a text, also as parts of `test_response.py` and the like."""
    return set(re.findall(rf"(?<![a-z])({'|'.join(LOSSES)})(?![a-z])", text))


def lists_the_losses(path: Path) -> bool:
    """Whether a program holds a list of the modules of losses, or another file names most of them."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return len(named_in(text)) > len(LOSSES) // 2
    collections = (ast.List, ast.Tuple, ast.Set)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, collections)]
    return any(len(named_in(ast.unparse(node))) > len(LOSSES) // 2 for node in nodes)


def test_modules_of_losses_are_found_not_listed():
    """No program and no setting outside kdutils/losses lists them: a new one would be left out."""
    folders = ("kdutils", "tests", "tools", "docs", "benchmarks", ".github", ".ci", "binder")
    files = [ROOT / "Makefile", ROOT / "pyproject.toml", *(p for f in folders for p in (ROOT / f).rglob("*"))]
    programs = [path for path in files if path.suffix in {".py", ".toml", ".yml", ".sh"} and path.is_file()]
    others = [path for path in programs if path != Path(__file__) and path.parent != PACKAGE / "losses"]
    assert [str(path.relative_to(ROOT)) for path in others if lists_the_losses(path)] == []
    assert len(others) > 100


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.py", 'for name in ("response", "feature", "relation", "online"):\n    print(name)'),
        ("a.py", "library = [response, feature, relation, online]"),
        (
            "a.toml",
            'select = ["test_response.py", "test_feature.py", "test_relation.py", "online.py"]',
        ),
    ],
)
def test_a_list_is_seen(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert lists_the_losses(tmp_path / name)


# What an import loads


def loaded_by(statement: str) -> set[str]:
    """The top-level packages in memory after a statement in a new Python, beyond those of `import torch`."""
    program = (
        "import sys, torch; before = set(sys.modules)\n"
        f"{statement}\nprint(*{{name.split('.')[0] for name in set(sys.modules) - before}})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split()) - set(sys.stdlib_module_names)


@pytest.mark.slow
def test_importing_kdutils_loads_torch_only():
    assert loaded_by("import kdutils") == {"kdutils"}


LIBRARY = sorted(name for name in MODULES if not lies_in(name, "kdutils.course"))


@pytest.mark.slow
def test_importing_the_whole_library_loads_nothing_of_an_extra():
    assert loaded_by(f"import {', '.join(LIBRARY)}") & OF_AN_EXTRA == set()


# What is said where an extra is missing

WITHOUT = """
import sys
sys.modules |= dict.fromkeys({missing!r})  # what is None there cannot be imported, nor found
try:
    {statement}
except ImportError as error:
    print(error)
"""


def said_without(missing: list[str], statement: str) -> str:
    """What the ImportError says that a statement raises where packages are not installed; else nothing."""
    program = WITHOUT.format(missing=missing, statement=statement)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["plot", "widgets", "data", "exercises.chapter01"])
def test_the_course_names_its_extra(module):
    said = said_without(["matplotlib", "pandas"], f"import kdutils.course.{module}")
    assert said == 'kdutils.course needs matplotlib, pandas: pip install "kdutils[course]"'


@pytest.mark.slow
def test_what_the_course_needs_is_its_extra():
    """Every package of the extra is asked for, so none is missed only in the middle of a chapter."""
    extra = [r.name for r in map(Requirement, requires("kdutils")) if 'extra == "course"' in str(r.marker)]
    assert len(extra) > 3
    for name in extra:
        assert f"needs {name}: pip install" in said_without([name], "import kdutils.course")


@pytest.mark.slow
def test_the_library_needs_no_extra():
    assert said_without(sorted(OF_AN_EXTRA), f"import {', '.join(LIBRARY)}") == ""
