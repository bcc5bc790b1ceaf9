"""Teaches a judge on rendered clips: python -m cinecanvas.eval.teach --eye frames --minutes 20 --out FOLDER."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from cinecanvas.eval import wear
from cinecanvas.eval.judge import FPS, FRAMES, SIDE, VALUES, Eye, Judge, judges, labels, save, verdicts
from cinecanvas.world.captions import SLOTS, spec
from cinecanvas.world.render import render
from cinecanvas.world.scene import FIRST, SWAPPED, Scene, draw

LESSONS = 2_000_000_000  # scenes from this seed on teach judges; training and exams have lanes of their own
AUDIT = 2_900_000_000  # scenes from this seed on audit them
BATCH = 32


class Progress(NamedTuple):
    """One step of a course: how many are done, the part of its minutes that is over, and the mean loss of a slot."""

    step: int
    share: float
    loss: float


def lesson(number: int) -> Scene:
    """The scene of a lesson; every eighth is a triple that generators never train on: a judge must read them too."""
    return draw(LESSONS + number, FIRST, held_out=number % 8 == 7)


def bank(clips: int, path: Path | None) -> tuple[Tensor, Tensor]:
    """Rendered lessons (N, 17, 64, 64, 3) uint8 and their labels (N, slots); kept in a file if one is named."""
    scenes = [lesson(number) for number in range(clips)]
    truth = labels([spec(scene) for scene in scenes])
    if path is not None and path.exists():
        return load_file(path)["rgb"][:clips], truth
    rgb = pictures(scenes)
    if path is not None:
        save_file({"rgb": rgb}, path)
    return rgb, truth


def pictures(scenes: list[Scene]) -> Tensor:
    """What a judge is shown of them, (N, 17, 64, 64, 3) uint8."""
    rendered = render(scenes, frames=FRAMES, height=SIDE, width=SIDE, fps=FPS)
    return torch.as_tensor(rendered.rgb)


def course(
    judge: Judge, rgb: Tensor, truth: Tensor, *, wears: tuple[wear.Wear, ...], minutes: float, seed: int = 0
) -> Iterator[Progress]:
    """AdamW under a cosine of wall time; mirrored, frozen and worn clips are among the lessons."""
    chance = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    began = time.monotonic()
    for step, picked in enumerate(_batches(len(rgb), chance)):
        share = (time.monotonic() - began) / (60 * minutes)
        if share >= 1:
            return
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1.0, step / 100) * (0.01 + 0.99 * math.cos(math.pi / 2 * share))
        clips, wanted = _varied(to_rgb(rgb[picked]), truth[picked], chance)
        clips = wear.worn(clips, wears, chance)
        with torch.autocast("cpu", torch.bfloat16):
            said = judge.train()(clips)
        losses = [F.cross_entropy(said[slot].float(), wanted[:, i]) for i, slot in enumerate(SLOTS)]
        loss = torch.stack(losses).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        yield Progress(step + 1, share, float(loss.detach()))


def audit(panel: tuple[Judge, ...], *, clips: int) -> dict[str, dict[str, float]]:
    """Share read right by wear and slot, on scenes of the audit's own lane; a fourth of them are held-out triples."""
    scenes = [draw(AUDIT + n, FIRST, held_out=n % 4 == 3) for n in range(clips)]
    rgb, truth = to_rgb(pictures(scenes)), labels([spec(scene) for scene in scenes])
    chance = torch.Generator().manual_seed(1)
    trials = {
        "clean": rgb,
        "blur 1.5 px": wear.blur(rgb, 0.7, chance),
        "noise 0.15": rgb + 0.15 * torch.randn(rgb.shape, generator=chance),
        "half size": wear.halved(rgb, 1.0, chance),
        "compressed": wear.compressed(rgb, 0.5, chance),
        "coarse code": wear.coarse(wear.code_of(rgb[:192]))(rgb, 0.5, chance),
    }
    found = {}
    for name, shown in trials.items():
        right = verdicts(panel, shown.clamp(-1, 1)).shown == truth
        found[name] = {slot: float(right[:, i].float().mean()) for i, slot in enumerate(SLOTS)}
        found[name]["joint"] = float(right.all(1).float().mean())
    return found


def to_rgb(pixels: Tensor) -> Tensor:
    """(N, T, H, W, 3) uint8 to (N, 3, T, H, W) in [-1, 1]."""
    return (pixels.movedim(-1, 1).float() / 127.5 - 1).contiguous()


def _batches(count: int, chance: torch.Generator) -> Iterator[Tensor]:
    """Every clip once, in another order each time, for ever."""
    while True:
        yield from torch.randperm(count, generator=chance)[: count // BATCH * BATCH].split(BATCH)


def _varied(clips: Tensor, truth: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half of the batch mirrored, two clips frozen (at rest, camera static), labels to match."""
    clips, truth = clips.clone(), truth.clone()
    half = len(clips) // 2
    clips[:half] = clips[:half].flip(-1)
    for i, slot in enumerate(SLOTS):
        if slot in ("motion", "camera"):
            swap = torch.tensor([VALUES[slot].index(SWAPPED.get(value, value)) for value in VALUES[slot]])
            truth[:half, i] = swap[truth[:half, i]]
    for row in (0, len(clips) - 1):
        frame = int(torch.randint(clips.shape[2], (), generator=chance))
        clips[row] = clips[row, :, frame : frame + 1].clone()
        truth[row, SLOTS.index("motion")] = VALUES["motion"].index("rest")
        truth[row, SLOTS.index("camera")] = VALUES["camera"].index("static")
    return clips, truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eye", choices=get_args(Eye), default="frames")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training; rendering comes before")
    parser.add_argument("--clips", type=int, default=9216)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bank", type=Path, help="keep the rendered clips in this file, for the next judge")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--audit", type=int, default=600, metavar="N", help="clips of the audit of all judges there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)
    judge = Judge(asked.eye)
    print(f"{sum(p.numel() for p in judge.parameters()):,} parameters; rendering {asked.clips} clips", flush=True)
    rgb, truth = bank(asked.clips, asked.bank)
    command = f"python -m cinecanvas.eval.teach --eye {asked.eye} --minutes {asked.minutes:g} --seed {asked.seed}"
    wears = (*wear.PLAIN, wear.coarse(wear.code_of(to_rgb(rgb[:192]))))
    saved = time.monotonic()
    for now in course(judge, rgb, truth, wears=wears, minutes=asked.minutes, seed=asked.seed):
        if now.step % 50 == 0:
            print(f"{now.share:4.0%}  step {now.step}  loss {now.loss:.3f}", flush=True)
        if time.monotonic() - saved > 60:
            save(asked.out, judge, facts={"command": command, "steps": now.step})
            saved = time.monotonic()
    path = save(asked.out, judge, facts={"command": command, "steps": now.step})
    print(path)
    found = audit(judges(asked.out), clips=asked.audit) if asked.audit else {}
    for name, row in found.items():
        print(f"{name:12}", "  ".join(f"{slot} {share:.3f}" for slot, share in row.items()))


if __name__ == "__main__":
    main()
