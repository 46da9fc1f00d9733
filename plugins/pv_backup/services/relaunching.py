"""Bring a day to where a dump may start, and see afterwards that it has its backup (SPEC F6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.database import transaction
from pv_backup.services.errors import (
    BackupVanished,
    CircuitBreakerOpen,
    NotPublished,
    TransitionRefused,
)
from pv_backup.services.leases import is_expired
from pv_backup.services.manifest import published
from pv_backup.services.models import CLOSED, BackupExecution, BackupStatus
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.state import StateMachine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DayRow:
    """What the row of a day's dump says.

    :ivar is_alive: whether a worker holds it RUNNING under a lease that has not run out.
    :ivar is_first: whether no attempt of the day has failed yet.
    :ivar note: run, lease or error, for a message.
    """

    backup_id: str
    status: BackupStatus
    is_alive: bool
    is_first: bool
    note: str


def row_of_dump(sessions: sessionmaker[Session], day: date) -> DayRow | None:
    """Look at a day, None if no run ever opened it.

    :raises JournalUnavailable: ERR-47-06.
    """
    statement = select(BackupExecution).where(BackupExecution.type == ArtefactType.PG_DUMP, BackupExecution.day == day)
    with transaction(sessions, f"looking at the dump of {day}") as session:
        row = session.execute(statement).scalar_one_or_none()
        if row is None:
            return None
        status = BackupStatus(row.status)
        alive = status is BackupStatus.RUNNING and not is_expired(session, row)
        note = f"run {row.run_id}, lease until {row.lease_expires_at}" if alive else row.error_text or ""
        return DayRow(row.backup_id, status, alive, row.replanification_count == 0, note)


@dataclass(frozen=True, kw_only=True)
class Relaunch:
    """The two looks that a relaunch takes at a day, before and after the dump.

    :ivar store: the bucket; a row that claims a backup is never believed without it.
    """

    day: date
    sessions: sessionmaker[Session]
    store: ObjectStore

    def prepare(self, *, max_replanification_cycles: int) -> bool:
        """FAILED → SCHEDULED; every other open day is left to the dump, which knows what to do with it.

        :returns: False if the day has its backup, so that there is nothing to start.
        :raises CircuitBreakerOpen: if the day failed too often (DI-01).
        :raises BackupVanished: if the day is closed and the bucket has no backup of it.
        """
        row = row_of_dump(self.sessions, self.day)
        if row is None:
            return True
        if row.status in CLOSED:
            self._demand_published(row)
            return False
        if row.status is BackupStatus.FAILED:
            try:
                StateMachine(self.sessions).schedule_again(
                    row.backup_id, max_replanification_cycles=max_replanification_cycles
                )
            except CircuitBreakerOpen:
                raise
            except TransitionRefused as refused:
                log.info("another run was first: %s", refused.what)
        return True

    def confirm(self) -> str:
        """The backup_id of the day's backup, which row and bucket agree on.

        :raises NotPublished: if the row is not SUCCESS.
        :raises BackupVanished: if it is, and the bucket has no such backup.
        """
        row = row_of_dump(self.sessions, self.day)
        if row is None or row.status not in CLOSED:
            state = f"{row.status} ({row.note})" if row else "absent"
            raise NotPublished(
                f"the dump of {self.day} ended well, but its row is {state}",
                remedy="look at the log of the dump's last task, and at the day's row in backup_executions",
            )
        self._demand_published(row)
        return row.backup_id

    def _demand_published(self, row: DayRow) -> None:
        key = object_key_of_day(ArtefactType.PG_DUMP, self.day)
        manifest = published(self.store, key)
        if manifest is None or manifest.backup_id != row.backup_id:
            found = f"backup {manifest.backup_id}" if manifest else "no published backup"
            raise BackupVanished(
                f"{key}: the journal says {row.status} of backup {row.backup_id}, and the bucket has {found}",
                remedy="find out who deleted or replaced it; older versions of the object may still be in the bucket. "
                "A closed day is never dumped again: take a dump of the next day now",
            )
