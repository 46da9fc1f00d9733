"""
# Reconciliation (flow F7)

Every five minutes, and so at every start of the scheduler: what a crash left behind is settled, by what the bucket
holds and never by what a row claims. A live run is left alone: it renews its lease.

| task | does |
| --- | --- |
| `settle_what_is_left` | settles staging directories, rows that no run took, orphan uploads, dead runs |

A RUNNING row whose lease ran out becomes SUCCESS if its object and manifest are there and were read back, else its
uploads are aborted and it becomes FAILED. A row that is SCHEDULED for longer than `scheduled_timeout_s` becomes FAILED.
Multipart uploads that no live run can own are aborted: they cost money, and no listing of objects shows them. Staging
directories are looked for on the worker that happens to run the round; each worker also looks when it next stages.

**Paged?** The alert carries a code; each incident is told once, and again after a day:

* ERR-47-08, in the name of the backup's DAG: its worker died, or no run took the day. See what killed it (the OOM
  killer, a restart?). Trigger that DAG for the day, unless the watchdog's relaunch does.
* ERR-47-04, likewise: what a dead run had published does not read back. Keep the marked object, trigger the day again.
* STAGING-LEFT: an export lay in clear on a worker whose processes were all killed. It is purged; see who kills them.
* ERR-47-02, ERR-47-03, ERR-47-06: Vault, S3 or the journal is away, so something could not be
  settled. Bring it back; the next run settles the rest, and all that did not need it is settled already.
* ERR-47-08 of this DAG: the task's own process was killed. The next run goes on.
* CONFIGURATION: the message names the setting, connection or privilege.

There is nothing to trigger by hand, and no harm in it: a run that finds nothing left does nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronTriggerTimetable

from pv_backup.dag_basics import LONG_STEP, PARIS, Tag
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.reconcile import ReconcileOperator

with DAG(
    dag_id="pv_backup_reconciliation",
    description="Dead runs, orphan uploads, forgotten rows: settled by what the bucket holds",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("*/5 * * * *", timezone=PARIS),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.BACKUP],
):
    # Not retried: the next run is its retry. As long as reading a published backup back may take.
    settle_what_is_left = ReconcileOperator(task_id="settle_what_is_left", retries=0, execution_timeout=LONG_STEP)
