"""Distillation in Lightning: the teacher is a part of the module that is neither trained nor saved.

    python examples/lightning_module.py FOLDER    # goes on from the folder's last checkpoint

Needs lightning.
"""

import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from task import Tagger, accuracy, loss_of, texts, trained_teacher
from torch.utils.data import DataLoader

MICRO_BATCH, ACCUMULATE, WORDS_IN_A_TEXT = 16, 4, 9.5


class Distillation(lightning.LightningModule):
    def __init__(self, student, teacher):
        super().__init__()
        # As attributes both are moved to the device and autocast. The student alone goes to the optimizer.
        self.student, self.teacher = student, teacher.requires_grad_(False)
        self.strict_loading = False  # the checkpoint lacks the teacher

    def on_train_epoch_start(self):
        self.teacher.eval()  # whatever mode validation or a callback has left

    def training_step(self, batch, _):
        logits = self.student(**batch)
        with torch.no_grad():
            teacher_logits = self.teacher(**batch)
        # Lightning divides by the number of micro-batches, of which each knows its own words only. A constant
        # instead of that number, the usual one, lets every word of the step weigh the same.
        loss = loss_of(logits, teacher_logits, batch["labels"], kept=MICRO_BATCH * WORDS_IN_A_TEXT)
        self.log("loss", loss)
        return loss

    def on_save_checkpoint(self, checkpoint):
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: state[key] for key in state if not key.startswith("teacher.")}

    def configure_optimizers(self):
        return torch.optim.AdamW(self.student.parameters(), lr=0.02)


def main(folder: Path, epochs: int = 6) -> Tagger:
    teacher = trained_teacher()
    lightning.seed_everything(0, verbose=False)
    module = Distillation(Tagger(8), teacher)
    trainer = lightning.Trainer(
        max_epochs=epochs, precision="bf16-mixed", accumulate_grad_batches=ACCUMULATE, gradient_clip_val=1.0,
        callbacks=[ModelCheckpoint(folder, save_last=True)], logger=False, enable_progress_bar=False,
    )  # fmt: skip
    last = folder / "last.ckpt"
    loader = DataLoader(texts(640, seed=0), MICRO_BATCH, shuffle=True)
    trainer.fit(module, loader, ckpt_path=last if last.exists() else None)
    return module.student


if __name__ == "__main__":
    print(f"student: {accuracy(main(Path(sys.argv[1]))):.1f}% of the words")
