"""Wait in the triggerer for the end of another DAG's run, until it ends or the time is up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.standard.triggers.external_task import DagStateTrigger
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import TriggerEvent
from airflow.utils.state import DagRunState
from asgiref.sync import sync_to_async

from pv_backup.triggers.looks import looks_until


class RunEndTrigger(DagStateTrigger):
    """Ask for one run's state until it is over or the deadline is; :class:`DagStateTrigger` alone waits for ever.

    :param deadline: RFC 3339, an instant, so that a restarted triggerer does not begin the wait anew.
    :param poll_interval: seconds between two questions.
    """

    def __init__(self, *, dag_id: str, run_id: str, deadline: str, poll_interval: float) -> None:
        super().__init__(
            dag_id=dag_id,
            states=[DagRunState.SUCCESS, DagRunState.FAILED],
            run_ids=[run_id],
            poll_interval=poll_interval,
        )
        self.run_id = run_id
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """All that another triggerer needs to go on."""
        kept = ("dag_id", "run_id", "deadline", "poll_interval")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in kept}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the run's state, the last one seen if the time is up; None if nobody could be asked."""
        async for is_last in looks_until(self.deadline, self.poll_interval):
            state = await self._state()
            if state in self.states or is_last:
                yield TriggerEvent({"state": state})  # type: ignore[no-untyped-call]
                return

    async def _state(self) -> str | None:
        try:
            return await sync_to_async(RuntimeTaskInstance.get_dagrun_state)(self.dag_id, self.run_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, it may be over before the deadline
            self.log.warning("the state of run %s of %s could not be asked: %s", self.run_id, self.dag_id, error)
            return None
