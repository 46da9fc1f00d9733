"""
# Incident (flow F4.5)

One run for each open compliance incident, started by `pv_backup_compliance`. It asks for the action plan and closes the
incident by it. There is no other way: the database refuses a closing without a plan, and an incident whose run was
marked as done, failed or deleted is asked about anew the next day.

| task | does |
| --- | --- |
| `ask_for_the_action_plan` | tells people once, then waits for the answer, on no worker; skipped: closed already |
| `close_the_incident` | closes it in the database, with the plan and the name of who gave it |

**To answer:** open the run, task `ask_for_the_action_plan`, tab *Required Actions* (the message has the link). Say what
will be done, by whom and until when. An answer that says nothing is noted under your name, and you are asked again.

**Paged?** A *warning* with the code of the failure: an incident waits for its plan. Its page says what happened and
what to do next. The failure itself was told by its drill. Other codes:

* REFUSED in `ask_for_the_action_plan`: nobody answered for seven days. `pv_backup_compliance` asks anew at 06:00, or at
  once if you trigger it.
* REFUSED in `close_the_incident`: the question was marked as done without an answer, so the incident stays open; or it
  was closed by another plan meanwhile, and the message says by whom.
* FAILED_FORMAT, CONFIGURATION: the message names the value, the setting or the connection.
* ERR-47-06: the journal is down. Bring it back, then clear the failed task; an answer that was given is kept.
* ERR-47-08: the task's process was killed, or somebody marked it as failed. The incident stays open; clear the task, or
  leave it to `pv_backup_compliance`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from pv_backup.dag_basics import Tag
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.compliance import ACTION_PLAN, MOST_AT_ONCE, AskForPlanOperator, CloseIncidentOperator
from pv_backup.services.incidents import PLAN_MAX, PLAN_MIN

UUID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
INCIDENT_ID = "{{ params.incident_id }}"

with DAG(
    dag_id="pv_backup_incident",
    description="Asks for the action plan of one incident, and closes it by nothing else",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=MOST_AT_ONCE,
    # A waiting question counts as no active task; its run does count.
    max_active_tasks=MOST_AT_ONCE,
    # It starts nothing by itself, and paused it would leave people unasked.
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.RESTORATION],
    params={"incident_id": Param(type="string", pattern=UUID_PATTERN, title="Incident", description="Which one.")},
):
    ask_for_the_action_plan = AskForPlanOperator(
        task_id="ask_for_the_action_plan",
        incident_id=INCIDENT_ID,
        params={
            ACTION_PLAN: Param(
                "",
                type="string",
                format="multiline",
                # No minLength: the form is checked when the task starts, before anybody has filled it in.
                maxLength=PLAN_MAX,
                title="Action plan",
                description=f"What will be done, by whom and until when, in at least {PLAN_MIN} characters.",
            )
        },
        response_timeout=timedelta(days=7),
        execution_timeout=None,
    )
    CloseIncidentOperator(task_id="close_the_incident", incident_id=INCIDENT_ID, answer=ask_for_the_action_plan.output)
