"""What the theme and pandas leave unsaid to those who listen to a page."""

import re
from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SIGNATURE_LINES = re.compile(r"<dl>\s*(<dd><em class=\"sig-param.*?)</dl>", re.DOTALL)
CORNER_OF_A_TABLE = re.compile(r"<th>\s*</th>")


def name_toggles(
    app: Sphinx, docname: str, template: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    """Says what the arrows of the sidebar open."""
    draw: Callable[..., Any] | None = context.get("generate_toctree_html")
    if draw:
        context["generate_toctree_html"] = lambda *args, **options: str(draw(*args, **options)).replace(
            "<summary>", '<summary aria-label="pages below">'
        )


def plain_signatures(
    app: Sphinx, docname: str, template: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    """Sphinx writes a signature of several lines as a list of definitions without terms: lines, instead."""
    if "body" in context:
        context["body"] = SIGNATURE_LINES.sub(
            lambda found: found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>"),
            context["body"],
        )


def empty_corners(app: Sphinx, document: nodes.document) -> None:
    """The empty corner of a table of pandas heads nothing: it is a cell, not a header."""
    for raw in list(document.findall(nodes.raw)):
        if 'class="dataframe"' in raw.astext():
            text = CORNER_OF_A_TABLE.sub("<td></td>", raw.astext())
            raw.replace_self(nodes.raw("", text, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", empty_corners)
    app.connect("html-page-context", plain_signatures)
    app.connect("html-page-context", name_toggles, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
