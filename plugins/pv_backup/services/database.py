"""One way into the journal database, so that each of its failures reads the same and none shows the DSN (ERR-47-06)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.errors import ConfigurationError, JournalUnavailable

# A journal that hangs must read like one that is down, in seconds: an address that swallows packets, a host that has
# vanished in mid-connection. What a connection string says of these goes before.
_PATIENCE: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# Likewise a lock whose holder is stuck; and a worker that vanishes must let its own locks go. For each transaction by
# itself, since a connection pooler such as PgBouncer refuses them as options of the connection.
_LIMITS: Final = text(
    "SELECT set_config('lock_timeout', '20s', true), set_config('statement_timeout', '60s', true),"
    " set_config('idle_in_transaction_session_timeout', '90s', true)"
)


def engine_for(dsn: str) -> Engine:
    """Open an engine without ever putting the password where a log or a repr can show it.

    libpq itself reads the DSN, so whatever psql accepts works here.

    :param dsn: a libpq URI (``postgresql://…``) or key/value string (PostgreSQL docs, 34.1.1).
    :raises ConfigurationError: when libpq can't read it; the text never quotes it.
    """
    try:
        parameters: dict[str, Any] = {**_PATIENCE, **conninfo_to_dict(dsn)}
    except psycopg.Error:
        # libpq's message would quote the string, password included.
        raise ConfigurationError(
            "the journal's connection string can't be read",
            remedy="give a libpq URI such as postgresql://role@host:5432/journal",
        ) from None
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(**parameters),
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        hide_parameters=True,
    )


def sessions_for(dsn: str) -> sessionmaker[Session]:
    """The sessions that every service here is handed; they connect at first use, as :func:`engine_for` says."""
    return sessionmaker(engine_for(dsn))


@contextmanager
def transaction(sessions: sessionmaker[Session], doing: str) -> Iterator[Session]:
    """Commit what the block did, or nothing of it, and say plainly when the database can't be used.

    Objects read in the block keep their values after it.

    :param doing: what was being done, as it should read after "while", such as ``renewing the lease of …``.
    :raises JournalUnavailable: for whatever the database or its driver refuses (ERR-47-06).
    """
    try:
        with sessions(expire_on_commit=False) as session, session.begin():
            session.execute(_LIMITS)
            yield session
    except (DBAPIError, PoolTimeout) as error:
        raise _unavailable(error, doing) from None


def clock(session: Session) -> datetime:
    """The one clock that all workers share; ask it after taking a lock, since the wait may have been long."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now


def _unavailable(error: DBAPIError | PoolTimeout, doing: str) -> JournalUnavailable:
    """Keep the server's own words and SQLSTATE; leave out statement and parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, psycopg.Error) and cause.sqlstate:
        return JournalUnavailable(
            f"the journal database refused while {doing}: {cause.diag.message_primary} (SQLSTATE {cause.sqlstate})",
            remedy="if it names a privilege or a table, run the migrations; else PostgreSQL's appendix A explains it",
        )
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return JournalUnavailable(
        f"the journal database can't be reached while {doing}: {reason}",
        remedy="check that its server runs and accepts this host and role; nothing was written",
    )
