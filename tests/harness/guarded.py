"""Runs a command until standard input closes, then ends it and all that it has started.

Standard input closes also when the process that holds its other end is killed: nothing is left running.
usage: python tests/harness/guarded.py COMMAND ARGUMENT...
"""

import subprocess
import sys
import threading

import psutil


def end_tree(process: subprocess.Popen) -> None:
    """Ends a process and its descendants; the kernels of a server stand in process groups of their own."""
    try:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for started in tree:
        started.terminate()
    _, alive = psutil.wait_procs(tree, timeout=10)
    for left_over in alive:
        left_over.kill()


def end_when_input_closes(process: subprocess.Popen) -> None:
    sys.stdin.read()
    end_tree(process)


if __name__ == "__main__":
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    guard = threading.Thread(target=end_when_input_closes, args=(process,), daemon=True)
    guard.start()
    process.wait()
    guard.join(timeout=20)
