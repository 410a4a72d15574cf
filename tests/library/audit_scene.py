"""Small networks, a teacher that differs from image to image, and batches, for the tests of the audit."""

import torch
import torch.nn.functional as F
from torch import nn

from kdutils.course import models
from kdutils.taps import FeatureTap

N, K = 24, 6
IMAGES = torch.randn(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(width=4, seed=0, num_outputs=K):
    return models.ConvNet(widths=(width, width), depths=(1, 1), seed=seed, num_classes=num_outputs)


def trained_network(width=6, seed=1, num_outputs=K):
    """A network whose answers differ from image to image, as a trained one's do, with settled batch norm."""
    made = network(width, seed, num_outputs)
    for _ in range(40):
        made(IMAGES)
    with torch.no_grad():
        made.classifier.weight *= 10
        made.classifier.bias.copy_(-(made.eval()(IMAGES)).mean(dim=0))
    return made.requires_grad_(False)


TEACHER = trained_network()
LOGITS = TEACHER(IMAGES)
LABELS = LOGITS.argmax(dim=1)
CACHED = (IMAGES, LABELS, LOGITS)

TOKENS = torch.randint(50, (N, 5), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(5) < torch.randint(2, 6, (N, 1), generator=torch.Generator().manual_seed(1))).long()


class Tagger(nn.Module):
    """Tokens (N, L) to logits (N, L, K)."""

    def __init__(self, width, seed):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding, self.linear = nn.Embedding(50, width), nn.Linear(width, K)

    def forward(self, tokens):
        return self.linear(self.embedding(tokens))


def log_p(logits, temperature):
    return F.log_softmax(logits / temperature, dim=1)


def kl(s, t, temperature=4.0, reduction="batchmean"):
    """The divergence without T²."""
    return F.kl_div(log_p(s, temperature), log_p(t, temperature), log_target=True, reduction=reduction)


def kd(s, t, temperature=4.0):
    return temperature**2 * kl(s, t.detach(), temperature)


def on_logits(loss):
    """A loss_fn out of a loss of (student_logits, teacher_logits, labels)."""
    return lambda student, images, labels, teacher_logits: loss(student(images), teacher_logits, labels)


def mixed(soft, soft_weight=0.9, hard_weight=0.1):
    """A loss_fn out of the labels' cross-entropy and a soft loss of (student_logits, teacher_logits)."""
    return on_logits(lambda s, t, y: soft_weight * soft(s, t) + hard_weight * F.cross_entropy(s, y))


def with_features(loss, hard_weight=0.0, student_layer="stages.0", teacher_layer="stages.0"):
    """A loss_fn out of a loss of (student_features, teacher_features), both tapped as they arise."""

    def loss_fn(student, images, labels):
        with FeatureTap(student, {"layer": student_layer}) as tap:
            logits = student(images)
        with FeatureTap(TEACHER, {"layer": teacher_layer}) as teacher_tap, torch.no_grad():
            TEACHER(images)
        return loss(tap["layer"], teacher_tap["layer"]) + hard_weight * F.cross_entropy(logits, labels)

    return loss_fn


def only(slips):
    assert len(slips) == 1, slips
    return slips[0]
