"""How near memory is foretold: each family rehearsed in one process, and made in another whose peak is read.

    python bench/memory.py [--size 256x256] [--frames 9] [--precision bfloat16]

Checkpoints are made on the spot with random weights, small but for the lattice, so that activations weigh; and a Wan of
120 M parameters, so that weights do. Peaks are of the whole process, by phase, as Linux counts them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

PHASES = ("prepare", "denoise", "decode")
FINE = ("svd", "sd3", "sdxl", "hunyuan 1.5")  # their cells are small here: a sixteenth of the pixels are as many


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--size", default="256x256")
    asked.add_argument("--frames", type=int, default=9)
    asked.add_argument("--precision", default="bfloat16")
    asked.add_argument("--one", nargs=2, metavar=("FOLDER", "rehearsed|made"), help=argparse.SUPPRESS)
    args = asked.parse_args()
    if args.one:
        print(json.dumps(measured(Path(args.one[0]), args.one[1] == "rehearsed", args)))
        return
    with tempfile.TemporaryDirectory() as place:
        worst = 1.0
        for name, folder in checkpoints(Path(place)).items():
            if name == FINE[0]:
                args.size = "x".join(str(int(side) // 4) for side in args.size.split("x"))
            told, took = (child(folder, how, args) for how in ("rehearsed", "made"))
            ratios = [a / b for a, b in zip(told, took, strict=True)]
            worst = max([worst, *(max(ratio, 1 / ratio) for ratio in ratios)])
            cells = (
                f"{p} {a / 1e6:5.0f} / {b / 1e6:5.0f} MB {a / b:.2f}"
                for p, a, b in zip(PHASES, told, took, strict=True)
            )
            print(f"{name:16} {'   '.join(cells)}", flush=True)
        print(f"worst: {worst:.2f}")


def checkpoints(place: Path) -> dict[str, Path]:
    from tiny import cascade, cogvideox, hunyuan, hunyuan15, ltx, sd3, sdxl, svd, wan

    return {
        "wan 120 M": wan.middling(place / "middling"),
        "wan 2.1": wan.save(place / "t2v", "t2v"),
        "wan 2.1 i2v": wan.save(place / "i2v", "i2v"),
        "wan 2.2 5B": wan.save(place / "ti2v", "ti2v"),
        "ltx": ltx.save(place / "ltx", "plain"),
        "cogvideox": cogvideox.save(place / "cogvideox", "5b"),
        "hunyuan": hunyuan.save(place / "hunyuan"),
        "cascade": cascade.save(place / "cascade"),
        "svd": svd.save(place / "svd"),
        "sd3": sd3.save(place / "sd3", sd3.KINDS[0]),
        "sdxl": sdxl.save(place / "sdxl", sdxl.KINDS[0]),
        "hunyuan 1.5": hunyuan15.save(place / "hunyuan15", "t2v"),
    }


def child(folder: Path, how: str, args: argparse.Namespace) -> list[int]:
    """The peaks of one process, in bytes by phase."""
    command = [sys.executable, __file__, "--one", str(folder), how, "--size", args.size]
    command += ["--frames", str(args.frames), "--precision", args.precision]
    env = {**os.environ, "CINECANVAS_HOME": str(folder.parent / f"home-{how}")}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(done.stderr[-6000:])
    return json.loads(done.stdout.splitlines()[-1])


def measured(folder: Path, rehearsed: bool, args: argparse.Namespace) -> list[int]:
    import torch
    from parity import PROMPT, grid_of, opened

    from cinecanvas.canvas import Canvas
    from cinecanvas.fitting import rehearse
    from cinecanvas.guidance import guided
    from cinecanvas.plan import Pass
    from cinecanvas.runtime.machine import lean, used
    from cinecanvas.runtime.placement import Placement

    torch.set_num_threads(1)
    lean()
    placement = Placement(precision=args.precision, rehearsed=rehearsed)
    model = opened(folder, placement)
    width, height = map(int, args.size.split("x"))
    pictures = "text_to_image" in model.card.tasks and "text_to_video" not in model.card.tasks
    grid = grid_of(model.card, frames=1 if pictures else args.frames, width=width, height=height)
    shown = "text_to_video" not in model.card.tasks and not pictures
    if rehearsed:
        step = Pass(
            model=model.card.name,
            weights="",
            grid=grid,
            order="full",
            steps=2,
            shift=1.0,
            solver="euler",
            guidance=3.0,
            guided=(0.0, 1.0),
            seed=0,
            prompt=PROMPT,
        )
        before = used()
        peaks = rehearse(model, step, laid=shown)
        return [before + getattr(peaks, phase) for phase in PHASES]
    asked = guided(model, 3.0, interval=(0.0, 1.0))
    canvas = Canvas.blank(grid)
    if shown:
        canvas = canvas.place("video", torch.zeros(1, 3, 1, height, width) + 0.1)
    found = []
    mark()
    prepared = asked.prepare(canvas, [PROMPT])
    found.append(peak())
    tracks = prepared.canvas.tracks
    z = {name: track.x.float() for name, track in tracks.items()}
    sigma = {name: torch.ones_like(track.keep) for name, track in tracks.items()}
    mark()
    x0 = asked.denoise(z, sigma, prepared)
    found.append(peak())
    del prepared
    mark()
    for _ in model.decode(x0):
        pass
    return [*found, peak()]


def mark() -> None:
    """Let the peak of the process begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
