"""Peers in several processes: they learn what one process learns, fail in words, and leave nothing behind."""

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

from kdutils import data, mutual, parallel
from kdutils.online import dml_loss
from kdutils.parallel import PeersFailed, cohort, torchrun
from kdutils.train import fit

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="torchrun's processes are for Linux and macOS"
)

TESTS = Path(__file__).parent
ENDLESS, DDP = str(TESTS / "endless_peers.py"), str(TESTS / "ddp_fit.py")
CALLER = "import sys; from kdutils.parallel import torchrun; torchrun(*sys.argv[1:])"


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
    left = processes_of(tmp_path)
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


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def exchanging_peers(folder):
    """The process ids of the two peers in endless_peers.py, once both exchange."""
    files = [folder / "0.pid", folder / "1.pid"]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


# Equal to one process


def results(folder, rank):
    return json.loads((folder / f"peer-{rank}.json").read_text())


def assert_same_peers(folder, peers):
    for rank, peer in enumerate(peers):
        stored = load_file(folder / f"peer-{rank}.safetensors")
        for name, tensor in peer.state_dict().items():
            torch.testing.assert_close(stored[name], tensor, rtol=1e-5, atol=1e-6, msg=f"{rank} {name}")


def test_logits_exchanged_between_processes_train_as_one_process_does(folder):
    torchrun(
        "kdutils.mutual", "--out", str(folder), "--width", "4", "6", "--labels=200", "--steps=9", "--seed=2"
    )
    peers = nn.ModuleList(mutual.new_peer(2, rank, width) for rank, width in enumerate((4, 6)))

    def loss_fn(peers, images, labels):
        first, second = (peer(images) for peer in peers)
        return {
            "hard": F.cross_entropy(first, labels) + F.cross_entropy(second, labels),
            "mutual": dml_loss(first, second) + dml_loss(second, first),
        }

    subset = data.labelled_subset(data.fashion_mnist().pool, 200, seed=2)
    history = fit(peers, data.batches(*subset, batch_size=64, seed=2), loss_fn, steps=9, lr=0.06)
    assert_same_peers(folder, peers)
    told = [results(folder, rank) for rank in (0, 1)]
    summed = [a + b for a, b in zip(*(peer["history"]["mutual"] for peer in told), strict=True)]
    assert summed == pytest.approx(history["mutual"], rel=1e-5)
    images = 200 + 200 + 64  # two epochs of 200 images and one batch more, in 9 steps
    assert [peer["bytes_sent"] for peer in told] == [4 * 10 * images] * 2
    assert [len(peer["step_seconds"]) for peer in told] == [9, 9]


def test_stale_weights_between_processes_train_as_one_process_does(folder):
    settings = ["--labels=100", "--width=4", "--steps=7", "--every=3", "--weight=2", "--seed=1"]
    torchrun("kdutils.mutual", "--out", str(folder), *settings)
    peers = nn.ModuleList(mutual.new_peer(1, rank, 4) for rank in (0, 1))
    copies = [mutual.new_peer(1, rank, 4) for rank in (0, 1)]
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
    parts = [mutual.own_images(pool, 100, 1, rank, 2) for rank in (0, 1)]
    fit(peers, data.batches(*parts[0], *parts[1], batch_size=64, seed=1), loss_fn, steps=7, lr=0.06)
    assert_same_peers(folder, peers)
    weights = sum(tensor.nbytes for tensor in peers[0].state_dict().values())
    assert [results(folder, rank)["bytes_sent"] for rank in (0, 1)] == [2 * weights] * 2  # steps 3 and 6


def test_three_peers_learn_from_the_mean_of_two(folder):
    printed = torchrun(
        "kdutils.mutual", "--out", str(folder), "--labels=100", "--width=4", "--steps=2", processes=3
    )
    assert all(f"peer {rank} of 3: test accuracy" in printed for rank in range(3))
    assert [results(folder, rank)["bytes_sent"] for rank in range(3)] == [2 * 4 * 10 * 100] * 3


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
    torchrun(DDP, str(folder / "weights.pt"))
    expected = ddp_fit.trained(ddp_fit.network(), rank=0, size=1)
    torch.testing.assert_close(torch.load(folder / "weights.pt"), expected, rtol=0, atol=1e-9)
    start = torch.cat([p.detach().flatten() for p in ddp_fit.network().parameters()])
    assert (expected - start).abs().max() > 0.01


def test_batch_norm_normalises_over_each_processes_own_batch(folder):
    """Why the test above has none: half a batch has another mean."""
    torchrun(DDP, str(folder / "weights.pt"), "batchnorm")
    expected = ddp_fit.trained(ddp_fit.network(with_batch_norm=True), rank=0, size=1)
    assert (torch.load(folder / "weights.pt") - expected).abs().max() > 1e-4


# What goes wrong


def test_a_peers_own_error_is_told(folder):
    with pytest.raises(
        PeersFailed, match=r"kdutils\.mutual in 2 processes failed[\s\S]*size: expected a multip"
    ):
        torchrun("kdutils.mutual", "--out", str(folder), "--labels=105")


def test_a_peer_alone_is_told_so(folder):
    with pytest.raises(PeersFailed, match="others: expected the logits of at least one other peer, got none"):
        torchrun("kdutils.mutual", "--out", str(folder), "--labels=100", processes=1)


def test_a_killed_peer_ends_the_others_and_is_told(folder):
    def kill_the_second():
        os.kill(exchanging_peers(folder)[1], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_second, daemon=True)
    killer.start()
    with pytest.raises(PeersFailed, match=r"exitcode\s*: -9|SIGKILL"):
        torchrun(ENDLESS, str(folder))
    killer.join()


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


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_peer_on_another_machine_that_is_gone_or_frozen_is_noticed(folder, blow):
    survivor, lost = peers_without_torchrun(folder, timeout=5)
    try:
        exchanging_peers(folder)
        lost.send_signal(blow)
        _, printed = survivor.communicate(timeout=60)
    finally:
        for process in (survivor, lost):
            process.kill()
            process.wait()
    assert survivor.returncode == 1
    assert "PeerLost: peer 0 of 2: an exchange failed after" in printed
    assert "Another peer has ended or does not answer" in printed


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda blow: blow.name)
def test_no_process_outlives_the_one_that_called_torchrun(folder, blow):
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, ENDLESS, str(folder)], stderr=subprocess.PIPE, text=True
    )
    try:
        exchanging_peers(folder)
        assert len(processes_of(folder)) == 4  # the caller, torchrun, two peers
        caller.send_signal(blow)
        _, printed = caller.communicate(timeout=60)
    finally:
        caller.kill()
        caller.wait()
    assert caller.returncode != 0
    assert blow != signal.SIGINT or "KeyboardInterrupt" in printed
    wait_until(lambda: not processes_of(folder), seconds=20)


def test_no_peer_outlives_torchrun_itself(folder):
    def kill_torchrun():
        os.kill(psutil.Process(exchanging_peers(folder)[0]).ppid(), signal.SIGKILL)

    killer = threading.Thread(target=kill_torchrun, daemon=True)
    killer.start()
    with pytest.raises(PeersFailed, match="this peer ends: the process that started it is gone"):
        torchrun(ENDLESS, str(folder))
    killer.join()
    wait_until(lambda: not processes_of(folder), seconds=20)


# Bad input


def test_bad_settings_are_named(monkeypatch):
    with pytest.raises(ValueError, match="processes: expected a whole number >= 1, got 0"):
        torchrun("kdutils.mutual", processes=0)
    with pytest.raises(ValueError, match="timeout: expected a number > 0, got 0"), cohort(timeout=0):
        pass
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match="start it with `torchrun"), cohort():
        pass


def test_weights_cannot_be_exchanged_more_than_once_a_step():
    with pytest.raises(ValueError, match="every: expected a whole number >= 1, got 0"):
        mutual.weights_exchanged(None, [], every=0)


def test_a_copy_for_every_peer_is_asked_for(monkeypatch):
    monkeypatch.setattr(parallel.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 2)
    peers = parallel.Cohort(torch.device("cpu"), timeout=1.0)
    with pytest.raises(ValueError, match="copies: expected one network for each of 2 peers, got 1"):
        peers.copy_weights(nn.Linear(2, 2), [nn.Linear(2, 2)])
