"""
# WAL shipping (flow F2)

Every minute: the WAL files that pg_receivewal finished are encrypted, each under a key of its own, uploaded,
read back, journaled and only then removed from its directory. Together with a base backup they bring the
cluster back to any second. One run at a time, many files at once in it.

| task | does |
| --- | --- |
| `ship_wal` | looks for holes, ships every finished file; closes an open segment older than 60 s and ships it too |

It runs on queue `pv_backup_wal`: serve that queue on the host where pg_receivewal writes, and only there.
The directory is the queue of work, so nothing is lost while this DAG is paused, failing or killed; the source
keeps nothing back for it. A run takes files for five minutes; the next one goes on with the rest.

**Paged?** Each incident is told once, and again after a day. The run is red as long as it lasts:

* WAL-RECEIVER: pg_receivewal is not connected, is behind, or writes elsewhere. Look at its unit; the source keeps
  its WAL for slot `pv_backup` meanwhile, and its disk fills. "has removed WAL": drop and create the slot, move
  `*.partial` and kept files out of the directory before pg_receivewal starts (it begins after the newest file
  there), then trigger `pv_backup_weekly_basebackup`.
* WAL-GAP: segments are missing, the message names them. Look for them in `pg_wal` of the source; if they are
  lost, trigger `pv_backup_weekly_basebackup` now.
* WAL-CONFLICT: the bucket holds another file of this name, or another cluster's. Both are kept; all others
  go on. Find out who writes to this bucket, then move the file away.
* WAL-DAMAGED: an object did not open and was replaced from the file, or a file is not what its name says.
* ERR-47-01: the source does not let us in, so its open segment was not closed. The others were shipped.
* ERR-47-02: Vault is sealed or unreachable. Unseal it; the files wait, and the backlog drains on its own.
* ERR-47-03: S3 refuses or does not answer. Likewise.
* ERR-47-04: what S3 returned is not what was uploaded. The file waits, and the next run replaces the object.
* ERR-47-06: the journal is down. Files that are uploaded wait for their journal event.
* ERR-47-08: the task's process was killed. The next run goes on; see who kills it (the OOM killer?).
* CONFIGURATION: the message names the setting, the directory's mode or the privilege.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronTriggerTimetable

from pv_backup.dag_basics import PARIS, Tag
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.ship_wal import ShipWalOperator

with DAG(
    dag_id="pv_backup_wal_shipping",
    description="Finished WAL segments, every minute: encrypted, read back, journaled, removed",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("* * * * *", timezone=PARIS),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.BACKUP],
):
    # Not retried: the next minute's run is its retry.
    ShipWalOperator(task_id="ship_wal", queue="pv_backup_wal", retries=0)
