"""The tables: jobs and what happens to them, who asks, what was laid, whom to tell."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()


def _time(name: str, *, nullable: bool = False) -> Column[float]:
    """Seconds since 1970, by the database's clock."""
    return Column(name, Double, nullable=nullable)


jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account", String(36), nullable=False),  # the id of a key; "": this machine's own user
    Column("dialect", String(20), nullable=False),
    Column("kind", String(10), nullable=False),  # video or image
    Column("suffix", String(10), nullable=False),  # mp4, webm, gif, png, jpg, webp ...
    Column("model", String(100), nullable=False),
    Column("asked", JSON, nullable=False),  # the Order
    Column("echo", JSON, nullable=False),  # what the dialect repeats in its replies
    Column("callback", Text, nullable=False),  # a URL that is told of this job; "": none
    Column("foretold", JSON, nullable=False),  # Foretold
    Column("state", String(10), nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("priority", Integer, nullable=False),  # the highest first
    Column("place", Double, nullable=False),  # among those of one priority, the lowest first
    _time("created"),
    _time("not_before"),
    _time("deadline", nullable=True),
    _time("started", nullable=True),
    _time("finished", nullable=True),
    _time("expires", nullable=True),
    Column("worker", String(80), nullable=False),
    _time("lease"),
    Column("fence", Integer, nullable=False),  # how often it was claimed
    Column("tries", Integer, nullable=False),  # how often it failed for a cause that may pass
    Column("deaths", Integer, nullable=False),  # how often its worker was lost since it last came further
    Column("mark", Integer, nullable=False),  # the furthest step of all claims before this one
    Column("stop", Boolean, nullable=False),
    Column("phase", String(20), nullable=False),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("eta", Double, nullable=True),
    Column("watchable", Double, nullable=False),  # s of the film that can be watched already
    Column("outcome", JSON, nullable=True),  # Outcome
    Column("error", JSON, nullable=True),  # Trouble
    Column("causes", JSON, nullable=False),  # the troubles of earlier tries
    Column("idempotency", String(200), nullable=True),
    Column("body", String(64), nullable=False),  # SHA-256 of what was sent: the same again may be a client's second try
    Column("hidden", Boolean, nullable=False),  # deleted by who asked for it
    Column("price", JSON, nullable=False),  # Tariff, as it was when the job was accepted
    Column("credits", Integer, nullable=False),  # foretold; once it has ended, what it cost
    UniqueConstraint("account", "idempotency"),
    Index("jobs_to_claim", "state", "priority", "place"),
    Index("jobs_of_account", "account", "created"),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job", String(36), nullable=False, index=True),
    _time("at"),
    Column("kind", String(20), nullable=False),
    Column("data", JSON, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(80), primary_key=True),
    _time("started"),
    _time("beat"),
    Column("models", JSON, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of the key's 256 random bits
    Column("scopes", JSON, nullable=False),
    Column("quota", JSON, nullable=False),  # Quota
    Column("running", Integer, nullable=True),  # most jobs of it at a time; NULL: as many as there are workers
    _time("created"),
    _time("revoked", nullable=True),
    _time("used", nullable=True),
)

usage = Table(
    "usage",
    metadata,
    Column("account", String(36), primary_key=True),
    Column("day", String(10), primary_key=True),  # YYYY-MM-DD, UTC
    Column("model", String(100), primary_key=True),
    Column("jobs", Integer, nullable=False),
    Column("megapixel_frames", Double, nullable=False),
    Column("video_seconds", Double, nullable=False),
    Column("compute_seconds", Double, nullable=False),
    Column("credits", BigInteger, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account", String(36), nullable=False, index=True),
    Column("dialect", String(20), nullable=False),
    Column("name", String(255), nullable=False),
    Column("purpose", String(40), nullable=False),
    Column("state", String(10), nullable=False),  # pending, ready, failed, deleted
    Column("trouble", Text, nullable=False),
    Column("digest", String(71), nullable=False),  # "": nothing is here yet
    Column("asset", JSON, nullable=True),  # Asset
    Column("media_type", String(100), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    _time("created"),
    _time("expires", nullable=True),
    Index("files_by_digest", "digest", "account"),
)

holds = Table(  # which assets are needed, and by whom
    "holds",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("holder", String(36), primary_key=True),  # a job or a file; "": nobody any more
    _time("since"),
    Index("holds_of", "holder"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account", String(36), nullable=False, index=True),
    Column("dialect", String(20), nullable=False),
    Column("name", String(100), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", String(100), nullable=False),
    Column("old_secret", String(100), nullable=False, default=""),  # "": none
    Column("old_until", Double, nullable=False, default=0.0),
    Column("events", JSON, nullable=False),  # in the dialect's own words
    # which states of a job it is told of
    Column("states", JSON, nullable=False, default=["succeeded", "failed", "cancelled"]),
    Column("enabled", Boolean, nullable=False),
    _time("created"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account", String(36), nullable=False),
    Column("job", String(36), nullable=False, index=True),  # "": a test
    Column("endpoint", String(36), nullable=False, index=True),  # "": the job's own callback
    Column("state", String(10), nullable=False),  # the job's, which is told
    Column("status", String(10), nullable=False),  # waiting, delivered, failed
    Column("attempts", Integer, nullable=False),
    _time("due"),
    _time("lease"),
    Column("log", JSON, nullable=False),  # what came back, attempt by attempt
    _time("created"),
    Index("deliveries_due", "status", "due"),
)

secrets = Table(  # what signs URLs, shared by all servers of a database
    "secrets",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("value", String(64), nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _time("at"),
    Column("account", String(36), nullable=False),
    Column("action", String(40), nullable=False),
    Column("object", String(100), nullable=False),
    Column("data", JSON, nullable=False),
    Column("hash", String(64), nullable=False),  # of this row and the hash before it
    Index("audit_of", "account", "action", "seq"),
)
