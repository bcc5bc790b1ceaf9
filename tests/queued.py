"""Jobs for the tests of the queue, and looks at what became of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")

import sqlalchemy as sa

from cinecanvas.jobs import tables
from cinecanvas.jobs.job import Job, Outcome, Trouble
from cinecanvas.jobs.order import order
from cinecanvas.jobs.queue import Claim, Queue
from cinecanvas.media.assets import Asset

FILM = Asset(
    digest="sha256:" + "ab" * 32, media_type="video/mp4", bytes=9, width=100, height=100, frames=50, fps=25, seconds=2
)
PICTURE = "sha256:" + "cd" * 32
MADE = Outcome(assets=(FILM,), phases={"denoise": 3.0, "write": 1.0})
PASSING = Trouble(code="storage", message="The disk is full.", passing=True)


def asked(queue: Queue, **given: Any) -> Job:
    return queue.submit(order("text_to_video", prompt="red", seed=1), **{"model": "toy", **given})


def claimed(queue: Queue, worker: str = "w", **given: Any) -> Claim:
    claim = queue.claim(worker, **given)
    assert claim is not None
    return claim


def change(queue: Queue, table: sa.Table, *where: Any, **values: Any) -> None:
    with queue.database.write() as connection:
        connection.execute(sa.update(table).where(*where).values(**values))


def silent(queue: Queue, job: str) -> None:
    """Its worker has said nothing for longer than a lease."""
    change(queue, tables.jobs, tables.jobs.c.id == job, lease=1.0)


def rows(queue: Queue, table: sa.Table) -> list[Any]:
    with queue.database.read() as connection:
        return list(connection.execute(sa.select(table)).all())


def kinds(queue: Queue, job: str) -> list[str]:
    return [event.kind for event in queue.events(job)]


def at_once(count: int, do: Callable[[int], Any]) -> list[Any]:
    """What so many threads get that begin together."""
    gate = threading.Barrier(count)

    def run(number: int) -> Any:
        gate.wait()
        return do(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
