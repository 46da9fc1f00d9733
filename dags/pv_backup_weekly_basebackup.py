"""
# Weekly base backup (flow F3)

Every Sunday at 02:00 Europe/Paris: the whole cluster, copied by pg_basebackup, compressed, hashed, encrypted and
uploaded in one pass, then read back, and only then published. Together with the WAL that
`pv_backup_wal_shipping` ships, it brings the cluster back to any second since.

| task | does |
| --- | --- |
| `open_the_day` | opens the day's row, RUNNING under a lease |
| `check_the_cluster` | checks version, tool, role, settings, free slots, replication connections |
| `stream_basebackup` | pg_basebackup → zstd → SHA3-256 → AES-256-GCM → S3 |
| `verify_upload` | downloads, decrypts, hashes, compares |
| `publish_manifest` | writes the manifest beside the object: WAL range, PostgreSQL's backup_manifest |
| `record_success` | SUCCESS and the one journal event |

**Paged?** The alert and the task's last line carry a code:

* *skipped* `open_the_day`: the day is published already; there is nothing to do.
* REFUSED in `open_the_day`: another run is at work.
* CIRCUIT-BREAKER: the day failed too often; remove the cause, then raise `max_replanification_cycles` for it.
* CONFIGURATION: a setting, connection or privilege; the message names it. Mend it, then trigger again.
* ERR-47-01: pg_basebackup failed, four times; its own message follows. Look at PostgreSQL's log on the source.
  "was purged 300 s after the export": the cluster has extra tablespaces, so it goes through a staging directory, and
  the upload could not follow. See what slows S3 or the worker.
* ERR-47-02: Vault is sealed or unreachable. Unseal it, then trigger again.
* ERR-47-03: S3 refuses, or took nothing for too long. The message says which; then trigger again.
* ERR-47-04: what S3 returned is not what was uploaded. Keep the marked object for inspection, trigger again.
* ERR-47-06: the journal is down. Bring it back and trigger again: what is published is read back and recorded.
* ERR-47-08: a task's process was killed. `pv_backup_reconciliation` settles the day; then trigger again.

Trigger the DAG by hand to try again, on any day; the form takes today or yesterday. Until then the last published
base backup stands, and recovery from it only takes longer, for there is more WAL to replay. Clearing single tasks of
an old run is no substitute: it is refused, for what is exported now must not be filed under an old day.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Asset, CronTriggerTimetable, chain

from pv_backup.dag_basics import LONG_STEP, PARIS, Tag, day_form
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.check_source import CheckClusterOperator
from pv_backup.operators.open_day import OpenDayOperator
from pv_backup.operators.publish_manifest import PublishManifestOperator
from pv_backup.operators.record_success import RecordSuccessOperator
from pv_backup.operators.stream_export import StreamBasebackupOperator
from pv_backup.operators.verify_upload import VerifyUploadOperator
from pv_backup.services.artefacts import ArtefactType

with DAG(
    dag_id="pv_backup_weekly_basebackup",
    description="Encrypted base backup of the cluster: streamed, read back, published",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 2 * * 0", timezone=PARIS),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.BACKUP],
    params=day_form(),
):
    open_the_day = OpenDayOperator(task_id="open_the_day", artefact_type=ArtefactType.BASEBACKUP)
    backup_id = open_the_day.output

    check_the_cluster = CheckClusterOperator(task_id="check_the_cluster", backup_id=backup_id)
    stream_basebackup = StreamBasebackupOperator(
        task_id="stream_basebackup", backup_id=backup_id, execution_timeout=LONG_STEP
    )
    verify_upload = VerifyUploadOperator(task_id="verify_upload", backup_id=backup_id, execution_timeout=LONG_STEP)
    publish_manifest = PublishManifestOperator(task_id="publish_manifest", backup_id=backup_id)
    record_success = RecordSuccessOperator(
        task_id="record_success", backup_id=backup_id, outlets=[Asset("pv_backup_weekly_basebackup")]
    )

    chain(open_the_day, check_the_cluster, stream_basebackup, verify_upload, publish_manifest, record_success)
