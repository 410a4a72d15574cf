"""Runs a notebook with a fault injected into kdutils, and tells which of its claims still hold.

    python tests/harness/faults.py notebooks/01_response_knowledge.ipynb "kd_loss zeroed"     # prints JSON

A claim of a gain that holds although the loss is zeroed, or the teacher's classes are permuted, was no claim.
Sound conditions (other arithmetic, other seeds, no network) are injected in the same way: there all hold.
"""

import contextlib
import functools
import importlib
import inspect
import io
import json
import os
import pkgutil
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import kdutils

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def tensors_in(arguments: Iterable[Any]) -> list[Tensor]:
    """All floating-point tensors among the arguments, also inside tuples and lists."""
    found: list[Tensor] = []
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.is_floating_point():
            found.append(argument)
        elif isinstance(argument, (tuple, list)):
            found += tensors_in(argument)
    return found


SHIFTED = "--shifted"  # the first argument of a process that a notebook starts under shifted seeds

# Whether the notebook came across the fault: a fault that is never reached proves nothing about its claims.
reached = False
# What a sealed notebook tried; each of these raised an error, which the program may have swallowed.
attempts: list[str] = []


def note_reached() -> None:
    global reached
    reached = True


def zero_loss(*arguments: Any, **settings: Any) -> Tensor:
    """Zero, with zero gradients for every tensor that asks for one."""
    note_reached()
    return torch.stack([tensor.sum() * 0 for tensor in tensors_in([*arguments, *settings.values()])]).sum()


# These judge, and keep the true losses: a yardstick that is bent as well measures nothing.
YARDSTICKS = ("kdutils.audit", "kdutils.course.exercises")


@functools.cache
def load_library() -> None:
    """Imports all of kdutils, so that everything which takes a function by its name holds it already."""
    for module in pkgutil.walk_packages(kdutils.__path__, "kdutils."):
        with contextlib.suppress(ImportError):  # what needs a package that is not installed
            importlib.import_module(module.name)


def public_in_losses() -> dict[str, Any]:
    """Name → function or class, for all that the modules below kdutils.losses define for others."""
    load_library()
    return {
        name: value
        for module_name, module in sorted(sys.modules.items())
        if module_name.startswith("kdutils.losses.")
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("kdutils.losses.")
    }


def every_loss() -> dict[str, Any]:
    """Name → loss: the functions `…_loss` and the modules `…Loss`."""
    return {name: loss for name, loss in public_in_losses().items() if name.endswith(("_loss", "Loss"))}


def replace_function(true: Any, faulty: Any) -> None:
    """Puts a function in another's place wherever kdutils holds that one, save in the yardsticks."""
    load_library()
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] == "kdutils" and not module_name.startswith(YARDSTICKS):
            for name in [name for name, value in vars(module).items() if value is true]:
                setattr(module, name, faulty)


def zero(loss: Any) -> None:
    """Zeroes a loss, which is a function or a class of modules."""
    if inspect.isclass(loss):
        loss.forward = lambda self, *arguments, **settings: zero_loss(
            *self.parameters(), *arguments, **settings
        )
    else:
        replace_function(loss, zero_loss)


def zero_every_loss() -> None:
    for loss in every_loss().values():
        zero(loss)


def scale_kd_loss(factor: Callable[[dict[str, Any]], float]) -> Callable[[], None]:
    """A fault that multiplies `kd_loss` by a factor of the arguments of its call."""

    def inject() -> None:
        kd_loss = every_loss()["kd_loss"]
        signature = inspect.signature(kd_loss)

        @functools.wraps(kd_loss)
        def faulty_loss(*args: Any, **settings: Any) -> Tensor:
            note_reached()
            call = signature.bind(*args, **settings)
            call.apply_defaults()
            return kd_loss(*args, **settings) * factor(call.arguments)

        replace_function(kd_loss, faulty_loss)

    return inject


def number_of_classes(call: dict[str, Any]) -> int:
    class_dim = -1 if call["class_dim"] is None else call["class_dim"]
    return call["student_logits"].shape[class_dim]


def change_teacher(change: Callable[[torch.nn.Module], None]) -> Callable[[], None]:
    """A fault that alters the trained teacher whenever it is loaded."""

    def inject() -> None:
        from kdutils.course import models

        load_teacher = models.load_teacher

        def faulty_teacher() -> models.ConvNet:
            note_reached()
            teacher = load_teacher()
            with torch.no_grad():
                change(teacher)
            return teacher

        replace_function(load_teacher, faulty_teacher)

    return inject


def permute_classes(teacher: torch.nn.Module) -> None:
    """Every class gets another class's logit."""
    for parameter in teacher.classifier.parameters():
        parameter.copy_(parameter.roll(3, dims=0))


def permute_every_teacher() -> None:
    """The image teacher names other classes, and the speller other phonemes; it ends its answers as before.

    The speller shares its embeddings with its inputs, so its logits are permuted, not its parameters.
    """
    change_teacher(permute_classes)()
    from kdutils.course import pronunciation
    from kdutils.course.gpt import GPT

    first, end = pronunciation.IDS[pronunciation.PHONEMES[0]], pronunciation.END

    class SaysOtherPhonemes(GPT):
        def forward(self, *arguments: Any, **settings: Any) -> Tensor:
            logits = super().forward(*arguments, **settings)
            others = logits[..., first:end].roll(3, dims=-1)
            return torch.cat([logits[..., :first], others, logits[..., end:]], dim=-1)

    load_speller = pronunciation.load_speller

    def load_faulty_speller() -> GPT:
        note_reached()
        teacher = load_speller()
        teacher.__class__ = SaysOtherPhonemes
        return teacher

    replace_function(load_speller, load_faulty_speller)


def untrain(teacher: torch.nn.Module) -> None:
    from kdutils.course.models import teacher_cnn

    teacher.load_state_dict(teacher_cnn(seed=1).state_dict())


def untrain_every_teacher() -> None:
    """The image teacher, the speller, and the encoder from which chapter 12 trains its own know nothing."""
    change_teacher(untrain)()
    from kdutils.course import encoder, pronunciation

    load_encoder = encoder.load_encoder

    def load_untrained_encoder() -> torch.nn.Module:
        note_reached()
        trained = load_encoder()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return type(trained)(trained.config).eval()

    replace_function(load_encoder, load_untrained_encoder)

    def load_untrained_speller() -> torch.nn.Module:
        note_reached()
        return pronunciation.speller(seed=1).eval().requires_grad_(False)

    replace_function(pronunciation.load_speller, load_untrained_speller)


def leave_in_train_mode(teacher: torch.nn.Module) -> None:
    """Batch norm goes on to use the batch's statistics, whatever the notebook asks for."""

    class AlwaysTraining(type(teacher)):
        def train(self, mode: bool = True) -> torch.nn.Module:
            return super().train(True)

    teacher.__class__ = AlwaysTraining
    teacher.train()


def one_network_for_all() -> None:
    """The teacher is a student that learned from labels, and every student is as wide as every other."""
    from kdutils import batches, train
    from kdutils.course import data, models

    small_cnn = models.small_cnn
    images, labels = data.labeled_subset(data.fashion_mnist().pool, 500, seed=100)
    teacher = small_cnn(seed=100)

    def label_loss(model: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(model(images), labels)

    loader = batches.batches(images, labels, seed=100, transform=data.normalize_fashion_mnist)
    train.fit(teacher, loader, label_loss, steps=600, lr=0.06)

    def load_faulty_teacher() -> models.ConvNet:
        note_reached()
        return teacher

    replace_function(models.load_teacher, load_faulty_teacher)
    replace_function(small_cnn, lambda seed=0, width=8: small_cnn(seed))


def shift_seeds(offset: int) -> Callable[[], None]:
    """A condition that draws other subsets, initial weights and batches wherever a seed is named."""

    def inject() -> None:
        from kdutils import batches, peers
        from kdutils.course import gpt, models

        note_reached()
        for drawn in (kdutils.set_seed, batches.balanced_index):
            replace_function(drawn, with_shifted_seed(drawn, offset))
        for drawn in (batches.Batches, models.ConvNet, models.BlockNet, gpt.GPT):
            drawn.__init__ = with_shifted_seed(drawn.__init__, offset)
        shifted = functools.partial(torchrun_shifted, peers.torchrun, offset)
        replace_function(peers.torchrun, shifted)

    return inject


def torchrun_shifted(
    torchrun: Callable[..., str], offset: int, program: str, *rest: str, **kwargs: Any
) -> str:
    """`torchrun` whose processes draw from the shifted seeds, too: they run a module through this file."""
    through_this_file = [] if program.endswith(".py") else [__file__, SHIFTED, str(offset)]
    return torchrun(*through_this_file, program, *rest, **kwargs)


def run_shifted(offset: str, *command: str) -> None:
    """What one of these processes does: shifts the seeds, then runs the module with its arguments."""
    shift_seeds(int(offset))()
    sys.argv[:] = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def with_shifted_seed(function: Callable[..., Any], offset: int) -> Callable[..., Any]:
    """The function with the offset added to its argument `seed`, unless that is None."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def shifted(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        if call.arguments["seed"] is not None:
            call.arguments["seed"] += offset
        return function(*call.args, **call.kwargs)

    return shifted


def seal() -> None:
    """A condition under which nobody is asked for anything, and nothing is written but temporary files."""
    import sealed

    global attempts
    attempts = sealed.seal()


FAULTS: dict[str, Callable[[], None]] = {
    "losses zeroed": zero_every_loss,
    "kd_loss zeroed": lambda: zero(every_loss()["kd_loss"]),
    "classes permuted": permute_every_teacher,
    "teacher untrained": untrain_every_teacher,
    "teacher in train mode": change_teacher(leave_in_train_mode),
    "T² dropped": scale_kd_loss(lambda call: 1 / call["temperature"] ** 2),
    "mean over classes": scale_kd_loss(lambda call: 1 / number_of_classes(call)),
    "one network for all": one_network_for_all,
}
# Under these the teacher teaches nothing; under the others a student may still learn from it.
TAUGHT_NOTHING = [
    "losses zeroed",
    "kd_loss zeroed",
    "classes permuted",
    "teacher untrained",
    "one network for all",
]
# What these faults take the place of: a notebook that names none of it cannot come across the fault.
REPLACED = {
    "classes permuted": ["load_teacher", "load_speller"],
    "teacher untrained": ["load_teacher", "load_encoder", "load_speller"],
    "teacher in train mode": ["load_teacher"],
}
# A fault that was made for the claims of one notebook is run there alone.
MADE_FOR = {"one network for all": "00_why_distill"}
# Nothing is wrong under these: every claim must hold.
SOUND: dict[str, Callable[[], None]] = {
    "no network, no disk": seal,
    "two threads": lambda: torch.set_num_threads(2),
    "no vector instructions": lambda: None,  # see ENVIRONMENTS
    **{f"seeds from {offset}": shift_seeds(offset) for offset in (1000, 2000, 3000, 4000, 5000)},
}
ENVIRONMENTS = {
    "no vector instructions": {"ATEN_CPU_CAPABILITY": "default"},  # read when torch is imported
    # caches of compiled code and of fonts are no part of the notebook
    "no network, no disk": {"PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": tempfile.gettempdir()},
}


class Outcome(NamedTuple):
    """What a notebook's claims became under a fault."""

    claims: dict[str, bool]  # claim → whether it holds
    reached: bool  # whether the notebook came across the fault at all
    values: dict[str, float]  # claim → what was measured; none for a claim that is made more than once
    seconds: float  # of CPU, with those of the processes that the notebook starts


def can_reach(notebook: Path, fault: str) -> bool:
    """Whether the fault was made for this notebook, and it names something that the fault replaces."""
    if notebook.stem != MADE_FOR.get(fault, notebook.stem):
        return False
    return fault not in REPLACED or any(name in notebook.read_text() for name in REPLACED[fault])


def outcome_under(notebook: Path, fault: str) -> Outcome:
    """The outcome of a notebook that runs under a fault in its own process.

    A cell that raises counts as a claim that fails, named after the cell's number; the next cells still run.
    A notebook that cannot come across the fault is not run: no claims, and not reached.
    """
    if not can_reach(notebook, fault):
        return Outcome({}, reached=False, values={}, seconds=0.0)
    process = subprocess.run(
        [sys.executable, __file__, str(notebook), fault],
        capture_output=True,
        text=True,
        cwd=NOTEBOOKS,
        # One thread: two runs side by side are faster than one run on two cores.
        env={
            **os.environ,
            "MPLBACKEND": "agg",
            "TQDM_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
            **ENVIRONMENTS.get(fault, {}),
        },
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return Outcome(**json.loads(process.stdout.splitlines()[-1]))


def main(notebook: str, fault: str) -> None:
    from IPython.core.inputtransformer2 import TransformerManager
    from IPython.display import display

    from kdutils import claim as claims

    outcomes: dict[str, bool] = {}
    values: dict[str, float] = {}
    true_check = claims.check

    def recording_check(claim: str, value: float, **bounds: Any) -> None:
        if claim in outcomes:
            values.pop(claim, None)
        else:
            values[claim] = float(value)
        try:
            true_check(claim, value, **bounds)
            outcomes[claim] = outcomes.get(claim, True)
        except claims.ClaimFailed as failure:
            outcomes[claim] = False
            print(failure, file=sys.stderr)

    replace_function(true_check, recording_check)
    (FAULTS | SOUND)[fault]()
    cells = [c for c in json.loads(Path(notebook).read_text())["cells"] if c["cell_type"] == "code"]
    namespace: dict[str, Any] = {"__name__": "__main__", "display": display}
    for number, cell in enumerate(cells, 1):
        source = TransformerManager().transform_cell("".join(cell["source"]))
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(source, f"cell {number}", "exec"), namespace)
        except Exception as error:
            outcomes[f"cell {number} runs"] = False
            print(f"cell {number}: {type(error).__name__}: {error}", file=sys.stderr)
        import matplotlib.pyplot as plt

        plt.close("all")
    outcomes |= {f"does without what was refused: {attempt}": False for attempt in attempts}
    seconds = sum(os.times()[:4])  # own and children's, in user and in system mode
    print(json.dumps({"claims": outcomes, "reached": reached, "values": values, "seconds": seconds}))


if __name__ == "__main__":
    if sys.argv[1] == SHIFTED:
        run_shifted(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
