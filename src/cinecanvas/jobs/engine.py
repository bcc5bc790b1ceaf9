"""The durable engine: which steps of a claimed job are done is written down, so that none is done twice.

DBOS keeps the steps. It does not find out that a process died while others live, so who works on what is the queue's to
say: a worker claims a job there, and finds here what an earlier one finished. Nothing but this module knows of DBOS;
the kill matrix in tests/chaos is what another engine would have to pass.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from cinecanvas.jobs.database import Database, to_wal

Facts = dict[str, Any]  # what a step returns: JSON and nothing else
_STEPS = "1"  # raised when the steps below change


class Engine:
    """The steps of jobs, one after the other; an engine belongs to one worker, whose id nobody else ever has.

    Every claim of a job is a run of its own, so that a worker which was only thought dead writes into no run but its
    own. What an earlier run made to its end is handed to `make`, whose judgement it is whether it still holds.
    """

    def __init__(
        self,
        database: Database,
        worker: str,
        *,
        make: Callable[[str, Facts | None], Facts],
        settle: Callable[[str, Facts], None],
    ) -> None:
        """make: the long part of a job, by its name; settle: what follows from it. Either may be begun again."""
        from dbos import DBOS, SetWorkflowID

        logging.getLogger("dbos").setLevel(logging.ERROR)
        self._dbos: Any = DBOS
        self._named: Any = SetWorkflowID
        DBOS(
            config={
                "name": "cinecanvas",
                "system_database_url": _beside(database),
                "executor_id": worker,
                "application_version": _STEPS,
                "serializer": cast(Any, _Plain()),
                "log_level": "ERROR",
                "notification_listener_polling_interval_sec": 1.0,
            }
        )

        @DBOS.step(name="make")
        def making(name: str, before: Facts | None) -> Facts:
            return make(name, before)

        @DBOS.step(name="settle")
        def settling(name: str, made: Facts) -> None:
            settle(name, made)

        @DBOS.workflow(name="job")
        def job(name: str, before: Facts | None) -> None:
            settling(name, making(name, before))

        self._job = job
        DBOS.listen_queues([])
        DBOS.launch()

    def run(self, name: str, claim: int) -> None:
        """Do the steps of a claimed job, and return when they are done; a claim has one run."""
        before = self._made(name)
        with self._named(f"{name}.{claim}"):
            handle = self._dbos.start_workflow(self._job, name, before)
        handle.get_result()

    def names(self) -> set[str]:
        """The jobs of which there are runs."""
        return {one.workflow_id.rpartition(".")[0] for one in self._runs("")}

    def forget(self, name: str) -> None:
        """A job that has ended needs no steps any more."""
        if runs := [one.workflow_id for one in self._runs(f"{name}.")]:
            self._dbos.delete_workflows(runs)

    def close(self) -> None:
        self._dbos.destroy()

    def _made(self, name: str) -> Facts | None:
        """What the last earlier run that came so far has made."""
        for one in self._runs(f"{name}."):
            for step in self._dbos.list_workflow_steps(one.workflow_id):
                if step["function_name"] == "make" and step["output"] is not None:
                    return cast(Facts, step["output"])
        return None

    def _runs(self, prefix: str) -> list[Any]:
        """The runs whose names begin so, the latest first."""
        found = self._dbos.list_workflows(
            workflow_id_prefix=prefix or None, load_input=False, load_output=False, sort_desc=True
        )
        return cast(list[Any], found)


def _beside(database: Database) -> str:
    """The engine's own tables: a schema of the same PostgreSQL database, or a second SQLite file beside the first."""
    if database.postgresql:
        return str(database.engine.url.render_as_string(hide_password=False))
    first = Path(str(database.engine.url.database))
    file = first.with_name(f"{first.stem}.engine{first.suffix}")
    # in WAL mode before the engine meets it: a step costs a third of what it costs otherwise
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        to_wal(connection)
    return f"sqlite:///{file}"


class _Plain:
    """JSON instead of pickles: who can write into the database cannot run code in a worker."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, separators=(",", ":"), default=repr)  # an error is kept as its words

    def deserialize(self, text: str) -> Any:
        return json.loads(text)

    def name(self) -> str:
        return "json"
