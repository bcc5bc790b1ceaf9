"""A whole service on loopback: a server in this process, and worker processes beside it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn

from cinecanvas.jobs.database import Database
from cinecanvas.jobs.files import Files
from cinecanvas.jobs.queue import Queue
from cinecanvas.media.assets import Store
from cinecanvas.media.warden import Warden
from cinecanvas.server.app import build
from cinecanvas.server.desk import Desk, served_models, signing_secret
from cinecanvas.settings import settings


class Service(NamedTuple):
    """Where it is, and its desk."""

    url: str
    desk: Desk


@contextmanager
def service(home: Path, *, workers: int = 1) -> Iterator[Service]:
    """A server with its own home, until it is let go of."""
    environment = {**os.environ, "CINECANVAS_HOME": str(home), "OMP_NUM_THREADS": "1", "CINECANVAS_DATABASE": ""}
    where = settings(environment)
    database = Database.at(where.database)
    database.migrate()
    store = Store.at(where.store)
    desk = Desk(
        Queue(database), store, Files(database), Warden(store), where, signing_secret(database), served_models()
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(desk), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    command = [sys.executable, "-m", "cinecanvas.jobs.worker"]
    log = (home / "workers.log").open("wb")
    hands = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(workers)]
    try:
        while not server.started:
            time.sleep(0.01)
        yield Service(f"http://127.0.0.1:{listening.getsockname()[1]}", desk)
    finally:
        for hand in hands:
            hand.terminate()
        for hand in hands:
            hand.wait(timeout=30)
        server.should_exit = True
        thread.join(timeout=10)
        log.close()
