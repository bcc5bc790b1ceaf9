"""The same weights, words, noise and steps through our fill and through diffusers' pipeline, alternating, as ratios.

    python bench/versus_diffusers.py [--frames 33] [--size 192x128] [--steps 4] [--rounds 3] [--kinds t2v,ti2v]
        [--proportions] [--step-cache 2] [--remembered]

A Wan of 120 M parameters with random weights, in bfloat16 as diffusers shows it. Every run is a process of
its own: seconds are of the processor from the first byte loaded to the last frame, memory is the peak of the process.
Prompts are read anew in every run; with --remembered ours may keep what its encoder made of them before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--frames", type=int, default=33)
    asked.add_argument("--size", default="192x128")
    asked.add_argument("--steps", type=int, default=4)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--kinds", default="t2v,ti2v")
    asked.add_argument("--remembered", action="store_true")
    asked.add_argument("--proportions", action="store_true", help="an encoder four times as heavy as the network")
    asked.add_argument("--step-cache", type=int, default=1, help="ours asks its network at every n-th step")
    asked.add_argument("--one", nargs=2, metavar=("FOLDER", "ours|theirs"), help=argparse.SUPPRESS)
    args = asked.parse_args()
    if args.one:
        print(json.dumps({"ours": ours, "theirs": theirs}[args.one[1]](Path(args.one[0]), args)))
        return
    from tiny import wan

    with tempfile.TemporaryDirectory() as place:
        for kind in args.kinds.split(","):
            folder = wan.middling(Path(place) / kind, kind=kind, proportions=args.proportions)
            found: dict[str, list[dict[str, float]]] = {"theirs": [], "ours": []}
            for number in range(args.rounds):
                for who in found:
                    home = Path(place) / f"home-{kind}-{0 if args.remembered else number}"
                    found[who].append(child(folder, who, args, home=home))
            told(kind, found)


def told(kind: str, found: dict[str, list[dict[str, float]]]) -> None:
    middle = {
        who: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for who, runs in found.items()
    }
    for who, runs in found.items():
        seconds = sorted(run["seconds"] for run in runs)
        print(f"{kind:6} {who:6} {seconds[0]:.1f} to {seconds[-1]:.1f} s, {middle[who]['bytes'] / 1e6:.0f} MB at most")
    ratios = {name: middle["ours"][name] / middle["theirs"][name] for name in ("seconds", "bytes")}
    print(f"{kind:6} ours / theirs: time {ratios['seconds']:.2f}, memory {ratios['bytes']:.2f}", flush=True)


def child(folder: Path, who: str, args: argparse.Namespace, *, home: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(folder), who, "--size", args.size]
    command += ["--frames", str(args.frames), "--steps", str(args.steps)]
    command += ["--step-cache", str(args.step_cache)]
    env = {**os.environ, "CINECANVAS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def ours(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    from diffusers import WanPipeline  # noqa: F401  both import before the clock starts
    from parity import NEGATIVE, PROMPT, SEED, grid_of, opened

    from cinecanvas.canvas import Canvas
    from cinecanvas.guidance import guided
    from cinecanvas.runtime.placement import Placement
    from cinecanvas.sampler import fill
    from cinecanvas.schedule import full
    from cinecanvas.solvers import SOLVERS
    from cinecanvas.stepcache import StepCache

    width, height = map(int, args.size.split("x"))

    def run() -> None:
        model = opened(folder, Placement())
        grid = grid_of(model.card, frames=args.frames, width=width, height=height)
        recipe = model.card.recipes["standard"]
        asked = guided(model, recipe.guidance, negative=NEGATIVE, interval=(0.0, 1.0))
        prepared = asked.prepare(Canvas.blank(grid), [PROMPT])
        schedule = full(args.steps, shift=recipe.shift, ramp=recipe.ramp)
        cache = StepCache(every=args.step_cache)
        *_, last = fill(asked, prepared, schedule, seed=SEED, solver=SOLVERS[recipe.solver], cache=cache)
        for frames in model.decode(last.z):
            assert frames.rgb.dtype == "uint8"

    return clocked(run)


def theirs(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    import torch
    from diffusers import WanPipeline
    from parity import NEGATIVE, PROMPT

    width, height = map(int, args.size.split("x"))

    def run() -> None:
        pipe = WanPipeline.from_pretrained(folder, dtype=torch.bfloat16)
        pipe.set_progress_bar_config(disable=True)
        frames = pipe(
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            width=width,
            height=height,
            num_frames=args.frames,
            num_inference_steps=args.steps,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(0),
        ).frames[0]
        assert len(frames) == args.frames

    return clocked(run)


def clocked(run: Any) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5")
    began = time.process_time()
    run()
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return {"seconds": time.process_time() - began, "bytes": peak}


if __name__ == "__main__":
    main()
