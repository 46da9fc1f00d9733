"""Settle what a crash left behind (SPEC F7): by what the bucket holds, verified, never by what a row claims."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pv_backup.services.errors import (
    IntegrityError,
    JournalUnavailable,
    LeaseLost,
    PvBackupError,
    StoreUnavailable,
    WorkerDied,
)
from pv_backup.services.lease_keeper import LeaseKeeper
from pv_backup.services.manifest import published
from pv_backup.services.models import Outcome
from pv_backup.services.state import Attempt
from pv_backup.services.verification import demand_vault, read_back
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settlement:
    """How an attempt ends that did not end by itself.

    :ivar failure: why it is FAILED; None: it is SUCCESS.
    """

    attempt: Attempt
    failure: PvBackupError | None

    @property
    def outcome(self) -> Outcome:
        """What row and journal say from here on."""
        return Outcome.SUCCESS if self.failure is None else Outcome.FAILED

    @property
    def why(self) -> str:
        """For log and audit."""
        return (
            self.failure.what if self.failure else "published, read back and equal; only its success was not recorded"
        )


Announce = Callable[[Settlement], None]


def settle_dead_run(bench: Workbench, backup_id: str, announce: Announce = lambda settlement: None) -> Settlement:
    """Settle a RUNNING row whose lease has run out.

    Object and manifest there: read back, and SUCCESS if they are what the row recorded; marked and FAILED
    if not. Else the dead run's uploads are aborted and the attempt is FAILED. Taking the lease over first
    keeps a worker that only slept from coming back in the middle.

    :param announce: hears of the settlement right before it is written: who is killed in between has said it once
        too often, and never not at all.
    :raises RunAlive: if the run is alive after all, or somebody else settles it.
    """
    return settle(bench, *bench.keep_expired_lease(backup_id), announce)


def settle(
    bench: Workbench, attempt: Attempt, keeper: LeaseKeeper, announce: Announce = lambda settlement: None
) -> Settlement:
    """Settle an attempt whose lease we hold, and say so in log and audit.

    Where that fails, the lease is given back at once, so that the next who comes may try.
    """
    try:
        with keeper:
            settlement = Settlement(attempt, _failure_of(bench, attempt, keeper))
            announce(settlement)
    except Exception:
        _release(bench, keeper)
        raise
    failure = settlement.failure
    if failure is None:
        bench.machine.succeed(keeper.lease, settled=settlement.why)
    else:
        bench.machine.fail(
            attempt.backup_id,
            error_code=failure.code,
            error_text=failure.what,
            lease=keeper.lease,
            settled=settlement.why,
        )
    log.warning("%s %s settled as %s: %s", attempt.artefact_type, attempt.day, settlement.outcome, settlement.why)
    return settlement


def _failure_of(bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> PvBackupError | None:
    try:
        own = is_own_backup(bench, attempt)
    except StoreUnavailable:
        # S3's own encryption may hang on the same Vault: then it is Vault that someone must look at.
        if (there := bench.store.head(attempt.object_key)) is not None:
            demand_vault(bench.keys, there)
        raise
    if not own:
        bench.store.abort_open_uploads(attempt.object_key)
        return WorkerDied(
            f"the worker of {attempt.artefact_type} {attempt.day} died: its lease ran out before it published",
            remedy="see what killed it (the OOM killer, a restart?); trigger the day again unless a relaunch did",
        )
    try:
        read_back(bench, attempt, keeper)
    except IntegrityError as error:
        return error
    return None


def _release(bench: Workbench, keeper: LeaseKeeper) -> None:
    try:
        bench.leases.hand_over(keeper.lease, 0)
    except (JournalUnavailable, LeaseLost) as error:
        log.warning("the lease of backup %s runs out by itself: %s", keeper.lease.backup_id, error.what)


def is_own_backup(bench: Workbench, attempt: Attempt) -> bool:
    """Whether the bucket holds this very attempt as a published backup."""
    manifest = published(bench.store, attempt.object_key)
    return manifest is not None and manifest.backup_id == attempt.backup_id
