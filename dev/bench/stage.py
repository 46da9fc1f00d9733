"""The project's own export stage and verification, inside a process that is already started.

Run as a child: it prints what it measured as one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from dataclasses import asdict
from datetime import date, timedelta
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pv_backup.services.workbench import Workbench

STARTED = time.perf_counter()


def main() -> None:
    """Import what an Airflow task imports, note the memory, then export and verify one attempt."""
    import airflow.sdk.execution_time.task_runner  # noqa: F401 - its memory is the floor of any task
    from psycopg.conninfo import conninfo_to_dict

    from dev.bench.measure import measure_call
    from pv_backup.operators import record_success, stream_export  # noqa: F401 - what the task loads
    from pv_backup.services.artefacts import ArtefactType
    from pv_backup.services.basebackup_source import BasebackupSource
    from pv_backup.services.export_sources import DumpSource
    from pv_backup.services.exporting import ArtefactExport
    from pv_backup.services.postgres import Server
    from pv_backup.services.run_start import start_attempt
    from pv_backup.services.verification import Expected, verify_object

    bench = workbench()
    server = Server({key: str(value) for key, value in conninfo_to_dict(os.environ["BENCH_SOURCE_DSN"]).items()})
    servers = {name: psutil.Process(int(pid)) for name, pid in json.loads(os.environ["BENCH_SERVERS"]).items()}
    artefact_type = ArtefactType(os.environ["BENCH_TYPE"])
    # Each run a day of its own: a published day is never written twice.
    day = date(2000, 1, 1) + timedelta(days=int(os.environ["BENCH_RUN"]))
    opened = start_attempt(bench, artefact_type=artefact_type, day=day, run_id=str(uuid.uuid4()), reason="benchmark")
    attempt, keeper = bench.keep_lease(opened.backup_id)
    ready_s = time.perf_counter() - STARTED
    idle_rss = psutil.Process().memory_info().rss
    sources = {ArtefactType.PG_DUMP: DumpSource, ArtefactType.BASEBACKUP: BasebackupSource}
    source = sources[artefact_type](server=server)
    export = ArtefactExport(bench=bench, attempt=attempt, source=source, keeper=keeper)
    with keeper:
        exported = measure_call(export.run, servers=servers)
    expected = Expected.by_journal(attempt, bench.machine.artefact_of(attempt))
    verified = measure_call(
        lambda: verify_object(bench.store, bench.keys, attempt.object_key, expected), servers=servers
    )
    result = {
        "ready_s": ready_s,
        "idle_rss": idle_rss,
        "export": asdict(exported),
        "verification": asdict(verified),
        "size_bytes": expected.size_bytes,
    }
    print(json.dumps(result), file=sys.stdout, flush=True)


def workbench() -> Workbench:
    """What a task's operators set out, made from the environment."""
    from pv_backup.services.database import sessions_for
    from pv_backup.services.settings import Settings
    from pv_backup.services.standalone import keys_from_environment, store_from_environment
    from pv_backup.services.workbench import Workbench

    settings = Settings.load()
    return Workbench.over(
        settings,
        store=store_from_environment(settings),
        keys=keys_from_environment(settings),
        sessions=sessions_for(os.environ["BENCH_JOURNAL_DSN"]),
    )


if __name__ == "__main__":
    main()
