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
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cinecanvas.errors import BadRequest, Cancelled, CinecanvasError

if TYPE_CHECKING:  # none of it is needed to print the help
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    from cinecanvas.generate import Done, Event, Planned
    from cinecanvas.model import Card
    from cinecanvas.plan import Phases, Plan
    from cinecanvas.request import Request
    from cinecanvas.world.captions import Reading

app = typer.Typer(
    name="cine",
    help="Video generation you host yourself: words in, video out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Prompt = Annotated[str, typer.Argument(help="What to show, in words.", show_default=False)]
Seconds = Annotated[float | None, typer.Option(help="Length; the model's own if left out.")]
Size = Annotated[str, typer.Option(metavar="WxH|16:9", help="Pixels such as 640x480, or a shape: 16:9, 9:16, square.")]
Fps = Annotated[float | None, typer.Option(help="Frames per second; the model's own if left out.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same video; drawn if left out.")]
Quality = Annotated[str, typer.Option(metavar="draft|standard|best", help="More steps look better and take longer.")]
Model = Annotated[str, typer.Option(help="One of `cine models`.")]
Negative = Annotated[str, typer.Option(help="What to keep out, in words.")]
Count = Annotated[int, typer.Option(help="How many videos, each with the next seed.")]
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


@app.command()
def generate(
    prompt: Prompt,
    out: Annotated[
        str,
        typer.Option("-o", "--out", help="FILE.mp4, .webm, .gif, .png or a folder/; named by the prompt if left out."),
    ] = "",
    seconds: Seconds = None,
    size: Size = "",
    fps: Fps = None,
    seed: Seed = None,
    quality: Quality = "standard",
    model: Model = "",
    negative: Negative = "",
    count: Count = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a video from words."""
    from cinecanvas.generate import generate as run

    request = _request(prompt, seconds, size, fps, seed, quality, model, negative, count)
    done = _watched(run(request, out=out or _free_name(prompt, count)), silent=quiet or as_json)
    if as_json:
        print(json.dumps(_done_json(done), ensure_ascii=False))
    elif not quiet:
        _print_done(done)


@app.command()
def plan(
    prompt: Prompt,
    seconds: Seconds = None,
    size: Size = "",
    fps: Fps = None,
    seed: Seed = None,
    quality: Quality = "standard",
    model: Model = "",
    negative: Negative = "",
    count: Count = 1,
    as_json: Json = False,
) -> None:
    """Say what `generate` would do and what it would cost, without doing it."""
    from cinecanvas.models import advice, card, understood
    from cinecanvas.plan import plan as planned
    from cinecanvas.plan import read_paces
    from cinecanvas.settings import settings

    request = _request(prompt, seconds, size, fps, seed, quality, model, negative, count)
    chosen = card(request.model)
    made = planned(request, chosen, pace=read_paces(settings().cache).get(chosen.name, {}))
    reading = understood(chosen, prompt)
    if as_json:
        facts = {**_plan_json(made), "understood": _reading_json(reading), "advice": advice(chosen, reading)}
        print(json.dumps(facts, ensure_ascii=False))
        return
    _print_plan(made, reading, advice(chosen, reading))


@app.command()
def models(
    name: Annotated[str, typer.Argument(help="One model's Card; all of them if left out.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """List the models, or show one model's Card with its measured scores."""
    from cinecanvas.models import card, cards, elsewhere, families

    if name:
        one = card(name)
        print(one.model_dump_json()) if as_json else _print_card(one)
        return
    broken = {family.name: family.trouble for family in families().values() if family.card is None}
    if as_json:
        print(json.dumps({"models": [c.model_dump(mode="json") for c in cards().values()], "broken": broken}))
        return
    _print_cards(list(cards().values()))
    for family, trouble in broken.items():
        print(f"{family}: {trouble}", file=sys.stderr)
    print(elsewhere())


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
    last = _watched_run(run(preset, minutes=minutes, out=folder, resume=resume, origin=_origin(origin)), silent=as_json)
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


def _request(
    prompt: str,
    seconds: float | None,
    size: str,
    fps: float | None,
    seed: int | None,
    quality: str,
    model: str,
    negative: str,
    count: int,
) -> Request:
    """The flags as a Request; every bound is the Request's own."""
    from cinecanvas.request import Request, parse_size

    flags = {"prompt": prompt, "negative": negative, "seconds": seconds, "fps": fps, "seed": seed, "quality": quality}
    extent = parse_size(size)._asdict() if size else {}
    return Request.model_validate({**flags, **extent, "count": count, **({"model": model} if model else {})})


def _free_name(prompt: str, count: int) -> str:
    """The prompt as a file name in this folder that is not taken yet; only a name given by -o is overwritten."""
    import re
    import unicodedata

    from cinecanvas.generate import destinations

    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    slug = "-".join(re.findall("[a-z0-9]+", plain))[:60].strip("-") or "video"
    number, name = 1, f"{slug}.mp4"
    while any(Path(file).exists() for file in destinations(name, count=max(1, min(count, 100)))):
        number += 1
        name = f"{slug}-{number}.mp4"
    return name


def _watched(events: Iterator[Event], *, silent: bool) -> Done:
    """Run to the end, with a bar on stderr if somebody looks at it."""
    from contextlib import closing

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    from cinecanvas.generate import Done, Phase, Planned, Step

    bar = _bar(TextColumn("{task.description:<8}"), BarColumn(40), MofNCompleteColumn(), silent=silent)
    console, done = bar.console, cast("Done | None", None)
    with closing(cast(Any, events)), bar:
        task, of = bar.add_task("plan", total=None, left=""), ""
        for event in events:
            if isinstance(event, Planned):
                _print_start(event, console)
            elif isinstance(event, Phase):
                of = f"  video {event.video + 1}" if event.video else ""
                bar.update(task, description=event.name, completed=0, total=None, left=of)
                if not console.is_terminal:
                    console.print(f"{event.name}{of}")
            elif isinstance(event, Step):
                left = f"steps, {_duration(event.eta)} left{of}"
                bar.update(task, completed=event.done, total=event.of, left=left)
            elif isinstance(event, Done):
                done = event
    assert done is not None, "generate() ended without Done"
    return done


def _watched_run(events: Iterator[Any], *, silent: bool) -> Any:
    """A training run to its end: a bar where somebody looks, else a line every 30 s; notes are always printed."""
    from contextlib import closing

    from rich.progress import BarColumn, TaskProgressColumn, TextColumn

    bar = _bar(TextColumn("{task.description:<14}"), BarColumn(30), TaskProgressColumn(), silent=silent)
    console, told, last = bar.console, 0.0, None
    with closing(cast(Any, events)), bar:
        task = bar.add_task("start", total=1.0, left="")
        for event in events:
            last = event
            loss = f"loss {event.loss:.4f}  " if event.loss == event.loss else ""
            left = f"step {event.step}  {loss}{event.rate:.1f}/s  {_duration(event.eta)} left"
            bar.update(task, description=event.phase, completed=event.done, left=left)
            if event.note or (not console.is_terminal and time.monotonic() - told > 30):
                console.print(f"{event.phase} {event.done:.0%}  {left}  {event.note}")
                told = time.monotonic()
    assert last is not None, "the run told nothing"
    return last


def _bar(*columns: ProgressColumn, silent: bool) -> Progress:
    """A live bar on stderr that ends in the task's `left`; shown only where somebody looks."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True, quiet=silent, highlight=False, soft_wrap=True)
    left = TextColumn("{task.fields[left]}")
    return Progress(*columns, left, console=console, transient=True, disable=not console.is_terminal)


def _print_start(event: Planned, console: Console) -> None:
    made = event.plan
    console.print(f"{made.request.model}: {_what(made)}, about {_duration(made.seconds)}")
    for line in (*made.notes, *([event.advice] if event.advice else [])):
        console.print(f"note: {line}", markup=False)


def _print_done(done: Done) -> None:
    """File, size, seed, seconds per phase, words understood and ignored."""
    for file, video, seed in zip(done.files, done.videos, done.seeds, strict=True):
        length = f"{video.seconds:.3g} s, " if video.frames > 1 else ""
        print(f"{file.parent / video.name}  {video.width}x{video.height}, {length}{_bytes(video.bytes)}, seed {seed}")
        for note in video.notes:
            print(f"  note: {note}")
    print(f"  {_phases(done.phases)}")
    _print_reading(done.reading)


def _print_plan(made: Plan, reading: Reading | None, advice: str) -> None:
    request = made.request
    print(f"{request.model}: {_what(made)}, seed {request.seed}, quality {request.quality}")
    for number, step in enumerate(made.passes, 1):
        print(
            f"  pass {number}: {step.grid.frames} frames of {step.grid.width}x{step.grid.height}, {made.cells} cells, "
            f"{step.steps} steps of {step.solver}, guidance {step.guidance:g}, seed {step.seed}"
        )
    print(f"  about {_duration(made.seconds)} ({_phases(made.phases)}), {_bytes(made.bytes)} of memory")
    for note in made.notes:
        print(f"  note: {note}")
    _print_reading(reading)
    if advice:
        print(f"  note: {advice}")


def _print_reading(reading: Reading | None) -> None:
    if reading is None:
        return
    known = ", ".join(f"{words} ({slot} {reading.values[slot]})" for slot, words in reading.words.items())
    print(f"  understood: {known or 'nothing'}")
    if reading.ignored:
        print(f"  ignored: {', '.join(reading.ignored)}")


def _print_cards(cards: Sequence[Card]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "model", "what it is", "sizes (px)", "seconds", "fps", "parameters", "licence", box=None, pad_edge=False
    )
    for card in cards:
        sizes = " ".join(f"{w}x{h}" for w, h in card.sizes) or "any"
        count = f"{card.parameters / 1e6:.1f} M" if card.parameters else "none"
        table.add_row(card.name, card.title, sizes, f"{card.max_seconds:g}", f"{card.fps:g}", count, card.licence)
    Console(highlight=False).print(table)


def _print_card(card: Card) -> None:
    """One Card as lines; scores with their interval, ceiling and floor."""
    rows = {
        "licence": card.licence,
        "limits": card.limits,
        "sizes": " ".join(f"{w}x{h}" for w, h in card.sizes),
        "length": f"{card.seconds:g} s by itself, at most {card.max_seconds:g} s at {card.fps:g} frames per second",
        "tasks": ", ".join(f"{task} ({how})" for task, how in card.tasks.items()),
        "weights": f"{card.parameters / 1e6:.1f} M parameters, {_bytes(card.bytes)}" if card.parameters else "none",
        "training": card.training,
        "notes": card.notes,
        **{f"knows {slot}": ", ".join(values) for slot, values in card.words.items()},
    }
    print(f"{card.name}: {card.title}")
    for name, text in rows.items():
        if text:
            print(f"  {name}: {text}")
    for score in card.scores:
        between = f" [{score.low:.3g}, {score.high:.3g}]" if score.low is not None and score.high is not None else ""
        around = "".join(
            f", {name} {value:.3g}"
            for name, value in (("truth", score.ceiling), ("chance", score.floor))
            if value is not None
        )
        print(f"  score {score.name}: {score.value:.3g}{between} {score.unit}{around} (n = {score.n}, {score.date})")


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


def _plan_json(made: Plan) -> dict[str, Any]:
    keys = {"keys": [step.key for step in made.passes], "seconds": made.seconds}
    return {**made.model_dump(mode="json"), **keys}


def _done_json(done: Done) -> dict[str, Any]:
    videos = [
        {
            "file": str(file.parent / video.name),
            "seed": seed,
            **video.model_dump(mode="json", exclude={"name", "metadata"}),
        }
        for file, video, seed in zip(done.files, done.videos, done.seeds, strict=True)
    ]
    request = done.plan.request.model_dump(mode="json")
    seconds = {**done.phases.model_dump(), "total": done.phases.total}
    notes = list(done.plan.notes)
    return {
        "videos": videos,
        "request": request,
        "seconds": seconds,
        "notes": notes,
        "understood": _reading_json(done.reading),
    }


def _reading_json(reading: Reading | None) -> dict[str, Any] | None:
    return None if reading is None else reading.model_dump(mode="json")


def _what(made: Plan) -> str:
    many = f"{made.request.count} x " if made.request.count > 1 else ""
    length = f"{made.frames / made.fps:.3g} s of " if made.frames > 1 else ""
    rate = f" at {made.fps:g} frames per second" if made.frames > 1 else ", one picture"
    return f"{many}{length}{made.width}x{made.height}{rate}"


def _phases(phases: Phases) -> str:
    spent = ((name, seconds) for name, seconds in phases.model_dump().items() if seconds > 0)
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


if __name__ == "__main__":
    sys.exit(main())
