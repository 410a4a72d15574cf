"""The GPT looks back only, remembers with a cache what it would read, and has the size that it states."""

import pytest
import torch

from kdutils.course.gpt import GPT
from kdutils.generate import KeyValueCache

V, CONTEXT = 11, 9
TOKENS = torch.randint(V, (3, CONTEXT), generator=torch.Generator().manual_seed(0))


def gpt(seed=0, **sizes):
    model = GPT(
        **{"vocabulary": V, "context": CONTEXT, "depth": 2, "width": 12, "num_heads": 3, **sizes}, seed=seed
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # initial weights would hide what differs
    return model.double().eval()


def test_later_tokens_change_nothing():
    model = gpt()
    before = model(TOKENS)
    for place in range(1, CONTEXT):
        other = TOKENS.clone()
        other[:, place:] = (other[:, place:] + 1) % V
        after = model(other)
        torch.testing.assert_close(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place:], before[:, place:])


def test_no_gradient_reaches_later_tokens():
    model = gpt()
    read = []
    model.token_embedding.register_forward_hook(lambda module, inputs, output: read.append(output))
    logits = model(TOKENS)
    (gradient,) = torch.autograd.grad(logits[:, 4].sum(), read)
    assert (gradient[:, :5].abs().sum(dim=2) > 0).all() and (gradient[:, 5:] == 0).all()


def test_earlier_tokens_matter_and_so_does_their_order():
    model = gpt()
    last = model(TOKENS)[:, -1]
    for place in range(CONTEXT):
        other = TOKENS.clone()
        other[:, place] = (other[:, place] + 1) % V
        assert not torch.allclose(model(other)[:, -1], last)
    swapped = TOKENS[:, [1, 0, *range(2, CONTEXT)]]
    assert not torch.allclose(model(swapped)[0, -1], last[0])


@pytest.mark.parametrize("cuts", [[1] * CONTEXT, [4, 5], [3, 1, 2, 3], [CONTEXT]])
def test_a_cache_gives_the_logits_of_the_whole_text(cuts):
    model, cache = gpt(), KeyValueCache()
    pieces = [model(piece, cache) for piece in TOKENS.split(cuts, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(TOKENS))
    assert cache.get_seq_length() == CONTEXT


def test_a_cache_that_forgot_is_as_if_it_had_never_read():
    model, cache = gpt(), KeyValueCache()
    model(TOKENS[:, :7], cache)
    cache.crop(-3)
    other = (TOKENS[:, 4:6] + 1) % V
    expected = model(torch.cat([TOKENS[:, :4], other], dim=1))[:, 4:]
    torch.testing.assert_close(model(other, cache), expected)


def test_a_text_alone_is_the_same_as_in_a_batch():
    model = gpt()
    torch.testing.assert_close(model(TOKENS[1:2, :5]), model(TOKENS)[1:2, :5])


@pytest.mark.parametrize("depth, width, num_heads", [(1, 8, 2), (2, 48, 4), (4, 128, 4)])
def test_parameters_are_those_that_the_docstring_states(depth, width, num_heads):
    model = GPT(V, CONTEXT, depth, width, num_heads)
    stated = depth * (12 * width**2 + 13 * width) + (V + CONTEXT + 2) * width
    assert sum(parameter.numel() for parameter in model.parameters()) == stated


def test_an_untrained_gpt_finds_all_tokens_about_equally_likely():
    p = GPT(V, CONTEXT, 4, 64)(TOKENS).softmax(dim=2)
    assert p.min() > 0.3 / V and p.max() < 3 / V


def test_the_seed_decides_and_nothing_else_is_drawn():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = gpt(seed=7)(TOKENS)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(gpt(seed=7)(TOKENS), first)
    assert not torch.allclose(gpt(seed=8)(TOKENS), first)


def test_more_tokens_than_places_are_refused():
    model, cache = gpt(), KeyValueCache()
    model(TOKENS, cache)
    with pytest.raises(ValueError, match=f"tokens: expected at most {CONTEXT} tokens, got {CONTEXT + 1}"):
        model(TOKENS[:, :1], cache)


@pytest.mark.parametrize("sizes", [{"width": 10}, {"depth": 0}, {"vocabulary": 0}])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="vocabulary, context, depth, width, num_heads: expected whole"):
        gpt(**sizes)


def test_half_precision_gives_logits_too():
    model = GPT(V, CONTEXT, 1, 8, 2).bfloat16()
    assert model(TOKENS).dtype == torch.bfloat16


def test_initial_weights_are_as_large_as_asked_for():
    small, large = (GPT(50, 20, depth=2, width=32, seed=3, std=std) for std in (0.02, 0.1))
    for before, after in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(after, 5 * before if before.dim() == 2 else before)
