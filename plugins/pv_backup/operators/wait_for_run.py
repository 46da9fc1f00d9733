"""Wait for the end of another DAG's run, with a deadline and without holding a worker."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseOperator, DagRunState, TaskInstanceState
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferralError, TaskDeferralTimeout

from pv_backup.operators.configuration import load_settings
from pv_backup.operators.days import day_of_run
from pv_backup.operators.escalation import relaunch_failed
from pv_backup.triggers.run_end import RunEndTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.settings import Settings

# A trigger ends itself at its deadline; only a triggerer that is dead lets this pass.
_TRIGGERER_PATIENCE: Final = timedelta(seconds=30)
# The relaunch ends by itself at its timeout, and is to be heard before the watchdog calls it late.
_RELAUNCH_MARGIN: Final = timedelta(minutes=2)


class WaitForRunOperator(BaseOperator):
    """Base of the two waits; the run awaited must end in success, in time.

    :param dag_id_to_await: the DAG whose run it is.
    :param run_id_to_await: the run; `{day}` in it stands for the day, `YYYY-MM-DD`. (templated)
    :param poll_interval: seconds between two questions.
    """

    template_fields: Sequence[str] = ("run_id_to_await",)

    def __init__(self, *, dag_id_to_await: str, run_id_to_await: str, poll_interval: float = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dag_id_to_await = dag_id_to_await
        self.run_id_to_await = run_id_to_await
        self.poll_interval = poll_interval

    @abstractmethod
    def deadline(self, context: Context, settings: Settings) -> datetime:
        """When waiting is over."""

    def execute(self, context: Context) -> None:
        """Leave the waiting to the triggerer."""
        deadline = self.deadline(context, load_settings())
        self.log.info("waiting for run %s of %s until %s", self._run_id(context), self.dag_id_to_await, deadline)
        self.defer(
            trigger=RunEndTrigger(
                dag_id=self.dag_id_to_await,
                run_id=self._run_id(context),
                deadline=deadline.isoformat(),
                poll_interval=self.poll_interval,
            ),
            method_name="execute_complete",
            timeout=max(deadline - datetime.now(UTC), timedelta()) + _TRIGGERER_PATIENCE,
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """Judge how the run ended.

        :raises RelaunchFailed: ERR-47-05, if it failed or is late.
        """
        run = f"run {self._run_id(context)} of {self.dag_id_to_await}"
        remedy = (
            f"open that run, mend what its alert and log name, then trigger pv_backup_relaunch for "
            f"{day_of_run(context)} by hand; nothing more happens by itself"
        )
        match event["state"]:
            case DagRunState.SUCCESS:
                self.log.info("%s succeeded", run)
            case DagRunState.FAILED:
                raise relaunch_failed(context, f"{run} failed", remedy=remedy)
            case None:
                raise relaunch_failed(context, f"{run}: whether it ended is not known, time is up", remedy=remedy)
            case state:
                raise relaunch_failed(context, f"{run} did not end in time, it is {state}", remedy=remedy)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Ask here when the triggerer failed us, so that its death does not hide how the run ended."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralTimeout, TaskDeferralError) as failure:
            self.log.warning("the triggerer did not keep its word: %s", failure)
            state = context["ti"].get_dagrun_state(self.dag_id_to_await, self._run_id(context))
            return self.execute_complete(context, {"state": state})

    def _run_id(self, context: Context) -> str:
        return self.run_id_to_await.format(day=day_of_run(context))


class WaitForRelaunchOperator(WaitForRunOperator):
    """The watchdog's wait for the relaunch, `relaunch_timeout_s` and a little more.

    :param unless_succeeded: the task that saw the backup; then there was no relaunch, and this one ends skipped.
    """

    def __init__(self, *, unless_succeeded: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unless_succeeded = unless_succeeded

    def execute(self, context: Context) -> None:
        """Wait, also for a relaunch that another run of the watchdog started."""
        if self._sensor_state(context) == TaskInstanceState.SUCCESS:
            raise AirflowSkipException("the backup is there")
        super().execute(context)

    def deadline(self, context: Context, settings: Settings) -> datetime:
        """From now on."""
        return datetime.now(UTC) + timedelta(seconds=settings.relaunch_timeout_s) + _RELAUNCH_MARGIN

    def _sensor_state(self, context: Context) -> str | None:
        ti = context["ti"]
        run_id = context["run_id"]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[self.unless_succeeded], run_ids=[run_id])
        state: str | None = states.get(run_id, {}).get(self.unless_succeeded)
        return state


class WaitForDumpOperator(WaitForRunOperator):
    """The relaunch's wait for the dump; the relaunch as a whole has `relaunch_timeout_s`."""

    def deadline(self, context: Context, settings: Settings) -> datetime:
        """From the start of the relaunch on."""
        return relaunch_deadline(context, settings)


def relaunch_deadline(context: Context, settings: Settings) -> datetime:
    """When a relaunch is late: `relaunch_timeout_s` after its run began."""
    run = context["dag_run"]
    return (run.start_date or run.run_after) + timedelta(seconds=settings.relaunch_timeout_s)
