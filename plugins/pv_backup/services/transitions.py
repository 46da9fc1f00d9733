"""The moves between states that there are (CC-47-02), and how a refused one reads. Rules only: ``state.py`` moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from pv_backup.services.errors import TransitionRefused
from pv_backup.services.leases import locked_row
from pv_backup.services.models import BackupAuditEvent, BackupExecution, BackupStatus

_S = BackupStatus

#: The audit event of FAILED → SCHEDULED, recorded under the old backup_id; ``new_backup_id`` stands in its details.
ATTEMPT_REPLACED: Final = "attempt_replaced"
#: The audit event of an attempt that reconciliation ended: outcome, why.
SETTLED: Final = "settled"
#: The audit event of a refused move: from, to, reason.
TRANSITION_REFUSED: Final = "transition_refused"

#: All moves there are; the other 29 of the 36 pairs are refused.
ALLOWED: Final = frozenset(
    {
        (_S.SCHEDULED, _S.RUNNING),
        (_S.SCHEDULED, _S.FAILED),
        (_S.RUNNING, _S.SUCCESS),
        (_S.RUNNING, _S.FAILED),
        (_S.FAILED, _S.SCHEDULED),
        (_S.SUCCESS, _S.EXPIRED),
        (_S.EXPIRED, _S.DELETED),
    }
)
_RECONCILIATION_ONLY: Final = (_S.SCHEDULED, _S.FAILED)

NOTHING_CHANGED: Final = "look at the day's row and its audit events; this move was recorded and changed nothing"


@dataclass
class Move:
    """A move under way, kept outside its transaction: what is rolled back must still be told."""

    to: BackupStatus
    backup_id: str | None = None
    origin: BackupStatus | None = None

    def begin_at(self, row: BackupExecution) -> None:
        """Note where the move starts from, as the locked row says."""
        self.backup_id, self.origin = row.backup_id, _S(row.status)


def check(row: BackupExecution, to: BackupStatus, *, by_reconciliation: bool) -> None:
    """Say no to a move that is not in the table, naming who came first where that is the reason.

    :param by_reconciliation: asks for the one move that is reconciliation's own, and for no other: the row that it saw
        waiting may have been taken meanwhile.
    :raises TransitionRefused: for it.
    """
    pair = (_S(row.status), to)
    if pair in ALLOWED and (pair == _RECONCILIATION_ONLY) == by_reconciliation:
        return
    what = f"backup {row.backup_id} ({row.type} of {row.day}) can't go from {row.status} to {to}"
    if pair == _RECONCILIATION_ONLY:
        what += ": only reconciliation may make this move"
    elif row.status == to:
        what += f": it is {row.status} already, by run {row.run_id or 'unknown'}"
    raise TransitionRefused(what, remedy=NOTHING_CHANGED)


def current_row(session: Session, move: Move) -> BackupExecution:
    """Lock the row of the move's attempt.

    :raises TransitionRefused: when there is none, naming the attempt that took its place.
    """
    row = locked_row(session, move.backup_id) if move.backup_id else None
    if row is not None:
        move.begin_at(row)
        return row
    statement = select(BackupAuditEvent.details["new_backup_id"].astext).where(
        BackupAuditEvent.backup_id == move.backup_id, BackupAuditEvent.event_type == ATTEMPT_REPLACED
    )
    newer = session.execute(statement).scalar_one_or_none()
    reason = f"another worker replaced it by {newer}" if newer else "no row has this backup_id"
    raise TransitionRefused(f"backup {move.backup_id} can't go to {move.to}: {reason}", remedy=NOTHING_CHANGED)
