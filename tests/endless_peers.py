"""A program for torchrun: peers that exchange a tensor until somebody ends them, as test_distributed does.

usage: endless_peers.py FOLDER [TIMEOUT]. Every peer writes its process id into the folder once it exchanges.
"""

import os
import sys
from pathlib import Path

import torch

from kdutils.parallel import cohort

folder, timeout = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
with cohort(timeout) as peers:
    peers.from_others(torch.ones(3))
    (folder / f"{peers.rank}.pid").write_text(str(os.getpid()))
    while True:
        peers.from_others(torch.ones(3))
