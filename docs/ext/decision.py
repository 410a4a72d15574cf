"""Which distillation? The questions from top to bottom, each with its answers, as a drawing with links."""

from collections.abc import Callable
from html import escape
from typing import NamedTuple


class Answer(NamedTuple):
    """What one may have or want, what to take then, and the chapter that shows it."""

    situation: str
    advice: str
    chapter: str


QUESTIONS: dict[str, list[Answer]] = {
    "Is it too large as it is?": [
        Answer("not yet tried", "export it, 8 bits", "08"),
        Answer("a gap stays", "is there one to close?", "00"),
        Answer("my model and my data", "all steps in a row", "18"),
    ],
    "What can you ask the teacher?": [
        Answer("its logits", "response: begin here", "01"),
        Answer("its layers", "features", "02"),
        Answer("its embeddings", "relations", "03"),
        Answer("only its decisions", "many unlabeled inputs", "04"),
        Answer("there is none", "peers teach each other", "05"),
        Answer("there is none", "the network itself", "06"),
    ],
    "What shall the student be?": [
        Answer("a smaller copy", "fewer layers, channels", "07"),
        Answer("the same, less memory", "fewer bits", "08"),
        Answer("made for its device", "another design", "09"),
        Answer("the teacher, cut", "prune, then repair", "10"),
        Answer("a short transformer", "every second layer", "12"),
        Answer("a language model", "tokens and texts", "13"),
        Answer("one that answers at length", "its own prefixes, drafts", "14"),
        Answer("a language model, cut", "heal above the cut", "15"),
        Answer("a fast generator", "fewer steps", "16"),
    ],
    "Did it help?": [
        Answer("no, or not sure", "audit, controls", "11"),
        Answer("what came along?", "errors, habits", "17"),
    ],
}
PER_ROW, WIDTH, HEIGHT, GAP, TITLE = 3, 250, 60, 12, 34
INK, LINE, FILL = "#444", "#1f77b4", "#eef4fa"


def decision_svg(address: Callable[[str], str | None]) -> str:
    """The drawing, of all answers whose chapter has an address.

    Args:
        address: From a chapter's number to where it lies, None for one that is not there.
    """
    parts: list[str] = []
    top = GAP
    for number, (question, answers) in enumerate(QUESTIONS.items(), start=1):
        found = [(answer, link) for answer in answers if (link := address(answer.chapter))]
        parts.append(_text(GAP, top + 20, f"{number} · {question}", "16px", "bold"))
        for place, (answer, link) in enumerate(found):
            row, column = divmod(place, PER_ROW)
            left = GAP + column * (WIDTH + GAP)
            parts.append(_box(left, top + TITLE + row * (HEIGHT + GAP), answer, link))
        rows = -(-len(found) // PER_ROW)
        top += TITLE + rows * (HEIGHT + GAP) + GAP
    width = GAP + PER_ROW * (WIDTH + GAP)
    label = "Four questions from top to bottom, and for each answer the chapter that shows what to take"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" role="group" '
        f'aria-label="{label}" font-family="sans-serif">{"".join(parts)}</svg>'
    )


def _box(left: int, top: int, answer: Answer, link: str) -> str:
    frame = (
        f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{FILL}" stroke="{LINE}"/>'
    )
    words = _text(left + 10, top + 24, answer.situation, "13px")
    advice = _text(left + 10, top + 46, f"→ {answer.advice} · {answer.chapter}", "13px", "bold", LINE)
    return f'<a href="{escape(link)}">{frame}{words}{advice}</a>'


def _text(x: int, y: int, words: str, size: str, weight: str = "normal", color: str = INK) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{color}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'
