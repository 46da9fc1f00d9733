"""`make demo`: back up a small realistic database for real, and show what came of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.markup import escape

from dev import environment
from pv_backup.cli import aligned, describe
from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.days import choose_day
from pv_backup.services.manifest import published
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import human_bytes
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import store_from_environment

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / ".dev" / "demo.log"
DAG = "pv_backup_daily_dump"

# Airflow's console log: time, level, message, logger, source line.
_TASK_STARTS = re.compile(rf"running task <TaskInstance: {DAG}\.(?P<name>\w+) ")
_OUR_LINE = re.compile(
    r"\S+T(?P<time>[\d:]{8})\S+ \[\w+\s*\] (?P<said>.*) \[(?:airflow\.task\.operators\.)?pv_backup\."
)

console = Console(soft_wrap=True, highlight=False)


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
            if said := _for_the_screen(line):
                console.print(said, highlight=False, soft_wrap=True)
    return dag.returncode


def _for_the_screen(line: str) -> str | None:
    """The lines of the log that tell the story: a task that starts, and what this system's code says."""
    if task := _TASK_STARTS.search(line):
        return f"[bold]{task['name']}[/bold]"
    if ours := _OUR_LINE.match(line):
        return f"  {ours['time']}  {escape(ours['said'])}"
    return None


def journal_rows(dsn: str, day: date) -> list[dict[str, Any]]:
    """What the journal says of the day, newest attempt last."""
    query = """
        SELECT e.type, e.backup_id::text, e.outcome, e.occurred_at, x.finished_at - x.started_at AS took
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
    if published(store, object_key_of_day(ArtefactType.GLOBALS, day)) is None:
        console.print("[red]the role definitions of the day are not published[/red]: trigger the DAG again")
        return False
    rate = manifest.exported_bytes / max(manifest.export_seconds, 1e-9)
    size = f"{human_bytes(manifest.exported_bytes)} exported, {human_bytes(manifest.size_bytes)} stored"
    facts = describe(manifest) | {
        "size": size,
        "speed": f"streamed in {manifest.export_seconds:.1f} s, {human_bytes(rate)}/s",
    }
    console.print(f"\n[bold]s3://{store.bucket}/{dump_key}[/bold]")
    console.print(aligned(facts))
    console.print("\n[bold]Journal[/bold]")
    for row in journal_rows(os.environ["DEV_JOURNAL_DSN"], day):
        at = row["occurred_at"].astimezone(UTC).strftime("%H:%M:%S UTC")
        took = f"{row['took'].total_seconds():5.1f} s" if row["took"] else "       "
        console.print(f"  {row['type']:<8} {row['backup_id']} {row['outcome']} {took} {at}")
    console.print("\n[bold]Look closer[/bold]")
    for command in (f"verify {dump_key}", f"fetch {dump_key} | pg_restore --list"):
        console.print(f"  . .dev/env && .venv/bin/python -m pv_backup {command}")
    return True


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
