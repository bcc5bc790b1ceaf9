"""The camera of the miniature world: from pixels to rays and back."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from cinecanvas.world import rays
from cinecanvas.world.rays import Vector
from cinecanvas.world.stage import Stage

Vector2 = tuple[Tensor, Tensor]


class Lens(NamedTuple):
    """The camera of every frame as columns (N, 1): yaw and pitch in rad, focal length in halves of the shorter side."""

    yaw: Tensor
    pitch: Tensor
    focal: Tensor


def aim(lens: Lens, x: Tensor, y: Tensor) -> Vector:
    """Unit directions (N, P) of the rays through the points (P,) of the picture plane."""
    right, up = x / lens.focal, y / lens.focal
    c, s = torch.cos(lens.pitch), torch.sin(lens.pitch)
    rise, ahead = up * c - s, -up * s - c
    c, s = torch.cos(lens.yaw), torch.sin(lens.yaw)
    return rays.unit((right * c + ahead * s, rise, ahead * c - right * s))


@functools.lru_cache(maxsize=64)
def grid(tall: int, wide: int, device: torch.device) -> Vector2:
    """Picture-plane coordinates (P,) of a raster, in halves of its shorter side: x to the right, y up."""
    half = min(tall, wide) / 2
    y, x = torch.meshgrid(
        (tall / 2 - 0.5 - torch.arange(tall, device=device)) / half,
        (torch.arange(wide, device=device) + 0.5 - wide / 2) / half,
        indexing="ij",
    )
    return x.reshape(-1).contiguous(), y.reshape(-1).contiguous()


@functools.lru_cache(maxsize=64)
def staggered(tall: int, wide: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The raster with every other row and column moved by half a step: free antialiasing of upright and level edges.

    The third tensor is the move of the rows, to be mirrored with the scene; that of the columns is symmetric.
    """
    x, y = grid(tall, wide, device)
    quarter = 0.5 / min(tall, wide)
    row = 1.0 - 2.0 * (torch.arange(tall, device=device) % 2)
    column = 1.0 - 2.0 * ((torch.arange(wide, device=device) - (wide - 1) / 2).abs().floor() % 2)
    return x, y + quarter * column.repeat(tall), quarter * row.repeat_interleave(wide)


def project(lens: Lens, eye: Vector, point: Vector, height: int, width: int) -> Vector2:
    """Pixel coordinates of world points."""
    x, y, z = (p - e for p, e in zip(point, eye, strict=True))
    c, s = torch.cos(lens.yaw), torch.sin(lens.yaw)
    right, ahead = x * c - z * s, x * s + z * c
    c, s = torch.cos(lens.pitch), torch.sin(lens.pitch)
    up, depth = y * c - ahead * s, (-y * s - ahead * c).clamp_min(1e-3)
    return pixels(lens.focal * right / depth, lens.focal * up / depth, height, width)


def pixels(x: Tensor, y: Tensor, height: int, width: int) -> Vector2:
    half = min(height, width) / 2
    return x * half + width / 2, height / 2 - y * half


def matrices(lens: Lens, stage: Stage, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Extrinsics (T, 3, 4) and intrinsics (T, 3, 3) in the usual convention: x right, y down, z ahead."""
    yaw, pitch = lens.yaw[:, 0], lens.pitch[:, 0]
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    nil, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    rotation = torch.stack(
        [cy, nil, -sy, sp * sy, -cp, sp * cy, -cp * sy, -sp, -cp * cy], dim=1
    ).view(-1, 3, 3)  # fmt: skip
    eye = torch.cat(stage.eye, dim=1).unsqueeze(2)
    half = lens.focal[:, 0] * min(height, width) / 2
    intrinsics = torch.stack([half, nil, one * width / 2, nil, half, one * height / 2, nil, nil, one], dim=1).view(
        -1, 3, 3
    )
    return torch.cat([rotation, -rotation @ eye], dim=2), intrinsics
