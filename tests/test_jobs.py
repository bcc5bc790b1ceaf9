"""The queue, on both databases: what happens to a job, what never happens to it, and who may say so."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")

import sqlalchemy as sa
from queued import FILM, MADE, PASSING, PICTURE, asked, at_once, change, claimed, kinds, rows, silent

from cinecanvas.errors import BadRequest
from cinecanvas.jobs import tables
from cinecanvas.jobs.database import Database, NoDatabase, now
from cinecanvas.jobs.job import ENDED, Trouble
from cinecanvas.jobs.keys import Keys, Quota
from cinecanvas.jobs.order import order
from cinecanvas.jobs.queue import GRACE, KEEP, MOST_DEATHS, MOST_TRIES, Claim, NoJob, NotNow, Queue, drop_holds, hold

# A life


def test_a_job_is_queued_then_running_then_succeeded_and_all_of_it_is_told(queue: Queue) -> None:
    job = asked(queue)
    assert (job.state, job.progress) == ("queued", 0.0)
    claim = claimed(queue)
    assert (claim.job.id, claim.job.state, claim.job.worker) == (job.id, "running", "w")
    assert queue.tell(claim, "step", {"step": 1}, step=1, steps=4) == "go on"
    assert queue.get(job.id).progress == 0.25
    assert queue.finish(claim, "succeeded", outcome=MADE) == "go on"
    done = queue.get(job.id)
    assert (done.state, done.outcome, done.progress, done.worker) == ("succeeded", MADE, 1.0, "")
    assert done.created <= (done.started or 0) <= (done.finished or 0)
    assert done.expires == pytest.approx((done.finished or 0) + KEEP, abs=1)
    assert kinds(queue, job.id) == ["queued", "running", "step", "succeeded"]
    numbers = [event.seq for event in queue.events(job.id)]
    assert numbers == sorted(set(numbers))
    assert queue.events(job.id, after=numbers[1])[0].kind == "step"
    assert queue.census().states["succeeded"] == 1


def ends(queue: Queue) -> Iterator[Claim]:
    """A job in each of the states that none leaves."""
    for end in ENDED:
        asked(queue)
        claim = claimed(queue)
        queue.finish(
            claim,
            end,
            outcome=MADE if end == "succeeded" else None,
            error=Trouble(code="internal", message="It broke.") if end == "failed" else None,
        )
        yield claim


def test_no_job_leaves_its_end(queue: Queue) -> None:
    for claim in list(ends(queue)):
        job = claim.job.id
        before = queue.get(job)
        silent(queue, job)
        change(queue, tables.jobs, tables.jobs.c.id == job, deadline=1.0, deaths=9)
        queue.finish(claim, "failed", error=PASSING)
        queue.again(claim, PASSING, after=0)
        assert queue.tell(claim, "step", {}, step=7) == "lost"
        assert queue.cancel(job).state == before.state
        queue.release("w", lost=True)
        queue.beat("w", claims=[claim])
        queue.sweep(lambda digest: None)
        for arrange in (queue.pause, lambda one: queue.prioritize(one, 3)):
            with pytest.raises(NotNow):
                arrange(job)
        assert queue.claim("w") is None
        assert queue.get(job).model_dump(exclude={"deadline", "deaths"}) == before.model_dump(
            exclude={"deadline", "deaths"}
        )


def test_what_is_said_again_after_a_connection_broke_changes_nothing_and_is_no_loss(queue: Queue) -> None:
    asked(queue)
    claim = claimed(queue)
    assert [queue.finish(claim, "succeeded", outcome=MADE) for _ in range(3)] == ["go on"] * 3
    assert kinds(queue, claim.job.id).count("succeeded") == 1
    asked(queue)
    claim = claimed(queue)
    assert [queue.again(claim, PASSING, after=60) for _ in range(3)] == ["go on"] * 3
    assert queue.get(claim.job.id).tries == 1
    assert [row.jobs for row in rows(queue, tables.usage)] == [1]


# Whose turn it is


def test_jobs_are_claimed_in_the_order_in_which_they_came(queue: Queue) -> None:
    came = [asked(queue).id for _ in range(12)]
    assert [job.id for job in queue.waiting()] == came
    assert [claimed(queue).job.id for _ in came] == came
    assert queue.claim("w") is None


def test_the_highest_priority_is_first_and_the_paused_waits(queue: Queue) -> None:
    low, high, still = asked(queue), asked(queue, priority=2), asked(queue, priority=9)
    queue.pause(still.id)
    assert claimed(queue).job.id == high.id
    queue.prioritize(low.id, 10)
    queue.pause(still.id, paused=False)
    assert [claimed(queue).job.id for _ in range(2)] == [low.id, still.id]


def test_a_job_is_moved_before_another_however_often(queue: Queue) -> None:
    a, b, *more = [asked(queue).id for _ in range(60)]
    for job in more:  # each between the one before and b: there is always a number between two numbers
        queue.move(job, b)
    assert [job.id for job in queue.waiting()] == [a, *more, b]
    queue.move(b, a)
    assert queue.waiting()[0].id == b
    claim = claimed(queue)
    with pytest.raises(NotNow):
        queue.move(a, claim.job.id)
    with pytest.raises(NotNow):
        queue.move(claim.job.id, a)


def test_moving_before_another_priority_takes_it_on(queue: Queue) -> None:
    first, high, last = asked(queue), asked(queue, priority=5), asked(queue)
    queue.move(last.id, high.id)
    assert [job.id for job in queue.waiting()] == [last.id, high.id, first.id]


def test_a_worker_gets_only_jobs_for_its_models(queue: Queue) -> None:
    toy, other = asked(queue), asked(queue, model="other")
    assert claimed(queue, models=["other"]).job.id == other.id
    assert queue.claim("w", models=["other"]) is None
    assert claimed(queue, models=["other", "toy"]).job.id == toy.id


def test_an_account_has_only_so_many_jobs_running(queue: Queue) -> None:
    keys = Keys(queue.database)
    caller = keys.caller(keys.make("ours", quota=Quota(running=2)))
    assert caller is not None
    mine = [asked(queue, account=caller.account).id for _ in range(4)]
    free = asked(queue).id
    claims = [claimed(queue) for _ in range(3)]
    assert [claim.job.id for claim in claims] == [*mine[:2], free]
    assert queue.claim("w") is None
    queue.finish(claims[0], "succeeded", outcome=MADE)
    assert claimed(queue).job.id == mine[2]
    assert queue.claim("w") is None


def test_workers_that_claim_at_once_never_get_the_same_job_nor_more_than_an_account_may(queue: Queue) -> None:
    keys = Keys(queue.database)
    caller = keys.caller(keys.make("ours", quota=Quota(running=3)))
    assert caller is not None
    for number in range(16):
        asked(queue, account=caller.account if number % 2 else "")
    got = [claim.job for claim in at_once(12, lambda number: queue.claim(f"w{number}")) if claim]
    assert len({job.id for job in got}) == len(got) == 11
    assert Counter(job.account for job in got) == {"": 8, caller.account: 3}


# Leases and fences


def test_a_silent_workers_job_is_anothers_and_what_the_old_one_says_changes_nothing(queue: Queue) -> None:
    asked(queue)
    old = claimed(queue, "old")
    assert queue.claim("new") is None
    silent(queue, old.job.id)
    new = claimed(queue, "new")
    assert new.job.id == old.job.id and new.fence == old.fence + 1 and new.job.deaths == 1
    before = queue.get(new.job.id)
    assert queue.tell(old, "step", {}, step=99, holds=[PICTURE]) == "lost"
    assert queue.finish(old, "succeeded", outcome=MADE) == "lost"
    assert queue.finish(old, "cancelled") == "lost"
    assert queue.again(old, PASSING, after=0) == "lost"
    assert queue.beat("old", claims=[old]) == {old.job.id: "lost"}
    assert queue.release("old", lost=True) == 0
    assert queue.get(new.job.id) == before
    assert not rows(queue, tables.holds) and not rows(queue, tables.usage)
    assert queue.finish(new, "succeeded", outcome=MADE) == "go on"
    assert queue.finish(old, "failed", error=PASSING) == "lost"


def test_a_sign_of_life_holds_what_is_in_hand_and_nothing_else(queue: Queue) -> None:
    asked(queue), asked(queue)
    kept, left = claimed(queue), claimed(queue)
    for claim in (kept, left):
        silent(queue, claim.job.id)
    assert queue.beat("w", claims=[kept]) == {kept.job.id: "go on"}
    assert claimed(queue, "x").job.id == left.job.id  # held by nobody's hand: another's
    assert queue.claim("x") is None


def test_a_job_that_took_three_workers_with_it_fails(queue: Queue) -> None:
    job = asked(queue)
    for deaths in range(MOST_DEATHS):
        assert claimed(queue).job.deaths == deaths
        silent(queue, job.id)
    assert queue.claim("w") is None
    failed = queue.get(job.id)
    assert (failed.state, failed.deaths, failed.fence) == ("failed", MOST_DEATHS, MOST_DEATHS)
    assert failed.error == Trouble(code="worker_lost", message="3 workers were lost over this job.")


def test_a_job_that_comes_further_each_time_outlives_any_number_of_workers(queue: Queue) -> None:
    job = asked(queue)
    for number in range(1, 3 * MOST_DEATHS):
        queue.tell(claimed(queue), "step", {}, step=number, steps=100)
        silent(queue, job.id)
    for _ in range(MOST_DEATHS - 1):  # and then it comes no further
        queue.tell(claimed(queue), "step", {}, step=2, steps=100)
        silent(queue, job.id)
    assert queue.claim("w") is None and queue.get(job.id).state == "failed"


def test_an_end_that_was_asked_for_is_no_death_and_one_that_was_seen_is(queue: Queue) -> None:
    job = asked(queue)
    for _ in range(2 * MOST_DEATHS):
        claimed(queue)
        assert queue.release("w", lost=False) == 1
    assert queue.get(job.id).deaths == 0
    for _ in range(MOST_DEATHS):
        claimed(queue)
        queue.release("w", lost=True)
    assert queue.claim("w") is None
    assert (error := queue.get(job.id).error) and error.code == "worker_lost"


def test_a_passing_cause_is_tried_again_later_and_only_so_often(queue: Queue) -> None:
    job = asked(queue)
    for tries in range(1, MOST_TRIES):
        assert queue.again(claimed(queue), PASSING, after=60) == "go on"
        waits = queue.get(job.id)
        assert (waits.state, waits.tries, waits.causes) == ("queued", tries, (PASSING,) * tries)
        assert queue.claim("w") is None, "too early"
        change(queue, tables.jobs, not_before=0.0)
    queue.again(claimed(queue), PASSING, after=60)
    failed = queue.get(job.id)
    assert (failed.state, failed.error) == ("failed", PASSING)


# Deadlines and second thoughts


def test_a_deadline_ends_what_waits_and_what_was_lost_and_is_told_to_who_works(queue: Queue) -> None:
    soon = queue.database.clock() + 3600
    waits, works, lost = (asked(queue, deadline=soon).id for _ in range(3))
    queue.prioritize(waits, -1)
    claim, _ = claimed(queue), claimed(queue)
    assert queue.tell(claim, "step", {}) == "go on"
    change(queue, tables.jobs, deadline=1.0)
    silent(queue, lost)
    assert queue.claim("w") is None
    assert [queue.get(job).state for job in (waits, works, lost)] == ["failed", "running", "failed"]
    assert (error := queue.get(waits).error) and error.code == "deadline"
    assert queue.tell(claim, "step", {}) == "late"
    assert queue.beat("w", claims=[claim]) == {works: "late"}


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_by_its_worker(queue: Queue) -> None:
    works, waits = asked(queue), asked(queue)
    claim = claimed(queue)
    assert queue.cancel(waits.id).state == "cancelled"
    assert queue.cancel(works.id).state == "running"
    assert queue.cancel(works.id).stop
    assert queue.tell(claim, "step", {}) == "stop" == queue.beat("w", claims=[claim])[works.id]
    assert queue.finish(claim, "cancelled") == "go on"
    assert queue.get(works.id).state == "cancelled"
    assert kinds(queue, works.id).count("stopping") == 1


@pytest.mark.parametrize("end", ["silence", "release", "again"])
def test_a_job_that_nobody_wants_is_not_made_by_another(queue: Queue, end: str) -> None:
    job = asked(queue)
    claim = claimed(queue)
    queue.cancel(job.id)
    if end == "silence":
        silent(queue, job.id)
    elif end == "release":
        queue.release("w", lost=False)
    else:
        queue.again(claim, PASSING, after=0)
    assert queue.claim("x") is None
    assert queue.get(job.id).state == "cancelled"


# Askers


def test_fifty_that_ask_at_once_with_one_idempotency_key_get_one_job(queue: Queue) -> None:
    made = at_once(50, lambda _: asked(queue, idempotency="same").id)
    assert len(set(made)) == 1 and len(queue.listed()) == 1
    assert kinds(queue, made[0]) == ["queued"]
    assert asked(queue, idempotency="same", account="other").id != made[0]
    assert asked(queue).id != asked(queue).id


def test_a_name_or_key_that_no_database_can_keep_is_refused(queue: Queue) -> None:
    for key in ("k" * 201, "a\0b"):
        with pytest.raises(BadRequest):
            asked(queue, idempotency=key)
    with pytest.raises(NoJob):
        queue.get("no\0job")
    job = asked(queue, named="mine")
    with pytest.raises(sa.exc.IntegrityError):
        asked(queue, named=job.id, idempotency="another")


def test_another_account_sees_nothing(queue: Queue) -> None:
    job, other = asked(queue, account="a"), asked(queue, account="b")
    deeds: tuple[Callable[..., Any], ...] = (queue.get, queue.cancel, queue.hide, queue.pause)
    for deed in deeds:
        with pytest.raises(NoJob):
            deed(job.id, account="b")
    with pytest.raises(NoJob):
        queue.move(other.id, job.id, account="b")
    with pytest.raises(NoJob):
        queue.listed(account="b", after=job.id)
    assert [one.id for one in queue.listed(account="b")] == [other.id]
    assert queue.get(job.id) == job


def test_the_same_body_is_known_for_a_while(queue: Queue) -> None:
    job = asked(queue, account="a", body="x" * 64)
    assert queue.repeated("x" * 64, account="a") == job
    assert queue.repeated("x" * 64, account="b") is None
    change(queue, tables.jobs, created=now() - 601)
    assert queue.repeated("x" * 64, account="a") is None
    change(queue, tables.jobs, created=now())
    queue.hide(job.id)
    assert queue.repeated("x" * 64, account="a") is None, "who asks again for what was deleted wants another"


@pytest.mark.parametrize("newest", [True, False])
def test_pages_hold_every_job_once_in_order_even_of_one_moment(queue: Queue, newest: bool) -> None:
    for number in range(11):
        asked(queue, dialect="luma" if number % 3 == 0 else "native")
    change(queue, tables.jobs, tables.jobs.c.dialect == "native", created=1000.0)
    whole = [job.id for job in queue.listed(limit=100, newest_first=newest)]
    assert len(whole) == 11
    assert [job.id for job in queue.listed(limit=100, newest_first=not newest)] == whole[::-1]
    pages, after = [], None
    while page := [job.id for job in queue.listed(limit=4, after=after, newest_first=newest)]:
        pages += page
        after = page[-1]
        queue.hide(after)  # who deletes page by page goes on
    assert pages == whole
    left = [job.id for job in queue.listed(limit=100, newest_first=newest)]
    assert [job.id for job in queue.listed(limit=3, offset=2, newest_first=newest)] == left[2:5]
    assert {job.dialect for job in queue.listed(dialect="luma")} == {"luma"}
    assert queue.listed(states=["running"]) == []


def test_what_is_deleted_is_cancelled_never_seen_again_and_soon_forgotten(queue: Queue) -> None:
    waits, works = asked(queue), asked(queue)
    queue.prioritize(works.id, 1)
    claim = claimed(queue)
    for job in (waits, works):
        queue.hide(job.id)
        with pytest.raises(NoJob):
            queue.get(job.id)
    assert not queue.listed() and queue.claim("x") is None
    assert queue.tell(claim, "step", {}) == "stop"
    queue.finish(claim, "succeeded", outcome=MADE)  # it was faster; nobody is to come by it all the same
    queue.sweep(lambda digest: None)
    assert [row.holder for row in rows(queue, tables.holds)] == [""]
    assert not [row for row in rows(queue, tables.jobs) if row.outcome is not None]


def test_the_end_is_told_to_whom_it_concerns(queue: Queue) -> None:
    end = {"dialect": "native", "name": "", "secret": "", "events": [], "created": 0.0}
    with queue.database.write() as connection:
        for name, account, enabled in (("mine", "a", True), ("off", "a", False), ("other", "b", True)):
            row = {"id": name, "account": account, "enabled": enabled, "url": "https://example.org"}
            connection.execute(sa.insert(tables.endpoints).values(row | end))
    job = asked(queue, account="a", callback="https://example.org/told")
    queue.cancel(job.id)
    told = [(row.job, row.endpoint, row.state, row.status) for row in rows(queue, tables.deliveries)]
    assert sorted(told) == [(job.id, "", "cancelled", "waiting"), (job.id, "mine", "cancelled", "waiting")]


# What is used, and what is kept


def test_usage_counts_each_film_once(queue: Queue) -> None:
    for number in range(3):
        asked(queue, account="a", model="toy" if number else "other")
        claim = claimed(queue)
        queue.finish(claim, "succeeded", outcome=MADE)
        queue.finish(claim, "succeeded", outcome=MADE)
    found = {row.model: row for row in rows(queue, tables.usage)}
    toy = found["toy"]
    assert (toy.account, toy.jobs, toy.megapixel_frames, toy.video_seconds) == ("a", 2, 1.0, 4.0)
    assert toy.compute_seconds == 8.0 and found["other"].jobs == 1


def test_usage_of_films_that_end_at_once_is_counted_in_full(queue: Queue) -> None:
    for _ in range(20):
        asked(queue)
    claims = [claimed(queue) for _ in range(20)]
    words = at_once(20, lambda number: queue.finish(claims[number], "succeeded", outcome=MADE))
    assert words == ["go on"] * 20
    assert [row.jobs for row in rows(queue, tables.usage)] == [20]


def test_what_has_expired_is_forgotten_and_what_another_needs_is_not(queue: Queue) -> None:
    gone: list[str] = []
    first, second = (
        asked(queue),
        queue.submit(order("animate", picture={"asset": PICTURE}, prompt="red", seed=1), model="toy"),
    )
    for _ in range(2):
        queue.finish(claimed(queue), "succeeded", outcome=MADE)
    mine = tables.jobs.c.id == first.id
    change(queue, tables.jobs, mine, expires=1.0)
    queue.sweep(gone.append)
    old = queue.get(first.id)
    assert (old.state, old.outcome, old.expires) == ("succeeded", None, None)
    assert queue.events(first.id) == [] and queue.get(second.id).outcome == MADE
    change(queue, tables.holds, tables.holds.c.holder == "", since=now() - GRACE - 1)
    queue.sweep(gone.append)
    assert gone == [], "the second job needs it"
    change(queue, tables.jobs, tables.jobs.c.id == second.id, expires=1.0)
    queue.sweep(gone.append)
    assert gone == [], "somebody may just be about to need it"
    change(queue, tables.holds, since=now() - GRACE - 1)
    queue.sweep(gone.append)
    assert sorted(gone) == sorted([FILM.digest, PICTURE]) and not rows(queue, tables.holds)
    change(queue, tables.jobs, mine, finished=1.0)
    queue.sweep(gone.append)
    with pytest.raises(NoJob):
        queue.get(first.id)


def test_who_needs_an_asset_again_in_time_keeps_it(queue: Queue) -> None:
    with queue.database.write() as connection:
        hold(connection, "a", [PICTURE])
        drop_holds(connection, "a")
    change(queue, tables.holds, since=1.0)
    with queue.database.write() as connection:
        hold(connection, "b", [PICTURE])
    queue.sweep(lambda digest: pytest.fail("it is needed"))
    assert [row.holder for row in rows(queue, tables.holds)] == ["b"]


def test_an_asset_that_could_not_be_forgotten_is_forgotten_the_next_time(queue: Queue) -> None:
    with queue.database.write() as connection:
        hold(connection, "a", [PICTURE])
        drop_holds(connection, "a")
    change(queue, tables.holds, since=1.0)

    def broken(digest: str) -> None:
        raise OSError

    with pytest.raises(OSError):
        queue.sweep(broken)
    gone: list[str] = []
    queue.sweep(gone.append)
    assert gone == [PICTURE]


def test_two_that_let_go_at_once_leave_a_mark_and_one_that_takes_hold_meanwhile_keeps_it(queue: Queue) -> None:
    digests = [f"sha256:{number:064x}" for number in range(5)]
    with queue.database.write() as connection:
        for holder in range(8):
            hold(connection, str(holder), digests)

    def one(number: int) -> None:
        with queue.database.write() as connection:
            if number < 8:
                drop_holds(connection, str(number))
            else:
                hold(connection, "late", reversed(digests[:2]))

    at_once(9, one)
    change(queue, tables.holds, since=1.0)
    gone: list[str] = []
    queue.sweep(gone.append)
    assert sorted(gone) == digests[2:]


def test_workers_that_have_gone_are_forgotten(queue: Queue) -> None:
    queue.beat("w", models=["toy"])
    queue.beat("x")
    queue.beat("w")
    assert sorted(row.id for row in rows(queue, tables.workers)) == ["w", "x"]
    change(queue, tables.workers, tables.workers.c.id == "w", beat=1.0)
    queue.sweep(lambda digest: None)
    queue.release("x", lost=False)
    assert not rows(queue, tables.workers)


# Many at once


def test_whatever_many_do_at_once_each_job_ends_once_and_is_counted_once(database: Database) -> None:
    queue = Queue(database, lease=0.01, deaths=1000)  # so short that workers rob one another
    ids = [asked(queue).id for _ in range(24)]
    until = time.monotonic() + 20
    troubles: list[BaseException] = []

    def works(number: int) -> None:
        chance = random.Random(number)
        while not all(queue.get(job).ended for job in ids) and time.monotonic() < until:
            claim = queue.claim(f"w{number}")
            if claim is None:
                continue
            if chance.random() < 0.3:
                time.sleep(0.02)
            queue.tell(claim, "step", {}, step=chance.randrange(9))
            if chance.random() < 0.2:
                queue.again(claim, PASSING, after=0)
            elif chance.random() < 0.8:
                queue.finish(claim, "succeeded", outcome=MADE)

    def meddles(number: int) -> None:
        chance = random.Random(number)
        while not all(queue.get(job).ended for job in ids) and time.monotonic() < until:
            job, deed = chance.choice(ids), chance.choice(["pause", "unpause", "unpause", "move", "sweep", "cancel"])
            try:
                if deed == "move":
                    queue.move(job, chance.choice(ids))
                elif deed == "sweep":
                    queue.sweep(lambda digest: None)
                elif deed == "cancel" and chance.random() < 0.1:
                    queue.cancel(job)
                else:
                    queue.pause(job, paused=deed == "pause")
            except NotNow:
                pass

    def guarded(number: int) -> None:
        try:
            (works if number < 6 else meddles)(number)
        except BaseException as error:
            troubles.append(error)

    at_once(8, guarded)
    assert troubles == []
    jobs = [queue.get(job) for job in ids]
    assert {job.state for job in jobs} <= set(ENDED)
    for job in jobs:
        told = kinds(queue, job.id)
        assert [kind for kind in told if kind in ENDED] == [told[-1]] == [job.state]
        assert (job.outcome is not None) == (job.state == "succeeded")
    count = sum(job.state == "succeeded" for job in jobs)
    assert [row.jobs for row in rows(queue, tables.usage)] == [count] * bool(count)


def test_a_process_that_stands_still_within_its_words_stops_the_others_only_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not database.postgresql:
        pytest.skip("SQLite's one writer has to go on or end")
    from cinecanvas.jobs import database as opened

    monkeypatch.setattr(opened, "_FROZEN", 0.5)
    frozen, queue = Queue(Database.at(database.url)), Queue(database)
    job = asked(queue)
    with pytest.raises(NoDatabase), frozen.database.write(lock="claim") as connection:  # as if it were stopped here
        connection.execute(sa.select(tables.jobs).where(tables.jobs.c.id == job.id).with_for_update())
        assert claimed(queue).job.id == job.id
        connection.execute(sa.select(tables.jobs))
    frozen.database.close()
