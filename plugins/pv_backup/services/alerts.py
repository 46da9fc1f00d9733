"""What is said to the people on call, and the hook that channels plug into (SPEC section 6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

from pv_backup.services.errors import BackupAbsent, DayClosed, LifecycleIdle, RunAlive, explain

log = logging.getLogger(__name__)


class Level(StrEnum):
    """How urgent it is: a warning can wait for the morning, a critical alert cannot."""

    WARNING = "warning"
    CRITICAL = "critical"


# The day is in good hands, another run's or the relaunch's that is on its way; or nothing is lost by the morning.
_WARNINGS = (RunAlive, DayClosed, BackupAbsent, LifecycleIdle)


@dataclass(frozen=True)
class Alert:
    """One thing that a person must know.

    :ivar day: the day of the backup, `YYYY-MM-DD`, empty where there is none.
    :ivar cause: what happened.
    :ivar next_step: what the reader should do.
    :ivar run_url: where the run can be looked at, empty outside Airflow.
    :ivar incident: what goes on until it is settled, so that it is told once on each channel.
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
        cls,
        error: BaseException,
        *,
        dag_id: str,
        day: str,
        backup_id: str | None = None,
        run_url: str = "",
        incident: str = "",
    ) -> Self:
        """Say of any error what the alert needs.

        :param incident: empty: named after DAG, day and code.
        """
        code, cause, next_step = explain(error)
        level = Level.WARNING if isinstance(error, _WARNINGS) else Level.CRITICAL
        name = incident or "/".join(part for part in (dag_id, day, code) if part)
        return cls(level, code, dag_id, day, cause, next_step, backup_id, run_url, name)


class Channel(Protocol):
    """Where alerts go: the log, a mail, a webhook."""

    @property
    def name(self) -> str:
        """By which the audit trail says where an alert went."""
        ...

    def send(self, alert: Alert) -> None:
        """Deliver it, or raise.

        :raises ChannelNotConfigured: where nobody asked for this channel.
        """
        ...


class LogChannel:
    """The log of the task: there even when everything else is down."""

    name = "log"

    def send(self, alert: Alert) -> None:
        """Write one line that a person understands."""
        of = " ".join(part for part in (alert.dag_id, alert.day) if part)
        log.error("ALERT %s %s, %s: %s. Next: %s", alert.level, alert.code, of, alert.cause, alert.next_step)
