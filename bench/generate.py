"""Seconds of prepare, denoise and decode, and peak memory, for clips of several lengths; each in a fresh process.

python bench/generate.py --seconds 1 2 4 8 --runs 3 [--model diorama] [--quality standard] [--live] [--json]

--live: `watch` is when the first second could be watched, `watch_warm` the same counted from the loaded weights on, and
`whole_warm` all of the rest: what a server sees.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def one(model: str, seconds: float, quality: str, live: bool) -> dict[str, float]:
    """Generate once in this process; seconds by phase, start-up included apart, and the peak resident set (MB)."""
    begun = time.perf_counter()
    from cinecanvas.generate import Done, Phase, Watch, generate
    from cinecanvas.request import text_to_video

    with tempfile.TemporaryDirectory() as folder:
        request = text_to_video(
            "a red ball bounces on grass at sunset", seconds=seconds, model=model, quality=quality, seed=1
        )
        imported = time.perf_counter() - begun
        loaded = watched = 0.0
        for event in generate(request, out=Path(folder) / "clip.mp4", live=live):
            now = time.perf_counter() - begun
            if isinstance(event, Phase) and event.name == "prepare" and not loaded:
                loaded = now
            if isinstance(event, Watch) and event.seconds > 1.2 and not watched:  # whole when the next begins
                watched = now
    assert isinstance(event, Done)
    whole = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seen = {"watch": watched, "watch_warm": watched - loaded, "whole_warm": whole - loaded} if live else {}
    return {"import": imported, **event.phases.model_dump(), "whole": whole, **seen, "peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", default="diorama")
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--once", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once is not None:
        print(json.dumps(one(args.model, args.once, args.quality, args.live)))
        return
    rows = []
    for seconds in args.seconds:
        command = [sys.executable, __file__, "--once", str(seconds), "--model", args.model, "--quality", args.quality]
        command += ["--live"] * args.live
        runs = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            for _ in range(args.runs)
        ]
        median = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
        spread = [round(f(run["whole"] for run in runs), 2) for f in (min, max)]
        rows.append({"seconds": seconds, **median, "whole_min_max": spread})
    if args.json:
        print(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
