"""Settle what a crash left behind (SPEC F7): by what the bucket holds, verified, never by what a row claims."""

from __future__ import annotations

import logging

from pv_backup.services.errors import IntegrityError, PvBackupError, WorkerDied
from pv_backup.services.lease_keeper import LeaseKeeper
from pv_backup.services.manifest import published
from pv_backup.services.models import Outcome
from pv_backup.services.state import Attempt
from pv_backup.services.verification import read_back
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)


def settle_dead_run(bench: Workbench, backup_id: str) -> None:
    """Settle a RUNNING row whose lease has run out.

    Object and manifest there: read back, and SUCCESS if they are what the row recorded; marked and FAILED
    if not. Else the dead run's uploads are aborted and the attempt is FAILED. Taking the lease over first
    keeps a worker that only slept from coming back in the middle.

    :raises RunAlive: if the run is alive after all, or somebody else settles it.
    """
    settle(bench, *bench.keep_expired_lease(backup_id))


def settle(bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> None:
    """Settle an attempt whose lease we hold, and say so in log and audit."""
    with keeper:
        failure = _failure_of(bench, attempt, keeper)
    if failure is None:
        outcome, why = Outcome.SUCCESS, "published, read back and equal; only its success was not recorded"
        bench.machine.succeed(keeper.lease)
    else:
        outcome, why = Outcome.FAILED, failure.what
        bench.machine.fail(attempt.backup_id, error_code=failure.code, error_text=why, lease=keeper.lease)
    bench.audit.record("settled", backup_id=attempt.backup_id, details={"outcome": outcome, "why": why})
    log.warning("%s %s settled as %s: %s", attempt.artefact_type, attempt.day, outcome, why)


def _failure_of(bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> PvBackupError | None:
    if not is_own_backup(bench, attempt):
        bench.store.abort_open_uploads(attempt.object_key)
        return WorkerDied("the worker died: its lease ran out before the backup was published")
    try:
        read_back(bench, attempt, keeper)
    except IntegrityError as error:
        return error
    return None


def is_own_backup(bench: Workbench, attempt: Attempt) -> bool:
    """Whether the bucket holds this very attempt as a published backup."""
    manifest = published(bench.store, attempt.object_key)
    return manifest is not None and manifest.backup_id == attempt.backup_id
