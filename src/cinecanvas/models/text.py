"""Words to states: our own table of words with hashed sub-words, and two small transformer blocks over it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cinecanvas.models.layers import attention, heads_of, norm

MAX_WORDS = 40  # a longer prompt is read up to here; the grammar's longest sentence has fewer
PIECES = 12  # sub-word rows per word
_WORD = re.compile(r"[a-z0-9]+")


class TextEncoder(nn.Module):
    """B sentences to states (B, 1 + M, D): each word's row plus the mean of its hashed n-gram rows, then blocks."""

    def __init__(
        self, vocabulary: Sequence[str], width: int, *, buckets: int = 2048, blocks: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.index = {word: i + 1 for i, word in enumerate(self.vocabulary)}  # 0: a word that was never seen
        self.words = nn.Embedding(len(self.vocabulary) + 1, width)
        self.pieces = nn.Embedding(buckets + 1, width)  # 0: no piece
        self.places = nn.Embedding(MAX_WORDS, width)
        self.empty = nn.Parameter(torch.zeros(width))  # what an empty prompt says: the unconditional state
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(blocks))
        for table in (self.words, self.pieces, self.places):
            nn.init.normal_(table.weight, std=0.5)

    def tokens(self, text: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word ids (B, M) and piece ids (B, M, PIECES); -1 in the word ids marks padding."""
        split = [_WORD.findall(line.lower())[:MAX_WORDS] for line in text]
        longest = max(1, max(map(len, split), default=1))
        buckets = self.pieces.num_embeddings - 1
        ids = torch.full((len(text), longest), -1, dtype=torch.long)
        pieces = torch.zeros(len(text), longest, PIECES, dtype=torch.long)
        for row, words in enumerate(split):
            for column, word in enumerate(words):
                ids[row, column] = self.index.get(word, 0)
                grams = subwords(word)[:PIECES]
                pieces[row, column, : len(grams)] = torch.tensor([1 + zlib.crc32(g.encode()) % buckets for g in grams])
        return ids, pieces

    def forward(self, ids: Tensor, pieces: Tensor, *, forget: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States (B, 1 + M, D), the first the sentence's own, and padding (B, 1 + M), True where there is no word.

        `forget` (B, M) bool drops the word's own row, so that sub-words learn to stand alone for words never seen.
        """
        known = ids.clamp(min=0)
        if forget is not None:
            known = known.masked_fill(forget, 0)
        weight = (pieces > 0).to(self.words.weight.dtype)
        grams = (self.pieces(pieces) * weight[..., None]).sum(2) / weight.sum(2).clamp(min=1)[..., None]
        x = self.words(known) + grams + self.places.weight[: ids.shape[1]]
        x = torch.cat([self.empty.expand(len(x), 1, -1), x], dim=1)
        padding = torch.cat([torch.zeros(len(ids), 1, dtype=torch.bool, device=ids.device), ids < 0], dim=1)
        bias = mask_bias(padding)
        for block in self.blocks:
            x = block(x, bias)
        return norm(x), padding


class TextBlock(nn.Module):
    """A plain pre-norm block without positions of its own: word order comes in with the table of places."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = heads_of(self.qkv(norm(x)), 3, self.heads)
        x = x + self.out(attention(q, k, v, bias).transpose(1, 2).flatten(2))
        a, b = self.up(norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(a) * b)


def mask_bias(padding: Tensor) -> Tensor:
    """Padding (B, M) to an additive attention bias (B, 1, 1, M): -30 rather than -inf, which bf16 softmax survives."""
    return padding[:, None, None, :] * -30.0


def subwords(word: str) -> list[str]:
    """Character 3- and 4-grams of <word>, after fastText (Bojanowski et al. 2017)."""
    marked = f"<{word}>"
    return [marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)]
