"""``python -m dev.demo``: fill, back up, write, ship, watch, drill, report; again that day, only from the write on."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

from dev import environment
from dev.demo import source
from dev.demo.narration import DagFailedError, NarratedAirflow, console
from dev.demo.report import NotThereError, report
from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.days import choose_day
from pv_backup.services.manifest import published
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import store_from_environment

DAGS_OF_A_DAY = {
    "pv_backup_daily_dump": ArtefactType.PG_DUMP,
    "pv_backup_weekly_basebackup": ArtefactType.BASEBACKUP,
}


def demonstrate() -> None:
    """Bring a cluster into the bucket: whole, as of a moment, and what was committed since."""
    os.environ |= environment.up()
    with NarratedAirflow(environment.HOME / "demo.log") as airflow:
        _bring_everything(airflow)


def _bring_everything(airflow: NarratedAirflow) -> None:
    settings = Settings.load()
    store = store_from_environment(settings)
    day = choose_day(datetime.now(UTC), "today")
    if source.fill(os.environ["DEV_SOURCE_DSN"]):
        console.print("filled the source database with demonstration data")
    for dag_id, artefact_type in DAGS_OF_A_DAY.items():
        key = object_key_of_day(artefact_type, day)
        if published(store, key):
            console.print(f"\n{key} is published; a published day is closed, and {dag_id} would only be skipped")
        else:
            airflow.run(dag_id)
    write = source.receive_evidence(os.environ["DEV_SOURCE_DSN"], settings.wal_directory)
    console.print(f"\ncommitted {write.pieces} pieces of evidence; their commit is in WAL segment {write.segment}")
    airflow.run("pv_backup_wal_shipping")
    airflow.run("pv_backup_watchdog")
    airflow.run("pv_backup_restoration_drill")
    report(store, os.environ["DEV_JOURNAL_DSN"], day, write)


def main() -> int:
    """Say what went wrong in one line: 1."""
    try:
        demonstrate()
    except (DagFailedError, NotThereError, TimeoutError) as failure:
        console.print(f"[red]{failure}[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
