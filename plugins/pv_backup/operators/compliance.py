"""See that people are asked for the action plan of every open incident, and that nothing else closes it (F4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.standard.operators.hitl import HITLEntryOperator
from airflow.sdk import DagRunState
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.configuration import ConnectionIds
from pv_backup.operators.metrics import report_backups
from pv_backup.operators.workbench import journal_sessions
from pv_backup.services.alerts import Level
from pv_backup.services.drill_errors import DrillOverdue, DrillUnproven, PlanMissing
from pv_backup.services.errors import ConfigurationError, PvBackupError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.compliance import Compliance
    from pv_backup.services.incidents import Incident
    from pv_backup.services.settings import Settings

#: The field of the form, and of the answer.
ACTION_PLAN: Final = "action_plan"
CLOSED_BY: Final = "closed_by"
#: Questions that may wait at once. One occupies no worker, so the bound only keeps a flood from Airflow's own tables.
MOST_AT_ONCE: Final = 256

_LIVING: Final[list[str]] = [DagRunState.QUEUED, DagRunState.RUNNING]
# Of alerts; a question is settled by name, for several may be open in one DAG.
_ASKED: Final = "asked "
# Runs of one incident that are looked for at once; their names go into one address, which must stay short.
_WINDOW: Final = 64


class LookForIncidentsOperator(BackupStepOperator):
    """Find the incidents that nobody is being asked about, those of missing drills included (INV-47-09).

    :param incident_dag_id: the DAG that asks, one run an incident.
    """

    def __init__(self, *, incident_dag_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.incident_dag_id = incident_dag_id

    def step(self, context: Context, settings: Settings) -> list[dict[str, Any]]:
        """Return `trigger_run_id` and `conf` of each run to start.

        :raises ConfigurationError: if the DAG that asks is paused: nobody would be asked, and no answer be heard.
        """
        from pv_backup.operators.alerting import settle

        compliance = _compliance(self.connections)
        for incident in compliance.look():
            self._tell(context, incident)
        report_backups(self.connections)
        open_incidents = compliance.open_incidents()
        if open_incidents and context["ti"].get_dag(self.incident_dag_id).is_paused:
            raise ConfigurationError(
                f"{self.incident_dag_id} is paused, and {len(open_incidents)} incidents wait for an action plan",
                remedy=f"unpause {self.incident_dag_id}, then trigger this DAG again",
            )
        runs = [run for incident in open_incidents if (run := self._run_to_start(context, incident))]
        waiting = len(open_incidents) - MOST_AT_ONCE
        # What is told again below must not be over in between.
        settle(context, lambda code: waiting <= 0 or code != PlanMissing.code, connections=self.connections)
        if waiting > 0:
            self._tell_of_the_rest(context, waiting)
        return runs

    def _run_to_start(self, context: Context, incident: Incident) -> dict[str, Any] | None:
        """One more run if none of this incident lives: while it is open, whoever ended the last one looked away.

        Any of them may have been deleted, by a person or with Airflow's old records, so all are looked for: until
        there is none among as many numbers as were ever deleted in a row.
        """
        free = ""
        for first in count(1, _WINDOW):
            run_ids = [f"{incident.incident_id}__{number}" for number in range(first, first + _WINDOW)]
            if self._runs(context, run_ids, states=_LIVING):
                self.log.info("a run asks for the plan of incident %s already", incident.incident_id)
                return None
            there = self._runs(context, run_ids)
            if there < _WINDOW and not free:
                free = next(run_id for run_id in run_ids if not self._runs(context, [run_id]))
            if not there:
                break
        return {"trigger_run_id": free, "conf": {"incident_id": incident.incident_id}}

    def _runs(self, context: Context, run_ids: list[str], **which: Any) -> int:
        return int(context["ti"].get_dr_count(dag_id=self.incident_dag_id, run_ids=run_ids, **which))

    def _tell_of_the_rest(self, context: Context, waiting: int) -> None:
        from pv_backup.operators.alerting import alert_of

        error = PlanMissing(
            f"{waiting} more incidents are open than people can be asked about at once, which is {MOST_AT_ONCE}",
            remedy=f"answer some questions of {self.incident_dag_id}; each answer lets the next question through",
        )
        alert_of(context, error, backup_id=None, connections=self.connections, incident=PlanMissing.code)

    def _tell(self, context: Context, incident: Incident) -> None:
        from pv_backup.operators.alerting import alert_of

        kinds: dict[str, type[PvBackupError]] = {kind.code: kind for kind in (DrillOverdue, DrillUnproven)}
        error = kinds[incident.code](incident.cause, remedy=incident.next_step)
        # With a slash: only its action plan ends it, and no run of this DAG.
        name = f"{incident.code}/{incident.incident_id}"
        alert_of(context, error, backup_id=None, connections=self.connections, incident=name)


class AskForPlanOperator(HITLEntryOperator):
    """Ask until somebody says what will be done; no default answers in their place, and no deadline closes anything.

    The question waits outside any worker. `execution_timeout` would be its deadline, so there is none:
    `response_timeout` is, after which the task fails and the next look asks anew.

    :param incident_id: the incident. (templated)
    :param connections: the Airflow connections to use.
    """

    template_fields: Sequence[str] = (*HITLEntryOperator.template_fields, "incident_id")

    def __init__(self, *, incident_id: str, connections: ConnectionIds | None = None, **kwargs: Any) -> None:
        super().__init__(**{"subject": "Action plan", "options": ["Close the incident"], **kwargs})
        self.incident_id = incident_id
        self.connections = connections or ConnectionIds()

    def execute(self, context: Context) -> Any:
        """Ask, and tell people once that they are asked."""
        from pv_backup.services.incident_texts import question_body, question_subject

        incident = _compliance(self.connections).incident(self.incident_id)
        if not incident.is_open:
            raise AirflowSkipException(f"incident {self.incident_id} was closed by {incident.closed_by}")
        self.subject, self.body = question_subject(incident), question_body(incident)
        try:
            super().execute(context)
        except TaskAwaitingInput:
            self._tell(context, incident)
            raise

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the plan and who gave it; ask again if the answer has none.

        :raises PlanMissing: if nobody answered in time.
        """
        from pv_backup.services.incidents import check_closer, check_plan

        if event.get("error_type") == "timeout":
            raise PlanMissing(
                f"nobody has said within {self.response_timeout} what will be done about incident {self.incident_id}",
                remedy="trigger pv_backup_compliance, which asks anew, and answer; it does so daily by itself",
            )
        if "error" not in event:
            plan, name = (event["params_input"] or {}).get(ACTION_PLAN), _name_of(event["responded_by_user"])
            try:
                check_plan(plan)
                check_closer(name)
            except PlanMissing as refused:
                self.log.warning("the answer of %s closes nothing, the question stands again: %s", name, refused)
                _compliance(self.connections).refuse_plan(
                    self.incident_id, action_plan=str(plan or ""), said_by=name, reason=refused.what
                )
                return self.execute(context)
        super().execute_complete(context, event)
        return {ACTION_PLAN: plan, CLOSED_BY: name}

    def _tell(self, context: Context, incident: Incident) -> None:
        """Whatever goes wrong here is logged: the question is there, and the UI shows it."""
        from pv_backup.notifiers.failures import alert_of_error
        from pv_backup.operators.alerting import alarm
        from pv_backup.services.incident_texts import call_for_plan

        try:
            asked = PlanMissing(call_for_plan(incident), remedy="say on the page below what will be done")
            alert = replace(
                alert_of_error(context, asked),
                level=Level.WARNING,
                code=incident.code,
                run_url=self.generate_link_to_ui(task_instance=context["ti"]),
                # Each asking is news, a second answer without a plan is not.
                incident=f"{context['ti'].dag_id}/{_ASKED}{self.incident_id} {context['run_id']}",
            )
            alarm(self.connections).tell(alert)
        except Exception:
            self.log.exception("nobody could be told that incident %s waits for its plan", self.incident_id)


class CloseIncidentOperator(BackupStepOperator):
    """Close the incident by the plan that was given, and by nothing else.

    :param incident_id: the incident. (templated)
    :param answer: what :class:`AskForPlanOperator` returned; None if that was marked success by hand. (templated)
    """

    template_fields: Sequence[str] = ("incident_id", "answer")

    def __init__(self, *, incident_id: str, answer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.incident_id = incident_id
        self.answer = answer

    def step(self, context: Context, settings: Settings) -> None:
        """Put the plan on record.

        :raises PlanMissing: without one; the incident stays open.
        :raises RefusedError: if another plan has closed it meanwhile.
        """
        from pv_backup.operators.alerting import settle

        answer = self.answer or {}
        try:
            _compliance(self.connections).close(
                self.incident_id, action_plan=answer.get(ACTION_PLAN, ""), closed_by=answer.get(CLOSED_BY, "")
            )
        except PlanMissing as refused:
            raise PlanMissing(
                f"incident {self.incident_id} stays open: {refused.what}",
                remedy="trigger pv_backup_compliance, which asks anew, and answer; it does so daily by itself",
            ) from None
        report_backups(self.connections)
        mine = f"{_ASKED}{self.incident_id}"
        settle(
            context,
            lambda code: code.startswith(mine) or not code.startswith(_ASKED),
            connections=self.connections,
        )


def _compliance(connections: ConnectionIds) -> Compliance:
    from pv_backup.services.compliance import Compliance

    return Compliance(journal_sessions(connections))


def _name_of(user: Any) -> str:
    """Name and id of who answered, once if they are the same; empty where Airflow does not say."""
    if not user:
        return ""
    name, user_id = str(user.get("name") or ""), str(user.get("id") or "")
    return f"{name} ({user_id})" if name and user_id and name != user_id else name or user_id
