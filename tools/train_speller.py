"""Trains chapter 13's teacher, which says how words are spoken, and stores weights and card in data/speller.

    python tools/train_speller.py        # about twenty minutes on two cores

It learns from the teacher's part of the dictionary only. Validation and test words are looked at once, for
the card.
"""

import hashlib
import json
import time

import torch
from replacing import replace
from safetensors.torch import save
from tqdm import tqdm

import kdutils
from kdutils.course.data import data_dir
from kdutils.course.gpt import GPT
from kdutils.course.pronunciation import (
    END,
    Words,
    is_right,
    pronouncing_dictionary,
    spelled_texts,
    speller,
    spelling_prompts,
)
from kdutils.generate import generate
from kdutils.losses import sequence_kd_loss
from kdutils.losses.sequence import next_token

RECIPE = {"steps": 3_000, "batch_size": 128, "lr": 2.5e-3, "weight_decay": 0.05, "clip_norm": 1.0}


def train(words: Words) -> GPT:
    """A speller that has read the words, each time with one of their pronunciations."""
    model = speller(seed=0)
    steps, size = RECIPE["steps"], RECIPE["batch_size"]
    optimizer = torch.optim.AdamW(
        model.parameters(), RECIPE["lr"], weight_decay=RECIPE["weight_decay"], fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RECIPE["lr"], total_steps=steps + 1, pct_start=0.1
    )
    step = 0
    with tqdm(total=steps, desc="speller") as bar:
        for epoch in range(1 + steps * size // len(words.spellings)):
            tokens, is_learned = spelled_texts(words, seed=epoch)
            for index in torch.randperm(len(tokens)).split(size)[: steps - step]:
                batch, learned = tokens[index], is_learned[index]
                longest = int(learned.nonzero()[:, 1].max()) + 1
                batch, learned = batch[:, :longest], learned[:, :longest]
                loss = sequence_kd_loss(*next_token(model(batch), batch, learned))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE["clip_norm"])
                optimizer.step()
                schedule.step()
                step += 1
                bar.update()
                if step % 200 == 0:
                    print(step, round(loss.item(), 4), flush=True)
    return model.half().float()  # as it will be stored


@torch.no_grad()
def measures(model: GPT, words: Words) -> dict:
    """Words said rightly, greedy and sampled, in percent, and nats per token of the first pronunciation."""
    prompts = spelling_prompts(words.spellings)
    right = {
        name: is_right(generate(model, prompts, 11, temperature=T, stop_token=END).tokens, words)
        for name, T in (("words_right_percent", 0), ("samples_right_percent", 1))
    }
    tokens, is_learned = spelled_texts(words)
    nats = sequence_kd_loss(*next_token(model(tokens), tokens, is_learned))
    percent = {name: round(100 * rights.float().mean().item(), 2) for name, rights in right.items()}
    return {**percent, "nats_per_token": round(nats.item(), 4)}


def main() -> None:
    kdutils.set_seed(0)
    parts = pronouncing_dictionary()
    start = time.perf_counter()
    model = train(parts.train).eval()
    seconds = round(time.perf_counter() - start)
    weights = save({key: value.half().contiguous() for key, value in model.state_dict().items()})
    card = {
        "architecture": "kdutils.course.pronunciation.speller",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_on": f"the train part of data/pronunciation, {len(parts.train.spellings):,} words",
        "recipe": {"optimizer": "AdamW, one-cycle", "seed": 0, **RECIPE},
        "seconds_on_one_core": seconds,
        "measures": {
            "validation": measures(model, parts.validation),
            "test": measures(model, parts.test),
        },
        "licence": "MIT, as the course; the dictionary's own licence is in data/pronunciation",
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    folder = data_dir() / "speller"
    folder.mkdir(exist_ok=True)
    replace(folder / "speller.safetensors", weights)
    replace(folder / "card.json", json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
