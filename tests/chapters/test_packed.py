"""Packed layers compute what their codes say; a packed model is smaller and writes alike."""

import pytest
import torch
from torch import nn

from kdutils.course import packed
from kdutils.course.packed import PackedEmbedding, PackedLinear, PackedWeight, size_mb
from kdutils.generate import generate

transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}


def small_llama(**settings):
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "vocab_size": 320, "tie_word_embeddings": True}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **(sizes | settings))).eval()


def weight(seed=0, rows=48):
    return torch.randn(rows, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("bits", "block"), [(8, 32), (4, 32), (4, 64), (8, 64)])
def test_rows_are_within_half_a_step_of_the_weights(bits, block):
    matrix = weight()
    stored = PackedWeight(matrix, bits, block)
    steps = stored.scales.repeat_interleave(block, dim=1)
    assert ((stored.rows(torch.arange(48)) - matrix).abs() <= 0.5001 * steps).all()


def test_what_lies_on_the_grid_already_is_kept():
    grid = PackedWeight(weight(), 4).rows(torch.arange(48))
    torch.testing.assert_close(PackedWeight(grid, 4).rows(torch.arange(48)), grid)
    assert not torch.allclose(PackedWeight(grid, 4, block=64).rows(torch.arange(48)), grid, atol=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_large_matrix_is_packed_in_pieces_as_in_one(bits):
    matrix = weight(rows=5000)
    whole, last = PackedWeight(matrix, bits), PackedWeight(matrix[4990:], bits)
    assert torch.equal(whole.codes[4990:], last.codes)
    assert whole.codes.shape == (5000, 2, 32 if bits == 8 else 16)


@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64), (1, 1, 64)])
@pytest.mark.parametrize("bits", [8, 4])
def test_the_product_is_that_of_the_rows(bits, shape):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    stored = PackedWeight(weight(), bits)
    expected = inputs @ stored.rows(torch.arange(48)).T
    got = PackedLinear(stored)(inputs)
    assert got.shape == (*shape[:-1], 48)
    assert (got - expected).abs().max() < 0.03 * expected.abs().max()  # inputs are rounded to int8


@pytest.mark.parametrize("bits", [8, 4])
def test_a_packed_model_is_smaller_and_answers_alike(bits):
    model = small_llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = packed.packed(model, bits)
    tokens = torch.arange(20).view(2, 10)
    with torch.no_grad():
        expected, got = model(tokens).logits, small(tokens).logits
    assert (got - expected).abs().max() < {8: 0.03, 4: 0.3}[bits] * expected.abs().max()
    assert size_mb(small) < 0.5 * size_mb(model)
    assert type(small.model.embed_tokens) is PackedEmbedding
    assert not [module for module in small.modules() if isinstance(module, nn.Linear)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model.lm_head, nn.Linear)


def test_a_packed_model_writes_with_a_cache():
    from kdutils.course.smollm import reader

    small = packed.packed(small_llama(), 8)
    with_cache = generate(
        reader(small), torch.tensor([[1, 2, 3]]), 5, temperature=0, new_cache=transformers.DynamicCache
    )
    without = generate(
        lambda tokens: reader(small)(tokens), torch.tensor([[1, 2, 3]]), 5, temperature=0, new_cache=None
    )
    assert torch.equal(with_cache.tokens, without.tokens)


def test_layers_can_be_kept_in_8_bits():
    model = small_llama()
    coarse, mixed, fine = packed.packed(model, 4), packed.packed(model, 4, finer=[1]), packed.packed(model, 8)
    sizes = [size_mb(some) for some in (coarse, mixed, fine)]
    assert sizes[1] == pytest.approx((sizes[0] + sizes[2]) / 2)
    assert [layer.mlp.up_proj.size_mb for layer in mixed.model.layers] == [
        coarse.model.layers[0].mlp.up_proj.size_mb,
        fine.model.layers[1].mlp.up_proj.size_mb,
    ]


def test_the_size_is_counted_from_what_is_stored():
    stored = PackedWeight(weight(), 4)
    assert stored.size_mb == (48 * 32 + 48 * 2 * 4 * 2) / 1e6
    assert size_mb(nn.Linear(10, 5, bias=False)) == 200 / 1e6


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ValueError, match="bits: expected 4 or 8, got 3"):
        PackedWeight(weight(), 3)
    with pytest.raises(ValueError, match="K a multiple of 32, got"):
        PackedWeight(torch.zeros(4, 33), 4)
    with pytest.raises(ValueError, match="a head that shares the embeddings' matrix"):
        packed.packed(small_llama(tie_word_embeddings=False), 8)
    with pytest.raises(ValueError, match="without a bias, but q_proj has one"):
        packed.packed(small_llama(attention_bias=True), 8)
