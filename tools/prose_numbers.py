"""Numbers in a notebook's sentences that nothing supports: python tools/prose_numbers.py notebooks/*.ipynb

A number in a sentence that says what was measured has to agree, within its own rounding, with a number that a
code cell of the same notebook shows or sets, or of a notebook that the paragraph links to. Bounds of claims
support nothing. A paragraph that cites a publication may hold any number.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
from nbformat import NotebookNode

NUMBER = re.compile(r"(?<![\w.,/])(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?!\w|[.,]?\d)")
IN_TEXT = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+")
# A sentence with one of these says what was measured; one with none of them may count things as it likes.
MEASURES = re.compile(
    r"\d\.\d|\d ?%|±|×(?!\d)|"
    r"\d (?:percent|points?|times|nats|parameters|ms|seconds?|[kMG]?B|of \d[\d,]*|out of \d[\d,]*)\b"
)
UNIT = re.compile(r" ?(?:%|percent|points?|times|nats|ms|[kMG]B)")
CITATION = re.compile(
    r"https?://"  # a link
    r"|[A-Z][\w'’-]+(,? (et al\.?|and [A-Z][\w'’-]+))?,? \(?(19|20)\d\d"  # Hinton et al. 2015
)
PLACE_IN_A_TEXT = re.compile(
    r"(§|\b(sec|section|eq|equation|table|fig|figure|chapter|notebook)s?\.?)\s*\(?\d+(\.\d+)*", re.I
)
INTERVAL = re.compile(r"9\d ?%(?=( confidence)?[ -](t-)?intervals?)")
SET_APART = re.compile(
    r"<details.*?</details>|```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\[(?=[^\]]*\]\()|<[^>]+>", re.S
)
NOTEBOOK_LINK = re.compile(r"\]\(([^)#\s]+\.ipynb)[^)]*\)")
CLAIM = re.compile(r"^(✓ .*: \S+) \([=<>] .*\)$", re.M)
LARGEST_COUNT = 12


def unsupported(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A sentence for every number that nothing supports.

    Args:
        notebook: With its stored outputs.
        path: Where it lies; links lead on from there.
    """
    own = numbers_of(notebook)
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        if re.match(r"\s*#+\s*References", cell.source):
            return
        for paragraph in paragraphs(cell.source):
            linked = [path.parent / link for link in NOTEBOOK_LINK.findall(paragraph)]
            known = own.union(*(numbers_in(file) for file in linked if file.is_file()))
            for number, sentence in measured(paragraph):
                if not is_among(number, known):
                    yield f"cell {index}: “{number}” is shown by no cell, nor cited: {sentence[:100]}"


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs and items of lists that hold sentences of the course's own: no heading, no citation."""
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*[-*] )", SET_APART.sub(" ", text)):
        if not CITATION.search(paragraph) and not paragraph.lstrip().startswith(("#", "!")):
            yield paragraph


def measured(paragraph: str) -> Iterator[tuple[str, str]]:
    """(number, sentence) for the numbers in sentences that say what was measured."""
    paragraph = NOTEBOOK_LINK.sub("]", INTERVAL.sub("", PLACE_IN_A_TEXT.sub("", paragraph)))
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
        if MEASURES.search(sentence):
            for found in NUMBER.finditer(sentence):
                if not is_everyday(found, sentence):
                    yield found[0], sentence


def is_everyday(found: re.Match[str], sentence: str) -> bool:
    """Whether a number needs no support: a small count, or one that says nothing."""
    value = float(found[0].replace(",", ""))
    if UNIT.match(sentence, found.end()) or "." in found[0]:
        return value in {0, 100}
    return value <= LARGEST_COUNT or value == 100


def is_among(number: str, known: set[float]) -> bool:
    """Whether some known number, or a hundred times it, rounds to the one in the sentence."""
    value, decimals = float(number.replace(",", "")), len(number.partition(".")[2])
    half = 0.5 * 10**-decimals + 1e-9
    return any(abs(scale * x - value) <= half for x in known for scale in (1, 100))


@cache
def numbers_in(path: Path) -> frozenset[float]:
    """What the code cells of a stored notebook show and set."""
    return frozenset(numbers_of(nbformat.read(path, as_version=4)))


def numbers_of(notebook: NotebookNode) -> set[float]:
    """All numbers, without their signs, in outputs and in code; bounds of claims are left out of both."""
    found: set[float] = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found |= numbers_in_code(cell.source)
            for output in cell.outputs:
                texts = [output.get("text", "")]
                texts += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
                for text in texts:
                    shown = CLAIM.sub(r"\1", re.sub(r"</?[A-Za-z][^<>]*>", " ", text))
                    found |= {float(number.replace(",", "")) for number in IN_TEXT.findall(shown)}
    return found


def numbers_in_code(source: str) -> set[float]:
    code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a magic took the place of a body
        return set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check":
            node.keywords = []
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {abs(float(c)) for c in constants if isinstance(c, int | float) and not isinstance(c, bool)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    found = [
        f"{path.name}, {complaint}"
        for path in parser.parse_args().notebooks
        for complaint in unsupported(nbformat.read(path, as_version=4), path)
    ]
    print("\n".join(found))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
