"""The bank: scenes rendered once, kept as latents with the sentences that may describe them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cinecanvas.models.autoencoder import Autoencoder
from cinecanvas.models.text import TextEncoder
from cinecanvas.train.oracle import facts_of, mirrored
from cinecanvas.train.recipes import Bucket, Recipe
from cinecanvas.world.captions import SLOTS, caption
from cinecanvas.world.render import Rendered, render
from cinecanvas.world.scene import LEVELS, Level, Scene, draw, mirror

CHUNK = 128  # scenes per file
WORDS = 24  # words of a training caption: one fixed length keeps the compiled network to one shape
FORMS = 4  # sentences kept per clip, one of which is drawn each time it is seen
LATEST = 10.0  # s: from then on the world does not change its ways
HELD_BACK = 1_000_000_000  # scenes from this seed on are for validation and exams, never for training


class Examples(NamedTuple):
    """Clips as latents, sentences about them, and what the renderer knows of them."""

    latents: Tensor  # (N, C, T, H, W) float16
    facts: Tensor  # (N, K, T, H, W) float16, of every cell
    ids: Tensor  # (N, FORMS, WORDS) int16, -1 = no word
    said: Tensor  # (N, FORMS, slots) int8: which value of each slot the sentence says, -1 = none


def seeds_of(bucket: Bucket, chunk: int, recipe: Recipe) -> range:
    """Which scenes a file of the bank holds: buckets never share a scene."""
    lane = [b.name for b in recipe.buckets].index(bucket.name)
    start = lane * 10_000_000 + chunk * CHUNK
    return range(start, start + CHUNK)


def chunks(bucket: Bucket) -> int:
    """How many files a bucket has; every scene is kept as it is and mirrored."""
    return max(1, round(bucket.count / (2 * CHUNK)))


def pictures(seeds: range, bucket: Bucket, recipe: Recipe, *, truth: bool = False) -> tuple[list[Scene], Rendered]:
    """Scenes and their pixels (N, T, H, W, 3) uint8; stills are taken at any moment of a clip, late clips after it."""
    scenes = [draw(seed, LEVELS[recipe.level]) for seed in seeds]
    moments = [_moment(seed * 0.6180339887 % 1.0, bucket) for seed in seeds]
    rendered = render(
        scenes,
        frames=bucket.frames,
        height=bucket.height,
        width=bucket.width,
        fps=recipe.fps,
        start=moments,
        compiled=recipe.device != "cpu",  # on a CPU chunks of one clip in the cache beat the compiler 5 to 1
        device=recipe.device,
        truth=truth,
    )
    return scenes, rendered


def _moment(part: float, bucket: Bucket) -> float:
    """When a picture or clip begins (s), for a part drawn evenly from 0..1."""
    if bucket.late:
        return LATEST * part**2  # things come to rest after some seconds: most clips begin before
    return 2.0 * part if bucket.frames == 1 else 0.0


def to_rgb(pixels: Tensor) -> Tensor:
    """(N, T, H, W, 3) uint8 to (N, 3, T, H, W) in [-1, 1]."""
    return pixels.movedim(-1, 1).float() / 127.5 - 1


def encode(
    scenes: list[Scene], seen: Rendered, code: Autoencoder, text: TextEncoder, level: Level, *, salt: int
) -> Examples:
    """A chunk and its mirror image, as latents, facts and sentences; `salt` makes the choice of words its own."""
    assert seen.truth is not None, "the bank keeps what the renderer knows"
    both = [*scenes, *(mirror(scene) for scene in scenes)]
    rgb = to_rgb(seen.rgb)
    parts = (*rgb.split(16), *rgb.flip(-1).split(16))
    latents = torch.cat([code.encode(part.to(code.mean.device)).half().cpu() for part in parts])
    shapes = [level.shapes.index(scene.things[0].shape) for scene in scenes]
    facts = facts_of(seen.truth, shapes, strides=code.shape.strides, kinds=len(level.shapes)).cpu()
    lines = [sentences(scene, salt + i, text, level) for i, scene in enumerate(both)]
    ids, said = (torch.stack(rows) for rows in zip(*lines, strict=True))
    return Examples(latents, torch.cat([facts, mirrored(facts)]).half(), ids, said)


def sentences(scene: Scene, salt: int, text: TextEncoder, level: Level) -> tuple[Tensor, Tensor]:
    """FORMS ways to say the scene, as word ids (FORMS, WORDS) int16, and what each says (FORMS, slots) int8.

    The first is the plain and complete one: what depends on words is learned from sentences that have them.
    """
    ids = torch.full((FORMS, WORDS), -1, dtype=torch.int16)
    said = torch.full((FORMS, len(SLOTS)), -1, dtype=torch.int8)
    for row in range(FORMS):
        one = caption(scene, salt * FORMS + row, style="mixed" if row else "plain")
        line, _ = text.tokens([one.text])
        ids[row, : min(WORDS, line.shape[1])] = line[0, :WORDS].to(torch.int16)
        for i, slot in enumerate(SLOTS):
            if slot in one.mentioned:
                said[row, i] = level.words[slot].index(getattr(one.spec, slot))
    return ids, said


def bank_path(folder: Path, bucket: Bucket, chunk: int) -> Path:
    """Where a chunk of latents lies."""
    return folder / "bank" / f"{bucket.name}-{chunk:04d}.safetensors"


def fill_chunk(folder: Path, bucket: Bucket, chunk: int, recipe: Recipe, code: Autoencoder, text: TextEncoder) -> bool:
    """Render one file of the bank unless it is there; says whether it had to. A file appears whole or not at all."""
    path = bank_path(folder, bucket, chunk)
    if path.exists():
        return False
    seeds = seeds_of(bucket, chunk, recipe)
    scenes, seen = pictures(seeds, bucket, recipe, truth=True)
    store(path, encode(scenes, seen, code, text, LEVELS[recipe.level], salt=2 * seeds.start)._asdict())
    return True


def read_bank(folder: Path, bucket: Bucket) -> Examples:
    """All examples of a bucket, in memory: about 20 kB a clip at 64 px."""
    parts = [Examples(**load_file(bank_path(folder, bucket, chunk))) for chunk in range(chunks(bucket))]
    whole = Examples(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return whole._replace(facts=standardised(whole.facts))


def standardised(facts: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the bank, so that a small flow counts as much as a large part of the sky."""
    axes = (0, 2, 3, 4)
    deviation, mean = torch.std_mean(facts.float(), dim=axes, keepdim=True)
    return ((facts - mean) / deviation.clamp(min=1e-3)).half()


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
