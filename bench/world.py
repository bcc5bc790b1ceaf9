"""Frames per second of the miniature world: python bench/world.py [--size 64] [--clips 32] [--compiled]."""

from __future__ import annotations

import argparse
import time

import torch

from cinecanvas.world.render import render
from cinecanvas.world.scene import LEVELS, draw


def frames_per_second(
    *, clips: int, frames: int, size: int, level: str, compiled: bool, device: str
) -> tuple[float, float]:
    """Seconds of the first batch (compilation, textures), and frames per second of the following ones."""
    batches = [[draw(seed + clips * n, LEVELS[level]) for seed in range(clips)] for n in range(4)]
    began = time.perf_counter()
    laps = []
    for scenes in batches:
        done = render(scenes, frames=frames, height=size, width=size, fps=8, compiled=compiled, device=device)
        done.rgb.sum().item()  # waits for the device
        laps.append(time.perf_counter())
    return laps[0] - began, clips * frames * (len(batches) - 1) / (laps[-1] - laps[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--level", default="first", choices=sorted(LEVELS))
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    first, speed = frames_per_second(
        clips=asked.clips, frames=asked.frames, size=asked.size, level=asked.level, compiled=asked.compiled,
        device=asked.device,
    )  # fmt: skip
    print(f"{speed:.0f} frames/s (first batch {first:.1f} s), {torch.get_num_threads()} threads, {asked}")


if __name__ == "__main__":
    main()
