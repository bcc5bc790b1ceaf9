"""Is a film that was killed again and again the film of an unbroken run, and was anything finished made twice?

python bench/kills.py [--kills 20] [--seconds 60] [--seed 0] [--json]

A film laid on a picture is made by a process that is killed (SIGKILL) at random moments, each time by a new one that
goes on in the same store. Every network call is counted by the window that it belongs to. The moments are drawn over
what is left to do, counted from loaded weights on, so that they spread over windows, decoding and writing alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cinecanvas import request as tasks
from cinecanvas.canvas import Tensors
from cinecanvas.generate import Phase, generate
from cinecanvas.media.assets import Store
from cinecanvas.media.intake import take
from cinecanvas.media.video import read
from cinecanvas.model import Around, Conditioning, Model
from cinecanvas.models import card, load
from cinecanvas.plan import Pass, plan
from cinecanvas.request import Request
from cinecanvas.sampler import Fill
from cinecanvas.settings import settings

WORDS = "a red ball bounces on grass at sunset"
STORED = re.compile(r"(sha256|keyed)/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64}")
FRESH = 60.0  # s, the most that starting and loading may take


@dataclass(frozen=True)
class Life:
    """One process: where it ended, windows finished before and after it, its calls, and those for finished windows."""

    ended: str
    seconds: float  # after the weights were loaded
    before: int
    after: int
    calls: int
    repeated: int
    whole: bool  # what stands at the destination, if anything does, is the whole film


@dataclass(frozen=True)
class Unbroken:
    """The digest of the film as one process makes it, and the seconds that its windows and its end took."""

    film: str
    filling: float
    writing: float


@dataclass(frozen=True)
class Counted(Around):
    """A Model that prints a line for each of its network calls: the first cell-in-time of the window."""

    def denoise(self, z: Tensors, sigma: Tensors, cond: Conditioning, *, to: Tensors | None = None) -> Tensors:
        say("call", cond.canvas.tracks["video"].start)
        return self.model.denoise(z, sigma, cond, to=to)


def say(what: str, start: int = -1) -> None:
    """A line that is out before anything can kill us."""
    print(time.monotonic(), what, start, flush=True)


def work(folder: Path) -> None:
    """What a process does: the film of the folder's request, with a line for each thing that happens."""

    def loaded(name: str) -> Model:
        model = load(name)
        say("loaded")
        return Counted(model)

    request = Request.model_validate_json((folder / "request.json").read_text())
    where, store = settings({"CINECANVAS_HOME": str(folder / "home")}), Store.at(folder / "store")
    for event in generate(request, out=folder / "out" / "film.mp4", store=store, models=loaded, where=where):
        if isinstance(event, Phase):
            say(event.name)
    say("done")


def lived(folder: Path, life: float = float("inf")) -> list[tuple[float, str, int]]:
    """The lines (s, what, start) of a process that is killed so many seconds after its weights are loaded."""
    log = folder / "log.txt"
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, __file__, "--work", str(folder)], stdout=stream)
    begun = time.monotonic()
    while " loaded " not in log.read_text() and process.poll() is None and time.monotonic() - begun < FRESH:
        time.sleep(0.002)
    try:
        process.wait(min(life, 3600))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.returncode in (0, -9), f"the process ended with {process.returncode}"
    rows = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [(float(at), what, int(start)) for at, what, start in rows]


def prepared(folder: Path, still: Path, seconds: float) -> tuple[Store, tuple[Pass, ...]]:
    """A folder with its store and request; the passes that the request comes to."""
    (folder / "out").mkdir(parents=True)
    store = Store.at(folder / "store")
    picture = take(store, still)
    request = tasks.animate(picture, WORDS, seconds=seconds, seed=1)
    (folder / "request.json").write_text(request.model_dump_json())
    return store, plan(request, card(request.model), media={picture.digest: picture}).passes


def finished(store: Store, passes: Sequence[Pass]) -> set[int]:
    """The first cells of the windows whose latents are in the store, whole."""
    records = ((step.start, store.get_named(step.key)) for step in passes)
    return {start for start, record in records if record is not None and Fill.unpack(record).done}


def killed(folder: Path, life: float, store: Store, passes: Sequence[Pass], film: str) -> Life:
    """One process with its end, and what the store and the destination hold after it."""
    before = finished(store, passes)
    lines = lived(folder, life)
    calls = Counter(start for _, what, start in lines if what == "call")
    now = {what: at for at, what, _ in lines}
    _, last, start = lines[-1] if lines else (0.0, "start", -1)
    number = {step.start: i for i, step in enumerate(passes, 1)}
    return Life(
        ended={"call": f"window {number.get(start)}"}.get(last, last),
        seconds=round(now["done"] - now["loaded"] if "done" in now else life, 3),
        before=len(before),
        after=len(finished(store, passes)),
        calls=calls.total(),
        repeated=sum(calls[start] for start in before),
        whole=not (folder / "out" / "film.mp4").exists() or digest(folder / "out" / "film.mp4") == film,
    )


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def pictures(file: Path) -> str:
    """One digest of all frames."""
    whole = hashlib.sha256()
    for frame in read(file):
        whole.update(frame.tobytes())
    return whole.hexdigest()


def left_over(folder: Path) -> list[str]:
    """What killed processes have left beside the film, and in the store that is neither an asset nor a record."""
    beside = [file.name for file in (folder / "out").iterdir() if file.name != "film.mp4"]
    files = (file.relative_to(folder / "store").as_posix() for file in (folder / "store").rglob("*") if file.is_file())
    return sorted(beside) + sorted(name for name in files if not STORED.fullmatch(name))


def chain(folder: Path, kills: int, store: Store, passes: Sequence[Pass], unbroken: Unbroken, seed: int) -> list[Life]:
    """So many killed processes, and one that may end."""
    chance, lives = random.Random(seed), list[Life]()
    while (more := kills - sum(life.ended != "done" for life in lives)) > 0:
        left = unbroken.filling * (1 - len(finished(store, passes)) / len(passes)) + unbroken.writing
        # on the way every kill may have its part; those of the last stage, which begins anew each time, all of it
        life = chance.uniform(0, 2 * left / (more + 1) if left > unbroken.writing else left)
        lives.append(killed(folder, life, store, passes, unbroken.film))
        print(lives[-1], file=sys.stderr, flush=True)
    return [*lives, killed(folder, float("inf"), store, passes, unbroken.film)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the film")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work is not None:
        work(asked.work)
        return 0
    with tempfile.TemporaryDirectory() as name:
        still, folders = Path(name, "still.png"), (Path(name, "unbroken"), Path(name, "broken"))
        list(generate(tasks.text_to_image(WORDS, seed=1), out=still, where=settings({"CINECANVAS_HOME": name})))
        (_, passes), (store, _) = (prepared(folder, still, asked.seconds) for folder in folders)
        lines = lived(folders[0])
        at = {what: at for at, what, _ in lines}
        whole, mine = (folder / "out" / "film.mp4" for folder in folders)
        unbroken = Unbroken(digest(whole), at["write"] - at["loaded"], at["done"] - at["write"])
        lives = chain(folders[1], asked.kills, store, passes, unbroken, asked.seed)
        facts = {
            "windows": len(passes),
            "kills": sum(life.ended != "done" for life in lives),
            "calls of an unbroken run": sum(what == "call" for _, what, _ in lines),
            "calls in all": sum(life.calls for life in lives),
            "calls for finished windows": sum(life.repeated for life in lives),
            "half-written films seen": sum(not life.whole for life in lives),
            "same bytes": digest(mine) == unbroken.film,
            "same frames": pictures(mine) == pictures(whole),
            "left over": left_over(folders[1]),
            "left over by an unbroken run": left_over(folders[0]),
        }
    if asked.json:
        print(json.dumps({**facts, "lives": [asdict(life) for life in lives]}))
    else:
        print(f"{'ended in':16}{'s after load':>13}{'finished':>11}{'calls':>7}{'repeated':>10}")
        for one in lives:
            windows = f"{one.before} to {one.after}"
            print(f"{one.ended:16}{one.seconds:13.2f}{windows:>11}{one.calls:7}{one.repeated:10}")
        for fact, value in facts.items():
            print(f"{fact}: {value if not isinstance(value, list) else f'{len(value)} {value}'}")
    sound = facts["same bytes"] and not facts["calls for finished windows"] and not facts["half-written films seen"]
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
