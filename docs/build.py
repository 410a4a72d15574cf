"""Builds the site: python docs/build.py [FOLDER], new or empty, where the pages go; else docs/_build/html.

The sources are laid out as in the repository, so that a link which works there works on the site: the
notebooks with their stored outputs, the data's READMEs, CONTRIBUTING.md, and the pages of docs/. A page for
every module that is found in kdutils is written here. Nothing is fetched, no notebook is run, and a warning
is an error.
"""

import argparse
import ast
import pkgutil
import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FROM_THE_REPOSITORY = [
    "notebooks/*.ipynb",
    "data/*/README.md",
    "data/*/LICENSE",
    "CONTRIBUTING.md",
    "tests/README.md",
]
PLACE_OF_THE_MODULES = "<!-- all modules -->"
# The sections of the API's page, in order; a module stands in that of the package it lies in.
SECTIONS = {
    "kdutils.losses": "The losses",
    "kdutils": "Training, measuring, comparing",
    "kdutils.course": "Only for this course",
}
# Packages whose modules are parts of one thing: they have one page together.
WHOLES = ("kdutils.audit.", "kdutils.course.exercises.")


def public_modules() -> list[str]:
    """Names of all modules and packages below kdutils that have a page."""
    found = [info.name for info in pkgutil.walk_packages([str(ROOT / "kdutils")], "kdutils.")]
    return sorted(name for name in found if "._" not in name and not name.startswith(WHOLES))


def summary(module: str) -> str:
    """The first sentence of a module's docstring."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{module}: expected a docstring, found none")
    return docstring.split("\n\n")[0].replace("\n", " ")


def module_page(module: str) -> str:
    # what a package of losses offers is described on the pages of its modules
    members = "   :no-members:\n" if module in SECTIONS else ""
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{members}```\n"


def module_tables() -> str:
    """All modules, section by section, each with a link to its page and its docstring's first sentence."""
    sections: dict[str, list[str]] = {package: [] for package in SECTIONS}
    for name in public_modules():
        package = name.rpartition(".")[0]
        sections[name if name in SECTIONS else package if package in SECTIONS else "kdutils"].append(name)
    text = ""
    for package, names in sections.items():
        rows = [f"| [`{name}`](api/{name}.md) | {summary(name)} |" for name in names]
        toctree = ["```{toctree}", ":hidden:", *(f"api/{name}" for name in names), "```"]
        lines = [f"\n## {SECTIONS[package]}\n", "| module | holds |", "|---|---|", *rows, "", *toctree, ""]
        text += "\n".join(lines)
    return text


def as_laid_out(text: str) -> str:
    """A text whose links to and from docs/ lead where the site has the files: docs/ becomes its root."""
    return re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", text)


def lay_out(source: Path) -> None:
    """Fills the folder with everything that the site is made of."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build", "*.py", "__pycache__"))
    for pattern in FROM_THE_REPOSITORY:
        for path in ROOT.glob(pattern):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            if path.suffix == ".md":
                target.write_text(as_laid_out(path.read_text(encoding="utf-8")), encoding="utf-8")
    for path in source.glob("*.md"):
        path.write_text(path.read_text(encoding="utf-8").replace("](../", "]("), encoding="utf-8")
    api = (source / "api.md").read_text(encoding="utf-8")
    (source / "api.md").write_text(api.replace(PLACE_OF_THE_MODULES, module_tables()), encoding="utf-8")
    for module in public_modules():
        target = source / "api" / f"{module}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(module_page(module), encoding="utf-8")


def build(target: Path) -> int:
    """Builds the site afresh into the folder, whose content is lost; returns Sphinx's exit status.

    Afresh, because Sphinx repeats no warning about a page that it has read before.
    """
    source = target.with_name(f"{target.name}.source")
    for folder in (source, target):
        shutil.rmtree(folder, ignore_errors=True)
    lay_out(source)
    settings = ["-W", "--keep-going", "-q", "-b", "html"]
    status = build_main(
        [*settings, "-c", str(DOCS), "-d", str(source / ".doctrees"), str(source), str(target)]
    )
    shutil.rmtree(source)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the site.")
    parser.add_argument("folder", nargs="?", type=Path, help="new or empty; docs/_build/html unless named")
    folder = parser.parse_args().folder
    if folder and folder.exists() and any(folder.iterdir()):
        parser.error(f"folder: expected a new or an empty one, got {folder}")
    folder = folder or DOCS / "_build" / "html"
    status = build(folder)
    if status == 0:
        print(f"The site: {folder / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
