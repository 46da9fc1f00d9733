"""
# Retention (flow F8)

Every day at 05:00 Europe/Paris: a backup that succeeded more than 30 days ago becomes EXPIRED, and an expired one that
the bucket no longer has becomes DELETED. Nothing is deleted here: the bucket's lifecycle rule does that, and the
backup user may not. The run also looks whether each backup of the last 30 days is where it must be.

| task | does |
| --- | --- |
| `follow_the_backups` | looks for every backup in the bucket, then makes the moves that are due |

All is looked at before anything is moved: an outage of S3 changes nothing, and the next run makes up for it.

**Paged?** The alert and the line of `follow_the_backups` carry a code; each is told once, and again after a day:

* VANISHED: the journal says SUCCESS, and the bucket does not have that backup, or no longer as it was published. Find
  out who deletes or overwrites there. The bucket is versioned: `aws s3api list-object-versions --prefix KEY` shows what
  an administrator can bring back by removing the delete marker. If *all* vanished, see whether `PV_BACKUP_BUCKET` names
  the right bucket; none is recorded as DELETED in such a run.
* LIFECYCLE (a warning): backups that expired over a week ago are still there. Look at the bucket's lifecycle rule.
* ERR-47-03: S3 is away. Bring it back; nothing was changed, and tomorrow's run makes up for it.
* ERR-47-06: the journal is down. Likewise; moves that were made stand.
* FAILED_FORMAT, CONFIGURATION: the message names the row, or what S3 refuses. All other backups were followed.
* ERR-47-08: the task's process was killed. The next run goes on.

There is no harm in triggering it by hand: a run that finds nothing due changes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronTriggerTimetable

from pv_backup.dag_basics import PARIS, Tag
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.retention import RetentionOperator

with DAG(
    dag_id="pv_backup_retention",
    description="Backups that are 30 days old: EXPIRED, and DELETED once the bucket let them go",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 5 * * *", timezone=PARIS),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.BACKUP],
):
    RetentionOperator(task_id="follow_the_backups")
