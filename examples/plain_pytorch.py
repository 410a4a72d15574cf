"""Distillation in a loop of your own: half precision, accumulation, clipping, checkpoints.

python examples/plain_pytorch.py FOLDER    # a second call with the same folder goes on where it stopped
"""

import sys
from pathlib import Path

import torch
from task import Tagger, accuracy, in_groups, loss_of, texts, trained_teacher
from torch.utils.data import DataLoader

from kdutils import best_device

MICRO_BATCH, ACCUMULATE, EPOCHS, LR = 16, 4, 6, 0.02


def main(folder: Path, epochs: int = EPOCHS) -> Tagger:
    device, data = best_device(), texts(640, seed=0)
    # Eval mode, or dropout and batch norm make the teacher stammer. No gradient: half of the memory saved.
    teacher = trained_teacher().eval().requires_grad_(False).to(device)
    torch.manual_seed(0)
    student = Tagger(8).to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR)  # the student's parameters only
    steps = EPOCHS * len(data) // (MICRO_BATCH * ACCUMULATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    scaler = torch.amp.GradScaler(device.type, enabled=False)  # True with float16; bfloat16 needs none
    parts = {"student": student, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    checkpoint, first = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        first = state.pop("epoch")
        torch.set_rng_state(state.pop("rng").cpu())  # of dropout
        for name, part in parts.items():
            part.load_state_dict(state[name])
    for epoch in range(first, epochs):
        student.train()
        # The order depends on the epoch alone, so a resumed run sees what an uninterrupted one sees.
        loader = DataLoader(data, MICRO_BATCH, shuffle=True, generator=torch.Generator().manual_seed(epoch))
        for micro_batches in in_groups(loader, ACCUMULATE):
            kept = sum((batch["labels"] != -100).sum() for batch in micro_batches).to(device)
            for batch in micro_batches:
                batch = {name: tensor.to(device) for name, tensor in batch.items()}
                with torch.autocast(device.type, torch.bfloat16):
                    logits, teacher_logits = student(**batch), teacher(**batch)
                # kd_loss computes in float32 whatever comes in: at a high T, half precision sees no classes.
                loss = loss_of(logits, teacher_logits, batch["labels"], kept)
                scaler.scale(loss).backward()  # gradients add up until the step
            scaler.unscale_(optimizer)  # clip true gradients, not scaled ones
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            schedule.step()
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save(state | {"epoch": epoch + 1, "rng": torch.get_rng_state()}, checkpoint)
    return student


if __name__ == "__main__":
    print(f"student: {accuracy(main(Path(sys.argv[1]))):.1f}% of the words")
