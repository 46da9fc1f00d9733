"""Remember who was told of what, in the audit trail: one incident is one message, not one a minute (SPEC F2).

A flow that runs every minute fails every minute of an outage. The trail of alerts is itself the memory, so
that an auditor sees exactly what was sent and when it was over.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.alerts import Alert
from pv_backup.services.database import clock, transaction
from pv_backup.services.journal import Audit
from pv_backup.services.models import BackupAuditEvent

ALERT: Final = "alert"
SETTLED: Final = "alert_settled"
#: An incident that lasts is told again after this long, so that nobody takes silence for health.
REMIND_AFTER: Final = timedelta(days=1)


class AlertMemory:
    """Tells news from repetition, for alerts that name their incident."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._audit = Audit(sessions)

    def claim(self, alert: Alert) -> bool:
        """Record the alert if it is news; of two workers that come at once, one is told that it is.

        :returns: False if the incident was told less than a day ago and has not been settled since.
        :raises JournalUnavailable: when nobody can know; the caller then sends it.
        """
        with transaction(self._sessions, f"looking whether {alert.incident} was told already") as session:
            session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(alert.incident, 0))))
            standing = _open_alert(session, alert.incident)
            if standing is not None and standing.occurred_at > clock(session) - REMIND_AFTER:
                return False
            self._audit.write(session, ALERT, backup_id=alert.backup_id, details=asdict(alert))
            return True

    def open_incidents(self, flow: str) -> list[str]:
        """The incidents of a flow that were told and not settled since.

        :param flow: what their names begin with.
        :raises JournalUnavailable: ERR-47-06.
        """
        name = BackupAuditEvent.details["incident"].astext
        newest = (
            select(name.label("incident"), BackupAuditEvent.event_type)
            .where(name.startswith(flow, autoescape=True))
            .ext(distinct_on(name))
            .order_by(name, BackupAuditEvent.id.desc())
            .subquery()
        )
        with transaction(self._sessions, f"looking for open incidents of {flow}") as session:
            statement = select(newest.c.incident).where(newest.c.event_type == ALERT)
            return list(session.execute(statement).scalars())

    def settle(self, incidents: Collection[str]) -> list[str]:
        """Note that these are over, so that their next occurrence is news again.

        :returns: those that were open.
        :raises JournalUnavailable: ERR-47-06.
        """
        with transaction(self._sessions, "settling incidents") as session:
            over = [incident for incident in incidents if _open_alert(session, incident)]
            for incident in over:
                self._audit.write(session, SETTLED, details={"incident": incident})
            return over


def _open_alert(session: Session, incident: str) -> BackupAuditEvent | None:
    """The last alert of an incident, None if there was none or it is settled."""
    statement = (
        select(BackupAuditEvent)
        .where(BackupAuditEvent.details["incident"].astext == incident)
        .order_by(BackupAuditEvent.id.desc())
        .limit(1)
    )
    newest = session.execute(statement).scalar_one_or_none()
    return newest if newest is not None and newest.event_type == ALERT else None
