"""The demonstration's source: a small database of evidence, and a write that only the WAL can bring back."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg

_TABLES = Path(__file__).with_name("evidence.sql")
_RECEIVER_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Write:
    """A transaction on the source, committed after the base backup.

    :ivar committed_at: the source's clock at its commit.
    :ivar segment: name of the WAL segment that holds the commit.
    """

    pieces: int
    committed_at: datetime
    segment: str


def fill(dsn: str) -> bool:
    """Create the database's tables and rows once; data that is there already stays as it is.

    :returns: whether they had to be made.
    """
    with psycopg.connect(dsn) as connection:
        if connection.execute("SELECT to_regclass('legal.evidence')").fetchone() != (None,):
            return False
        connection.execute(_TABLES.read_bytes())
    return True


def receive_evidence(dsn: str, wal_directory: Path, *, pieces: int = 500) -> Write:
    """Commit some more evidence, and close its WAL segment at once; left alone, it would be closed after a minute.

    :raises TimeoutError: when pg_receivewal does not write the segment into the directory.
    """
    documents = [(os.urandom(2048),) for _ in range(pieces)]
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.transaction():
            connection.cursor().executemany(
                "INSERT INTO legal.evidence (case_id, received_at, description, sealed_document)"
                " VALUES (2026001, now(), 'Received after the base backup', %s)",
                documents,
            )
        row = connection.execute("SELECT clock_timestamp(), pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    write = Write(pieces, *row)
    deadline = time.monotonic() + _RECEIVER_PATIENCE_S
    while not (wal_directory / write.segment).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"pg_receivewal did not write {write.segment}: read .dev/source/receivewal/server.log")
        time.sleep(0.05)
    return write
