"""The data and the teacher are found from a wheel and from an editable install, wherever one works."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from notebook_files import ROOT

USE = """
from pathlib import Path
import kdutils
from kdutils.course import data, models

images, labels = data.fashion_mnist().test
logits = models.load_teacher()(data.normalize_fashion_mnist(images[:200]))
assert (logits.argmax(1) == labels[:200]).float().mean() > 0.8
print(Path(kdutils.__file__).resolve().parent)
print(data.data_dir())
"""


def use_kdutils(folder: Path, **environment: str) -> list[Path]:
    """Where a process working in the folder finds kdutils and its data, once it has used both."""
    run = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert run.returncode == 0, run.stderr
    return [Path(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        f"-w{folder}",
    ]
    run = subprocess.run([*pip, ROOT], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_its_data_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"kdutils"}
    assert {"kdutils/py.typed", "kdutils/_data/fashion-mnist/train-images-idx3-ubyte.gz"} <= set(names)
    assert {"kdutils/_data/text/snippets.tsv.gz", "kdutils/_data/trade_off.csv"} <= set(names)
    assert {"kdutils/_data/prose/novel.txt.gz", "kdutils/_data/prose/speeches.txt.gz"} <= set(names)
    assert wheel.stat().st_size < 45e6
    assert {"kdutils/_data/text/weak.tsv.gz", "kdutils/_data/student/student.safetensors"} <= set(names)
    assert wheel.stat().st_size < 45e6
    assert not [name for name in names if name.endswith(".ipynb") or "__pycache__" in name]


def test_an_installed_wheel_works_anywhere(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", f"--target={site}", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    package, data = use_kdutils(elsewhere, PYTHONPATH=str(site))
    assert package == site / "kdutils"
    assert data == site / "kdutils" / "_data"


def test_the_editable_install_uses_the_repository(tmp_path):
    package, data = use_kdutils(tmp_path)
    assert package == ROOT / "kdutils"
    assert data == ROOT / "data"
