"""Start a run's attempt, settling first what a dead run left on the day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.leases import Lease
from pv_backup.services.opening import RunDead
from pv_backup.services.reconciliation import is_own_backup, settle, settle_dead_run
from pv_backup.services.state import Attempt
from pv_backup.services.workbench import Workbench


def start_attempt(
    bench: Workbench,
    *,
    artefact_type: ArtefactType,
    day: date,
    run_id: str,
    reason: str,
    opened: Callable[[Lease], None] = lambda lease: None,
) -> Attempt:
    """Open the day's row for a run (SPEC section 3); a row whose worker died is settled and opened anew.

    :param opened: is told each lease that is granted, also when what follows fails.
    :raises DayClosed: if the day is published.
    :raises RunAlive: if another run holds the row under a live lease.
    :raises CircuitBreakerOpen: past `max_replanification_cycles`.
    """

    def open_day() -> Attempt:
        attempt = bench.machine.open_day(
            artefact_type=artefact_type,
            day=day,
            run_id=run_id,
            lease_s=bench.settings.lease_s,
            max_replanification_cycles=bench.settings.max_replanification_cycles,
        )
        opened(attempt.lease)
        return attempt

    try:
        attempt = open_day()
    except RunDead as dead:
        settle_dead_run(bench, dead.backup_id)
        attempt = open_day()
    if is_own_backup(bench, attempt):
        # A cleared run finds its own published attempt, whose success was not recorded any more.
        settle(bench, *bench.keep_lease(attempt.backup_id))
        attempt = open_day()
    bench.audit.record("run_started", backup_id=attempt.backup_id, details={"run_id": run_id, "reason": reason})
    return attempt
