"""What is minimised: the flow in velocity space on the holes, and the picture itself for the decoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

MAX_WEIGHT = 16.0  # below sigma 0.25 a velocity loss would look at nothing but the last crumbs of noise


def flow_loss(x0: Tensor, target: Tensor, sigma: Tensor, hole: Tensor) -> Tensor:
    """mean of min(1 / s^2, 16) |x0 - x|^2 over the holes: velocity loss of an x-predicting net (JiT, Li & He 2025)."""
    weight = hole * (1 / sigma.clamp(min=1e-4) ** 2).clamp(max=MAX_WEIGHT)
    error = (x0 - target).square().mean(1, keepdim=True)
    return (weight * error).sum() / hole.sum().clamp(min=1)


def picture_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """L1 + 0.5 L1 of the gradient in space and in time + 2 MSE, of RGB (B, 3, T, H, W) in [-1, 1].

    Time counts because groups of frames are decoded one by one: an error that stands still is hardly seen, one that
    jumps at every joint is.
    """
    difference = rgb - target
    edges = (difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()) / 2
    if rgb.shape[2] > 1:
        edges = edges + difference.diff(dim=2).abs().mean()
    return F.l1_loss(rgb, target) + 0.5 * edges + 2 * difference.square().mean()
