"""Settle what a crash left behind (SPEC F7): by what the bucket holds, verified, never by what a row claims."""

from __future__ import annotations

import logging

from pv_backup.services.manifest import published
from pv_backup.services.verification import Expected, verify_object
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)

WORKER_DIED = "ERR-47-08"
_DEATH = "the worker died: its lease ran out before the backup was published"


def settle_dead_run(bench: Workbench, backup_id: str) -> None:
    """Settle a RUNNING row whose lease has run out.

    Object and manifest there: read back, and SUCCESS if they are what they must be. Else the dead run's
    uploads are aborted and the attempt is FAILED. Taking the lease over first keeps a worker that only
    slept from coming back in the middle.

    :raises RunAlive: if the run is alive after all, or somebody else settles it.
    :raises IntegrityError: if a published backup does not verify; the row is left for a person.
    """
    attempt, keeper = bench.keep_expired_lease(backup_id)
    name = f"{attempt.artefact_type} {attempt.day}"
    with keeper:
        manifest = published(bench.store, attempt.object_key)
        is_whole = manifest is not None and manifest.backup_id == backup_id
        if manifest is not None and is_whole:
            verify_object(bench.store, bench.keys, attempt.object_key, Expected.by_manifest(manifest))
        else:
            bench.store.abort_open_uploads(attempt.object_key)
    if is_whole:
        bench.machine.succeed(keeper.lease)
        log.warning("%s: its worker died after publishing; verified, SUCCESS", name)
    else:
        bench.machine.fail(backup_id, error_code=WORKER_DIED, error_text=_DEATH, lease=keeper.lease)
        log.warning("%s: its worker died before publishing, FAILED", name)
