"""Packages that only some functions need, and that `pip install kdutils` leaves out."""

import importlib
from typing import Any


def require_extra(package: str, extra: str) -> Any:
    """The imported package; raises ImportError that says how to install it where it is missing."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this needs {package}: pip install {package}, or all that goes with it: "
            f'pip install "kdutils[{extra}]"'
        ) from error
