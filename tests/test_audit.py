"""What stands in the audit was done, and whoever changes it afterwards is found out."""

from __future__ import annotations

import json
import threading

import pytest

pytest.importorskip("sqlalchemy")

import sqlalchemy as sa

from cinecanvas.jobs.audit import FIRST, Audit, note
from cinecanvas.jobs.database import Database
from cinecanvas.jobs.hooks import Hooks
from cinecanvas.jobs.keys import Keys
from cinecanvas.jobs.order import order
from cinecanvas.jobs.queue import Queue
from cinecanvas.jobs.tables import audit


def noted(database: Database, count: int = 5) -> Audit:
    for number in range(count):
        with database.write() as connection:
            note(connection, "alice", "job.accepted", f"job {number}", {"credits": number, "price": 0.1, "ü": None})
    return Audit(database)


def test_an_empty_audit_is_whole(database: Database) -> None:
    assert Audit(database).verify() is None and Audit(database).head() == FIRST and Audit(database).has(FIRST)


def test_what_was_written_is_whole_and_in_order(database: Database) -> None:
    record = noted(database)
    assert record.verify() is None and record.head() == record.listed()[-1].hash
    assert [entry.object for entry in record.listed()] == [f"job {number}" for number in range(5)]


def test_an_audit_of_several_pages_is_whole(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinecanvas.jobs.audit._PAGE", 2)
    assert noted(database).verify() is None


@pytest.mark.parametrize(
    "change",
    [
        {"at": 0.0},
        {"account": "bob"},
        {"action": "job.deleted"},
        {"object": "job 9"},
        {"data": {"credits": 0}},
        {"hash": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_row_is_found(database: Database, change: dict[str, object]) -> None:
    record = noted(database)
    with database.write() as connection:
        connection.execute(sa.update(audit).where(audit.c.seq == 3).values(change))
    assert record.verify() == 3


@pytest.mark.parametrize("seq", [1, 3])
def test_a_missing_row_is_found(database: Database, seq: int) -> None:
    record = noted(database)
    with database.write() as connection:
        connection.execute(sa.delete(audit).where(audit.c.seq == seq))
    assert record.verify() == seq


def test_a_hash_noted_elsewhere_shows_that_the_end_was_cut_off(database: Database) -> None:
    record = noted(database)
    head = record.head()
    with database.write() as connection:
        connection.execute(sa.delete(audit).where(audit.c.seq == 5))
    noted(database, 3)
    assert record.verify() is None and not record.has(head)


def test_many_at_once_make_one_chain(database: Database) -> None:
    threads = [threading.Thread(target=noted, args=(database, 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Audit(database).verify() is None and len(Audit(database).listed()) == 20


def test_what_did_not_happen_is_not_written_down(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as connection:
        note(connection, "alice", "key.made", "a")
        raise RuntimeError
    assert Audit(database).listed() == []


def test_one_s_own_rows_are_listed_and_the_newest_first(database: Database) -> None:
    record = noted(database, 2)
    with database.write() as connection:
        note(connection, "bob", "key.made", "a")
    assert [entry.seq for entry in record.listed(account="alice", newest_first=True)] == [2, 1]
    assert [entry.seq for entry in record.listed(after=1, limit=1)] == [2]


def test_what_matters_is_written_down_without_words_and_addresses(database: Database) -> None:
    keys, queue, hooks = Keys(database), Queue(database), Hooks(database)
    keys.make("alice@example.org")
    keys.revoke("alice@example.org")
    first, second = (
        queue.submit(order("text_to_video", prompt="a secret"), model="toy", callback="https://example.org/callback")
        for _ in range(2)
    )
    queue.cancel(first.id)
    queue.cancel(first.id)
    queue.hide(second.id)
    endpoint, _ = hooks.make("https://example.org/hook", name="example.org")
    hooks.change(endpoint.id, url="https://example.org/other")
    hooks.rotate_secret(endpoint.id)
    hooks.delete(endpoint.id)
    done = [entry.action for entry in Audit(database).listed()]
    assert done == [
        *("key.made", "key.revoked", "job.accepted", "job.accepted", "job.cancelled", "job.cancelled", "job.deleted"),
        *("endpoint.made", "endpoint.changed", "endpoint.rotated", "endpoint.deleted"),
    ]
    written = json.dumps([entry._asdict() for entry in Audit(database).listed()])
    assert "secret" not in written.replace("old_secret", "") and "example.org" not in written
