"""The state machine of a backup (CC-47-02): the only place that changes a status (INV-47-07).

Every move locks its row, so of two workers one wins and the other reads who did. A refused move raises and is recorded
in the audit, in a transaction of its own since the refused one is rolled back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from typing import Any, Final
from uuid import uuid4

from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.attempts import Artefact, Attempt, RecordedArtefact, attempt_of, event_of, recorded_in
from pv_backup.services.database import clock, transaction
from pv_backup.services.errors import (
    CircuitBreakerOpen,
    JournalUnavailable,
    LeaseLost,
    RefusedError,
    RunAlive,
    TransitionRefused,
)
from pv_backup.services.journal import Audit, Journal, JournalEvent, fitting
from pv_backup.services.leases import Lease, check_held, grant, held_row, running_row
from pv_backup.services.models import BackupExecution, BackupStatus, JsonValue, Outcome
from pv_backup.services.opening import RunDead, refuse_if_closed, refuse_taken, row_of_day
from pv_backup.services.transitions import (
    ATTEMPT_REPLACED,
    NOTHING_CHANGED,
    SETTLED,
    TRANSITION_REFUSED,
    Move,
    check,
    current_row,
)
from pv_backup.services.validation import check_backup_id, check_hash, check_size

__all__ = ["Artefact", "Attempt", "BackupStatus", "RecordedArtefact", "RunDead", "StateMachine"]

log = logging.getLogger(__name__)

_S = BackupStatus

# Moves that carry more than a status: a new backup_id, a lease, a journal event.
_MADE_BY: Final = {_S.SCHEDULED: "schedule_again", _S.RUNNING: "open_day", _S.SUCCESS: "succeed", _S.FAILED: "fail"}


class StateMachine:
    """Opens days, ends attempts, and refuses everything else.

    Every method raises :class:`JournalUnavailable` when the database can't be used; nothing was changed then.
    """

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._journal = Journal(sessions)
        self._audit = Audit(sessions)

    def open_day(
        self, *, artefact_type: ArtefactType, day: date, run_id: str, lease_s: float, max_replanification_cycles: int
    ) -> Attempt:
        """Make a run the one that works on a day: RUNNING under a lease, in one transaction (SPEC section 3).

        A second call of the same run (a retry whose first answer was lost) gets its own row again, with a new lease.

        :param run_id: unique per run, all DAGs together.
        :raises DayClosed: when the day is published.
        :raises RunAlive: when another run works on it; :class:`RunDead` when that one's lease has expired.
        :raises CircuitBreakerOpen: when the day failed too often (DI-01).
        """
        with self._moving(Move(_S.RUNNING), f"opening {artefact_type} of {day}") as (session, move):
            row = row_of_day(session, artefact_type, day)
            move.begin_at(row)
            refuse_if_closed(row)
            if row.status == _S.FAILED:
                move.to = _S.SCHEDULED
                self._replace_attempt(session, row, max_replanification_cycles)
                move.to = _S.RUNNING
            if row.status == _S.SCHEDULED:
                self._enter(session, row, _S.RUNNING)
                row.run_id = run_id
            elif row.run_id != run_id:
                refuse_taken(session, row)
            return attempt_of(row, grant(session, row, lease_s))

    def attempt(self, lease: Lease) -> Attempt:
        """The attempt that a lease is for.

        :raises LeaseLost: when the bearer no longer holds it.
        """
        with transaction(self._sessions, f"reading backup {lease.backup_id}") as session:
            return attempt_of(held_row(session, lease), lease)

    def record_artefact(self, lease: Lease, artefact: Artefact, facts: Mapping[str, Any]) -> None:
        """Keep what was uploaded, for verification and the manifest; a retry within the attempt replaces it.

        :param facts: JSON values that the export learnt (row counts, server version, exported_at …).
        :raises LeaseLost: when another worker has taken over.
        :raises FormatRejected: before any side effect.
        """
        check_hash(artefact.hash_sha3_256)
        check_size(artefact.size_bytes)
        with transaction(self._sessions, f"recording the artefact of backup {lease.backup_id}") as session:
            row = held_row(session, lease)
            for name, value in asdict(artefact).items():
                setattr(row, name, value)
            row.facts = dict(facts)
            row.verified_auth_tag = None

    def record_verified(self, lease: Lease) -> None:
        """Keep that the recorded artefact was read back and found equal; without it, none is published (INV-47-04).

        :raises LeaseLost: when another worker has taken over.
        :raises RefusedError: when no artefact was recorded.
        """
        with transaction(self._sessions, f"recording the verification of backup {lease.backup_id}") as session:
            row = held_row(session, lease)
            row.verified_auth_tag = _recorded(row).artefact.auth_tag

    def artefact_of(self, attempt: Attempt) -> RecordedArtefact:
        """What :meth:`record_artefact` kept of a running attempt.

        :raises LeaseLost: when the attempt is no longer the running one.
        :raises RefusedError: when nothing was recorded yet.
        """
        with transaction(self._sessions, f"reading the artefact of backup {attempt.backup_id}") as session:
            return _recorded(running_row(session, attempt.backup_id))

    def succeed(self, lease: Lease, *, settled: str | None = None) -> JournalEvent:
        """RUNNING → SUCCESS and the journal event in one transaction; the event says what the row has recorded.

        The caller has published the object.

        :param settled: as :meth:`fail`.
        :raises LeaseLost: when another worker has taken over.
        :raises TransitionRefused: when the row is not RUNNING, or the journal says FAILED of it already.
        :raises RefusedError: when no artefact was recorded, or it was not read back (INV-47-04).
        """
        doing = f"writing SUCCESS of backup {lease.backup_id}"
        with self._moving(Move(_S.SUCCESS, lease.backup_id), doing) as (session, move):
            row = current_row(session, move)
            self._enter(session, row, move.to, lease=lease)
            _recorded(row).demand_verified()
            row.error_code = row.error_text = None
            event = event_of(row, Outcome.SUCCESS)
            if self._journal.write(session, event) is not Outcome.SUCCESS:
                raise TransitionRefused(
                    f"the journal says FAILED of backup {row.backup_id} already", remedy=NOTHING_CHANGED
                )
            self._note_settlement(session, event, settled)
            return event

    def fail(
        self,
        backup_id: str,
        *,
        error_code: str,
        error_text: str,
        lease: Lease | None = None,
        by_reconciliation: bool = False,
        settled: str | None = None,
    ) -> JournalEvent:
        """RUNNING → FAILED and the journal event in one transaction.

        :param lease: proves that the caller is in charge; without it, the caller must know that nobody is.
        :param by_reconciliation: only reconciliation may fail a row that is still SCHEDULED, and then no other.
        :param settled: why, where the attempt did not end by itself; recorded in the audit, in the same transaction.
        :raises LeaseLost: when a lease was given and is lost.
        :raises TransitionRefused: when the row is not RUNNING; FAILED already, for example.
        """
        check_backup_id(backup_id)
        doing = f"writing FAILED of backup {backup_id}"
        with self._moving(Move(_S.FAILED, backup_id), doing) as (session, move):
            row = current_row(session, move)
            self._enter(session, row, move.to, lease=lease, by_reconciliation=by_reconciliation)
            row.error_code, row.error_text = error_code, fitting(error_text)
            event = event_of(row, Outcome.FAILED)
            if self._journal.write(session, event) is not Outcome.FAILED:
                log.warning("the journal says SUCCESS of backup %s already, and that stands", backup_id)
            self._note_settlement(session, event, settled)
            return event

    def schedule_again(self, backup_id: str, *, max_replanification_cycles: int) -> str:
        """FAILED → SCHEDULED: a new attempt, whose backup_id is returned.

        :raises CircuitBreakerOpen: when the day failed too often (DI-01).
        :raises TransitionRefused: when the row is not FAILED, or another worker was first.
        """
        check_backup_id(backup_id)
        doing = f"scheduling backup {backup_id} again"
        with self._moving(Move(_S.SCHEDULED, backup_id), doing) as (session, move):
            row = current_row(session, move)
            self._replace_attempt(session, row, max_replanification_cycles)
            return row.backup_id

    def transition(self, backup_id: str, to: BackupStatus) -> None:
        """A move that changes the status and nothing else: SUCCESS → EXPIRED, EXPIRED → DELETED, on record as such.

        :raises TransitionRefused: for every other pair; a move that carries more has a method of its own.
        """
        check_backup_id(backup_id)
        with self._moving(Move(to, backup_id), f"moving backup {backup_id} to {to}") as (session, move):
            row = current_row(session, move)
            self._enter(session, row, to)
            if method := _MADE_BY.get(to):
                raise TransitionRefused(
                    f"{move.origin} → {to} of backup {backup_id} is made by StateMachine.{method}",
                    remedy=NOTHING_CHANGED,
                )
            details: dict[str, JsonValue] = {"type": row.type, "day": f"{row.day}", "object_key": row.object_key}
            self._audit.write(session, to.lower(), backup_id=backup_id, details=details)

    @contextmanager
    def _moving(self, move: Move, doing: str) -> Iterator[tuple[Session, Move]]:
        try:
            with transaction(self._sessions, doing) as session:
                yield session, move
            log.info("backup %s: %s → %s", move.backup_id, move.origin, move.to)
        except RunDead:
            raise  # an invitation to settle, not a refusal
        except (TransitionRefused, LeaseLost, RunAlive) as refused:
            self._record_refusal(move, refused)
            raise

    def _record_refusal(self, move: Move, refused: RefusedError) -> None:
        details = {"from": move.origin, "to": move.to, "reason": refused.what}
        try:
            self._audit.record(TRANSITION_REFUSED, backup_id=move.backup_id, details=details)
        except JournalUnavailable as unavailable:
            # The refusal must not be hidden by the failure to record it.
            log.error("a refused move could not be recorded: %s; %s", refused, unavailable)  # noqa: TRY400

    def _note_settlement(self, session: Session, event: JournalEvent, why: str | None) -> None:
        if why is not None:
            details: dict[str, JsonValue] = {"outcome": event.outcome, "why": why}
            self._audit.write(session, SETTLED, backup_id=event.backup_id, details=details)

    def _replace_attempt(self, session: Session, row: BackupExecution, max_cycles: int) -> None:
        """FAILED → SCHEDULED of a locked row. A new artefact has a new DEK, IV and context, hence a new name."""
        if row.status == _S.FAILED and row.replanification_count >= max_cycles:
            raise CircuitBreakerOpen(
                f"{row.type} of {row.day} failed and was scheduled again {row.replanification_count} times, "
                f"max_replanification_cycles is {max_cycles}; last error: {row.error_code} {row.error_text}",
                remedy="a person must remove the cause, then raise the limit for this day or settle it by hand",
            )
        self._enter(session, row, _S.SCHEDULED)
        old = row.backup_id
        row.backup_id = str(uuid4())
        row.replanification_count += 1
        replaced: dict[str, JsonValue] = {
            name: getattr(row, name)
            for name in (*Artefact.__annotations__, "object_key", "run_id", "error_code", "error_text")
        }
        counted: dict[str, JsonValue] = {
            "new_backup_id": row.backup_id,
            "replanification_count": row.replanification_count,
        }
        self._audit.write(session, ATTEMPT_REPLACED, backup_id=old, details=counted | replaced)
        for name in (*Artefact.__annotations__, "verified_auth_tag", "facts", "run_id", "error_code", "error_text"):
            setattr(row, name, None)

    def _enter(
        self,
        session: Session,
        row: BackupExecution,
        to: BackupStatus,
        *,
        lease: Lease | None = None,
        by_reconciliation: bool = False,
    ) -> None:
        """The one gate: check the pair, then the lease, and only then write the status of a locked row."""
        check(row, to, by_reconciliation=by_reconciliation)
        if lease is not None:
            check_held(session, row, lease)
        row.status = to
        row.lease_token = row.lease_expires_at = None
        now = clock(session)
        if to is _S.SCHEDULED:
            row.scheduled_at, row.started_at, row.finished_at = now, None, None
        elif to is _S.RUNNING:
            row.started_at = now
        elif to in (_S.SUCCESS, _S.FAILED):
            row.finished_at = now


def _recorded(row: BackupExecution) -> RecordedArtefact:
    recorded = recorded_in(row)
    if recorded is None:
        raise RefusedError(f"backup {row.backup_id} has no recorded artefact", remedy="run its export step first")
    return recorded
