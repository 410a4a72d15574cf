"""Trains the course's teacher and stores its weights and its card in data/teacher.

    python tools/train_teacher.py            # the chosen recipe, about three minutes on two cores
    python tools/train_teacher.py --search   # compare candidates on the validation images

The learning rate is chosen on the validation images; the test images are looked at once, for the card.
"""

import argparse
import hashlib
import json
import time

import torch
import torch.nn.functional as F
from replacing import replace
from safetensors.torch import save
from torch import Tensor

import kdutils
from kdutils import evaluate
from kdutils.batches import batches
from kdutils.course.data import data_dir, fashion_mnist, normalize_fashion_mnist
from kdutils.course.models import ConvNet, teacher_cnn
from kdutils.train import fit, predict

SEED = 0
BATCH_SIZE = 256
RECIPE = {"lr": 0.01, "weight_decay": 0.05, "epochs": 10, "flips_and_shifts": False}
CANDIDATES = [
    {"lr": lr, "weight_decay": 0.05, "epochs": epochs, "flips_and_shifts": augmented}
    for lr, epochs, augmented in [
        (0.003, 10, False),
        (0.01, 10, False),
        (0.03, 10, False),
        (0.01, 10, True),
    ]
]


def flipped_and_shifted(images: Tensor) -> Tensor:
    """Images of which half are mirrored, all moved by up to two pixels, the same move for the whole batch."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    rows, columns = torch.randint(-2, 3, (2,)).tolist()
    return torch.where(mirrored, images.flip(3), images).roll((rows, columns), dims=(2, 3))


def trained_teacher(recipe: dict, seed: int = SEED) -> ConvNet:
    kdutils.set_seed(seed)
    images, labels = fashion_mnist().teacher
    teacher = teacher_cnn(seed).to(kdutils.best_device(), memory_format=torch.channels_last)

    def loss_fn(model: ConvNet, images: Tensor, labels: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return F.cross_entropy(
            model(flipped_and_shifted(images) if recipe["flips_and_shifts"] else images), labels
        )

    train_batches = batches(
        images, labels, batch_size=BATCH_SIZE, seed=seed, transform=normalize_fashion_mnist
    )
    steps = recipe["epochs"] * len(train_batches)
    fit(teacher, train_batches, loss_fn, steps=steps, lr=recipe["lr"], weight_decay=recipe["weight_decay"])
    return teacher.to("cpu", memory_format=torch.contiguous_format)


def search() -> None:
    """Prints the validation accuracy of every candidate."""
    images, labels = fashion_mnist().validation
    for recipe in CANDIDATES:
        start = time.perf_counter()
        logits = predict(trained_teacher(recipe), images, transform=normalize_fashion_mnist)
        print(
            f"{recipe}: validation {evaluate.accuracy(logits, labels):.2f} %, "
            f"loss {evaluate.negative_log_likelihood(logits, labels):.4f} nats, "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )


def store() -> None:
    """Writes the weights and the card; the card names the weights' checksum."""
    teacher = trained_teacher(RECIPE)
    weights = save({name: tensor.contiguous() for name, tensor in teacher.state_dict().items()})
    parts = fashion_mnist()
    measures = {}
    for name in ("validation", "test"):
        images, labels = getattr(parts, name)
        logits = predict(teacher, images, transform=normalize_fashion_mnist)
        measures[name] = {
            "accuracy_percent": round(evaluate.accuracy(logits, labels), 2),
            "negative_log_likelihood_nats": round(evaluate.negative_log_likelihood(logits, labels), 4),
            "expected_calibration_error_percent": round(
                evaluate.expected_calibration_error(logits, labels), 2
            ),
        }
    card = {
        "architecture": "kdutils.course.models.teacher_cnn",
        "parameters": evaluate.parameter_count(teacher),
        "trained_on": "Fashion-MNIST train[:38000]",
        "recipe": {"optimizer": "AdamW, one-cycle", "batch_size": BATCH_SIZE, "seed": SEED, **RECIPE},
        "measures": measures,
        "licence": "MIT, as the course",
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    folder = data_dir() / "teacher"
    folder.mkdir(exist_ok=True)
    replace(folder / "teacher.safetensors", weights)
    replace(folder / "card.json", json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--search", action="store_true", help="compare the candidates on validation images")
    search() if parser.parse_args().search else store()
