"""What all tests share, those in the notebooks too."""

import importlib.util

# In tests/harness. Who runs the tests of the library alone may do without nbval.
pytest_plugins = ["patient_nbval", "kernel_costs"] if importlib.util.find_spec("nbval") else []
