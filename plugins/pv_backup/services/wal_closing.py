"""Close the open segment of a quiet server, so that a committed row does not wait for 16 MiB of others (SPEC F2).

pg_receivewal hands over finished segments only, and `archive_timeout` does not finish them for it. So
pg_switch_wal does, when the segment is older than a minute and a transaction ended since the last one
was closed. What a server writes on its own account (checkpoints, snapshots of running transactions) does
not count: it would close a segment every minute of an idle night.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Final

import psycopg

from pv_backup.services.errors import ConfigurationError
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.wal import SegmentName, parse_lsn, segment_of
from pv_backup.services.wal_receiver import RECEIVER_PATIENCE_S, ReceiverWatch
from pv_backup.services.wal_spool import LONG_HEADER_BYTES, WalSpool

log = logging.getLogger(__name__)

OPEN_SEGMENT_S: Final = 60.0
_NOTE: Final = "open_segment"

# A snapshot changes when a transaction with an id ends, and not before: pg_current_snapshot() is xmin:xmax:running,
# and xmax follows the last one that ended (https://www.postgresql.org/docs/15/functions-info.html, table 9.79).
_STATE = """
SELECT pg_walfile_name(lsn), lsn::text, pg_size_bytes(current_setting('wal_segment_size')), pg_current_snapshot()::text
  FROM pg_current_wal_insert_lsn() AS lsn
"""


@dataclass(frozen=True)
class _Open:
    """The open segment as this run sees it, or as an earlier one noted it.

    :ivar since: Unix seconds from which its age is counted.
    :ivar snapshot: of the transactions that had ended before it was opened; None if that is not known.
    :ivar awaited: a segment that was closed and was not seen in the directory yet.
    """

    segment: str
    since: float
    snapshot: str | None
    awaited: str | None = None


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
        self._receiver = ReceiverWatch(source=server.name, spool=spool, patience_s=receiver_patience_s)

    def close_if_due(self, *, listed: Collection[str] = ()) -> str | None:
        """Close the open segment if it is due, wait for it in the directory, and return its name.

        :param listed: names of the finished files that were there when the run began.
        :raises ReceiverDown: if pg_receivewal is not connected, lost its WAL, or does not deliver.
        :raises ExportFailed: if the source does not let us in, or fails a query.
        :raises ConfigurationError: if the role may not do what this needs.
        """
        with self._server.naming_errors():
            try:
                with self._server.connect() as connection:
                    connection.autocommit = True
                    return self._close(connection, listed)
            except psycopg.errors.InsufficientPrivilege as error:
                raise ConfigurationError(
                    f"the role of {self._server.name} may not close WAL segments: {str(error).splitlines()[0]}",
                    remedy="make it a superuser, or GRANT it pg_monitor and EXECUTE ON FUNCTION pg_switch_wal()",
                ) from None

    def _close(self, connection: psycopg.Connection, listed: Collection[str]) -> str | None:
        self._receiver.demand_connected(connection)
        (in_recovery,) = one_row(connection, "SELECT pg_is_in_recovery()")
        if in_recovery:
            log.info("%s is a standby, which has no open segment of its own", self._server.name)
            return None
        file_name, lsn_text, segment_bytes, snapshot = one_row(connection, _STATE)
        lsn = parse_lsn(lsn_text)
        # Not file_name itself: at a segment's first byte it is still that of the segment before.
        segment = segment_of(lsn, int(file_name[:8], 16), segment_bytes)
        noted = self._delivered(self._noted(str(segment)), listed)
        if time.time() - noted.since >= self._older_than_s and noted.snapshot != snapshot:
            return self._switch(connection, segment, segment_bytes, snapshot)
        # The header of a segment's first page is nobody's write.
        if lsn % segment_bytes > LONG_HEADER_BYTES:
            self._receiver.await_received(segment)
        return None

    def _switch(
        self, connection: psycopg.Connection, segment: SegmentName, segment_bytes: int, snapshot: str
    ) -> str | None:
        (end_text,) = one_row(connection, "SELECT pg_switch_wal()::text")
        end = parse_lsn(end_text)
        if end % segment_bytes == 0:
            return None  # not a byte was written to it, and PostgreSQL closed nothing
        # A switch that fills its segment to the last byte ends after the next one's header.
        closed = segment_of(end - LONG_HEADER_BYTES, segment.timeline, segment_bytes)
        # The snapshot from before the switch: who ended in between makes one switch too many, never one too few.
        opened = _Open(str(closed.next(segment_bytes)), time.time(), snapshot)
        self._note(replace(opened, awaited=str(closed)))
        self._receiver.await_finished(closed, listed=())
        self._note(opened)
        log.info("closed %s, which was open for over %.0f s with writes in it", closed, self._older_than_s)
        return str(closed)

    def _delivered(self, noted: _Open, listed: Collection[str]) -> _Open:
        """Wait for what an earlier run closed and did not see come, and note what is known by now.

        :raises ReceiverDown: if it still does not come; the note keeps it.
        """
        awaited = SegmentName.parse(noted.awaited or "")
        self._note(noted)
        if awaited is not None:
            self._receiver.await_finished(awaited, listed=listed)
            noted = replace(noted, awaited=None)
            self._note(noted)
        return noted

    def _noted(self, segment: str) -> _Open:
        """What is known of the open segment; where it is not the noted one, it began when the one before it ended."""
        now, note = time.time(), self._spool.read_note(_NOTE)
        try:
            # A clock that was ahead must not keep a segment open until it is right again.
            noted = _Open(str(note["segment"]), min(float(note["since"]), now), note["snapshot"], note.get("awaited"))
        except (KeyError, TypeError, ValueError):
            return _Open(segment, now, None)
        if noted.segment == segment:
            return noted
        finished = [file.finished_at for file in self._spool.files() if file.segment]
        return _Open(segment, min(max(finished, default=now), now), None, noted.awaited)

    def _note(self, state: _Open) -> None:
        self._spool.write_note(_NOTE, asdict(state))
