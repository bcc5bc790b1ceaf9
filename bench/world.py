"""Frames per second of the miniature world, as a table: python bench/world.py [--compiled] [--json] [--device cuda]."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from typing import NamedTuple

import torch

from cinecanvas.world.render import render
from cinecanvas.world.scene import LEVELS, draw


class Row(NamedTuple):
    """One measurement: frames per second of wall and of CPU time; seconds that the same clips took the first time."""

    level: str
    size: int  # px
    mode: str
    per_second: float
    per_cpu_second: float
    first_seconds: float


def measure(level: str, size: int, *, clips: int, frames: int, compiled: bool, device: str) -> Row:
    """The same clips twice: the first time pays for textures and compilers, the second is the speed."""
    scenes = [draw(seed, LEVELS[level]) for seed in range(clips)]

    def once() -> tuple[float, float]:
        began, spent = time.perf_counter(), time.process_time()
        done = render(scenes, frames=frames, height=size, width=size, fps=8, compiled=compiled, device=device)
        done.rgb.sum().item()  # waits for the device
        return time.perf_counter() - began, time.process_time() - spent

    first, _ = once()
    wall, cpu = once()
    many = clips * frames
    return Row(level, size, "compiled" if compiled else "eager", many / wall, many / cpu, first)


def machine(device: str) -> dict[str, str | int | float]:
    """What the numbers depend on."""
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or "cpu",
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", nargs="+", default=["first", "full"], choices=sorted(LEVELS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128], help="px")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--compiled", action="store_true", help="measure that too; minutes on a CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    facts, rows = machine(asked.device), []
    for level in asked.levels:
        for size in asked.sizes:
            for compiled in (False, True) if asked.compiled else (False,):
                row = measure(
                    level, size, clips=asked.clips, frames=asked.frames, compiled=compiled, device=asked.device
                )
                rows.append(row)
    if asked.json:
        print(json.dumps({"machine": facts, "rows": [row._asdict() for row in rows]}))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{'level':8}{'px':>5} {'mode':10}{'frames/s':>10}{'per CPU s':>11}{'first time, s':>15}")
    for r in rows:
        print(f"{r.level:8}{r.size:5} {r.mode:10}{r.per_second:10.0f}{r.per_cpu_second:11.0f}{r.first_seconds:15.1f}")


if __name__ == "__main__":
    main()
