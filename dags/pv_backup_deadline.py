"""
# Deadline of the dump

Every day at 03:45 Europe/Paris: is the night's dump over, a quarter of an hour before the watchdog looks? If not, or if
no run ever opened the day, people are told, while there is still a night to mend it in.

| task | does |
| --- | --- |
| `see_that_the_dump_is_over` | looks at the day's row in the journal |

A dump that failed is not told again here, nor one that is being tried again: its failure was told, and
`pv_backup_relaunch` has a deadline of its own.

**Paged?** The alert carries a code:

* LATE, in the name of `pv_backup_daily_dump`: the message says whether a run is at work. If one is, see which task, and
  what slows it; it goes on. If none is: the DAG is paused, or scheduler or workers stand still.
* ERR-47-06: the journal is down, so nobody can tell. The dump needs it too: bring it back.
* CONFIGURATION: the message names the setting or connection.
* ERR-47-08: the task's process was killed. Look at `pv_backup_daily_dump` yourself.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronTriggerTimetable

from pv_backup.dag_basics import PARIS, Tag
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.deadline import DumpDeadlineOperator

with DAG(
    dag_id="pv_backup_deadline",
    description="Tells when the night's dump is not over at 03:45",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("45 3 * * *", timezone=PARIS),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP],
):
    DumpDeadlineOperator(task_id="see_that_the_dump_is_over", dump_dag_id="pv_backup_daily_dump")
