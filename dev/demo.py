"""`make demo`: back up a small realistic database for real, and show what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from dev import environment
from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.days import choose_day
from pv_backup.services.manifest import Manifest, published
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import human_bytes
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import store_from_environment

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / ".dev" / "demo.log"
DAG = "pv_backup_daily_dump"

console = Console()


def fill_source(dsn: str) -> None:
    """Create the demonstration database once; data that is there already stays as it is."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT to_regclass('legal.evidence')").fetchone()
        if row and row[0]:
            return
        console.print("filling the source database with demonstration data")
        connection.execute((ROOT / "dev" / "demo.sql").read_bytes())


def run_dag() -> int:
    """Run the real DAG in the foreground, its tasks' own lines on the screen and everything in the log."""
    console.print(f"running the DAG {DAG}; full log: {LOG.relative_to(ROOT)}")
    command = [str(Path(sys.executable).parent / "airflow"), "dags", "test", DAG]
    with LOG.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as dag:
        assert dag.stdout is not None
        for raw in dag.stdout:
            line = raw.decode(errors="replace").rstrip()
            print(line, file=log)
            if "pv_backup." in line or "running task" in line or "ALERT" in line:
                print("  ", line[:200])
    return dag.returncode


def journal_rows(dsn: str, day: date) -> list[dict[str, Any]]:
    """What the journal says of the day, newest attempt last."""
    query = """
        SELECT e.type, e.backup_id::text, e.outcome, e.hash_sha3_256, e.error_code, e.occurred_at,
               x.status, x.finished_at - x.started_at AS took
          FROM pv_backup.backup_journal_events e
          LEFT JOIN pv_backup.backup_executions x USING (backup_id)
         WHERE e.day = %s ORDER BY e.occurred_at"""
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        return connection.execute(query, [day]).fetchall()


def report(store: ObjectStore, day: date) -> bool:
    """Print what was backed up, where it is and how to look closer; False if the day is not published."""
    dump_key = object_key_of_day(ArtefactType.PG_DUMP, day)
    manifest = published(store, dump_key)
    if manifest is None:
        console.print(f"[red]{dump_key} is not published[/red]: read {LOG.relative_to(ROOT)}")
        return False
    _print_backup(store, manifest)
    table = Table(title="Journal", title_justify="left")
    for column in ("artefact", "backup_id", "outcome", "state", "took", "at (UTC)"):
        table.add_column(column, overflow="fold")
    for row in journal_rows(os.environ["DEV_JOURNAL_DSN"], day):
        at = row["occurred_at"].astimezone(UTC).strftime("%H:%M:%S")
        took = f"{row['took'].total_seconds():.1f} s" if row["took"] else ""
        table.add_row(row["type"], row["backup_id"], row["outcome"], row["status"] or "replaced", took, at)
    console.print(table)
    console.print("Look closer:")
    console.print(f"  . .dev/env && .venv/bin/python -m pv_backup verify {dump_key}", highlight=False)
    console.print(
        f"  . .dev/env && .venv/bin/python -m pv_backup fetch {dump_key} | pg_restore --list", highlight=False
    )
    return True


def _print_backup(store: ObjectStore, manifest: Manifest) -> None:
    counts = manifest.row_counts or {}
    table = Table(title=f"Backup of {manifest.database}", title_justify="left", show_header=False)
    table.add_row("what", f"{sum(counts.values())} rows in {len(counts)} tables, PostgreSQL {manifest.server_version}")
    table.add_row(
        "how large", f"{human_bytes(manifest.exported_bytes)} exported, {human_bytes(manifest.size_bytes)} stored"
    )
    rate = manifest.exported_bytes / max(manifest.export_seconds, 1e-9)
    table.add_row("how fast", f"streamed in {manifest.export_seconds:.1f} s, {human_bytes(rate)}/s")
    table.add_row("where", f"s3://{store.bucket}/{manifest.key}")
    table.add_row("SHA3-256", manifest.hash_sha3_256)
    table.add_row("key", f"Vault Transit, version {manifest.k_backup_version}")
    console.print(table)


def main() -> int:
    """Fill, back up, report; a day that is closed already is a success too."""
    os.environ |= environment.up()
    settings = Settings.load()
    store = store_from_environment(settings)
    day = choose_day(datetime.now(UTC), "today")
    fill_source(os.environ["DEV_SOURCE_DSN"])
    if published(store, object_key_of_day(ArtefactType.PG_DUMP, day)):
        console.print(f"{day} is closed: its backup is published, and a published day is never touched again")
    elif run_dag() != 0:
        console.print(f"[red]the DAG failed[/red]: read {LOG.relative_to(ROOT)}")
        return 1
    return 0 if report(store, day) else 1


if __name__ == "__main__":
    sys.exit(main())
