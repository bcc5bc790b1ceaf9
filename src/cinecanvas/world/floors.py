"""What lies under the miniature world: grass to ice, as functions of a point and of how much a sample covers."""

from __future__ import annotations

import torch
from torch import Tensor

from cinecanvas.world.palette import Ground
from cinecanvas.world.rays import Vector, mix, scaled
from cinecanvas.world.stage import TEXEL, Stage, Textures, texel


def floor(stage: Stage, tiles: Textures, point: Vector, distance: Tensor, ground: Ground) -> Vector:
    """The colour of the floor itself (not of water), fading to its mean where a sample covers more than its detail."""
    across = distance * stage.pixel
    along = distance * across / stage.eye[1]
    x, z = point[0] * stage.flip, point[2]
    u, v = x / TEXEL + stage.offset[0], z / TEXEL + stage.offset[1]
    if ground == "checker":
        shade = 0.5 + 0.5 * _square(x / 1.1, 0.55 / across) * _square(z / 1.1 + 0.5, 0.55 / along)
        return mix(stage.first, stage.second, shade)
    if ground == "planks":
        plank = torch.floor(x / 0.7)
        tone = torch.frac(torch.sin(plank * 12.9898 + stage.offset[0]).abs() * 43.758)
        streak = texel(tiles.smooth, u * 2.0, v * 0.3 + plank * 97.0)
        edge = (x / 0.7 - plank - 0.5).abs()
        gap = ((edge - 0.46) * 25.0).clamp(0.0, 1.0) / (1.0 + (across / 0.09) ** 2)
        shade = 0.25 + 0.5 * tone + stage.grain * 0.22 * streak / (1.0 + (along / 0.3) ** 2)
        return scaled(mix(stage.first, stage.second, shade.clamp(0.0, 1.2)), 1.0 - 0.6 * gap)
    if ground == "tiles":
        return _tiles(stage, x, z, across, along)
    if ground == "slabs":
        return _slabs(stage, tiles, x, z, across, along)
    if ground == "ice":
        return _ice(stage, tiles, u, v, along)
    far = 1.0 / (1.0 + (along / 0.10) ** 2)
    broad = texel(tiles.smooth, u * 0.6, v * 0.6) / (1.0 + (along / 0.6) ** 2)
    rough = 0.10 * texel(tiles.fine, u, v) * far + 0.13 * broad
    return mix(stage.first, stage.second, 0.5 + stage.grain * 1.6 * rough)


def waves(stage: Stage, tiles: Textures, point: Vector, distance: Tensor) -> tuple[Tensor, Tensor]:
    """The slope of the water in x and z."""
    x, z = point[0] * stage.flip, point[2]
    calm = 0.028 / (1.0 + (distance / 9.0) ** 2)
    u, v = x / (3.0 * TEXEL) + stage.offset[0], z / TEXEL + stage.offset[1]
    drift = stage.seconds * 16.0
    slope_x = texel(tiles.smooth, u, v + drift)
    slope_z = texel(tiles.smooth, u + 311.0, v - 0.6 * drift)
    return 0.5 * slope_x * stage.flip * calm, slope_z * calm


def _tiles(stage: Stage, x: Tensor, z: Tensor, across: Tensor, along: Tensor) -> Vector:
    """Square glazed tiles of slightly different tones in pale grout."""
    column, row = torch.floor(x / 0.75), torch.floor(z / 0.75)
    tone = _scattered(stage, column, row) / (1.0 + (along / 1.2) ** 2)
    glazed = mix(stage.first, stage.second, 0.2 + 0.6 * tone)
    grout = (1.4 * stage.second[0] + 0.25, stage.second[1] + 0.1, stage.second[2] + 0.1)
    lengthwise = _gap(x / 0.75 - column, 0.455) / (1.0 + (across / 0.09) ** 2)
    crosswise = _gap(z / 0.75 - row, 0.455) / (1.0 + (along / 0.09) ** 2)
    return mix(glazed, grout, 0.8 * torch.maximum(lengthwise, crosswise))


def _slabs(stage: Stage, tiles: Textures, x: Tensor, z: Tensor, across: Tensor, along: Tensor) -> Vector:
    """Paving stones laid in rows, every row shifted, with dark joints."""
    row = torch.floor(z / 0.8)
    shifted = x / 1.25 + 0.37 * row
    column = torch.floor(shifted)
    tone = _scattered(stage, column, row) / (1.0 + (along / 1.2) ** 2)
    rough = texel(tiles.fine, x / TEXEL + stage.offset[0], z / TEXEL + stage.offset[1]) / (1.0 + (along / 0.1) ** 2)
    joint = torch.maximum(
        _gap(shifted - column, 0.46) / (1.0 + (across / 0.09) ** 2),
        _gap(z / 0.8 - row, 0.45) / (1.0 + (along / 0.09) ** 2),
    )
    return scaled(mix(stage.first, stage.second, 0.15 + 0.7 * tone + 0.14 * rough), 1.0 - 0.7 * joint)


def _ice(stage: Stage, tiles: Textures, u: Tensor, v: Tensor, along: Tensor) -> Vector:
    """Clouded ice with pale cracks where the noise crosses zero."""
    clouds = texel(tiles.smooth, u * 0.5, v * 0.5) / (1.0 + (along / 0.6) ** 2)
    veins = texel(tiles.smooth, u * 0.8 + 517.0, v * 0.8 + 131.0)
    crack = (1.0 - 9.0 * veins.abs()).clamp_min(0.0) / (1.0 + (along / 0.12) ** 2)
    return mix(stage.first, stage.second, 0.4 + 0.3 * clouds + 0.8 * crack)


def _gap(part: Tensor, edge: float) -> Tensor:
    """1 in the joints round a cell, of which `part` in 0..1 is the place across it."""
    return (((part - 0.5).abs() - edge) * 25.0).clamp(0.0, 1.0)


def _scattered(stage: Stage, column: Tensor, row: Tensor) -> Tensor:
    """A number 0..1 for each cell of a raster, as good as random."""
    return torch.frac(torch.sin(column * 12.9898 + row * 78.233 + stage.offset[0]).abs() * 43.758)


def _square(x: Tensor, sharp: Tensor) -> Tensor:
    """A square wave of period 2 between -1 and 1 whose edges are as soft as a sample is wide."""
    wave = (torch.remainder(x, 2.0) - 1.0).abs() * 2.0 - 1.0
    return (wave * sharp).clamp(-1.0, 1.0)
