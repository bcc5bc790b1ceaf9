"""What the command shows of a trip: a bar that knows how long it takes, files, plans and Cards as lines or JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:  # none of it is needed to print the help
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    from cinecanvas.generate import Done, Event, Planned
    from cinecanvas.jobs.job import Job
    from cinecanvas.media.assets import Holding
    from cinecanvas.model import Card
    from cinecanvas.pace import Phases
    from cinecanvas.plan import Pass, Plan
    from cinecanvas.world.captions import Reading

_LINES = 10.0  # s between two lines where there is no terminal


def watched(events: Iterator[Event], *, silent: bool) -> Done:
    """Run to the end, with a bar on stderr if somebody looks at it."""
    from contextlib import closing

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    from cinecanvas.generate import Done, Note, Phase, Planned, Step, Watch

    bar = _bar(TextColumn("{task.description:<8}"), BarColumn(40), MofNCompleteColumn(), silent=silent)
    console, done = bar.console, cast("Done | None", None)
    entered, watchable = set[tuple[str, str]](), set[Any]()  # a long film enters its phases window by window
    with closing(cast(Any, events)), bar:
        task, of = bar.add_task("plan", total=None, left=""), ""
        for event in events:
            if isinstance(event, Planned):
                _print_start(event, console)
            elif isinstance(event, Phase):
                of = f"  video {event.video + 1}" if event.video else ""
                bar.update(task, description=event.name, completed=0, total=None, left=of)
                if not console.is_terminal and (event.name, of) not in entered:
                    console.print(f"{event.name}{of}")
                entered.add((event.name, of))
            elif isinstance(event, Step):
                left = f"steps, {_duration(event.eta)} left{of}"
                bar.update(task, completed=event.done, total=event.of, left=left)
            elif isinstance(event, Note):
                console.print(f"note: {event.text}", markup=False)
            elif isinstance(event, Watch):
                if event.file not in watchable:
                    console.print(f"watch: {event.file}, it grows", markup=False)
                watchable.add(event.file)
            elif isinstance(event, Done):
                done = event
    assert done is not None, "generate() ended without Done"
    return done


def watched_run(events: Iterator[Any], *, silent: bool) -> Any:
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


def watched_job(looks: Iterator[tuple[Job, Sequence[str]]], *, silent: bool) -> Job:
    """A job of a queue to its end: a bar where somebody looks, else a line for each phase; notes are always printed."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    bar = _bar(TextColumn("{task.description:<8}"), BarColumn(40), MofNCompleteColumn(), silent=silent)
    console, entered, job = bar.console, "", cast("Job | None", None)
    with bar:
        task = bar.add_task("queued", total=None, left="")
        for job, notes in looks:
            name = job.phase if job.state == "running" and job.phase else job.state
            left = f"steps, {_duration(job.eta)} left" if job.eta is not None else ""
            bar.update(task, description=name, completed=job.step, total=job.steps or None, left=left)
            if not console.is_terminal and name != entered:
                console.print(name)
            entered = name
            for note in notes:
                console.print(f"note: {note}", markup=False)
    assert job is not None, "the queue told nothing"
    return job


def watched_weights(events: Iterator[Any], *, silent: bool) -> Any:
    """Files on their way, or being read, to the last event: a bar of bytes where somebody looks, else a line now and
    then."""
    from contextlib import closing

    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    from cinecanvas.models.pull import Begun
    from cinecanvas.models.shelf import Moving

    bar = _bar(BarColumn(30), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.description}"), silent=silent)
    console, told, last = bar.console, 0.0, cast(Any, None)
    with closing(cast(Any, events)), bar:
        task = bar.add_task("", total=None, left="")
        for event in events:
            last = event
            if isinstance(event, Begun):
                of = f"{event.repository} at {event.revision[:12] or 'a folder'}"
                here = f", {size_of(event.here)} of them are here" if event.here else ""
                console.print(f"{event.name}: {of}, {event.files} files, {size_of(event.bytes)}{here}", markup=False)
                bar.update(task, completed=event.here, total=event.bytes)
            elif isinstance(event, Moving):
                left = f"{_duration((event.of - event.done) / event.rate)} left" if event.rate > 0 else ""
                bar.update(task, description=event.file, completed=event.done, total=event.of, left=left)
                if not console.is_terminal and time.monotonic() - told > _LINES:
                    rate = f", {size_of(int(event.rate))}/s" if event.rate > 0 else ""
                    line = f"{size_of(event.done)} of {size_of(event.of)}{rate}  {event.file}"
                    console.print(line, markup=False)
                    told = time.monotonic()
    assert last is not None, "nothing was told"
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
    about = "" if made.guessed else f", about {_duration(made.seconds)}"
    console.print(f"{made.request.model}: {_what(made)}{about}")
    for line in (*made.notes, *([event.advice] if event.advice else [])):
        console.print(f"note: {line}", markup=False)


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str) -> None:
    """A table whose words stay whole: it is cut up by other programs too."""
    if not rows:
        print(nothing)
        return
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    for row in (titles, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def print_done(done: Done) -> None:
    """File, size, seed, seconds per phase, words understood and ignored."""
    for file, video, seed in zip(done.files, done.videos, done.seeds, strict=True):
        length = f"{video.seconds:.3g} s, " if video.frames > 1 else ""
        print(f"{file.parent / video.name}  {video.width}x{video.height}, {length}{size_of(video.bytes)}, seed {seed}")
        for note in video.notes:
            print(f"  note: {note}")
    print(f"  {_phases(done.phases)}")
    _print_reading(done.reading)


def print_held(held: Holding) -> None:
    """What a store holds, in two lines."""
    print(f"{held.assets} pictures and films, {size_of(held.bytes)}")
    print(
        f"{held.records} parts of films on their way, {size_of(held.record_bytes)}; "
        "those of a week ago go by themselves"
    )


def print_plan(made: Plan, reading: Reading | None, advice: str) -> None:
    request = made.request
    print(f"{request.model}: {_what(made)}, seed {request.seed}, quality {request.quality}")
    for number, step in enumerate(made.passes, 1):
        print(
            f"  pass {number}: {step.grid.frames} frames of {step.grid.width}x{step.grid.height}, {made.cells} cells, "
            f"{_steps(step)}, {_leaning(step)}, seed {step.seed}"
        )
    if made.guessed:
        print("  how long it takes is known after its first run here, and how much memory once its weights are here")
    else:
        print(f"  about {_duration(made.seconds)} ({_phases(made.phases)}), {size_of(made.bytes)} of memory")
    for note in made.notes:
        print(f"  note: {note}")
    _print_reading(reading)
    if advice:
        print(f"  note: {advice}")


def _steps(step: Pass) -> str:
    """How many steps a pass takes, and how many of them ask the network, if not all do."""
    calls = step.cache.calls(step.steps)
    asking = f" ({calls} of them ask the network)" if calls < step.steps else ""
    return f"{step.steps} steps of {step.solver}{asking}"


def _leaning(step: Pass) -> str:
    """How a pass is led to its prompt."""
    low, high = step.guided
    where = f" at noise {low:g} to {high:g}" if step.guidance != 1 and (low > 0 or high < 1) else ""
    rescaled = f" rescaled by {step.rescale:g}" if step.guidance != 1 and step.rescale else ""
    return f"guidance {step.guidance:g}{where}{rescaled}"


def _print_reading(reading: Reading | None) -> None:
    if reading is None:
        return
    known = ", ".join(f"{words} ({slot} {reading.values[slot]})" for slot, words in reading.words.items())
    print(f"  understood: {known or 'nothing'}")
    if reading.ignored:
        print(f"  ignored: {', '.join(reading.ignored)}")


def print_cards(cards: Sequence[Card], states: Mapping[str, str]) -> None:
    """The Cards as a table; states: where the weights of each are."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for card in cards:
        done = (name if card.tasks[task] == "exact" else f"({name})" for task in card.tasks for name in [_words(task)])
        longest = "pictures" if card.still else f"up to {card.max_seconds:g} s"
        table.add_row(card.name, f"{card.title}. {card.licence}; {states[card.name]}")
        table.add_row("", f"{longest}: {', '.join(done)}")
    Console(highlight=False).print(table)


def _words(task: str) -> str:
    return task.replace("_", " ")


def _way(card: Card, task: str) -> str:
    return f": {card.ways[task]}" if task in card.ways else ""


def print_card(card: Card, where: str) -> None:
    """One Card as lines; scores with their interval, ceiling and floor. where: where its weights are."""
    terms, source = card.terms, card.source
    longest = f"{card.seconds:g} s by itself, at most {card.max_seconds:g} s at {card.fps:g} frames per second"
    rows = {
        "licence": card.licence,
        "its words": terms.url,
        "its limits": "; ".join(filter(None, (terms.territory, terms.revenue, terms.use))),
        "limits": card.limits,
        "sizes": " ".join(f"{w}x{h}" for w, h in card.sizes),
        "length": "one picture" if card.still else longest,
        "tasks": ", ".join(f"{_words(task)} ({how}{_way(card, task)})" for task, how in card.tasks.items()),
        "parameters": f"{card.parameters / 1e6:.1f} M, {size_of(card.bytes)}" if card.parameters else "",
        "weights": where,
        "published": f"{source.repository} at {source.revision}" if source is not None and source.repository else "",
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


def plan_json(made: Plan) -> dict[str, Any]:
    keys = {"keys": [step.key for step in made.passes], "seconds": made.seconds}
    return {**made.model_dump(mode="json"), **keys}


def done_json(done: Done) -> dict[str, Any]:
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
    notes = [*done.plan.notes, *done.notes]
    return {
        "videos": videos,
        "request": request,
        "seconds": seconds,
        "notes": notes,
        "digests": [asset.digest for asset in done.assets],
        "understood": reading_json(done.reading),
    }


def reading_json(reading: Reading | None) -> dict[str, Any] | None:
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


def size_of(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
