"""Makes the three files of a new chapter: python tools/new_chapter.py 13_language_models

The notebook, its exercises' checks and its tests, from tools/chapter/. They run as they are; what is to be
written says TODO, and a rule for stored notebooks finds each one. Everything else (README, EXERCISES.md, the
site) is made from the notebook.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from replacing import replace
from set_repository import ROOT, declared_repository

TEMPLATES = Path(__file__).resolve().parent / "chapter"
CELL = re.compile(r"^%% (markdown|code) ?([\w-]*)\n(.*?)(?=^%% |\Z)", re.MULTILINE | re.DOTALL)
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def filled(template: str, name: str) -> str:
    """A template's text for the chapter."""
    number, _, words = name.partition("_")
    topic = words.replace("_", " ")
    values = {"number": number, "name": name, "topic": topic, "title": topic.capitalize()}
    values["repository"] = declared_repository(ROOT)
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    return re.sub(r"<<(\w+)>>", lambda found: values[found[1]], text)


def as_notebook(text: str) -> NotebookNode:
    """A notebook of the cells that stand below the lines `%% markdown` and `%% code TAG`."""
    cells = []
    for kind, tag, source in CELL.findall(text):
        if kind == "markdown":
            cells.append(new_markdown_cell(source.strip("\n")))
            continue
        metadata: dict[str, object] = {"tags": [tag]} if tag else {}
        if tag.startswith("hide"):
            metadata["jupyter"] = {"source_hidden": True}
        cells.append(new_code_cell(source.strip("\n"), metadata=metadata))
    return new_notebook(cells=cells, metadata=KERNEL)


def make_chapter(name: str, root: Path = ROOT) -> list[Path]:
    """Makes the files of a chapter below the root, and returns them.

    Raises:
        ValueError: The name is not two digits, an underscore and lower-case words, or its number is taken.
    """
    if not re.fullmatch(r"\d\d(_[a-z0-9]+)+", name):
        raise ValueError(f"name: expected two digits and words, such as 13_language_models, got {name!r}")
    if taken := [path.name for path in (root / "notebooks").glob(f"{name[:2]}_*.ipynb")]:
        raise ValueError(f"name: expected a number that is free, but there is {taken[0]}")
    number = name[:2]
    files = {
        root / "notebooks" / f"{name}.ipynb": nbformat.writes(as_notebook(filled("notebook.txt", name)))
        + "\n",
        root / "kdutils" / "course" / "exercises" / f"chapter{number}.py": filled("exercises.txt", name),
        root / "tests" / "chapters" / f"test_chapter{number}.py": filled("test.txt", name),
    }
    made = {path: content for path, content in files.items() if not path.exists()}
    for path, content in made.items():
        replace(path, content)
    return list(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="number and words: 13_language_models")
    try:
        made = make_chapter(parser.parse_args().name)
    except ValueError as error:
        sys.exit(str(error))
    for path in made:
        print(f"made {path.relative_to(ROOT)}")
    print(f"Next: write where it says TODO, then make notebooks NB={made[0].relative_to(ROOT)}")


if __name__ == "__main__":
    main()
