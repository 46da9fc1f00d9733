"""
# Compliance

Every day at 06:00 Europe/Paris, and after every drill that failed: is any restoration drill missing, and is somebody
being asked about every incident that is open? An incident is closed by an action plan and by nothing else, so whoever
marks a question as done, fails it or deletes its run is asked anew here.

| task | does |
| --- | --- |
| `look_for_incidents` | opens an incident for each missing drill; lists the open ones that no living run asks about |
| `ask_about_each` | starts one run of `pv_backup_incident` for each of them; skipped: there is none |

A drill is missing if none of both legs ended in the last 90 days (INV-47-09; before the first, since the first backup),
or if one began over 48 hours ago (its run may last 46) and left neither evidence nor an incident. A plan for an overdue
drill has seven days to become a drill; then there is a new incident.

**Paged?** The alert carries a code:

* DRILL-OVERDUE in `look_for_incidents`: see whether `pv_backup_restoration_drill` is paused, and trigger it, both legs.
* DRILL-UNPROVEN in `look_for_incidents`: a drill's run was killed or deleted, or its evidence could not be signed. Look
  at that run, mend what it says, and trigger `pv_backup_restoration_drill`.
* CONFIGURATION: `pv_backup_incident` is paused, so nobody is asked. Unpause it, and trigger this DAG. Or a setting or
  connection is missing; the message names it.
* REFUSED: more incidents are open than can be asked about at once; it says how many wait. Answer some.
* ERR-47-06: the journal is down. Bring it back; tomorrow's run makes up for it.
* ERR-47-08: the task's process was killed. Trigger it again.

There is no harm in triggering it by hand: a run that finds nothing new starts nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronTriggerTimetable

from pv_backup.dag_basics import PARIS, Tag
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.compliance import LookForIncidentsOperator
from pv_backup.operators.start_run import StartOnceOperator

INCIDENT = "pv_backup_incident"

with DAG(
    dag_id="pv_backup_compliance",
    description="Finds missing drills, and sees that people are asked about every open incident",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 6 * * *", timezone=PARIS),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # It alone sees that people are asked. Who wants nobody to be asked must pause it, and be seen to.
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.RESTORATION],
):
    look_for_incidents = LookForIncidentsOperator(task_id="look_for_incidents", incident_dag_id=INCIDENT)
    StartOnceOperator.partial(task_id="ask_about_each", trigger_dag_id=INCIDENT).expand_kwargs(
        look_for_incidents.output
    )
