"""The database under the queue: its tables by way of their migrations, and what is said when it fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")

import sqlalchemy as sa
from queued import asked, at_once, claimed

from cinecanvas.errors import BadRequest
from cinecanvas.jobs import tables
from cinecanvas.jobs.database import Database, NoDatabase
from cinecanvas.jobs.queue import Queue


def test_a_database_that_is_away_is_told_in_a_line_without_its_password(tmp_path: Path) -> None:
    away = Database.at(f"postgresql://me:secret@/none?host={tmp_path}")
    with pytest.raises(NoDatabase, match="cannot be used") as told:
        Queue(away).claim("w")
    assert "secret" not in str(told.value)
    for url in ("mysql://me:secret@host/db", "sqlite://", "postgres"):
        with pytest.raises(BadRequest) as refused:
            Database.at(url)
        assert "secret" not in str(refused.value)


def test_a_full_disk_is_told_as_one_and_the_queue_is_whole_afterwards(tmp_path: Path, blank_sqlite: Path) -> None:
    shutil.copy(blank_sqlite, tmp_path / "jobs.sqlite")
    queue = Queue(Database.at(f"sqlite:///{tmp_path / 'jobs.sqlite'}"))
    pages = 0

    def full(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    sa.event.listen(queue.database.engine, "checkout", full)
    job = asked(queue)
    with queue.database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one() + 2
    accepted = [job.id]
    with pytest.raises(NoDatabase, match="full"):
        while True:
            accepted.append(asked(queue, echo={"long": "x" * 3000}).id)
    pages += 1000
    assert [one.id for one in queue.waiting()] == accepted
    assert claimed(queue).job.id == job.id


def test_the_migrations_come_to_the_tables_and_go_without_a_trace(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    database.migrate("base")
    assert set(sa.inspect(database.engine).get_table_names()) <= {"alembic_version"}
    at_once(4, lambda _: Database.at(database.url).migrate())
    database.migrate()
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    assert asked(Queue(database)).state == "queued"


def test_many_can_open_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'jobs.sqlite'}"

    def one(number: int) -> str:
        database = Database.at(url)
        database.migrate()
        return asked(Queue(database)).id

    assert len(set(at_once(8, one))) == 8
