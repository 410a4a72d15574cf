"""Builds the site: python docs/build.py [FOLDER], new or empty, where the pages go; else docs/_build/html.

The sources are laid out as in the repository, so that a link which works there works on the site: the
notebooks with their stored outputs, the data's READMEs, CONTRIBUTING.md, and the pages of docs/. A page for
every module of kdutils is written here. Nothing is fetched, no notebook is run, and a warning is an error.
"""

import argparse
import ast
import pkgutil
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FROM_THE_REPOSITORY = ["notebooks/*.ipynb", "data/*/README.md", "data/*/LICENSE", "CONTRIBUTING.md"]
PLACE_OF_THE_MODULES = "<!-- the modules, floor by floor -->"
# The order of the API's page; a module that stands nowhere here comes last.
FLOORS = {
    "Losses": ["response", "feature", "relation", "online", "selfdistill", "transformer"],
    "Data, networks, compression": ["data", "text", "encoder", "models", "compress"],
    "Training and measuring": ["train", "evaluate", "mutual", "parallel"],
    "Comparing and claiming": ["compare", "check"],
    "Figures and sliders": ["plot", "tradeoff", "course_map", "widgets"],
}


def public_modules() -> list[str]:
    """Names of kdutils' modules, those that begin with an underscore left out."""
    return [info.name for info in pkgutil.iter_modules([ROOT / "kdutils"]) if not info.name.startswith("_")]


def summary(module: str) -> str:
    """The first sentence of a module's docstring."""
    path = ROOT / "kdutils" / f"{module}.py"
    path = path if path.is_file() else ROOT / "kdutils" / module / "__init__.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"kdutils.{module}: expected a docstring, found none")
    return docstring.split("\n\n")[0].replace("\n", " ")


def module_page(module: str) -> str:
    name = f"kdutils.{module}"
    return f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"


def module_tables() -> str:
    """All modules, floor by floor: each with a link to its page and the first sentence of its docstring."""
    modules = public_modules()
    placed = [name for names in FLOORS.values() for name in names]
    floors = {**FLOORS, "More": [name for name in modules if name not in placed]}
    text = ""
    for floor, names in floors.items():
        present = [name for name in names if name in modules]
        if present:
            rows = [f"| [`kdutils.{name}`](api/kdutils.{name}.md) | {summary(name)} |" for name in present]
            toctree = ["```{toctree}", ":hidden:", *(f"api/kdutils.{name}" for name in present), "```"]
            text += "\n".join([f"\n## {floor}\n", "| module | holds |", "|---|---|", *rows, "", *toctree, ""])
    return text


def lay_out(source: Path) -> None:
    """Fills the folder with everything that the site is made of."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build", "*.py", "__pycache__"))
    for pattern in FROM_THE_REPOSITORY:
        for path in ROOT.glob(pattern):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    api = (source / "api.md").read_text(encoding="utf-8")
    (source / "api.md").write_text(api.replace(PLACE_OF_THE_MODULES, module_tables()), encoding="utf-8")
    for module in public_modules():
        target = source / "api" / f"kdutils.{module}.md"
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
