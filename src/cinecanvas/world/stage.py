"""What every ray of a frame has in common: eye, lights, colours and the endless noise."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cinecanvas.world.rays import Vector

TILE = 1024  # texels of the endless noise, in each direction
TEXEL = 0.03  # world units of floor per texel


class Stage(NamedTuple):
    """All that a chunk of N frames needs beside its body, as per-frame columns (N, 1); colours are linear RGB."""

    eye: Vector
    pixel: Tensor  # rad per sample
    seconds: Tensor
    flip: Tensor  # -1 mirrors the noise
    offset: tuple[Tensor, Tensor]  # texels
    sun: Vector  # unit, towards the light
    disc: Vector  # unit, where the sun or moon stands in the sky
    first: Vector
    second: Vector
    grain: Tensor
    zenith: Vector
    horizon: Vector
    glow: Vector
    key: Vector
    ambient: Vector
    key_on_things: Vector
    ambient_on_things: Vector
    shadow: Tensor
    haze: Tensor  # world units of weather after which two thirds are veiled
    mist: Vector  # what veils them


class Textures(NamedTuple):
    """Endless tiles (TILE * TILE,): smooth noise and fine grain of mean 0, stars of 0..1."""

    smooth: Tensor
    fine: Tensor
    stars: Tensor


@functools.cache
def textures(device: str) -> Textures:
    """The tiles, the same on every machine."""
    rng = np.random.default_rng(20261122)
    along = np.fft.fftfreq(TILE) * TILE
    frequency = np.hypot(along[:, None], along[None, :])
    frequency[0, 0] = 1.0

    def band(low: float, high: float, slope: float) -> np.ndarray:
        weight = frequency**-slope * (frequency >= low) * np.exp(-((frequency / high) ** 2))
        tile = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * weight).real
        return tile / tile.std()

    stars = np.zeros((TILE, TILE))
    rows, columns = rng.integers(0, TILE, 1500), rng.integers(0, TILE, 1500)
    stars[rows, columns] = rng.uniform(0.25, 1.0, 1500)
    soft = np.fft.ifft2(np.fft.fft2(stars) * np.exp(-((frequency / 130.0) ** 2))).real
    soft = np.clip(soft / soft.max() * 1.6, 0.0, 1.0)
    tiles = (band(4, 60, 1.6), band(30, 220, 1.0), soft)
    return Textures(*(torch.from_numpy(tile.reshape(-1).astype(np.float32)).to(device) for tile in tiles))


def texel(tile: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The nearest texel of an endless tile; the tiles are smooth at the scale of a sample, so no more is needed."""
    column = u.floor().to(torch.int32) & (TILE - 1)
    row = v.floor().to(torch.int32) & (TILE - 1)
    return tile[(row * TILE + column).long()]
