"""
# Relaunch (flow F6)

The only bridge from the watchdog to the dump; also for operators, who may trigger it as often as they like. It
lets a run that is at work finish, opens a failed day once more, starts `pv_backup_daily_dump` for the day, waits for
it, and sees that journal and bucket have the backup. All of it has `relaunch_timeout_s`.

| task | does |
| --- | --- |
| `wait_for_the_live_run` | waits while a worker holds the day's row under a live lease |
| `schedule_the_day` | FAILED → SCHEDULED, until the circuit breaker; skipped: the day has its backup |
| `start_the_dump` | starts a run of `pv_backup_daily_dump`, one for each run of this DAG |
| `wait_for_the_dump` | waits for its end |
| `confirm_the_backup` | the row is SUCCESS, and the bucket has the published backup |

**Paged?** The alert carries a code:

* *skipped* `schedule_the_day`: the backup is there; there is nothing to do.
* CIRCUIT-BREAKER in `schedule_the_day`: the day failed too often. Remove the cause, raise `max_replanification_cycles`.
* VANISHED: the journal knows a backup that the bucket no longer has. Find out who deleted it; an older version may
  still be there. A closed day is not dumped again: the next day's dump is what counts now.
* ERR-47-05 in `wait_for_the_live_run`, `wait_for_the_dump`: that run failed or is late; its own alert says why.
* ERR-47-05 in `schedule_the_day`: `pv_backup_daily_dump` is paused. Unpause it.
* ERR-47-05 in `confirm_the_backup`: the dump's run is green, but there is no backup. Look at the day's row.
* ERR-47-06: the journal is down. Bring it back, then trigger again.

A run whose id begins with `watchdog__` leaves ERR-47-05 to the watchdog that waits for it, which escalates. After
mending the cause trigger a new run, rather than clearing the old one.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, chain

from pv_backup.dag_basics import Tag, day_form
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.relaunch import ConfirmBackupOperator, ScheduleDayOperator
from pv_backup.operators.start_run import StartRunOperator
from pv_backup.operators.wait_for_run import WaitForDumpOperator
from pv_backup.sensors.live_run import LiveRunSensor

DUMP = "pv_backup_daily_dump"
DUMP_RUN_ID = "relaunch__{{ run_id }}"

with DAG(
    dag_id="pv_backup_relaunch",
    description="Starts the day's dump again, waits for it, and sees that the backup is there",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.BACKUP],
    params=day_form(),
):
    chain(
        LiveRunSensor(task_id="wait_for_the_live_run"),
        ScheduleDayOperator(task_id="schedule_the_day", dump_dag_id=DUMP),
        StartRunOperator(
            task_id="start_the_dump",
            trigger_dag_id=DUMP,
            trigger_run_id=DUMP_RUN_ID,
            reason="pv_backup_relaunch: {{ params.reason or run_id }}",
        ),
        WaitForDumpOperator(task_id="wait_for_the_dump", dag_id_to_await=DUMP, run_id_to_await=DUMP_RUN_ID),
        ConfirmBackupOperator(task_id="confirm_the_backup"),
    )
