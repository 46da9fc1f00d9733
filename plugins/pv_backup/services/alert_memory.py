"""Remember who was told of what, in the audit trail: one incident is one message, not one a minute (SPEC F2).

A flow that runs every minute fails every minute of an outage. The trail of alerts is itself the memory, so
that an auditor sees exactly what was sent, by which channel, and when it was over.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import asdict
from datetime import timedelta
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.alerts import Alert, Channel
from pv_backup.services.database import clock, transaction
from pv_backup.services.errors import JournalUnavailable
from pv_backup.services.journal import Audit
from pv_backup.services.models import BackupAuditEvent

log = logging.getLogger(__name__)

ALERT: Final = "alert"
SETTLED: Final = "alert_settled"
#: An incident that lasts is told again after this long, so that nobody takes silence for health.
REMIND_AFTER: Final = timedelta(days=1)

_incident = BackupAuditEvent.details["incident"].astext
_channel = BackupAuditEvent.details["channel"].astext


class AlertMemory:
    """Tells news from repetition, for each channel by itself."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._audit = Audit(sessions)

    def tell_once(self, alert: Alert, channel: Channel) -> bool:
        """Send the alert if it is news on this channel; of two workers that come at once, one sends it.

        It is recorded only if it was delivered: what the channel raises comes through, and the next occurrence
        of the incident is news still.

        :returns: False if the incident was told less than a day ago and has not been settled since.
        :raises JournalUnavailable: when nobody can know; nothing was sent then.
        """
        sent = False
        try:
            with transaction(self._sessions, f"looking whether {alert.incident} was told already") as session:
                lock = func.hashtextextended(f"{channel.name} {alert.incident}", 0)
                session.execute(select(func.pg_advisory_xact_lock(lock)))
                standing = _open_alert(session, alert.incident, channel.name)
                if standing is not None and standing.occurred_at > clock(session) - REMIND_AFTER:
                    return False
                details = {**asdict(alert), "channel": channel.name}
                self._audit.write(session, ALERT, backup_id=alert.backup_id, details=details)
                # Whatever the database may have against the record, it says so before the alert is sent.
                session.flush()
                channel.send(alert)
                sent = True
        except JournalUnavailable:
            if not sent:
                raise
            log.exception("%s was sent by %s, but not recorded: it may be told once more", alert.incident, channel.name)
        return True

    def open_incidents(self, flow: str) -> list[str]:
        """The incidents of a flow that were told and not settled since.

        :param flow: what their names begin with.
        :raises JournalUnavailable: ERR-47-06.
        """
        newest = (
            select(_incident.label("incident"), BackupAuditEvent.event_type)
            .where(_incident.startswith(flow, autoescape=True), BackupAuditEvent.event_type.in_((ALERT, SETTLED)))
            .ext(distinct_on(_incident))
            .order_by(_incident, BackupAuditEvent.id.desc())
            .subquery()
        )
        with transaction(self._sessions, f"looking for open incidents of {flow}") as session:
            statement = select(newest.c.incident).where(newest.c.event_type == ALERT)
            return list(session.execute(statement).scalars())

    def settle(self, incidents: Collection[str]) -> list[str]:
        """Note that these are over on every channel, so that their next occurrence is news again.

        :returns: those that were open.
        :raises JournalUnavailable: ERR-47-06.
        """
        with transaction(self._sessions, "settling incidents") as session:
            over = [incident for incident in incidents if _open_alert(session, incident)]
            for incident in over:
                self._audit.write(session, SETTLED, details={"incident": incident})
            return over


def _open_alert(session: Session, incident: str, channel: str | None = None) -> BackupAuditEvent | None:
    """The last alert of an incident on one channel or on any, None if there was none or it is settled."""
    statement = (
        select(BackupAuditEvent)
        .where(_incident == incident, BackupAuditEvent.event_type.in_((ALERT, SETTLED)))
        .order_by(BackupAuditEvent.id.desc())
        .limit(1)
    )
    if channel is not None:
        # A settlement names no channel: it is over for all of them.
        statement = statement.where(or_(_channel == channel, _channel.is_(None)))
    newest = session.execute(statement).scalar_one_or_none()
    return newest if newest is not None and newest.event_type == ALERT else None
