"""Texts are the model's own: with and without a cache, alone and in a batch, with and without a draft."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import nn

from kdutils.course.gpt import GPT
from kdutils.generate import (
    KeyValueCache,
    SpeculatedTexts,
    generate,
    speculate,
    token_probabilities,
)

V, CONTEXT = 5, 12
PROMPTS = torch.tensor([[1, 2, 3], [4, 0, 1], [2, 2, 2], [0, 3, 4]])
STOP, PAD = 2, 0


def model(seed=0, vocabulary=V, sharpness=12.0):
    """A small GPT with opinions: initial weights alone would leave all tokens about equally likely."""
    gpt = GPT(vocabulary, CONTEXT, depth=2, width=8, num_heads=2, seed=seed).double()
    with torch.no_grad():
        for parameter in gpt.parameters():
            if parameter.dim() == 2:
                parameter.mul_(sharpness)
    return gpt.eval()


TARGET, DRAFT = model(0), model(1)


class Always(nn.Module):
    """Gives the same logits at every position."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


def text_probabilities(gpt, prompt, num_new, **how):
    """The probability of each of the V ** num_new answers to a prompt."""
    answers = torch.tensor(list(itertools.product(range(V), repeat=num_new)))
    texts = torch.cat([prompt.expand(len(answers), -1), answers], dim=1)
    with torch.no_grad():
        p = token_probabilities(gpt(texts)[:, len(prompt) - 1 : -1], **how)
    return p.gather(2, answers[:, :, None])[..., 0].prod(dim=1)


def as_numbers(answers):
    """Answers (N, L) as the places that they have in `text_probabilities`."""
    return sum(column * V**i for i, column in enumerate(reversed(answers.unbind(dim=1))))


def chi_square_p_value(answers, probabilities):
    """How probable counts are that are as far from the expected ones as these; rare texts are one class."""
    counts = torch.bincount(as_numbers(answers), minlength=len(probabilities)).double()
    expected = len(answers) * probabilities
    assert counts[probabilities == 0].sum() == 0, "a text that the model never writes"
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    kept = expected > 0
    statistic = ((counts - expected)[kept] ** 2 / expected[kept]).sum().item()
    return chi2.sf(statistic, int(kept.sum()) - 1)


# Probabilities


def test_probabilities_are_the_softmax_at_the_temperature():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    powers = [math.exp(value / 0.5) for value in (1, 3, 2)]
    expected = torch.tensor([[power / sum(powers) for power in powers]], dtype=torch.float64)
    torch.testing.assert_close(token_probabilities(logits, temperature=0.5), expected)


def test_top_k_leaves_the_best_in_their_proportion():
    logits = torch.tensor([0.0, 2.0, 1.0, 2.0]).double()
    e = math.e
    expected = torch.tensor([0, 0.5, 0, 0.5]).double()
    torch.testing.assert_close(token_probabilities(logits, top_k=2), expected)
    expected = torch.tensor([1, e**2, e, e**2]).double() / (1 + e + 2 * e**2)
    torch.testing.assert_close(token_probabilities(logits, top_k=9), expected)
    assert (token_probabilities(torch.zeros(4), top_k=2) > 0).sum() == 2, "of equal ones, too, k stay"


def test_greedy_is_the_limit_of_the_temperature():
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    greedy = token_probabilities(logits, temperature=0)
    assert torch.equal(greedy.argmax(1), logits.argmax(1)) and torch.equal(greedy.sum(1), torch.ones(20))
    torch.testing.assert_close(token_probabilities(logits, temperature=1e-4), greedy)
    torch.testing.assert_close(token_probabilities(logits, temperature=1e-300), greedy)
    assert torch.equal(token_probabilities(logits, top_k=1), greedy.double())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4) | st.just(-math.inf), min_size=1, max_size=6),
    st.floats(0, 10),
    st.integers(1, 8),
)
def test_probabilities_sum_to_one_whatever_the_logits(values, temperature, k):
    logits = torch.tensor([0.0, *values])
    p = token_probabilities(logits, temperature=temperature, top_k=k)
    assert p.isfinite().all() and (p >= 0).all() and p.sum().item() == pytest.approx(1)
    assert (p > 0).sum() <= k


# One token after the other


def test_greedy_texts_are_those_of_a_loop_by_hand():
    text = PROMPTS
    for _ in range(6):
        text = torch.cat([text, TARGET(text)[:, -1:].argmax(dim=2)], dim=1)
    texts = generate(TARGET, PROMPTS, 6, temperature=0)
    assert torch.equal(texts.tokens, text) and texts.lengths.tolist() == [9] * 4
    assert torch.equal(generate(TARGET, PROMPTS, 6, temperature=1e-9, seed=3).tokens, text)
    assert torch.equal(generate(TARGET, PROMPTS, 6, top_k=1, seed=4).tokens, text)


@pytest.mark.parametrize("how", [{}, {"temperature": 0.6}, {"top_k": 2}, {"temperature": 1.5, "top_k": 3}])
def test_sampled_texts_have_the_models_probabilities(how):
    prompts = PROMPTS[:1].expand(4000, -1)
    answers = generate(TARGET, prompts, 3, seed=1, **how).tokens[:, 3:]
    assert chi_square_p_value(answers, text_probabilities(TARGET, PROMPTS[0], 3, **how)) > 0.01


def test_the_chi_square_notices_another_distribution():
    answers = generate(TARGET, PROMPTS[:1].expand(4000, -1), 3, seed=1).tokens[:, 3:]
    other = text_probabilities(TARGET, PROMPTS[0], 3, temperature=1.4)
    assert chi_square_p_value(answers, other) < 1e-3


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_cache_changes_no_text(temperature):
    def texts(new_cache):
        how = {"temperature": temperature, "stop_token": STOP, "new_cache": new_cache}
        lengths = torch.tensor([3, 1, 2, 3])
        return generate(TARGET, PROMPTS, 8, prompt_lengths=lengths, **how)

    cached, uncached = texts(KeyValueCache), texts(None)
    assert torch.equal(cached.tokens, uncached.tokens) and torch.equal(cached.lengths, uncached.lengths)


def test_with_a_cache_every_token_is_read_once():
    read = []

    def recorded(tokens, cache=None):
        read.append(tokens.shape[1])
        return TARGET(tokens, cache=cache)

    generate(recorded, PROMPTS, 4)
    assert read == [3, 1, 1, 1]
    read.clear()
    generate(recorded, PROMPTS, 4, new_cache=None)
    assert read == [3, 4, 5, 6]


def test_texts_do_not_depend_on_those_beside_them():
    together = generate(TARGET, PROMPTS, 6, stop_token=STOP, seed=5)
    for n in (1, 2, 3):
        few = generate(TARGET, PROMPTS[:n], 6, stop_token=STOP, seed=5)
        assert torch.equal(few.lengths, together.lengths[:n])
        assert torch.equal(few.tokens, together.tokens[:n, : few.tokens.shape[1]])


def test_prompts_of_different_lengths_are_as_if_alone():
    lengths = torch.tensor([1, 3, 2, 3])
    together = generate(TARGET, PROMPTS, 5, prompt_lengths=lengths, temperature=0, pad_token=PAD)
    assert torch.equal(together.lengths, lengths + 5)
    for row, length, prompt in zip(together.tokens, lengths, PROMPTS, strict=True):
        alone = generate(TARGET, prompt[None, :length], 5, temperature=0).tokens[0]
        assert torch.equal(row[: length + 5], alone) and (row[length + 5 :] == PAD).all()
    first = generate(TARGET, PROMPTS, 5, prompt_lengths=lengths, seed=2).tokens[0, :6]
    assert torch.equal(first, generate(TARGET, PROMPTS[:1, :1], 5, seed=2).tokens[0])


def test_what_stands_beside_a_short_prompt_does_not_matter():
    lengths = torch.tensor([1, 1, 2, 2])
    is_padding = torch.arange(3) >= lengths[:, None]
    other = torch.where(is_padding, 4 - PROMPTS, PROMPTS)
    texts = [generate(TARGET, p, 4, prompt_lengths=lengths, seed=1).tokens for p in (PROMPTS, other)]
    assert torch.equal(*texts)


def test_a_text_ends_with_its_stop_token_and_is_padded():
    texts = generate(TARGET, PROMPTS.repeat(8, 1), 8, stop_token=STOP, pad_token=PAD, seed=0)
    free = generate(TARGET, PROMPTS.repeat(8, 1), 8, seed=0)
    assert 3 < texts.lengths.min() < texts.lengths.max(), "some stop early"
    assert texts.tokens.shape[1] == texts.lengths.max()
    for row, length, without in zip(texts.tokens, texts.lengths, free.tokens, strict=True):
        assert torch.equal(row[:length], without[:length])
        answer = row[3:length].tolist()
        assert STOP not in answer[:-1] and (answer[-1] == STOP or len(answer) == 8)
        assert (row[length:] == PAD).all()


def test_a_stop_token_in_the_prompt_stops_nothing():
    prompts = torch.full((1, 3), STOP)
    lengths = torch.tensor([3])
    texts = generate(Always([0.0, 9.0]), prompts % 2, 4, stop_token=0, prompt_lengths=lengths, new_cache=None)
    assert texts.lengths.tolist() == [7]


def test_stopping_at_once_writes_one_token():
    texts = generate(Always([-9.0, 9.0]), PROMPTS % 2, 4, stop_token=1, temperature=0, new_cache=None)
    assert texts.tokens[:, 3:].tolist() == [[1]] * 4 and texts.lengths.tolist() == [4] * 4


def test_the_seed_decides_and_nothing_else_is_drawn():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = generate(TARGET, PROMPTS, 8, seed=1).tokens
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(generate(TARGET, PROMPTS, 8, seed=1).tokens, first)
    assert not torch.equal(generate(TARGET, PROMPTS, 8, seed=2).tokens, first)


def test_a_module_is_in_eval_mode_meanwhile_and_no_gradient_is_kept():
    class Noticing(GPT):
        def forward(self, tokens, cache=None):
            assert not self.training and not torch.is_grad_enabled()
            return super().forward(tokens, cache)

    gpt = Noticing(V, CONTEXT, 1, 8, 2).train()
    texts = generate(gpt, PROMPTS, 2)
    speculate(gpt, gpt, PROMPTS, 2)
    assert gpt.training
    gpt.__class__ = GPT
    gpt(texts.tokens).sum().backward()  # the texts can be learned from
    assert gpt.token_embedding.weight.grad is not None


def test_tokens_that_are_masked_are_never_drawn():
    logits = [-math.inf, 0.0, -math.inf, 0.0, -math.inf]
    tokens = generate(Always(logits), PROMPTS.repeat(50, 1), 8, new_cache=None).tokens[:, 3:]
    assert tokens.unique().tolist() == [1, 3]


# The cache


def test_a_cache_gives_back_all_and_can_forget():
    cache = KeyValueCache()
    assert cache.get_seq_length() == 0
    keys, values = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    cache.update(keys[:, :, :3], values[:, :, :3], 0)
    all_keys, all_values = cache.update(keys[:, :, 3:], values[:, :, 3:], 0)
    assert torch.equal(all_keys, keys) and torch.equal(all_values, values)
    cache.crop(-2)
    assert cache.get_seq_length() == 2
    all_keys, _ = cache.update(keys[:, :, 2:], values[:, :, 2:], 0)
    assert torch.equal(all_keys, keys)


# With a draft


@pytest.mark.parametrize("num_drafted", [1, 3, 20])
@pytest.mark.parametrize("new_cache", [KeyValueCache, None])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 4)])
def test_greedy_texts_are_exactly_the_targets(num_drafted, new_cache, rows):
    how = {"temperature": 0, "stop_token": STOP, "pad_token": PAD, "new_cache": new_cache}
    expected = generate(TARGET, PROMPTS[rows], 8, **how)
    texts = speculate(TARGET, DRAFT, PROMPTS[rows], 8, num_drafted=num_drafted, **how)
    assert torch.equal(texts.tokens, expected.tokens) and torch.equal(texts.lengths, expected.lengths)


@pytest.mark.parametrize("how", [{}, {"temperature": 0.7}, {"top_k": 2}])
@pytest.mark.parametrize("batch_size, num_runs", [(1, 1000), (4, 500)])
def test_sampled_texts_have_the_targets_probabilities(how, batch_size, num_runs):
    """Nothing is lost, whatever the draft: counts of all 125 texts against the target's probabilities."""
    p = text_probabilities(TARGET, PROMPTS[0], 3, **how)
    prompts = PROMPTS[:1].expand(batch_size, -1)
    settings = {"num_drafted": 2, "new_cache": None, **how}
    target, draft = Stored(TARGET), Stored(DRAFT)
    runs = [speculate(target, draft, prompts, 3, seed=seed, **settings) for seed in range(num_runs)]
    answers = torch.cat([run.tokens[:, 3:] for run in runs])
    assert chi_square_p_value(answers, p) > 0.01
    draft_p = text_probabilities(DRAFT, PROMPTS[0], 3, **how)
    assert (p - draft_p).abs().sum() > 0.3, "the draft is another model"
    assert 0.05 < sum(run.num_accepted for run in runs) / sum(run.num_judged for run in runs) < 0.95


class Stored(nn.Module):
    """A model whose answers to the one prompt of the test, with up to three tokens more, are stored."""

    def __init__(self, gpt):
        super().__init__()
        endings = torch.tensor(list(itertools.product(range(V), repeat=3)))
        with torch.no_grad():
            self.logits = gpt(torch.cat([PROMPTS[:1].expand(len(endings), -1), endings], dim=1))

    def forward(self, tokens):
        endings = torch.zeros(len(tokens), 3, dtype=torch.long)
        endings[:, : tokens.shape[1] - 3] = tokens[:, 3:]
        return self.logits[as_numbers(endings)][:, : tokens.shape[1]]


def test_a_draft_that_is_the_target_is_always_right_and_saves_calls():
    texts = speculate(TARGET, TARGET, PROMPTS[:1], 8, num_drafted=3)
    assert texts.num_accepted == texts.num_judged == 6 and texts.num_calls == 2
    assert texts.tokens.shape == (1, 11)


def test_a_draft_that_is_always_wrong_costs_a_call_per_token():
    target, draft = Always([0.0, 9.0]), Always([9.0, 0.0])
    texts = speculate(target, draft, PROMPTS[:1] % 2, 5, num_drafted=2, temperature=0, new_cache=None)
    assert texts.tokens[0, 3:].tolist() == [1] * 5
    assert (texts.num_calls, texts.num_accepted, texts.num_judged) == (5, 0, 4)  # the last call has no draft


def test_acceptance_is_the_overlap_of_the_two_distributions():
    target, draft = Always([0.0, 0.0, 0.0]), Always([2.0, 0.0, -1.0])
    p, q = (m.logits.softmax(0) for m in (target, draft))
    texts = speculate(target, draft, torch.zeros(1, 1, dtype=torch.long), 2000, num_drafted=4, new_cache=None)
    overlap = torch.minimum(p, q).sum().item()
    assert texts.num_accepted / texts.num_judged == pytest.approx(overlap, abs=0.03)
    tokens_per_call = (1 - overlap**5) / (1 - overlap)  # Leviathan et al. 2023, eq. 1
    assert 2000 / texts.num_calls == pytest.approx(tokens_per_call, rel=0.05)


def test_only_texts_that_are_open_are_counted_and_awaited():
    target, draft = Always([0.0, 9.0]), Always([0.0, 9.0])
    prompts = torch.zeros(2, 1, dtype=torch.long)
    texts = speculate(target, draft, prompts, 9, num_drafted=3, temperature=0, stop_token=1, new_cache=None)
    assert texts == SpeculatedTexts(texts.tokens, texts.lengths, 1, 6, 6)
    assert texts.tokens.tolist() == [[0, 1], [0, 1]] and texts.lengths.tolist() == [2, 2]


def test_with_a_cache_the_target_reads_every_token_about_once():
    read = []

    def recorded(tokens, cache=None):
        read.append(tokens.shape[1])
        return TARGET(tokens, cache=cache)

    texts = speculate(recorded, DRAFT, PROMPTS[:1], 8, num_drafted=2, temperature=0)
    assert read[0] == 5 and set(read[1:]) <= {1, 2, 3} and len(read) == texts.num_calls


def test_speculated_texts_have_a_seed():
    texts = [speculate(TARGET, DRAFT, PROMPTS, 8, seed=seed).tokens for seed in (1, 1, 2)]
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


def test_a_cache_changes_no_speculated_text():
    texts = [
        speculate(TARGET, DRAFT, PROMPTS, 8, stop_token=STOP, new_cache=c) for c in (KeyValueCache, None)
    ]
    assert torch.equal(texts[0].tokens, texts[1].tokens) and texts[0][2:] == texts[1][2:]


# Models of other houses


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")
def test_a_model_of_transformers_needs_one_line():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    llama = transformers.LlamaForCausalLM(config).double().eval()

    def read(tokens, cache=None):
        return llama(tokens, past_key_values=cache).logits

    how = {"stop_token": STOP, "pad_token": PAD}
    cached = generate(read, PROMPTS, 6, new_cache=transformers.DynamicCache, **how)
    assert torch.equal(cached.tokens, generate(read, PROMPTS, 6, new_cache=None, **how).tokens)
    is_read = torch.ones_like(PROMPTS)  # else they take tokens that are the padding's for padding
    theirs = llama.generate(PROMPTS, attention_mask=is_read, max_new_tokens=6, do_sample=False)
    how = {"temperature": 0, "new_cache": transformers.DynamicCache}
    assert torch.equal(generate(read, PROMPTS, 6, **how).tokens, theirs)
    assert torch.equal(speculate(read, read, PROMPTS, 6, **how).tokens, theirs)


# Bad input

BAD = {
    "prompts: expected a tensor, got a list": {"prompts": [[1, 2]]},
    r"prompts: expected shape \(N, L\), none of them 0, got \(3,\)": {"prompts": torch.tensor([1, 2, 3])},
    r"none of them 0, got \(2, 0\)": {"prompts": torch.zeros(2, 0, dtype=torch.long)},
    "prompts: expected token ids of an integer dtype, got torch.float32": {"prompts": torch.zeros(1, 2)},
    "prompts: expected token ids >= 0, got -1": {"prompts": torch.tensor([[1, -1]])},
    "num_new: expected a whole number >= 1, got 0": {"num_new": 0},
    "num_new: expected a whole number >= 1, got 2.5": {"num_new": 2.5},
    "temperature: expected a number >= 0, got -1": {"temperature": -1},
    "temperature: expected a number >= 0, got nan": {"temperature": math.nan},
    "top_k: expected a whole number >= 1, got 0": {"top_k": 0},
    "stop_token: expected a token's id, got -1": {"stop_token": -1},
    "stop_token: expected a token's id, got '.'": {"stop_token": "."},
    "pad_token: expected a token's id, got None": {"pad_token": None},
    "seed: expected a whole number, got None": {"seed": None},
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_arguments_are_named(sentence):
    arguments = {"prompts": PROMPTS, "num_new": 3, **BAD[sentence]}
    with pytest.raises(ValueError, match=sentence):
        generate(TARGET, **arguments)
    with pytest.raises(ValueError, match=sentence):
        speculate(TARGET, DRAFT, **arguments)


@pytest.mark.parametrize(
    "lengths, sentence",
    [
        (torch.tensor([1, 2]), r"prompt_lengths: expected shape \(4,\), got \(2,\)"),
        (torch.tensor([1, 2, 3, 4]), "prompt_lengths: expected lengths from 1 to 3, got values from 1 to 4"),
        (torch.tensor([0, 2, 3, 3]), "prompt_lengths: expected lengths from 1 to 3, got values from 0 to 3"),
        (torch.ones(4), "prompt_lengths: expected an integer dtype, got torch.float32"),
    ],
)
def test_bad_lengths_are_named(lengths, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(TARGET, PROMPTS, 3, prompt_lengths=lengths)


def test_bad_logits_are_named():
    with pytest.raises(ValueError, match="logits: expected numbers, got 4 NaN"):
        generate(Always([0.0, math.nan]), PROMPTS % 2, 2, new_cache=None)
    with pytest.raises(ValueError, match="logits: expected at least one token that is not −inf"):
        generate(Always([-math.inf, -math.inf]), PROMPTS % 2, 2, new_cache=None)
    with pytest.raises(ValueError, match=r"model\(tokens\): expected logits \(4, 3, 'V'\), got \(4, 3\)"):
        generate(lambda tokens: tokens.float(), PROMPTS, 2, new_cache=None)
    with pytest.raises(ValueError, match=r"logits: expected shape \(\.\.\., V\)"):
        token_probabilities(torch.tensor(1.0))


def test_other_vocabularies_are_refused_with_advice():
    with pytest.raises(ValueError, match="draft: expected logits of V = 5 tokens as the target's, got 7"):
        speculate(Always([0.0] * V), Always([0.0] * 7), PROMPTS, 4, new_cache=None)


def test_num_drafted_is_a_count():
    with pytest.raises(ValueError, match="num_drafted: expected a whole number >= 1, got 0"):
        speculate(TARGET, DRAFT, PROMPTS, 4, num_drafted=0)


def test_a_text_longer_than_the_context_is_refused_by_the_model():
    with pytest.raises(ValueError, match="expected at most 12 tokens, got 13"):
        generate(TARGET, PROMPTS, 11)
    assert generate(TARGET, PROMPTS, 10).tokens.shape == (4, 13), "the last token is not read"
