"""Keys let in whom they should, as far as they should; the ledger counts what was used, two at once included."""

from __future__ import annotations

import threading

import pytest

from cinecanvas.errors import BadRequest

pytest.importorskip("sqlalchemy")

import sqlalchemy as sa

from cinecanvas.jobs.audit import Audit
from cinecanvas.jobs.database import Database, now
from cinecanvas.jobs.job import Foretold, Job, Outcome, Trouble
from cinecanvas.jobs.keys import LOCAL, Caller, Keys, NoKey, NotAllowed, Quota
from cinecanvas.jobs.ledger import Ledger, OverQuota, Spent
from cinecanvas.jobs.order import order
from cinecanvas.jobs.queue import Queue
from cinecanvas.jobs.tables import jobs, keys
from cinecanvas.jobs.tariff import Tariff, Work
from cinecanvas.media.assets import Asset

RED = order("text_to_video", prompt="a red fox", seed=1)
CLIP = Foretold(width=1280, height=720, frames=120, fps=24.0, video_seconds=5.0, seconds=60.0)
MADE = Asset(
    digest="sha256:" + "0" * 64, media_type="video/mp4", bytes=10, width=1280, height=720, frames=120, seconds=5.0
)


def caller(database: Database, name: str = "alice", **quota: float) -> Caller:
    found = Keys(database).caller(Keys(database).make(name, quota=Quota.model_validate(quota)))
    assert found is not None
    return found


def accept(database: Database, who: Caller, foretold: Foretold = CLIP, **given: str) -> Job:
    ledger = Ledger(database)
    with ledger.admitting(who, foretold) as admit:
        return Queue(database).submit(
            RED, account=who.account, model="toy", foretold=foretold, price=ledger.tariff, admit=admit, **given
        )


def finish(database: Database, outcome: Outcome | None = None) -> Job:
    """The next job, made or failed."""
    queue = Queue(database)
    claim = queue.claim("worker")
    assert claim is not None
    error = None if outcome else Trouble(code="internal", message="It broke.")
    queue.finish(claim, "succeeded" if outcome else "failed", outcome=outcome, error=error)
    return queue.get(claim.job.id)


# Keys


def test_a_key_is_its_caller_s_and_nothing_of_it_is_kept(database: Database) -> None:
    secret = Keys(database).make("alice", scopes=("read",))
    found = Keys(database).caller(secret)
    assert found is not None and (found.name, found.scopes) == ("alice", ("read",))
    with database.read() as connection:
        (row,) = connection.execute(sa.select(keys)).all()
    assert not any(secret[5:] in str(value) for value in row)


@pytest.mark.parametrize("secret", ["", "cine-", "cine-no", "\ud800", "x" * 100_000])
def test_what_is_no_key_is_nobody_s(database: Database, secret: str) -> None:
    Keys(database).make("alice")
    assert Keys(database).caller(secret) is None


def test_a_revoked_key_opens_nothing(database: Database) -> None:
    known = Keys(database)
    secret = known.make("alice")
    assert known.caller(secret) is not None
    assert known.revoke("alice").revoked is not None
    assert known.caller(secret) is None and not known.exist()


def test_another_server_learns_of_a_revocation_within_seconds(database: Database) -> None:
    there, here = Keys(database), Keys(database, seen=0.0)
    secret = there.make("alice")
    assert there.caller(secret) is not None and here.caller(secret) is not None
    here.revoke("alice")
    assert there.caller(secret) is not None and here.caller(secret) is None
    there._known.clear()  # as if the seconds were over
    assert there.caller(secret) is None


def test_a_thousand_looks_at_a_key_are_one_query(database: Database) -> None:
    known, asked = Keys(database), []
    secret = known.make("alice")
    sa.event.listen(database.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    for _ in range(1000):
        assert known.caller(secret) is not None
    assert sum("SELECT" in text for text in asked) == 1 and sum("UPDATE" in text for text in asked) == 1


def test_strangers_cannot_fill_the_memory_with_keys(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinecanvas.jobs.keys._MOST_SEEN", 10)
    known = Keys(database)
    for number in range(50):
        assert known.caller(f"cine-{number}") is None
    assert len(known._known) <= 10


def test_the_first_key_closes_the_door_at_once(database: Database) -> None:
    there = Keys(database)
    assert not there.exist()
    Keys(database).make("alice")
    assert there.exist()


def test_when_a_key_was_used_is_known_to_the_minute(database: Database) -> None:
    known = Keys(database, seen=0.0)
    secret = known.make("alice")
    assert known.find("alice").used is None and known.of(secret).used is None
    known.caller(secret)
    first = known.find("alice").used
    assert first is not None
    known.caller(secret)
    assert known.find("alice").used == first
    with database.write() as connection:
        connection.execute(sa.update(keys).values(used=now() - 61))
    known.caller(secret)
    again = known.find("alice").used
    assert again is not None and again >= first


def test_a_key_is_found_by_name_by_id_and_by_the_beginning_of_its_id(database: Database) -> None:
    known = Keys(database)
    known.make("alice")
    known.make("bob")
    key = known.find("bob")
    assert known.find(key.id) == known.find(key.id[:13]) == key
    for missing in ("carol", "", key.id[:3]):
        with pytest.raises(NoKey):
            known.find(missing)


def test_of_two_keys_of_one_name_none_is_revoked_by_it(database: Database) -> None:
    known = Keys(database)
    known.make("alice")
    known.make("alice")
    with pytest.raises(NoKey, match="2 keys are called 'alice'"):
        known.revoke("alice")
    known.revoke(known.listed()[0].id)
    assert len(known.listed()) == 1 and len(known.listed(revoked=True)) == 2
    known.revoke("alice")


def test_a_key_is_renamed_and_its_limits_are_changed(database: Database) -> None:
    known = Keys(database)
    secret = known.make("alice")
    known.change("alice", name="carol", quota=Quota(running=2, credits=5))
    found = known.caller(secret)
    assert found is not None and found.name == "carol" and found.quota == Quota(running=2, credits=5)


@pytest.mark.parametrize("name", ["", "a" * 101, "a\nb", " a", "a\x00"])
def test_a_name_that_cannot_be_printed_is_refused(database: Database, name: str) -> None:
    with pytest.raises(BadRequest, match="name of a key"):
        Keys(database).make(name)


@pytest.mark.parametrize("scopes", [(), ("root",), ("read", "write")])
def test_a_scope_that_does_not_exist_is_refused(database: Database, scopes: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest, match="Scopes are read, create, admin"):
        Keys(database).make("alice", scopes=scopes)


def test_a_key_does_what_its_scopes_say_and_admin_is_all_of_them() -> None:
    reader, admin = (Caller(account="a", name="a", scopes=(scope,)) for scope in ("read", "admin"))
    reader.need("read")
    admin.need("create")
    LOCAL.need("admin")
    with pytest.raises(NotAllowed, match=r"may not make, change .*It has the scope read\. Use a key .* create"):
        reader.need("create")


# What may still be used


def test_without_limits_everything_is_accepted(database: Database) -> None:
    for _ in range(5):
        accept(database, LOCAL)
        accept(database, caller(database))


def test_jobs_that_wait_are_limited_and_one_that_begins_makes_room(database: Database) -> None:
    alice = caller(database, queued=2)
    accept(database, alice)
    accept(database, alice)
    with pytest.raises(OverQuota, match="2 jobs of this key are waiting") as refused:
        accept(database, alice)
    assert refused.value.limit == "queued" and refused.value.retry_after is None
    Queue(database).claim("worker")
    accept(database, alice)


def test_jobs_in_a_minute_are_limited_and_the_refusal_says_for_how_long(database: Database) -> None:
    alice = caller(database, per_minute=2)
    accept(database, alice)
    accept(database, alice)
    with database.write() as connection:
        connection.execute(sa.update(jobs).values(created=jobs.c.created - 20))
    with pytest.raises(OverQuota) as refused:
        accept(database, alice)
    assert refused.value.limit == "per_minute" and 0 < (refused.value.retry_after or 0) <= 40
    with database.write() as connection:
        connection.execute(sa.update(jobs).values(created=jobs.c.created - 41))
    accept(database, alice)


def test_a_day_s_seconds_count_what_is_made_and_what_is_on_its_way(database: Database) -> None:
    alice = caller(database, daily_seconds=15)
    accept(database, alice)
    finish(database, Outcome(assets=(MADE,)))
    accept(database, alice)
    with pytest.raises(OverQuota, match="10 s of video were asked, and 10 s are made or on their way") as refused:
        accept(database, alice, CLIP.model_copy(update={"count": 2}))
    assert refused.value.limit == "daily_seconds"
    accept(database, alice)


def test_a_job_longer_than_a_whole_day_s_seconds_is_never_to_be_tried_again(database: Database) -> None:
    with pytest.raises(OverQuota) as refused:
        accept(database, caller(database, daily_seconds=4))
    assert refused.value.retry_after is None


def test_a_full_day_is_over_at_midnight(database: Database) -> None:
    alice = caller(database, daily_seconds=5)
    accept(database, alice)
    with pytest.raises(OverQuota) as refused:
        accept(database, alice)
    assert 0 < (refused.value.retry_after or 0) <= 86400


def test_a_job_that_failed_gives_back_what_was_reserved(database: Database) -> None:
    alice = caller(database, daily_seconds=5, credits=12)
    for _ in range(3):
        accept(database, alice)
        assert Ledger(database).balance(alice) == 0
        assert finish(database).credits == 0
    assert Ledger(database).balance(alice) == 12


def test_a_job_that_is_made_costs_what_it_came_to(database: Database) -> None:
    alice = caller(database, credits=20)
    assert accept(database, alice).credits == 12
    half = MADE.model_copy(update={"frames": 60, "seconds": 2.5})
    assert finish(database, Outcome(assets=(half,))).credits == 6
    assert Ledger(database).balance(alice) == 14
    accept(database, alice)
    with pytest.raises(OverQuota, match=r"costs 12 credits\. This key has 2 left of 20"):
        accept(database, alice)


def test_the_price_is_that_of_the_moment_of_acceptance(database: Database) -> None:
    dear = Tariff(per_megapixel_frame=0, per_video_second=100)
    Queue(database).submit(RED, model="toy", foretold=CLIP, price=dear)
    assert finish(database, Outcome(assets=(MADE,))).credits == 500


def test_the_same_idempotency_key_is_the_same_job_though_no_more_are_let_in(database: Database) -> None:
    alice = caller(database, queued=1)
    first = accept(database, alice, idempotency="once")
    assert accept(database, alice, idempotency="once").id == first.id


def test_of_many_at_once_no_more_are_let_in_than_may(database: Database) -> None:
    alice, accepted, refused = caller(database, queued=3, credits=1000), [], []

    def one() -> None:
        try:
            accepted.append(accept(database, alice))
        except OverQuota as over:
            refused.append(over)

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(accepted), len(refused)) == (3, 7)


def test_many_at_once_with_one_idempotency_key_are_one_job_and_none_is_refused(database: Database) -> None:
    alice, accepted = caller(database, queued=1), []
    threads = [
        threading.Thread(target=lambda: accepted.append(accept(database, alice, idempotency="once").id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 8 and len(set(accepted)) == 1


def test_a_limit_is_one_key_s_own(database: Database) -> None:
    alice, bob = caller(database, "alice", queued=1), caller(database, "bob", queued=1)
    accept(database, alice)
    accept(database, bob)


def test_whether_there_is_room_can_be_asked_without_taking_it(database: Database) -> None:
    alice = caller(database, queued=1)
    Ledger(database).admit(alice, CLIP)
    Ledger(database).admit(alice, CLIP)
    accept(database, alice)
    with pytest.raises(OverQuota):
        Ledger(database).admit(alice, CLIP)


def test_a_refusal_leaves_no_job_and_one_line_in_the_audit(database: Database) -> None:
    alice = caller(database, credits=1)
    for _ in range(3):
        with pytest.raises(OverQuota):
            accept(database, alice)
    (entry,) = [entry for entry in Audit(database).listed() if entry.action == "quota.refused"]
    assert (entry.account, entry.data) == (alice.account, {"limit": "credits"}) and Queue(database).listed() == []


# What was used


def test_what_was_used_is_told_by_day_and_model_and_in_all(database: Database) -> None:
    alice, ledger = caller(database), Ledger(database)
    for _ in range(2):
        accept(database, alice)
        finish(database, Outcome(assets=(MADE,), phases={"denoise": 2.0, "decode": 1.0}))
    (row,) = ledger.spent(account=alice.account)
    assert (row.day, row.model, row.jobs, row.video_seconds, row.compute_seconds) == (ledger.today(), "toy", 2, 10, 6)
    assert row.megapixel_frames == pytest.approx(221.184) and row.credits == 24
    assert ledger.total().credits == 24 and ledger.total(account="nobody") == Spent(account="nobody")
    assert ledger.spent(until=ledger.today(ago=1)) == [] and ledger.spent(since=ledger.today()) == [row]


@pytest.mark.parametrize(
    ("tariff", "work", "credits"),
    [
        (Tariff(), Work(), 1),
        (Tariff(), CLIP.work, 12),
        (Tariff(least=0), Work(), 0),
        (Tariff(), Work(megapixel_frames=30), 3),
        (Tariff(), Work(megapixel_frames=30.1), 4),
        (Tariff(per_megapixel_frame=0, per_video_second=5), Work(video_seconds=2.1), 11),
        (Tariff(per_megapixel_frame=0, per_compute_second=1), Work(compute_seconds=59.5), 60),
    ],
)
def test_a_begun_credit_is_a_whole_one(tariff: Tariff, work: Work, credits: int) -> None:  # noqa: A002
    assert tariff.credits(work) == credits


def test_several_videos_of_a_job_are_all_paid_for() -> None:
    two = CLIP.model_copy(update={"count": 2})
    assert two.work.video_seconds == 10 and two.work.megapixel_frames == 2 * CLIP.work.megapixel_frames


def test_credits_are_worth_cents() -> None:
    assert Tariff(cents=0.5).in_cents(101) == 50
