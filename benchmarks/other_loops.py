"""The same distillation in other people's loops: the same networks, data and teacher.

Each function trains a student for some steps and calls `tick()` once in every step, right before the loss.
The data are images and labels, and the teacher's logits where they are cached; else it is run in every step.
Lightning, Transformers and torchdistill are no part of this project's environment:

    .venv/bin/pip install -e ".[peers]"
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, default_collate

from kdutils.losses import kd_loss

LR, TEMPERATURE, LABEL_WEIGHT = 0.06, 4.0, 0.1
Tick = Callable[[], None]


def with_answers(teacher: nn.Module, batch: Any) -> Any:
    """Images, labels and the teacher's logits."""
    if len(batch) == 3:
        return batch
    with torch.no_grad():
        return (*batch, teacher(batch[0]))


def weighted(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    soft = kd_loss(student_logits, teacher_logits, temperature=TEMPERATURE)
    return LABEL_WEIGHT * F.cross_entropy(student_logits, labels) + (1 - LABEL_WEIGHT) * soft


def optimizer_and_schedule(student: nn.Module, steps: int) -> tuple[Any, Any]:
    """Those of `fit`."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LR, total_steps=steps + 1, pct_start=0.25
    )
    return optimizer, schedule


def epochs_of(loader: Iterable[Any], steps: int) -> Iterable[Any]:
    while True:
        for batch in loader:
            yield batch
            steps -= 1
            if steps == 0:
                return


def pytorch_tutorial(
    student: nn.Module, teacher: nn.Module, data: TensorDataset, batch_size: int, steps: int, tick: Tick
) -> None:
    """As printed: Adam, no schedule, the softened softmax and its logarithm by hand.

    Source: PyTorch tutorials, "Knowledge Distillation Tutorial", `train_knowledge_distillation`.
    """
    ce_loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.001)
    teacher.eval()
    student.train()
    running_loss = 0.0
    for batch in epochs_of(DataLoader(data, batch_size, shuffle=True), steps):
        optimizer.zero_grad()
        inputs, labels, teacher_logits = with_answers(teacher, batch)
        student_logits = student(inputs)
        tick()
        soft_targets = nn.functional.softmax(teacher_logits / 2, dim=-1)
        soft_prob = nn.functional.log_softmax(student_logits / 2, dim=-1)
        soft_targets_loss = (
            torch.sum(soft_targets * (soft_targets.log() - soft_prob)) / soft_prob.size()[0] * (2**2)
        )
        label_loss = ce_loss(student_logits, labels)
        loss = 0.25 * soft_targets_loss + 0.75 * label_loss
        loss.backward()
        optimizer.step()
        running_loss += loss.item()


def torchdistill_loss(
    student: nn.Module, teacher: nn.Module, data: TensorDataset, batch_size: int, steps: int, tick: Tick
) -> None:
    """Its KDLoss, which takes the outputs of student and teacher by the paths of their modules."""
    from torchdistill.losses.mid_level import KDLoss

    criterion = KDLoss("fc", "output", "fc", "output", temperature=TEMPERATURE, alpha=LABEL_WEIGHT)
    optimizer, schedule = optimizer_and_schedule(student, steps)
    teacher.eval()
    student.train()
    losses = []
    for batch in epochs_of(DataLoader(data, batch_size, shuffle=True), steps):
        inputs, labels, teacher_logits = with_answers(teacher, batch)
        student_logits = student(inputs)
        tick()
        of_student, of_teacher = ({"fc": {"output": x}} for x in (student_logits, teacher_logits))
        loss = criterion(of_student, of_teacher, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())


def lightning(
    student: nn.Module, teacher: nn.Module, data: TensorDataset, batch_size: int, steps: int, tick: Tick
) -> None:
    """A LightningModule, its Trainer without logger, checkpoints and bars."""
    import lightning as L

    class Distillation(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = student, teacher.eval().requires_grad_(False)

        def training_step(self, batch: Any, _: int) -> Tensor:
            inputs, labels, teacher_logits = with_answers(self.teacher, batch)
            student_logits = self.student(inputs)
            tick()
            return weighted(student_logits, teacher_logits, labels)

        def configure_optimizers(self) -> Any:
            optimizer, schedule = optimizer_and_schedule(self.student, steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of loaders without workers, and of what is not logged
        trainer.fit(Distillation(), DataLoader(data, batch_size, shuffle=True))


def hugging_face_trainer(
    student: nn.Module, teacher: nn.Module, data: TensorDataset, batch_size: int, steps: int, tick: Tick
) -> None:
    """A Trainer with `compute_loss`, as its guides distil, without reports, checkpoints and bars."""
    import tempfile

    from transformers import Trainer, TrainingArguments

    teacher.eval()

    class Distillation(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Tensor:
            images, labels, teacher_logits = with_answers(teacher, tuple(inputs.values()))
            student_logits = model(images)
            tick()
            return weighted(student_logits, teacher_logits, labels)

    def collated(samples: list[Any]) -> dict[str, Tensor]:
        return dict(zip(("images", "labels", "teacher_logits"), default_collate(samples), strict=False))

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch_size, use_cpu=True, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, max_grad_norm=0.0,
            remove_unused_columns=False,
        )  # fmt: skip
        optimizers = optimizer_and_schedule(student, steps)
        Distillation(
            student, settings, data_collator=collated, train_dataset=data, optimizers=optimizers
        ).train()


LOOPS = {
    "PyTorch's distillation tutorial, its loop": pytorch_tutorial,
    "torchdistill's `KDLoss` in a loop": torchdistill_loss,
    "Lightning": lightning,
    "Hugging Face's `Trainer`": hugging_face_trainer,
}
