"""Which drills are missing (INV-47-09): none for more than 90 days, or one that began and left nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.database import clock
from pv_backup.services.drill_errors import DrillOverdue, DrillUnproven
from pv_backup.services.evidence.document import Failure
from pv_backup.services.models import (
    BackupAuditEvent,
    BackupExecution,
    BackupJournalEvent,
    ComplianceIncident,
    Outcome,
    RestorationEvidence,
)
from pv_backup.services.settings import DRILL_PERIOD_DAYS

DRILL_STARTED: Final = "drill_started"
#: A drill that is older and has left nothing will leave nothing. A leg may take 20 hours, and one may come after the
#: other where there is one worker, so a whole run has 46 hours (dagrun_timeout); two are left to record how it ended.
MAY_LAST: Final = timedelta(hours=48)
PERIOD: Final = timedelta(days=DRILL_PERIOD_DAYS)
#: After the plan for an overdue drill was given, until the next incident: a plan is no drill.
PLAN_MAY_TAKE: Final = timedelta(days=7)


@dataclass(frozen=True)
class Missing:
    """A drill that is not there, and whose it is if it began."""

    failure: Failure
    drill_id: str | None = None


@dataclass(frozen=True)
class _Drill:
    """One that began.

    :ivar whole: of both legs; a drill of one leg proves half, and does not count.
    :ivar left_at: when it left evidence or an incident, None if neither.
    """

    drill_id: str
    run_id: str
    began_at: datetime
    whole: bool
    left_at: datetime | None


def find_missing(session: Session) -> list[Missing]:
    """What is missing and has no incident yet, by the database's clock."""
    now = clock(session)
    drills = list(_drills(session))
    unproven = [drill for drill in drills if drill.left_at is None and drill.began_at < now - MAY_LAST]
    found = [Missing(_unproven(drill), drill.drill_id) for drill in unproven]
    # One that has just been found unproven counts as a drill with an incident from here on.
    lasts = [drill.left_at or (now if drill in unproven else drill.began_at) for drill in drills if drill.whole]
    return found + [Missing(failure) for failure in _overdue(session, now, max(lasts, default=None))]


def _drills(session: Session) -> Iterator[_Drill]:
    """All that began: a handful a year, so Python may put them together."""
    left: dict[str, datetime] = {}
    for table, at in (
        (RestorationEvidence, RestorationEvidence.recorded_at),
        (ComplianceIncident, ComplianceIncident.opened_at),
    ):
        for drill_id, moment in session.execute(select(table.drill_id, at).where(table.drill_id.is_not(None))):
            left[str(drill_id)] = max(moment, left.get(str(drill_id), moment))
    begun = (
        select(BackupAuditEvent.details, BackupAuditEvent.occurred_at)
        .where(BackupAuditEvent.event_type == DRILL_STARTED)
        .order_by(BackupAuditEvent.id)
    )
    for details, began_at in session.execute(begun):
        drill_id = str(details["drill_id"])
        yield _Drill(drill_id, str(details["run_id"]), began_at, bool(details["whole"]), left.get(drill_id))


def _overdue(session: Session, now: datetime, last: datetime | None) -> Iterator[Failure]:
    since = last or _first_backup(session)
    if since is None or since >= now - PERIOD:
        return
    told = (
        select(ComplianceIncident.closed_at)
        .where(ComplianceIncident.code == DrillOverdue.code)
        .order_by(ComplianceIncident.id.desc())
        .limit(1)
    )
    newest = session.execute(told).one_or_none()
    if newest is not None and (newest.closed_at is None or newest.closed_at >= now - PLAN_MAY_TAKE):
        return
    what = (
        f"the last drill of both legs ended on {last:%Y-%m-%d}"
        if last
        else f"there are backups since {since:%Y-%m-%d}, and there was no drill of both legs yet"
    )
    yield Failure.of(
        DrillOverdue(
            f"{what}, {(now - since).days} days ago; {DRILL_PERIOD_DAYS} are allowed (INV-47-09)",
            remedy="see whether pv_backup_restoration_drill is paused, then trigger it, both legs",
        )
    )


def _first_backup(session: Session) -> datetime | None:
    """When there was something to restore for the first time.

    In a journal that was rebuilt from the bucket all events are of that day; its rows know when a backup was published.
    """
    statement = (
        select(func.min(func.least(BackupJournalEvent.occurred_at, BackupExecution.finished_at)))
        .outerjoin(BackupExecution, BackupExecution.backup_id == BackupJournalEvent.backup_id)
        .where(
            BackupJournalEvent.outcome == Outcome.SUCCESS,
            BackupJournalEvent.type.in_((ArtefactType.PG_DUMP, ArtefactType.BASEBACKUP)),
        )
    )
    oldest: datetime | None = session.execute(statement).scalar_one()
    return oldest


def _unproven(drill: _Drill) -> Failure:
    return Failure.of(
        DrillUnproven(
            f"drill {drill.drill_id} began at {drill.began_at:%Y-%m-%d %H:%M %Z} in run {drill.run_id}"
            " and left neither evidence nor an incident",
            remedy="look at that run: was it killed, or deleted? Then trigger pv_backup_restoration_drill",
        )
    )
