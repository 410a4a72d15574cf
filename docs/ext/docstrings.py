"""kdutils' docstrings, which are plain prose, as reStructuredText for the API's pages.

name, other_name: what they are       becomes an entry of a list, as do sentences that begin with
Returns …, Raises …, Source: …        these words
`name`                                a link where it names something of kdutils, else code
an indented paragraph                 a formula where it holds a sign that Python has not, else code
notebook 01                           a link to the chapter, by the role of chapters.py
"""

import importlib
import inspect
import pkgutil
import re
from functools import cache
from textwrap import dedent, indent
from typing import Any

from sphinx.application import Sphinx

import kdutils

MATHEMATICAL = re.compile(r"[·×‖−½²³ᵀΣσγμ∠√∈≥]")
NAMES = r"[a-z_]\w*(?:, (?:and each of )?[a-z_]\w*)*"
AT_LINE_START = re.compile(rf"(?:^|\n)(?=(?:{NAMES}|Both|Source): |Returns? |Raises |Written out in\s)")
AFTER_A_SENTENCE = re.compile(
    rf"(?<=[.)])(?:(?P<gap> +)|\n)(?=(?P<names>{NAMES}): |Raises |Written out in\s)"
)
TERM = re.compile(rf"(?P<term>{NAMES}|Both|Source): |(?P<verb>Returns|Raises) ")

TEX = {
    "·": r"\cdot ", "×": r"\times ", "‖": r"\Vert ", "−": "-", "½": r"\tfrac{1}{2} ", "Σ": r"\sum ",
    "√": r"\sqrt ", "²": "^{2}", "³": "^{3}", "ᵀ": r"^{\top}", "₁": "_{1}", "₂": "_{2}", "≥": r"\ge ",
    "γ": r"\gamma ", "σ": r"\sigma ", "μ": r"\mu ", "…": r"\ldots ", "∈": r"\in ", "≠": r"\ne ",
}  # fmt: skip


def tex(formula: str) -> str:
    """LaTeX of a formula as docstrings write it: words upright, letters slanted, T² and e^(−γ) raised."""
    formula = formula.replace(",  ", r", \qquad ").replace(" ‖ ", r" \;\Vert\; ")
    formula = re.sub(r"\b1e-(\d+)", r"10^{−\1}", formula)
    formula = re.sub(r"([_^])\(([^()]*)\)", r"\1{\2}", formula)
    formula = re.sub(r"_([a-z]{2})\b", r"_{\1}", formula)  # two indices, not a word
    formula = re.sub(r"(?<![\\A-Za-z{])[A-Za-z]{2,}", lambda word: rf"\text{{{word[0]}}}", formula)
    formula = re.sub(r"(\\text\{\w+\}) (?=[\w\\(|½‖∠])", r"\1\\,", formula)  # "log q", not "logq"
    return "".join(TEX.get(sign, sign) for sign in formula)


@cache
def public_names() -> dict[str, str]:
    """Name → full name of everything that a public module of kdutils defines."""
    names = {}
    for info in pkgutil.walk_packages(kdutils.__path__, "kdutils."):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if not name.startswith("_") and getattr(value, "__module__", None) == info.name:
                names[name] = f"{page_of(info.name)}.{name}"
    return names


def page_of(module: str) -> str:
    """The public module that documents what the module defines: kdutils.check for kdutils.check.claim."""
    return ".".join(module.split(".")[:2])


def inline(text: str) -> str:
    """A piece of prose as reStructuredText."""
    pieces = []
    for is_code, piece in enumerate(re.split(r"`([^`]+)`", text)):
        if is_code % 2:
            full = public_names().get(piece.removesuffix("()"))
            pieces.append(f":py:obj:`{piece} <{full}>`" if full else f"``{piece}``")
        else:
            escaped = re.sub(r"([\\*|])", r"\\\1", re.sub(r"_(?!\w)", r"\\_", piece))
            pieces.append(re.sub(r"notebook (\d\d)", r":chapter:`\1`", escaped))
    return "".join(pieces)


def pieces_of(paragraph: str, parameters: set[str]) -> list[str]:
    """The paragraph, cut before every entry of a list that it holds.

    A colon after a single blank makes an entry only of the signature's names: prose has colons, too.
    """
    pieces = []
    for piece in AT_LINE_START.split(paragraph):
        start = 0
        for cut in AFTER_A_SENTENCE.finditer(piece):
            names = cut["names"]
            if names is None or len(cut["gap"] or "") > 1 or set(names.split(", ")) & parameters:
                pieces.append(piece[start : cut.start()])
                start = cut.end()
        pieces.append(piece[start:])
    return [piece for piece in pieces if piece.strip()]


def entry(piece: str) -> str | None:
    """The piece as an entry of a definition list, None if it is prose."""
    piece = " ".join(piece.split())
    if not (found := TERM.match(piece)):
        return None
    rest = piece[found.end() :]
    term = found["verb"] or found["term"]
    named = term if term[0].isupper() else ", ".join(f"``{name}``" for name in term.split(", "))
    return f"{named}\n    {inline(rest)}\n"


def restructured(docstring: str, parameters: set[str]) -> str:
    """The docstring as reStructuredText; parameters: names in the signature."""
    text: list[str] = []
    entries: list[str] = []

    def end_list() -> None:
        if entries:
            text.append(".. rst-class:: entries\n\n" + indent("".join(entries), "    "))
            entries.clear()

    for paragraph in re.split(r"\n\s*\n", docstring.strip("\n")):
        if paragraph.startswith(" "):
            end_list()
            block = dedent(paragraph)
            if MATHEMATICAL.search(block):
                text += [f".. math:: {tex(line)}" for line in block.splitlines()]
            else:
                language = "python" if re.search(r"[(=]", block) else "sh"
                text.append(f".. code-block:: {language}\n\n" + indent(block, "    "))
            continue
        for piece in pieces_of(paragraph, parameters):
            if item := entry(piece):
                entries.append(item)
            elif entries and piece.startswith("Written out in"):
                entries.append(
                    f"Written out\n    {inline(' '.join(piece.split()).removeprefix('Written out '))}\n"
                )
            else:
                end_list()
                text.append(inline(piece))
    end_list()
    return "\n\n".join(text)


def process_docstring(app: Sphinx, what: str, name: str, obj: Any, options: object, lines: list[str]) -> None:
    try:
        parameters = set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        parameters = set()
    lines[:] = [*restructured("\n".join(lines), parameters).splitlines(), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
