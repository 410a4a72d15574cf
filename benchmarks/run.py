"""Measures what the helpers cost, as ratios of interleaved runs, and the memory of a kernel.

    make bench                                            # some minutes; writes benchmarks/results.md
    .venv/bin/python benchmarks/run.py steps others       # only these tables, printed

Times are CPU times of one thread, so that other programs disturb them little. A ratio is the median over all
rounds, beside it the quartiles; in every round the sides run one after the other, now one first, now the
other. What belongs to others is measured where it is installed: pip install -e ".[peers]".
"""

import contextlib
import gc
import io
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from other_loops import LOOPS, Tick, weighted
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from kdutils.batches import Batches, batches
from kdutils.course.data import fashion_mnist, labeled_subset, normalize_fashion_mnist
from kdutils.course.models import ConvNet, load_teacher, small_cnn
from kdutils.losses import kd_loss
from kdutils.train import fit, predict

ROUNDS, OTHERS_ROUNDS, STEPS, LR, BATCH_SIZE = 30, 12, 40, 0.06, 64


def labels_only(student: ConvNet, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(student(images), labels)


def distilled(student: ConvNet, images: Tensor, labels: Tensor, teacher_logits: Tensor) -> Tensor:
    logits = student(images)
    return 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd_loss(logits, teacher_logits, temperature=4.0)


def loop_by_hand(student: ConvNet, loader: Batches) -> list[float]:
    """The loop of `fit` as one writes it in PyTorch, with the same optimizer, schedule and history."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LR, total_steps=STEPS + 1, pct_start=0.25
    )
    losses: list[float] = []
    epoch = 0
    student.train()
    while True:
        loader.set_epoch(epoch)
        for images, labels in loader:
            loss = F.cross_entropy(student(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if len(losses) == STEPS:
                student.eval()
                return losses
        epoch += 1


def cpu_ms(run: Callable[[], object]) -> float:
    """CPU time of this process for one run, in ms."""
    gc.collect()
    gc.disable()  # a collection in the middle would be charged to whoever happens to run
    start = time.process_time()
    run()
    elapsed = time.process_time() - start
    gc.enable()
    return 1e3 * elapsed


def interleaved(runs: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """CPU times of every run in ms, round by round; the first round warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name in list(runs) if i % 2 else reversed(runs):
            elapsed = cpu_ms(runs[name])
            if i > 0:
                times[name].append(elapsed)
    return times


def ratio(times: list[float], reference: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the ratios of paired times."""
    low, median, high = statistics.quantiles(
        [time / other for time, other in zip(times, reference, strict=True)], n=4
    )
    return median, low, high


def step_times() -> dict[str, list[float]]:
    """CPU times of STEPS training steps of the smallest student."""
    images, labels = labeled_subset(fashion_mnist().pool, 2_000, seed=0)
    teacher = load_teacher()
    teacher_logits = predict(teacher, images, transform=normalize_fashion_mnist)

    def plain_batches() -> Batches:
        return batches(images, labels, batch_size=BATCH_SIZE, seed=0, transform=normalize_fashion_mnist)

    def cached_batches() -> Batches:
        return batches(
            images, labels, teacher_logits, batch_size=BATCH_SIZE, seed=0, transform=normalize_fashion_mnist
        )

    return interleaved(
        {
            "by hand": lambda: loop_by_hand(small_cnn(), plain_batches()),
            "fit": lambda: fit(small_cnn(), plain_batches(), labels_only, steps=STEPS, lr=LR),
            "cached": lambda: fit(small_cnn(), cached_batches(), distilled, steps=STEPS, lr=LR),
            "live": lambda: fit(small_cnn(), plain_batches(), distilled, steps=STEPS, lr=LR, teacher=teacher),
        }
    )


def epoch_times() -> dict[str, list[float]]:
    """CPU times of going once through 2,000 shuffled images."""
    images, labels = labeled_subset(fashion_mnist().pool, 2_000, seed=0)
    in_memory = batches(images, labels, batch_size=BATCH_SIZE, seed=0, transform=normalize_fashion_mnist)
    loader = DataLoader(
        TensorDataset(normalize_fashion_mnist(images), labels), batch_size=BATCH_SIZE, shuffle=True
    )

    def go_through(batches: Batches | DataLoader) -> None:
        for _ in batches:
            pass

    return interleaved({"batches": lambda: go_through(in_memory), "loader": lambda: go_through(loader)})


def other_loops_ms(cached: bool) -> dict[str, list[float]]:
    """CPU time of a distillation step in ms, round by round, of `fit` and in other people's loops.

    Set-up is left out: a step lasts from one loss to the next. What is not installed has no times.
    """
    images, labels = labeled_subset(fashion_mnist().pool, 2_000, seed=0)
    images, teacher = normalize_fashion_mnist(images), load_teacher()
    data = TensorDataset(images, labels, *([predict(teacher, images)] if cached else []))

    def ours(
        student: ConvNet, teacher: ConvNet, data: TensorDataset, size: int, steps: int, tick: Tick
    ) -> None:
        def loss_fn(student: ConvNet, images: Tensor, labels: Tensor, teacher_logits: Tensor) -> Tensor:
            logits = student(images)
            tick()
            return weighted(logits, teacher_logits, labels)

        loader, live = DataLoader(data, size, shuffle=True), None if cached else teacher
        fit(student, loader, loss_fn, steps=steps, lr=LR, teacher=live)

    def step_ms(loop: Callable[..., None]) -> float:
        clock: list[float] = []
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            gc.collect()
            loop(small_cnn(), teacher, data, BATCH_SIZE, STEPS, lambda: clock.append(time.process_time()))
        assert len(clock) == STEPS
        return 1e3 * (clock[-1] - clock[0]) / (STEPS - 1)

    logging.disable(logging.WARNING)
    loops = {"fit": ours, **LOOPS}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for i in range(OTHERS_ROUNDS + 1):
        for name in list(loops) if i % 2 else reversed(loops):
            with contextlib.suppress(ImportError):
                elapsed = step_ms(loops[name])
                if i > 0:
                    times[name].append(elapsed)
    logging.disable(logging.NOTSET)
    return times


KERNEL_STAGES = {
    "a kernel": "",
    "import torch": "import torch",
    "import kdutils": "import kdutils",
    "matplotlib, sliders, tables": "import kdutils.course.plot, kdutils.course.widgets, pandas",
    "all images": "from kdutils.course.data import fashion_mnist\nparts = fashion_mnist()",
    "the teacher": "from kdutils.course.models import load_teacher\nteacher = load_teacher()",
    "its logits for 20,000 images": (
        "from kdutils.train import predict\nfrom kdutils.course.data import normalize_fashion_mnist\n"
        "torch.set_num_threads(1)\n"
        "teacher_logits = predict(teacher, parts.pool.images, transform=normalize_fashion_mnist)"
    ),
}


def kernel_memory_mb() -> dict[str, float]:
    """Resident memory of a Jupyter kernel after each stage, in MB (10⁶ bytes)."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(stderr=subprocess.DEVNULL)
    memory = {}
    try:
        for stage, source in KERNEL_STAGES.items():
            printed: list[str] = []

            def keep(message: dict, printed: list[str] = printed) -> None:
                if message["msg_type"] == "stream":
                    printed.append(message["content"]["text"])

            reply = client.execute_interactive(
                f"{source}\nimport psutil\nprint(psutil.Process().memory_info().rss)", output_hook=keep
            )
            assert reply["content"]["status"] == "ok", reply["content"]
            memory[stage] = int(printed[-1]) / 1e6
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    return memory


def processor() -> str:
    """The processor's name where the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(head: str, rows: list[tuple[str, list[float], list[float], str]]) -> list[str]:
    lines = [f"| {head} | ratio | quartiles | budget |", "|---|---|---|---|"]
    for name, times, reference, budget in rows:
        median, low, high = ratio(times, reference)
        lines.append(f"| {name} | {median:.2f} | {low:.2f} … {high:.2f} | {budget} |")
    return lines


def steps_table() -> list[str]:
    times = step_times()
    rows = [
        ("`fit` / the same loop written by hand", times["fit"], times["by hand"], "≤ 1.03"),
        ("distillation step, cached teacher / plain step", times["cached"], times["fit"], "≤ 1.06"),
        ("distillation step, teacher run in every step / plain step", times["live"], times["fit"], ""),
    ]
    plain_step = statistics.median(times["fit"]) / STEPS
    return [
        *table("a step of training", rows),
        "",
        f"A plain step takes {plain_step:.1f} ms (`small_cnn`, batch {BATCH_SIZE}). "
        f"{ROUNDS} rounds of {STEPS} steps.",
    ]


def epochs_table() -> list[str]:
    times = epoch_times()
    rows = [("`DataLoader(TensorDataset)` / `batches`", times["loader"], times["batches"], "")]
    return table("going through 2,000 images", rows)


def others_table() -> list[str]:
    live, cached = other_loops_ms(cached=False), other_loops_ms(cached=True)
    ours = live.pop("fit"), cached.pop("fit")
    head = "| a distillation step in their loop / in `fit` | teacher in every step | answers cached |"
    lines = [head, "|---|---|---|"]
    missing = [name for name, times in live.items() if not times]
    for name in live:
        if name not in missing:
            ratios = [ratio(theirs[name], fits) for theirs, fits in zip((live, cached), ours, strict=True)]
            cells = [f"{median:.2f} ({low:.2f} … {high:.2f})" for median, low, high in ratios]
            lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    steps = [f"{statistics.median(times):.1f} ms" for times in ours]
    lines += [
        "",
        f"In `fit` it takes {steps[0]} and {steps[1]}; all read from a `DataLoader`. Medians and quartiles "
        f"of {OTHERS_ROUNDS} rounds of {STEPS} steps.",
    ]
    if missing:
        lines.append(f'Not installed, and not measured: {", ".join(missing)} (pip install -e ".[peers]").')
    return lines


def memory_table() -> list[str]:
    lines = ["| memory of a kernel after … | MB |", "|---|---|"]
    return lines + [f"| {stage} | {mb:.0f} |" for stage, mb in kernel_memory_mb().items()]


TABLES = {"steps": steps_table, "epochs": epochs_table, "others": others_table, "memory": memory_table}


def report(names: list[str]) -> str:
    lines = [line for name in names for line in [*TABLES[name](), ""]]
    lines.append(
        f"CPU times of one thread, rounds interleaved; PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs ({processor()})."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = sys.argv[1:]
    print(f"Measuring {', '.join(chosen or TABLES)}: some minutes.", flush=True)
    tables = report(chosen or list(TABLES))
    if not chosen:
        (Path(__file__).parent / "results.md").write_text(
            "# Speed and memory\n\nMade by `make bench`.\n\n" + tables
        )
    print(tables)
