"""Distillation in Hugging Face's Trainer: the teacher and the loss go into `compute_loss`.

    python examples/hugging_face_trainer.py FOLDER    # goes on from the folder's last checkpoint

Needs transformers and accelerate.
"""

import sys
from pathlib import Path

import torch
from task import Tagger, accuracy, loss_of, texts, trained_teacher
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from kdutils import best_device


class DistillationTrainer(Trainer):
    def __init__(self, *arguments, teacher, **settings):
        super().__init__(*arguments, **settings)
        # Not a part of the model: it is neither trained nor saved. The Trainer calls model.train() in every
        # step, which does not reach it: eval mode stays.
        self.teacher = teacher.eval().requires_grad_(False).to(self.args.device)
        # Have the words of the whole step counted, over micro-batches and devices, and handed to
        # compute_loss, whose result is then not divided by the number of micro-batches.
        self.model_accepts_loss_kwargs = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logits = model(**inputs)
        with torch.no_grad(), self.accelerator.autocast():  # the model's own autocast does not reach here
            teacher_logits = self.teacher(**inputs)
        kept = (inputs["labels"] != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = loss_of(logits, teacher_logits, inputs["labels"], kept)
        loss = loss * self.accelerator.num_processes  # whose gradients are averaged, not summed
        return (loss, {"logits": logits}) if return_outputs else loss


def main(folder: Path, epochs: int = 6) -> Tagger:
    teacher = trained_teacher()
    torch.manual_seed(0)
    settings = TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=4,
        learning_rate=0.02,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=best_device().type == "cpu",
        save_strategy="epoch",
        remove_unused_columns=False,  # or what `forward` does not name, such as stored answers, is dropped
        report_to="none",
        disable_tqdm=True,
    )
    trainer = DistillationTrainer(Tagger(8), settings, train_dataset=texts(640, seed=0), teacher=teacher)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.exists() else None)
    return trainer.model


if __name__ == "__main__":
    print(f"student: {accuracy(main(Path(sys.argv[1]))):.1f}% of the words")
