"""What finds a page, and leads on from it: its description, its card where it is shared, its next question.

Search engines read the description and the structured data (schema.org, JSON-LD), other sites the card
(Open Graph). The links to the chapter before and behind say the question that it asks.
"""

import json
from html import escape
from typing import Any

from chapters import FOLDER, question_and_time, title
from docutils import nodes
from sphinx.application import Sphinx
from write_lists import times

CARD = "_static/social_card.png"
CARD_WORDS = (
    "One small network, trained three times: 76% on labels only, 81% on more views of the images, "
    "88% with a teacher"
)
MOST_CHARACTERS = 200  # of a description


def description(document: nodes.document, docname: str) -> str:
    """A chapter's question and time; of another page the first sentences."""
    if docname.startswith(FOLDER):
        return " ".join(question_and_time(document)).strip()
    paragraphs = (" ".join(node.astext().split()) for node in document.findall(nodes.paragraph))
    text = next((text for text in paragraphs if len(text) > 30), title(document))
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS].rpartition(" ")[0] + " …"


def structured(app: Sphinx, document: nodes.document, docname: str, address: str) -> dict[str, Any]:
    """The page in the words of schema.org."""
    course = {
        "@type": "Course",
        "name": app.config.html_title,
        "url": app.config.html_baseurl,
        "provider": {"@type": "Organization", "name": app.config.author},
    }
    if docname == app.config.root_doc:
        text = description(document, docname)
        return {
            "@context": "https://schema.org", **course, "description": text, "inLanguage": "en",
            "isAccessibleForFree": True, "license": "https://spdx.org/licenses/MIT.html",
            "about": ["knowledge distillation", "model compression"],
            "image": app.config.html_baseurl + CARD,
        }  # fmt: skip
    kind = "LearningResource" if docname.startswith(FOLDER) else "TechArticle"
    page: dict[str, Any] = {
        "@context": "https://schema.org", "@type": kind, "name": title(document), "url": address,
        "description": description(document, docname), "inLanguage": "en", "isPartOf": course,
    }  # fmt: skip
    needed = times(" ".join(paragraph.astext() for paragraph in document.findall(nodes.paragraph)))
    if kind == "LearningResource" and needed:
        page["timeRequired"] = f"PT{needed[1]}M"
    return page


def tags(app: Sphinx, document: nodes.document, docname: str) -> str:
    """What goes into the head of the page."""
    address = app.config.html_baseurl + app.builder.get_target_uri(docname)
    text = description(document, docname)
    named = {"description": text, "twitter:card": "summary_large_image"}
    properties = {
        "og:type": "article", "og:site_name": app.config.project, "og:title": title(document),
        "og:description": text, "og:url": address, "og:image": app.config.html_baseurl + CARD,
        "og:image:alt": CARD_WORDS, "og:image:width": "1200", "og:image:height": "630",
    }  # fmt: skip
    lines = [f'<meta name="{name}" content="{escape(value)}">' for name, value in named.items()]
    lines += [f'<meta property="{name}" content="{escape(value)}">' for name, value in properties.items()]
    data = json.dumps(structured(app, document, docname, address), ensure_ascii=False)
    data = data.replace("</", r"<\/")  # so that no text ends the script
    lines.append(f'<script type="application/ld+json">{data}</script>')
    return "\n".join(lines)


def with_question(app: Sphinx, neighbor: dict[str, str]) -> dict[str, str]:
    """The link to a neighbor; of a chapter with its question."""
    name = next((name for name in app.env.found_docs if is_target(app, name, neighbor["link"])), "")
    if not name.startswith(FOLDER):
        return neighbor
    question, _ = question_and_time(app.env.get_doctree(name))
    return {**neighbor, "title": f'{neighbor["title"]}<span class="question">{escape(question)}</span>'}


def is_target(app: Sphinx, name: str, address: str) -> bool:
    return app.builder.get_target_uri(name).rpartition("/")[2] == address.rpartition("/")[2]


def complete_page(
    app: Sphinx, docname: str, template: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    if document is None:
        return
    context["metatags"] = context.get("metatags", "") + tags(app, document, docname)
    if docname.startswith(FOLDER):
        for side in ("prev", "next"):
            if context.get(side):
                context[side] = with_question(app, context[side])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", complete_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
