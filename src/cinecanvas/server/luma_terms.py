"""What both of Luma's APIs mean by their words: lengths, sizes, what a film begins and ends with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request

from cinecanvas.errors import BadRequest, Unsupported
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.order import Source
from cinecanvas.jobs.queue import NoJob
from cinecanvas.media.assets import Asset
from cinecanvas.models import card
from cinecanvas.request import SIDES
from cinecanvas.server.desk import Desk
from cinecanvas.server.dialect import Link
from cinecanvas.server.message import At, Base, Creator, Message, Sent

SECONDS = 5.0  # s, of a film whose length is not said
SHAPE = "16:9"
STRENGTHS: Mapping[str, float] = {  # how much of a film an edit keeps
    f"{word}_{number}": round(keep - number / 10, 1)
    for word, keep in (("adhere", 1.0), ("flex", 0.7), ("reimagine", 0.4))
    for number in (1, 2, 3)
}
WORDLESS = "a film"  # where no words are given: nothing that a model could take for a wish
_SECONDS = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)s")
ID = re.compile(r"[0-9a-f-]{36}")
_LINES = re.compile(r"(\d{2,4})p")
_MOST_ECHO = 4000  # characters of a string that is repeated in every reply


class Call(NamedTuple):
    """A request that is to become a generation: what it carries, who sent it, and what takes it."""

    desk: Desk
    caller: Caller
    base: str
    sent: Message
    request: Request

    @property
    def link(self) -> Link:
        """URLs of what is made, as the asker can reach them."""
        return linked(self.desk, self.base)


def _call(desk: At, caller: Creator, base: Base, sent: Sent, request: Request) -> Call:
    return Call(desk, caller, base, sent, request)


Calling = Annotated[Call, Depends(_call)]


class Shown(NamedTuple):
    """A picture or film that was named: where it is, what it is if it is here already, the words it was made with."""

    source: Source
    asset: Asset | None = None
    prompt: str = ""

    @property
    def film(self) -> bool:
        """Whether it is more than a frame; of what is still to be fetched nobody knows: it is taken for a picture."""
        return self.asset is not None and bool(self.asset.seconds)


def shown(desk: Desk, caller: Caller, source: Source) -> Shown:
    """What a source stands for, as far as it is known now."""
    asset = None if source.url is not None else desk.asset_of(caller, source)
    prompt = desk.queue.get(source.job, account=caller.account).asked.get("prompt", "") if source.job else ""
    return Shown(source, asset, prompt)


def mine(desk: Desk, caller: Caller, generation: str, *dialects: str) -> Job:
    """A generation of the caller's, of any dialect or of these."""
    if ID.fullmatch(generation):
        with suppress(NoJob):
            job = desk.queue.get(generation, account=caller.account)
            if not dialects or job.dialect in dialects:
                return job
    raise NoJob("There is no such generation", do="Check its id")


def made_before(desk: Desk, caller: Caller, generation: str) -> Shown:
    """A generation of the caller's that is completed."""
    job = mine(desk, caller, generation)
    if job.state != "succeeded":
        raise BadRequest(f"The generation {generation} is not completed", do="Wait until its state is completed")
    return Shown(Source(job=job.id), desk.made(job), job.asked.get("prompt", ""))


def words(prompt: str | None, *known: Shown | None) -> str:
    """The prompt; without one the words that what is known was made with."""
    told = (one.prompt for one in known if one is not None and one.prompt)
    return prompt if prompt and prompt.strip() else next(told, WORDLESS)


def ends(first: Shown | None, second: Shown | None, *, seconds: float | None, loop: bool) -> tuple[str, dict[str, Any]]:
    """The task, and what it takes, of a film that begins and ends with something.

    A picture holds a frame, a film all of its own length: `seconds` are what is new, and the whole is what comes out.
    """
    if loop and second is not None:
        raise BadRequest("A loop was asked that ends on something", "A loop ends where it begins", "Ask without one")
    if loop:
        return "loop", {"of": first.source if first else None, "seconds": seconds}
    new = SECONDS if seconds is None else seconds
    if first is not None and second is not None:
        return "interpolate", {"first": first.source, "second": second.source, "seconds": new}
    known = first or second
    if known is None:
        return "text_to_video", {"seconds": new}
    if known.film:
        return "extend", {"clip": known.source, "seconds": new, "backward": first is None}
    return "animate", {"picture": known.source, "seconds": new, "last": first is None}


def seconds_of(duration: str | None) -> float | None:
    """5s as a number."""
    if duration is None:
        return None
    match = _SECONDS.fullmatch(duration.strip())
    if match is None or not float(match[1]):
        raise BadRequest(f"The duration {duration[:20]!r} was asked", "It is seconds such as 5s or 9s")
    return float(match[1])


def sized(resolution: str | None, shape: str | None, known: Shown | None = None) -> dict[str, Any]:
    """Pixels of a resolution, whose lines are the shorter side; without one a shape; of a film known its own size."""
    asset = known.asset if known else None
    if resolution is not None:
        lines = lines_of(resolution)
        across, down = map(int, (shape or SHAPE).split(":"))
        if shape is None and asset is not None and asset.width and asset.height:
            across, down = asset.width, asset.height
        ratio = max(across, down) / min(across, down)
        longer = 2 * round(lines * ratio / 2)
        if longer > SIDES[1] or lines < SIDES[0]:
            size = f"{longer}x{lines}"
            raise Unsupported(
                f"{resolution} of the shape {across}:{down} was asked, which is {size} px",
                f"Sides from {SIDES[0]} to {SIDES[1]} px are possible",
                "Ask for 1080p",
            )
        return {"width": longer, "height": lines} if across > down else {"width": lines, "height": longer}
    if shape is not None:
        return {"shape": shape}
    if known is not None and known.film and asset is not None and asset.width and asset.height:
        sides = (asset.width, asset.height)
        if all(SIDES[0] <= side <= SIDES[1] and side % 2 == 0 for side in sides):
            return {"width": sides[0], "height": sides[1]}
    return {} if known is not None else {"shape": SHAPE}  # of what is known the shape, at the model's own size


def lines_of(resolution: str) -> int:
    """720p as a number."""
    match = _LINES.fullmatch("2160p" if resolution.lower() == "4k" else resolution.lower())
    if match is None:
        raise BadRequest(f"The resolution {resolution[:20]!r} was asked", "It is 540p, 720p, 1080p, 4k or other lines")
    return int(match[1])


def upscaled(desk: Desk, model: str, asset: Asset, resolution: str | None) -> int:
    """How many times as large a film is to be; a model that cannot is refused with those that can."""
    if "upscale" not in card(model).tasks:
        able = desk.able("upscale")
        raise Unsupported(
            f"The model {model} was asked to upscale",
            f"Served here, {able} can" if able else "No model that is served here can",
            "Create the generation with a larger resolution",
        )
    if resolution is None:
        return 2
    lines = min(asset.width or 0, asset.height or 0)
    times = {2 * lines: 2, 4 * lines: 4}.get(lines_of(resolution))
    if times is None:
        raise Unsupported(
            f"{resolution} was asked of a film of {lines} lines",
            f"Upscaling makes {2 * lines}p or {4 * lines}p of it",
            "Ask for one of them",
        )
    return times


def camera_moves(model: str) -> dict[str, str]:
    """The motions of the camera that a model knows, and the words for them."""
    keys = card(model).words.get("camera", ())
    return {key: key.replace("_", " ") if "_" in key else f"{key} camera" for key in keys}


def moved(prompt: str, concepts: Sequence[str], model: str) -> str:
    """A prompt and the camera's motions in it."""
    known = camera_moves(model)
    for key in concepts:
        if key not in known:
            possible = f"The model {model} knows {', '.join(known)}" if known else f"The model {model} knows none"
            raise BadRequest(f"The concept {key[:40]!r} was asked", possible, "Say it in the prompt, or leave it out")
    return ", ".join((prompt, *(known[key] for key in concepts)))


def echoed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, to be repeated in replies; of media that stood in it only the beginning."""
    return {name: _short(value, name) for name, value in fields.items()}


def _short(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return echoed(value)
    if isinstance(value, list):
        return [_short(one, name) for one in value]
    long = name in ("url", "data", "images") and isinstance(value, str) and len(value) > _MOST_ECHO
    return f"{value[:80]}..." if long else value


def linked(desk: Desk, base: str) -> Link:
    """URLs of what was made, for somebody who asks at an address."""
    return lambda job, variant: desk.url(job, base, variant)


def why(job: Job) -> str | None:
    """Why a job failed, in a line; None if it did not."""
    if job.state == "cancelled":
        return "It was cancelled."
    return (job.error.message if job.error else "It failed.") if job.state == "failed" else None
