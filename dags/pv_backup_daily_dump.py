"""
# Daily dump (flow F1)

Every night at 03:00 Europe/Paris: one database, dumped by pg_dump, compressed, hashed, encrypted and
uploaded in one pass, then read back, and only then published. The role definitions travel beside it.

| task | does |
| --- | --- |
| `open_the_day` | opens the day's row, RUNNING under a lease |
| `check_the_source` | checks version, tools and privileges of the source |
| `back_up_roles` | `pg_dumpall --roles-only`, all steps in one |
| `stream_dump` | pg_dump → zstd → SHA3-256 → AES-256-GCM → S3 |
| `verify_upload` | downloads, decrypts, hashes, compares |
| `publish_manifest` | writes the manifest beside the object |
| `record_success` | SUCCESS and the one journal event |

**Paged?** The alert and the task's last line carry a code:

* *skipped* `open_the_day`: the day is published already; there is nothing to do.
* REFUSED in `open_the_day`: another run is at work.
* CIRCUIT-BREAKER: the day failed too often; remove the cause, then raise `max_replanification_cycles` for it.
* CONFIGURATION: a setting, connection or privilege; the message names it. Mend it, then trigger again.
* ERR-47-01: pg_dump failed, four times; its own message follows. Look at PostgreSQL's log on the source.
* ERR-47-02: Vault is sealed or unreachable. Unseal it, then trigger again.
* ERR-47-03: S3 refuses, or took nothing for too long. The message says which; then trigger again.
* ERR-47-04: what S3 returned is not what was uploaded. Keep the marked object for inspection, trigger again.
* ERR-47-06: the journal is down. Bring it back and trigger again: what is published is read back and recorded.
* ERR-47-08: a task's process was killed. `pv_backup_reconciliation` settles the day; then trigger again.
* LATE: the night's run was not over by 03:45, or never made (`pv_backup_deadline` sees it). It goes on.

Trigger the DAG by hand to try again; the form takes today or yesterday. Clearing single tasks of an old run
is no substitute: it is refused, for what is exported now must not be filed under an old day.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Asset, CronTriggerTimetable, TriggerRule, chain

from pv_backup.dag_basics import LONG_STEP, PARIS, Tag, day_form
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.back_up_roles import BackUpRolesOperator
from pv_backup.operators.check_source import CheckSourceOperator
from pv_backup.operators.open_day import OpenDayOperator
from pv_backup.operators.publish_manifest import PublishManifestOperator
from pv_backup.operators.record_success import RecordSuccessOperator
from pv_backup.operators.stream_export import StreamDumpOperator
from pv_backup.operators.verify_upload import VerifyUploadOperator
from pv_backup.services.artefacts import ArtefactType

with DAG(
    dag_id="pv_backup_daily_dump",
    description="Encrypted dump of the day: streamed, read back, published",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 3 * * *", timezone=PARIS),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.BACKUP],
    params=day_form(),
):
    open_the_day = OpenDayOperator(task_id="open_the_day", artefact_type=ArtefactType.PG_DUMP)
    backup_id = open_the_day.output

    check_the_source = CheckSourceOperator(task_id="check_the_source", backup_id=backup_id)
    # Roles that failed are made up for by a later run, which finds the dump itself closed and skips it.
    back_up_roles = BackUpRolesOperator(task_id="back_up_roles", trigger_rule=TriggerRule.NONE_FAILED)
    stream_dump = StreamDumpOperator(task_id="stream_dump", backup_id=backup_id, execution_timeout=LONG_STEP)
    verify_upload = VerifyUploadOperator(task_id="verify_upload", backup_id=backup_id, execution_timeout=LONG_STEP)
    publish_manifest = PublishManifestOperator(task_id="publish_manifest", backup_id=backup_id)
    record_success = RecordSuccessOperator(
        task_id="record_success", backup_id=backup_id, outlets=[Asset("pv_backup_daily_dump")]
    )

    chain(open_the_day, check_the_source, stream_dump, verify_upload, publish_manifest, record_success)
    check_the_source >> back_up_roles
