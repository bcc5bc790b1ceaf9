"""Worker processes over one queue and one store, started, stopped and killed as tests and benches like."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from cinecanvas.generate import Done, generate
from cinecanvas.jobs.database import Database
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.order import Order
from cinecanvas.jobs.queue import Queue
from cinecanvas.media.assets import Store
from cinecanvas.media.intake import describe
from cinecanvas.settings import settings

PATIENCE = 60.0  # s, for anything that is to happen


class Crew:
    """A home, its queue and store, and the workers there."""

    def __init__(self, home: Path, url: str, *, lease: float = 2.0, deaths: int = 3) -> None:
        self.home, self.url, self.lease, self.deaths = home, url, lease, deaths
        self.where = settings({"CINECANVAS_HOME": str(home), "CINECANVAS_DATABASE": url})
        self.queue = Queue(Database.at(url), lease, deaths)
        self.store = Store.at(self.where.store)
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.workers:
            process.kill()
            process.wait()
        self.queue.database.close()
        if kind is not None:
            print(self.log(), file=sys.stderr)

    def command(self) -> list[str]:
        told = {"--database": self.url, "--lease": str(self.lease), "--deaths": str(self.deaths)}
        return [sys.executable, "-m", "cinecanvas.jobs.worker", *(word for pair in told.items() for word in pair)]

    def log(self) -> str:
        return "\n".join(file.read_text() for file in sorted(self.home.glob("worker-*.txt")))

    def begin(self, *options: str) -> subprocess.Popen[bytes]:
        """A worker that is on its way."""
        file = self.home / f"worker-{len(self.workers):03}.txt"
        self.home.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "CINECANVAS_HOME": str(self.home), "CINECANVAS_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with file.open("w") as stream:
            process = subprocess.Popen([*self.command(), *options], stdout=stream, stderr=stream, env=env)
        self.workers.append(process)
        return process

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        """A worker that is at work."""
        process = self.begin(*options)
        file = self.home / f"worker-{len(self.workers) - 1:03}.txt"
        until(lambda: " begins" in file.read_text() or process.poll() is not None)
        assert process.poll() is None, file.read_text()
        return process

    def ended(self, job: str) -> Job:
        until(lambda: self.queue.get(job).ended)
        return self.queue.get(job)

    def at_step(self, job: str, step: int = 1, *, fence: int = 1) -> None:
        """Until that claim of a job has made so many steps."""
        until(lambda: (now := self.queue.get(job)).ended or (now.fence >= fence and now.step >= step))
        assert self.queue.get(job).state == "running"

    def work_left(self) -> list[str]:
        """What lies in the folder in which films are made."""
        folder = self.where.data / "work"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def until(true: Callable[[], object], *, patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def unbroken(order: Order, store: Store, *, suffix: str = "mp4", into: Store | None = None) -> list[str]:
    """The digests of what plain generate() makes of an order, in a store of its own; clips come from `store`."""
    with tempfile.TemporaryDirectory() as name:
        own = into or Store.at(Path(name, "store"))
        for source in order.sources():
            own.put(store.path(str(source.asset)), "image/png")
        found = {source: describe(own, str(source.asset)) for source in order.sources()}
        events = generate(
            order.request(found),
            out=Path(name, f"film.{suffix}"),
            store=own,
            where=settings({"CINECANVAS_HOME": name, "CINECANVAS_THREADS": "1"}),
        )
        *_, done = events
        assert isinstance(done, Done)
        return [asset.digest for asset in done.assets]
