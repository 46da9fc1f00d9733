"""The steps of a restoration drill up to its legs: what is restored, and the two ways back (SPEC F4)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from uuid import uuid4

from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.workbench import journal_sessions, key_wrapper, object_store
from pv_backup.services.drill_errors import LegTooSlow
from pv_backup.services.errors import TargetAhead, TaskStopped, explain
from pv_backup.services.evidence.document import Leg

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.operators.configuration import ConnectionIds
    from pv_backup.services.drill import DrillOrder
    from pv_backup.services.restoration.legs import DrillLeg, LegTools
    from pv_backup.services.settings import Settings

#: The XCom by which a leg's report reaches the evidence, whether the leg passed or failed.
REPORT: Final = "report"
#: Of the run's own limit this much is the record's: evidence or incident must be written before the run is ended.
TO_RECORD: Final = timedelta(hours=5)
# What a leg that comes too late still gets, to say so.
_TO_SAY_SO: Final = timedelta(minutes=1)


class ChooseTargetOperator(BackupStepOperator):
    """Settle what the drill restores, and put its beginning on record.

    From here on the drill ends in evidence or in an incident. A target that no recovery can reach, since it lies after
    the last shipped commit, is refused before that: nobody failed but the form.
    """

    def step(self, context: Context, settings: Settings) -> dict[str, Any]:
        """Return the order for the legs.

        :raises TargetAhead, FormatRejected: by the form's target; no drill was begun then.
        """
        from pv_backup.services.compliance import Compliance
        from pv_backup.services.drill import DrillOrder

        params = context["params"]
        legs = list(Leg) if params.get("leg", "both") == "both" else [Leg(params["leg"])]
        run_id = f"{context['ti'].dag_id}/{context['run_id']}"
        order = DrillOrder.at(
            str(params.get("target") or "latest").strip(),
            drill_id=str(uuid4()),
            run_id=run_id,
            legs=legs,
            now=datetime.now(UTC),
        )
        compliance = Compliance(journal_sessions(self.connections))
        compliance.open_incidents()  # a journal that is away is told at once, not after an hour of looking at WAL
        self._demand_within_reach(order, settings)
        compliance.begin(drill_id=order.drill_id, run_id=run_id, target=order.target, legs=legs)
        self.log.info("drill %s restores %s by the legs: %s", order.drill_id, order.target, ", ".join(legs))
        return order.model_dump(mode="json")

    def _demand_within_reach(self, order: DrillOrder, settings: Settings) -> None:
        """Refuse a time after the last shipped commit; whatever else is wrong is for the legs to find, and fail by."""
        from pv_backup.services.restoration.legs import PhysicalLeg

        if order.recovery_target.time is None:
            return
        try:
            PhysicalLeg(leg_tools(self.connections, settings)).plan(order)
        except TargetAhead:
            raise
        except Exception as error:
            self.log.exception("the physical leg will meet this: %s", explain(error)[1])


class RestoreLegOperator(BackupStepOperator):
    """One way back, in one task: a server is started, used and removed here, so any worker can run it.

    However it fails, it leaves a report that names the failure: the drill's end tells people, once. Only a process that
    is killed leaves none; then a guard ends the server and wipes the staging area.

    :param order: what :class:`ChooseTargetOperator` returned. (templated)
    """

    template_fields: Sequence[str] = ("order",)
    leg: ClassVar[Leg]

    def __init__(self, *, order: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order = order
        self._at_work: DrillLeg | None = None

    @abstractmethod
    def drill_leg(self, tools: LegTools) -> DrillLeg:
        """The leg that is restored."""

    def pre_execute(self, context: Context) -> None:
        """Leave the run time to record how it ended, whatever queues and tries went before this one."""
        run_ends = end_of_run(context)
        if run_ends and self.execution_timeout:
            left = run_ends - TO_RECORD - datetime.now(UTC)
            self.execution_timeout = min(self.execution_timeout, max(left, _TO_SAY_SO))

    def execute(self, context: Context) -> Any:
        """Run the leg, and see that its failure is on record.

        :raises PvBackupError: by which the leg failed.
        """
        from pv_backup.services.drill import DrillOrder, unbegun

        order = DrillOrder.model_validate(self.order)
        if self.leg not in order.legs:
            raise AirflowSkipException(f"the form did not ask for the {self.leg} leg")
        self._at_work = None
        try:
            return super().execute(context)
        except (Exception, AirflowTaskTimeout) as raised:
            error = self._too_slow() if _timed_out(raised) else raised
            report = self._at_work.report(order, error) if self._at_work else unbegun(self.leg, order, error)
            context["ti"].xcom_push(REPORT, report.to_json())
            cast(Any, error).told = True  # of whatever kind: the drill's end tells it
            if error is raised:
                raise
            raise error from raised

    def step(self, context: Context, settings: Settings) -> dict[str, Any]:
        """Restore, check, and leave the report; return what the reader of the XCom tab wants to see of it."""
        from pv_backup.services.drill import DrillOrder

        self._at_work = self.drill_leg(leg_tools(self.connections, settings))
        report = self._at_work.run(DrillOrder.model_validate(self.order))
        context["ti"].xcom_push(REPORT, report.to_json())
        return {"rto_s": report.rto_s, "rpo_s": report.rpo_s, "reached_at": report.reached_at}

    def _too_slow(self) -> LegTooSlow:
        """Final, unlike Airflow's own error: another try would take as long, and the run would end before its record.

        It also keeps Airflow from calling :meth:`on_kill`, whose error would be tried again.
        """
        return LegTooSlow(
            f"the {self.leg} leg was still at work after {self.execution_timeout}, which is all that it had",
            remedy="see by its checks in the evidence, and by the log of its task, what took so long; "
            "make that faster (disk, network, CPU of the worker), then drill again",
        )

    def on_kill(self) -> None:
        """Stop at once: contexts close the server and wipe; what they don't come to, the guard does.

        :raises TaskStopped: in the middle of the task's work.
        """
        raise TaskStopped(f"the {self.leg} leg was told to stop", remedy="trigger the drill again")


class RestoreDumpOperator(RestoreLegOperator):
    """The logical leg: roles, then pg_restore, into a throw-away server."""

    leg = Leg.LOGICAL

    def drill_leg(self, tools: LegTools) -> DrillLeg:
        """The newest dump before the target."""
        from pv_backup.services.restoration.legs import LogicalLeg

        return LogicalLeg(tools)


class RestoreClusterOperator(RestoreLegOperator):
    """The physical leg: base backup, WAL, recovery to the target, promotion, on a throw-away server."""

    leg = Leg.PHYSICAL

    def drill_leg(self, tools: LegTools) -> DrillLeg:
        """The newest base backup that ended before the target."""
        from pv_backup.services.restoration.legs import PhysicalLeg

        return PhysicalLeg(tools)


def end_of_run(context: Context) -> datetime | None:
    """When Airflow ends the run, whatever its tasks are about then; None if it never does."""
    began, limit = context["dag_run"].start_date, context["dag"].dagrun_timeout
    return began + limit if began and limit else None


def leg_tools(connections: ConnectionIds, settings: Settings) -> LegTools:
    """What a leg works with; nothing of the source or the journal, which may be gone."""
    from pv_backup.services.postgres import Server
    from pv_backup.services.restoration.legs import LegTools

    return LegTools(
        store=object_store(connections, settings),
        keys=key_wrapper(connections, settings),
        tools=Server({}, settings.pg_bin_dir),
        contract=settings.contract_directory,
        staging=settings.staging_directory,
    )


def _timed_out(error: BaseException) -> bool:
    """Whether the task's time was over, also where cleaning up then failed in its turn."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, AirflowTaskTimeout):
        link = link.__context__
    return link is not None
