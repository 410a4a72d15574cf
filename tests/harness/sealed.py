"""A Python that cannot reach the network, nor write outside the temporary folder: every attempt is noted.

    python tests/harness/sealed.py notebooks/01_response_knowledge.ipynb …

runs the cells tagged `browser` of the notebooks, each cell twice, and every cell with a figure when only the
set-up has run; it prints as JSON what went wrong.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager
from IPython.display import display
from nbformat import NotebookNode
from notebook_files import code_cells, has_tag, read

LOOKS_UP = {"socket.gethostbyname", "socket.getaddrinfo", "socket.gethostbyaddr"}
CONNECTS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
CHANGES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod",
}  # fmt: skip
AT_HOME = {None, "", "localhost", "127.0.0.1", "::1"}


def seal() -> list[str]:
    """The attempts to reach the network or to write, a list that grows; each of them raises an OSError.

    Noted is what Python itself does in this process, from now on. This machine's own addresses and the
    temporary folder stay open.
    """
    attempts: list[str] = []
    scratch = os.path.realpath(tempfile.gettempdir())

    def may_be_written(path: Any) -> bool:
        if isinstance(path, int):  # a file that is open already
            return True
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or os.path.commonpath([real, scratch]) == scratch

    def whole(path: Any, folder: Any) -> Any:
        """The path, put behind the open folder that it is relative to: `shutil.rmtree` works like that."""
        known = os.path.isdir("/proc/self/fd")  # on Linux
        if known and isinstance(folder, int) and folder >= 0 and not isinstance(path, int):
            return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        return path

    def refuse(code: int, what: str) -> None:
        attempts.append(what)
        raise OSError(code, os.strerror(code), what)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not may_be_written(path):
                refuse(errno.EROFS, f"writes {path}")
        elif event in CHANGES:
            relative_to = arguments[1] if event in {"os.remove", "os.rmdir"} else None
            if not may_be_written(whole(arguments[0], relative_to)):
                refuse(errno.EROFS, f"{event} {arguments[0]}")
        elif event in LOOKS_UP and arguments[0] not in AT_HOME:
            refuse(errno.ENETUNREACH, f"looks up {arguments[0]}")
        elif event in CONNECTS:
            address = arguments[1]
            if isinstance(address, tuple) and address[0] not in AT_HOME:
                refuse(errno.ENETUNREACH, f"connects to {address[0]}")

    sys.addaudithook(watch)
    return attempts


def pictures() -> list[str]:
    """A fingerprint of every open figure's pixels; the figures are closed."""
    import matplotlib.pyplot as plt

    found = []
    for number in plt.get_fignums():
        canvas = plt.figure(number).canvas
        canvas.draw()
        found.append(hashlib.sha256(bytes(canvas.buffer_rgba())).hexdigest())
    plt.close("all")
    return found


def run(cell: NotebookNode, namespace: dict[str, Any]) -> list[str]:
    """Runs a cell as Jupyter does, without a kernel; the fingerprints of its pictures."""
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(TransformerManager().transform_cell(cell.source), "<cell>", "exec"), namespace)
    return pictures()


def twice(cells: list[NotebookNode], namespace: dict[str, Any]) -> Iterator[str]:
    """What goes wrong in cells that each run twice: errors, and pictures that are others the second time."""
    drawn = []
    for cell in cells:
        try:
            first, second = run(cell, namespace), run(cell, namespace)
        except Exception as error:
            yield f"{first_line(cell)}: {type(error).__name__}: {error}"
        else:
            drawn += first
            if first != second:
                yield f"{first_line(cell)}: another picture the second time"
    if not drawn:
        yield "no picture is drawn"


def too_early(cells: list[NotebookNode], namespace: dict[str, Any]) -> Iterator[str]:
    """Cells with a stored figure that fail, otherwise than by a NameError, run right after the set-up.

    A figure that needs nothing but the set-up is drawn, and that is right.
    """
    for cell in cells:
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            try:
                run(cell, dict(namespace))
            except NameError:
                pictures()  # one may have been begun
            except Exception as error:
                yield f"{first_line(cell)}: too early, {type(error).__name__}: {error}"


def first_line(cell: NotebookNode) -> str:
    return cell.source.splitlines()[0]


def complaints(notebook: NotebookNode) -> list[str]:
    cells = code_cells(notebook)
    namespace: dict[str, Any] = {"__name__": "__main__", "display": display}
    run(cells[0], namespace)
    return [
        *too_early(cells, namespace),
        *twice([cell for cell in cells if has_tag(cell, "browser")], dict(namespace)),
    ]


def main(notebooks: list[str]) -> None:
    attempts = seal()
    report = {}
    for name in notebooks:
        report[name] = complaints(read(Path(name))) + attempts
        attempts.clear()
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])
