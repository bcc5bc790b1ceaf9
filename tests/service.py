"""`cine serve` as its users run it, for tests: one server process with its workers, at a free port of this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cinecanvas.jobs.database import Database
from cinecanvas.jobs.files import Files
from cinecanvas.jobs.queue import Queue
from cinecanvas.jobs.signing import signing_secret
from cinecanvas.media.assets import Store
from cinecanvas.media.warden import Warden
from cinecanvas.server.desk import Desk, served_models
from cinecanvas.settings import Settings, settings

DOCS = Path(__file__).parents[1] / "docs"
_PATIENCE = 60.0  # s that a busy machine may take to start


class Service(NamedTuple):
    """A server that runs: where it is, its desk as this process may use it, where it lives, and its log."""

    url: str
    desk: Desk
    where: Settings
    log: Path


@contextmanager
def service(home: Path, *, workers: int = 1, options: Sequence[str] = (), database: str = "") -> Iterator[Service]:
    """A server for as long as this lasts; no key exists, so it lets this machine's own user in."""
    environment = {**os.environ, "CINECANVAS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment["CINECANVAS_DATABASE"] = database
    where = settings(environment)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home.mkdir(parents=True, exist_ok=True)
    log = home / "serve.log"
    command = [
        sys.executable,
        "-m",
        "cinecanvas.cli",
        "serve",
        "--port",
        str(port),
        "--workers",
        str(workers),
        *options,
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url, process, log)
        rows, store = Database.at(where.database), Store.at(where.store)
        with Warden(store) as warden:
            desk = Desk(Queue(rows), store, Files(rows), warden, where, signing_secret(rows), served_models())
            yield Service(url, desk, where, log)
        rows.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5.0).close()
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.05)


def ran(page: str, folder: Path, **environment: str) -> str:
    """What the one program on a page of the docs prints; nothing but its environment is changed."""
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout
