"""Start a run of another DAG for the day, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

from pv_backup.operators.days import day_to_open
from pv_backup.operators.escalation import demand_unpaused

if TYPE_CHECKING:
    from airflow.sdk import Context

# The form takes no more.
_REASON_AT_MOST: Final = 500


class StartOnceOperator(TriggerDagRunOperator):
    """Start a run and go on; ends skipped if a run of that name exists.

    It does not wait: a deferred :class:`TriggerDagRunOperator` has no deadline, and fails on a run that exists.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            logical_date=None,
            wait_for_completion=False,
            deferrable=False,
            skip_when_already_exists=True,
            **kwargs,
        )


class StartRunOperator(StartOnceOperator):
    """Start the run of a day unless it exists, so that a retry or a second caller never makes a second one.

    :param trigger_run_id: the run's one name; `{day}` in it stands for the day, `YYYY-MM-DD`. (templated)
    :param reason: what the form of the other DAG gets as its reason. (templated)
    """

    template_fields: Sequence[str] = (*StartOnceOperator.template_fields, "reason")

    def __init__(self, *, trigger_run_id: str, reason: str, **kwargs: Any) -> None:
        super().__init__(trigger_run_id=trigger_run_id, **kwargs)
        self.reason = reason

    def execute(self, context: Context) -> None:
        """Ends skipped if another caller starts the run in this very moment; it is that one's then.

        :raises RelaunchFailed: if the DAG is paused, and so would only queue the run.
        """
        day = day_to_open(context)
        self.trigger_run_id = str(self.trigger_run_id).format(day=day)
        self.conf = {"day": day.isoformat(), "reason": self.reason[:_REASON_AT_MOST]}
        if context["ti"].get_dr_count(dag_id=self.trigger_dag_id, run_ids=[self.trigger_run_id]):
            self.log.info("run %s of %s exists already", self.trigger_run_id, self.trigger_dag_id)
            return
        demand_unpaused(context, self.trigger_dag_id, day)
        super().execute(context)
