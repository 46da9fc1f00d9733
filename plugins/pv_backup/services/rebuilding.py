"""Rebuild a lost journal from what the bucket holds: each artefact read back first, never trusted (SPEC F7)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.adoption import AdoptingStateMachine, Found
from pv_backup.services.attempts import Artefact
from pv_backup.services.database import transaction
from pv_backup.services.errors import FormatRejected, IntegrityError, RefusedError, TransitionRefused
from pv_backup.services.journal import Audit, Journal
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest, stored_header
from pv_backup.services.models import BackupAuditEvent, BackupExecution, BackupJournalEvent, JsonValue
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.restoration.catalogue import day_of
from pv_backup.services.restoration.sweep import ReadBack, read_back_backups, read_back_wal
from pv_backup.services.validation import check_timestamp
from pv_backup.services.wal_objects import journal_event

log = logging.getLogger(__name__)

#: The audit events of a rebuild: bucket, by; at its end also backups, wal_files, damaged.
BEGUN: Final = "journal_rebuild_begun"
FINISHED: Final = "journal_rebuild_finished"
#: An object that is not what it must be, and so is not in the rebuilt journal: object_key, reason.
LEFT_OUT: Final = "journal_rebuild_left_out"

# What a row has columns for; the rest of a manifest are its facts.
_IN_COLUMNS: Final = frozenset(
    {
        "format_version",
        "backup_id",
        "backup_type",
        "key",
        "hash_sha3_256",
        "size_bytes",
        "header_tag",
        "wrapped_dek",
        "k_backup_version",
        "finished_at",
    }
)
_TABLES: Final = (BackupExecution, BackupJournalEvent, BackupAuditEvent)


@dataclass
class RebuildReport:
    """What a rebuild did.

    :ivar backups: keys that have their row and event now.
    :ivar wal_files: how many WAL files have theirs.
    :ivar there: how many an interrupted rebuild had done before.
    :ivar damaged: keys that were left out, and why.
    """

    backups: list[str] = field(default_factory=list)
    wal_files: int = 0
    there: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


class JournalRebuild:
    """Fills an empty journal database.

    Whatever the lost journal knew of failures, alerts and drills is not in the bucket and does not come back.

    :param sessions: of the journal database, migrated.
    :param by: who does it, for the audit.
    """

    def __init__(self, *, sessions: sessionmaker[Session], store: ObjectStore, keys: KeyWrapper, by: str) -> None:
        self._sessions = sessions
        self._store = store
        self._keys = keys
        self._by = by
        self._machine = AdoptingStateMachine(sessions)
        self._journal = Journal(sessions)
        self._audit = Audit(sessions)

    def run(self) -> RebuildReport:
        """Read the bucket back, artefact by artefact, and record each at once; interrupted, it goes on where it was.

        :raises RefusedError: if the journal has rows that are no unfinished rebuild's.
        :raises JournalUnavailable: ERR-47-06.
        """
        if self._demand_empty():
            self._record(BEGUN)
        report, known = RebuildReport(), self._known()

        def is_known(key: str) -> bool:
            return key in known

        report.there = len(known)
        for found in read_back_backups(self._store, self._keys, is_known):
            self._take(found, report)
        for found in read_back_wal(self._store, self._keys, is_known):
            self._take(found, report)
        self._record(
            FINISHED,
            backups=len(report.backups),
            wal_files=report.wal_files,
            there_before=report.there,
            damaged=len(report.damaged),
        )
        return report

    def _demand_empty(self) -> bool:
        """Whether nothing is there; an unfinished rebuild is let go on."""
        with transaction(self._sessions, "looking whether the journal is empty") as session:
            rows = sum(session.execute(select(func.count()).select_from(table)).scalar_one() for table in _TABLES)
            if rows == 0:
                return True
            first = select(BackupAuditEvent).order_by(BackupAuditEvent.id).limit(1)
            event = session.execute(first).scalar_one_or_none()
            finished = select(func.count()).where(BackupAuditEvent.event_type == FINISHED)
            is_ours = event is not None and event.event_type == BEGUN and event.details["bucket"] == self._store.bucket
            if is_ours and session.execute(finished).scalar_one() == 0:
                log.info("going on with a rebuild that was interrupted")
                return False
        raise RefusedError(
            f"the journal has {rows} rows: only an empty one is rebuilt, since nothing in it may be rewritten",
            remedy="make a new database (roles.sql, then the migrations) and name that one; keep this one",
        )

    def _known(self) -> set[str]:
        with transaction(self._sessions, "reading what is rebuilt already") as session:
            return set(session.execute(select(BackupJournalEvent.object_key)).scalars())

    def _take(self, found: ReadBack, report: RebuildReport) -> None:
        try:
            if found.error is not None:
                raise found.error
            if found.manifest is not None:
                self._machine.adopt(self._found(found.manifest), by=self._by)
                report.backups.append(found.key)
            elif found.expected is not None:
                header, expected = stored_header(self._store, found.key), found.expected
                self._journal.record(journal_event(header, expected.hash_sha3_256, expected.size_bytes))
                report.wal_files += 1
        except (IntegrityError, FormatRejected, TransitionRefused) as error:
            log.error("%s is left out: %s", found.key, error.what)  # noqa: TRY400 - the report carries it on
            report.damaged[found.key] = error.what
            self._record(LEFT_OUT, object_key=found.key, reason=error.what)

    def _found(self, manifest: Manifest) -> Found:
        header = stored_header(self._store, manifest.key)
        return Found(
            backup_id=manifest.backup_id,
            artefact_type=manifest.backup_type,
            day=day_of(manifest),
            artefact=Artefact(
                hash_sha3_256=manifest.hash_sha3_256,
                size_bytes=manifest.size_bytes,
                wrapped_dek=manifest.wrapped_dek,
                iv=header.iv.hex(),
                auth_tag=manifest.header_tag,
                k_backup_version=manifest.k_backup_version,
            ),
            facts={name: value for name, value in manifest.to_json().items() if name not in _IN_COLUMNS},
            began=check_timestamp(manifest.exported_at),
            finished=check_timestamp(manifest.finished_at),
        )

    def _record(self, event_type: str, **counts: JsonValue) -> None:
        self._audit.record(event_type, details={"bucket": self._store.bucket, "by": self._by, **counts})
