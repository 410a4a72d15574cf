"""Sets the repository's public address: python tools/set_repository.py OWNER/REPO

The address stands once in pyproject.toml (project.urls). This command writes it there, and into every text
that links to the repository: badges, links to GitHub, Colab and Binder, the notebooks' Colab cell, citation,
the repair that kdutils names. The site takes it from pyproject.toml when it is built.
"""

import argparse
import re
import sys
from pathlib import Path

from replacing import replace

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [
    "*.md",
    "CITATION.cff",
    "docs/*.md",
    "docs/tracks/*.md",
    "data/*/README.md",
    "kdutils/**/*.py",
    "notebooks/*.ipynb",
]
NAME = r"[\w.-]+/[\w.-]+?"
DECLARED = re.compile(rf'^Repository = "https://github\.com/({NAME})"$', re.MULTILINE)
# Links that can only mean this repository, whatever name they carry.
OWN_LINK = re.compile(
    rf"(colab\.research\.google\.com/github/|mybinder\.org/v2/gh/|git\+https://github\.com/)({NAME})"
    r"(?=\.git\b|[/@\"'\\\s)]|$)"
)
# Any other link to GitHub may lead elsewhere.
GITHUB_LINK = r"(?<=github\.com/){}(?=\.git\b|[/@#\"'\\\s)>\]]|$)"


def texts(root: Path) -> list[Path]:
    """The files in which the repository's address may stand, pyproject.toml first."""
    return [root / "pyproject.toml", *(path for pattern in TEXTS for path in sorted(root.glob(pattern)))]


def declared_repository(root: Path) -> str:
    """OWNER/REPO as pyproject.toml declares it."""
    found = DECLARED.search((root / "pyproject.toml").read_text(encoding="utf-8"))
    if not found:
        raise ValueError('pyproject.toml: expected a line Repository = "https://github.com/OWNER/REPO"')
    return found[1]


def linked_repositories(text: str) -> set[str]:
    """OWNER/REPO of every link in the text that can only mean this repository."""
    return {link[2] for link in OWN_LINK.finditer(text)}


def site_address(repository: str) -> str:
    """Where GitHub Pages publishes the site of OWNER/REPO."""
    owner, name = repository.split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def renamed(text: str, old: str, new: str) -> str:
    """The text with all links to this repository, old or stale, and to its site leading to the new one."""
    text = OWN_LINK.sub(lambda link: link[1] + new, text).replace(site_address(old), site_address(new))
    return re.sub(GITHUB_LINK.format(re.escape(old)), new, text)


def set_repository(root: Path, new: str) -> list[Path]:
    """Writes OWNER/REPO into every text below the root; returns the files that changed."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise ValueError(f"repository: expected OWNER/REPO, got {new!r}")
    old = declared_repository(root)
    changed = []
    for path in texts(root):
        text = path.read_text(encoding="utf-8")
        if renamed(text, old, new) != text:
            replace(path, renamed(text, old, new))
            changed.append(path)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description="Sets the repository's public address in all texts.")
    parser.add_argument("repository", metavar="OWNER/REPO")
    try:
        for path in set_repository(ROOT, parser.parse_args().repository):
            print(f"changed {path.relative_to(ROOT)}")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
