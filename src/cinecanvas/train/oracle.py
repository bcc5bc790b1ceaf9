"""What the renderer knows and the network is made to know too: where things are, how they move, what was said.

Two small heads that only training has. One reads, from the middle of the transformer, what every clean cell holds: at
high noise the only way there is to have understood the sentence, and no texture drowns the lesson. It is REPA (Yu et
al. 2025) with exact truth in the place of a pretrained teacher. The other reads from the sentence's state what it said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cinecanvas.models.layers import norm
from cinecanvas.world.captions import SLOTS
from cinecanvas.world.truth import Truth

FACTS = 9  # numbers about a cell, before the share of each shape
SKY, THING = 0, 2  # labels of the segmentation; 2 + k is thing k


class Oracle(nn.Module):
    """Heads on the transformer's middle states (B, L, D) and on the sentence's own state (B, D)."""

    def __init__(self, width: int, text_width: int, words: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.words = {slot: tuple(words[slot]) for slot in SLOTS}
        self.cell = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, FACTS + len(self.words["shape"]))
        )
        self.said = nn.Linear(text_width, sum(map(len, self.words.values())))

    def loss(self, middle: Tensor, facts: Tensor, hole: Tensor, sentence: Tensor, said: Tensor) -> Tensor:
        """Squared error of the facts (B, K, T, H, W; variance 1) on the holes, and cross-entropy of what is said."""
        read = self.cell(norm(middle)).float()
        error = (read - facts.flatten(2).transpose(1, 2)).square().mean(-1)
        weight = hole.flatten(1)
        logits = self.said(sentence).float().split([len(values) for values in self.words.values()], dim=1)
        heard = [
            F.cross_entropy(row, said[:, i], ignore_index=-1, reduction="sum") / len(said)
            for i, row in enumerate(logits)
        ]
        return (weight * error).sum() / weight.sum().clamp(min=1) + 0.1 * torch.stack(heard).sum()


def facts_of(truth: Truth, shapes: Sequence[int], *, strides: tuple[int, int, int], kinds: int) -> Tensor:
    """What every cell holds (B, FACTS + kinds, T', H', W'), float32, as means over its pixels and frames.

    The part of each quarter that a thing covers; the sky's part; the flow of things and of what is behind them, in px
    per frame; and the part of each kind of shape, of the one thing that a clip of the first level has.
    """
    flow = truth.flow.clone()
    if flow.shape[1] > 1:  # nothing follows the last frame: it goes on as it went
        flow[:, -1] = flow[:, -2]
    thing = (truth.segmentation >= THING).float()[..., None]
    rows = torch.cat([thing, (truth.segmentation == SKY).float()[..., None], flow * thing, flow * (1 - thing)], dim=-1)
    rows = torch.cat([rows[:, :1].expand(-1, strides[0], -1, -1, -1), rows[:, 1:]], dim=1).movedim(-1, 1)
    cells = F.avg_pool3d(rows, strides)
    quarters = F.avg_pool3d(rows[:, :1], (strides[0], strides[1] // 2, strides[2] // 2))
    split = quarters.unfold(3, 2, 2).unfold(4, 2, 2).flatten(5)[:, 0].movedim(-1, 1)
    kind = F.one_hot(torch.tensor(list(shapes)), kinds).to(cells)[:, :, None, None, None] * cells[:, :1]
    return torch.cat([split, cells[:, 1:], kind], dim=1)


def mirrored(facts: Tensor) -> Tensor:
    """The facts of the clips that are flipped left to right: quarters change sides, and so does the flow across."""
    order = [1, 0, 3, 2, *range(4, facts.shape[1])]
    sign = torch.ones(facts.shape[1])
    sign[[5, 7]] = -1
    return facts[:, order].flip(-1) * sign[:, None, None, None]
