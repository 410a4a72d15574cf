"""What the four programs share: the loss, and stand-ins for your data and networks.

Words of a text are to be tagged. A batch is a dict, as from a Hugging Face collator: input_ids and
attention_mask (N, L), and labels (N, L), −100 where there is padding.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from kdutils.losses import kd_loss

WORDS, TAGS, LENGTH = 40, 5, 16


def loss_of(logits: Tensor, teacher_logits: Tensor, labels: Tensor, kept: Tensor | float) -> Tensor:
    """Labels and teacher, summed over the real words of a micro-batch, divided by `kept`.

    `kept` is the number of real words in the whole step. Each micro-batch divided by its own number would be
    a mean of means, in which a word of a short text weighs more.
    """
    is_word = labels != -100
    hard = F.cross_entropy(logits[is_word].float(), labels[is_word], reduction="sum") / kept
    return 0.1 * hard + 0.9 * kd_loss(logits, teacher_logits, is_word, temperature=2.0, denominator=kept)


class Tagger(nn.Module):
    """Gives each word logits (N, L, TAGS) from itself and its neighbors."""

    def __init__(self, width: int):
        super().__init__()
        self.embed, self.dropout = nn.Embedding(WORDS, width), nn.Dropout(0.1)
        self.mix, self.head = nn.Conv1d(width, width, 3, padding=1), nn.Linear(width, TAGS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Tensor:
        words = self.embed(input_ids) * attention_mask.unsqueeze(2)
        return self.head(self.dropout(self.mix(words.mT).relu().mT))


def texts(size: int, seed: int) -> list[dict[str, Tensor]]:
    """A tag is the largest of a word's number and its neighbors', cut into TAGS ranges."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(LENGTH) < torch.randint(3, LENGTH + 1, (size, 1), generator=draw)
    ids = torch.randint(1, WORDS, (size, LENGTH), generator=draw) * mask
    largest = F.max_pool1d(ids.float(), 3, stride=1, padding=1)
    labels = (largest * TAGS / WORDS).long().masked_fill(~mask, -100)
    columns = {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}
    return [{name: column[row] for name, column in columns.items()} for row in range(size)]


def trained_teacher() -> Tagger:
    """A wide tagger, trained on texts of its own."""
    torch.manual_seed(0)
    teacher, data = Tagger(48), texts(2000, seed=1)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=0.02)
    for batch in DataLoader(data, 50):
        loss = F.cross_entropy(teacher(**batch).flatten(0, 1), batch["labels"].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher


def in_groups(batches: Iterable, size: int) -> Iterator[list]:
    """Lists of so many batches, the micro-batches of a step."""
    group = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    """Share of words in new texts that get the right tag, in percent."""
    batch = default_collate(texts(500, seed=2))
    is_right = network.cpu().eval()(**batch).argmax(dim=2) == batch["labels"]
    return 100 * is_right[batch["labels"] != -100].double().mean().item()
