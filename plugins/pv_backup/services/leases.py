"""Leases: who may work on a running backup, and until when (SPEC section 3).

A lease is a token in the row and a time by the database's clock. Whoever acquires it draws a new token, so that a
predecessor that only seemed dead finds itself locked out, instead of two workers writing one object.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.database import clock, transaction
from pv_backup.services.errors import AttemptOver, LeaseLost, RunAlive
from pv_backup.services.models import BackupExecution, BackupStatus
from pv_backup.services.validation import check_backup_id

_STOP = "stop this worker: it may neither complete an upload nor publish"


@dataclass(frozen=True)
class Lease:
    """The right to work on one attempt; it fits in an XCom and is no secret."""

    backup_id: str
    token: str

    def __post_init__(self) -> None:
        """Refuse a malformed backup_id here, for every method that is handed a lease."""
        check_backup_id(self.backup_id)


class Leases:
    """Takes, keeps and hands over the leases of RUNNING rows; every time is the database's."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def acquire(self, backup_id: str, lease_s: float) -> Lease:
        """Take the lease for the next task of the same run, expired or not, and fence whoever held it.

        :raises LeaseLost: when the backup_id is no longer that of a running attempt.
        """
        check_backup_id(backup_id)
        with transaction(self._sessions, f"acquiring the lease of backup {backup_id}") as session:
            return grant(session, running_row(session, backup_id), lease_s)

    def take_over(self, backup_id: str, lease_s: float) -> Lease:
        """Take the lease of a run that is dead, to settle what it left; a live one keeps its own.

        :raises RunAlive: while the lease has not expired.
        :raises LeaseLost: when the backup_id is no longer that of a running attempt.
        """
        check_backup_id(backup_id)
        with transaction(self._sessions, f"taking over the lease of backup {backup_id}") as session:
            row = running_row(session, backup_id)
            if not is_expired(session, row):
                raise RunAlive(
                    f"backup {backup_id} is worked on by run {row.run_id} until {row.lease_expires_at}",
                    remedy="leave it alone, or wait until its lease has expired",
                )
            return grant(session, row, lease_s)

    def renew(self, lease: Lease, lease_s: float) -> None:
        """Stay in charge for ``lease_s`` seconds from now.

        A lease that ran out is renewed as long as nobody took it over: the database was away, or the worker slept,
        and the token still keeps everybody else out.

        :raises LeaseLost: saying whether the lease was taken or the attempt ended.
        """
        with transaction(self._sessions, f"renewing the lease of backup {lease.backup_id}") as session:
            row = held_row(session, lease)
            row.lease_expires_at = clock(session) + timedelta(seconds=lease_s)

    def hand_over(self, lease: Lease, handover_s: float) -> None:
        """Leave the attempt to the next task, which has ``handover_s`` seconds to acquire it.

        :raises LeaseLost: as :meth:`renew`: who lost the lease has nothing to hand over.
        """
        self.renew(lease, handover_s)


def grant(session: Session, row: BackupExecution, lease_s: float) -> Lease:
    """Write a new token into a locked row: the old one is worth nothing from here on."""
    row.lease_token = str(uuid4())
    row.lease_expires_at = clock(session) + timedelta(seconds=lease_s)
    return Lease(backup_id=row.backup_id, token=row.lease_token)


def is_expired(session: Session, row: BackupExecution) -> bool:
    """Whether nobody works on a locked row any more; a RUNNING row without a lease is nobody's either."""
    return row.lease_expires_at is None or row.lease_expires_at <= clock(session)


def locked_row(session: Session, backup_id: str) -> BackupExecution | None:
    """The row whose current attempt this is, locked until the transaction ends."""
    statement = select(BackupExecution).where(BackupExecution.backup_id == backup_id).with_for_update()
    return session.execute(statement).scalar_one_or_none()


def running_row(session: Session, backup_id: str) -> BackupExecution:
    """Lock the row of a running attempt.

    :raises LeaseLost: when there is no such attempt or it ended.
    """
    row = locked_row(session, backup_id)
    if row is None:
        raise LeaseLost(f"backup {backup_id} is no current attempt: a newer one has replaced it", remedy=_STOP)
    if row.status != BackupStatus.RUNNING:
        raise AttemptOver(
            f"backup {backup_id} is {row.status}, not RUNNING: {row.error_text or 'it ended'}",
            succeeded=row.status == BackupStatus.SUCCESS,
            remedy="this attempt is over: trigger a new run rather than clearing single tasks of the old one",
        )
    return row


def held_row(session: Session, lease: Lease) -> BackupExecution:
    """Lock the row and make sure that the bearer still holds it.

    :raises LeaseLost: saying whether the lease was taken or the attempt ended.
    """
    row = running_row(session, lease.backup_id)
    check_held(session, row, lease)
    return row


def check_held(session: Session, row: BackupExecution, lease: Lease) -> None:
    """Make sure that a locked RUNNING row is still the bearer's.

    :raises LeaseLost: if another worker has taken the lease.
    """
    if row.lease_token != lease.token:
        raise LeaseLost(f"the lease of backup {lease.backup_id} was taken by another worker", remedy=_STOP)
