"""What the outputs of a stored notebook become on a page.

A figure's alternative text is its message, which stands in bold above it in the notebook. A badge, which
would be fetched from another host, becomes a button. The sentence that holds a slider's place becomes what
frames.py makes of its pictures, and gets the same buttons.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from frames import exploration_html, stored_frames
from sphinx.application import Sphinx
from store_notebooks import SLIDER_TEXT

HOSTS = {
    "https://colab.research.google.com/": "Open in Colab",
    "https://mybinder.org/": "Open in Binder",
}
SLIDER_SENTENCE = SLIDER_TEXT.strip("()").capitalize() + "."
RUN_SENTENCE = "Run the notebook to move it over other values, or to change what is drawn."
MOST_CHARACTERS = 300  # of an alternative text


def is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def host_label(address: str) -> str | None:
    """What a button says that leads to the address, None if it leads to no host of notebooks."""
    return next((label for host, label in HOSTS.items() if address.startswith(host)), None)


def message(prose: list[nodes.paragraph]) -> str:
    """What a figure's prose says from the sentence with the last bold words on.

    Without any bold words, its last paragraph; of many sentences the first, as far as there is room.
    """
    text, start = plain(prose[-1]) if prose else "", 0
    for paragraph in reversed(prose):
        if bold := list(paragraph.findall(nodes.strong)):
            text = plain(paragraph)
            place = text.rfind(plain(bold[-1]))
            start = max((end for end in sentence_ends(text) if end <= place), default=0)
            break
    ends = [end for end in [*sentence_ends(text), len(text)] if end > start]
    fitting = [end for end in ends if end - start <= MOST_CHARACTERS]
    return text[start : max(fitting or ends[:1], default=0)].strip()


def plain(node: nodes.Element) -> str:
    return " ".join(node.astext().split())


def sentence_ends(text: str) -> list[int]:
    return [found.end() for found in re.finditer(r"[.!?:…]\s+(?=[^a-z])", text)]


def cells_with_prose(document: nodes.document) -> Iterator[tuple[nodes.container, list[nodes.paragraph]]]:
    """Every code cell, with the paragraphs that stand between it and the cell before."""
    prose: list[nodes.paragraph] = []
    after_a_cell = False
    for node in list(document.findall(lambda node: is_cell(node) or is_prose(node))):
        if isinstance(node, nodes.paragraph):
            prose = [node] if after_a_cell else [*prose, node]
            after_a_cell = False
        else:
            after_a_cell = True
            yield node, prose


def describe_figures(document: nodes.document) -> None:
    """Gives every figure of a notebook its number and its message as alternative text."""
    number = 0
    for cell, prose in cells_with_prose(document):
        for image in cell.findall(nodes.image):
            number += 1
            image["alt"] = f"Figure {number}. {message(prose)}"


def is_prose(node: nodes.Node) -> bool:
    """Whether it is a paragraph of a Markdown cell, not of an output."""
    if not isinstance(node, nodes.paragraph):
        return False
    while (node := node.parent) is not None:
        if is_cell(node):
            return False
    return True


def badges_to_buttons(document: nodes.document) -> list[nodes.reference]:
    """Replaces the badges that lead to Colab and Binder by text; returns these links."""
    buttons = []
    for link in list(document.findall(nodes.reference)):
        label = host_label(link.get("refuri", ""))
        if label and next(link.findall(nodes.image), None):
            link.children = []
            link += nodes.Text(label)
            link["classes"].append("launch")
            buttons.append(link)
    return buttons


def fill_sliders(
    document: nodes.document, buttons: list[nodes.reference], stored: list[dict[str, Any] | None], folder: str
) -> None:
    """Puts a slider's pictures, where they are stored, and the buttons to run it, in a box of its own."""
    sliders = iter(stored)
    for cell, prose in cells_with_prose(document):
        for block in list(cell.findall(is_slider)):
            paragraph = nodes.paragraph("", f"{SLIDER_SENTENCE} ", *(button.deepcopy() for button in buttons))
            box = nodes.container("", paragraph, classes=["slider"])
            if exploration := next(sliders, None):
                html = exploration_html(exploration, folder, message(prose))
                box.insert(0, nodes.raw("", html, format="html"))
                paragraph.replace(paragraph[0], nodes.Text(f"{RUN_SENTENCE} "))
            block.replace_self(box)


def is_slider(node: nodes.Node) -> bool:
    return isinstance(node, nodes.literal_block) and node.astext().strip() == SLIDER_TEXT


def on_doctree_read(app: Sphinx, document: nodes.document) -> None:
    buttons = badges_to_buttons(document)
    name = app.env.docname
    if app.env.doc2path(name).suffix == ".ipynb":
        describe_figures(document)
        stored = stored_frames(Path(app.srcdir), name)
        fill_sliders(document, buttons, stored, f"../frames/{Path(name).name[:2]}")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", on_doctree_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
