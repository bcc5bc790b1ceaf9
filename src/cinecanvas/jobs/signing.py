"""What signs the URLs of all servers of a database."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from cinecanvas.jobs.database import Database
from cinecanvas.jobs.tables import secrets as signing


def signing_secret(database: Database) -> bytes:
    """256 bits, drawn by whoever asks first."""
    with database.write(lock="migrate") as connection:
        mine = signing.c.name == "urls"
        known = connection.execute(sa.select(signing.c.value).where(mine)).scalar_one_or_none()
        if known is None:
            known = secrets.token_hex(32)
            connection.execute(sa.insert(signing).values(name="urls", value=known))
    return bytes.fromhex(known)
