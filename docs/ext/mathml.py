"""Formulas as MathML, written when the site is built: browsers draw it without a script, or a network."""

import re

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# latex2mathml writes letters that browsers do not draw, and leaves out the sizes of these delimiters.
SIZED_COMMAND = re.compile(r"\\[bB]ig{1,2}[lmr]?\s*(?=\\)")
ALPHABETS = {
    r"\\mathcal\s*\{?L\}?": "ℒ",
    r"\\mathbb\s*\{?1\}?": "𝟙",
}
NOT_CONVERTED = re.compile(r"\\[A-Za-z]+|\\.")


def mathml(formula: str, display: str) -> str:
    """A formula of LaTeX as a <math> element; display: "inline" or "block".

    Raises ValueError for a command that is not known.
    """
    text = SIZED_COMMAND.sub("", formula)
    for pattern, letter in ALPHABETS.items():
        text = re.sub(pattern, letter, text)
    element = latex2mathml.converter.convert(text, display=display)
    if unknown := NOT_CONVERTED.search(re.sub(r"<[^>]*>", " ", element)):
        raise ValueError(f"{unknown[0]} cannot be converted into MathML in the formula {formula}")
    return element


def _visit(translator: HTML5Translator, node: nodes.math | nodes.math_block, display: str) -> None:
    try:
        element = mathml(node.astext(), display)
    except Exception as error:  # the converter's errors have no common base
        logger.warning("%s", error, location=node)
        raise nodes.SkipNode from error
    translator.body.append(f'<div class="formula">{element}</div>' if display == "block" else element)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer(
        "mathml",
        (lambda translator, node: _visit(translator, node, "inline"), None),
        (lambda translator, node: _visit(translator, node, "block"), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
