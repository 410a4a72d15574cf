"""Distillation with Accelerate: your own loop, on one device or on many.

    python examples/with_accelerate.py FOLDER               # goes on from the folder's checkpoint
    accelerate launch examples/with_accelerate.py FOLDER    # on all devices

Needs accelerate.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from task import Tagger, accuracy, in_groups, loss_of, texts, trained_teacher
from torch.utils.data import DataLoader

MICRO_BATCH, ACCUMULATE, LR = 16, 4, 0.02


class Progress:
    """How many epochs are done: saved and loaded with everything else."""

    epoch = 0

    def state_dict(self):
        return {"epoch": self.epoch}

    def load_state_dict(self, state):
        self.epoch = state["epoch"]


def main(folder: Path, epochs: int = 6) -> Tagger:
    # No gradient_accumulation_steps here: `backward` would divide by it, and make a mean of means.
    accelerator, progress = Accelerator(mixed_precision="bf16"), Progress()
    # The teacher is not prepared: it would be wrapped for training, and saved in every checkpoint.
    teacher = trained_teacher().eval().requires_grad_(False).to(accelerator.device)
    torch.manual_seed(0)
    student, loader = Tagger(8), DataLoader(texts(640, seed=0), MICRO_BATCH, shuffle=True)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR)
    student, optimizer, loader = accelerator.prepare(student, optimizer, loader)
    accelerator.register_for_checkpointing(progress)
    if folder.exists() and any(folder.iterdir()):
        accelerator.load_state(str(folder))
    while progress.epoch < epochs:
        student.train()
        for micro_batches in in_groups(loader, ACCUMULATE):
            words = sum((batch["labels"] != -100).sum() for batch in micro_batches)
            kept = accelerator.gather(words).sum()  # of all processes
            for batch in micro_batches:
                with torch.no_grad(), accelerator.autocast():
                    teacher_logits = teacher(**batch)
                is_last = batch is micro_batches[-1]
                with nullcontext() if is_last else accelerator.no_sync(student):  # send gradients once
                    loss = loss_of(student(**batch), teacher_logits, batch["labels"], kept)
                    accelerator.backward(loss * accelerator.num_processes)  # gradients are averaged over them
            accelerator.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        progress.epoch += 1
        accelerator.save_state(str(folder))
    return accelerator.unwrap_model(student)


if __name__ == "__main__":
    print(f"student: {accuracy(main(Path(sys.argv[1]))):.1f}% of the words")
