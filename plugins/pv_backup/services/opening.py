"""The row of a day: found or made, and refused to a run that must not have it (SPEC section 3)."""

from __future__ import annotations

from datetime import date
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.errors import DayClosed, RunAlive
from pv_backup.services.leases import is_expired
from pv_backup.services.models import CLOSED, BackupExecution


class RunDead(RunAlive):
    """The row is RUNNING but nobody renews its lease: the caller may settle it (``Leases.take_over``)."""

    def __init__(self, backup_id: str, what: str, *, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.backup_id = backup_id


def row_of_day(
    session: Session, artefact_type: ArtefactType, day: date, *, backup_id: str | None = None
) -> BackupExecution:
    """Lock the day's row, made now if there was none; of two workers that make it, the second waits for the first.

    :param backup_id: of a row that is made; None draws one.
    """
    own = backup_id or str(uuid4())
    session.execute(
        insert(BackupExecution)
        .values(backup_id=own, type=artefact_type, day=day, object_key=object_key_of_day(artefact_type, day))
        .on_conflict_do_nothing(index_elements=[BackupExecution.type, BackupExecution.day])
    )
    statement = (
        select(BackupExecution)
        .where(BackupExecution.type == artefact_type, BackupExecution.day == day)
        .with_for_update()
    )
    return session.execute(statement).scalar_one()


def refuse_if_closed(row: BackupExecution) -> None:
    """A published day stays as it is, its object expired or not.

    :raises DayClosed: naming the backup.
    """
    if row.status in CLOSED:
        raise DayClosed(
            f"{row.type} of {row.day} is {row.status} as backup {row.backup_id} ({row.object_key}) "
            f"since {row.finished_at}",
            remedy="nothing needs doing; a published day is never backed up again",
        )


def refuse_taken(session: Session, row: BackupExecution) -> None:
    """Leave a RUNNING row to the run that works on it.

    :raises RunAlive: while its lease lasts.
    :raises RunDead: afterwards.
    """
    work = f"{row.type} of {row.day} (backup {row.backup_id}) is RUNNING in run {row.run_id}"
    if is_expired(session, row):
        raise RunDead(
            row.backup_id,
            f"{work}, whose lease expired at {row.lease_expires_at}",
            remedy="settle that attempt first: reconciliation does, or a new run of the day",
        )
    raise RunAlive(f"{work}, under a lease until {row.lease_expires_at}", remedy="wait for that run's end")
