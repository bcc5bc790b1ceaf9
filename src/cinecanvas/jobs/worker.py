"""A worker: a process that claims jobs, makes them, and says how far it is; whoever kills it loses nothing.

It ends in one way only, at once: asked to (SIGTERM), or robbed of its lease, or killed, it leaves its jobs to the next
worker, which goes on from what the store holds. What one claim writes on this machine lies in a folder of its own: a
worker that was only thought dead does not write into its successor's film.
"""

from __future__ import annotations

import logging
import math
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

from cinecanvas.enhance import captions, open_words, unheard, with_captions
from cinecanvas.errors import BadMedia, BadRequest, BadWeights, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.generate import Done, Event, Note, Phase, Planned, Preview, Step, Stored, Watch, generate, live_name
from cinecanvas.jobs.database import Database, NoDatabase
from cinecanvas.jobs.engine import Engine, Facts
from cinecanvas.jobs.job import LATE, Job, Outcome, State, Trouble, foretold
from cinecanvas.jobs.order import Source, kept, order_of
from cinecanvas.jobs.queue import LEASE, MOST_DEATHS, Claim, NoJob, Queue, Word
from cinecanvas.logs import log_to_stderr
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.fetch import Web, fetch
from cinecanvas.media.warden import Busy, Warden
from cinecanvas.model import Model
from cinecanvas.models import card
from cinecanvas.request import STILL, Media, Request
from cinecanvas.settings import Settings, settings

LOG = logging.getLogger("cinecanvas.worker")
BEAT = 0.2  # of a lease, between two signs of life
IDLE = 0.2  # s between two looks at the queue
SWEEP = 60.0  # s between two looks at what has expired
PREVIEWS = 1.0  # s, the fewest between two
WATCHES = 0.5  # s, likewise: a decoder says after each frame how much can be watched
SILENCE = 300.0  # s without a word from the work of a job, or
_FOLD = 20.0  # times the seconds foretold for all of it, if that is more: the work hangs
HUNG = 4  # the code with which a worker ends whose work hangs
_BACKOFF = 5.0  # s before a second try, three times as long before each one after it
_CODES: Mapping[type[CinecanvasError], str] = {
    BadRequest: "bad_request",
    Unsupported: "unsupported",
    BadMedia: "bad_media",
    BadWeights: "bad_weights",
    CannotWrite: "storage",
    Busy: "busy",
}


_FAILED = Trouble(code="internal", message="The worker's engine failed.", passing=True)


class Silence:
    """How long the work of a job has said nothing: beats go on from another thread, whatever it hangs in."""

    def __init__(self) -> None:
        self._last, self._most = time.monotonic(), SILENCE

    def broken(self) -> None:
        self._last = time.monotonic()

    def foretold(self, seconds: float) -> None:
        """All of the work is to take so long."""
        self._most = max(SILENCE, _FOLD * seconds)

    def too_long(self) -> bool:
        return time.monotonic() - self._last > self._most


class Left(BaseException):
    """The job is another's now, or will be: nothing more is said about it here."""


class Pace:
    """Whether it is time again, at most once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, -math.inf

    def due(self) -> bool:
        if due := time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
        return due


@dataclass(frozen=True)
class Hand:
    """A claimed job in the hands of a worker; `stop`: its asker wants it no more, `late`: its deadline is over,
    `lost`: it is another's, `settled`: its end is being written down, or is."""

    claim: Claim
    stop: threading.Event = field(default_factory=threading.Event)
    late: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)
    settled: threading.Event = field(default_factory=threading.Event)
    watches: Pace = field(default_factory=lambda: Pace(WATCHES))
    silence: Silence = field(default_factory=Silence)

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
        loader: Callable[[str], Model] | None = None,
        web: Web = Web(),
        name: str = "",
    ) -> None:
        self.id = name or f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._queue, self._store, self._where, self._web = queue, store, where, web
        self._models, self._loader, self._concurrency = tuple(models), loader, concurrency
        self._warden = Warden(store)
        self._hands: dict[str, Hand] = {}
        self._leaving, self._gone, self._claiming = threading.Event(), threading.Event(), threading.Lock()
        self._engine = Engine(queue.database, self.id, make=self._make, settle=self._settle)

    def run(self) -> None:
        """Work until told to leave; then the jobs are queued again, and the process may end."""
        LOG.info("worker %s begins", self.id)
        self._queue.beat(self.id, models=self._models)
        beats = threading.Thread(target=self._beats, daemon=True)
        for thread in (beats, *(threading.Thread(target=self._works, daemon=True) for _ in range(self._concurrency))):
            thread.start()
        swept = 0.0
        while not self._leaving.is_set():  # no wait(): within it a signal's handler could not set
            time.sleep(IDLE)
            if time.monotonic() - swept > SWEEP:
                swept = time.monotonic()
                self._sweep()
        until = time.monotonic() + self._queue.lease
        if self._claiming.acquire(timeout=self._queue.lease):  # what is just being claimed is in hand, or stays there
            self._claiming.release()
        while self._hands and time.monotonic() < until:  # they keep what they have and stop within a network call
            time.sleep(0.02)
        self._gone.set()
        beats.join(1.0)
        self._release()
        LOG.info("worker %s ends", self.id)

    def leave(self) -> None:
        """End soon: what is on its way is kept in the store, and queued again."""
        self._leaving.set()

    def _release(self) -> None:
        with suppress(CinecanvasError):
            self._queue.release(self.id, lost=False)

    def _lost(self) -> None:
        """The end of this process, at once; its other jobs, if they are still its own, are queued again."""
        LOG.error("worker %s was silent for too long and lost a job", self.id)
        giving = threading.Thread(target=self._release, daemon=True)
        giving.start()
        giving.join(1.0)
        os._exit(3)

    def _hangs(self, job: str) -> None:
        """The end of this process, at once: it cannot stop a thread. It gives nothing back: the death is to count."""
        LOG.error("job %(job)s has said nothing for too long: the worker ends", {"job": job})
        os._exit(HUNG)

    # The threads

    def _works(self) -> None:
        while not self._leaving.is_set():
            try:
                hand = self._next()
                if hand is None:
                    time.sleep(IDLE)
                    continue
            except Exception as error:
                LOG.warning("no job could be claimed: %s", error)
                time.sleep(1.0)
                continue
            job, fence = hand.claim.job.id, hand.claim.fence
            LOG.info("job %(job)s claimed, the %(time)d. time", {"job": job, "time": fence})
            try:
                self._engine.run(job, fence)
                if hand.settled.is_set() and not hand.lost.is_set():
                    self._engine.forget(job)
            except Exception:  # of the engine: its tables may lie on a disk that is full, beside ours
                LOG.exception("job %(job)s was left by the engine", {"job": job})
                self._failed(hand)
            self._hands.pop(job, None)
            if hand.lost.is_set():
                self._lost()

    def _failed(self, hand: Hand) -> None:
        """Back into the queue, as soon as that can be said; what is never said the lease says, when it is over."""
        hand.settled.set()
        after = _BACKOFF * 3**hand.claim.job.tries
        with suppress(CinecanvasError):
            hand.heed(_lasting(lambda: self._queue.again(hand.claim, _FAILED, after=after), until=self._leaving))

    def _next(self) -> Hand | None:
        """A job in hand before anybody can ask what is in hand."""
        with self._claiming:
            claim = None if self._leaving.is_set() else self._queue.claim(self.id, models=self._models)
            if claim is None:
                return None
            hand = self._hands[claim.job.id] = Hand(claim)
            return hand

    def _beats(self) -> None:
        while not self._gone.wait(BEAT * self._queue.lease):
            hands = list(self._hands.items())
            try:
                words = self._queue.beat(self.id, claims=[hand.claim for _, hand in hands], models=self._models)
            except Exception as error:
                LOG.warning("no sign of life could be given: %s", error)
                continue
            for job, hand in hands:
                if not hand.settled.is_set():  # else its last word says more
                    if hand.silence.too_long():
                        self._hangs(job)
                    hand.heed(words[job])
                    if words[job] == "lost":
                        self._lost()

    def _sweep(self) -> None:
        try:
            self._queue.sweep(self._store.delete)
            self._store.tidy()
            self._store.clear_aside()
            for name in self._engine.names() - self._hands.keys():
                if self._ended(name):
                    self._engine.forget(name)
            for folder in _folder(self._where).iterdir():
                name = folder.name.partition(".")[0]
                if name not in self._hands and self._ended(name):
                    shutil.rmtree(folder, ignore_errors=True)
        except Exception as error:
            LOG.warning("nothing was swept: %s", type(error).__name__)

    def _ended(self, job: str) -> bool:
        try:
            return self._queue.get(job).ended
        except NoJob:
            return True

    # The steps of a job

    def _make(self, name: str, before: Facts | None) -> Facts:
        """All of the work: the job's end as plain facts. A film that an earlier claim finished is not made again."""
        hand = self._hands[name]
        job = hand.claim.job
        try:
            outcome = self._left(hand, before) or self._film(hand)
            return {"state": "succeeded", "outcome": outcome.model_dump(mode="json")}
        except Left:
            if hand.lost.is_set():
                self._lost()
            self._hands.pop(job.id, None)
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
            LOG.exception("job %(job)s failed", {"job": job.id})
            trouble = Trouble(code="internal", message=f"The worker failed ({type(error).__name__}).", passing=True)
        return {"state": "again" if trouble.passing else "failed", "error": trouble.model_dump()}

    def _settle(self, name: str, made: Facts) -> None:
        """The end of the work, in the queue."""
        hand = self._hands[name]
        error = Trouble.model_validate(made["error"]) if made.get("error") else None
        outcome = Outcome.model_validate(made["outcome"]) if made.get("outcome") else None
        hand.settled.set()

        def say() -> Word:
            if made["state"] == "again":
                assert error is not None
                return self._queue.again(hand.claim, error, after=_BACKOFF * 3**hand.claim.job.tries)
            return self._queue.finish(hand.claim, cast(State, made["state"]), outcome=outcome, error=error)

        hand.heed(_lasting(say))  # what is made is not lost for a database that is away for a while
        for folder in left_folders(self._where, hand.claim.job):
            shutil.rmtree(folder, ignore_errors=True)
        LOG.info("job %(job)s %(state)s", {"job": hand.claim.job.id, "state": made["state"]})

    def _left(self, hand: Hand, before: Facts | None) -> Outcome | None:
        """What an earlier claim finished, if it is all in the store: nothing else that it came to is this one's."""
        if before is None or before["state"] != "succeeded":
            return None
        outcome = Outcome.model_validate(before["outcome"])
        return outcome if self._keeps(hand, outcome) else None

    def _keeps(self, hand: Hand, outcome: Outcome) -> bool:
        """Whether the assets are there, once it is known that this job needs them: before, a sweep may take them."""
        digests = [asset.digest for asset in outcome.assets]
        self._say(hand, "made", {"assets": digests}, holds=digests)
        return all(self._store.has(digest) for digest in digests)

    def _film(self, hand: Hand) -> Outcome:
        job = hand.claim.job
        asked, found = self._found(hand)
        request = self._enhanced(hand, asked, order_of(asked).request(found))
        for folder in left_folders(self._where, job):  # of workers that were killed
            shutil.rmtree(folder, ignore_errors=True)
        folder = _own(self._where, job)
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
                    outcome = _outcome(event)
                    if not self._keeps(hand, outcome):  # a sweep took what was there from earlier
                        raise CannotWrite("The film went out of the store", do="Ask again")
                    return outcome
                self._tell(hand, event, folder, count=request.count)
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

    def _enhanced(self, hand: Hand, asked: dict[str, Any], request: Request) -> Request:
        """The request with its captions, which are written down as they come: nobody is asked twice for one."""
        chosen = card(request.model, where=self._where)
        if not open_words(request, chosen):
            return request
        self._say(hand, "phase", {"name": "enhance"}, phase="enhance")
        for one in captions(request, chosen, self._where):
            request = with_captions(request, [one])
            order = {**asked, "enhanced": [each.model_dump() for each in request.enhanced]}
            told = {"caption": one.caption, "trouble": one.trouble}
            self._say(hand, "enhanced", told, surely=True, asked=kept(order_of(order)))
        if said := unheard(request.enhanced):
            self._say(hand, "note", {"text": said})
        return request

    def _looked_at(self, store: Store, file: Path) -> Asset:
        return self._warden.take(file, name=file.name)

    def _tell(self, hand: Hand, event: Event, folder: Path, *, count: int) -> None:
        """What generate() says, for those who wait."""
        if isinstance(event, Planned):
            told = foretold(event.plan)
            hand.silence.foretold(told.seconds)
            price = hand.claim.job.price.credits(told.work)
            self._say(hand, "planned", {"seconds": told.seconds}, foretold=told.model_dump(), credits=price)
        elif isinstance(event, Phase):
            self._say(hand, "phase", {"name": event.name, "video": event.video}, phase=event.name)
        elif isinstance(event, Step):
            done, of = event.video * event.of + event.done, event.of * count
            data = {"step": done, "of": of, "eta": round(event.eta, 3)}
            self._say(hand, "step", data, step=done, steps=of, eta=event.eta)
        elif isinstance(event, Note):
            self._say(hand, "note", {"text": event.text})
        elif isinstance(event, Watch) and hand.watches.due():
            self._say(hand, "watch", {"seconds": event.seconds}, watchable=event.seconds)
        elif isinstance(event, Preview):
            _show(event, folder)
            self._say(hand, "preview", {})
        elif isinstance(event, Stored):  # needed from now on, and forgotten with the job, however that ends
            digest = event.asset.digest
            self._say(hand, "stored", {"asset": digest, "video": event.video}, holds=[digest])

    def _say(
        self,
        hand: Hand,
        kind: str,
        data: Mapping[str, Any],
        *,
        holds: Sequence[str] = (),
        surely: bool = False,
        **values: Any,
    ) -> None:
        """One word to the queue; its answer may be the end of the job here. While the database is away a job goes on:
        how far it is can be told later, only what it needs must be known, and what is said `surely`."""

        def say() -> Word:
            hand.silence.broken()
            return self._queue.tell(hand.claim, kind, data, holds=holds, **values)

        if not hand.lost.is_set() and not self._leaving.is_set():
            try:
                hand.heed(_lasting(say, until=self._leaving) if holds or surely else say())
            except NoDatabase as error:
                LOG.warning("job %s goes on untold: %s", hand.claim.job.id, error)
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
    return live_name(str(_own(where, job) / f"film.{job.suffix}"))


def preview_file(where: Settings, job: Job) -> Path:
    """The latest glimpse of a job, likewise."""
    return _own(where, job) / "preview.png"


def _own(where: Settings, job: Job) -> Path:
    """Where the claim of a job writes."""
    return _folder(where) / f"{job.id}.{job.fence}"


def left_folders(where: Settings, job: Job) -> list[Path]:
    """What this claim of a job and those before it have left; one that came after is at work."""
    found = _folder(where).glob(f"{job.id}.*")
    return [folder for folder in found if int(folder.suffix.removeprefix(".")) <= job.fence]


def _lasting(say: Callable[[], Word], *, until: threading.Event | None = None) -> Word:
    """A word that must arrive, however long the database is away."""
    while True:
        try:
            return say()
        except NoDatabase as error:
            LOG.warning("a word waits: %s", error)
            if until is not None and until.is_set():
                return "go on"
            time.sleep(1.0)


def _folder(where: Settings) -> Path:
    folder = where.data / "work"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _outcome(done: Done) -> Outcome:
    if len(done.assets) < len(done.seeds):  # the film was made, but its asker could not come by it
        raise CannotWrite("The film could not be kept in the store", do="Free some space, then try again")
    return Outcome(assets=done.assets, seeds=done.seeds, notes=done.notes, phases=done.phases.model_dump())


def _show(preview: Preview, folder: Path) -> None:
    """The glimpse as a file that is whole whenever it is looked at."""
    from cinecanvas.media.video import write

    with suppress(CannotWrite):
        write([preview.frame[None]], folder / "preview.png", fps=1)


def _step_back() -> None:
    """The server beside us answers at once, however much there is to make."""
    if hasattr(os, "nice"):
        os.nice(5)


def _attached(worker: Worker) -> None:
    """Leave when whoever started us closes the line, or dies."""
    sys.stdin.buffer.read()
    worker.leave()


def main(argv: Sequence[str] | None = None) -> int:
    """One worker process, until SIGTERM."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m cinecanvas.jobs.worker", description=__doc__)
    here = settings()
    parser.add_argument("--database", default=here.database)
    parser.add_argument("--store", default=str(here.store))
    parser.add_argument("--models", default="", help="names with commas; all if left out")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--lease", type=float, default=LEASE, help="s of silence, and its jobs are another's")
    parser.add_argument("--deaths", type=int, default=MOST_DEATHS, help="workers that one job may take with it")
    parser.add_argument("--name", default="", help="that nobody else ever has: who started it can say that it is gone")
    parser.add_argument("--trust", action="append", default=[], help="a host that media may come from, wherever it is")
    parser.add_argument("--attached", action="store_true", help="leave when stdin is closed")
    parser.add_argument("--logs", choices=("text", "json"), default="text")
    asked = parser.parse_args(argv)
    log_to_stderr(asked.logs)
    queue = Queue(Database.at(asked.database), asked.lease, asked.deaths)
    try:
        queue.database.migrate()
    except NoDatabase as error:
        sys.exit(str(error))
    worker = Worker(
        queue,
        Store.at(asked.store),
        where=here,
        models=tuple(filter(None, asked.models.split(","))),
        concurrency=asked.concurrency,
        web=Web(trusted=frozenset(asked.trust)),
        name=asked.name,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.leave())
    if asked.attached:
        _step_back()
        threading.Thread(target=_attached, args=(worker,), daemon=True).start()
    worker.run()
    sys.stdout.flush()
    os._exit(0)  # threads that wait for nothing any more need not be waited for


if __name__ == "__main__":
    sys.exit(main())
