"""What the library computes on small fixed inputs: numbers to which a notebook's runs under faults belong.

They stand for the library's text. A loss that is written anew and gives the same numbers voids no run; one
that gives others voids the runs of the notebooks that use it. A notebook uses what its code names.

Numbers are the same within one in a thousand. They are float64 where the library leaves the choice, or come
from whole numbers, so that processors differ by far less.
"""

import contextlib
import functools
import inspect
import io
import math
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import faults
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils import compare, compress, evaluate, train
from kdutils.batches import balanced_index, batches
from kdutils.course import data, models, mutual, pruning, text

TOLERANCE = 1e-3

Numbers = dict[str, list[float]]  # call → what came out

# The end of a parameter's name → its shapes, of which the first that the loss takes is used.
SHAPES = {
    "logits": [(6, 5), (6, 4, 5), (6, 5)],
    "features": [(6, 3, 4, 4)] * 3,
    "embeddings": [(6, 7)] * 3,
    "hidden": [(6, 4, 7), (6, 7), (6, 4, 7)],
    "scores": [(6, 2, 4, 4)] * 3,
    "values": [(6, 2, 4, 3), (6,), (6, 2)],
    "outputs": [(6,), (6, 2), (6, 5)],
    "input": [(6, 3, 4, 4)] * 3,
    "targets": [(6,), (6, 2), (6, 5)],
    "log_probs": [(6, 2), (6, 2), (6, 2)],
}
LABELS = [(6,), (6, 4), (6, 5)]  # the last for one yes or no per class
IDS = [(6,), (6, 4), (6, 2)]  # the last for several a position
CHANNELS = 3


def computed(names: Iterable[str]) -> Numbers:
    """What the named parts of the library compute; names that are none of them are passed over."""
    numbers: Numbers = {}
    in_losses = faults.public_in_losses()
    for name in sorted(set(names) & (probes().keys() | in_losses.keys())):
        numbers |= of_loss(name) if name in in_losses else {name: of_probe(name)}
    return numbers


def moved(before: Numbers, now: Numbers) -> list[str]:
    """The calls that give something else now."""
    return [call for call, numbers in before.items() if not same(numbers, now.get(call))]


def same(numbers: list[float], others: list[float] | None) -> bool:
    """Whether all agree within the tolerance; what is left of a sum that cancels counts as zero."""
    if others is None or len(numbers) != len(others):
        return False
    zero = 1e-5 * max(map(abs, [*numbers, *others]), default=0.0)
    return all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=zero) for a, b in zip(numbers, others, strict=True)
    )


# Losses, and what else stands in their modules


@functools.cache
def of_loss(name: str) -> Numbers:
    """Value and gradient with the defaults, then with each setting changed."""
    loss = faults.public_in_losses()[name]
    if inspect.isclass(loss):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loss = loss(CHANNELS, CHANNELS).double()
    parameters = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters
    given = first_that_fits(name, loss, parameters)
    numbers = {name: value_and_gradient(loss, given)}
    for setting, parameter in parameters.items():
        for other in others(setting, parameter, given):
            with contextlib.suppress(ValueError):  # this input does not take the setting
                numbers[f"{name}({setting})"] = value_and_gradient(loss, given | {setting: other})
    return numbers


def first_that_fits(name: str, loss: Any, parameters: Any) -> dict[str, Any]:
    """Arguments for all parameters without a default; the shapes are those that the loss takes first."""
    required = [p for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    refusals = []
    for attempt in range(3):
        given = {parameter.name: argument(parameter.name, attempt) for parameter in required}
        try:
            value_and_gradient(loss, given)
        except (ValueError, RuntimeError, IndexError, TypeError) as refusal:
            refusals.append(str(refusal))
        else:
            return given
    raise LookupError(f"computes.SHAPES holds no input that {name} takes: {refusals}")


def argument(name: str, attempt: int) -> Any:
    """A small fixed tensor for a parameter of this name, or several, or a number."""
    if name in ("list_of_logits", "peer_logits_list") or name.endswith("pair"):
        kind = "logits" if "logits" in name else "features"
        return tuple(argument(f"{number} of {name} {kind}", attempt) for number in ("first", "second"))
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("labels"):
        shape = LABELS[attempt]
        labels = torch.randint(5 if attempt < 2 else 2, shape, generator=generator)
        return labels if attempt < 2 else labels.double()
    if name.endswith(("ids", "tokens")):
        return torch.arange(math.prod(IDS[attempt])).view(IDS[attempt]) % 5
    if name == "mask":
        return torch.arange(math.prod(IDS[attempt])).view(IDS[attempt]) % 3 != 0
    kind = next((kind for kind in SHAPES if name.endswith(kind)), None)
    if kind is None:
        return 0.5
    if kind == "log_probs":
        shape = SHAPES[kind][attempt]
        return torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(dim=-1) - 0.5
    return 2 * torch.randn(SHAPES[kind][attempt], generator=generator, dtype=torch.float64)


def others(setting: str, parameter: inspect.Parameter, given: dict[str, Any]) -> list[Any]:
    """Another value for a setting: three quarters of a number, a mask or labels for None."""
    first = next(iter(given.values()))
    first = first[0] if isinstance(first, tuple) else first
    if isinstance(parameter.default, float):
        return [0.75 * parameter.default if parameter.default else 0.25]
    if parameter.default is None and setting.endswith("mask"):
        shape = first.shape[:1] if first.dim() == 2 else (len(first), first.shape[-2])
        return [torch.arange(math.prod(shape)).view(shape) % 3 != 0]
    if parameter.default is None and setting.endswith("labels"):
        return [argument(setting, 0)]
    return []


def value_and_gradient(loss: Any, given: dict[str, Any]) -> list[float]:
    """The value, and of every gradient its length and its share along a fixed direction."""
    leaves: list[Tensor] = list(loss.parameters()) if isinstance(loss, nn.Module) else []

    def leaf(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(leaf, value))
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        leaves.append(value.clone().requires_grad_())
        return leaves[-1]

    first, *rest = given
    value = loss(**{first: leaf(given[first])}, **{name: given[name] for name in rest})
    if isinstance(value, dict):
        value = torch.stack(list(value.values()))
    elif isinstance(value, tuple):
        value = value[0]
    gradients = torch.autograd.grad(along(value), leaves, allow_unused=True)
    return [along(value).item()] + [
        number for g in gradients if g is not None for number in (g.norm().item(), along(g).item())
    ]


def along(tensor: Tensor) -> Tensor:
    """The sum of all entries, each with a weight of its own; a single number itself."""
    weights = torch.linspace(1, 2, tensor.numel(), dtype=tensor.dtype)
    return (tensor.flatten() * weights).sum()


# The loop, the data and what else a claim may rest on


@functools.cache
def of_probe(name: str) -> list[float]:
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(0)
        return [float(number) for number in probes()[name]()]


def probes() -> dict[str, Callable[[], Iterable[float]]]:
    """Name → numbers that it computes, for what notebooks take from the library beside losses."""
    return {
        "fit": ten_steps,
        "predict": lambda: [along(train.predict(linear(), samples()))],
        "batches": lambda: digits(*three_epochs()),
        "balanced_index": lambda: digits(balanced_index(torch.arange(40) % 4, 20, seed=1)),
        "fashion_mnist": lambda: digits(*(tensor for split in images() for tensor in split)),
        "labeled_subset": lambda: digits(*data.labeled_subset(images().validation, 50, seed=1)),
        "own_images": lambda: digits(*mutual.own_images(images().validation, 50, seed=1, rank=1, peers=2)),
        "movie_reviews": lambda: digits(repr(text.movie_reviews())),
        "normalize_fashion_mnist": lambda: [along(few_images())],
        "load_teacher": lambda: answers(models.load_teacher()),
        "small_cnn": lambda: answers(models.small_cnn(seed=1)),
        "teacher_cnn": lambda: answers(models.teacher_cnn(seed=1)),
        "deep_thin_cnn": lambda: answers(models.deep_thin_cnn(seed=1)),
        "ConvNet": lambda: answers(models.ConvNet((4, 8), (1, 2), seed=1)),
        "BlockNet": lambda: answers(models.BlockNet(models.separable_block, (4, 8), (1, 2), seed=1)),
        "new_peer": lambda: answers(mutual.new_peer(seed=1, rank=1)),
        "paired_gain": lambda: gain(compare.paired_gain([1.0, 2.0, 4.0])),
        "compare": lambda: gain(compare.compare({"a": float, "b": math.exp}, range(4)).gain("a", "b")),
        "accuracy": lambda: [evaluate.accuracy(logits(), labels())],
        "agreement": lambda: [evaluate.agreement(logits(), logits().roll(1, 0))],
        "expected_calibration_error": lambda: [evaluate.expected_calibration_error(logits(), labels())],
        "linear_cka": lambda: [evaluate.linear_cka(samples(), logits())],
        "fake_quantize": lambda: answers(compress.fake_quantize(models.small_cnn(seed=1), 3, few_images())),
        "fold_batch_norm": lambda: answers(compress.fold_batch_norm(models.load_teacher())),
        "magnitude_masks": lambda: digits(*compress.magnitude_masks(models.load_teacher(), 0.5).values()),
        "channels_to_keep": lambda: digits(*half_the_channels().values()),
        "remove_channels": lambda: answers(
            pruning.remove_channels(models.load_teacher(), half_the_channels())
        ),
    }


def digits(*parts: Tensor | str) -> list[float]:
    """A checksum of whole numbers or text, in pieces so small that the tolerance hides none."""
    checksum = 0
    for part in parts:
        content = part.encode() if isinstance(part, str) else part.contiguous().numpy().tobytes()
        checksum = zlib.crc32(content, checksum)
    return [(checksum // 500**place) % 500 for place in range(4)]


def samples() -> Tensor:
    return argument("embeddings", 0)


def logits() -> Tensor:
    return argument("logits", 0)


def labels() -> Tensor:
    return argument("labels", 0)


def linear() -> nn.Module:
    layer = nn.Linear(7, 5).double()
    with torch.no_grad():
        layer.weight.copy_(argument("weights of five embeddings", 0)[:5])
        layer.bias.zero_()
    return layer


def ten_steps() -> list[float]:
    """The curve of a layer that learns ten steps from labels, three samples at a time, and where it ends."""
    layer, loader = linear(), batches(samples(), labels(), batch_size=3, seed=0)
    history = train.fit(layer, loader, lambda m, x, y: F.cross_entropy(m(x), y), steps=10, lr=0.1)
    return [*history["loss"], along(layer.weight.detach())]


def three_epochs() -> list[Tensor]:
    """How ten samples are shuffled and cut."""
    loader, found = batches(torch.arange(10), batch_size=4, seed=3), []
    for epoch in range(3):
        loader.set_epoch(epoch)
        found += [batch for (batch,) in loader]
    return found


@functools.cache
def images() -> data.FashionMNIST:
    return data.fashion_mnist()


def few_images() -> Tensor:
    return data.normalize_fashion_mnist(images().validation.images[:8])


def half_the_channels() -> dict[str, Tensor]:
    return pruning.channels_to_keep(models.load_teacher(), 0.5)


def answers(network: nn.Module) -> list[float]:
    with torch.no_grad():
        return [along(answer) for answer in network.eval()(few_images())]


def gain(gain: compare.Gain) -> list[float]:
    return [gain.mean, gain.low, gain.high]
