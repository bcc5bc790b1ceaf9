"""A worker: a process that claims jobs, makes them, and says how far it is; whoever kills it loses nothing.

It ends in one way only, at once: asked to (SIGTERM), or robbed of its lease, or killed, it leaves its jobs to the next
worker, which goes on from what the store holds.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cinecanvas.errors import BadMedia, BadRequest, BadWeights, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.generate import Done, Event, Note, Phase, Planned, Preview, Step, Watch, generate, live_name
from cinecanvas.jobs.database import Database
from cinecanvas.jobs.engine import Engine, Facts
from cinecanvas.jobs.job import LATE, Job, Outcome, State, Trouble, foretold
from cinecanvas.jobs.order import Source, kept, order_of
from cinecanvas.jobs.queue import LEASE, Claim, Queue, Word
from cinecanvas.logs import log_to_stderr
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.fetch import Web, fetch
from cinecanvas.media.warden import Busy, Warden
from cinecanvas.model import Model
from cinecanvas.models import load
from cinecanvas.request import STILL, Media
from cinecanvas.settings import Settings, settings

LOG = logging.getLogger("cinecanvas.worker")
BEAT = LEASE / 5  # s
IDLE = 0.2  # s between two looks at the queue
SWEEP = 60.0  # s between two looks at what has expired
PREVIEWS = 1.0  # s, the fewest between two
_BACKOFF = 5.0  # s before a second try, three times as long before each one after it
_CODES: Mapping[type[CinecanvasError], str] = {
    BadRequest: "bad_request",
    Unsupported: "unsupported",
    BadMedia: "bad_media",
    BadWeights: "bad_weights",
    CannotWrite: "storage",
    Busy: "busy",
}


class Left(BaseException):
    """The job is another's now, or will be: nothing more is said about it here."""


@dataclass(frozen=True)
class Hand:
    """A claimed job in the hands of a worker; `stop`: its asker wants it no more, `late`: its deadline is over,
    `lost`: it is another's."""

    claim: Claim
    stop: threading.Event = field(default_factory=threading.Event)
    late: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)

    def heed(self, word: Word) -> None:
        if word != "go on":
            {"stop": self.stop, "late": self.late, "lost": self.lost}[word].set()


class Worker:
    """Jobs of a queue, some at a time, made with the models of this process."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        *,
        where: Settings,
        models: Sequence[str] = (),
        concurrency: int = 1,
        loader: Callable[[str], Model] = load,
        web: Web = Web(),
        name: str = "",
    ) -> None:
        self.id = name or f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._queue, self._store, self._where, self._web = queue, store, where, web
        self._models, self._loader, self._concurrency = tuple(models), loader, concurrency
        self._warden = Warden(store)
        self._hands: dict[str, Hand] = {}
        self._leaving = threading.Event()
        self._engine = Engine(queue.database, self.id, make=self._make, settle=self._settle, concurrency=concurrency)

    def run(self) -> None:
        """Work until told to leave; then the jobs are queued again, and the process may end."""
        LOG.info("worker %s begins", self.id)
        self._queue.beat(self.id, models=self._models)
        threads = [threading.Thread(target=self._beats, daemon=True)]
        threads += [threading.Thread(target=self._works, daemon=True) for _ in range(self._concurrency)]
        for thread in threads:
            thread.start()
        swept = 0.0
        while not self._leaving.wait(IDLE):
            if time.monotonic() - swept > SWEEP:
                swept = time.monotonic()
                self._sweep()
        until = time.monotonic() + LEASE
        while self._hands and time.monotonic() < until:  # they keep what they have and stop within a network call
            time.sleep(0.02)
        with suppress(CinecanvasError):
            self._queue.release(self.id, lost=False)
        LOG.info("worker %s ends", self.id)

    def leave(self) -> None:
        """End soon: what is on its way is kept in the store, and queued again."""
        self._leaving.set()

    # The threads

    def _works(self) -> None:
        while not self._leaving.is_set():
            try:
                claim = self._queue.claim(self.id, models=self._models)
            except CinecanvasError as error:
                LOG.warning("no job could be claimed: %s", error)
                time.sleep(1.0)
                continue
            if claim is None:
                time.sleep(IDLE)
                continue
            LOG.info("job %s claimed, the %d. time", claim.job.id, claim.fence)
            hand = self._hands[claim.job.id] = Hand(claim)
            try:
                self._engine.run(_name(claim.job))
            except Exception:  # of the engine: the job is claimed anew when the lease is over
                LOG.exception("job %s was left by the engine", claim.job.id)
            finally:
                self._hands.pop(claim.job.id, None)
            if hand.lost.is_set():
                LOG.error("worker %s was silent for too long and lost its jobs", self.id)
                os._exit(3)

    def _beats(self) -> None:
        while not self._leaving.is_set():
            try:
                words = self._queue.beat(self.id, models=self._models)
                for job, hand in list(self._hands.items()):
                    hand.heed(words.get(job, "go on"))
            except CinecanvasError as error:
                LOG.warning("no sign of life could be given: %s", error)
            self._leaving.wait(BEAT)

    def _sweep(self) -> None:
        try:
            for digest in self._queue.sweep():
                self._store.delete(digest)
            self._store.tidy()
            for folder in _folder(self._where).iterdir():
                if folder.name not in self._hands and time.time() - folder.stat().st_mtime > 60 * LEASE:
                    shutil.rmtree(folder, ignore_errors=True)
        except (CinecanvasError, OSError) as error:
            LOG.warning("nothing was swept: %s", type(error).__name__)

    # The steps of a job

    def _make(self, name: str) -> Facts:
        """All of the work: the job's end as plain facts."""
        hand = self._hands[name.partition(".")[0]]
        job = hand.claim.job
        try:
            return {"state": "succeeded", "outcome": self._film(hand).model_dump(mode="json")}
        except Left:
            if not hand.lost.is_set():
                self._hands.pop(job.id, None)
            else:
                os._exit(3)
            threading.Event().wait()  # what this process would say now, another is to say: it is about to end
            raise
        except Stopped:
            return {"state": "cancelled"}
        except TooLate:
            return {"state": "failed", "error": LATE.model_dump()}
        except CinecanvasError as error:
            code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "internal")
            passing = code in ("storage", "busy", "internal")
            trouble = Trouble(code=code, message=str(error), passing=passing)
        except Exception as error:
            LOG.exception("job %s failed", job.id)
            trouble = Trouble(code="internal", message=f"The worker failed ({type(error).__name__}).", passing=True)
        return {"state": "again" if trouble.passing else "failed", "error": trouble.model_dump()}

    def _settle(self, name: str, made: Facts) -> None:
        """The end of the work, in the queue."""
        hand = self._hands[name.partition(".")[0]]
        error = Trouble.model_validate(made["error"]) if made.get("error") else None
        outcome = Outcome.model_validate(made["outcome"]) if made.get("outcome") else None
        while True:
            try:
                if made["state"] == "again":
                    assert error is not None
                    after = _BACKOFF * 3**hand.claim.job.tries
                    word = self._queue.again(hand.claim, error, after=after)
                else:
                    word = self._queue.finish(hand.claim, cast(State, made["state"]), outcome=outcome, error=error)
                break
            except CinecanvasError as failed:  # what is made is not lost for a database that is away for a while
                LOG.warning("job %s cannot be settled: %s", hand.claim.job.id, failed)
                time.sleep(1.0)
        hand.heed(word)
        shutil.rmtree(_folder(self._where) / hand.claim.job.id, ignore_errors=True)
        LOG.info("job %s %s", hand.claim.job.id, made["state"])

    def _film(self, hand: Hand) -> Outcome:
        job = hand.claim.job
        asked, found = self._found(hand)
        request = order_of(asked).request(found)
        folder = _folder(self._where) / job.id
        folder.mkdir(parents=True, exist_ok=True)
        still = request.seconds == STILL and job.kind == "video"  # what was laid turned out to be a picture
        out = folder / ("film.png" if still else f"film.{job.suffix}")
        events = generate(
            request,
            out=out,
            models=self._loader,
            store=self._store,
            where=self._where,
            live=job.kind == "video" and not still,
            previews=PREVIEWS,
        )
        with closing(cast(Any, events)):
            for event in events:
                if isinstance(event, Done):
                    return _outcome(event)
                self._tell(hand, event, folder)
        raise AssertionError("generate() ended without Done")

    def _found(self, hand: Hand) -> tuple[dict[str, Any], dict[Source, Media]]:
        """The order with nothing left to fetch, and its media; what was fetched is never fetched again."""
        asked = order_of(hand.claim.job.asked)
        found: dict[Source, Media] = {}
        places: dict[Source, Source] = {}
        for source in dict.fromkeys(asked.sources()):
            if source.url is not None:
                self._say(hand, "phase", {"name": "fetch"}, phase="fetch")
                asset: Asset = fetch(self._store, source.url, web=self._web, keep=self._looked_at)
                places[source] = Source(asset=asset.digest)
            else:
                assert source.asset is not None, "files and jobs are looked up when an order is accepted"
                asset = self._warden.describe(source.asset)
            found[places.get(source, source)] = asset
        asked = asked.located(places)
        if places:
            digests = [place.asset for place in places.values() if place.asset]
            self._say(hand, "fetched", {"assets": digests}, holds=digests, asked=kept(asked))
        return kept(asked), found

    def _looked_at(self, store: Store, file: Path) -> Asset:
        return self._warden.take(file, name=file.name)

    def _tell(self, hand: Hand, event: Event, folder: Path) -> None:
        """What generate() says, for those who wait."""
        if isinstance(event, Planned):
            told = foretold(event.plan)
            price = hand.claim.job.price.credits(told.work)
            self._say(hand, "planned", {"seconds": told.seconds}, foretold=told.model_dump(), credits=price)
        elif isinstance(event, Phase):
            self._say(hand, "phase", {"name": event.name, "video": event.video}, phase=event.name)
        elif isinstance(event, Step):
            count = max(1, hand.claim.job.foretold.count)
            done, of = event.video * event.of + event.done, event.of * count
            data = {"step": done, "of": of, "eta": round(event.eta, 3)}
            self._say(hand, "step", data, step=done, steps=of, eta=event.eta)
        elif isinstance(event, Note):
            self._say(hand, "note", {"text": event.text})
        elif isinstance(event, Watch):
            self._say(hand, "watch", {"seconds": event.seconds}, watchable=event.seconds)
        elif isinstance(event, Preview):
            _show(event, folder)
            self._say(hand, "preview", {})

    def _say(self, hand: Hand, kind: str, data: Mapping[str, Any], *, holds: Sequence[str] = (), **values: Any) -> None:
        """One word to the queue; its answer may be the end of the job here."""
        if not hand.lost.is_set():
            hand.heed(self._queue.tell(hand.claim, kind, data, holds=holds, **values))
        if hand.lost.is_set() or self._leaving.is_set():
            raise Left
        if hand.stop.is_set():
            raise Stopped
        if hand.late.is_set():
            raise TooLate


class Stopped(Exception):
    """Its asker wants the job no more."""


class TooLate(Exception):
    """The job's deadline is over."""


def watched_file(where: Settings, job: Job) -> Path:
    """Where a film can be watched while it is made, on the machine of its worker."""
    return live_name(str(_folder(where) / job.id / f"film.{job.suffix}"))


def preview_file(where: Settings, job: str) -> Path:
    """The latest glimpse of a job, likewise."""
    return _folder(where) / job / "preview.png"


def _folder(where: Settings) -> Path:
    folder = where.data / "work"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _name(job: Job) -> str:
    """What the engine calls a try of a job."""
    return f"{job.id}.{job.tries}"


def _outcome(done: Done) -> Outcome:
    if len(done.assets) < len(done.seeds):  # the film was made, but its asker could not come by it
        raise CannotWrite("The film could not be kept in the store", do="Free some space, then try again")
    return Outcome(assets=done.assets, seeds=done.seeds, notes=done.notes, phases=done.phases.model_dump())


def _show(preview: Preview, folder: Path) -> None:
    """The glimpse as a file that is whole whenever it is looked at."""
    from cinecanvas.media.video import write

    with suppress(CannotWrite):
        write([preview.frame[None]], folder / "preview.png", fps=1)


def main(argv: Sequence[str] | None = None) -> int:
    """One worker process, until SIGTERM."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m cinecanvas.jobs.worker", description=__doc__)
    here = settings()
    parser.add_argument("--database", default=here.database)
    parser.add_argument("--store", default=str(here.store))
    parser.add_argument("--models", default="", help="names with commas; all if left out")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--name", default="")
    parser.add_argument("--attached", action="store_true", help="leave when stdin is closed")
    parser.add_argument("--logs", choices=("text", "json"), default="text")
    asked = parser.parse_args(argv)
    log_to_stderr(asked.logs)
    queue = Queue(Database.at(asked.database))
    worker = Worker(
        queue,
        Store.at(asked.store),
        where=here,
        models=tuple(filter(None, asked.models.split(","))),
        concurrency=asked.concurrency,
        name=asked.name,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.leave())
    if asked.attached:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), worker.leave()), daemon=True).start()
    worker.run()
    sys.stdout.flush()
    os._exit(0)  # threads that wait for nothing any more need not be waited for


if __name__ == "__main__":
    sys.exit(main())
