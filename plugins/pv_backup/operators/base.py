"""What all steps of a backup share: what happens when one fails for good."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout

from pv_backup.operators.configuration import ConnectionIds
from pv_backup.operators.kept_in_vault import settings_of_step
from pv_backup.operators.retrying import next_delay, tries_done
from pv_backup.operators.workbench import build_workbench, journal_hook
from pv_backup.services.errors import AttemptOver, AttemptPublished, LeaseLost, RunAlive, explain

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from pv_backup.services.lease_keeper import LeaseKeeper
    from pv_backup.services.leases import Lease
    from pv_backup.services.settings import Settings
    from pv_backup.services.state import Attempt
    from pv_backup.services.workbench import Workbench


# Another worker's row, or an attempt that is published and ends in SUCCESS by settlement.
_NOT_OURS_TO_FAIL = (LeaseLost, RunAlive, AttemptPublished)


class BackupStepOperator(BaseOperator):
    """Base of the steps, so that a failure is journaled wherever it happens.

    When a step fails with no try left, the attempt becomes FAILED with one journal event, here in the task
    itself: no callback has to work for that. People are told by the DAG's notifier.

    :param connections: the Airflow connections to use.
    """

    def __init__(self, *, connections: ConnectionIds | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.connections = connections or ConnectionIds()
        self._lease: Lease | None = None

    @abstractmethod
    def step(self, context: Context, settings: Settings) -> Any:
        """Do the step; the returned value is the task's XCom."""

    def failed_backup_id(self) -> str | None:
        """The attempt that ends when this step fails for good, None before there is one."""
        return None

    def hold(self, bench: Workbench, backup_id: str) -> tuple[Attempt, LeaseKeeper]:
        """Take the attempt's lease over for this task, and remember it for the case that the step fails."""
        attempt, keeper = bench.keep_lease(backup_id)
        self.opened(keeper.lease)
        return attempt, keeper

    def opened(self, lease: Lease) -> None:
        """Remember the lease that this task was granted."""
        self._lease = lease

    def execute(self, context: Context) -> Any:
        """Run the step, and settle the attempt if it fails for good."""
        try:
            settings = settings_of_step(self.connections)
        except Exception as error:
            self._give_up(error)
            raise
        try:
            return self.step(context, settings)
        except AirflowSkipException:
            raise
        except (Exception, AirflowTaskTimeout) as error:
            ti = context["ti"]
            delay = next_delay(error, tries_done(ti.try_number, ti.max_tries), settings)
            if delay is None:
                self._give_up(error)
            else:
                self._keep_for_next_try(delay, settings)
            raise

    def _keep_for_next_try(self, delay: timedelta, settings: Settings) -> None:
        """A task that waits for its next try is not dead, however long the delay: reconciliation must wait too."""
        if self._lease is None:
            return
        from pv_backup.services.leases import Leases

        try:
            leases = Leases(journal_hook(self.connections).sessions())
            leases.hand_over(self._lease, delay.total_seconds() + settings.handover_s)
        except Exception:
            # The error that we came to report goes first; a row that is settled meanwhile refuses the next try.
            self.log.exception("the lease of backup %s could not be kept for the next try", self._lease.backup_id)

    def _give_up(self, error: BaseException) -> None:
        backup_id = self.failed_backup_id()
        try:
            if backup_id is not None and not isinstance(error, _NOT_OURS_TO_FAIL):
                self._fail_attempt(backup_id, error)
        except Exception:
            # Whatever it is, the error that we came to report goes first.
            self.log.exception(
                "backup %s could not be recorded as FAILED; the next run of its day settles it", backup_id
            )

    def _fail_attempt(self, backup_id: str, error: BaseException) -> None:
        from pv_backup.services.state import StateMachine

        code, text, _ = explain(error)
        machine = StateMachine(journal_hook(self.connections).sessions())
        machine.fail(backup_id, error_code=code, error_text=text, lease=self._lease)


class AttemptStepOperator(BackupStepOperator):
    """A step of an attempt that is under way: it works under the attempt's lease.

    :param backup_id: the attempt, as the opening task returned it. (templated)
    """

    template_fields: Sequence[str] = ("backup_id",)

    def __init__(self, *, backup_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backup_id = backup_id

    def failed_backup_id(self) -> str | None:
        """The attempt itself."""
        return self.backup_id

    def step(self, context: Context, settings: Settings) -> Any:
        """Take the lease over, then work."""
        bench = build_workbench(self.connections, settings)
        try:
            attempt, keeper = self.hold(bench, self.backup_id)
        except AttemptOver as over:
            if not over.succeeded:
                raise
            # An earlier try of this task or reconciliation has done all that is left.
            self.log.info("nothing is left to do: %s", over.what)
            return None
        return self.work(context, bench, attempt, keeper)

    @abstractmethod
    def work(self, context: Context, bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> Any:
        """Do the step's work; whoever makes something visible asks the keeper first."""
