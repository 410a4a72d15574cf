"""Peers in several processes: they learn what one process learns, fail in words, and leave nothing behind."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import ddp_fit
import psutil
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from kdutils import peers as peers_module
from kdutils.batches import batches
from kdutils.course import data, mutual
from kdutils.losses import dml_loss
from kdutils.peers import PeersFailed, cohort, torchrun
from kdutils.train import fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun's processes are for Linux and macOS"),
]

TESTS = Path(__file__).parent
ENDLESS, DDP = str(TESTS / "endless_peers.py"), str(TESTS / "ddp_fit.py")
CALLER = "import sys; from kdutils.peers import torchrun; torchrun(*sys.argv[1:])"
PATIENCE = 240.0  # seconds; to start a process takes some when the machine is busy


@pytest.fixture(autouse=True)
def one_thread():
    """The peers have one thread each; with more, sums are rounded in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path):
    """A folder whose path every process of a test has among its arguments; none of them may be left."""
    yield tmp_path
    _, left = psutil.wait_procs(processes_of(tmp_path), timeout=30)
    for process in left:
        process.kill()
    assert left == []


def processes_of(folder):
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(str(folder) in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def exchanging_peers(folder):
    """The process ids of the two peers in endless_peers.py, once both exchange."""
    files = [folder / "0.pid", folder / "1.pid"]
    wait_until(lambda: all(file.exists() for file in files))
    return [int(file.read_text()) for file in files]


@contextlib.contextmanager
def meanwhile(action, *arguments):
    """Does something in a thread beside the block."""
    thread = threading.Thread(target=action, args=arguments)
    thread.start()
    try:
        yield
    finally:
        thread.join()


# Equal to one process


def results(folder, rank):
    return json.loads((folder / f"peer-{rank}.json").read_text())


def assert_same_peers(folder, peers):
    """Up to rounding, which AdamW enlarges: it steps by the sign of a gradient that is nearly zero.

    A peer that weighs the others' answers a tenth less differs more than that.
    """
    for rank, peer in enumerate(peers):
        stored = load_file(folder / f"peer-{rank}.safetensors")
        for name, tensor in peer.state_dict().items():
            difference = (stored[name] - tensor).float().norm() / tensor.float().norm()
            assert difference < 0.01, f"{rank} {name}: {difference:.1g}"


def test_logits_exchanged_between_processes_train_as_one_process_does(folder):
    settings = ["--labels=200", "--steps=9", "--seed=2", "--weight=2"]
    printed = torchrun(
        "kdutils.course.mutual", "--out", str(folder), "--width", "4", "6", *settings, processes=3
    )
    assert all(f"peer {rank} of 3: test accuracy" in printed for rank in range(3))
    peers = nn.ModuleList(mutual.new_peer(2, rank, width) for rank, width in enumerate((4, 6, 4)))

    def loss_fn(peers, images, labels):
        logits = [peer(images) for peer in peers]
        pairs = itertools.permutations(logits, 2)
        return {
            "hard": sum(F.cross_entropy(own, labels) for own in logits),
            "mutual": 2 * sum(dml_loss(own, other) for own, other in pairs) / 2,  # the mean over two others
        }

    subset = data.labeled_subset(data.fashion_mnist().pool, 200, seed=2)
    history = fit(
        peers,
        batches(*subset, batch_size=64, seed=2, transform=data.normalize_fashion_mnist),
        loss_fn,
        steps=9,
        lr=0.06,
    )
    assert_same_peers(folder, peers)
    told = [results(folder, rank) for rank in range(3)]
    summed = [sum(terms) for terms in zip(*(peer["history"]["mutual"] for peer in told), strict=True)]
    assert summed == pytest.approx(history["mutual"], rel=1e-3)
    images = 200 + 200 + 64  # two epochs of 200 images and one batch more, in 9 steps
    assert [peer["bytes_sent"] for peer in told] == [2 * 4 * 10 * images] * 3  # to each of two others
    for peer in told:
        assert len(peer["step_seconds"]) == len(peer["step_cpu_seconds"]) == 9


def test_stale_weights_between_processes_train_as_one_process_does(folder):
    settings = ["--labels=100", "--width=4", "--steps=7", "--every=3", "--weight=2", "--seed=1"]
    torchrun("kdutils.course.mutual", "--out", str(folder), *settings)
    peers = nn.ModuleList(mutual.new_peer(1, rank, 4) for rank in (0, 1))
    copies = [mutual.new_peer(1, rank, 4) for rank in (0, 1)]
    told = json.loads((folder / "peer-0.json").read_text())["history"]
    assert {name: len(curve) for name, curve in told.items()} == {"hard": 7, "mutual": 7, "loss": 7}
    assert told["mutual"][:3] == [0, 0, 0] and all(told["mutual"][3:])
    steps = iter(range(7))

    def loss_fn(peers, *batch):
        if (step := next(steps)) < 3:
            pairs = zip(peers, batch[::2], batch[1::2], strict=True)
            return sum(F.cross_entropy(peer(images), labels) for peer, images, labels in pairs)
        if step % 3 == 0:
            for stale, peer in zip(copies, peers, strict=True):
                stale.load_state_dict(peer.state_dict())
        terms = []
        for peer, other, images, labels in zip(peers, copies[::-1], batch[::2], batch[1::2], strict=True):
            logits = peer(images)
            terms.append(F.cross_entropy(logits, labels) + 2 * dml_loss(logits, other(images)))
        return sum(terms)

    pool = data.fashion_mnist().pool
    parts = []
    for rank in (0, 1):
        images, labels = mutual.own_images(pool, 100, 1, rank, 2)
        parts += [data.normalize_fashion_mnist(images), labels]
    fit(peers, batches(*parts, batch_size=64, seed=1), loss_fn, steps=7, lr=0.06)
    assert_same_peers(folder, peers)
    weights = sum(tensor.nbytes for tensor in peers[0].state_dict().values())
    assert [results(folder, rank)["bytes_sent"] for rank in (0, 1)] == [2 * weights] * 2  # steps 3 and 6


def test_own_images_are_disjoint_and_balanced():
    index = torch.arange(2000)
    split = data.Split(index, data.fashion_mnist().pool.labels[:2000])
    parts = [mutual.own_images(split, 120, 5, rank, 3) for rank in range(3)]
    assert len(torch.cat([part.images for part in parts]).unique()) == 360
    for part in parts:
        assert part.labels.bincount().tolist() == [12] * 10
        assert torch.equal(split.labels[part.images], part.labels)
    with pytest.raises(ValueError, match="size: expected a multiple of 10, got 105"):
        mutual.own_images(split, 105, 0, 0, 2)


# DistributedDataParallel


def test_fit_in_two_processes_equals_one_at_the_same_global_batch(folder):
    torchrun(DDP, str(folder))
    found = {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in ddp_fit.NETWORKS}
    expected = {name: ddp_fit.trained(make(), rank=0, size=1) for name, make in ddp_fit.NETWORKS.items()}
    torch.testing.assert_close(found["plain"], expected["plain"], rtol=0, atol=1e-9)
    assert (expected["plain"] - ddp_fit.weights(ddp_fit.NETWORKS["plain"]())).abs().max() > 0.01  # it learnt
    # Batch norm normalizes over each process' own batch, and half a batch has another mean.
    assert (found["batch_norm"] - expected["batch_norm"]).abs().max() > 1e-4
    with_regressor = torch.load(folder / "regressor.pt", weights_only=True)
    start = ddp_fit.weights(ddp_fit.with_regressor(lambda module: module))
    alone = ddp_fit.trained(ddp_fit.with_regressor(lambda module: module), 0, 1, ddp_fit.labels_and_hints)
    torch.testing.assert_close(with_regressor, alone, rtol=0, atol=1e-9)
    assert (alone - start)[-12:].abs().min() > 0.001  # the regressor learned, too


# What goes wrong


def test_a_peers_own_error_is_told(folder):
    with pytest.raises(
        PeersFailed,
        match=r"kdutils\.course\.mutual in 1 processes failed[\s\S]*list_of_logits: expected the logits of",
    ):
        torchrun("kdutils.course.mutual", "--out", str(folder), "--labels=100", processes=1)


def test_a_killed_peer_ends_the_others_and_is_told(folder):
    def kill_the_second():
        os.kill(exchanging_peers(folder)[1], signal.SIGKILL)

    with meanwhile(kill_the_second), pytest.raises(PeersFailed, match=r"exitcode\s*: -9|SIGKILL"):
        torchrun(ENDLESS, str(folder))


def peers_without_torchrun(folder, timeout):
    """Two peers as they stand on two machines: nobody ends the one when the other is gone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, ENDLESS, str(folder), str(timeout)],
            env={**os.environ, **address, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("blow", "timeout"), [(signal.SIGKILL, 240), (signal.SIGSTOP, 5)], ids=["killed", "frozen"]
)
def test_a_peer_on_another_machine_that_is_gone_or_frozen_is_noticed(folder, blow, timeout):
    survivor, lost = peers_without_torchrun(folder, timeout)
    try:
        exchanging_peers(folder)
        lost.send_signal(blow)
        _, printed = survivor.communicate(timeout=PATIENCE)
    finally:
        for process in (survivor, lost):
            process.kill()
            process.wait()
    assert survivor.returncode == 1
    assert "PeerLost: peer 0 of 2: an exchange failed after" in printed
    assert "Another peer has ended or does not answer" in printed


def test_an_interrupt_of_torchrun_ends_its_processes(folder):
    def interrupt():
        exchanging_peers(folder)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell's background job starts with interrupts ignored, and so do the tests run in one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with meanwhile(interrupt), pytest.raises(KeyboardInterrupt):
            torchrun(ENDLESS, str(folder))
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: not processes_of(folder))


def test_no_process_outlives_the_one_that_called_torchrun(folder):
    caller = subprocess.Popen([sys.executable, "-c", CALLER, ENDLESS, str(folder)], stderr=subprocess.DEVNULL)
    try:
        exchanging_peers(folder)
        assert len(processes_of(folder)) >= 4  # the caller, torchrun, two peers
    finally:
        caller.kill()
        caller.wait()
    wait_until(lambda: not processes_of(folder))


def test_no_peer_outlives_torchrun_itself(folder):
    def kill_torchrun():
        os.kill(psutil.Process(exchanging_peers(folder)[0]).ppid(), signal.SIGKILL)

    told = pytest.raises(PeersFailed, match="this peer ends: the process that started it is gone")
    with meanwhile(kill_torchrun), told:
        torchrun(ENDLESS, str(folder))
    wait_until(lambda: not processes_of(folder))


# Bad input


def test_bad_settings_are_named(monkeypatch):
    with pytest.raises(ValueError, match="processes: expected a whole number >= 1, got 0"):
        torchrun("kdutils.course.mutual", processes=0)
    with pytest.raises(ValueError, match="timeout: expected a finite number > 0, got 0"), cohort(timeout=0):
        pass
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match="start it with `torchrun"), cohort():
        pass


def test_weights_cannot_be_exchanged_more_than_once_a_step():
    with pytest.raises(ValueError, match="every: expected a whole number >= 1, got 0"):
        mutual.weights_exchanged(None, [], every=0)


def test_a_copy_for_every_peer_is_asked_for(monkeypatch):
    monkeypatch.setattr(peers_module.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(peers_module.dist, "get_world_size", lambda: 2)
    peers = peers_module.Cohort(torch.device("cpu"), timeout=1.0)
    with pytest.raises(ValueError, match="copies: expected one network for each of 2 peers, got 1"):
        peers.copy_weights(nn.Linear(2, 2), [nn.Linear(2, 2)])
