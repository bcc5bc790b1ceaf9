"""Training speed: clips per second and model FLOP per second of one step, for each extent of a preset.

python bench/train.py --preset cpu --steps 8 [--eager] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import torch

from cinecanvas.models.dit import DiTShape
from cinecanvas.train import data, trainer
from cinecanvas.train.oracle import FACTS
from cinecanvas.train.recipes import RECIPES, Bucket
from cinecanvas.train.run import Run, start
from cinecanvas.world.captions import SLOTS


def flops(shape: DiTShape, parameters: int, cells: int, words: int) -> float:
    """Of one example: 6 per parameter and cell, and 12 width (cells + words) per cell and block for attention."""
    return 6.0 * parameters * cells + 12.0 * shape.width * (cells + words) * cells * shape.depth


def measure(run: Run, bucket: Bucket, steps: int) -> dict[str, float | str]:
    """Seconds of `steps` steps after two that warm up, on random latents of the bucket's extent."""
    t, y, x = run.recipe.code.strides
    cells = (1 + (bucket.frames - 1) // t, bucket.height // y, bucket.width // x)
    examples = data.Examples(
        torch.randn(256, run.recipe.code.channels, *cells).half(),
        torch.randn(256, FACTS + len(run.oracle.words["shape"]), *cells).half(),
        torch.randint(0, len(run.text.vocabulary), (256, data.FORMS, data.WORDS)).short(),
        torch.full((256, data.FORMS, len(SLOTS)), 0, dtype=torch.int8),
    )
    forward, pieces = trainer.compiled_forward(run), data.piece_table(run.text)
    for _ in range(2):
        trainer.train_step(run, forward, examples, bucket, pieces, 0.01)
    begun = time.perf_counter()
    for _ in range(steps):
        float(trainer.train_step(run, forward, examples, bucket, pieces, 0.01))
    seconds = (time.perf_counter() - begun) / steps
    parameters = sum(p.numel() for block in run.dit.blocks for p in block.parameters())
    number = cells[0] * cells[1] * cells[2]
    work = flops(run.recipe.dit, parameters, number, data.WORDS) * bucket.batch
    return {
        "bucket": bucket.name,
        "batch": bucket.batch,
        "cells": number,
        "step_s": round(seconds, 3),
        "clips_per_s": round(bucket.batch / seconds, 1),
        "gflop_per_s": round(work / seconds / 1e9, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cpu", choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--eager", action="store_true", help="without the compiler")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = start(args.preset, 100, Path(folder))
        if args.eager:
            run.recipe = run.recipe.model_copy(update={"compiled": False})
        rows = [measure(run, bucket, args.steps) for bucket in run.recipe.buckets]
    facts = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if args.json:
        print(json.dumps({"facts": facts, "rows": rows}))
        return
    print(facts)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
