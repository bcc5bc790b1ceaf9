"""Scenes to pixels and exact truth: one analytic ray per sample, the same code on every device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cinecanvas.errors import BadRequest
from cinecanvas.world import floors, light, rays, surfaces, weather
from cinecanvas.world.camera import Lens, aim, staggered
from cinecanvas.world.pack import Variant, pack, variant
from cinecanvas.world.palette import GLOSS
from cinecanvas.world.rays import Body, Interval, Things, Vector
from cinecanvas.world.scene import Scene
from cinecanvas.world.stage import Stage, Textures, textures
from cinecanvas.world.truth import Truth, meet, survey, together

RAYS_AT_ONCE = {"cpu": 160_000, "cuda": 8_000_000}  # a temporary is 0.6 MB on CPU: it stays in the cache


@dataclass(frozen=True)
class Rendered:
    """Clips as RGB (B, T, H, W, 3) uint8, and what they show if it was asked for."""

    rgb: Tensor
    truth: Truth | None


def render(
    scenes: Sequence[Scene],
    *,
    frames: int,
    height: int,
    width: int,
    fps: float,
    start: float | Sequence[float] = 0.0,
    truth: bool = False,
    samples: float = 1.5,
    compiled: bool = False,
    device: str | torch.device = "cpu",
) -> Rendered:
    """`frames` pictures of each scene from `start` (s, one for all or one each); `samples` rays a pixel each way.

    `compiled` fuses the pieces and pays only over long runs of few kinds of scenes: on one busy CPU core it made 1600
    frames per CPU second instead of 600, after 147 s of compilation, and every new kind of scene compiles again.
    """
    starts = [float(start)] * len(scenes) if isinstance(start, (int, float)) else [float(s) for s in start]
    if len(starts) != len(scenes) or not scenes or min(frames, height, width) < 1 or fps <= 0 or samples <= 0:
        raise BadRequest(
            f"render {len(scenes)} scenes from {len(starts)} starts at {frames} x {height} x {width}, {fps} fps",
            "at least one scene, one start for all or one each, and positive sizes",
            "check the arguments",
        )
    where = torch.device(device)
    rgb = torch.empty(len(scenes), frames, height, width, 3, dtype=torch.uint8, device=where)
    tall, wide = max(1, round(height * samples)), max(1, round(width * samples))
    shrink = _filter(tall, height, where), _filter(wide, width, where)
    tiles = textures(str(where))
    for needed, members in _chunks(scenes, frames * tall * wide, where):
        # The last chunk of a kind is filled up with repeats, so that compiled shapes stay few.
        for part, step in _parts(members, frames, tall * wide, where):
            seconds = [starts[i] + np.arange(step.start, step.stop) / fps for i in part]
            lens, stage, bodies = pack([scenes[i] for i in part], seconds, min(tall, wide), where)
            seen = picture(lens, stage, bodies, tiles, needed, tall, wide, compiled)
            small = shrink[0] @ seen.unflatten(2, (tall, wide)) @ shrink[1].T
            done = small.mul(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8).movedim(1, 3)
            index = torch.tensor(part, device=where)
            rgb[index, step.start : step.stop] = done.unflatten(0, (len(part), -1))
    if not truth:
        return Rendered(rgb, None)
    every = [
        survey(scene, first, frames=frames, height=height, width=width, fps=fps, device=where)
        for scene, first in zip(scenes, starts, strict=True)
    ]
    return Rendered(rgb, together(every))


def picture(
    lens: Lens,
    stage: Stage,
    bodies: tuple[Body, ...],
    tiles: Textures,
    needed: Variant,
    tall: int,
    wide: int,
    compiled: bool,
) -> Tensor:
    """Display values (N, 3, tall * wide) in 0..1 of N frames."""
    step: Callable[[Callable[..., Any]], Callable[..., Any]] = _compiled if compiled else _eager
    things = tuple(zip(bodies, needed.looks, strict=True))
    x, y, sway = staggered(tall, wide, stage.pixel.device)
    direction = step(aim)(lens, x + stage.flip * sway, y)
    spans, distance = step(meet)(stage, things, direction)
    above = step(light.sky)(stage, tiles, direction, needed.heaven)
    below = step(ground)(stage, tiles, things, direction, distance, needed)
    fronts = [
        step(surfaces.surface)(stage, tiles, things, i, direction, span, needed.ground, needed.heaven)
        for i, span in enumerate(spans)
    ]
    if needed.weather != "clear":
        above = step(weather.veiled_sky)(stage, above, direction, needed.weather)
        below = step(weather.veiled)(stage, below, distance)
        fronts = [step(weather.veiled)(stage, front, span.near) for front, span in zip(fronts, spans, strict=True)]
    whole = step(joined)(direction, spans, distance, above, below, fronts)
    if needed.weather in ("snowing", "raining"):
        whole = step(weather.fallen)(stage, tiles, whole, direction, needed.weather)
    return step(light.developed)(whole)


def ground(
    stage: Stage, tiles: Textures, things: Things, direction: Vector, distance: Tensor, needed: Variant
) -> Vector:
    """The light of the floor where rays from the eye meet it: water and polished floors show the world again."""
    x, _, z = rays.at(stage.eye, direction, distance)
    point = (x, torch.zeros_like(x), z)
    if needed.ground == "water":
        return water(stage, tiles, things, direction, point, distance, needed)
    plain = floors.floor(stage, tiles, point, distance, needed.ground)
    below = light.shade(stage, point, distance, plain, things)
    if needed.ground not in GLOSS:
        return below
    back = (direction[0], direction[1].abs().clamp_min(0.01), direction[2])
    above = surfaces.reflected(stage, point, back, light.sky(stage, tiles, back, needed.heaven), things)
    return rays.mix(below, above, GLOSS[needed.ground] * (0.25 + 0.75 * (1.0 - back[1]) ** 3))


def water(
    stage: Stage, tiles: Textures, things: Things, direction: Vector, point: Vector, distance: Tensor, needed: Variant
) -> Vector:
    """A wavy mirror over a deep colour: sky and bodies are seen again, more so at flat angles."""
    slope_x, slope_z = floors.waves(stage, tiles, point, distance)
    n = rays.unit((-slope_x, torch.ones_like(slope_x), -slope_z))
    facing = rays.dot(direction, n)
    back = tuple(d - 2.0 * facing * m for d, m in zip(direction, n, strict=True))
    bounced = rays.unit((back[0], back[1].clamp_min(0.01), back[2]))
    fresnel = 0.16 + 0.74 * (1.0 + facing.clamp(-1.0, 0.0)) ** 3
    deep = light.shade(stage, point, distance, rays.mix(stage.first, stage.second, 0.5 + 12.0 * slope_z), things)
    above = surfaces.reflected(stage, point, bounced, light.sky(stage, tiles, bounced, needed.heaven), things)
    return rays.mix(deep, above, fresnel)


def joined(
    direction: Vector,
    spans: Sequence[Interval],
    distance: Tensor,
    above: Vector,
    below: Vector,
    fronts: Sequence[Vector],
) -> Vector:
    """What is nearest along each ray."""
    down = direction[1] < 0.0
    nearest = torch.where(down, distance, torch.full_like(distance, torch.inf))
    r, g, b = (torch.where(down, low, up) for low, up in zip(below, above, strict=True))
    for span, front in zip(spans, fronts, strict=True):
        hit = (span.far > span.near) & (span.near > 0.0) & ~(nearest < span.near)
        nearest = torch.where(hit, span.near, nearest)
        r, g, b = (torch.where(hit, f, c) for f, c in zip(front, (r, g, b), strict=True))
    return r, g, b


def _chunks(scenes: Sequence[Scene], rays_each: int, device: torch.device) -> Iterator[tuple[Variant, list[int]]]:
    """Scenes by what they have in common, in bunches of bounded size."""
    groups: dict[Variant, list[int]] = {}
    for i, scene in enumerate(scenes):
        groups.setdefault(variant(scene), []).append(i)
    many = max(1, RAYS_AT_ONCE.get(device.type, RAYS_AT_ONCE["cpu"]) // rays_each)
    for needed, members in groups.items():
        for first in range(0, len(members), many):
            part = members[first : first + many]
            yield needed, part + [part[-1]] * (many - len(part) if len(members) > many else 0)


def _parts(
    members: list[int], frames: int, rays_a_frame: int, device: torch.device
) -> Iterator[tuple[list[int], range]]:
    """Long clips in stretches of frames, so that memory stays bounded."""
    most = max(1, RAYS_AT_ONCE.get(device.type, RAYS_AT_ONCE["cpu"]) // rays_a_frame)
    for first in range(0, frames, most):
        yield members, range(first, min(frames, first + most))


@functools.lru_cache(maxsize=64)
def _filter(fine: int, coarse: int, device: torch.device) -> Tensor:
    """Weights (coarse, fine) that shrink one axis: a tent of one pixel's reach, which aliases less than a box."""
    place = (torch.arange(fine, dtype=torch.float64) + 0.5) * coarse / fine
    away = (place[None, :] - (torch.arange(coarse, dtype=torch.float64) + 0.5)[:, None]).abs()
    weight = (max(1.0, coarse / fine) - away).clamp_min(0.0)
    return (weight / weight.sum(1, keepdim=True)).float().to(device)


def _eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one fused kernel per shape and variant, or as it is where no compiler is at hand."""
    torch._dynamo.config.recompile_limit = 128  # one per variant and raster, by design
    fused = torch.compile(function, dynamic=False)
    broken = False

    def run(*arguments: Any) -> Any:
        nonlocal broken
        if not broken:
            try:
                return fused(*arguments)
            except Exception:  # whatever a missing or odd compiler raises: the picture matters more than the speed
                broken = True
        return function(*arguments)

    return run
