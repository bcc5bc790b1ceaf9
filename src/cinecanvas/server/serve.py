"""`cine serve`: the server and its workers in one command; whichever of them dies is replaced, and nothing is lost."""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict
from starlette.types import Scope

from cinecanvas.errors import BadRequest, CinecanvasError
from cinecanvas.jobs.courier import Courier
from cinecanvas.jobs.database import Database
from cinecanvas.jobs.files import Files
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.keys import LOCAL, Caller, Keys
from cinecanvas.jobs.queue import LEASE, MOST_DEATHS, Queue
from cinecanvas.jobs.signing import signing_secret
from cinecanvas.jobs.tariff import Tariff
from cinecanvas.logs import log_to_stderr
from cinecanvas.media.assets import Store
from cinecanvas.media.fetch import Web
from cinecanvas.media.warden import Warden
from cinecanvas.server import page
from cinecanvas.server.app import DIALECTS, build, dialect_of
from cinecanvas.server.desk import Desk, served_models
from cinecanvas.server.dialect import Fault
from cinecanvas.server.guard import Guard, Limits, Refusal, under
from cinecanvas.server.pace import Pace
from cinecanvas.server.wire import Punctual
from cinecanvas.settings import Settings

LOG = logging.getLogger("cinecanvas.serve")
_OPEN = ("/healthz", "/readyz", "/media", *page.OPEN, *(prefix for dialect in DIALECTS for prefix in dialect.open))
_PACE = Pace(rate=500.0, burst=1000, together=128)  # of one caller
_JSON = tuple((prefix, 24 << 20) for dialect in DIALECTS for prefix in dialect.prefixes if dialect.data_uris)
_LONG = tuple((prefix, 36 << 20) for prefix in ("/elevenlabs/v1/flows", "/eleven/v1/flows"))  # pictures of 25 MB inside
_UPLOADS = tuple((prefix, 256 << 20) for dialect in DIALECTS for prefix in dialect.open)  # bytes, to a signed URL
_TRIES = 1.0  # s before a worker that died is replaced, twice as long each time it dies young
_SWEEP = 60.0  # s


class Options(BaseModel):
    """How a server is to run; `hosts` are names it goes by, `origins` other sites whose pages may call it."""

    model_config = ConfigDict(frozen=True)

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    concurrency: int = 1  # jobs at a time of each worker
    models: tuple[str, ...] = ()
    database: str
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    public_url: str = ""
    proxies: str = ""
    logs: Literal["text", "json"] = "text"
    trusted: tuple[str, ...] = ()  # hosts that media may come from, and news may go to, wherever they lead
    tariff: Tariff = Tariff()
    lease: float = LEASE
    deaths: int = MOST_DEATHS

    @property
    def beyond(self) -> str:
        """Where it can be reached from beyond this machine, itself or through a proxy beside it; "": nowhere."""
        if not loopback(self.host):
            return self.host
        others = (name for name in (*self.hosts, *_host_of(self.public_url)) if not loopback(name))
        return next(others, "a proxy" if self.proxies else "")


def serve(options: Options, where: Settings) -> None:
    """Run until told to end; what was on its way goes on at the next start."""
    import uvicorn

    log_to_stderr(options.logs)
    database = Database.at(options.database)
    database.migrate()
    keys = Keys(database)
    beyond = options.beyond
    guarded = bool(beyond) or keys.exist()
    if beyond and not keys.exist():
        raise BadRequest(
            f"The server was to be reached at {beyond}, by anybody",
            "Without a key it serves this machine alone",
            "Make one with `cine keys make NAME`, or leave out --host, --name, --public-url and --proxies",
        )
    store = Store.at(where.store)
    running: list[uvicorn.Server] = []
    with Warden(store, children=2) as warden:
        warden.start()
        desk = Desk(
            queue=Queue(database, options.lease, options.deaths),
            store=store,
            files=Files(database),
            warden=warden,
            where=where,
            secret=signing_secret(database),
            models=served_models(options.models),
            public=options.public_url.rstrip("/"),
            web=Web(trusted=frozenset(options.trusted)),
            tariff=options.tariff,
            leaving=lambda: any(server.should_exit for server in running),
        )
        config = uvicorn.Config(
            guard(desk, keys, options, guarded=guarded),
            http=Punctual,
            ws="none",
            access_log=False,
            server_header=False,
            log_config=None,
            limit_concurrency=4000,
            timeout_graceful_shutdown=5,
            forwarded_allow_ips=options.proxies or None,
            proxy_headers=bool(options.proxies),
        )
        with listening(options) as line, crew(desk, options, port := line.getsockname()[1]):
            LOG.info("listening at http://%s:%d", options.host, port)
            running.append(uvicorn.Server(config))
            running[0].run(sockets=[line])
    database.close()


def guard(desk: Desk, keys: Keys, options: Options, *, guarded: bool) -> Guard:
    """The application with its guard in front."""

    async def authenticate(scope: Scope) -> Refusal | object:
        path = scope["path"]
        if under(path, _OPEN):
            return Caller(account="-", name="", scopes=())
        if not guarded and not await run_in_threadpool(keys.exist):
            return LOCAL
        secret = _secret(scope)
        if secret and (known := keys.remembered(secret)) is not None:  # without a thread
            return known
        try:
            caller = await run_in_threadpool(keys.caller, secret) if secret else None
        except CinecanvasError:
            return Refusal(
                503, "unavailable", "The server cannot look up keys now. Try again.", (("retry-after", "5"),)
            )
        why = "This key is not known here." if secret else "A key is needed: Authorization: Bearer KEY."
        return caller or Refusal(401, "invalid_api_key", why, (("www-authenticate", "Bearer"),))

    def refuse(scope: Scope, status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
        return status, dialect_of(scope.get("path", "/")).envelope(Fault(status, code, message))

    def named(caller: Any) -> str:
        return caller.name if isinstance(caller, Caller) else ""

    return Guard(
        build(desk),
        authenticate=authenticate,
        refuse=refuse,
        named=named,
        limits=Limits(json=(("/", 1 << 20), *_JSON, *_LONG, *_UPLOADS), files=tuple(prefix for prefix, _ in _UPLOADS)),
        hosts=(
            *options.hosts,
            *_host_of(options.public_url),
            *([] if loopback(options.host) else _own_names(options.host)),
        ),
        origins=options.origins,
        linkable=("/media", *page.OPEN),
        pace=lambda caller: _PACE,
    )


@contextmanager
def listening(options: Options) -> Iterator[socket.socket]:
    """The place where the server is asked, taken before anything is begun; port 0 is one that is free."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        line = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        why = "it is taken" if error.errno == errno.EADDRINUSE else "this machine does not let it"
        raise BadRequest(
            f"The server was to listen at {options.host}:{options.port}, but {why}",
            do="Choose another --port or --host",
        ) from None
    with line:
        yield line


@contextmanager
def crew(desk: Desk, options: Options, port: int) -> Iterator[None]:
    """So many worker processes for as long as this lasts; and what time brings is seen to."""
    over = threading.Event()
    threads = [threading.Thread(target=_kept, args=(desk, options, over), daemon=True) for _ in range(options.workers)]
    threads.append(threading.Thread(target=_swept, args=(desk, over), daemon=True))
    base = desk.public or f"http://{options.host}:{port}"
    courier = Courier(desk.queue.database, lambda job, state: told(desk, job, state, base=base), desk.web)
    threads.append(threading.Thread(target=courier.run, args=(over,), daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30.0)


def told(desk: Desk, job: Job, state: str, *, base: str) -> bytes:
    """What is told of a job that came into a state, in the words of the dialect that it was asked in."""
    dialect = next(one for one in DIALECTS if one.name == job.dialect)
    assert dialect.event is not None, f"{job.dialect} tells nobody"
    then = job.model_copy(update={"state": state})
    body = dialect.event(then, lambda one, variant: desk.url(one, base, variant))
    return json.dumps(body, separators=(",", ":")).encode()


def _kept(desk: Desk, options: Options, over: threading.Event) -> None:
    """One worker process, again and again."""
    wait = _TRIES
    while not over.is_set():
        name = f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
        begun = time.monotonic()
        process = subprocess.Popen(_command(desk, options, name), stdin=subprocess.PIPE)
        while process.poll() is None and not over.wait(0.1):
            pass
        if over.is_set():
            assert process.stdin is not None
            process.stdin.close()  # it leaves: what it has is kept, and queued again
            with suppress(subprocess.TimeoutExpired):
                process.wait(20.0)
        process.kill()
        code = process.wait()
        with suppress(CinecanvasError):
            desk.queue.release(name, lost=code not in (0, 3) and not over.is_set())
        if over.is_set():
            return
        LOG.warning("worker %s ended with %d and is replaced", name, code)
        wait = _TRIES if time.monotonic() - begun > 60.0 else min(30.0, 2 * wait)
        over.wait(wait)


def _swept(desk: Desk, over: threading.Event) -> None:
    while not over.wait(_SWEEP):
        with suppress(CinecanvasError):
            desk.files.sweep()


def _command(desk: Desk, options: Options, name: str) -> Sequence[str]:
    return (
        *(sys.executable, "-m", "cinecanvas.jobs.worker", "--name", name, "--attached"),
        *("--database", options.database, "--store", str(desk.where.store), "--models", ",".join(options.models)),
        *(
            "--concurrency",
            str(options.concurrency),
            "--logs",
            options.logs,
            "--lease",
            str(options.lease),
            "--deaths",
            str(options.deaths),
        ),
        *(word for host in options.trusted for word in ("--trust", host)),
    )


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _secret(scope: Scope) -> str:
    """The key in a request's head: Bearer, or ElevenLabs' own header."""
    heads = dict(scope["headers"])
    if (given := heads.get(b"xi-api-key")) is not None:
        return str(given.decode("latin-1"))
    kind, _, given = heads.get(b"authorization", b"").partition(b" ")
    return given.strip().decode("latin-1") if kind.lower() == b"bearer" else ""


def _host_of(url: str) -> tuple[str, ...]:
    from urllib.parse import urlsplit

    name = urlsplit(url).hostname if url else None
    return (name,) if name else ()


def _own_names(host: str) -> tuple[str, ...]:
    """What a server that listens beyond this machine may be called, where nothing else was said."""
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname()
        found = {name, socket.getfqdn()}
        with suppress(OSError):
            found |= {str(address[4][0]) for address in socket.getaddrinfo(name, None)}
        return tuple(found)
    return (host,)
