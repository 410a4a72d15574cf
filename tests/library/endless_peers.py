"""A program for torchrun: peers that exchange a tensor until somebody ends them, as test_distributed does.

usage: endless_peers.py FOLDER [TIMEOUT]. Every peer writes its process id into the folder once it exchanges.
Should a test forget them, they end after five minutes.
"""

import os
import sys
import time
from pathlib import Path

import torch

from kdutils.peers import cohort

folder, timeout = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 240.0
end = time.monotonic() + 300

# They enter together, so that a short timeout need not last until the slower one has imported torch.
(folder / f"{os.environ['RANK']}.ready").touch()
while len(list(folder.glob("*.ready"))) < int(os.environ["WORLD_SIZE"]) and time.monotonic() < end:
    time.sleep(0.02)

with cohort(timeout) as peers:
    peers.from_others(torch.ones(3))
    # Renamed into place: whoever sees the file can read it.
    unfinished = folder / f"{peers.rank}.unfinished"
    unfinished.write_text(str(os.getpid()))
    unfinished.rename(folder / f"{peers.rank}.pid")
    while time.monotonic() < end:
        peers.from_others(torch.ones(3))
raise SystemExit("nobody has ended this peer")
