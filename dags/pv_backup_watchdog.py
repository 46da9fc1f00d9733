"""
# Watchdog (flow F5)

Every day at 04:00 Europe/Paris: is the day's dump in the bucket, object and manifest both? If it is not there after
`watchdog_wait_s`, people are told, and `pv_backup_relaunch` is started, once for a day, and waited for.

It reads the bucket and nothing else: it shares neither code nor database with the dump (INV-47-06), so what
breaks the dump does not silence it. Green: the backup was there, or the relaunch made it.

| task | does |
| --- | --- |
| `wait_for_backup` | looks for object and manifest; absent or unseen: warns |
| `start_relaunch` | starts the run `watchdog__YYYY-MM-DD` of `pv_backup_relaunch`, if it does not exist |
| `wait_for_relaunch` | waits for its end, `relaunch_timeout_s` and two minutes; failed or late: escalates |

**Paged?** The alert carries a code:

* WATCHDOG-ABSENT in `wait_for_backup`, a warning: the relaunch is on its way. Nothing to do yet; if it says that S3
  does not answer, look there.
* ERR-47-05 in `wait_for_relaunch`, critical: the relaunch failed or is late, and nothing more happens by itself. Open
  its run, mend what its alerts name, then trigger `pv_backup_relaunch` by hand.
* ERR-47-05 in `start_relaunch`, critical: `pv_backup_relaunch` is paused. Unpause it, and trigger it by hand.
* CONFIGURATION: a setting or connection is missing, the message names it; the relaunch is started all the same.
* ERR-47-08: the task's worker died. Of `wait_for_backup`: the relaunch was started, and ends at once if the backup is
  there. Of another: look at `pv_backup_relaunch`.

Trigger it by hand to look again; the form takes today or yesterday. A relaunch that the watchdog started once is
not started again by it: for another one trigger `pv_backup_relaunch`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronTriggerTimetable, TriggerRule, chain

from pv_backup.dag_basics import BASIC_ARGS, PARIS, Tag, day_form
from pv_backup.notifiers.lines import SecondLine
from pv_backup.notifiers.mail import MailNotifier
from pv_backup.notifiers.webhook import WebhookNotifier
from pv_backup.operators.escalation import RELAUNCH, WATCHDOG_RUN_ID
from pv_backup.operators.start_run import StartRunOperator
from pv_backup.operators.wait_for_run import WaitForRelaunchOperator
from pv_backup.sensors.published_backup import PublishedBackupSensor

with DAG(
    dag_id="pv_backup_watchdog",
    description="Sees from outside whether the day has its dump; if not: warns, relaunches, escalates",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 4 * * *", timezone=PARIS),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # No memory of what was told: that is in the journal, which the watchdog may not need.
    default_args={**BASIC_ARGS, "on_failure_callback": [WebhookNotifier(), MailNotifier()]},
    on_failure_callback=[SecondLine(WebhookNotifier()), SecondLine(MailNotifier())],
    tags=[Tag.PV_BACKUP],
    params=day_form(),
):
    # Not retried: its wait is its retry, and what keeps it from seeing the backup is a reason to make one.
    wait_for_backup = PublishedBackupSensor(
        task_id="wait_for_backup", relaunch_dag_id=RELAUNCH, relaunch_run_id=WATCHDOG_RUN_ID, retries=0
    )
    start_relaunch = StartRunOperator(
        task_id="start_relaunch",
        trigger_dag_id=RELAUNCH,
        trigger_run_id=WATCHDOG_RUN_ID,
        reason="the watchdog saw no backup",
        trigger_rule=TriggerRule.ALL_FAILED,
    )
    # Also after a skipped start: then another run of the watchdog was quicker by a moment.
    wait_for_relaunch = WaitForRelaunchOperator(
        task_id="wait_for_relaunch",
        dag_id_to_await=RELAUNCH,
        run_id_to_await=WATCHDOG_RUN_ID,
        unless_succeeded="wait_for_backup",
        trigger_rule=TriggerRule.NONE_FAILED,
    )

    chain(wait_for_backup, start_relaunch, wait_for_relaunch)
