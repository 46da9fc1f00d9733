"""Which rows a crash left behind: asked of the journal database, and judged by its clock and not by a worker's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.database import transaction
from pv_backup.services.models import BackupExecution, BackupStatus


@dataclass(frozen=True)
class LeftRow:
    """A row that nobody works on, by its current attempt."""

    backup_id: str
    artefact_type: ArtefactType
    day: date

    @property
    def name(self) -> str:
        """As alerts and log lines call it: ``pg_dump/2026-11-22``."""
        return f"{self.artefact_type}/{self.day}"


class LeftBehind:
    """Reads rows, locks none and changes none.

    Every method raises :class:`JournalUnavailable` when the database can't be used.
    """

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def dead_runs(self) -> list[LeftRow]:
        """RUNNING rows whose lease ran out, or that have none; the oldest first."""
        lease = BackupExecution.lease_expires_at
        return self._rows(
            "looking for runs whose lease ran out",
            BackupExecution.status == BackupStatus.RUNNING,
            or_(lease.is_(None), lease <= func.clock_timestamp()),
        )

    def never_started(self, scheduled_timeout_s: float) -> list[LeftRow]:
        """SCHEDULED rows that no run has taken for so many seconds; the oldest first."""
        return self._rows(
            "looking for rows that no run has taken",
            BackupExecution.status == BackupStatus.SCHEDULED,
            BackupExecution.scheduled_at <= func.clock_timestamp() - timedelta(seconds=scheduled_timeout_s),
        )

    def failed(self, artefact_types: Collection[ArtefactType], day: date) -> list[LeftRow]:
        """The rows of a day that are FAILED now."""
        return self._rows(
            f"looking what failed on {day}",
            BackupExecution.status == BackupStatus.FAILED,
            BackupExecution.type.in_(artefact_types),
            BackupExecution.day == day,
        )

    def running(self, object_keys: Collection[str]) -> set[str]:
        """Those of the object keys whose row is RUNNING: alive, or dead and not settled yet."""
        statement = select(BackupExecution.object_key).where(
            BackupExecution.object_key.in_(object_keys), BackupExecution.status == BackupStatus.RUNNING
        )
        with transaction(self._sessions, "looking whose uploads are open") as session:
            return set(session.execute(statement).scalars())

    def _rows(self, doing: str, *conditions: ColumnElement[bool]) -> list[LeftRow]:
        statement = (
            select(BackupExecution.backup_id, BackupExecution.type, BackupExecution.day)
            .where(*conditions)
            .order_by(BackupExecution.scheduled_at, BackupExecution.id)
        )
        with transaction(self._sessions, doing) as session:
            return [LeftRow(backup_id, ArtefactType(kind), day) for backup_id, kind, day in session.execute(statement)]
