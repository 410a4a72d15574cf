"""Trains chapter 16's autoencoder and flow, and stores weights and card in data/generator.

    python tools/train_generator.py        # about fifteen minutes on two cores

Both learn from the training images only (the teacher's part and the pool). The test images are looked at
once, for the card.
"""

import copy
import hashlib
import json
import time

import torch
import torch.nn.functional as F
from replacing import replace
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

import kdutils
from kdutils.course.data import data_dir, fashion_mnist, normalize_fashion_mnist
from kdutils.course.generator import CODE_SIZE, Autoencoder, Flow, clothes_flow
from kdutils.course.models import load_teacher
from kdutils.samples import frechet_distance
from kdutils.train import predict

AUTOENCODER = {"epochs": 30, "batch_size": 256, "lr": 2e-3, "loss": "mean absolute error of the pixels"}
FLOW = {"steps": 20_000, "batch_size": 512, "lr": 2e-3, "averaged_over_about": 2_000}


def train_autoencoder(pixels: Tensor) -> Autoencoder:
    """Pixels (N, 784), 0 to 1, in; an autoencoder with standardized codes out."""
    model = Autoencoder(seed=0)
    steps = AUTOENCODER["epochs"] * (len(pixels) // AUTOENCODER["batch_size"])
    optimizer, schedule = one_cycle(model, AUTOENCODER["lr"], steps)
    for _ in tqdm(range(steps), desc="autoencoder"):
        images = pixels[torch.randint(len(pixels), (AUTOENCODER["batch_size"],))]
        loss = F.l1_loss(model(images).flatten(1), images)  # squared errors would blur more
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    codes = encoded(model, pixels)
    model.code_std.copy_(codes.std(dim=0))
    model.code_mean.copy_(codes.mean(dim=0))
    return model.half().float()  # as it will be stored, so that the flow learns the codes that readers get


def train_flow(codes: Tensor) -> Flow:
    """A flow from Gaussian noise to the codes (N, 32); the moving average of its weights."""
    model = clothes_flow(seed=0)
    averaged = copy.deepcopy(model)
    optimizer, schedule = one_cycle(model, FLOW["lr"], FLOW["steps"])
    for step in tqdm(range(FLOW["steps"]), desc="flow"):
        ends = codes[torch.randint(len(codes), (FLOW["batch_size"],))]
        noise, time_ = torch.randn_like(ends), torch.rand(len(ends), 1)
        loss = F.mse_loss(model((1 - time_) * noise + time_ * ends, time_), ends - noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            move_towards(averaged, model, 20 / FLOW["averaged_over_about"])
    return averaged.eval()


def one_cycle(model: nn.Module, lr: float, steps: int):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4, fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, pct_start=0.1)


@torch.no_grad()
def move_towards(averaged: nn.Module, model: nn.Module, share: float) -> None:
    for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
        old.lerp_(new, share)


@torch.no_grad()
def encoded(model: Autoencoder, pixels: Tensor) -> Tensor:
    return torch.cat([model.encode(batch) for batch in pixels.split(2_000)])


@torch.no_grad()
def drawn(model: Autoencoder, flow: Flow, noise: Tensor, steps: int) -> Tensor:
    points = noise
    for step in range(steps):
        points = points + flow(points, step / steps) / steps
    return model.decode(points)


def features(images: Tensor) -> Tensor:
    """What the course's classifier makes of images with pixels from 0 to 1: (N, 128)."""
    teacher = load_teacher()
    return predict(teacher, (255 * images).round().byte(), teacher.embed, transform=normalize_fashion_mnist)


def measures(model: Autoencoder, flow: Flow) -> dict:
    test = fashion_mnist().test.images
    real = features(test / 255)
    with torch.no_grad():
        rebuilt = features(torch.cat([model(batch / 255) for batch in test.split(2_000)]))
    noise = torch.randn(10_000, CODE_SIZE, generator=torch.Generator().manual_seed(1))
    return {
        "frechet_distance_of_reconstructions": round(frechet_distance(real, rebuilt), 3),
        "frechet_distance_by_steps": {
            steps: round(frechet_distance(real, features(drawn(model, flow, noise, steps))), 3)
            for steps in (64, 16, 4, 1)
        },
    }


def main() -> None:
    kdutils.set_seed(0)
    parts = fashion_mnist()
    pixels = torch.cat([parts.teacher.images, parts.pool.images]).float().div_(255).flatten(1)
    start = time.perf_counter()
    model = train_autoencoder(pixels)
    flow = train_flow(encoded(model, pixels)).half().float()
    card: dict = {
        "trained_on": "Fashion-MNIST train[:38000] and train[40000:], without labels",
        "seconds_on_one_core": round(time.perf_counter() - start),
        "measures": measures(model, flow),
        "licence": "MIT, as the course",
    }
    folder = data_dir() / "generator"
    folder.mkdir(exist_ok=True)
    for name, network, recipe in (("autoencoder", model, AUTOENCODER), ("flow", flow, FLOW)):
        weights = save({key: value.half().contiguous() for key, value in network.state_dict().items()})
        replace(folder / f"{name}.safetensors", weights)
        card[name] = {
            "architecture": f"kdutils.course.generator.{type(network).__name__}",
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "recipe": {"optimizer": "AdamW, one-cycle", "seed": 0, **recipe},
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
    replace(folder / "card.json", json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
