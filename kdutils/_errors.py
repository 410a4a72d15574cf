"""What an error leaves behind of the work that was finished before it."""

from typing import Any


def keep(error: BaseException, note: str | None, **finished: Any) -> None:
    """The error gets what was finished as attributes, and a note that says so (Python 3.11 and later)."""
    for name, value in finished.items():
        setattr(error, name, value)
    if note is not None and hasattr(error, "add_note"):
        error.add_note(note)
