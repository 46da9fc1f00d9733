"""One published base backup of the benchmark's source, in a process of its own: what the restorations begin with."""

from __future__ import annotations

import os
import uuid
from datetime import date

from dev.bench.stage import workbench


def main() -> None:
    """Take the steps of the weekly base backup, one after the other."""
    from psycopg.conninfo import conninfo_to_dict

    from pv_backup.services.artefacts import ArtefactType
    from pv_backup.services.basebackup_source import BasebackupSource
    from pv_backup.services.exporting import ArtefactExport
    from pv_backup.services.postgres import Server
    from pv_backup.services.publication import publish
    from pv_backup.services.run_start import start_attempt
    from pv_backup.services.verification import read_back

    bench = workbench()
    server = Server({key: str(value) for key, value in conninfo_to_dict(os.environ["BENCH_SOURCE_DSN"]).items()})
    opened = start_attempt(
        bench, artefact_type=ArtefactType.BASEBACKUP, day=date(2001, 1, 7), run_id=str(uuid.uuid4()), reason="benchmark"
    )
    attempt, keeper = bench.keep_lease(opened.backup_id)
    with keeper:
        ArtefactExport(bench=bench, attempt=attempt, source=BasebackupSource(server=server), keeper=keeper).run()
        read_back(bench, attempt, keeper)
        publish(bench, attempt, keeper)
    bench.machine.succeed(keeper.lease)
    print("{}")


if __name__ == "__main__":
    main()
