"""A small causal transformer: RMSNorm, rotary positions, PyTorch's attention, tied embeddings."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.checks import expect
from ctkd.models.language_model import LanguageModel, TokenInputs, rows_of
from ctkd.registry import MODELS

ROTATION = 10_000.0  # the longest wavelength of the rotary positions, over 2π


class Decoder(LanguageModel):
    """`depth` blocks of attention and a feed-forward layer of 4 · width (Vaswani et al. 2017).

    Normalization comes before each layer (RMSNorm, arXiv 1910.07467), positions are rotary (arXiv
    2104.09864), the activation is GELU, and the head is the embedding's matrix.
    """

    def __init__(self, num_classes: int, depth: int, width: int, heads: int, owner: str) -> None:
        """Builds for `num_classes` tokens. Raises ConfigError for a number out of range."""
        super().__init__()
        for name, value in (("depth", depth), ("width", width), ("heads", heads)):
            expect(value >= 1, owner, name, value, "a number of 1 or more")
        fine = width % (2 * heads) == 0
        expect(fine, owner, "heads", heads, f"an even width per head, width = {width}")
        self.vocabulary = num_classes
        self.embedding = nn.Embedding(num_classes, width)
        blocks = [Block(width, heads) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(width)
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                nn.init.normal_(module.weight, std=0.02)
        for block in blocks:  # the sum of all blocks starts at the scale of one block
            for layer in (block.merge, block.shrink):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * depth))

    def hidden(self, tokens: TokenInputs) -> Tensor:
        """See `LanguageModel`."""
        states = self.embedding(tokens.ids)
        mask = None if tokens.documents is None else attention_mask(tokens.documents)
        for block in self.blocks:
            states = block(states, mask)
        normed: Tensor = self.norm(rows_of(states, tokens))
        return normed

    def head(self) -> tuple[Tensor, Tensor | None]:
        """See `LanguageModel`: the embedding's matrix."""
        return self.embedding.weight, None


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, width: int, heads: int) -> None:
        """Makes the layers, without biases."""
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.grow = nn.Linear(width, 4 * width, bias=False)
        self.shrink = nn.Linear(4 * width, width, bias=False)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """[B, L, width] -> [B, L, width]. Without a mask a token attends to all earlier tokens."""
        states = states + self.attend(self.attention_norm(states), mask)
        fed: Tensor = self.shrink(F.gelu(self.grow(self.feed_norm(states)), approximate="tanh"))
        return states + fed

    def attend(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Attention over the earlier tokens that the mask [B, 1, L, L] allows."""
        parts = self.project(states).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts.unbind(0)  # [B, heads, L, width / heads] each
        mixed = F.scaled_dot_product_attention(
            rotated(queries), rotated(keys), values, attn_mask=mask, is_causal=mask is None
        )
        merged: Tensor = self.merge(mixed.transpose(1, 2).flatten(2))
        return merged


def rotated(x: Tensor) -> Tensor:
    """[..., L, D] with each pair (x_j, x_(j + D/2)) of position i rotated by i · ROTATION^(−2j/D).

    A product of two rotated vectors depends only on the distance of their positions. So positions
    need not restart at each document of a window.
    """
    length, half = x.shape[-2], x.shape[-1] // 2
    speed = ROTATION ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(length, device=x.device)[:, None] * speed
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def attention_mask(documents: Tensor) -> Tensor:
    """[B, L] -> [B, 1, L, L]: a token attends to itself and earlier tokens of its document."""
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same.tril()


@MODELS.register
def decoder(num_classes: int = 256, depth: int = 2, width: int = 128, heads: int = 4) -> nn.Module:
    """The transformer as a student; 0.43 million parameters with 256 tokens."""
    return Decoder(num_classes, depth, width, heads, "decoder")


@MODELS.register
def decoder_teacher(
    num_classes: int = 256, depth: int = 4, width: int = 256, heads: int = 8
) -> nn.Module:
    """The same transformer under a second name, so that a teacher has separate settings."""
    return Decoder(num_classes, depth, width, heads, "decoder_teacher")
