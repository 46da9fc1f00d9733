"""Settle what a crash left behind (SPEC F7): by what the bucket holds, verified, never by what a row claims."""

from __future__ import annotations

import logging

from pv_backup.services.errors import IntegrityError
from pv_backup.services.lease_keeper import LeaseKeeper
from pv_backup.services.manifest import published
from pv_backup.services.state import Attempt
from pv_backup.services.verification import read_back
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)

WORKER_DIED = "ERR-47-08"
_DEATH = "the worker died: its lease ran out before the backup was published"


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
    error: IntegrityError | None = None
    with keeper:
        is_published = is_own_backup(bench, attempt)
        if is_published:
            try:
                read_back(bench, attempt, keeper)
            except IntegrityError as found:
                error = found
        else:
            bench.store.abort_open_uploads(attempt.object_key)
    if error is not None:
        outcome, code, text = "FAILED", error.code, error.what
    elif is_published:
        outcome, code, text = "SUCCESS", "", "its worker died after publishing; read back and equal"
    else:
        outcome, code, text = "FAILED", WORKER_DIED, _DEATH
    if outcome == "SUCCESS":
        bench.machine.succeed(keeper.lease)
    else:
        bench.machine.fail(attempt.backup_id, error_code=code, error_text=text, lease=keeper.lease)
    bench.audit.record("settled", backup_id=attempt.backup_id, details={"outcome": outcome, "why": text})
    log.warning("%s %s settled as %s: %s", attempt.artefact_type, attempt.day, outcome, text)


def is_own_backup(bench: Workbench, attempt: Attempt) -> bool:
    """Whether the bucket holds this very attempt as a published backup."""
    manifest = published(bench.store, attempt.object_key)
    return manifest is not None and manifest.backup_id == attempt.backup_id
