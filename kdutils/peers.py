"""Processes that learn together: started by torchrun, exchanging tensors, ended together.

For Linux and macOS. One process per peer; where a machine has a GPU for each of its processes they use NCCL,
elsewhere gloo on the CPU.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdutils._validate import require_count, require_positive

STARTER = "KDUTILS_STARTER"  # the environment variable that tells a peer the process that called `torchrun`


class PeersFailed(RuntimeError):
    """One of the processes that `torchrun` started has failed; the message ends with their last lines."""


class PeerLost(RuntimeError):
    """An exchange has failed, because another peer has ended or has not answered in time."""


class Cohort:
    """This process among its peers; `cohort` makes one.

    Attributes:
        rank: Number of this process, from 0 to size - 1.
        size: Number of peers.
        device: A GPU of its own where the machine has one for every process, else the CPU.
        bytes_sent: Payload of all exchanges so far, from this process to the others.
    """

    def __init__(self, device: torch.device, timeout: float):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device, self.timeout, self.bytes_sent = device, timeout, 0

    def from_others(self, tensor: Tensor) -> list[Tensor]:
        """The other peers' tensors in the order of their ranks; no gradient flows from or to any of them.

        Args:
            tensor: Of the same shape and dtype in every process, on its device.

        Raises:
            PeerLost: Where a peer is gone or does not answer.
        """
        with self._exchange():
            pieces = [torch.empty_like(tensor, requires_grad=False) for _ in range(self.size)]
            dist.all_gather(pieces, tensor.detach().contiguous())
        self.bytes_sent += (self.size - 1) * tensor.nbytes
        return [piece for rank, piece in enumerate(pieces) if rank != self.rank]

    def copy_weights(self, own: nn.Module, copies: Sequence[nn.Module]) -> None:
        """Brings a copy of every peer's network, this one's included, up to date: weights and buffers.

        Args:
            own: Network of this process.
            copies: One network for every peer, in the order of the ranks, each built like its original.

        Raises:
            ValueError: Unless there is a copy for every peer.
            PeerLost: Where a peer is gone or does not answer.
        """
        if len(copies) != self.size:
            raise ValueError(f"copies: expected one network for each of {self.size} peers, got {len(copies)}")
        copies[self.rank].load_state_dict(own.state_dict())
        with self._exchange():
            for rank, network in enumerate(copies):
                for tensor in network.state_dict().values():  # shares the network's own memory
                    dist.broadcast(tensor, src=rank)
        self.bytes_sent += (self.size - 1) * sum(tensor.nbytes for tensor in own.state_dict().values())

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            raise PeerLost(
                f"peer {self.rank} of {self.size}: an exchange failed after "
                f"{time.monotonic() - started:.1f} s (at most {self.timeout:g} s are waited). "
                f"Another peer has ended or does not answer; its own output tells why. ({error})"
            ) from error


@contextlib.contextmanager
def cohort(timeout: float = 60.0) -> Iterator[Cohort]:
    """The process group of this process and its peers, left again at the end of the block.

    To be entered by every process that torchrun has started. Should torchrun, or the process that called
    `torchrun` below, be killed, this process ends within a second instead of waiting for its peers.

    Args:
        timeout: Seconds, > 0, that an exchange waits for a peer before it fails.

    Yields:
        This process among its peers.

    Raises:
        ValueError: For a timeout <= 0.
        RuntimeError: Where torchrun has not started this process.
        PeerLost: Where a peer does not arrive at the end.
    """
    require_positive("timeout", timeout)
    if "RANK" not in os.environ:
        raise RuntimeError(
            "this program is one of several: start it with `torchrun --standalone --nproc-per-node 2 …`"
        )
    threading.Thread(target=_end_when_abandoned, args=(os.getppid(),), daemon=True).start()
    if torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", 1)):
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        peers = Cohort(device, timeout)
        yield peers
        with peers._exchange():
            dist.barrier()  # a peer that left early would break the last exchange of a slower one
    finally:
        dist.destroy_process_group()


def torchrun(program: str, *arguments: str, processes: int = 2) -> str:
    """Runs a program in several processes on this machine, started by torchrun.

    No process is left when this returns or raises, be it by an error or an interrupt.

    Args:
        program: Name of a module, such as "kdutils.course.mutual", or path of a file that ends in ".py".
        arguments: Arguments of the program.
        processes: Number of processes, each with one thread unless OMP_NUM_THREADS is set.

    Returns:
        What the processes printed.

    Raises:
        ValueError: For processes < 1.
        PeersFailed: Where a process fails or is killed. Torchrun then ends the others.
    """
    require_count("processes", processes)
    kind = [] if program.endswith(".py") else ["--module"]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
        f"--nproc-per-node={processes}", *kind, program, *arguments,
    ]  # fmt: skip
    # Torchrun's own default gives a peer that ignores the signal to end half a minute.
    defaults = {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "5"}
    environment = {**defaults, **os.environ, STARTER: str(os.getpid())}
    # In a session of its own, so that an interrupt reaches this process alone, which then ends the others.
    started = subprocess.Popen(
        command, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        printed, _ = started.communicate()
    finally:
        _end(started)
    if started.returncode != 0:
        last_lines = "\n".join(printed.splitlines()[-60:])
        raise PeersFailed(f"{Path(program).name} in {processes} processes failed; last lines:\n{last_lines}")
    return printed


def _end(started: subprocess.Popen) -> None:
    """Asks torchrun to end its processes. If it does not, it is killed, and they end by themselves."""
    if started.poll() is None:
        started.terminate()
        try:
            started.wait(timeout=10)
        finally:  # a second interrupt may cut the wait short
            started.kill()
            started.wait()


def _end_when_abandoned(parent: int) -> None:
    """Ends this process once its parent, or the process that called `torchrun`, is gone."""
    starter = int(os.environ.get(STARTER, parent))
    while os.getppid() == parent and _is_running(starter):
        time.sleep(0.25)
    try:
        print("this peer ends: the process that started it is gone", file=sys.stderr, flush=True)
    finally:  # printing fails where the process that read it is gone as well
        os._exit(1)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 does nothing but look whether the process is there
    except ProcessLookupError:
        return False
    return True
