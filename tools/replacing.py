"""Files that are the old ones or the new ones, whatever ends the program that writes them."""

from pathlib import Path


def replace(path: Path, content: str | bytes) -> None:
    """Puts the content in the file's place in one step, once it stands beside it; text becomes UTF-8."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    unfinished.replace(path)
