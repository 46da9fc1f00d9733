"""The end of a drill: its document, its proof, its incident (SPEC F4.4, F4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.drill import REPORT, end_of_run
from pv_backup.operators.kept_in_vault import named_connection
from pv_backup.operators.retrying import PATIENT_DELAY, PatientRetryPolicy
from pv_backup.operators.start_run import StartOnceOperator
from pv_backup.operators.workbench import journal_sessions, object_store
from pv_backup.services.drill_errors import DrillFailed
from pv_backup.services.errors import ConfigurationError, PvBackupError, RefusedError, explain
from pv_backup.services.evidence.document import Verdict
from pv_backup.services.evidence.texts import span

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.drill import DrillOrder
    from pv_backup.services.evidence.document import Evidence, LegReport
    from pv_backup.services.settings import Settings


class RecordWaits(PvBackupError):
    """A drill is over and not on record, for want of something that a person must mend.

    :param error: what is wanting; it gives its code.
    :param until: when the last try is over, or the run.
    """

    def __init__(self, drill_id: str, error: BaseException, *, until: datetime) -> None:
        self.code, what, remedy = explain(error)
        delay = span(PATIENT_DELAY.total_seconds())
        super().__init__(
            f"drill {drill_id} is over and can't be put on record: {what}",
            remedy=f"{remedy}. It is tried again every {delay} until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC: "
            f"mended {delay} before that, nothing is lost",
        )


class RecordEvidenceOperator(BackupStepOperator):
    """Put on record what the legs came to, however they ended.

    The database's copy is the lasting one and is written first, in one transaction with the incident; bucket, mail and
    webhook get theirs afterwards, and one that is down is logged and fails nothing. What it can't do without (journal,
    settings, the Vault that may keep both) it waits for, and people hear of that at once.

    :param order_from: the task that settled the target.
    :param legs_from: the tasks of the two legs, the logical one first.
    """

    def __init__(self, *, order_from: str, legs_from: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order_from = order_from
        self.legs_from = legs_from

    def execute(self, context: Context) -> Any:
        """Put it on record, and tell people if that has to wait for them."""
        order = self._order(context)
        try:
            return super().execute(context)
        except (Exception, AirflowTaskTimeout) as error:
            ti, policy = context["ti"], self.retry_policy
            if isinstance(policy, PatientRetryPolicy) and policy.waits(error, ti.try_number, ti.max_tries):
                until = datetime.now(UTC) + policy.waits_for(ti.try_number, ti.max_tries)
                run_ends = end_of_run(context)
                waits = RecordWaits(order.drill_id, error, until=min(until, run_ends) if run_ends else until)
                self._tell_that_it_waits(context, order, waits)
            raise

    def _tell_that_it_waits(self, context: Context, order: DrillOrder, waits: RecordWaits) -> None:
        """Once a drill and cause, on whichever machine: Airflow's callback comes only when the last try has failed."""
        from pv_backup.operators.alerting import alert_of
        from pv_backup.operators.task_memory import TaskMemory

        name, memory = f"{waits.code}/{order.drill_id}", TaskMemory(context["task_state_store"])
        alert_of(context, waits, backup_id=None, connections=self.connections, incident=name, local=memory)

    def step(self, context: Context, settings: Settings) -> dict[str, Any]:
        """Return what the drill's end needs to know, by what stands on record: somebody may have cleared this task.

        :raises JournalUnavailable: ERR-47-06; what stays unrecorded is found by `pv_backup_compliance`.
        """
        from pv_backup.operators.evidence_delivery import deliver
        from pv_backup.services.compliance import Compliance
        from pv_backup.services.drill import conclude, unsigned
        from pv_backup.services.evidence.verification import read_unverified

        order = self._order(context)
        evidence = conclude(order, self._reports(context, order), bucket=settings.bucket)
        try:
            document = self._signed(evidence, settings)
        except PvBackupError as error:
            self.log.error("the evidence can't be signed: %s", error)  # noqa: TRY400 - the incident tells it
            document, evidence = None, unsigned(evidence, error)
        recorded = Compliance(journal_sessions(self.connections)).record(
            drill_id=evidence.drill_id,
            verdict=evidence.verdict,
            document=document,
            rto_s=evidence.rto_s,
            rpo_s=evidence.rpo_s,
            failures=evidence.failures,
        )
        delivered = []
        if recorded.document is not None:
            if recorded.document != document:
                self.log.warning("drill %s was recorded before, and that stands", evidence.drill_id)
                evidence, _ = read_unverified(recorded.document)
            store = partial(object_store, self.connections, settings)
            delivered = deliver(recorded.document, evidence, store=store).delivered
        return {**_conclusion(evidence, recorded.incident_id), "delivered": delivered}

    def _signed(self, evidence: Evidence, settings: Settings) -> str:
        from pv_backup.hooks.vault_transit import VaultTransitHook

        with named_connection(self.connections.vault):
            hook = VaultTransitHook(vault_conn_id=self.connections.vault)
        return hook.evidence_signer(settings.evidence_key).sign(evidence)

    def _order(self, context: Context) -> DrillOrder:
        from pv_backup.services.drill import DrillOrder

        order = context["ti"].xcom_pull(task_ids=self.order_from)
        if order is None:
            error = RefusedError("no drill was begun", remedy=f"see the log of {self.order_from}")
            error.told = True
            raise error
        return DrillOrder.model_validate(order)

    def _reports(self, context: Context, order: DrillOrder) -> list[LegReport]:
        from pv_backup.services.drill import without_a_word
        from pv_backup.services.evidence.document import Leg, LegReport

        reports = []
        for leg, task_id in zip(Leg, self.legs_from, strict=True):
            if leg in order.legs:
                report = context["ti"].xcom_pull(task_ids=task_id, key=REPORT)
                reports.append(LegReport.model_validate(report) if report else without_a_word(leg, order))
        return reports


class DemandProofOperator(BackupStepOperator):
    """Let no drill be green that did not end in proof, and tell people once what failed (ERR-47-07).

    :param conclusion: what :class:`RecordEvidenceOperator` returned. (templated)
    """

    template_fields: Sequence[str] = ("conclusion",)

    def __init__(self, *, conclusion: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conclusion = conclusion

    def step(self, context: Context, settings: Settings) -> None:
        """Close what people were told of this DAG, or tell them.

        :raises DrillFailed: naming the first failure and the incident.
        """
        from pv_backup.operators.alerting import alert_of, settle
        from pv_backup.operators.metrics import report_backups

        report_backups(self.connections)
        ended = _demanded(self.conclusion)
        if ended["verdict"] == Verdict.PASSED and ended["incident_id"] is None:
            settle(context, connections=self.connections)
            return
        failures = ended["failures"] or [{"code": DrillFailed.code, "cause": "an incident stands", "remedy": "read it"}]
        first, more = failures[0], len(failures) - 1
        error = DrillFailed(
            f"drill {ended['drill_id']} failed, incident {ended['incident_id']}: {first['code']} {first['cause']}"
            + (f" (and {more} more)" if more else ""),
            remedy=f"{first['remedy']}. The incident asks for its action plan in pv_backup_incident",
        )
        # An incident of its own each time: the next drill's failure is news, whatever was told of this one.
        incident = f"{error.code}/{ended['drill_id']}"
        alert_of(context, error, backup_id=None, connections=self.connections, incident=incident)
        error.told = True
        raise error


class SeeToIncidentOperator(StartOnceOperator):
    """Have people asked for the action plan at once, not only at the next look of `pv_backup_compliance`.

    :param conclusion: what :class:`RecordEvidenceOperator` returned. (templated)
    """

    template_fields: Sequence[str] = (*StartOnceOperator.template_fields, "conclusion")

    def __init__(self, *, conclusion: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conclusion = conclusion

    def execute(self, context: Context) -> None:
        """Ends skipped where there is no incident.

        :raises ConfigurationError: if the DAG is paused, and so would only queue the run.
        """
        ended = _demanded(self.conclusion)
        if ended["incident_id"] is None:
            raise AirflowSkipException("the drill passed")
        if context["ti"].get_dag(self.trigger_dag_id).is_paused:
            raise ConfigurationError(
                f"{self.trigger_dag_id} is paused, so nobody is asked what will be done about incident "
                f"{ended['incident_id']}",
                remedy=f"unpause {self.trigger_dag_id}, and trigger it",
            )
        self.trigger_run_id = f"drill__{ended['drill_id']}"
        super().execute(context)


def _demanded(conclusion: Any) -> dict[str, Any]:
    """The conclusion, which is missing where somebody marked the task before as done."""
    if conclusion is None:
        raise DrillFailed(
            "the drill has no conclusion: its record was marked as done by hand",
            remedy="trigger pv_backup_restoration_drill again; `pv_backup_compliance` finds what was left unproven",
        )
    return dict(conclusion)


def _conclusion(evidence: Evidence, incident_id: str | None) -> dict[str, Any]:
    return {
        "drill_id": evidence.drill_id,
        "verdict": str(evidence.verdict),
        "incident_id": incident_id,
        "rto_s": evidence.rto_s,
        "rpo_s": evidence.rpo_s,
        "failures": [failure.to_json() for failure in evidence.failures],
    }
