"""One database, SQLite or PostgreSQL: how it is opened, read, written, and brought up to date."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.compiler import compiles

from cinecanvas.errors import BadRequest, CinecanvasError

_MIGRATIONS = Path(__file__).with_name("migrations")
_BUSY = 30.0  # s that a writer waits for the one before it
_FROZEN = 5.0  # s of silence within a transaction, and PostgreSQL ends it: a stopped process must not stop the others
# PostgreSQL's advisory locks are numbers
_LOCKS = {"claim": 0x63696E65, "migrate": 0x63696E66, "sweep": 0x63696E67, "audit": 0x63696E68}
_LINE = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}  # s
_OURS = (sa.exc.IntegrityError, sa.exc.DataError, sa.exc.ProgrammingError, sa.exc.NotSupportedError)


class now(sa.sql.functions.FunctionElement[float]):
    """The database's clock, seconds since 1970: workers on several machines agree on no other."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(*_: Any, **__: Any) -> str:
    return "cine_clock()"  # SQLite's own clock counts milliseconds, in which two jobs can be accepted


@compiles(now, "postgresql")
def _now_postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


@dataclass(frozen=True)
class Database:
    """Where the jobs are: `read` and `write` are transactions, and what a `write` did is on disk when it ends."""

    engine: sa.Engine
    url: str
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @staticmethod
    def at(url: str) -> Database:
        """sqlite:///FILE or postgresql://...; a file is made if it is missing, its tables by `migrate`."""
        kind, _, rest = url.partition("://")
        if kind == "sqlite" and rest.startswith("/") and len(rest) > 1:
            Path(rest[1:]).parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(url, connect_args={"timeout": _BUSY}, pool_size=20, max_overflow=40)
            event.listen(engine, "connect", _sqlite_connected)
            event.listen(engine, "begin", _sqlite_begins)
        elif rest and kind in ("postgresql", "postgres", "postgresql+psycopg"):
            engine = _postgresql(f"postgresql+psycopg://{rest}")
        else:  # what stands in a URL may be a password
            raise BadRequest(
                "This database URL cannot be opened", "It is sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
            )
        return Database(engine, url)

    @property
    def postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent look."""
        with _told(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, *, lock: str = "") -> Iterator[sa.Connection]:
        """One transaction that happens or does not; under a lock, one at a time on PostgreSQL as on SQLite always."""
        with _told(), self._alone_here(), self.engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                if lock:
                    alone(connection, lock)
                yield connection

    @contextmanager
    def _alone_here(self) -> Iterator[None]:
        """On SQLite the threads of a process take turns: whoever waits for a file sleeps longer and longer instead."""
        if self.postgresql:
            yield
            return
        if not self._turn.acquire(timeout=_BUSY):
            raise NoDatabase("The database cannot be used: a writer does not end", do="Try again")
        try:
            yield
        finally:
            self._turn.release()

    def clock(self) -> float:
        """The database's time, seconds since 1970."""
        with self.read() as connection:
            return float(connection.execute(sa.select(now())).scalar_one())

    def migrate(self, to: str = "head") -> None:
        """Bring the tables to a version; two that do it at once wait for each other. "base" takes all away."""
        from alembic.config import Config
        from alembic.runtime.environment import EnvironmentContext
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        script = ScriptDirectory.from_config(config)
        step = script._downgrade_revs if to == "base" else script._upgrade_revs
        with (
            self.write(lock="migrate") as connection,
            EnvironmentContext(config, script, fn=lambda revision, _: step(to, revision)) as environment,  # type: ignore[arg-type,return-value]
        ):
            environment.configure(connection=connection, transactional_ddl=True)
            environment.run_migrations()

    def close(self) -> None:
        self.engine.dispose()


def inserted(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that can say what is done if the row is there already."""
    from sqlalchemy.dialects import postgresql, sqlite

    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def alone(connection: sa.Connection, lock: str) -> None:
    """From here to its end one transaction at a time has this lock; on SQLite one writes at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS[lock])))


def following(asked: sa.Select[Any], table: sa.Table, last: Any | None, *, newest_first: bool) -> sa.Select[Any]:
    """Rows in the order in which they were `created`, those of one moment by `id`; only what follows `last`."""
    key = sa.tuple_(table.c.created, table.c.id)
    if last is not None:
        there = sa.tuple_(sa.literal(last.created, sa.Double()), sa.literal(last.id))
        asked = asked.where(key < there if newest_first else key > there)
    way = (table.c.created, table.c.id)
    return asked.order_by(*(column.desc() if newest_first else column for column in way))


def _postgresql(url: str) -> sa.Engine:
    try:
        engine = sa.create_engine(
            url,
            pool_pre_ping=True,
            pool_size=20,
            max_overflow=20,
            isolation_level="READ COMMITTED",
            connect_args=_LINE,
        )
    except ImportError:
        raise BadRequest(
            "A PostgreSQL database was asked", "It needs psycopg", "pip install 'cinecanvas[server,postgres]'"
        ) from None
    except sa.exc.ArgumentError:
        raise BadRequest("This database URL cannot be read", "It is postgresql://USER:PASSWORD@HOST/NAME") from None
    event.listen(engine, "connect", _postgresql_connected)
    return engine


def _postgresql_connected(connection: Any, _: Any) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = {int(_FROZEN * 1000)}")
    connection.commit()


def _sqlite_connected(connection: Any, _: Any) -> None:
    """Writers do not stop readers (WAL), and a commit is on disk when it returns (FULL)."""
    connection.isolation_level = None  # begin and commit are ours to say
    connection.create_function("cine_clock", 0, time.time)
    to_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def to_wal(connection: Any) -> None:
    """Of many who turn a new file into WAL at once, SQLite refuses all but one without waiting."""
    until = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _sqlite_begins(connection: sa.Connection) -> None:
    """A transaction that will write says so at its beginning: one that finds out later cannot wait its turn."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _told() -> Iterator[None]:
    """A database that does not answer is told in one line; its own words may hold addresses and passwords."""
    try:
        yield
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        if isinstance(error, _OURS):
            raise
        cause = getattr(error, "orig", None)
        full = getattr(cause, "sqlstate", "") == "53100" or "disk is full" in str(cause)
        why = "its disk is full" if full else "it does not answer, or its disk fails"
        raise NoDatabase(f"The database cannot be used: {why}", do="See that it is there, then try again") from error


class NoDatabase(CinecanvasError):
    """The database does not answer."""
