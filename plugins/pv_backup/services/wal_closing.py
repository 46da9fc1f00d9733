"""Close the open segment of a quiet server, so that a committed row does not wait for 16 MiB of others (SPEC F2).

pg_receivewal hands over finished segments only, and `archive_timeout` does not finish them for it. So
pg_switch_wal does, when the segment is older than a minute and a transaction ended since the last one
was closed. What a server writes on its own account (checkpoints, snapshots of running transactions) does
not count: it would close a segment every minute of an idle night.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from pv_backup.services.errors import ReceiverDown
from pv_backup.services.postgres import Server
from pv_backup.services.wal import parse_lsn, segment_of
from pv_backup.services.wal_spool import WalSpool

log = logging.getLogger(__name__)

SLOT: Final = "pv_backup"
OPEN_SEGMENT_S: Final = 60.0
RECEIVER_PATIENCE_S: Final = 10.0
_POLL_S: Final = 0.1
_SYSTEMCTL: Final = "on the host of the WAL directory: `systemctl status pg_receivewal`, and its journal"

# A snapshot changes when a transaction with an id ends, and not before: pg_current_snapshot() is xmin:xmax:running,
# and xmax follows the last one that ended (https://www.postgresql.org/docs/15/functions-info.html, table 9.79).
_STATE = """
SELECT pg_walfile_name(lsn), lsn::text, pg_size_bytes(current_setting('wal_segment_size')), pg_current_snapshot()::text
  FROM pg_current_wal_insert_lsn() AS lsn
"""
_RECEIVER = "SELECT active, wal_status FROM pg_replication_slots WHERE slot_name = %s"


@dataclass(frozen=True)
class _Open:
    """The open segment as this run sees it, or as an earlier one noted it.

    :ivar since: Unix seconds from which its age is counted.
    :ivar snapshot: of the transactions that had ended before it was opened; None if that is not known.
    """

    segment: str
    since: float
    snapshot: str | None


class SegmentCloser:
    """Closes the source's open segment when it is due, and looks whether pg_receivewal follows.

    :param server: the source; its role must be allowed pg_switch_wal.
    :param older_than_s: seconds that a segment may stay open with writes in it.
    :param receiver_patience_s: seconds to wait for a pg_receivewal that is being restarted, or for its file.
    """

    def __init__(
        self,
        *,
        server: Server,
        spool: WalSpool,
        older_than_s: float = OPEN_SEGMENT_S,
        receiver_patience_s: float = RECEIVER_PATIENCE_S,
    ) -> None:
        self._server = server
        self._spool = spool
        self._older_than_s = older_than_s
        self._receiver_patience_s = receiver_patience_s

    def close_if_due(self) -> str | None:
        """Close the open segment if it is due, wait for it in the directory, and return its name.

        :raises ReceiverDown: if pg_receivewal is not connected, lost its WAL, or does not deliver.
        :raises ExportFailed: if the source does not let us in, or fails a query.
        """
        with self._server.naming_errors(), self._server.connect() as connection:
            connection.autocommit = True
            self._demand_receiver(connection)
            return self._close(connection)

    def _close(self, connection: psycopg.Connection) -> str | None:
        if _value(connection, "SELECT pg_is_in_recovery()"):
            log.info("%s is a standby, which has no open segment of its own", self._server.name)
            return None
        row = connection.execute(_STATE).fetchone()
        assert row is not None  # noqa: S101 - a function in FROM returns one row
        file_name, lsn, segment_bytes, snapshot = row
        timeline = int(file_name[:8], 16)
        # Not file_name itself: at a segment's first byte it is still that of the segment before.
        segment = segment_of(parse_lsn(lsn), timeline, segment_bytes)
        noted = self._noted(str(segment))
        if time.time() - noted.since < self._older_than_s or noted.snapshot == snapshot:
            self._note(noted)
            return None
        end = parse_lsn(_value(connection, "SELECT pg_switch_wal()::text"))
        if end % segment_bytes == 0:
            return None  # not a byte was written to it, and PostgreSQL closed nothing
        closed = segment_of(end, timeline, segment_bytes)
        # The snapshot from before the switch: who ended in between makes one switch too many, never one too few.
        self._note(_Open(str(closed.next(segment_bytes)), time.time(), snapshot))
        self._await(str(closed))
        log.info("closed %s, which was open for over %.0f s with writes in it", closed, self._older_than_s)
        return str(closed)

    def _noted(self, segment: str) -> _Open:
        """What is known of the open segment; where it is not the noted one, it began when the one before it ended."""
        note = self._spool.read_note()
        try:
            noted = _Open(str(note["segment"]), float(note["since"]), note["snapshot"])
        except (KeyError, TypeError, ValueError):
            return _Open(segment, time.time(), None)
        if noted.segment == segment:
            return noted
        finished = [file.finished_at for file in self._spool.files() if file.segment]
        return _Open(segment, max(finished, default=time.time()), None)

    def _note(self, state: _Open) -> None:
        self._spool.write_note({"segment": state.segment, "since": state.since, "snapshot": state.snapshot})

    def _await(self, segment: str) -> None:
        deadline = time.monotonic() + self._receiver_patience_s
        while not self._spool.contains(segment):
            if time.monotonic() > deadline:
                raise ReceiverDown(
                    f"{segment} was closed {self._receiver_patience_s:.0f} s ago and is not in "
                    f"{self._spool.directory}: pg_receivewal is connected and does not keep up, or writes elsewhere",
                    remedy=_SYSTEMCTL,
                )
            time.sleep(_POLL_S)

    def _demand_receiver(self, connection: psycopg.Connection) -> None:
        """Give a pg_receivewal that is just being restarted a moment."""
        deadline = time.monotonic() + self._receiver_patience_s
        while True:
            row = connection.execute(_RECEIVER, [SLOT]).fetchone()
            if row is None:
                raise ReceiverDown(
                    f"{self._server.name} has no replication slot {SLOT}: nobody receives its WAL",
                    remedy=f"pg_receivewal --create-slot --slot={SLOT} there, then start its unit",
                )
            active, wal_status = row
            if wal_status == "lost":
                raise ReceiverDown(
                    f"{self._server.name} has removed WAL that slot {SLOT} still needed (max_slot_wal_keep_size)",
                    remedy="drop and create the slot, start pg_receivewal, and trigger pv_backup_weekly_basebackup now",
                )
            if active:
                return
            if time.monotonic() > deadline:
                raise ReceiverDown(
                    f"no pg_receivewal is connected to slot {SLOT} of {self._server.name}; its WAL piles up there",
                    remedy=_SYSTEMCTL,
                )
            time.sleep(_POLL_S)


def _value(connection: psycopg.Connection, query: LiteralString) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM returns one row
    return row[0]
