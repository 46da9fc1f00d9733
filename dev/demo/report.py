"""What came of the demonstration, from the bucket and the journal alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dev.demo.narration import console
from dev.demo.source import Write
from pv_backup.cli.catalogue import aligned, describe
from pv_backup.services.artefacts import WAL_PREFIX, ArtefactType, object_key_of_day, wal_object_key
from pv_backup.services.evidence.document import Evidence
from pv_backup.services.evidence.texts import span
from pv_backup.services.evidence.verification import read_unverified
from pv_backup.services.manifest import Manifest, published
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import human_bytes

DAILY = (ArtefactType.PG_DUMP, ArtefactType.GLOBALS, ArtefactType.BASEBACKUP)


class NotThereError(RuntimeError):
    """The bucket or the journal lacks something that the demonstration should have brought there."""


def report(store: ObjectStore, journal_dsn: str, day: date, write: Write) -> None:
    """Print what was backed up, where it is and how to look closer.

    :raises NotThereError: naming what is missing.
    """
    keys = {artefact_type: object_key_of_day(artefact_type, day) for artefact_type in DAILY}
    manifests = {artefact_type: _published(store, key) for artefact_type, key in keys.items()}
    for artefact_type in (ArtefactType.PG_DUMP, ArtefactType.BASEBACKUP):
        console.print(f"\n[bold]s3://{store.bucket}/{keys[artefact_type]}[/bold]")
        console.print(aligned(describe(manifests[artefact_type]) | _figures(manifests[artefact_type])))
    _report_wal(store, journal_dsn, write)
    _report_journal(journal_dsn, day)
    evidence = _report_drill(journal_dsn)
    console.print("\n[bold]Look closer[/bold]")
    for command in (
        f"verify {keys[ArtefactType.BASEBACKUP]}",
        f"fetch {keys[ArtefactType.PG_DUMP]} | pg_restore --list",
        "restore /tmp/restored --latest",
        f"evidence fetch {evidence.drill_id} > drill.json",
        "evidence report drill.json --output drill.html",
    ):
        console.print(f"  . .dev/env && .venv/bin/python -m pv_backup {command}")


def _published(store: ObjectStore, key: str) -> Manifest:
    manifest = published(store, key)
    if manifest is None:
        raise NotThereError(f"{key} is not published")
    return manifest


def _figures(manifest: Manifest) -> dict[str, str]:
    rate = manifest.exported_bytes / max(manifest.export_seconds, 1e-9)
    return {
        "size": f"{human_bytes(manifest.exported_bytes)} exported, {human_bytes(manifest.size_bytes)} stored",
        "speed": f"streamed in {manifest.export_seconds:.1f} s, {human_bytes(rate)}/s",
    }


def _report_wal(store: ObjectStore, journal_dsn: str, write: Write) -> None:
    """The WAL in the bucket, and when the write got there."""
    key = wal_object_key(write.segment)
    segments = list(store.keys_between(WAL_PREFIX, wal_object_key("0" * 24), wal_object_key("F" * 24)))
    events = _ask(journal_dsn, "SELECT * FROM pv_backup.backup_journal_events WHERE object_key = %s", key)
    if key not in segments or not events:
        raise NotThereError(f"{key} is not in the bucket and the journal")
    shipped_at: datetime = events[0]["occurred_at"]
    after: timedelta = shipped_at - write.committed_at
    console.print(f"\n[bold]s3://{store.bucket}/{WAL_PREFIX}[/bold]")
    console.print(
        aligned(
            {
                "files": f"{len(segments)}, the newest {key}, {human_bytes(events[0]['size_bytes'])}",
                "last write": f"{write.pieces} pieces of evidence, committed at {_clock(write.committed_at)}",
                "safe at": f"{_clock(shipped_at)}, read back and journaled {after.total_seconds():.0f} s later",
            }
        )
    )


def _report_journal(journal_dsn: str, day: date) -> None:
    of_the_day = """
        SELECT e.type, e.backup_id::text, e.outcome, e.occurred_at, x.finished_at - x.started_at AS took
          FROM pv_backup.backup_journal_events e
          LEFT JOIN pv_backup.backup_executions x USING (backup_id)
         WHERE e.day = %s ORDER BY e.occurred_at"""
    console.print("\n[bold]Journal[/bold]")
    for row in _ask(journal_dsn, of_the_day, day):
        took = f"{row['took'].total_seconds():5.1f} s" if row["took"] else "       "
        console.print(f"  {row['type']:<10} {row['backup_id']} {row['outcome']} {took} {_clock(row['occurred_at'])}")
    of_wal = """
        SELECT outcome, count(*), max(occurred_at) AS newest
          FROM pv_backup.backup_journal_events WHERE type = 'wal' GROUP BY outcome"""
    for row in _ask(journal_dsn, of_wal):
        events = f"{row['count']} events, one a file"
        console.print(f"  {'wal':<10} {events:<36} {row['outcome']}         {_clock(row['newest'])}")


def _report_drill(journal_dsn: str) -> Evidence:
    """What the newest drill proved; its DAG would have failed if it had not."""
    (row,) = _ask(journal_dsn, "SELECT document FROM pv_backup.restoration_evidence ORDER BY id DESC LIMIT 1")
    evidence, signature = read_unverified(row["document"])
    console.print("\n[bold]Restoration drill[/bold]")
    facts = {
        "verdict": f"{evidence.verdict}, {sum(len(leg.checks) for leg in evidence.legs)} checks",
        "evidence": f"signed by {signature.key}, version {signature.key_version}, {signature.algorithm}",
    }
    for leg in evidence.legs:
        facts[f"{leg.leg} leg"] = (
            f"{sum((leg.row_counts or {}).values())} rows back after {span(leg.rto_s)}, {span(leg.rpo_s)} old"
        )
    console.print(aligned(facts))
    return evidence


def _ask(dsn: str, query: str, *parameters: object) -> list[dict[str, Any]]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def _clock(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%H:%M:%S UTC")
