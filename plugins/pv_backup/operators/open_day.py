"""Open the day's row, or say why there is nothing to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.days import day_to_open
from pv_backup.operators.workbench import build_workbench
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import DayClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from pv_backup.services.leases import Lease
    from pv_backup.services.settings import Settings
    from pv_backup.services.state import Attempt
    from pv_backup.services.workbench import Workbench


def open_attempt(
    context: Context, bench: Workbench, artefact_type: ArtefactType, opened: Callable[[Lease], None]
) -> Attempt:
    """Open the row of this run's day, RUNNING under a lease that this task leaves to the next.

    :param opened: is told the lease as soon as there is one.

    :raises AirflowSkipException: if the day is closed, naming its backup.
    :raises RunAlive: if another run holds the day.
    :raises CircuitBreakerOpen: if the day failed too often; a person must look first.
    """
    from pv_backup.services.run_start import start_attempt

    try:
        return start_attempt(
            bench,
            artefact_type=artefact_type,
            day=day_to_open(context),
            run_id=f"{context['ti'].dag_id}/{context['run_id']}",
            reason=str(context["params"].get("reason") or context["dag_run"].run_type.value),
            opened=opened,
        )
    except DayClosed as closed:
        raise AirflowSkipException(closed.what) from closed


class OpenDayOperator(BackupStepOperator):
    """Start an attempt for the run's day, so that no two runs ever work on the same day.

    Ends skipped, and with it the whole run, when the day is published already.

    :param artefact_type: what is backed up.
    """

    def __init__(self, *, artefact_type: ArtefactType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.artefact_type = artefact_type
        self._backup_id: str | None = None

    def failed_backup_id(self) -> str | None:
        """The attempt, if the task fails after opening it."""
        return self._backup_id

    def step(self, context: Context, settings: Settings) -> str:
        """Return the attempt's backup_id, by which the following tasks know it."""
        bench = build_workbench(self.connections, settings)
        attempt = open_attempt(context, bench, self.artefact_type, self.opened)
        self._backup_id = attempt.backup_id
        bench.leases.hand_over(attempt.lease, settings.handover_s)
        self.log.info("%s %s is open as backup %s", attempt.artefact_type, attempt.day, attempt.backup_id)
        return attempt.backup_id
