"""The durable engine: which steps of a claimed job are done is written down, so that none is done twice.

DBOS keeps the steps. It does not find out that a process died while others live, so who works on what is the queue's to
say: a worker claims a job there, and takes up here what an earlier one left. Nothing but this module knows of DBOS, and
the kill matrix in tests/chaos is what another engine would have to pass.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cinecanvas.jobs.database import Database

Facts = dict[str, Any]  # what a step returns: JSON and nothing else
_STEPS = "1"  # raised when the steps below change: DBOS leaves what another version began to that version
_POLL = 0.2  # s between two looks at the own queue, through which only what was taken up comes


class Engine:
    """The steps of jobs, one after the other; an engine belongs to one worker, whose id nobody else ever has."""

    def __init__(
        self,
        database: Database,
        worker: str,
        *,
        make: Callable[[str], Facts],
        settle: Callable[[str, Facts], None],
        concurrency: int = 1,
    ) -> None:
        """make: the long part of a job, by its name; settle: what follows from it. Either may be begun again."""
        from dbos import DBOS, SetWorkflowID

        logging.getLogger("dbos").setLevel(logging.ERROR)
        self._dbos: Any = DBOS
        self._named: Any = SetWorkflowID
        self._own = f"worker-{worker}"
        DBOS(
            config={
                "name": "cinecanvas",
                "system_database_url": _beside(database),
                "executor_id": worker,
                "application_version": _STEPS,
                "serializer": cast(Any, _Plain()),
                "log_level": "ERROR",
                "notification_listener_polling_interval_sec": 5.0,
            }
        )

        @DBOS.step(name="make")
        def making(name: str) -> Facts:
            return make(name)

        @DBOS.step(name="settle")
        def settling(name: str, made: Facts) -> None:
            settle(name, made)

        @DBOS.workflow(name="job")
        def job(name: str) -> None:
            settling(name, making(name))

        self._job = job
        DBOS.listen_queues([self._own])
        DBOS.launch()
        DBOS.register_queue(self._own, worker_concurrency=concurrency, polling_interval_sec=_POLL)

    def run(self, name: str) -> None:
        """Do the steps of a job that are not done yet, and return when all are."""
        if self._dbos.get_workflow_status(name) is None:
            with self._named(name):
                handle = self._dbos.start_workflow(self._job, name)
        else:
            handle = self._dbos.resume_workflow(name, queue_name=self._own)
        handle.get_result(polling_interval_sec=_POLL)

    def forget(self, name: str) -> None:
        """A job that has ended needs no steps any more."""
        self._dbos.delete_workflow(name)

    def close(self) -> None:
        self._dbos.delete_queue(self._own)
        self._dbos.destroy()


def _beside(database: Database) -> str:
    """The engine's own tables: a schema of the same PostgreSQL database, or a second SQLite file beside the first."""
    if database.postgresql:
        return str(database.engine.url.render_as_string(hide_password=False))
    import sqlite3

    first = Path(str(database.engine.url.database))
    file = first.with_name(f"{first.stem}.engine{first.suffix}")
    # in WAL mode before the engine meets it: a step costs a third of what it costs otherwise
    connection = sqlite3.connect(file, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return f"sqlite:///{file}"


class _Plain:
    """JSON instead of pickles: who can write into the database cannot run code in a worker."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, separators=(",", ":"))

    def deserialize(self, text: str) -> Any:
        return json.loads(text)

    def name(self) -> str:
        return "json"
