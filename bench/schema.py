"""Does our API keep what its OpenAPI document says? Generated requests, good and bad, tell; in one process, over ASGI.

python bench/schema.py [--cases 10000] [--each 40] [--seed 1] [--no-edges] [--json]

schemathesis draws every case from the document: its examples, the edges of each schema, random values (valid or
wrong), and walks along links from one operation to the next. The guarded application answers, over a real desk with a
key; no worker runs, so that jobs wait, beside one that runs, one that failed and one that made a picture. Every check
that schemathesis has is made on every answer.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import schemathesis
from PIL import Image
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from cinecanvas.jobs.database import Database
from cinecanvas.jobs.files import Files
from cinecanvas.jobs.job import Outcome, Trouble
from cinecanvas.jobs.keys import Keys
from cinecanvas.jobs.order import order
from cinecanvas.jobs.queue import Queue
from cinecanvas.jobs.signing import signing_secret
from cinecanvas.media.assets import Store
from cinecanvas.media.warden import Warden
from cinecanvas.server.desk import Desk, served_models
from cinecanvas.server.guard import Guard
from cinecanvas.server.pace import Pace
from cinecanvas.server.serve import Options, guard
from cinecanvas.settings import settings

DOCUMENT = "/api/v1/openapi.json"
PACE = Pace(rate=1e9, burst=10**9, together=1000)  # what is asked here is not to be refused for its speed
REFUSED = ["400", "401", "403", "404", "405", "408", "409", "413", "414", "422", "429", "431"]
_WELL = ["2xx", "3xx", "400", "401", "403", "404", "409", "429"]
LENIENT = {"positive_data_acceptance": {"expected-statuses": _WELL}}  # no schema says what a model can make
ROUND = 40  # examples of each operation between two looks at the count


@dataclass(frozen=True)
class Found:
    """One way in which an answer was not what the document says."""

    operation: str
    check: str
    message: str
    example: str  # a command that shows it


@dataclass(frozen=True)
class Result:
    """Cases that were sent, answers by status, how many were of the server's own failing, and what broke the word."""

    cases: int
    seconds: float
    statuses: dict[int, int]
    failures: int  # answers of 500 and more
    violations: tuple[Found, ...]


@dataclass(frozen=True)
class World:
    """A guarded application, a key for it, and ids that mean something there."""

    app: Guard
    key: str
    jobs: tuple[str, ...]
    files: tuple[str, ...]


@contextmanager
def world(home: Path) -> Iterator[World]:
    """A server without a network and without workers."""
    where = settings({"CINECANVAS_HOME": str(home)})
    database, store = Database.at(where.database), Store.at(where.store)
    database.migrate()
    keys = Keys(database)
    with Warden(store, children=1) as warden:
        secret = signing_secret(database)
        desk = Desk(Queue(database), store, Files(database), warden, where, secret, served_models())
        key = keys.make("schema", scopes=("read", "create"))
        jobs, files = _known(desk, keys.of(key).id)
        app = guard(desk, keys, Options(database=where.database), guarded=True)
        app.pace, app.stranger = lambda caller: PACE, PACE
        yield World(app, key, jobs, files)
    database.close()


def _known(desk: Desk, account: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A job in each state that needs a worker, one that waits, and a file."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    asset = desk.looked_at(picture.getvalue())
    file = desk.files.add(account=account, dialect="native", name="a.png", purpose="upload", asset=asset, days=30.0)

    def asked() -> str:
        found = order("text_to_image", prompt="a red ball", seed=1, model="toy")
        return desk.queue.submit(found, account=account, kind="image", model="toy").id

    done, failed, running, waits = (asked() for _ in range(4))
    claims = {claim.job.id: claim for claim in map(desk.queue.claim, "abc") if claim}
    desk.queue.finish(claims[done], "succeeded", outcome=Outcome(assets=(asset,), seeds=(1,), phases={"denoise": 1.0}))
    desk.queue.finish(claims[failed], "failed", error=Trouble(code="internal", message="It failed."))
    return (done, failed, running, waits), (file.id,)


def document(here: World, *, cases: int, seed: int, edges: bool) -> Any:
    """Our OpenAPI document as schemathesis reads it, so many examples for each operation."""
    told = {
        "seed": seed,
        "base-url": "http://localhost",
        "auth": {"openapi": {"key": {"bearer": here.key}}},
        "continue-on-failure": True,
        "max-stream-events": 1,
        "generation": {"max-examples": cases, "deterministic": True, "no-shrink": True, "database": "none"},
        "dictionaries": {"jobs": {"values": list(here.jobs)}, "files": {"values": list(here.files)}},
        "parameters": {name: {"dictionary": f"{name}s", "probability": 0.5} for name in ("job", "file")},
        "checks": {"negative_data_rejection": {"expected-statuses": REFUSED}},
        "operations": [
            {"include-operation-id": "upload_file", "checks": LENIENT},
            {
                "include-operation-id": ["create_job", "plan_order"],
                "checks": LENIENT,
                "phases": {"coverage": {"enabled": edges}},
            },
        ],
        "phases": {"stateful": {"generation": {"max-examples": max(1, cases // 4)}}},
    }
    config = SchemathesisConfig.from_dict(told)
    heads = {"authorization": f"Bearer {here.key}", "host": "localhost"}
    return schemathesis.openapi.from_asgi(DOCUMENT, here.app, config=config, headers=heads)


def checked(here: World, *, cases: int, seed: int, edges: bool = True) -> Result:
    """Everything that the document allows, and more, asked once through."""
    began, statuses = time.monotonic(), Counter[int]()
    found: dict[tuple[str, str, str], Found] = {}
    for event in from_schema(document(here, cases=cases, seed=seed, edges=edges)).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            raise RuntimeError(f"schemathesis itself failed: {event}") from getattr(event, "value", None)
        if not isinstance(event, events.ScenarioFinished):
            continue
        recorder = event.recorder
        statuses.update(one.response.status_code for one in recorder.interactions.values() if one.response)
        for case, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    failure = check.failure_info.failure
                    name = recorder.cases[case].value.operation.label
                    said = f"{failure.title}: {failure.message}"
                    fault = Found(name, check.name, said[:2000], check.failure_info.code_sample[:2000])
                    found.setdefault((name, check.name, failure.title), fault)
    bad = sum(count for status, count in statuses.items() if status >= 500)
    seconds = time.monotonic() - began
    return Result(sum(statuses.values()), seconds, dict(sorted(statuses.items())), bad, tuple(found.values()))


def together(one: Result, other: Result) -> Result:
    """Two runs as one."""
    statuses = Counter(one.statuses) + Counter(other.statuses)
    violations = tuple(dict.fromkeys((*one.violations, *other.violations)))
    return replace(
        one,
        cases=one.cases + other.cases,
        seconds=one.seconds + other.seconds,
        statuses=dict(sorted(statuses.items())),
        failures=one.failures + other.failures,
        violations=violations,
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--cases", type=int, default=10_000, help="at least so many requests")
    asked.add_argument("--each", type=int, default=ROUND, help="examples of each operation in a round")
    asked.add_argument("--seed", type=int, default=1)
    edges = "the edges of an order's schema too: 4000 cases, always the same"
    asked.add_argument("--edges", action=argparse.BooleanOptionalAction, default=True, help=edges)
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    logging.getLogger("cinecanvas").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as home, world(Path(home)) as here:
        result, seed = checked(here, cases=given.each, seed=given.seed, edges=given.edges), given.seed
        while result.cases < given.cases:
            seed += 1
            result = together(result, checked(here, cases=given.each, seed=seed, edges=False))
    if given.json:
        print(json.dumps(asdict(result), indent=1))
        return
    print(f"{result.cases} cases in {result.seconds:.0f} s; answers {result.statuses}")
    print(f"{result.failures} answers of 500 and more, {len(result.violations)} kinds of violation")
    for fault in result.violations:
        print(f"\n{fault.operation}, {fault.check}\n{fault.message}\n{fault.example}")


if __name__ == "__main__":
    main()
