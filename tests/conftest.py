"""A home of the tests' own; databases for those of the jobs: each gets a fresh one, of both kinds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from postgres import Postgres

    from cinecanvas.jobs.database import Database
    from cinecanvas.jobs.queue import Queue


@pytest.fixture(scope="session", autouse=True)
def home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between runs, such as prompts that were read, is not kept between those of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CINECANVAS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A server, where there is one to start; continuous integration has one."""
    from postgres import NoPostgres, server

    running = server()
    try:
        found = running.__enter__()
    except NoPostgres as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield found
    running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def blank_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the tables and nothing in them."""
    from cinecanvas.jobs.database import Database

    file = tmp_path_factory.mktemp("blank") / "jobs.sqlite"
    database = Database.at(f"sqlite:///{file}")
    database.migrate()
    database.close()
    return file


@pytest.fixture(scope="session")
def shared_postgresql(postgresql: Postgres) -> str:
    """The URL of a database that tests have one after the other: to empty one is faster than to make one."""
    return postgresql.url(postgresql.database())


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with its tables and nothing in them."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("blank_sqlite"), tmp_path / "jobs.sqlite")
        return f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    from cinecanvas.jobs.database import Database
    from cinecanvas.jobs.tables import metadata

    url = str(request.getfixturevalue("shared_postgresql"))
    database = Database.at(url)
    database.migrate()
    with database.write() as connection:
        connection.exec_driver_sql(f"TRUNCATE {', '.join(metadata.tables)}")
        # the engine's too: a worker that a test killed before it forgot a run has left it there
        if connection.exec_driver_sql("SELECT to_regclass('dbos.workflow_status')").scalar() is not None:
            connection.exec_driver_sql("TRUNCATE dbos.workflow_status CASCADE")
    database.close()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The same, open."""
    from cinecanvas.jobs.database import Database

    opened = Database.at(database_url)
    yield opened
    opened.close()


@pytest.fixture
def queue(database: Database) -> Queue:
    """The jobs of a database that has none."""
    from cinecanvas.jobs.queue import Queue

    return Queue(database)
