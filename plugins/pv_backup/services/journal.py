"""The record that nobody rewrites (SPEC section 4): an attempt's outcome in the journal, all else in the audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.database import transaction
from pv_backup.services.evidence.storable import storable
from pv_backup.services.models import BackupAuditEvent, BackupJournalEvent, JsonValue, Outcome
from pv_backup.services.validation import check_backup_id, check_hash, check_object_key, check_size

#: Characters of an error's text that a row keeps; the whole is in the task's log.
ERROR_TEXT_MAX: Final = 4000


@dataclass(frozen=True, kw_only=True)
class JournalEvent:
    """How one attempt ended. ``day`` is None for WAL files; ``size_bytes`` is that of the S3 object."""

    backup_id: str
    artefact_type: ArtefactType
    day: date | None
    outcome: Outcome
    object_key: str
    hash_sha3_256: str | None = None
    size_bytes: int | None = None
    k_backup_version: int | None = None
    error_code: str | None = None
    error_text: str | None = None

    def validate(self) -> None:
        """Refuse a malformed event before it stands in the journal for good.

        :raises FormatRejected: naming the field.
        """
        check_backup_id(self.backup_id)
        check_object_key(self.artefact_type, self.object_key)
        if self.outcome is Outcome.SUCCESS or self.hash_sha3_256 is not None:
            check_hash(self.hash_sha3_256 or "")
        if self.outcome is Outcome.SUCCESS or self.size_bytes is not None:
            check_size(self.size_bytes or 0)


class Journal:
    """The outcomes; the first one written for a backup_id stands (INV-47-05)."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def write(self, session: Session, event: JournalEvent) -> Outcome:
        """Add an outcome inside the caller's transaction, so that status and journal change together or not at all.

        :returns: the outcome that stands: another one than the event's when an earlier event had settled it.
        :raises FormatRejected: before any side effect.
        """
        event.validate()
        statement = (
            insert(BackupJournalEvent)
            .values(
                backup_id=event.backup_id,
                type=event.artefact_type,
                day=event.day,
                outcome=event.outcome,
                object_key=event.object_key,
                hash_sha3_256=event.hash_sha3_256,
                size_bytes=event.size_bytes,
                k_backup_version=event.k_backup_version,
                error_code=event.error_code,
                error_text=None if event.error_text is None else fitting(event.error_text),
            )
            .on_conflict_do_nothing(index_elements=[BackupJournalEvent.backup_id])
        )
        session.execute(statement)
        standing = select(BackupJournalEvent.outcome).where(BackupJournalEvent.backup_id == event.backup_id)
        return Outcome(session.execute(standing).scalar_one())

    def record(self, event: JournalEvent) -> Outcome:
        """Add an outcome that no row goes with, in a transaction of its own.

        :returns: the outcome that stands.
        :raises JournalUnavailable: ERR-47-06.
        """
        with transaction(self._sessions, f"journaling {event.object_key}") as session:
            return self.write(session, event)

    def event_of(self, backup_id: str) -> BackupJournalEvent | None:
        """What the journal says of an attempt, None while it has not ended.

        :raises JournalUnavailable: ERR-47-06.
        """
        check_backup_id(backup_id)
        with transaction(self._sessions, f"reading the journal of backup {backup_id}") as session:
            statement = select(BackupJournalEvent).where(BackupJournalEvent.backup_id == backup_id)
            return session.execute(statement).scalar_one_or_none()


class Audit:
    """Everything worth keeping that is no outcome: refused moves, new attempts, settlements, alerts."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def record(self, event_type: str, *, backup_id: str | None = None, details: Mapping[str, JsonValue]) -> None:
        """Add an event in a transaction of its own, which survives when the caller's is rolled back.

        :raises JournalUnavailable: ERR-47-06.
        """
        with transaction(self._sessions, f"recording {event_type} in the audit of backup {backup_id}") as session:
            self.write(session, event_type, backup_id=backup_id, details=details)

    def write(
        self, session: Session, event_type: str, *, backup_id: str | None = None, details: Mapping[str, JsonValue]
    ) -> None:
        """Add an event inside the caller's transaction, for what must not be true without its record."""
        if backup_id is not None:
            check_backup_id(backup_id)
        kept = {name: fitting(value) if isinstance(value, str) else value for name, value in details.items()}
        session.add(BackupAuditEvent(backup_id=backup_id, event_type=event_type, details=kept))

    def events_of(self, backup_id: str) -> list[BackupAuditEvent]:
        """What was recorded of an attempt, oldest first.

        :raises JournalUnavailable: ERR-47-06.
        """
        check_backup_id(backup_id)
        with transaction(self._sessions, f"reading the audit of backup {backup_id}") as session:
            statement = (
                select(BackupAuditEvent).where(BackupAuditEvent.backup_id == backup_id).order_by(BackupAuditEvent.id)
            )
            return list(session.execute(statement).scalars())


def fitting(text: str) -> str:
    """Make any text fit a row, in length too: an error's own text must never be the reason that it isn't recorded."""
    return str(storable(text, most=ERROR_TEXT_MAX))
