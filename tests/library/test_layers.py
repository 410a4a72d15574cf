"""A student cut out of its teacher's layers."""

import copy
from types import SimpleNamespace

import loss_facts as facts
import pytest
import torch
from torch import nn

from kdutils.layers import student_from_teacher

WIDTH = 4


class Encoder(nn.Module):
    """Embeddings, layers and a head tied to the embeddings, built like BERT's."""

    def __init__(self, depth=6):
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=depth, hidden_size=WIDTH)
        self.embeddings = nn.Embedding(11, WIDTH)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.decoder = nn.Linear(WIDTH, 11)
        self.decoder.weight = self.embeddings.weight

    def forward(self, tokens):
        hidden = self.embeddings(tokens)
        for layer in self.encoder.layer:
            hidden = hidden + layer(hidden).tanh()
        return self.decoder(hidden)


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return Encoder().requires_grad_(False).eval()


TOKENS = torch.arange(8).view(2, 4)


@pytest.mark.parametrize("layers", [(0, 2, 4), (0, 1, 2), [5], range(6), (4, 1)])
def test_the_kept_layers_equal_the_teachers(teacher, layers):
    student = student_from_teacher(teacher, layers)
    assert len(student.encoder.layer) == len(layers)
    for layer, kept in zip(student.encoder.layer, layers, strict=True):
        for name, parameter in layer.named_parameters():
            assert torch.equal(parameter, teacher.encoder.layer[kept].get_parameter(name))
    assert torch.equal(student.embeddings.weight, teacher.embeddings.weight)
    assert torch.equal(student.decoder.bias, teacher.decoder.bias)


def test_the_student_with_all_layers_answers_as_the_teacher_and_with_fewer_does_not(teacher):
    assert torch.equal(student_from_teacher(teacher, range(6))(TOKENS), teacher(TOKENS))
    expected = teacher.embeddings(TOKENS)
    for i in (0, 3):
        expected = expected + teacher.encoder.layer[i](expected).tanh()
    assert torch.equal(student_from_teacher(teacher, (0, 3))(TOKENS), teacher.decoder(expected))


def test_the_student_has_a_depth_and_a_memory_of_its_own(teacher):
    before = copy.deepcopy(teacher.state_dict())
    student = student_from_teacher(teacher, (0, 2))
    assert (student.config.num_hidden_layers, teacher.config.num_hidden_layers) == (2, 6)
    assert student.config.hidden_size == WIDTH
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])
    assert len(teacher.encoder.layer) == 6


def test_tied_weights_stay_tied(teacher):
    first, _, third, *_ = teacher.encoder.layer
    teacher.pooler = nn.Linear(WIDTH, WIDTH)
    teacher.pooler.weight = third.weight = first.weight
    student = student_from_teacher(teacher, (0, 2))
    assert student.decoder.weight is student.embeddings.weight
    first, second = student.encoder.layer
    assert second.weight is first.weight and student.pooler.weight is first.weight


def test_the_student_of_a_frozen_teacher_trains(teacher):
    student = student_from_teacher(teacher, (1, 3))
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    student(TOKENS).sum().backward()
    assert student.encoder.layer[0].weight.grad.abs().max() > 0


def test_a_student_can_be_cut_again(teacher):
    student = student_from_teacher(student_from_teacher(teacher, (1, 3, 5)), (0, 2))
    assert torch.equal(student.encoder.layer[1].weight, teacher.encoder.layer[5].weight)


@pytest.mark.parametrize("layers", [(), (0, 6), (-1, 0), (2, 2), (0, 0.5)])
def test_rejects_layers_that_are_not_there(teacher, layers):
    sentence = facts.assert_rejects(student_from_teacher, teacher, layers, naming="layers")
    assert "from 0 to 5" in sentence and str(list(layers)) in sentence


def test_rejects_what_is_no_encoder(teacher):
    facts.assert_rejects(student_from_teacher, nn.Linear(2, 2), (0,), naming="teacher")
    teacher.config.num_hidden_layers = 5
    sentence = facts.assert_rejects(student_from_teacher, teacher, (0,), naming="teacher")
    assert sentence == (
        "teacher: expected an encoder with one ModuleList of config.num_hidden_layers layers, "
        "got Encoder with num_hidden_layers 5 and ModuleLists of length [6]"
    )
    teacher.config.num_hidden_layers = 6
    teacher.twin = nn.ModuleList(nn.Linear(1, 1) for _ in range(6))
    facts.assert_rejects(student_from_teacher, teacher, (0,), naming="teacher")
