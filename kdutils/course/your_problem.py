"""Small problems made on the spot: scenes of pasted clothes with five kinds of label, and tagged orders."""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.utils.data import Dataset

import kdutils
from kdutils.batches import batches
from kdutils.course import drawings, plot
from kdutils.course.data import Split
from kdutils.train import fit

SIZE, CELLS = 48, 4  # pixels of a scene's side, and cells of the detector's grid
IGNORED = 255  # in a mask: the rim of a garment, of which nobody is sure
# Fashion-MNIST's number of a class, its name in a scene, what it costs.
GARMENTS = ((0, "T-shirt", 1.0), (1, "trousers", 2.0), (3, "dress", 3.0), (8, "bag", 4.0), (9, "boot", 5.0))
NAMES = tuple(name for _, name, _ in GARMENTS)


class Scenes(NamedTuple):
    """Scenes of one to three garments, and what can be asked about them. C is 5, the number of garments.

    Attributes:
        images: (N, 1, 48, 48), float32, with mean about 0.
        masks: (N, 24, 24), int64: 0 for the background, 1 + the garment's number, 255 where nobody is sure.
        tags: (N, C), float32: 1 for every garment that is there.
        prices: (N, 1), float32: what all garments cost together.
        cells: (N, 4, 4), int64: which garment has its center in a cell, 1 + its number; 0 for none.
        boxes: (N, 3, 4, 4), float32: where in its cell, from 0 to 1 across and down, the center lies, and
            the garment's side as a share of the scene's; 0 in cells without one.
    """

    images: Tensor
    masks: Tensor
    tags: Tensor
    prices: Tensor
    cells: Tensor
    boxes: Tensor


def scenes(split: Split, count: int, seed: int) -> Scenes:
    """So many scenes, of garments drawn from the images (N, 1, 28, 28) of a split of Fashion-MNIST.

    A garment has a side of 16 to 24 pixels, and stands in a quarter of the scene of its own. What lies behind
    is noise.
    """
    draw = torch.Generator().manual_seed(seed)

    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    where = [(split.labels == label).nonzero()[:, 0] for label, _, _ in GARMENTS]
    images = 0.25 * torch.rand(count, 1, SIZE, SIZE, generator=draw)
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    tags, prices = torch.zeros(count, len(GARMENTS)), torch.zeros(count, 1)
    cells = torch.zeros(count, CELLS, CELLS, dtype=torch.long)
    boxes = torch.zeros(count, 3, CELLS, CELLS)
    for scene in range(count):
        for quarter in torch.randperm(4, generator=draw)[: drawn(1, 3)].tolist():
            garment, side = drawn(0, len(GARMENTS) - 1), drawn(16, 24)
            original = split.images[where[garment][drawn(0, len(where[garment]) - 1)]] / 255
            small = F.interpolate(original.unsqueeze(0), size=(side, side), mode="bilinear")[0, 0]
            y, x = 12 + 24 * (quarter // 2) + drawn(-4, 4), 12 + 24 * (quarter % 2) + drawn(-4, 4)
            top, left = min(max(y - side // 2, 0), SIZE - side), min(max(x - side // 2, 0), SIZE - side)
            place = (scene, slice(top, top + side), slice(left, left + side))
            images[:, 0][place] = torch.maximum(images[:, 0][place], small)
            masks[place] = torch.where(small > 0.05, IGNORED, masks[place])
            masks[place] = torch.where(small > 0.25, garment + 1, masks[place])
            tags[scene, garment] = 1
            prices[scene] += GARMENTS[garment][2]
            across, down = (left + side / 2) * CELLS / SIZE, (top + side / 2) * CELLS / SIZE
            cells[scene, int(down), int(across)] = garment + 1
            boxes[scene, :, int(down), int(across)] = torch.tensor([across % 1, down % 1, side / SIZE])
    return Scenes((images - 0.25) / 0.3, masks[:, ::2, ::2], tags, prices, cells, boxes)


TAGS = ("nothing", "number", "color", "thing", "person", "day")
_NUMBERS = ("two", "three", "four", "five", "ten", "twelve")
_COLORS = ("red", "blue", "green", "rose", "olive", "amber")
_THINGS = ("shirts", "bags", "boots", "coats", "dresses", "belts")
_PEOPLE = ("anna", "ben", "carol", "rose", "olive", "amber", "april", "may", "june")
_DAYS = ("monday", "friday", "april", "may", "june", "two", "ten")
_FORMS = (
    "please send <number> <color> <thing> to <person> by <day>",
    "<person> wants <number> <thing> in <color> before <day>",
    "<day> is fine for <person> , <number> <thing>",
    "the <color> <thing> for <person> came on <day>",
    "can <person> have <number> <color> <thing>",
    "<number> <thing> for <person> and <number> for <person> by <day>",
    "tell <person> that <person> sent the <color> <thing> on <day>",
)
_SLOTS = {"number": _NUMBERS, "color": _COLORS, "thing": _THINGS, "person": _PEOPLE, "day": _DAYS}
WORDS = tuple(
    sorted(
        {word for form in _FORMS for word in form.split() if not word.startswith("<")}.union(*_SLOTS.values())
    )
)
LENGTH = max(len(form.split()) for form in _FORMS)

# Words that are tagged in two ways: what stands around them decides.
AMBIGUOUS = tuple(word for word in WORDS if sum(word in words for words in _SLOTS.values()) > 1)


class Orders(Dataset[dict[str, Tensor]]):
    """Orders by letter, whose words are to be tagged: is "rose" a color here, or a person?

    A sample is a dict, as from a Hugging Face collator: "input_ids" and "attention_mask" (L,), and "labels"
    (L,), the number of each word's tag in `TAGS`, or −100 where there is padding. Words are numbered from 1.
    """

    def __init__(self, size: int, seed: int):
        draw = random.Random(seed)
        self.samples = [_order(draw) for _ in range(size)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.samples[index]


def is_ambiguous(input_ids: Tensor) -> Tensor:
    """Which words (N, L) may be tagged in two ways."""
    return torch.isin(input_ids, torch.tensor([WORDS.index(word) + 1 for word in AMBIGUOUS]))


def words_of(input_ids: Sequence[int] | Tensor) -> list[str]:
    """The words of an order, without padding."""
    return [WORDS[int(word) - 1] for word in input_ids if word]


def _order(draw: random.Random) -> dict[str, Tensor]:
    ids, labels = [], []
    for word in draw.choice(_FORMS).split():
        slot = word.strip("<>") if word.startswith("<") else "nothing"
        spoken = draw.choice(_SLOTS[slot]) if slot in _SLOTS else word
        ids.append(WORDS.index(spoken) + 1)
        labels.append(TAGS.index(slot))
    padding = LENGTH - len(ids)
    return {
        "input_ids": torch.tensor(ids + [0] * padding),
        "attention_mask": torch.tensor([1] * len(ids) + [0] * padding),
        "labels": torch.tensor(labels + [-100] * padding),
    }


# A network for scenes, and how good its answers are

# Which of the teacher's 21 maps answer which question.
MAPS = {"masks": slice(0, 6), "tags": slice(6, 11), "prices": slice(11, 12), "boxes": slice(12, 21)}


class SceneNet(nn.Module):
    """Scenes (N, 1, 48, 48) become maps (N, outputs, 12, 12).

    Two 3×3 convolutions with stride 2, `depth` more without, each with batch norm and ReLU, and a 1×1
    convolution.
    """

    def __init__(self, width: int, outputs: int, depth: int = 1):
        super().__init__()
        channels = [1, width, *[2 * width] * (depth + 1)]
        layers = [
            _block(*pair, stride=2 if place < 2 else 1) for place, pair in enumerate(pairwise(channels))
        ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(2 * width, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def read_masks(maps: Tensor) -> Tensor:
    """Logits (N, 6, 24, 24) of the mask, from maps (N, 6, 12, 12)."""
    return F.interpolate(maps, size=SIZE // 2, mode="bilinear")


def read_tags(maps: Tensor) -> Tensor:
    """Logits (N, 5) of the tags, from maps (N, 5, 12, 12): a garment is there if it is anywhere."""
    return maps.flatten(2).logsumexp(dim=2) - 3


def read_prices(maps: Tensor) -> Tensor:
    """Prices (N, 1), from maps (N, 1, 12, 12)."""
    return 10 * maps.mean(dim=(2, 3))


def read_boxes(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, 6, 4, 4) of each cell's garment, and its box (N, 3, 4, 4), from maps (N, 9, 12, 12)."""
    cells = F.avg_pool2d(maps, 3)
    return cells[:, :6], cells[:, 6:].sigmoid()


def mask_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of the pixels that somebody was sure of."""
    return F.cross_entropy(read_masks(maps), masks, ignore_index=IGNORED)


def tag_loss(maps: Tensor, tags: Tensor) -> Tensor:
    """Binary cross-entropy of every tag."""
    return F.binary_cross_entropy_with_logits(read_tags(maps), tags)


def price_loss(maps: Tensor, prices: Tensor) -> Tensor:
    """Squared error of the price."""
    return F.mse_loss(read_prices(maps), prices)


def box_loss(maps: Tensor, cells: Tensor, boxes: Tensor) -> Tensor:
    """Cross-entropy of the cells, and the boxes' distance in those that hold a garment."""
    logits, found = read_boxes(maps)
    return F.cross_entropy(logits, cells) + box_distance(found, boxes, (cells > 0).unsqueeze(1))


def box_distance(found: Tensor, boxes: Tensor, weight: Tensor) -> Tensor:
    """Huber's distance of boxes (N, 3, 4, 4), averaged over cells with a weight (N, 1, 4, 4) for each."""
    distance = F.smooth_l1_loss(found, boxes, beta=0.1, reduction="none").sum(dim=1, keepdim=True)
    return (weight * distance).sum() / weight.sum().clamp(min=1e-6)


def scene_teacher(split: Split, count: int = 3_000, steps: int = 300) -> SceneNet:
    """Somebody's large network: it answers all four questions at once, and saw many labeled scenes."""
    kdutils.set_seed(0)
    teacher = SceneNet(24, 21, depth=3)

    def loss_fn(network: nn.Module, images: Tensor, *labels: Tensor) -> dict[str, Tensor]:
        maps, (masks, tags, prices, cells, boxes) = network(images), labels
        return {
            "masks": mask_loss(maps[:, MAPS["masks"]], masks),
            "tags": tag_loss(maps[:, MAPS["tags"]], tags),
            "prices": 0.2 * price_loss(maps[:, MAPS["prices"]], prices),
            "boxes": box_loss(maps[:, MAPS["boxes"]], cells, boxes),
        }

    loader = batches(*scenes(split, count, seed=1), batch_size=32, seed=0)
    fit(teacher, loader, loss_fn, steps=steps, lr=0.01)
    return teacher


def mean_iou(maps: Tensor, truth: Scenes) -> float:
    """Intersection over union of the masks in percent, averaged over the six classes of a pixel."""
    guess, sure = read_masks(maps).argmax(dim=1), truth.masks != IGNORED
    shares = []
    for kind in range(len(GARMENTS) + 1):
        guessed, true = (guess == kind) & sure, (truth.masks == kind) & sure
        shares.append((guessed & true).sum().item() / max((guessed | true).sum().item(), 1))
    return 100 * sum(shares) / len(shares)


def tag_f1(maps: Tensor, truth: Scenes) -> float:
    """F1 of all tags together, in percent."""
    guess, true = read_tags(maps) > 0, truth.tags > 0
    return 200 * (guess & true).sum().item() / (guess.sum() + true.sum()).item()


def price_error(maps: Tensor, truth: Scenes) -> float:
    """Mean distance from the true price."""
    return (read_prices(maps) - truth.prices).abs().mean().item()


def boxes_found(maps: Tensor, truth: Scenes) -> float:
    """F1 of the garments, in percent: found with the right name and a box that overlaps by half."""
    logits, found = read_boxes(maps)
    named = logits.argmax(dim=1)
    overlap = _overlap(_corners(found), _corners(truth.boxes))
    hit = (named == truth.cells) & (truth.cells > 0) & (overlap > 0.5)
    return 200 * hit.sum().item() / ((named > 0).sum() + (truth.cells > 0).sum()).item()


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _corners(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom (N, 4, 4, 4), as shares of the scene."""
    number = torch.arange(CELLS)
    x, y = (boxes[:, 0] + number) / CELLS, (boxes[:, 1] + number.unsqueeze(1)) / CELLS
    half = boxes[:, 2] / 2
    return torch.stack([x - half, y - half, x + half, y + half], dim=1)


def _overlap(corners: Tensor, others: Tensor) -> Tensor:
    """Intersection over union, (N, 4, 4)."""
    inner = torch.minimum(corners[:, 2:], others[:, 2:]) - torch.maximum(corners[:, :2], others[:, :2])
    both = inner.clamp(min=0).prod(dim=1)
    areas = [(of[:, 2:] - of[:, :2]).prod(dim=1) for of in (corners, others)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)


# Drawings


def draw_way(tried: Sequence[str], enough: str | None, asked: Sequence[str], taken: str | None) -> Axes:
    """What to try, one after the other, and what a teacher that is left to be asked can give.

    Args:
        tried: The steps before distillation, in order.
        enough: The step that is enough; None if none is.
        asked: What one may have from a teacher, each with what to do about it.
        taken: The one that is had.
    """
    ax = drawings.sheet(15.2, 4.9, scale=0.56)
    reached = tried if enough is None else tried[: list(tried).index(enough) + 1]
    before = None
    for place, step in enumerate(tried):
        color = drawings.STUDENT if step == enough else plot.TEACHER if step in reached else "0.8"
        box = drawings.data(ax, drawings.Place(1.9 + 3.8 * place, 3.9, 3.1, 1.2), step, color)
        if before is not None:
            drawings.flow(ax, before.right, box.left, color)
        before = box
    for place, answer in enumerate(asked):
        is_taken = enough is None and answer == taken
        color = drawings.STUDENT if is_taken else "0.8"
        box = drawings.data(ax, drawings.Place(1.9 + 3.8 * place, 1.1, 3.1, 1.6), answer, color)
        if is_taken and before is not None:
            drawings.flow(ax, before.bottom, box.top, color)
    said = "it is enough: stop here" if enough else "a gap is left: ask the teacher"
    drawings.note(ax, (7.6, 4.72), said, drawings.STUDENT)
    return ax


def draw_scenes(some: Scenes, count: int = 5) -> None:
    """Scenes, and below them their masks with the detector's boxes."""
    _, axes = plt.subplots(2, count, figsize=(1.35 * count, 2.8), layout="constrained")
    corners = _corners(some.boxes)
    for scene, (above, below) in enumerate(axes.T):
        above.imshow(some.images[scene, 0].numpy(), cmap="gray")
        tagged = [name for name, tag in zip(NAMES, some.tags[scene], strict=True) if tag]
        above.set_title(",\n".join(tagged), fontsize="x-small", loc="center")
        mask = some.masks[scene]
        below.imshow(torch.where(mask == IGNORED, 7, mask).numpy(), cmap="Set2", vmin=0, vmax=7)
        for y, x in (some.cells[scene] > 0).nonzero().tolist():
            left, top, right, bottom = (24 * corners[scene, :, y, x] - 0.5).tolist()
            frame = plt.Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="black")
            below.add_patch(frame)
        below.set_title(f"price {some.prices[scene].item():.0f}", fontsize="x-small", loc="center")
        above.axis("off")
        below.axis("off")


def draw_borrowed_teacher() -> Axes:
    """A frozen encoder and a trained head are the teacher; what the encoder says lies on the disk."""
    ax = drawings.sheet(15.2, 5.2, scale=0.56)
    sentence = drawings.data(ax, drawings.Place(1.5, 2.6, 2.2, 1.0), "sentence")
    encoder = drawings.network(ax, drawings.Place(4.8, 4.0, 2.4, 1.5), "encoder", plot.TEACHER, trained=False)
    disk = drawings.data(ax, drawings.Place(7.9, 4.0, 1.9, 1.1), "meaning,\non disk")
    head = drawings.network(
        ax, drawings.Place(10.8, 4.0, 2.1, 1.5), "head", plot.TEACHER, trained=False, state="500 labels"
    )
    student = drawings.network(
        ax, drawings.Place(8.0, 1.1, 2.4, 1.4), "student", drawings.STUDENT, trained=True
    )
    compared = drawings.loss(ax, (13.9, 2.6), "KL")
    drawings.flow(ax, sentence.top, encoder.left)
    drawings.flow(ax, sentence.bottom, student.left, drawings.STUDENT)
    for start, end in ((encoder, disk), (disk, head)):
        drawings.flow(ax, start.right, end.left)
    drawings.flow(ax, head.right, compared.top)
    drawings.flow(ax, student.right, compared.bottom, drawings.STUDENT)
    drawings.note(ax, (2.0, 3.75), "its tokens")
    drawings.note(ax, (3.6, 1.0), "its own words", drawings.STUDENT)
    drawings.note(ax, (6.3, 5.0), "asked once")
    return ax
