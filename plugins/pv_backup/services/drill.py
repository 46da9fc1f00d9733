"""A drill as a whole (SPEC F4): what was ordered, and what the reports of its legs come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

from pv_backup.services.errors import PvBackupError, TargetAhead, WorkerDied
from pv_backup.services.evidence.document import Check, Evidence, Failure, Leg, LegReport, Result, Verdict
from pv_backup.services.restoration.comparison import compare_legs
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.timestamps import rfc3339

LATEST: Final = "latest"


class DrillOrder(BaseModel):
    """What a drill shall restore, settled once at its beginning.

    :ivar target: `latest`, of which each leg takes what is there when it begins; or RFC 3339, the same for both.
    :ivar started_at: RFC 3339 UTC, the drill's beginning.
    :ivar legs: which ways back are tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    drill_id: str
    run_id: str
    target: str
    started_at: str
    legs: list[Leg]

    @classmethod
    def at(cls, target: str, *, drill_id: str, run_id: str, legs: Sequence[Leg], now: datetime) -> Self:
        """Read the target of the form.

        :raises FormatRejected: if it is neither `latest` nor a time with a zone.
        :raises TargetAhead: if it lies in the future.
        """
        if target != LATEST:
            time = RecoveryTarget.at_time(target).time
            assert time is not None  # noqa: S101 - at_time reads a time or raises
            if time > now:
                raise TargetAhead(
                    f"the target {target} lies in the future", remedy="choose a time that has passed, or `latest`"
                )
            target = rfc3339(time)
        return cls(drill_id=drill_id, run_id=run_id, target=target, started_at=rfc3339(now), legs=list(legs))

    @property
    def recovery_target(self) -> RecoveryTarget:
        """As recovery wants it."""
        return RecoveryTarget() if self.target == LATEST else RecoveryTarget.at_time(self.target)

    @property
    def moment(self) -> datetime:
        """The moment whose data shall come back; the age of what came back is counted from it (RPO)."""
        return datetime.fromisoformat(self.started_at if self.target == LATEST else self.target)


def unbegun(leg: Leg, order: DrillOrder, error: BaseException) -> LegReport:
    """The report of a leg that failed before it could look at anything, as far as anybody knows.

    :param error: by which it failed.
    """
    return LegReport(
        leg=leg,
        verdict=Verdict.FAILED,
        started_at=order.started_at,
        finished_at=rfc3339(datetime.now(UTC)),
        failure=Failure.of(error),
    )


def without_a_word(leg: Leg, order: DrillOrder) -> LegReport:
    """The report of a leg whose process ended before it could write one (ERR-47-08)."""
    died = WorkerDied(
        f"the worker of the {leg} leg ended without a word",
        remedy="see who kills processes on that worker (the OOM killer?); its guard has wiped the staging area",
    )
    return unbegun(leg, order, died)


def conclude(order: DrillOrder, reports: Sequence[LegReport], *, bucket: str) -> Evidence:
    """Judge a drill by its legs, and the legs by each other where both came to their end."""
    both = {report.leg: report for report in reports if report.verdict is Verdict.PASSED}
    checks = _compared(both, order) if len(both) == len(Leg) else []
    failures = [report.failure for report in reports if report.failure]
    failures += [Failure.of_check(check) for check in checks if check.result is Result.FAILED]
    # Of a drill with both legs the figures are those of the physical one: it is the way back after a disaster.
    leading = max(reports, key=lambda report: report.leg is Leg.PHYSICAL)
    return Evidence(
        drill_id=order.drill_id,
        run_id=order.run_id,
        target=order.target,
        bucket=bucket,
        started_at=order.started_at,
        finished_at=rfc3339(datetime.now(UTC)),
        verdict=Verdict.FAILED if failures else Verdict.PASSED,
        rto_s=leading.rto_s,
        rpo_s=leading.rpo_s,
        legs=list(reports),
        checks=checks,
        failures=failures,
    )


def _compared(legs: Mapping[Leg, LegReport], order: DrillOrder) -> list[Check]:
    return compare_legs(legs[Leg.LOGICAL], legs[Leg.PHYSICAL], until=order.recovery_target.time)


def unsigned(evidence: Evidence, error: PvBackupError) -> Evidence:
    """The same drill, failed: what can't be signed proves nothing, however well it went."""
    failures = [*evidence.failures, Failure.of(error, check="signature")]
    return evidence.model_copy(update={"verdict": Verdict.FAILED, "failures": failures})
