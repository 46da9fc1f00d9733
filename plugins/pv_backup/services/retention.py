"""Follow a backup to its end (SPEC F8): SUCCESS → EXPIRED after 30 days, EXPIRED → DELETED once the bucket let it go.

Nothing is deleted here: the bucket's lifecycle does that, and the backup user may not. So this is also where it is
noticed that the lifecycle does not work, or that something other than the lifecycle removed a backup.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.database import transaction
from pv_backup.services.errors import (
    BackupVanished,
    LifecycleIdle,
    PvBackupError,
    RetryableError,
    TransitionRefused,
)
from pv_backup.services.manifest import published
from pv_backup.services.models import BackupExecution, BackupStatus
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.state import StateMachine
from pv_backup.services.validation import check_object_key

log = logging.getLogger(__name__)

#: How long a backup is kept; the bucket's lifecycle rule says the same (SPEC section 5).
RETENTION: Final = timedelta(days=30)
#: How long the lifecycle may take with an expired object before somebody must look; S3 takes a day or two.
LIFECYCLE_PATIENCE: Final = timedelta(days=7)

_LOOK_FOR_VERSIONS: Final = (
    "find out who deletes or overwrites in the bucket; an older version may still be there "
    "(`aws s3api list-object-versions`), which an administrator can bring back; till then restore from another day"
)


@dataclass
class RetentionReport:
    """What a run found and did; backups are named as ``pg_dump/2026-11-22``.

    :ivar expired: went from SUCCESS to EXPIRED; deleted: from EXPIRED to DELETED.
    :ivar present: are within their 30 days, and published in the bucket.
    :ivar vanished: are within their 30 days, and not published any more.
    :ivar overdue: expired over a week ago, and still in the bucket; the oldest first.
    :ivar errors: what kept single backups from being judged or moved.
    """

    expired: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    vanished: dict[str, BackupVanished] = field(default_factory=dict)
    overdue: list[str] = field(default_factory=list)
    errors: dict[str, PvBackupError] = field(default_factory=dict)

    def lifecycle_idle(self, bucket: str) -> LifecycleIdle | None:
        """The warning that expired objects stay; None while they go in time."""
        if not self.overdue:
            return None
        return LifecycleIdle(
            f"{len(self.overdue)} backups that expired over {LIFECYCLE_PATIENCE.days} days ago are still in "
            f"s3://{bucket}, the oldest is {self.overdue[0]}",
            remedy=f"look at the bucket's lifecycle rule: it must expire objects after {RETENTION.days} days",
        )


@dataclass(frozen=True)
class _Aged:
    """A row, and by the database's clock how long ago it succeeded and its attempt began."""

    row: BackupExecution
    finished: timedelta
    started: timedelta

    @property
    def name(self) -> str:
        return f"{self.row.type}/{self.row.day}"

    @property
    def is_due(self) -> bool:
        return self.row.status == BackupStatus.SUCCESS and self.finished > RETENTION

    @property
    def may_be_gone(self) -> bool:
        """The lifecycle counts from the upload: after the attempt's start, and before its success was recorded."""
        return self.started > RETENTION


class Retention:
    """Looks at every row first and moves rows afterwards, so that an S3 that fails half-way changes nothing.

    :param sessions: of the journal database.
    """

    def __init__(self, *, sessions: sessionmaker[Session], store: ObjectStore) -> None:
        self._sessions = sessions
        self._store = store
        self._machine = StateMachine(sessions)
        self._report = RetentionReport()

    def run(self) -> RetentionReport:
        """Judge all rows, then make the moves that are due; what one row meets does not stop the others.

        :raises StoreUnavailable: if S3 is away; nothing was changed then.
        :raises ConfigurationError: if the bucket is not there, or may not be listed; likewise.
        :raises JournalUnavailable: if the journal is away; moves that were made stand.
        """
        self._demand_bucket()
        self._report = report = RetentionReport()
        rows = self._rows()
        gone = [aged for aged in rows if self._has_let_go(aged)]
        for aged in rows:
            if aged.is_due and self._moved(aged, BackupStatus.EXPIRED):
                report.expired.append(aged.name)
        if report.vanished and not report.present:
            log.error(
                "s3://%s has none of the backups that it must have: the right bucket? None is recorded as DELETED",
                self._store.bucket,
            )
            return report
        for aged in gone:
            if self._moved(aged, BackupStatus.DELETED):
                report.deleted.append(aged.name)
        return report

    def _demand_bucket(self) -> None:
        """Every object is missing in a bucket that is not there, but only a listing says so."""
        next(self._store.keys_between("", "0", "~"), None)

    def _rows(self) -> list[_Aged]:
        now = func.clock_timestamp()
        statement = (
            select(BackupExecution, now - BackupExecution.finished_at, now - BackupExecution.started_at)
            .where(BackupExecution.status.in_([BackupStatus.SUCCESS, BackupStatus.EXPIRED]))
            .order_by(BackupExecution.day, BackupExecution.type)
        )
        with transaction(self._sessions, "looking for backups whose 30 days are over") as session:
            return [_Aged(*row) for row in session.execute(statement)]

    def _has_let_go(self, aged: _Aged) -> bool:
        """Whether the bucket no longer has a backup that it need not have; what it must have is looked at too."""
        try:
            # A key that is nobody's has no object either, which would read as deleted.
            check_object_key(ArtefactType(aged.row.type), aged.row.object_key)
            if aged.row.status == BackupStatus.SUCCESS and not aged.is_due:
                self._look_at_the_young(aged)
                return False
            if self._store.head(aged.row.object_key) is None:
                return True
            if aged.finished > RETENTION + LIFECYCLE_PATIENCE:
                self._report.overdue.append(aged.name)
        except RetryableError:
            raise  # an outage, which the next row would meet as well
        except PvBackupError as error:
            self._note(aged, error)
        return False

    def _look_at_the_young(self, aged: _Aged) -> None:
        row, place = aged.row, f"s3://{self._store.bucket}/{aged.row.object_key}"
        manifest = published(self._store, row.object_key)
        if manifest is not None and manifest.backup_id == row.backup_id:
            self._report.present.append(aged.name)
            return
        if aged.may_be_gone:
            log.info("%s is gone, and its 30 days are over in a few hours", place)
            return
        if self._store.head(row.object_key) is None:
            what = f"{place} is gone"
        else:
            what = f"{place} is not that backup any more: replaced, marked invalid, or without its manifest"
        self._report.vanished[aged.name] = BackupVanished(
            f"{row.type} of {row.day} is SUCCESS as backup {row.backup_id} since {row.finished_at}, and {what}",
            remedy=_LOOK_FOR_VERSIONS,
        )

    def _moved(self, aged: _Aged, to: BackupStatus) -> bool:
        """Make a move; False if it was refused, because another worker made it first."""
        try:
            self._machine.transition(aged.row.backup_id, to)
        except TransitionRefused as refused:
            log.warning("%s", refused)
            return False
        except RetryableError:
            raise
        except PvBackupError as error:
            self._note(aged, error)
            return False
        return True

    def _note(self, aged: _Aged, error: PvBackupError) -> None:
        log.error("%s: %s", aged.name, error)
        self._report.errors[aged.name] = error
