"""`cine`: one verb for each thing that people do; what is heavy is imported inside the verb that needs it."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast

import typer

from cinecanvas import request as tasks
from cinecanvas.arguments import fit_named, free_name, keeper, place_of, second_and_picture, store_here, taken
from cinecanvas.checkpoints import at_hand, models
from cinecanvas.console import (
    done_json,
    plan_json,
    print_done,
    print_held,
    print_plan,
    reading_json,
    watched,
    watched_run,
)
from cinecanvas.errors import BadRequest, Cancelled, CinecanvasError
from cinecanvas.flags import with_options
from cinecanvas.request import STILL, Request, text_to_image, text_to_video
from cinecanvas.service import audit, jobs, keys, serve

Options = dict[str, Any]  # fields of Request, as `flags` reads them

app = typer.Typer(
    name="cine",
    help="Video generation you host yourself: words in, video out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Prompt = Annotated[str, typer.Argument(help="What to show, in words.", show_default=False)]
Out = Annotated[
    str,
    typer.Option("-o", "--out", help="FILE.mp4, .webm, .gif, .png or a folder/; named by the prompt if left out."),
]
Film = Annotated[str, typer.Argument(help="A film: a file, a URL or a digest.", show_default=False)]
Still = Annotated[str, typer.Argument(help="A picture: a file, a URL or a digest.", show_default=False)]
Either = Annotated[str, typer.Argument(help="A picture or film: a file, a URL or a digest.", show_default=False)]
Fit = Annotated[str, typer.Option(metavar="crop|pad|stretch", help="How media of another shape fill the frame.")]
Live = Annotated[bool, typer.Option("--live", help="Let NAME.live.mp4 be watched while the film is made.")]
Narrow = Annotated[
    str, typer.Option("--precision", metavar="bfloat16|float8|int8|int4", help="Of a public model's weights.")
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda:0", help="Where a public model works.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


class Stop(BaseException):
    """A signal asked us to end; not an Exception, so that nothing on the way up mistakes it for a failure."""

    def __init__(self, number: int) -> None:
        self.code = 128 + number
        super().__init__(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what goes wrong is one line on stderr (with --json one object on stdout) and an exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in args
    try:
        with _stoppable():
            return _run(args)
    except Stop as stop:
        _tell(Cancelled("Stopped", "Nothing half-written is left behind"), as_json=as_json)
        return stop.code
    except CinecanvasError as error:
        _tell(error, as_json=as_json)
        return error.exit_code
    except BrokenPipeError:  # the reader has seen enough, as in `cine models | head -1`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it once more at exit)
        return 141  # 128 + SIGPIPE
    except Exception as error:
        if os.environ.get("CINECANVAS_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        what = f"This is a bug in cinecanvas: {type(error).__name__}: {error}"
        _tell(
            CinecanvasError(what[:300], do="Run again with CINECANVAS_DEBUG=1 and report what it prints"),
            as_json=as_json,
        )
        return 1


@app.callback(invoke_without_command=True)
def cine(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Video generation you host yourself: words in, video out."""
    if version:
        from cinecanvas import __version__

        print(f"cinecanvas {__version__}")
        raise typer.Exit


def _made(
    request: Request,
    out: Out = "",
    live: Live = False,
    precision: Narrow = "",
    device: Device = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The trip of a request, watched, and what it came to."""
    from cinecanvas.generate import generate as run
    from cinecanvas.settings import settings

    given = {"CINECANVAS_PRECISION": precision, "CINECANVAS_DEVICE": device}
    here = settings({**os.environ, **{name: value for name, value in given.items() if value}})

    if not (quiet or as_json):
        at_hand(request.model)
    ending = ".png" if request.seconds == STILL else ".mp4"
    name = out or free_name(request.prompt, request.count, ending=ending)
    trip = run(request, out=name, store=keeper(request), where=here, live=live)
    done = watched(trip, silent=quiet or as_json)
    if as_json:
        print(json.dumps(done_json(done), ensure_ascii=False))
    elif not quiet:
        print_done(done)


@app.command()
@with_options(then=_made)
def generate(prompt: Prompt, *, options: Options) -> Request:
    """Make a video from words."""
    return text_to_video(prompt, **options)


@app.command()
@with_options("seconds", "fps", "sound", then=_made)
def image(prompt: Prompt, *, options: Options) -> Request:
    """Make one picture from words."""
    return text_to_image(prompt, **options)


@app.command()
@with_options(then=_made)
def animate(
    picture: Still,
    prompt: Prompt,
    last: Annotated[bool, typer.Option("--last", help="The picture is where it ends, not where it begins.")] = False,
    fit: Fit = "crop",
    *,
    options: Options,
) -> Request:
    """Set a picture in motion."""
    (still,) = taken(picture)
    return tasks.animate(still, prompt, last=last, fit=fit_named(fit), **options)


@app.command()
@with_options("seconds", then=_made)
def interpolate(
    first: Either,
    second: Either,
    prompt: Prompt,
    seconds: Annotated[float, typer.Option(help="Length of what lies between (s).")] = 2.0,
    fit: Fit = "crop",
    *,
    options: Options,
) -> Request:
    """Lead from one picture or film to another."""
    one, two = taken(first, second)
    return tasks.interpolate(one, two, prompt, seconds=seconds, fit=fit_named(fit), **options)


@app.command()
@with_options(then=_made)
def keyframes(
    prompt: Prompt,
    pictures: Annotated[
        list[str], typer.Option("--picture", metavar="SECOND:FILE", help="A picture at its second; once for each.")
    ],
    fit: Fit = "crop",
    *,
    options: Options,
) -> Request:
    """Pin pictures to their seconds and fill what lies between."""
    times, named = zip(*(second_and_picture(text) for text in pictures), strict=True)
    pinned = list(zip(taken(*named), times, strict=True))
    return tasks.keyframes(pinned, prompt, fit=fit_named(fit), **options)


@app.command()
@with_options("seconds", then=_made)
def extend(
    film: Film,
    prompt: Prompt,
    seconds: Annotated[float, typer.Option(help="How much longer it becomes (s).")] = 2.0,
    backward: Annotated[bool, typer.Option("--backward", help="Before its beginning, not after its end.")] = False,
    *,
    options: Options,
) -> Request:
    """Make a film longer."""
    (clip,) = taken(film)
    return tasks.extend(clip, prompt, seconds=seconds, backward=backward, **options)


@app.command()
@with_options("order", "at", "sound", then=_made)
def loop(
    prompt: Prompt,
    of: Annotated[str | None, typer.Option(help="A picture or film to close; seconds are added.")] = None,
    *,
    options: Options,
) -> Request:
    """Make a video whose end leads back to its beginning."""
    (clip,) = taken(of) if of is not None else (None,)
    return tasks.loop(prompt, of=clip, **options)


@app.command()
@with_options("seconds", then=_made)
def retake(
    film: Film,
    prompt: Prompt,
    start: Annotated[float, typer.Option("--from", help="Where the part begins (s).")],
    end: Annotated[float, typer.Option("--to", help="Where it ends (s).")],
    *,
    options: Options,
) -> Request:
    """Make a part of a film anew and keep the rest."""
    (clip,) = taken(film)
    return tasks.retake(clip, prompt, start=start, end=end, **options)


@app.command()
@with_options("seconds", then=_made)
def inpaint(
    film: Either,
    mask: Annotated[str, typer.Argument(help="Of the same size: white is kept, black is new.", show_default=False)],
    prompt: Prompt,
    *,
    options: Options,
) -> Request:
    """Paint anew what a mask leaves black."""
    clip, hole = taken(film, mask)
    return tasks.inpaint(clip, hole, prompt, **options)


@app.command("reframe")
@app.command()
@with_options("seconds", "size", then=_made)
def outpaint(
    film: Either,
    prompt: Prompt,
    to: Annotated[str, typer.Option(metavar="16:9|WxH", help="The new shape or size.")],
    place: Annotated[str, typer.Option(metavar="X,Y", help="Where the film sits: 0,0 left and top, 1,1.")] = "0.5,0.5",
    *,
    options: Options,
) -> Request:
    """Give a picture or film another shape and paint what lies beside it."""
    (clip,) = taken(film)
    return tasks.outpaint(clip, prompt, to=to, place=place_of(place), **options)


@app.command()
@with_options("seconds", then=_made)
def remix(
    film: Either,
    prompt: Prompt,
    keep: Annotated[float, typer.Option(help="How much stays, from 0 (nothing) to 1 (all).")] = 0.5,
    *,
    options: Options,
) -> Request:
    """Tell a film again in other words."""
    (clip,) = taken(film)
    return tasks.remix(clip, prompt, keep=keep, **options)


@app.command()
@with_options("seconds", "size", then=_made)
def upscale(
    film: Either,
    prompt: Annotated[str, typer.Argument(help="What it shows; what it was made from if left out.")] = "",
    times: Annotated[int, typer.Option(metavar="2|4", help="How many times its size.")] = 2,
    keep: Annotated[float, typer.Option(help="How much stays, from 0 (nothing) to 1 (all).")] = 0.7,
    *,
    options: Options,
) -> Request:
    """Make a picture or film larger, the model adding what is finer."""
    from cinecanvas.generate import request_of

    (clip,) = taken(film)
    words = prompt or request_of(store_here().path(clip.digest)).prompt
    return tasks.upscale(clip, words, times=cast(Any, times), keep=keep, **options)


@app.command()
@with_options("seconds", then=_made)
def join(
    first: Film,
    second: Film,
    prompt: Prompt,
    seconds: Annotated[float, typer.Option(help="Length of the transition (s).")] = 1.0,
    *,
    options: Options,
) -> Request:
    """Join two films by a transition that leads from one into the other."""
    one, two = taken(first, second)
    return tasks.join(one, two, prompt, seconds=seconds, **options)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A Request as JSON, or a file that we wrote.", show_default=False)],
    out: Out = "",
    live: Live = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make again what a file was made from: the same frames on the same machine and version."""
    from cinecanvas.generate import request_of

    _made(request_of(file), out, live, as_json=as_json, quiet=quiet)


@app.command()
def variations(
    file: Annotated[Path, typer.Argument(help="A Request as JSON, or a file that we wrote.", show_default=False)],
    count: Annotated[int, typer.Option(help="How many videos, each with the next seed.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Of the first; drawn if left out.")] = None,
    out: Out = "",
    live: Live = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make again what a file was made from, with other seeds."""
    from cinecanvas.generate import request_of

    _made(tasks.variations(request_of(file), count=count, seed=seed), out, live, as_json=as_json, quiet=quiet)


@app.command()
@with_options()
def plan(prompt: Prompt, as_json: Json = False, *, options: Options) -> None:
    """Say what `generate` would do and what it would cost, without doing it."""
    from cinecanvas.enhance import check_enhancer
    from cinecanvas.models import advice, card, pinned, understood
    from cinecanvas.pace import read_paces
    from cinecanvas.plan import plan as planned
    from cinecanvas.settings import settings

    request = pinned(text_to_video(prompt, **options))
    chosen = card(request.model)
    check_enhancer(request, chosen, settings())
    made = planned(request, chosen, pace=read_paces(settings().cache).get(chosen.name, {}))
    reading = understood(chosen, prompt)
    if as_json:
        facts = {**plan_json(made), "understood": reading_json(reading), "advice": advice(chosen, reading)}
        print(json.dumps(facts, ensure_ascii=False))
        return
    print_plan(made, reading, advice(chosen, reading))


@app.command()
def store(
    clear: Annotated[
        bool, typer.Option("--clear", help="Forget all of it; files that you named with -o stay.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say how much is kept of what was made and laid, and of films on their way, or forget it."""
    kept = store_here()
    if clear:
        kept.clear()
    held = kept.holds()
    print(held.model_dump_json()) if as_json else print_held(held)


@app.command()
def train(
    family: Annotated[str, typer.Argument(help="What to train: diorama.", show_default=False)],
    preset: Annotated[str, typer.Option(metavar="tiny|cpu|gpu", help="The machine; tiny is a rehearsal.")] = "cpu",
    minutes: Annotated[float, typer.Option(help="Wall time.")] = 120.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    origin: Annotated[
        str, typer.Option("--from", help="Begin with the weights of an export's folder, or `shipped`.")
    ] = "",
    out: Annotated[str, typer.Option("-o", "--out", help="The run's folder.", show_default="runs/FAMILY-PRESET")] = "",
    as_json: Json = False,
) -> None:
    """Train our own family from nothing, or go on with a run."""
    if family != "diorama":
        raise BadRequest(
            f"The family {family!r} was to be trained", "Only diorama can be trained", "cine train diorama"
        )
    from cinecanvas.train.trainer import train as run

    folder = Path(out or f"runs/{family}-{preset}")
    last = watched_run(run(preset, minutes=minutes, out=folder, resume=resume, origin=_origin(origin)), silent=as_json)
    if as_json:
        print(
            json.dumps(
                {"family": family, "preset": preset, "step": last.step, "note": last.note, "folder": str(folder)}
            )
        )
    else:
        print(f"{folder}: {last.phase} at step {last.step}  {last.note}")


@app.command()
def world(
    out: Annotated[str, typer.Option("-o", "--out", help="sheet.png for a contact sheet, clip.mp4 for one scene.")],
    seed: Annotated[int, typer.Option(help="Which scene; a sheet goes on from it.")] = 0,
    count: Annotated[int, typer.Option(help="Scenes on a sheet.")] = 12,
    level: Annotated[str, typer.Option(help="How much of the grammar: first or full.")] = "first",
    size: Annotated[str, typer.Option(metavar="WxH", help="Pixels of each scene.")] = "128x128",
    seconds: Annotated[float, typer.Option(help="Length.")] = 2.0,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 8.0,
    as_json: Json = False,
) -> None:
    """Render the miniature world that our model learns: one captioned scene, or a sheet of them."""
    from cinecanvas.media.destination import PICTURES, check_destination
    from cinecanvas.request import Request, parse_size
    from cinecanvas.world.captions import caption
    from cinecanvas.world.scene import LEVELS, draw

    extent = parse_size(size)
    if extent.width is None or extent.height is None:
        raise BadRequest(f"Scenes of the size {size!r} were asked", "A size in pixels is possible", "--size 128x128")
    sheet = Path(out).suffix.lower() in PICTURES
    # a Request knows all the bounds
    Request(prompt="-", seconds=seconds, fps=fps, width=extent.width, height=extent.height, seed=seed, count=count)
    if level not in LEVELS:
        raise BadRequest(f"The level {level!r} was asked", f"Levels: {', '.join(LEVELS)}")
    check_destination(out)
    scenes = [draw(seed + i, LEVELS[level]) for i in range(count if sheet else 1)]
    said = [caption(scene, seed + i, style="plain") for i, scene in enumerate(scenes)]
    frames = max(1, round(seconds * fps))
    _render(scenes, [one.text for one in said], out, frames=frames, fps=fps, size=(extent.width, extent.height))
    if as_json:
        rows = [{"seed": seed + i, "caption": c.text, "spec": c.spec.model_dump()} for i, c in enumerate(said)]
        print(json.dumps({"file": out, "scenes": rows}))
        return
    for one in said:
        print(one.text)
    print(f"{out}: {len(scenes)} scene{'s' if len(scenes) > 1 else ''} of {frames} frames")


app.command()(serve)
for group in (models, jobs, keys, audit):
    app.add_typer(group)


def _origin(name: str) -> Path | None:
    """The folder of an export; `shipped` is the one inside the package."""
    from cinecanvas.models.diorama import SHIPPED

    return {"": None, "shipped": SHIPPED}.get(name, Path(name))


def _run(args: list[str]) -> int:
    """Parse and call; what the parser refuses becomes one line of ours."""
    # ClickException, whose place depends on typer's version: it brings its own click, or uses the installed one
    refused = cast(type[Exception], typer.BadParameter.__mro__[2])
    try:
        code = typer.main.get_command(app).main(args, prog_name="cine", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Abort:
        raise Stop(signal.SIGINT) from None
    except refused as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if type(error).__name__ == "NoArgsIsHelpError":  # it has printed the help
            return 2
        raise BadRequest(message, do="See `cine --help`") from error


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise Stop; the next two seconds belong to the tidying up, and a second signal is ignored."""
    last = -math.inf

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        # not for ever: an exception that happens to rise in somebody's __del__ is lost, and must be sendable again
        if now - last > 2:
            last = now
            raise Stop(number)

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _tell(error: CinecanvasError, *, as_json: bool) -> None:
    if as_json:
        facts = {"type": type(error).__name__, "message": str(error), "asked": error.asked}
        print(json.dumps({"error": {**facts, "possible": error.possible, "do": error.do}}, ensure_ascii=False))
    else:
        print(f"cine: {error}", file=sys.stderr)


def _render(
    scenes: Sequence[Any], captions: Sequence[str], out: str, *, frames: int, fps: float, size: tuple[int, int]
) -> None:
    """Scenes into a file: a film of the first, or for a picture's ending a sheet of all, a row each."""
    import numpy as np

    from cinecanvas.media.destination import PICTURES
    from cinecanvas.media.sheet import sheet
    from cinecanvas.media.video import write
    from cinecanvas.world.render import render

    def seen(scene: Any, *, frames: int, fps: float, start: float = 0.0) -> np.ndarray:
        return render([scene], frames=frames, height=size[1], width=size[0], fps=fps, start=start).rgb[0].numpy()

    if Path(out).suffix.lower() not in PICTURES:
        parts = ((i, min(8, frames - i)) for i in range(0, frames, 8))  # memory does not grow with the length
        film = (seen(scenes[0], frames=n, fps=fps, start=i / fps) for i, n in parts)
        write(film, out, fps=fps, metadata={"title": captions[0]})
        return
    shown = min(frames, 5)  # only the moments that a row shows are rendered
    rows = [seen(scene, frames=shown, fps=fps * (shown - 1) / (frames - 1) if frames > 1 else fps) for scene in scenes]
    write([np.asarray(sheet(rows, labels=captions))], out, fps=1)


if __name__ == "__main__":
    sys.exit(main())
