"""The bank: scenes rendered once, kept as latents with the sentences that may describe them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cinecanvas.models.autoencoder import Autoencoder
from cinecanvas.models.text import TextEncoder
from cinecanvas.train.recipes import Bucket, Recipe
from cinecanvas.world.captions import caption
from cinecanvas.world.render import render
from cinecanvas.world.scene import LEVELS, Scene, draw, mirror

CHUNK = 128  # scenes per file
WORDS = 24  # words of a training caption: one fixed length keeps the compiled network to one shape
FORMS = 4  # sentences kept per clip, one of which is drawn each time it is seen
HELD_BACK = 1_000_000_000  # scenes from this seed on are for validation and exams, never for training


class Examples(NamedTuple):
    """latents (N, C, T, H, W) float16 and word ids (N, FORMS, WORDS) int16, -1 = no word."""

    latents: Tensor
    ids: Tensor


def seeds_of(bucket: Bucket, chunk: int, recipe: Recipe) -> range:
    """Which scenes a file of the bank holds: buckets never share a scene."""
    lane = [b.name for b in recipe.buckets].index(bucket.name)
    start = lane * 10_000_000 + chunk * CHUNK
    return range(start, start + CHUNK)


def chunks(bucket: Bucket) -> int:
    """How many files a bucket has; every scene is kept as it is and mirrored."""
    return max(1, round(bucket.count / (2 * CHUNK)))


def pictures(seeds: range, bucket: Bucket, recipe: Recipe) -> tuple[list[Scene], Tensor]:
    """Scenes and their pixels (N, T, H, W, 3) uint8; a still is taken at any moment of its clip."""
    scenes = [draw(seed, LEVELS[recipe.level]) for seed in seeds]
    moments = [(seed * 0.6180339887 % 1.0) * 2.0 if bucket.frames == 1 else 0.0 for seed in seeds]
    rendered = render(
        scenes,
        frames=bucket.frames,
        height=bucket.height,
        width=bucket.width,
        fps=recipe.fps,
        start=moments,
        compiled=recipe.device != "cpu",  # on a CPU chunks of one clip in the cache beat the compiler 5 to 1
        device=recipe.device,
    )
    return scenes, rendered.rgb.cpu()


def to_rgb(pixels: Tensor) -> Tensor:
    """(N, T, H, W, 3) uint8 to (N, 3, T, H, W) in [-1, 1]."""
    return pixels.movedim(-1, 1).float() / 127.5 - 1


def encode(scenes: list[Scene], pixels: Tensor, code: Autoencoder, text: TextEncoder, *, salt: int) -> Examples:
    """A chunk and its mirror image, as latents and sentences; `salt` makes the choice of words its own."""
    both = [*scenes, *(mirror(scene) for scene in scenes)]
    rgb = to_rgb(pixels)
    parts = (*rgb.split(16), *rgb.flip(-1).split(16))
    latents = torch.cat([code.encode(part.to(code.mean.device)).half().cpu() for part in parts])
    return Examples(latents, torch.stack([sentences(scene, salt + i, text) for i, scene in enumerate(both)]))


def sentences(scene: Scene, salt: int, text: TextEncoder) -> Tensor:
    """FORMS ways to say the scene, as word ids (FORMS, WORDS) int16."""
    ids = torch.full((FORMS, WORDS), -1, dtype=torch.int16)
    for row in range(FORMS):
        line, _ = text.tokens([caption(scene, salt * FORMS + row).text])
        ids[row, : min(WORDS, line.shape[1])] = line[0, :WORDS].to(torch.int16)
    return ids


def bank_path(folder: Path, bucket: Bucket, chunk: int) -> Path:
    """Where a chunk of latents lies."""
    return folder / "bank" / f"{bucket.name}-{chunk:04d}.safetensors"


def fill_chunk(folder: Path, bucket: Bucket, chunk: int, recipe: Recipe, code: Autoencoder, text: TextEncoder) -> bool:
    """Render one file of the bank unless it is there; says whether it had to. A file appears whole or not at all."""
    path = bank_path(folder, bucket, chunk)
    if path.exists():
        return False
    seeds = seeds_of(bucket, chunk, recipe)
    scenes, pixels = pictures(seeds, bucket, recipe)
    store(path, encode(scenes, pixels, code, text, salt=2 * seeds.start)._asdict())
    return True


def read_bank(folder: Path, bucket: Bucket) -> Examples:
    """All examples of a bucket, in memory: about 20 kB a clip at 64 px."""
    parts = [Examples(**load_file(bank_path(folder, bucket, chunk))) for chunk in range(chunks(bucket))]
    return Examples(torch.cat([p.latents for p in parts]), torch.cat([p.ids for p in parts]))


def store(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write aside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    save_file({key: value.contiguous() for key, value in tensors.items()}, aside)
    aside.replace(path)


def piece_table(text: TextEncoder) -> Tensor:
    """Sub-word ids (V + 1, PIECES) of every word in the vocabulary, so that a batch needs only word ids."""
    _, pieces = text.tokens(list(text.vocabulary))
    return torch.cat([torch.zeros_like(pieces[:1, 0]), pieces[:, 0]])
