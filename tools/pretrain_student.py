"""Distills chapter 12's student on text, before any task, and stores its weights and card in data/student.

    python tools/pretrain_student.py        # about twenty-five minutes on one core that multiplies bfloat16

The teacher is the packaged encoder. It first learns to name hidden words; then the student, three of its
layers, learns from it with DistilBERT's triple loss. The text is every sentence of data/text but those of dev
and test; labels are not used. Dev is looked at for the card. Unfinished, the last stored weights stay.
"""

import hashlib
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from replacing import replace
from safetensors.torch import load, save
from torch import Tensor

import kdutils
from kdutils.course.data import data_dir
from kdutils.course.encoder import load_encoder, load_tokenizer
from kdutils.course.masked_words import (
    CUT,
    SPECIAL,
    MaskedLM,
    hidden_words,
    is_stored,
    packed,
    unpacked,
)
from kdutils.course.text import movie_reviews, undecided_reviews
from kdutils.layers import student_from_teacher
from kdutils.losses import hidden_cosine_loss, kd_loss

TEACHER = {"steps": 300, "batch_size": 64, "lr": 1e-4, "lr_of_head": 1e-3}
STUDENT = {"steps": 1_200, "batch_size": 64, "lr": 6e-4, "lr_of_head": 6e-4, "weights": [5, 2, 1]}
TEMPERATURE, WEIGHT_DECAY = 2.0, 0.01
STORED_EVERY = 400


def tokens_of(sentences: list[str]) -> Tensor:
    padded = {"padding": "max_length", "truncation": True, "max_length": 32, "return_tensors": "pt"}
    return load_tokenizer()(sentences, **padded).input_ids


def masked_batches(corpus: Tensor, batch_size: int, seed: int = 0):
    """Endless batches of sentences of about one length: tokens with hidden words, places, tokens."""
    while True:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(corpus), generator=generator)
        parts = order[(corpus[order] != 0).sum(dim=1).argsort(stable=True)].split(batch_size)
        masked, places = hidden_words(corpus, seed)
        for i in torch.randperm(len(parts), generator=generator):
            longest = int((corpus[parts[i]] != 0).sum(dim=1).max())
            yield tuple(column[parts[i], :longest] for column in (masked, places, corpus))
        seed += 1


def from_words(model: MaskedLM, tokens: Tensor, places: Tensor, originals: Tensor):
    return {"mlm": F.cross_entropy(model(tokens, places)[1].float(), originals[places])}


def triple_loss(teacher: MaskedLM, soft: float, words: float, cosine: float):
    """DistilBERT's loss of a student: answers of the teacher, hidden words, direction of the states."""

    def loss_fn(student: MaskedLM, tokens: Tensor, places: Tensor, originals: Tensor):
        with torch.no_grad():
            teacher_states, teacher_logits = teacher(tokens, places)
        states, logits = student(tokens, places)
        return {
            "soft": soft * kd_loss(logits.float(), teacher_logits.float(), temperature=TEMPERATURE),
            "words": words * F.cross_entropy(logits.float(), originals[places]),
            "cosine": cosine * hidden_cosine_loss(states, teacher_states, tokens != 0),
        }

    return loss_fn


def train(model: MaskedLM, corpus: Tensor, loss_fn, recipe: dict, dev: Tensor, name: str, on_stored=None):
    """Trains all but the embeddings, in place, and without dropout: there is little to learn by heart."""
    model.eval().encoder.embeddings.requires_grad_(False)
    head = [*model.transform.parameters(), model.bias]
    layers = list(model.encoder.encoder.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": layers}, {"params": head}], weight_decay=WEIGHT_DECAY, fused=True
    )
    rates = [recipe["lr"], recipe["lr_of_head"]]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=recipe["steps"] + 1, pct_start=0.1
    )
    start = time.perf_counter()
    for step, batch in zip(
        range(1, recipe["steps"] + 1), masked_batches(corpus, recipe["batch_size"]), strict=False
    ):
        with torch.autocast("cpu", torch.bfloat16):
            terms = loss_fn(model, *batch)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_([*layers, *head], 1.0)
        optimizer.step()
        schedule.step()
        if step % (STORED_EVERY // 8) == 0 or step == recipe["steps"]:
            found = perplexity(model, dev)
            losses = {term: round(loss.item(), 3) for term, loss in terms.items()}
            print(f"{name} {step} {time.perf_counter() - start:.0f} s {losses} ppl {found:.1f}", flush=True)
        if on_stored is not None and step % STORED_EVERY == 0:
            on_stored(step)


@torch.no_grad()
def perplexity(model: MaskedLM, sentences: Tensor) -> float:
    """Exponential of the cross-entropy at one fixed choice of hidden words."""
    masked, places = hidden_words(sentences, seed=2)
    order = (sentences != 0).sum(dim=1).argsort()
    total = 0.0
    for index in order.split(100):
        longest = int((sentences[index] != 0).sum(dim=1).max())
        hidden = places[index, :longest]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(masked[index, :longest], hidden)[1].float()
        total += F.cross_entropy(logits, sentences[index, :longest][hidden], reduction="sum").item()
    return math.exp(total / places.sum().item())


def store(folder: Path, student: MaskedLM, about: dict, dev: Tensor) -> None:
    """Writes what training changed in the student, and a card that measures the stored student."""
    stored = MaskedLM(student_from_teacher(plain_encoder(), CUT)).eval()
    copied = stored.state_dict()
    weights = save(packed(student.state_dict(), copied))
    stored.load_state_dict(unpacked(load(weights), copied))
    measures = {**about["dev_perplexity"], "student": round(perplexity(stored, dev), 2)}
    card = {**about, "dev_perplexity": measures, "sha256": hashlib.sha256(weights).hexdigest()}
    folder.mkdir(exist_ok=True)
    replace(folder / "student.safetensors", weights)
    replace(folder / "card.json", json.dumps(card, indent=2) + "\n")


def plain_encoder():
    """The encoder, whose attention is computed in single operations: on a CPU these learn faster."""
    encoder = load_encoder()
    encoder.set_attn_implementation("eager")
    return encoder


def main() -> None:
    kdutils.set_seed(0)
    start = time.perf_counter()
    reviews = movie_reviews()
    corpus = tokens_of([*reviews.train.sentences, *undecided_reviews(), *reviews.unlabelled])
    dev = tokens_of(reviews.dev.sentences)
    teacher = MaskedLM(plain_encoder(), torch.bincount(corpus[corpus > SPECIAL], minlength=30_522))
    train(teacher, corpus, from_words, TEACHER, dev, "teacher")
    teacher.requires_grad_(False)
    student = student_from_teacher(teacher, CUT)
    about = {
        "architecture": "kdutils.course.masked_words.MaskedLM: layers and head, without embeddings",
        "parameters": sum(p.numel() for n, p in student.named_parameters() if is_stored(n)),
        "layers_of_the_encoder": list(CUT),
        "trained_on": f"data/text without dev and test, {len(corpus):,} sentences, no labels",
        "recipe": {"optimizer": "AdamW, one-cycle", "seed": 0, "teacher": TEACHER, "student": STUDENT},
        "dev_perplexity": {
            "teacher": round(perplexity(teacher, dev), 2),
            "cut from the teacher, untrained": round(perplexity(student, dev), 2),
        },
        "licence": "Apache-2.0, as the encoder",
    }

    def on_stored(step: int) -> None:
        done = {"steps_done": step, "seconds": round(time.perf_counter() - start)}
        store(data_dir() / "student", student, {**about, **done}, dev)

    train(student, corpus, triple_loss(teacher, *STUDENT["weights"]), STUDENT, dev, "student", on_stored)


if __name__ == "__main__":
    main()
