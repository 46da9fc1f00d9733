"""How old, large and fast the newest backups are, by the journal: what dashboards and alert rules see.

They are asked of the journal each time and never counted up in a process, so that a restart, another worker or a
settlement by reconciliation changes none of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.database import clock, transaction
from pv_backup.services.drill import LATEST
from pv_backup.services.evidence.document import Leg, Verdict
from pv_backup.services.models import (
    CLOSED,
    BackupExecution,
    BackupJournalEvent,
    ComplianceIncident,
    Outcome,
    RestorationEvidence,
)

# A drill of one leg, asked for by hand, says nothing of the other way back.
_WHOLE: Final = {"legs": [{"leg": leg.value} for leg in Leg]}


def figures(sessions: sessionmaker[Session]) -> dict[str, float]:
    """Value by name, such as ``pg_dump.age_s``; a flow that never succeeded has none (docs/metrics.md).

    Of the newest dump, roles and base backup ``last_success`` (Unix seconds), ``age_s`` (seconds since the snapshot
    that it holds: what would be lost), ``size_bytes`` (of the object), ``duration_s`` (from the opened day to
    SUCCESS) and ``rate`` (bytes/s out of the tool); of WAL ``age_s`` (seconds since a file was journaled). Of drills
    ``last_success`` and ``rto_s`` of the newest of both legs that passed, ``rpo_s`` of the newest such to ``latest``
    (the age of what a chosen time brings back is the chooser's), and ``open_incidents``.

    :raises JournalUnavailable: ERR-47-06.
    """
    exported_at = BackupExecution.facts["exported_at"].astext
    newest_backups = (
        select(BackupExecution)
        # An expired backup was a success once: its age says that nothing newer came.
        .where(BackupExecution.status.in_(CLOSED))
        .ext(distinct_on(BackupExecution.type))
        # RFC 3339 in UTC sorts as text.
        .order_by(BackupExecution.type, exported_at.desc().nulls_last(), BackupExecution.finished_at.desc())
    )
    newest_wal = (
        select(BackupJournalEvent.occurred_at)
        .where(BackupJournalEvent.type == ArtefactType.WAL, BackupJournalEvent.outcome == Outcome.SUCCESS)
        .order_by(BackupJournalEvent.id.desc())
        .limit(1)
    )
    open_incidents = select(func.count()).where(ComplianceIncident.closed_at.is_(None))
    found: dict[str, float] = {}
    with transaction(sessions, "reading how old the backups are") as session:
        now = clock(session)
        for row in session.execute(newest_backups).scalars():
            found |= {f"{row.type}.{name}": value for name, value in _of_backup(row, now).items()}
        if shipped_at := session.execute(newest_wal).scalar_one_or_none():
            found[f"{ArtefactType.WAL}.age_s"] = _seconds(shipped_at, now)
        found["drill.open_incidents"] = session.execute(open_incidents).scalar_one()
        if drill := session.execute(_newest_drill(_WHOLE)).scalar_one_or_none():
            found["drill.last_success"] = drill.recorded_at.timestamp()
            if drill.rto_s is not None:
                found["drill.rto_s"] = drill.rto_s
        drill = session.execute(_newest_drill(_WHOLE | {"target": LATEST})).scalar_one_or_none()
        if drill is not None and drill.rpo_s is not None:
            found["drill.rpo_s"] = drill.rpo_s
    return found


def _newest_drill(evidence: dict[str, Any]) -> Select[RestorationEvidence]:
    """The newest passed drill whose evidence has that in it."""
    return (
        select(RestorationEvidence)
        .where(
            RestorationEvidence.verdict == Verdict.PASSED,
            cast(RestorationEvidence.document, JSONB).contains({"evidence": evidence}),
        )
        .order_by(RestorationEvidence.id.desc())
        .limit(1)
    )


def _of_backup(row: BackupExecution, now: datetime) -> dict[str, float]:
    found: dict[str, float] = {}
    if row.finished_at is not None:
        found["last_success"] = row.finished_at.timestamp()
        if row.started_at is not None:
            found["duration_s"] = _seconds(row.started_at, row.finished_at)
    if row.size_bytes is not None:
        found["size_bytes"] = row.size_bytes
    match row.facts:
        case {"exported_at": str(exported_at)}:
            found["age_s"] = _seconds(datetime.fromisoformat(exported_at), now)
    match row.facts:
        case {"exported_bytes": int(exported), "export_seconds": float(seconds) | int(seconds)} if seconds > 0:
            found["rate"] = exported / seconds
    return found


def _seconds(since: datetime, until: datetime) -> float:
    """The source's clock and the journal's may differ a little; no age is negative."""
    return max(0.0, (until - since).total_seconds())
