"""Any life of any jobs, drawn at random: what never happens to one, whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from queued import MADE, PASSING, asked, change, rows, silent

from cinecanvas.jobs import tables
from cinecanvas.jobs.database import Database
from cinecanvas.jobs.queue import MOST_DEATHS, MOST_TRIES, Claim, NotNow, Queue


class Life(RuleBasedStateMachine):
    """Whatever a few jobs, workers and askers do one after the other, in any order."""

    blank: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.blank, self.folder / "jobs.sqlite")
        self.queue = Queue(Database.at(f"sqlite:///{self.folder / 'jobs.sqlite'}"))
        self.claims: list[Claim] = []
        self.ends: dict[str, str] = {}
        self.fences: dict[str, int] = {}
        self.ids: list[str] = []

    def teardown(self) -> None:
        self.queue.database.close()
        shutil.rmtree(self.folder)

    @precondition(lambda self: len(self.ids) < 5)
    @rule(priority=st.integers(-1, 1))
    def asks(self, priority: int) -> None:
        self.ids.append(asked(self.queue, priority=priority).id)

    @rule()
    def claims_one(self) -> None:
        waits = [job for job in self.queue.waiting() if not job.paused and job.deadline is None]
        held = [job.id for job in self.queue.listed(states=["running"], limit=100)]
        claim = self.queue.claim("w")
        if claim is not None:
            assert claim.job.id in held or claim.job.id == waits[0].id
            assert claim.fence == self.fences.get(claim.job.id, 0) + 1
            self.fences[claim.job.id] = claim.fence
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), what=st.sampled_from(["tell", "beat", "succeeded", "failed", "cancelled", "again"]))
    def says(self, data: st.DataObject, what: str) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        before = self.queue.get(claim.job.id)
        if what == "tell":
            word = self.queue.tell(claim, "step", {}, step=1, steps=2)
        elif what == "beat":
            word = self.queue.beat("w", claims=[claim])[claim.job.id]
        elif what == "again":
            word = self.queue.again(claim, PASSING, after=0)
        else:
            word = self.queue.finish(claim, what, outcome=MADE if what == "succeeded" else None)  # type: ignore[arg-type]
        if claim.fence != self.fences[claim.job.id]:
            assert word == "lost" and self.queue.get(claim.job.id) == before

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), what=st.sampled_from(["cancel", "pause", "unpause", "move", "silence", "late", "release"]))
    def happens(self, data: st.DataObject, what: str) -> None:
        job, other = (data.draw(st.sampled_from(self.ids)) for _ in range(2))
        try:
            {
                "cancel": lambda: self.queue.cancel(job),
                "pause": lambda: self.queue.pause(job),
                "unpause": lambda: self.queue.pause(job, paused=False),
                "move": lambda: self.queue.move(job, other),
                "silence": lambda: silent(self.queue, job),
                "late": lambda: change(self.queue, tables.jobs, tables.jobs.c.id == job, deadline=1.0),
                "release": lambda: self.queue.release("w", lost=True),
            }[what]()
        except NotNow:
            assert what in ("pause", "unpause", "move")

    @rule()
    def sweeps(self) -> None:
        self.queue.sweep(lambda digest: None)

    @invariant()
    def ends_stay_ends(self) -> None:
        for job in self.queue.listed(limit=100):
            assert job.id not in self.ends or job.state == self.ends[job.id]
            assert (job.outcome is not None) == (job.state == "succeeded")
            assert (job.worker != "") == (job.state == "running")
            assert 0 <= job.progress <= 1 and (job.progress == 1) == (job.state == "succeeded")
            assert job.deaths <= MOST_DEATHS and job.tries < MOST_TRIES
            assert job.fence == self.fences.get(job.id, 0)
            if job.ended:
                self.ends[job.id] = job.state
        used = rows(self.queue, tables.usage)
        assert sum(row.jobs for row in used) == sum(end == "succeeded" for end in self.ends.values())
        assert len(self.queue.listed(limit=100)) == len(self.ids)


def test_any_life_is_a_true_one(blank_sqlite: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    Life.blank = blank_sqlite
    run_state_machine_as_test(
        Life, settings=settings(max_examples=25, stateful_step_count=25, deadline=None, database=None)
    )
