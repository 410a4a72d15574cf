"""`make release` names what stands in the way, and builds from what is in the repository."""

import shutil
import subprocess

import pytest
from notebook_files import ROOT
from release import complaints, version

FILES = ["pyproject.toml", "CITATION.cff", "kdutils/__init__.py", "docs/changelog.md"]


@pytest.fixture
def checkout(tmp_path):
    """A committed copy of what a release reads, complete but for what a test takes away."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    now = version(ROOT)
    edit(tmp_path / "docs/changelog.md", f"## {now} · not yet released", f"## {now} · 2030-01-31")
    edit(tmp_path / "CITATION.cff", f"version: {now}", f'version: {now}\ndate-released: "2030-01-31"')
    for name in ("pyproject.toml", "CITATION.cff"):
        text = (tmp_path / name).read_text().replace("OWNER/REPO", "ada/distil")
        (tmp_path / name).write_text(text.replace("owner.github.io/REPO", "ada.github.io/distil"))
    commit(tmp_path)
    return tmp_path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def commit(folder):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "All"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def test_what_is_complete_can_be_released(checkout):
    assert list(complaints(checkout)) == []


SPOILED = {
    "CITATION.cff: expected version": ("kdutils/__init__.py", '__version__ = "', '__version__ = "9'),
    "docs/changelog.md: expected its first dated heading": ("docs/changelog.md", "· 2030", "· soon 2030"),
    "CITATION.cff: expected date-released": ("CITATION.cff", "2030-01-31", "2029-01-31"),
    "the repository has no name yet": ("pyproject.toml", "ada/distil", "OWNER/REPO"),
}


@pytest.mark.parametrize("complaint", SPOILED)
def test_what_stands_in_the_way_is_named(complaint, checkout):
    name, old, new = SPOILED[complaint]
    edit(checkout / name, old, new)
    commit(checkout)
    assert any(told.startswith(complaint) for told in complaints(checkout))


def test_what_is_not_committed_is_noticed(checkout):
    (checkout / "more.py").write_text("")
    assert list(complaints(checkout)) == ["git: something is not committed"]
