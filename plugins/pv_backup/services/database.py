"""One way into the journal database, so that each of its failures reads the same and none shows the DSN (ERR-47-06)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.errors import ConfigurationError, JournalUnavailable

# An address that swallows packets must not hold a task for the two minutes of TCP's own patience.
_CONNECT_TIMEOUT_S = 10


def engine_for(dsn: str) -> Engine:
    """Open an engine without ever putting the password where a log or a repr can show it.

    libpq itself reads the DSN, so whatever psql accepts works here.

    :param dsn: a libpq URI (``postgresql://…``) or key/value string (PostgreSQL docs, 34.1.1).
    :raises ConfigurationError: when libpq can't read it; the text never quotes it.
    """
    try:
        parameters: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT_S, **conninfo_to_dict(dsn)}
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
