"""The one loop: noise goes in, known cells stay, and a Fill comes out after every step."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cinecanvas.canvas import Canvas, Tensors, Track
from cinecanvas.errors import BadMedia, BadRequest
from cinecanvas.model import Conditioning, Model
from cinecanvas.schedule import Schedule
from cinecanvas.solvers import Solver, dpm, named
from cinecanvas.stepcache import ALWAYS, StepCache


@dataclass(frozen=True)
class Fill:
    """A canvas on its way: all that is needed to look at it, to stop, and to go on bit for bit in another process."""

    step: int  # the step that the next network call belongs to
    steps: int
    z: Tensors  # latents (B, C, T, H, W), float32
    x0: Tensors  # the model's latest guess of the end, like z: the preview
    memory: Tensors  # what the solver remembers, under its own flat names
    past: Tensors = field(default_factory=dict)  # the network's last answers, where a step cache foretells others
    calls: int = 0  # network calls so far
    finished: int = 0  # leading moments of the schedule that will not change any more
    again: bool = False  # the step is half done: the next call is at the noise where it ends

    @property
    def done(self) -> bool:
        """Whether nothing is left to fill."""
        return self.step >= self.steps

    def pack(self) -> bytes:
        """This fill as safetensors: every bit of it, and nothing that could run code."""
        counts = torch.tensor([self.step, self.steps, self.calls, self.finished, int(self.again)])
        flat = named(z=self.z, x0=self.x0, memory=self.memory, past=self.past)
        # clone: safetensors refuses tensors that share storage, and a solver may remember x0 itself
        return save({"counts": counts, **{name: t.cpu().contiguous().clone() for name, t in flat.items()}})

    @classmethod
    def unpack(cls, data: bytes) -> Fill:
        """The fill that was packed, on the CPU."""
        groups: dict[str, Tensors] = {"z": {}, "x0": {}, "memory": {}, "past": {}}
        try:
            flat = load(data)
            step, steps, calls, finished, again = flat.pop("counts").tolist()
            for name, tensor in flat.items():
                group, _, key = name.partition("/")
                groups[group][key] = tensor
            if not 0 <= step <= steps:
                raise ValueError(f"step {step} of {steps}")
        except (SafetensorError, KeyError, ValueError, TypeError) as bad:
            raise BadMedia(
                f"These {len(data)} bytes are not a packed fill ({bad})", do="Start the fill again from its seed"
            ) from bad
        return cls(step, steps, **groups, calls=calls, finished=finished, again=bool(again))


def fill(
    model: Model,
    cond: Conditioning,
    schedule: Schedule,
    *,
    seed: int | Sequence[int],
    solver: Solver = dpm,
    key: str = "",
    resume: Fill | None = None,
    cache: StepCache = ALWAYS,
) -> Generator[Fill, None, None]:
    """The one loop: sigma from canvas x schedule, x0 from the model, one solver move, known cells restored.

    Yields after every step, so closing it takes effect within one network call; the last Fill is `done`.

    key: the pass's. cache: at which steps the network is asked at all; elsewhere x0 is foretold from its last answers.
    """
    canvas = cond.canvas
    now = _begin(canvas, schedule, seed=seed, key=key) if resume is None else _taken_up(resume, canvas, schedule)
    if now.done:  # nothing to fill: the canvas is its own answer
        yield now
    while not now.done:
        sigma, to = canvas.sigma(schedule, now.step), canvas.sigma(schedule, now.step + 1)
        with torch.no_grad():
            after = _next_move(canvas, schedule, now.step + 1)
            asks = cache.asks(now.step, steps=schedule.steps, calls=now.calls, last=after == schedule.steps)
            guess = None if asks else cache.foretold(now.past, sigma)
            past, calls = now.past, now.calls
            if guess is None:
                answer = model.denoise(now.z, to if now.again else sigma, cond, to=to)
                guess = {name: x.float() for name, x in answer.items()}
                past, calls = cache.remembered(past, guess, sigma), calls + 1
            x0 = _restored(guess, canvas)
            fresh = partial(_fresh, canvas, seed=seed, key=key, step=now.step)
            move = solver(now.z, x0, sigma, to, now.memory, fresh)
        step = now.step if move.again else after
        now = Fill(
            step,
            schedule.steps,
            _restored(move.z, canvas),
            x0,
            move.memory,
            past,
            calls=calls,
            finished=schedule.finished(step),
            again=move.again,
        )
        yield now


def noise(
    track: Track, *, seed: int | Sequence[int], key: str = "", name: str = "video", step: int | None = None
) -> Tensor:
    """Standard normal noise like track.x, float32: a function of seed, pass, track's name and absolute cell-in-time.

    So it is the same whatever the batch, the window or the number of threads. An int gives video b the seed + b.
    step: that of a step of the schedule, for solvers that renew it; None: the one that a fill begins with.
    """
    drawn = "" if step is None else f"\0{step}"
    batch, channels, frames, height, width = track.x.shape
    seeds = range(seed, seed + batch) if isinstance(seed, int) else seed
    assert len(seeds) == batch, f"{len(seeds)} seeds for {batch} videos"
    eps = torch.empty(batch, frames, channels, height, width)
    for b, s in enumerate(seeds):
        for t in range(frames):
            digest = hashlib.blake2b(f"{s}\0{key}\0{name}\0{track.start + t}{drawn}".encode(), digest_size=8).digest()
            source = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
            torch.randn(channels, height, width, generator=source, out=eps[b, t])
    return eps.transpose(1, 2).contiguous().to(track.x.device)


def _fresh(canvas: Canvas, *, seed: int | Sequence[int], key: str, step: int) -> Tensors:
    """The noise of one step, for every track."""
    return {name: noise(track, seed=seed, key=key, name=name, step=step) for name, track in canvas.tracks.items()}


def _begin(canvas: Canvas, schedule: Schedule, *, seed: int | Sequence[int], key: str) -> Fill:
    """z = (1 - sigma) x + sigma eps at the schedule's first row."""
    sigma = canvas.sigma(schedule, 0)
    z = {}
    for name, track in canvas.tracks.items():
        eps = noise(track, seed=seed, key=key, name=name)
        z[name] = (1 - sigma[name]) * track.x.float() + sigma[name] * eps
    z = _restored(z, canvas)
    step = _next_move(canvas, schedule, 0)
    return Fill(step, schedule.steps, z, z, {}, finished=schedule.finished(step))


def _taken_up(resume: Fill, canvas: Canvas, schedule: Schedule) -> Fill:
    """The fill where it was left, on the canvas's device."""
    like = {name: track.x for name, track in canvas.tracks.items()}
    same_shapes = {k: z.shape for k, z in resume.z.items()} == {k: x.shape for k, x in like.items()}
    if resume.steps != schedule.steps or not same_shapes:
        raise BadRequest(
            f"A fill of {resume.steps} steps cannot go on under a schedule of {schedule.steps}, or on another canvas",
            do="Resume it with the canvas and the schedule that it began with",
        )
    device = next(iter(like.values())).device

    def here(tensors: Tensors) -> Tensors:
        return {name: x.to(device) for name, x in tensors.items()}

    return replace(resume, z=here(resume.z), x0=here(resume.x0), memory=here(resume.memory), past=here(resume.past))


def _next_move(canvas: Canvas, schedule: Schedule, step: int) -> int:
    """The first step from `step` on in which any cell moves: those above every ceiling cost no network call."""
    for row in range(step, schedule.steps):
        sigma, to = canvas.sigma(schedule, row), canvas.sigma(schedule, row + 1)
        if any(bool((to[k] < sigma[k]).any()) for k in sigma):
            return row
    return schedule.steps


def _restored(z: Tensors, canvas: Canvas) -> Tensors:
    """z with every known cell as the canvas has it, to the bit."""
    return {k: torch.where(known, canvas.tracks[k].x.float(), z[k]) for k, known in canvas.known.items()}
