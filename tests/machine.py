"""`cine serve` and all that it starts, as something that can be killed: in part, or as if the plug were pulled."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from crew import Crew

_PATIENCE = 120.0  # s


class Machine:
    """One server after the other at one port, each with its workers and its wardens' children."""

    def __init__(self, crew: Crew, *, workers: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._crew, self._workers, self._log = crew, workers, crew.home / f"serve-{self.port}.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.ends: Counter[int] = Counter()  # how servers ended that nobody had killed
        self.known: set[tuple[int, str]] = set()  # every process that was seen, and when it was begun

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.kill(*self.everything())
        if kind is not None:
            print(self.log(), file=sys.stderr)

    def start(self) -> None:
        """A server, if there is none."""
        if self.process is None or self.process.poll() is not None:
            if self.process is not None and self.process.returncode != -signal.SIGKILL:
                self.ends[self.process.returncode] += 1
            env = {**os.environ, "CINECANVAS_HOME": str(self._crew.home), "CINECANVAS_THREADS": "1"}
            self._crew.home.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as stream:
                self.process = subprocess.Popen(
                    self._command(), stdout=stream, stderr=stream, env={**env, "OMP_NUM_THREADS": "1"}
                )

    def serving(self) -> None:
        """Until it answers."""
        until = time.monotonic() + _PATIENCE
        while True:
            self.start()
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5.0).is_success:
                    return
            except httpx.TransportError:
                assert time.monotonic() < until, self.log()
                time.sleep(0.05)

    def kill(self, *pids: int) -> None:
        """Without a word, and waited for if it is the server."""
        assert self.process is not None
        self.seen()
        for pid in pids:
            _signalled(pid, signal.SIGKILL)
        if self.process.pid in pids:
            self.process.wait(60)

    def ask(self) -> int:
        """To end, as systemd would; its code."""
        assert self.process is not None
        self.seen()
        self.process.terminate()
        return self.process.wait(60)

    def server(self) -> int:
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[int]:
        return [pid for pid in children(self.server()) if b"cinecanvas.jobs.worker" in _file(pid, "cmdline")]

    def everything(self) -> list[int]:
        """The server, what it started, and what that started."""
        return family(self.server())

    def seen(self) -> None:
        self.known |= {(pid, begun) for pid in self.everything() if (begun := _begun(pid))}

    def left(self) -> list[int]:
        """Processes of earlier servers that still live."""
        now = set(self.everything()) if self.process and self.process.poll() is None else set()
        return [pid for pid, begun in self.known if _begun(pid) == begun and pid not in now]

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def _command(self) -> list[str]:
        told = {"--port": self.port, "--workers": self._workers, "--database": self._crew.url}
        told |= {"--lease": self._crew.lease, "--deaths": self._crew.deaths}
        words = [str(word) for pair in told.items() for word in pair]
        return [sys.executable, "-m", "cinecanvas.cli", "serve", *words]


def children(pid: int) -> list[int]:
    """Of all threads of a process."""
    found = b" ".join(_file(pid, f"task/{task}/children") for task in _tasks(pid))
    return [int(word) for word in found.split()]


def family(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in family(child))]


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []


def _begun(pid: int) -> str:
    """When a process began, in ticks; empty if it has ended."""
    facts = _file(pid, "stat").rpartition(b")")[2].split()
    return facts[19].decode() if facts and facts[0] != b"Z" else ""


def _file(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _signalled(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
