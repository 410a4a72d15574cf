"""Checks what a release needs, builds it, tries it in fresh environments: python tools/release.py

- The version is the same in kdutils, CITATION.cff and the changelog, which has its date; the repository has
  its real name; nothing is uncommitted.
- dist/ holds the wheel and the sdist.
- Each of them is installed with every Python named, or found here, and passes the library's tests there.

Ends with what is left to do by hand. Exit status 1 if anything is wrong. `make test` comes before it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from set_repository import declared_repository

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.14")
TESTERS = ["pytest", "pytest-xdist", "hypothesis", "psutil", "nbformat", "torchvision"]


def version(root: Path) -> str:
    return re.search(r'__version__ = "(.+)"', (root / "kdutils/__init__.py").read_text(encoding="utf-8"))[1]


def complaints(root: Path) -> Iterator[str]:
    """What stands in the way of a release, in the texts."""
    now = version(root)
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    changes = (root / "docs" / "changelog.md").read_text(encoding="utf-8")
    dated = re.search(r"^## (\S+) · (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    if f"\nversion: {now}\n" not in citation:
        yield f"CITATION.cff: expected version: {now}"
    if not dated or dated[1] != now:
        yield f"docs/changelog.md: expected its first dated heading to be '## {now} · YYYY-MM-DD'"
    elif f'\ndate-released: "{dated[2]}"\n' not in citation:
        yield f'CITATION.cff: expected date-released: "{dated[2]}", as the changelog has it'
    if declared_repository(root) == "OWNER/REPO":
        yield "the repository has no name yet: python tools/set_repository.py OWNER/REPO"
    if subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True).stdout:
        yield "git: something is not committed"


def build() -> list[Path]:
    """Wheel and sdist, in dist/."""
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", DIST], cwd=ROOT, check=True)
    return sorted(DIST.glob("kdutils-*"))


def try_out(python: str, package: Path, sdist: Path) -> bool:
    """Whether the package, installed into a fresh environment, passes the library's tests there.

    The tests come from the sdist, from which its own kdutils is taken away.
    """
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (tests,) = Path(folder).iterdir()
        shutil.rmtree(tests / "kdutils")
        environment = Path(folder) / "environment"
        subprocess.run([python, "-m", "venv", environment], check=True)
        inside = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        install = [inside, "-m", "pip", "install", "--quiet", f"{package}[course]", *TESTERS]
        lane = [inside, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "tests/library"]
        return all(subprocess.run(step, cwd=tests).returncode == 0 for step in (install, lane))


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks, builds and tries a release.")
    parser.add_argument("--python", nargs="*", default=[name for name in PYTHONS if shutil.which(name)])
    pythons = parser.parse_args().python
    wrong = list(complaints(ROOT))
    packages = build()
    sdist = next(package for package in packages if package.name.endswith(".tar.gz"))
    for package in packages:
        for python in pythons:
            print(f"{package.name} with {python}", flush=True)
            if not try_out(python, package, sdist):
                wrong.append(f"{package.name} does not pass the library's tests with {python}")
    print(f"\nBuilt: {', '.join(package.name for package in packages)}, tried with {', '.join(pythons)}.")
    if wrong:
        print("\n".join(["", "In the way of a release:", *(f"- {what}" for what in wrong)]))
        return 1
    tag = f"v{version(ROOT)}"
    print(
        f"\nWhat is left to do:\n"
        f"1. git tag {tag} && git push origin main {tag}\n"
        f"2. On GitHub: Releases → Draft a new release → {tag}, with the changelog's words; attach dist/*.\n"
        f"3. To publish on PyPI: python -m pip install twine && python -m twine upload dist/*\n"
        f"4. A new heading in docs/changelog.md; the next version in kdutils/__init__.py and CITATION.cff."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
