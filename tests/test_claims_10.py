"""The claims of notebook 10 fail where its losses are zeroed."""

from faults import NOTEBOOKS

NOTEBOOK = NOTEBOOKS / "10_pruning_and_combining.ipynb"
FAULTS = ["losses zeroed"]
