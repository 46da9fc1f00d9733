"""What an auditor is owed of drills: each leaves evidence or an incident, and none is more than 90 days off.

An incident is opened in the same transaction in which the failed drill is recorded, and closed by an action plan alone;
the database itself refuses all else (``include/sql/``). All times are the database's clock.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.database import clock, transaction
from pv_backup.services.drill_calendar import DRILL_STARTED, find_missing
from pv_backup.services.drill_errors import DrillFailed, DrillUnproven
from pv_backup.services.errors import RefusedError
from pv_backup.services.evidence.document import Failure, Leg, Verdict
from pv_backup.services.incidents import Incident, check_closer, check_incident_id, check_plan
from pv_backup.services.journal import Audit, fitting
from pv_backup.services.models import BackupAuditEvent, ComplianceIncident, JsonValue, RestorationEvidence

log = logging.getLogger(__name__)

OPENED: Final = "incident_opened"
CLOSED: Final = "incident_closed"
PLAN_REFUSED: Final = "plan_refused"


@dataclass(frozen=True)
class Recorded:
    """What stands of a drill, whoever recorded it first: nothing else may be told of it.

    :ivar document: the signed document, None as long as there is none.
    :ivar incident_id: None if it has none.
    """

    verdict: Verdict
    document: str | None
    incident_id: str | None


class Compliance:
    """Drills and their incidents.

    Every method raises :class:`JournalUnavailable` when the database can't be used.
    """

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._audit = Audit(sessions)

    def begin(self, *, drill_id: str, run_id: str, target: str, legs: Collection[Leg]) -> None:
        """Note that a drill begins, once however often it is called: from here on it owes evidence or an incident.

        :param run_id: `dag_id/run_id`.
        :param target: `latest` or a time.
        """
        details: dict[str, JsonValue] = {
            "drill_id": drill_id,
            "run_id": run_id,
            "target": target,
            "legs": " ".join(sorted(legs)),
            "whole": set(legs) == set(Leg),
        }
        with transaction(self._sessions, f"noting that drill {drill_id} begins") as session:
            _lock(session, drill_id)
            begun = select(BackupAuditEvent.id).where(
                BackupAuditEvent.event_type == DRILL_STARTED, BackupAuditEvent.details["drill_id"].astext == drill_id
            )
            if session.execute(begun).first() is None:
                self._audit.write(session, DRILL_STARTED, details=details)

    def record(
        self,
        *,
        drill_id: str,
        verdict: Verdict,
        document: str | None,
        rto_s: float | None,
        rpo_s: float | None,
        failures: Sequence[Failure],
    ) -> Recorded:
        """Keep a drill's evidence and, unless it passed, open its incident: both or neither.

        What was recorded first stands; a repeat adds at most the document that was missing. A drill that passed and
        has no document has proved nothing to an auditor, so it opens an incident too.

        :param document: the signed document, None if it could not be signed.
        :param failures: the first one names the incident.
        :returns: what stands now; the caller's own verdict and document are nothing beside it.
        """
        with transaction(self._sessions, f"recording drill {drill_id}") as session:
            _lock(session, drill_id)
            evidence = select(RestorationEvidence).where(RestorationEvidence.drill_id == drill_id)
            recorded = session.execute(evidence).scalar_one_or_none()
            standing = _incidents_of(session, drill_id)
            told = [incident for code, incident in standing.items() if code != DrillUnproven.code]
            if recorded is not None:
                return Recorded(Verdict(recorded.verdict), recorded.document, told[0] if told else None)
            if document is not None:
                session.add(
                    RestorationEvidence(drill_id=drill_id, verdict=verdict, rto_s=rto_s, rpo_s=rpo_s, document=document)
                )
            if told:
                return Recorded(verdict, document, told[0])
            if verdict is Verdict.PASSED and document is not None:
                return Recorded(verdict, document, None)
            failure = failures[0] if failures else _unsaid(drill_id, verdict)
            incident_id = standing.get(failure.code) or self._open(session, failure, drill_id=drill_id)
            return Recorded(Verdict.FAILED, document, incident_id)

    def open_incidents(self) -> list[Incident]:
        """Those that nobody has closed, the oldest first."""
        statement = (
            select(ComplianceIncident).where(ComplianceIncident.closed_at.is_(None)).order_by(ComplianceIncident.id)
        )
        with transaction(self._sessions, "looking for open compliance incidents") as session:
            return [Incident.of(row) for row in session.execute(statement).scalars()]

    def incident(self, incident_id: str) -> Incident:
        """One incident, open or closed.

        :raises FormatRejected: if this is no incident's name.
        :raises RefusedError: if there is none of this name.
        """
        with transaction(self._sessions, f"looking at incident {incident_id}") as session:
            return Incident.of(_row(session, incident_id))

    def close(self, incident_id: str, *, action_plan: str, closed_by: str) -> None:
        """Close it for good; saying the same again is no error, for the first answer may have been lost.

        :param closed_by: who answers for the plan.
        :raises PlanMissing: without a plan that says something, or without a name.
        :raises RefusedError: if it was closed by another plan or another person, or if there is none of this name.
        """
        plan, name = check_plan(action_plan), check_closer(closed_by)
        with transaction(self._sessions, f"closing incident {incident_id}") as session:
            row = _row(session, incident_id, lock=True)
            if row.closed_at is not None:
                if (row.action_plan, row.closed_by) == (plan, name):
                    return
                raise RefusedError(
                    f"incident {incident_id} was closed by {row.closed_by} at {row.closed_at:%Y-%m-%d %H:%M %Z}",
                    remedy="read the plan that stands in compliance_incidents; a closed incident is never changed",
                )
            row.action_plan, row.closed_by, row.closed_at = plan, name, clock(session)
            self._audit.write(
                session, CLOSED, details={"incident_id": incident_id, "action_plan": plan, "closed_by": name}
            )

    def refuse_plan(self, incident_id: str, *, action_plan: str, said_by: str, reason: str) -> None:
        """Note who answered the question for a plan without giving one."""
        self._audit.record(
            PLAN_REFUSED,
            details={
                "incident_id": incident_id,
                "action_plan": action_plan,
                "said_by": said_by,
                "reason": reason,
            },
        )

    def look(self) -> list[Incident]:
        """Open an incident for each drill that is overdue or left nothing behind (INV-47-09), each once.

        :returns: those that are new.
        """
        with transaction(self._sessions, "looking whether drills are overdue") as session:
            _lock(session, "look")
            opened = [
                self._open(session, missing.failure, drill_id=missing.drill_id) for missing in find_missing(session)
            ]
            session.flush()
            return [Incident.of(_row(session, incident_id)) for incident_id in opened]

    def _open(self, session: Session, failure: Failure, *, drill_id: str | None) -> str:
        incident_id = str(uuid4())
        session.add(
            ComplianceIncident(
                incident_id=incident_id,
                drill_id=drill_id,
                code=failure.code,
                failed_check=None if failure.check is None else fitting(failure.check),
                reason=fitting(failure.cause),
                next_step=fitting(failure.remedy),
            )
        )
        self._audit.write(
            session,
            OPENED,
            details={
                "incident_id": incident_id,
                "drill_id": drill_id,
                "code": failure.code,
                "check": failure.check,
                "cause": failure.cause,
            },
        )
        log.warning("compliance incident %s is open: %s %s", incident_id, failure.code, failure.cause)
        return incident_id


def _unsaid(drill_id: str, verdict: Verdict) -> Failure:
    if verdict is Verdict.PASSED:
        return Failure.of(
            DrillUnproven(
                f"drill {drill_id} passed, and its evidence could not be signed",
                remedy="see that Vault answers and has the evidence key, then trigger pv_backup_restoration_drill",
            )
        )
    return Failure.of(
        DrillFailed(f"drill {drill_id} failed, and nothing says why", remedy="read the logs of the drill's tasks")
    )


def _incidents_of(session: Session, drill_id: str) -> dict[str, str]:
    """code → incident_id."""
    statement = (
        select(ComplianceIncident.code, ComplianceIncident.incident_id)
        .where(ComplianceIncident.drill_id == drill_id)
        .order_by(ComplianceIncident.id)
    )
    return {row.code: row.incident_id for row in session.execute(statement)}


def _row(session: Session, incident_id: str, *, lock: bool = False) -> ComplianceIncident:
    statement = select(ComplianceIncident).where(ComplianceIncident.incident_id == check_incident_id(incident_id))
    row = session.execute(statement.with_for_update() if lock else statement).scalar_one_or_none()
    if row is None:
        raise RefusedError(
            f"there is no compliance incident {incident_id}",
            remedy="take its name from its alert, or look in the table",
        )
    return row


def _lock(session: Session, name: str) -> None:
    """One at a time, so that what is opened once is opened once."""
    lock = func.hashtextextended(f"pv_backup compliance {name}", 0)
    session.execute(select(func.pg_advisory_xact_lock(lock)))
