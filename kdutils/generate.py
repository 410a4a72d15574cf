"""Text from language models: sampling with a key–value cache, and speculative decoding.

A model here is anything that is called as `model(tokens, cache=cache)` and gives logits (N, L, V) for the
tokens (N, L): those at position t are about token t + 1. The cache remembers what was read before, so that
only new tokens are passed on. A model of Hugging Face's `transformers` needs one line around it:

    def read(tokens, cache=None):
        return model(tokens, past_key_values=cache).logits  # from 5.24 on: cache=cache

and `new_cache=transformers.DynamicCache`. A model without a cache is called as `model(tokens)` with the whole
text, `new_cache=None`.

N is the batch, L the number of tokens, V the size of the vocabulary. No gradient flows through a text.
"""

from collections.abc import Callable
from contextlib import ExitStack
from numbers import Integral
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._modes import eval_mode
from kdutils._validate import (
    INTEGER,
    description,
    number,
    require_count,
    require_floating,
    require_tensor,
)


class KeyValueCache:
    """Keys and values of all tokens read so far, by layer. Its methods are named as in `transformers`."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def get_seq_length(self) -> int:
        """How many tokens were read."""
        return next(iter(self.layers.values()))[0].shape[-2] if self.layers else 0

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Adds those of new tokens, each (N, heads, L, D), and gives back those of all."""
        if layer in self.layers:
            old_keys, old_values = self.layers[layer]
            keys, values = torch.cat([old_keys, keys], dim=-2), torch.cat([old_values, values], dim=-2)
        self.layers[layer] = keys, values
        return keys, values

    def crop(self, change: int) -> None:
        """Forgets the last tokens; −3 forgets three."""
        for layer, (keys, values) in self.layers.items():
            self.layers[layer] = keys[..., :change, :], values[..., :change, :]


class Texts(NamedTuple):
    """What was written.

    Attributes:
        tokens: Prompts and what follows them, shape (N, L), after the end of a text `pad_token`.
        lengths: Tokens of each text, shape (N,), prompt and stop token included.
    """

    tokens: Tensor
    lengths: Tensor


class SpeculatedTexts(NamedTuple):
    """What was written, and how often the draft was right.

    Attributes:
        tokens: As in `Texts`.
        lengths: As in `Texts`.
        num_calls: How often the target was called.
        num_judged: Drafted tokens that the target came to judge, in all texts: up to the first it refused.
        num_accepted: How many of these it accepted.
    """

    tokens: Tensor
    lengths: Tensor
    num_calls: int
    num_judged: int
    num_accepted: int


def token_probabilities(logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """The probabilities that a sampler draws from: softmax(logits / T) over the best k tokens.

    Args:
        logits: Shape (..., V).
        temperature: T >= 0. Below 1 likely tokens become likelier; 0 is the limit, all on the first of the
            likeliest tokens (greedy).
        top_k: How many tokens may be drawn; None for all.

    Returns:
        Probabilities of the same shape, in float64 where the device has it.

    Raises:
        ValueError: Logits that are not floating or contain NaN, or a setting that is not as described.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", sec. 3.2 and 3.3, for top-k
    and temperature.
    """
    require_floating("logits", logits)
    temperature = float(number("temperature", temperature, "a number >= 0", lambda value: value >= 0))
    if logits.dim() == 0 or logits.numel() == 0:
        raise ValueError(f"logits: expected shape (..., V), none of them 0, got {tuple(logits.shape)}")
    if top_k is not None:
        require_count("top_k", top_k)
    logits = logits.to(_precise(logits.device))
    if logits.isnan().any():
        raise ValueError(f"logits: expected numbers, got {int(logits.isnan().sum())} NaN")
    if (logits.amax(dim=-1) == -torch.inf).any():
        raise ValueError("logits: expected at least one token that is not −inf")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    if top_k is not None and top_k < logits.shape[-1]:
        best = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)
    largest = logits.amax(dim=-1, keepdim=True)
    return ((logits - largest) / temperature).softmax(dim=-1)


@torch.no_grad()
def generate(
    model: Callable[..., Tensor],
    prompts: Tensor,
    num_new: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    stop_token: int | None = None,
    pad_token: int = 0,
    prompt_lengths: Tensor | None = None,
    seed: int = 0,
    new_cache: Callable[[], Any] | None = KeyValueCache,
) -> Texts:
    """Writes on from prompts, one token after the other, all texts at once.

    Every text has random numbers of its own. So it does not depend on the texts beside it: the first texts of
    a larger batch are those of a smaller one, and texts that differ in length do not disturb each other.

    Args:
        model: Called as the module says; a module is put into eval mode meanwhile.
        prompts: Shape (N, L), L >= 1.
        num_new: The most tokens to write after each prompt.
        temperature: As in `token_probabilities`; 0 is greedy.
        top_k: As in `token_probabilities`.
        stop_token: A text ends with this token; None for texts of `num_new` tokens.
        pad_token: What stands after the end of a text.
        prompt_lengths: How many tokens of each row are its prompt, shape (N,), the rest being padding; None
            for all.
        seed: The same seed gives the same texts.
        new_cache: Makes an empty cache; None for a model that reads the whole text for every token.

    Returns:
        The texts, no longer than the longest of them, and their lengths.

    Raises:
        ValueError: If a shape or a setting is not as described, or the model's logits are not.

    Written out in notebook 13.
    """
    lengths = _require_prompts(prompts, prompt_lengths, num_new, stop_token, pad_token, seed)
    starts, ends = lengths.clone(), lengths + num_new
    noise = _noise(torch.Generator().manual_seed(seed), len(prompts), num_new, prompts.device)
    text = F.pad(prompts.long(), (0, num_new), value=pad_token)
    is_padding = torch.arange(text.shape[1], device=text.device) >= lengths[:, None]
    text = text.masked_fill(is_padding, pad_token)
    is_open = torch.ones_like(lengths, dtype=torch.bool)
    cache = None if new_cache is None else new_cache()
    with _eval_modes(model):
        for place in range(int(starts.min()), int(ends.max())):
            logits = _read(model, text[:, :place], cache)[:, -1]
            probabilities = token_probabilities(logits, temperature=temperature, top_k=top_k)
            column = (place - starts).clamp(0, num_new - 1)[:, None]
            drawn = _drawn(probabilities, noise.gather(1, column)[:, 0])
            writes = is_open & (lengths == place)  # others are done, or still within their prompt
            text[:, place] = torch.where(writes, drawn, text[:, place])
            lengths = lengths + writes
            is_open &= lengths < ends
            if stop_token is not None:
                is_open &= ~writes | (drawn != stop_token)
            if not is_open.any():
                break
    return Texts(text[:, : int(lengths.max())], lengths)


@torch.no_grad()
def speculate(
    target: Callable[..., Tensor],
    draft: Callable[..., Tensor],
    prompts: Tensor,
    num_new: int,
    *,
    num_drafted: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    stop_token: int | None = None,
    pad_token: int = 0,
    seed: int = 0,
    new_cache: Callable[[], Any] | None = KeyValueCache,
) -> SpeculatedTexts:
    """Writes what the target would, with fewer calls of it: a cheap draft proposes, the target judges.

    The draft writes a few tokens. One call of the target gives its probabilities p at all of them. Each token
    is accepted with probability min(1, p / q), q being the draft's. The first that is refused is replaced by
    one drawn from max(0, p − q), normalized; where none is, the target adds one of its own. So texts have
    exactly the target's distribution, whatever the draft, and at temperature 0 they are exactly its texts.

    All texts of a batch go on together, by as many tokens as the least lucky of those still open. That is
    exact, but most calls are saved by a batch of one.

    Args:
        target: The model whose texts are wanted, called as the module says.
        draft: A cheap model with the same tokens.
        prompts: Shape (N, L), L >= 1, without padding.
        num_new: The most tokens to write after each prompt.
        num_drafted: Tokens that the draft proposes before each call of the target.
        temperature: For target and draft, as in `token_probabilities`.
        top_k: For target and draft, as in `token_probabilities`.
        stop_token: A text ends with this token; None for texts of `num_new` tokens.
        pad_token: What stands after the end of a text.
        seed: The same seed gives the same texts; they are others than those of `generate`.
        new_cache: Makes an empty cache that has `crop`; None for models that read the whole text each time.

    Returns:
        The texts, their lengths, the calls of the target, and how many drafted tokens it accepted.

    Raises:
        ValueError: If a shape or a setting is not as described, or target and draft differ in V.

    Source: Leviathan, Kalman and Matias 2023, "Fast Inference from Transformers via Speculative Decoding",
    algorithm 1. Written out in notebook 14.
    """
    lengths = _require_prompts(prompts, None, num_new, stop_token, pad_token, seed)
    require_count("num_drafted", num_drafted)
    settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k}
    generator = torch.Generator().manual_seed(seed)
    text, end = prompts.long(), prompts.shape[1] + num_new
    is_open = torch.ones_like(lengths, dtype=torch.bool)
    target_cache, draft_cache = (None, None) if new_cache is None else (new_cache(), new_cache())
    num_calls = num_judged = num_accepted = 0
    with _eval_modes(target, draft):
        while text.shape[1] < end and is_open.any():
            count = min(num_drafted, end - text.shape[1] - 1)
            noise = _noise(generator, len(text), 2 * count + 1, text.device)
            drafted, proposals = text, []
            for i in range(count):
                proposals.append(token_probabilities(_read(draft, drafted, draft_cache)[:, -1], **settings))
                drafted = torch.cat([drafted, _drawn(proposals[-1], noise[:, i])[:, None]], dim=1)
            p = token_probabilities(_read(target, drafted, target_cache)[:, -count - 1 :], **settings)
            _require_same_vocabulary(p, proposals)
            q = torch.stack([*proposals, torch.zeros_like(p[:, 0])], dim=1)  # (N, count + 1, V), as p
            tokens = drafted[:, text.shape[1] :]
            p_drafted, q_drafted = (side[:, :-1].gather(2, tokens[:, :, None])[..., 0] for side in (p, q))
            is_accepted = noise[:, count:-1] * q_drafted < p_drafted
            num_agreed = is_accepted.cumprod(dim=1).sum(dim=1)  # before the first that is refused
            shared = int(num_agreed[is_open].min())
            # past the last proposal q is zero, and what is left over is p itself
            last = _drawn(_left_over(p[:, shared], q[:, shared]), noise[:, -1])
            if shared < count:
                last = torch.where(num_agreed > shared, tokens[:, shared], last)
            num_calls += 1
            num_accepted += int(num_agreed[is_open].sum())
            num_judged += int((num_agreed[is_open] + 1).clamp(max=count).sum())
            for column in (*tokens[:, :shared].unbind(dim=1), last):
                text = torch.cat([text, torch.where(is_open, column, pad_token)[:, None]], dim=1)
                lengths = lengths + is_open
                if stop_token is not None:
                    is_open = is_open & (column != stop_token)
            for cache in (target_cache, draft_cache):
                if cache is not None and cache.get_seq_length() >= text.shape[1]:
                    cache.crop(text.shape[1] - 1 - cache.get_seq_length())
    return SpeculatedTexts(text[:, : int(lengths.max())], lengths, num_calls, num_judged, num_accepted)


def _read(model: Callable[..., Tensor], text: Tensor, cache: Any) -> Tensor:
    """Logits of the text's tokens, or with a cache of those that the model has not read yet."""
    if cache is None:
        logits = model(text)
    else:
        text = text[:, cache.get_seq_length() :]
        logits = model(text, cache=cache)
    require_floating("model(tokens)", logits)
    if logits.dim() != 3 or logits.shape[:2] != text.shape:
        raise ValueError(f"model(tokens): expected logits {(*text.shape, 'V')}, got {tuple(logits.shape)}")
    return logits


def _noise(generator: torch.Generator, num_texts: int, num_columns: int, device: torch.device) -> Tensor:
    """Uniform numbers from 0 to below 1, one text's after the other's, so that texts more change no text."""
    noise = torch.rand(num_texts * num_columns, generator=generator, dtype=_precise(device))
    return noise.view(num_texts, num_columns).to(device)


def _precise(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64


def _drawn(probabilities: Tensor, noise: Tensor) -> Tensor:
    """Tokens (N,) by probabilities (N, V): the first whose cumulative sum exceeds a uniform number (N,)."""
    sums = probabilities.cumsum(dim=1)
    return torch.searchsorted(sums, noise[:, None] * sums[:, -1:], right=True)[:, 0]


def _left_over(p: Tensor, q: Tensor) -> Tensor:
    """max(0, p − q), of which one draws after a refusal; p where nothing is left and nobody will draw."""
    rest = (p - q).clamp(min=0)
    return torch.where(rest.sum(dim=1, keepdim=True) > 0, rest, p)


def _eval_modes(*models: Any) -> ExitStack:
    modes = ExitStack()
    for model in models:
        if isinstance(model, nn.Module):
            modes.enter_context(eval_mode(model))
    return modes


def _require_prompts(
    prompts: Any, prompt_lengths: Any, num_new: Any, stop_token: Any, pad_token: Any, seed: Any
) -> Tensor:
    """The prompts' lengths (N,), after a look at the arguments that both functions have."""
    require_tensor("prompts", prompts)
    if prompts.dim() != 2 or prompts.numel() == 0:
        raise ValueError(f"prompts: expected shape (N, L), none of them 0, got {tuple(prompts.shape)}")
    if prompts.dtype not in INTEGER:
        raise ValueError(f"prompts: expected token ids of an integer dtype, got {prompts.dtype}")
    if int(prompts.min()) < 0:
        raise ValueError(f"prompts: expected token ids >= 0, got {int(prompts.min())}")
    require_count("num_new", num_new)
    for name, value, allowed in (("stop_token", stop_token, (None,)), ("pad_token", pad_token, ())):
        if not (_is_whole(value) and value >= 0) and value not in allowed:
            raise ValueError(f"{name}: expected a token's id, got {description(value)}")
    if not _is_whole(seed):
        raise ValueError(f"seed: expected a whole number, got {description(seed)}")
    if prompt_lengths is None:
        return torch.full((len(prompts),), prompts.shape[1], device=prompts.device)
    require_tensor("prompt_lengths", prompt_lengths)
    if prompt_lengths.shape != (len(prompts),):
        raise ValueError(
            f"prompt_lengths: expected shape ({len(prompts)},), got {tuple(prompt_lengths.shape)}"
        )
    if prompt_lengths.dtype not in INTEGER:
        raise ValueError(f"prompt_lengths: expected an integer dtype, got {prompt_lengths.dtype}")
    shortest, longest = int(prompt_lengths.min()), int(prompt_lengths.max())
    if not 1 <= shortest <= longest <= prompts.shape[1]:
        raise ValueError(
            f"prompt_lengths: expected lengths from 1 to {prompts.shape[1]}, "
            f"got values from {shortest} to {longest}"
        )
    return prompt_lengths.to(prompts.device).long()


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _require_same_vocabulary(p: Tensor, proposals: list[Tensor]) -> None:
    if proposals and proposals[0].shape[-1] != p.shape[-1]:
        raise ValueError(
            f"draft: expected logits of V = {p.shape[-1]} tokens as the target's, got "
            f"{proposals[0].shape[-1]}. Vocabularies padded to different sizes: cut both, "
            "logits[..., :len(tokenizer)]"
        )
