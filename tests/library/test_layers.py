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
        "teacher: expected a transformer with one ModuleList of config.num_hidden_layers layers, "
        "got Encoder with num_hidden_layers 5 and ModuleLists of length [6]"
    )
    teacher.config.num_hidden_layers = 6
    teacher.twin = nn.ModuleList(nn.Linear(1, 1) for _ in range(6))
    facts.assert_rejects(student_from_teacher, teacher, (0,), naming="teacher")


# Layers that know their place


class Numbered(Encoder):
    """Layers that write into a cache at the place they know, and a config that tells what each of them is."""

    def __init__(self):
        super().__init__()
        self.config.layer_types = list("abcdef")
        self.config.conv_layers = (7, 7)
        self.config.label_types = ["x", "y"]
        for place, layer in enumerate(self.encoder.layer):
            layer.layer_idx, layer.inner_size = place, 3
            layer.attention = nn.Identity()
            layer.attention.layer_id = place


def test_layers_are_numbered_anew_and_the_config_tells_of_those_that_are_there():
    teacher = Numbered()
    student = student_from_teacher(teacher, (4, 1, 3))
    assert [layer.layer_idx for layer in student.encoder.layer] == [0, 1, 2]
    assert [layer.attention.layer_id for layer in student.encoder.layer] == [0, 1, 2]
    assert [layer.inner_size for layer in student.encoder.layer] == [3, 3, 3]
    assert student.config.layer_types == ["e", "b", "d"]
    assert student.config.conv_layers == (7, 7) and student.config.label_types == ["x", "y"]
    assert [layer.layer_idx for layer in teacher.encoder.layer] == list(range(6))
    assert teacher.config.layer_types == list("abcdef")


# Architectures


WIDTHS = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 2}
GROUPED = WIDTHS | HEADS | {"num_key_value_heads": 1}
HEAD_SIZE = {"head_dim": 8}
MODERN = {"global_attn_every_n_layers": 3, "local_attention": 4, "pad_token_id": 0}
OPT = {"word_embed_proj_dim": 16, "ffn_dim": 24, "max_position_embeddings": 32}
GPT = {"vocab_size": 50, "n_embd": 16, "n_layer": 4, "n_head": 2}
PATCHES = {"image_size": 8, "patch_size": 4}
CONVOLUTIONS = {"conv_dim": [8] * 3, "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2]}
POSITIONS = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
LOCAL = {"sliding_window": 3}
BOTH_SIDES = {
    f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 4), ("ffn_dim", 24))
}
BOTH_HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}

# name of the class, settings of its config
ENCODERS = {
    "BertForMaskedLM": WIDTHS | HEADS,
    "RobertaForSequenceClassification": WIDTHS | HEADS,
    "DistilBertForMaskedLM": {"vocab_size": 50, "dim": 16, "hidden_dim": 24, "n_layers": 4, "n_heads": 2},
    "ElectraModel": WIDTHS | HEADS | {"embedding_size": 8},
    "DebertaV2Model": WIDTHS | HEADS | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "ModernBertForMaskedLM": WIDTHS | HEADS | MODERN,
    "ViTForImageClassification": WIDTHS | HEADS | PATCHES,
    "Wav2Vec2Model": WIDTHS | HEADS | CONVOLUTIONS | POSITIONS,
}
DECODERS = {
    "GPT2LMHeadModel": GPT,
    "LlamaForCausalLM": GROUPED,
    "Qwen2ForCausalLM": GROUPED | LOCAL | {"use_sliding_window": True, "max_window_layers": 2},
    "MistralForCausalLM": GROUPED | LOCAL,
    "MixtralForCausalLM": GROUPED | {"num_local_experts": 3},
    "OPTForCausalLM": WIDTHS | HEADS | OPT,
    "GPTNeoXForCausalLM": WIDTHS | HEADS,
    "Gemma2ForCausalLM": GROUPED | HEAD_SIZE | LOCAL,
    "Gemma3ForCausalLM": GROUPED | HEAD_SIZE | LOCAL | {"sliding_window_pattern": 2},
    "SmolLM3ForCausalLM": GROUPED | {"no_rope_layer_interval": 2, "pad_token_id": 0},
}
REFUSED = {
    "AlbertModel": WIDTHS | HEADS,
    "CLIPModel": {"text_config": WIDTHS | HEADS, "vision_config": WIDTHS | HEADS | PATCHES},
    "SwinModel": {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]},
    "T5Model": {"vocab_size": 50, "d_model": 16, "d_ff": 24, "num_layers": 4, "num_heads": 2},
    "BartModel": {"vocab_size": 50, "d_model": 16} | BOTH_SIDES | BOTH_HEADS,
    "WhisperModel": {"vocab_size": 50, "d_model": 16, "pad_token_id": 0} | BOTH_SIDES | BOTH_HEADS,
}


@pytest.fixture
def made():
    """Makes a random transformer in eval mode from the name of its class and its config's settings."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    def make(name, settings):
        network_class = getattr(transformers, name)
        torch.manual_seed(0)
        network = network_class(network_class.config_class(**settings)).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.3)  # so that layers and masks matter
        return network

    return make


@torch.no_grad()
def answer(network, **settings):
    if "ViT" in type(network).__name__:
        return network(pixel_values=torch.ones(1, 3, 8, 8))[0]
    if "Wav2Vec2" in type(network).__name__:
        return network(input_values=torch.linspace(-1, 1, 800).sin()[None])[0]
    return network(input_ids=torch.arange(3, 15).view(1, 12), **settings)[0]


def without(teacher, left_out):
    """The teacher, in which these layers hand on what they get, so that all others stay where they were."""
    teacher = copy.deepcopy(teacher)
    lists = [module for module in teacher.modules() if isinstance(module, nn.ModuleList)]
    stack = max(lists, key=lambda stack: sum(p.numel() for p in stack.parameters()))
    for place in left_out:
        stack[place].forward = passes_on(stack[place].forward)
    return teacher


def passes_on(forward):
    def new(hidden_states, *rest, **settings):
        output = forward(hidden_states, *rest, **settings)
        return hidden_states if torch.is_tensor(output) else (hidden_states, *output[1:])

    return new


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_the_student_computes_what_the_teacher_does_without_the_other_layers(made, name, tmp_path):
    teacher = made(name, (ENCODERS | DECODERS)[name])
    kept = (0, 3) if "ModernBert" in name else (1, 3)
    student = student_from_teacher(teacher, kept)
    expected = answer(without(teacher, {0, 1, 2, 3} - set(kept)))
    assert (expected - answer(teacher)).abs().max() > 1e-3
    torch.testing.assert_close(answer(student), expected)
    student.save_pretrained(tmp_path)
    torch.testing.assert_close(answer(type(student).from_pretrained(tmp_path).eval()), expected)


@pytest.mark.parametrize("name", DECODERS)
def test_a_cut_decoder_writes_with_its_cache_what_it_writes_without(made, name):
    student = student_from_teacher(made(name, DECODERS[name]), (1, 3))
    settings = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    start = torch.arange(3, 12).view(1, 9)
    cached, plain = (student.generate(start, use_cache=use, **settings) for use in (True, False))
    assert cached.shape == (1, 14) and torch.equal(cached, plain)


@pytest.mark.parametrize("name", REFUSED)
def test_networks_with_other_stacks_of_layers_are_refused(made, name):
    with pytest.raises(
        ValueError, match=r"^teacher: expected a transformer with one ModuleList of config\.num_"
    ):
        student_from_teacher(made(name, REFUSED[name]), (1, 3))


def test_layers_that_no_config_describes_at_their_new_place_are_refused(made):
    modern_bert = made("ModernBertForMaskedLM", ENCODERS["ModernBertForMaskedLM"])
    told = r"^layers: .* of ModernBertForMaskedLM .*, got \[1, 3\]: layer 1 at place 0 .* another attn_norm$"
    with pytest.raises(ValueError, match=told):  # only the first has no norm before its attention
        student_from_teacher(modern_bert, [1, 3])
    gpt2 = made("GPT2LMHeadModel", GPT | {"scale_attn_by_inverse_layer_idx": True})
    with pytest.raises(
        ValueError, match=r"^teacher: expected layers that compute the same at any place, got a"
    ):
        student_from_teacher(gpt2, [1, 3])


def test_what_was_changed_in_a_teacher_since_it_was_made_is_no_reason_to_refuse(made):
    teacher = made("BertForMaskedLM", ENCODERS["BertForMaskedLM"])
    for module in teacher.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    student = student_from_teacher(teacher, (1, 3))
    assert {module.p for module in student.modules() if isinstance(module, nn.Dropout)} == {0.3}


def test_a_class_of_ones_own_that_takes_more_than_a_config_is_cut(made):
    network_class = type(made("BertForMaskedLM", ENCODERS["BertForMaskedLM"]))

    class WithHead(network_class):
        def __init__(self, config, width):
            super().__init__(config)
            self.head = nn.Linear(config.hidden_size, width)

    torch.manual_seed(0)
    teacher = WithHead(network_class.config_class(**WIDTHS, **HEADS), 3)
    assert len(student_from_teacher(teacher, (0, 2)).bert.encoder.layer) == 2


def test_cutting_draws_no_random_numbers(made):
    teacher = made("BertForMaskedLM", ENCODERS["BertForMaskedLM"])
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    student_from_teacher(teacher, (1, 3))
    assert torch.equal(torch.rand(3), expected)
