"""What is said to the people on call, and the hook that channels plug into.

An alert that cannot be delivered is logged and never hides the error that it was to report (SPEC section 6).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Protocol

from pv_backup.services.errors import DayClosed, RunAlive, explain
from pv_backup.services.journal import Audit

log = logging.getLogger(__name__)


class Level(StrEnum):
    """How urgent it is: a warning can wait for the morning, a critical alert cannot."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Alert:
    """One thing that a person must know.

    :ivar day: the day of the backup, `YYYY-MM-DD`, empty where there is none.
    :ivar cause: what happened.
    :ivar next_step: what the reader should do.
    :ivar run_url: where the run can be looked at, empty outside Airflow.
    :ivar incident: what goes on until it is settled, so that it is told once; empty: every alert is news.
    """

    level: Level
    code: str
    dag_id: str
    day: str
    cause: str
    next_step: str
    backup_id: str | None = None
    run_url: str = ""
    incident: str = ""

    @classmethod
    def from_error(
        cls, error: BaseException, *, dag_id: str, day: str, backup_id: str | None = None, run_url: str = ""
    ) -> Alert:
        """Say of any error what the alert needs."""
        code, cause, next_step = explain(error)
        # These two mean that the day is in good hands, often in answer to a person who is awake.
        plain = isinstance(error, RunAlive | DayClosed)
        return cls(Level.WARNING if plain else Level.CRITICAL, code, dag_id, day, cause, next_step, backup_id, run_url)


class Channel(Protocol):
    """Where alerts go: a mail, a webhook, the audit trail."""

    def send(self, alert: Alert) -> None:
        """Deliver it, or raise."""
        ...


class LogChannel:
    """The log of the task: there even when everything else is down."""

    def send(self, alert: Alert) -> None:
        """Write one line that a person understands."""
        log.error(
            "ALERT %s %s, %s %s: %s. Next: %s",
            alert.level,
            alert.code,
            alert.dag_id,
            alert.day,
            alert.cause,
            alert.next_step,
        )


class AuditChannel:
    """The audit trail, so that an auditor sees who was told what, and when."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def send(self, alert: Alert) -> None:
        """Record it beside the backup's other events."""
        self._audit.record("alert", backup_id=alert.backup_id, details=asdict(alert))


def raise_alert(alert: Alert, channels: Sequence[Channel]) -> None:
    """Send through every channel; one that fails is logged, and the others still get it."""
    for channel in channels:
        try:
            channel.send(alert)
        except Exception:
            log.exception("alert channel %s failed", type(channel).__name__)
