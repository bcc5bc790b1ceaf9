"""Worker processes as they are: what they make, and what is left of a job when one of them is stopped or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("dbos")

import sqlalchemy as sa
from crew import Crew, unbroken, until

from cinecanvas.jobs import tables
from cinecanvas.jobs.database import Database
from cinecanvas.jobs.engine import Engine, Facts
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.order import Order, order
from cinecanvas.jobs.queue import Queue
from cinecanvas.jobs.worker import left_folders, watched_file
from cinecanvas.settings import settings

if TYPE_CHECKING:
    from postgres import Postgres

SHORT = order("text_to_video", prompt="red", seed=1, model="toy", quality="draft", seconds=1)
LONG = order("text_to_video", prompt="blue", seed=2, model="toy", quality="best", seconds=30, count=3)
FILM = order("text_to_video", prompt="a red ball bounces on grass", seed=3, seconds=10)
RUNS: dict[str, list[str]] = {}


@pytest.fixture
def crew(tmp_path: Path, database_url: str) -> Iterator[Crew]:
    with Crew(tmp_path / "home", database_url) as crew:
        yield crew


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Crew]:
    """One with a file, for what no database changes."""
    with Crew(tmp_path / "home", f"sqlite:///{tmp_path / 'jobs.sqlite'}") as crew:
        crew.queue.database.migrate()
        yield crew


@pytest.fixture
def server(tmp_path: Path, postgresql: Postgres) -> Iterator[Crew]:
    """One with a server."""
    with Crew(tmp_path / "home", postgresql.url(postgresql.database()), lease=2.0) as crew:
        crew.queue.database.migrate()
        yield crew


def asked(crew: Crew, order: Order, **given: Any) -> Job:
    return crew.queue.submit(order, **{"model": getattr(order, "model", None) or "diorama", **given})


def whole(crew: Crew, order: Order) -> list[str]:
    """What an unbroken run makes of it, run once."""
    if (name := order.model_dump_json()) not in RUNS:
        RUNS[name] = unbroken(order, crew.store)
    return RUNS[name]


def digests(job: Job) -> list[str]:
    assert job.outcome is not None, job.error
    return [asset.digest for asset in job.outcome.assets]


def test_a_film_that_was_killed_and_taken_over_is_the_film_of_an_unbroken_run(crew: Crew) -> None:
    first = crew.worker()
    job = asked(crew, FILM)
    crew.at_step(job.id, 20)
    first.kill()
    crew.worker()
    short = asked(crew, SHORT)
    done = crew.ended(job.id)
    assert digests(done) == whole(crew, FILM)
    assert (done.deaths, done.fence) == (1, 2)
    assert digests(crew.ended(short.id)) == whole(crew, SHORT)
    assert all(crew.store.has(digest) for digest in digests(done))
    steps = [event.data["step"] for event in crew.queue.events(job.id, limit=9999) if event.kind == "step"]
    assert len(steps) < 2 * max(steps), "finished windows are not made again"
    with crew.queue.database.read() as connection:
        assert connection.execute(sa.select(tables.usage.c.jobs).order_by(tables.usage.c.jobs)).scalars().all() == [
            1,
            1,
        ]
    assert crew.work_left() == []


def test_a_worker_that_stood_still_for_longer_than_its_lease_ends_when_it_wakes(server: Crew) -> None:
    first = server.worker()
    job = asked(server, LONG)
    server.at_step(job.id, 3)
    os.kill(first.pid, signal.SIGSTOP)
    second = server.worker()
    server.at_step(job.id, 1, fence=2)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(30) == 3
    done = server.ended(job.id)
    assert (done.state, done.fence, done.deaths) == ("succeeded", 2, 1)
    assert digests(done) == whole(server, LONG)
    assert [event.kind for event in server.queue.events(job.id, limit=9999)].count("succeeded") == 1
    assert second.poll() is None
    until(lambda: server.work_left() == [])


def test_a_worker_that_is_asked_to_end_keeps_what_it_has_and_another_goes_on(small: Crew) -> None:
    first = small.worker()
    job = asked(small, FILM)
    small.at_step(job.id, 8)
    first.terminate()
    assert first.wait(30) == 0
    left = small.queue.get(job.id)
    assert (left.state, left.deaths, left.worker) == ("queued", 0, "")
    assert small.store.holds().records > 0
    small.worker()
    done = small.ended(job.id)
    assert (done.deaths, done.tries, done.fence) == (0, 0, 2)
    steps = [event.data["step"] for event in small.queue.events(job.id, limit=9999) if event.kind == "step"]
    assert len(steps) <= max(steps) + 2, "no step is made twice, but for the one that is told twice"
    assert digests(done) == whole(small, FILM)


def test_two_workers_share_the_work_stop_when_asked_and_refuse_in_a_line(small: Crew) -> None:
    workers = [small.worker(), small.worker()]
    many = [asked(small, SHORT.model_copy(update={"seed": number})) for number in range(12)]
    late = asked(small, LONG, priority=9, deadline=small.queue.database.clock() + 1.0)
    stopped = asked(small, LONG.model_copy(update={"seed": 9}), priority=9)
    wide = asked(small, order("text_to_video", prompt="red", seed=1, model="toy", shape="100000:1"))
    local = asked(small, order("animate", picture={"url": "http://127.0.0.1:1/cat.png"}, prompt="red", seed=1))
    gone = asked(small, order("animate", picture={"asset": "sha256:" + "0" * 64}, prompt="red", seed=1))
    small.at_step(stopped.id, 1)
    began = time.monotonic()
    small.queue.cancel(stopped.id)
    assert small.ended(stopped.id).state == "cancelled"
    assert time.monotonic() - began < 5
    assert small.ended(late.id).error == small.queue.get(late.id).error
    assert (error := small.queue.get(late.id).error) and error.code == "deadline"
    for job, code, words in ((wide, "bad_request", "100000:1"), (local, "bad_request", "public"), (gone, "", "")):
        ended = small.ended(job.id)
        assert ended.state == "failed" and ended.error is not None and not ended.error.passing
        assert ended.error.code == code or not code
        assert words in ended.error.message and "\n" not in ended.error.message
    for job in many:
        done = small.ended(job.id)
        assert (done.state, done.fence) == ("succeeded", 1)
        assert small.queue.events(job.id)[-1].kind == "succeeded"
    assert len({small.queue.events(job.id)[1].data["again"] for job in many}) == 1
    assert all(worker.poll() is None for worker in workers)
    assert small.work_left() == []


def test_a_film_of_a_job_that_was_cancelled_before_the_next_one_is_forgotten_with_it(small: Crew) -> None:
    small.worker()
    job = asked(small, LONG)

    def films() -> list[str]:
        return [event.data["asset"] for event in small.queue.events(job.id, limit=9999) if event.kind == "stored"]

    until(films)
    small.queue.cancel(job.id)
    assert small.ended(job.id).state == "cancelled"
    made = films()
    assert made == whole(small, LONG)[: len(made)] and len(made) < 3
    assert all(small.store.has(digest) for digest in made)
    with small.queue.database.write() as connection:
        connection.execute(sa.update(tables.jobs).values(expires=1.0))
    small.queue.sweep(small.store.delete)
    with small.queue.database.write() as connection:
        connection.execute(sa.update(tables.holds).values(since=1.0))
    small.queue.sweep(small.store.delete)
    assert not any(small.store.has(digest) for digest in made)


def test_a_worker_makes_as_many_at_a_time_as_it_is_told(small: Crew) -> None:
    small.worker("--concurrency", "2")
    jobs = [asked(small, LONG.model_copy(update={"seed": number})) for number in (4, 5, 6)]
    for job in jobs[:2]:
        small.at_step(job.id, 1)
    assert [small.queue.get(job.id).state for job in jobs] == ["running", "running", "queued"]
    small.queue.cancel(jobs[0].id)
    assert [small.ended(job.id).state for job in jobs] == ["cancelled", "succeeded", "succeeded"]
    assert digests(small.queue.get(jobs[1].id)) == whole(small, LONG.model_copy(update={"seed": 5}))


def test_a_database_that_goes_away_for_a_while_costs_no_job_and_no_try(server: Crew, postgresql: Postgres) -> None:
    worker = server.worker()
    job = asked(server, LONG)
    server.at_step(job.id, 3)
    postgresql.stop()
    time.sleep(0.5)
    postgresql.start()
    done = server.ended(job.id)
    assert (done.state, done.tries) == ("succeeded", 0)
    assert digests(done) == whole(server, LONG)
    assert worker.poll() is None or done.fence > 1


def test_what_an_earlier_claim_made_is_handed_to_the_next_one_and_forgotten_in_the_end(database: Database) -> None:
    handed: list[Facts | None] = []
    settled: list[Facts] = []

    def make(name: str, before: Facts | None) -> Facts:
        handed.append(before)
        return {"state": "succeeded", "claim": len(handed)}

    def settle(name: str, made: Facts) -> None:
        if made["claim"] == 1:
            raise RuntimeError("killed")
        settled.append(made)

    engine = Engine(database, "w", make=make, settle=settle)
    with pytest.raises(RuntimeError):
        engine.run("job", 1)
    engine.run("job", 2)
    assert handed == [None, {"state": "succeeded", "claim": 1}]
    assert settled == [{"state": "succeeded", "claim": 2}]
    assert engine.names() == {"job"}
    engine.forget("job")
    assert engine.names() == set()
    engine.close()


def test_no_job_is_lost_or_doubled_by_a_few_kills() -> None:
    script = Path(__file__).parent / "chaos" / "kills.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "4", "--kinds", "3", "--seed", "24", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["blows"] == {"stop": 1, "kill": 4, "ask": 1} and facts["jobs"] >= 4 and facts["wrong"] == {}


def test_a_worker_whose_work_hangs_ends_and_the_death_counts(small: Crew) -> None:
    job = asked(small, SHORT)
    hangs = f"""
import threading
from pathlib import Path
from cinecanvas.jobs import worker
from cinecanvas.jobs.database import Database
from cinecanvas.jobs.queue import Queue
from cinecanvas.media.assets import Store
from cinecanvas.settings import settings
worker.SILENCE, worker._FOLD = 1.0, 0.0
queue, where = Queue(Database.at({small.url!r}), 2.0), settings({{"CINECANVAS_HOME": {str(small.home)!r}}})
worker.Worker(queue, Store.at(where.store), where=where, loader=lambda name: threading.Event().wait()).run()
"""
    done = subprocess.run([sys.executable, "-c", hangs], capture_output=True, text=True, timeout=60)
    assert done.returncode == 4, done.stderr
    assert small.queue.get(job.id).state == "running"
    small.worker()
    assert (small.ended(job.id).state, small.queue.get(job.id).deaths) == ("succeeded", 1)


def test_a_worker_without_a_database_says_so_in_a_line(tmp_path: Path) -> None:
    crew = Crew(tmp_path, f"postgresql://me:secret@/none?host={tmp_path}")
    done = subprocess.run(crew.command(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "cannot be used" in done.stderr and "secret" not in done.stderr


def test_a_claim_clears_up_after_itself_and_those_before_it_but_not_after_its_successor(tmp_path: Path) -> None:
    where = settings({"CINECANVAS_HOME": str(tmp_path)})
    with closing(Database.at(f"sqlite:///{tmp_path / 'jobs.sqlite'}")) as database:
        database.migrate()
        queue = Queue(database, lease=-1.0)  # over as soon as it begins
        queue.submit(SHORT, model="toy")
        claims = [claim for claim in (queue.claim("w") for _ in range(3)) if claim]
    files = [watched_file(where, claim.job) for claim in claims]
    for file in files:
        file.parent.mkdir(parents=True)
    assert len(set(files)) == 3
    assert sorted(left_folders(where, claims[1].job)) == [file.parent for file in files[:2]]
