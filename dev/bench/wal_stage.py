"""The project's own WAL shipping, inside a process that is already started; prints one JSON line."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil

STARTED = time.perf_counter()


def main() -> None:
    """Import what an Airflow task imports, note the memory, then ship all that waits in the directory."""
    import airflow.sdk.execution_time.task_runner  # noqa: F401 - its memory is the floor of any task

    from dev.bench.measure import measure_call
    from dev.bench.stage import workbench
    from pv_backup.operators import ship_wal  # noqa: F401 - what the task loads
    from pv_backup.services.wal_run import WalRun
    from pv_backup.services.wal_spool import WalSpool

    bench = workbench()
    servers = {name: psutil.Process(int(pid)) for name, pid in json.loads(os.environ["BENCH_SERVERS"]).items()}
    spool = WalSpool(directory=Path(os.environ["PV_BACKUP_WAL_DIRECTORY"]))
    ready_s = time.perf_counter() - STARTED
    idle_rss = psutil.Process().memory_info().rss
    # Nothing is left to close: the set is finished, and the source lies idle.
    run = WalRun(bench=bench, spool=spool, closer=None)
    shipped = measure_call(run.run, servers=servers)
    if left := spool.files():
        sys.exit(f"{len(left)} segments were not shipped; the messages are above")
    print(json.dumps({"ready_s": ready_s, "idle_rss": idle_rss, "shipping": asdict(shipped)}), flush=True)


if __name__ == "__main__":
    main()
