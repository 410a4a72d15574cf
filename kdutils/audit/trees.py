"""What the audit takes from `kdutils._trees`."""

from kdutils._trees import Path, leaves_of, map_tensors, replace_tensors, tensors_in

__all__ = ["Path", "leaves_of", "map_tensors", "replace_tensors", "tensors_in"]
