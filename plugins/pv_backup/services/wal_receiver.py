"""Look whether pg_receivewal receives what the source writes, into the directory that is shipped (SPEC F2).

A receiver that is down, late, or writes elsewhere looks like an idle night: nothing to ship, nothing wrong. So
the server is asked for its slot, and the directory for the segment that the server is writing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Final

import psycopg

from pv_backup.services.errors import ReceiverDown
from pv_backup.services.wal import SegmentName
from pv_backup.services.wal_spool import WalSpool

log = logging.getLogger(__name__)

SLOT: Final = "pv_backup"
RECEIVER_PATIENCE_S: Final = 10.0
_POLL_S: Final = 0.1
_SYSTEMCTL: Final = "on the host of the WAL directory: `systemctl status pv-backup-receivewal`, and its journal"
# pg_receivewal begins after the newest file of its directory, and only in an empty one at what the slot says.
_START_ANEW: Final = (
    f"drop and create slot {SLOT}, move *.partial and every WAL file that was kept out of the WAL directory (else "
    "pg_receivewal asks for the removed segment again), start it, and trigger pv_backup_weekly_basebackup now"
)
_RECEIVER = "SELECT active, wal_status FROM pg_replication_slots WHERE slot_name = %s"


class ReceiverWatch:
    """Demands a pg_receivewal that is connected and delivers.

    :param source: the source's name, for messages.
    :param patience_s: seconds to wait for one that is being restarted, or for a file.
    """

    def __init__(self, *, source: str, spool: WalSpool, patience_s: float = RECEIVER_PATIENCE_S) -> None:
        self._source = source
        self._spool = spool
        self._patience_s = patience_s

    def demand_connected(self, connection: psycopg.Connection) -> None:
        """Look at the slot.

        :raises ReceiverDown: if there is none, its WAL is lost, or nobody is connected to it.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            row = connection.execute(_RECEIVER, [SLOT]).fetchone()
            if row is None:
                raise ReceiverDown(
                    f"{self._source} has no replication slot {SLOT}: nobody receives its WAL",
                    remedy="start its unit, `systemctl start pv-backup-receivewal`, which makes it",
                )
            active, wal_status = row
            if wal_status == "lost":
                raise ReceiverDown(
                    f"{self._source} has removed WAL that slot {SLOT} still needed (max_slot_wal_keep_size)",
                    remedy=_START_ANEW,
                )
            if active:
                return
            if time.monotonic() > deadline:
                raise ReceiverDown(
                    f"no pg_receivewal is connected to slot {SLOT} of {self._source}; its WAL piles up there",
                    remedy=_SYSTEMCTL,
                )
            time.sleep(_POLL_S)

    def await_finished(self, segment: SegmentName, *, listed: Collection[str]) -> None:
        """Wait until a segment that the server has closed is finished in the directory.

        :param listed: names that were there when the run began; some may have been shipped since.
        :raises ReceiverDown: if it does not come.
        """
        self._await(
            lambda: str(segment) in listed or self._spool.contains(str(segment)), f"{segment} was closed, and is not"
        )

    def await_received(self, segment: SegmentName) -> None:
        """Wait until the segment in which the server writes has begun to come.

        :raises ReceiverDown: if the directory has nothing of it, nor of a later one.
        """

        def has_come() -> bool:
            newest = self._spool.newest()
            return newest is not None and (newest.log, newest.segment) >= (segment.log, segment.segment)

        self._await(has_come, f"{self._source} writes {segment}, of which nothing is")

    def _await(self, has_come: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._patience_s
        while not has_come():
            if time.monotonic() > deadline:
                raise ReceiverDown(
                    f"{what} in {self._spool.directory} after {self._patience_s:.0f} s: pg_receivewal is connected, "
                    "and is behind or writes elsewhere",
                    remedy=f"compare its --directory with PV_BACKUP_WAL_DIRECTORY; {_SYSTEMCTL}",
                )
            time.sleep(_POLL_S)
