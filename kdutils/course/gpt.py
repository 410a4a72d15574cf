"""A plain GPT, large enough to spell and small enough to be trained while you wait."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.generate import KeyValueCache


class GPT(nn.Module):
    """A decoder: blocks of causal attention and a perceptron, layer norm before each, tied embeddings.

    Tokens (N, L) become logits (N, L, V); those at position t are about token t + 1 and depend on tokens up
    to t only. Layers to tap: "blocks.0", "blocks.1", … Parameters, with D for the width:
    depth · (12·D² + 13·D) + (V + context + 2) · D.

    Args:
        vocabulary: V, how many different tokens there are.
        context: The most tokens that it can read.
        depth: Blocks.
        width: D, numbers per token, a multiple of `num_heads`.
        num_heads: Heads of attention in each block.
        seed: The same seed gives the same initial weights, whatever was drawn before.
        std: Standard deviation of the initial weights. GPT-2's .02 was chosen for a width of 768; narrow
            models start sooner with more, .02 · √(768 / width), say.

    Raises:
        ValueError: A width that is no multiple of the heads, or a size below 1.

    Source: Radford et al. 2019 (GPT-2), sec. 2.3.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        depth: int,
        width: int,
        num_heads: int = 4,
        seed: int = 0,
        std: float = 0.02,
    ):
        super().__init__()
        sizes = (vocabulary, context, depth, width, num_heads)
        if min(sizes) < 1 or width % num_heads:
            raise ValueError(
                "vocabulary, context, depth, width, num_heads: expected whole numbers >= 1, the width a "
                f"multiple of the heads, got {sizes}"
            )
        self.context = context
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed a GPU, too
            self.token_embedding = nn.Embedding(vocabulary, width)
            self.position_embedding = nn.Embedding(context, width)
            self.blocks = nn.ModuleList(Block(width, num_heads, layer) for layer in range(depth))
            self.norm = nn.LayerNorm(width)
            for name, parameter in self.named_parameters():
                if parameter.dim() == 2:
                    # what is added to the stream of all blocks starts smaller, so that the sum does not grow
                    is_last = name.endswith("project.weight")
                    nn.init.normal_(parameter, std=std / (2 * depth) ** (0.5 * is_last))

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Logits (N, L, V) of tokens (N, L).

        Args:
            tokens: Ids, shape (N, L); with a cache only those that come after the tokens it remembers.
            cache: Keys and values of the tokens read so far, to which those of these tokens are added.

        Raises:
            ValueError: More tokens than the context has places.
        """
        num_read = 0 if cache is None else cache.get_seq_length()
        end = num_read + tokens.shape[1]
        if end > self.context:
            raise ValueError(f"tokens: expected at most {self.context} tokens, got {end}")
        positions = torch.arange(num_read, end, device=tokens.device)
        stream = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            stream = block(stream, cache)
        return self.norm(stream) @ self.token_embedding.weight.T


class Block(nn.Module):
    """Causal attention, then a perceptron four times as wide, each added to the stream (N, L, D)."""

    def __init__(self, width: int, num_heads: int, layer: int):
        super().__init__()
        self.num_heads, self.layer = num_heads, layer
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_project = nn.Linear(width, width)
        self.perceptron_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.perceptron_project = nn.Linear(4 * width, width)
        for linear in (
            self.queries_keys_values,
            self.attention_project,
            self.expand,
            self.perceptron_project,
        ):
            nn.init.zeros_(linear.bias)

    def forward(self, stream: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        stream = stream + self.attend(self.attention_norm(stream), cache)
        hidden = F.gelu(self.expand(self.perceptron_norm(stream)))
        return stream + self.perceptron_project(hidden)

    def attend(self, stream: Tensor, cache: KeyValueCache | None) -> Tensor:
        """What every position gathers from itself and those before it, (N, L, D)."""
        heads = self.queries_keys_values(stream).unflatten(2, (3, self.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # each (N, heads, L, D / heads)
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer)
        num_new, num_all = queries.shape[2], keys.shape[2]
        if num_new == num_all:
            gathered = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        else:
            may_see = torch.ones(num_new, num_all, dtype=torch.bool, device=stream.device)
            may_see = may_see.tril(diagonal=num_all - num_new)
            gathered = F.scaled_dot_product_attention(queries, keys, values, attn_mask=may_see)
        return self.attention_project(gathered.transpose(1, 2).flatten(2))
