"""What the theme and pandas leave unsaid to those who listen to a page."""

import re
from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SIGNATURE_LINES = re.compile(r"<dl>\s*(<dd><em class=\"sig-param.*?)</dl>", re.DOTALL)
EMPTY_HEAD = re.compile(r'<th class="head[^"]*">\s*<p>\s*</p>\s*</th>')
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


def repair_body(
    app: Sphinx, docname: str, template: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    """Sphinx writes a signature of several lines as definitions without terms, an empty corner as a header.

    They become lines, and a cell.
    """
    if "body" in context:
        body = SIGNATURE_LINES.sub(
            lambda found: found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>"),
            context["body"],
        )
        context["body"] = EMPTY_HEAD.sub("<td></td>", body)


def empty_corners(app: Sphinx, document: nodes.document) -> None:
    """The empty corner of a table of pandas heads nothing: it is a cell, not a header."""
    for raw in list(document.findall(nodes.raw)):
        if 'class="dataframe"' in raw.astext():
            text = CORNER_OF_A_TABLE.sub("<td></td>", raw.astext())
            raw.replace_self(nodes.raw("", text, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", empty_corners)
    app.connect("html-page-context", repair_body)
    app.connect("html-page-context", name_toggles, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
