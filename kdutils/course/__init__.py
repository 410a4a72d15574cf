"""What only this course needs: its data, networks, drawings and exercises. The library does without it."""

from importlib.util import find_spec

_MISSING = [
    name for name in ("ipywidgets", "matplotlib", "pandas", "safetensors", "scipy") if find_spec(name) is None
]
if _MISSING:
    raise ImportError(f'kdutils.course needs {", ".join(_MISSING)}: pip install "kdutils[course]"')
